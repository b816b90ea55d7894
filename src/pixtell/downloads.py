"""Network -> files in a cache folder, whole or not at all; what is cached needs no network.

In: a URL with the start of its SHA-256, or a hub id with file names. Out: where the files are; not what they
mean. huggingface_hub is imported inside functions; it reads HF_ENDPOINT, HF_HUB_OFFLINE, HF_HOME.
"""

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from pixtell.errors import DownloadError
from pixtell.files import atomic_path, hash_file

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30.0
_COMMIT = re.compile("[0-9a-f]{40}")


def cache_directory() -> Path:
    """Where downloads are kept: $PIXTELL_CACHE, else $XDG_CACHE_HOME/pixtell, else ~/.cache/pixtell."""
    if own := os.environ.get("PIXTELL_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "pixtell"


def fetch_url(url: str, *, sha256_prefix: str, destination_dir: Path) -> Path:
    """The file at `url`, under its own name in `destination_dir`; downloaded unless a whole one is there.

    sha256_prefix: the first digits of its SHA-256, at least 8, as in torch.hub's file names.

    Raises:
        DownloadError: no network, no such file, a download that was cut or has another hash.
        StorageError: `destination_dir` cannot be written.
    """
    name = PurePosixPath(unquote(urlsplit(url).path)).name
    if urlsplit(url).scheme not in ("http", "https") or not name:
        raise DownloadError(f"{url!r} is not the URL of a file: give one that starts with https://.")
    path = destination_dir / name
    if path.is_file() and hash_file(path).startswith(sha256_prefix):
        return path
    with atomic_path(path) as temporary:
        digest = hashlib.sha256()
        with temporary.open("wb") as stream:
            for chunk in _chunks(url, path):
                digest.update(chunk)
                stream.write(chunk)
        found = digest.hexdigest()
        if not found.startswith(sha256_prefix):
            raise DownloadError(
                f"{url} came with the SHA-256 {found[:16]} instead of {sha256_prefix}: try again, or put a "
                f"good copy at {path}."
            )
    return path


def fetch_hub_files(
    hub_id: str, filenames: Sequence[str], *, optional: Sequence[str] = (), revision: str | None = None
) -> Path:
    """The folder with these files of the hub model `hub_id`, all of one commit, which is the folder's name.

    filenames: at least one; "a/b.json" lies in a subfolder. optional: fetched where they exist. revision: a
    commit, branch or tag; None is the main branch. A commit whose files are cached is never asked for again.

    Raises:
        DownloadError: no network and not cached, no such id, revision or file, a gated model.
    """
    folder = Path()
    for filename in filenames:
        path = _fetch_hub_file(hub_id, filename, revision)
        if path is None:
            raise DownloadError(
                f"the hub model {hub_id} has no file {filename}: check the id, or choose another model."
            )
        folder = path.parents[len(PurePosixPath(filename).parts) - 1]
        revision = folder.name
    for filename in optional:
        _fetch_hub_file(hub_id, filename, revision)
    return folder


def _chunks(url: str, path: Path) -> Iterator[bytes]:
    """The bytes at `url`; errors of the network become a DownloadError that names `path` as another way."""
    advice = f"connect to the network and try again, or put the file at {path}"
    request = urllib.request.Request(url, headers={"User-Agent": "pixtell"})
    received = 0
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS) as response:
            expected = response.headers.get("Content-Length")
            while chunk := response.read(_CHUNK_BYTES):
                received += len(chunk)
                yield chunk
    except urllib.error.HTTPError as cause:
        raise DownloadError(f"{url} cannot be downloaded (HTTP {cause.code}): {advice}.") from cause
    except (OSError, http.client.HTTPException) as cause:
        reason = getattr(cause, "reason", None) or cause
        raise DownloadError(f"{url} cannot be downloaded ({reason}): {advice}.") from cause
    if expected is not None and received != int(expected):
        raise DownloadError(f"{url} was cut after {received:,} of {int(expected):,} bytes: {advice}.")


def _fetch_hub_file(hub_id: str, filename: str, revision: str | None) -> Path | None:
    """The path of a file of a hub model in the hub's cache, None where the model has no such file."""
    from huggingface_hub import _CACHED_NO_EXIST, errors, hf_hub_download, try_to_load_from_cache

    try:
        # A commit never changes. What a branch lacks may come with its next commit, so a branch is asked for.
        if revision is not None and _COMMIT.fullmatch(revision):
            cached = try_to_load_from_cache(hub_id, filename, revision=revision)
            if cached is _CACHED_NO_EXIST:
                return None
            if cached is not None:
                return Path(cached)
        offline = not _hub_answers(hub_id, filename, revision)
        return Path(hf_hub_download(hub_id, filename, revision=revision, local_files_only=offline))
    except errors.RemoteEntryNotFoundError:
        return None
    except Exception as cause:  # the hub client lets the errors of its HTTP library through
        raise DownloadError(_explain_hub_error(cause, hub_id, filename, revision)) from cause


def _hub_answers(hub_id: str, filename: str, revision: str | None) -> bool:
    """Whether the hub can be reached: one try; `hf_hub_download` would go on trying for half a minute."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(hub_id, filename, revision=revision))
    except (errors.HfHubHTTPError, errors.HFValidationError):
        return True  # an answer too; the download that follows will meet it again
    except Exception:  # offline mode, no route, no such host, time-out: each HTTP library has its own
        return False
    return True


def _explain_hub_error(cause: Exception, hub_id: str, filename: str, revision: str | None) -> str:
    """One sentence about an error of the hub client, with what to do. The order matters."""
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    if isinstance(cause, errors.HFValidationError):
        return f"{hub_id!r} is no hub id: give one like openai/clip-vit-base-patch32."
    if isinstance(cause, errors.GatedRepoError):
        return (
            f"the hub model {hub_id} is gated: accept its terms at {hub}/{hub_id}, then run `hf auth login`."
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        return f"no model {hub_id} at {hub}, or it is private: check the id, or run `hf auth login`."
    if isinstance(cause, errors.RevisionNotFoundError):
        return f"the hub model {hub_id} has no revision {revision!r}: choose another."
    file = f"{filename} of the hub model {hub_id}"
    if isinstance(cause, errors.LocalEntryNotFoundError):
        reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else f"{hub} cannot be reached"
        advice = "connect to the network, or give a local directory with the model"
        return f"{file} is not cached and {reason}: {advice}."
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0].rstrip(".")
    return f"{file} cannot be downloaded ({reason}): try again, or give a local directory with the model."
