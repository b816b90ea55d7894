"""Writing files so that they appear whole or not at all, and reading JSON with a readable error.

In: a path and what goes into it. Out: the file, synced and renamed into place. It does not know what the
files mean.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixtell.errors import CheckpointError, PixtellError, StorageError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block ends well, else
    remove it. Folders that are missing are made; a link is followed; a device or pipe is written as it is.

    Raises: StorageError where the disk is full or the place cannot be written: before the block, if that can
    be known.
    """
    with _storage_errors(path):
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if path.exists() and not path.is_file():
            yield path
            return
        target = Path(os.path.realpath(path))
        if not target.parent.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(target, "tmp")
        try:
            temporary.touch(exist_ok=False)
            mode = temporary.stat().st_mode  # what the umask allows; safetensors makes files 0600
            yield temporary
            temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(target)
            _sync(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """As `atomic_path` for a directory with files in it. An older directory of that name is replaced as a
    whole.

    Raises: StorageError where the disk is full or the folder cannot be written.
    """
    temporary, retired = _beside(path, "tmp"), _beside(path, "old")
    with _storage_errors(path):
        try:
            temporary.mkdir(parents=True)
            mode = temporary.stat().st_mode & 0o666  # what the umask allows
            yield temporary
            for inside in sorted(temporary.rglob("*")):
                if inside.is_file():
                    inside.chmod(mode)  # safetensors writes files that only their owner may read
                _sync(inside)
            _sync(temporary)
            if path.exists():  # a directory cannot be renamed over a full one: step aside first
                path.replace(retired)
            try:
                temporary.replace(path)
            except OSError:
                if retired.exists():
                    retired.replace(path)
                raise
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Find out before a long job whether its result can be written to `path`, which stays as it is.

    Raises: StorageError.
    """
    with contextlib.suppress(_NothingToWriteError), atomic_path(path):
        raise _NothingToWriteError


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all. Raises: StorageError."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all. Raises: StorageError."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    with atomic_path(path) as temporary:
        # What UTF-8 cannot hold (a byte of a file name that is no text) becomes \udcff, as JSON writes it.
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def read_json(path: Path, error: type[PixtellError] = CheckpointError) -> Any:
    """Read a JSON file; raises `error` where it is absent, unreadable or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror or cause}); check the path.") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not JSON ({cause}); it may be cut short: make it again.") from cause


def follow_run(directory: Path) -> Path:
    """A run's directory -> that of its best checkpoint, or of its last; any other directory as it is."""
    for pointer in ("best", "last"):
        if (directory / pointer).is_file():
            return directory / (directory / pointer).read_text(encoding="utf-8").strip()
    return directory


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


class _NothingToWriteError(Exception):
    """Leaves `atomic_path` without a file."""


def _beside(path: Path, suffix: str) -> Path:
    """A hidden name in the same folder, and so on the same disk, that no other writer has."""
    return path.with_name(f".{path.name}.{os.urandom(4).hex()}.{suffix}")


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except PixtellError:
        raise
    except Exception as cause:
        reason = _why_not_written(cause)
        if reason is None:
            raise
        raise StorageError(
            f"{path} cannot be written ({reason}); what was there before is unchanged: free space or "
            "name another place."
        ) from cause


def _why_not_written(error: BaseException) -> str | None:
    """The system's reason in an error, None where the system did not refuse anything.

    safetensors wraps it in an error of its own that ends in "(os error 28)"; torch.save, given an open file,
    raises a RuntimeError from it.
    """
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if isinstance(error, RuntimeError) and isinstance(error.__context__, OSError):
        return _why_not_written(error.__context__)
    wrapped = re.search(r"\(os error (\d+)\)", str(error))
    return os.strerror(int(wrapped[1])) if wrapped else None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
