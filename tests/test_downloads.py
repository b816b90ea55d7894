"""Downloads, against servers on this machine: whole or not at all, and no network for what is cached.

The hub client reads its settings when it is imported, so each scene of the hub runs in a process of its own.
"""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pixtell.downloads import cache_directory, fetch_url
from pixtell.errors import DownloadError, StorageError

CONTENT = bytes(range(256)) * 8192  # 2 MB: more than one chunk
SHA256 = hashlib.sha256(CONTENT).hexdigest()
COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_FILES = {"config.json": b'{"model_type": "clip"}', "sub/words.txt": b"a\nb\n"}


class StandIn(http.server.BaseHTTPRequestHandler):
    """A web server with one file, and the part of the hub's protocol that a file download uses."""

    server: "StandInServer"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        if self.path == "/weights-1a2b.pth":
            self._send(200, CONTENT)
        elif self.path == "/cut.pth":
            self._send(200, CONTENT[: 3 << 19], length=len(CONTENT))
        elif "/resolve/" in self.path:
            self._answer_as_hub()
        else:
            self._send(404, b"")

    def _answer_as_hub(self) -> None:
        hub_id, _, rest = self.path.strip("/").partition("/resolve/")
        revision, _, filename = rest.partition("/")
        if hub_id == "some/gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        elif hub_id == "some/broken":
            self._send(400, b"")
        elif hub_id != "some/model":
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif revision not in ("main", COMMIT):
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
        elif filename not in HUB_FILES:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = HUB_FILES[filename]
            etag = hashlib.sha1(content).hexdigest()
            self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(length or len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silence."""


class StandInServer(http.server.ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), StandIn)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def server() -> Iterator[StandInServer]:
    with StandInServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_fetch_url_downloads_once_and_then_needs_no_network(server: StandInServer, tmp_path: Path) -> None:
    url = f"{server.url}/weights-1a2b.pth"
    path = fetch_url(url, sha256_prefix=SHA256[:8], destination_dir=tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "weights-1a2b.pth"
    assert path.read_bytes() == CONTENT
    server.shutdown()
    server.server_close()
    assert fetch_url(url, sha256_prefix=SHA256[:8], destination_dir=path.parent) == path


def test_fetch_url_replaces_a_damaged_file(server: StandInServer, tmp_path: Path) -> None:
    (tmp_path / "weights-1a2b.pth").write_bytes(CONTENT[:-1])
    path = fetch_url(f"{server.url}/weights-1a2b.pth", sha256_prefix=SHA256[:8], destination_dir=tmp_path)
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "weights-1a2b.pth",
            f"{{url}} came with the SHA-256 {SHA256[:16]} instead of 00000000: try again, or put a good copy "
            "at {path}.",
        ),
        (
            "cut.pth",
            "{url} was cut after 1,572,864 of 2,097,152 bytes: connect to the network and try again, or put "
            "the file at {path}.",
        ),
        (
            "absent.pth",
            "{url} cannot be downloaded (HTTP 404): connect to the network and try again, or put the file at "
            "{path}.",
        ),
    ],
)
def test_a_bad_download_leaves_nothing_and_one_sentence(
    server: StandInServer, tmp_path: Path, name: str, sentence: str
) -> None:
    url = f"{server.url}/{name}"
    with pytest.raises(DownloadError) as error:
        fetch_url(url, sha256_prefix="00000000", destination_dir=tmp_path)
    assert str(error.value) == sentence.format(url=url, path=tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_fetch_url_without_network(server: StandInServer, tmp_path: Path) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"cannot be downloaded \(.*refused.*\): connect to the network"):
        fetch_url(f"{server.url}/weights-1a2b.pth", sha256_prefix=SHA256[:8], destination_dir=tmp_path)


def test_fetch_url_into_a_folder_that_cannot_be(server: StandInServer, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        fetch_url(
            f"{server.url}/weights-1a2b.pth", sha256_prefix=SHA256[:8], destination_dir=tmp_path / "file"
        )


@pytest.mark.parametrize("url", ["ftp://host/a.pth", "a.pth", "https://host/"])
def test_what_is_no_url_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError) as error:
        fetch_url(url, sha256_prefix="00000000", destination_dir=tmp_path)
    assert str(error.value) == f"{url!r} is not the URL of a file: give one that starts with https://."


def test_the_cache_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PIXTELL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_directory() == tmp_path / ".cache" / "pixtell"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory() == tmp_path / "xdg" / "pixtell"
    monkeypatch.setenv("PIXTELL_CACHE", "~/own")
    assert cache_directory() == tmp_path / "own"


def fetch_in_new_process(
    endpoint: str, hf_home: Path, *calls: tuple[object, ...], offline: bool = False
) -> list[str]:
    """What `fetch_hub_files(*call)` gives for each call: the files of the folder, or the error's sentence."""
    code = """
import json, sys
from pixtell.downloads import fetch_hub_files
from pixtell.errors import DownloadError
answers = []
for hub_id, filenames, optional, revision in json.loads(sys.argv[1]):
    try:
        folder = fetch_hub_files(hub_id, filenames, optional=optional, revision=revision)
        files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        answers.append(" ".join([folder.name, *files]))
    except DownloadError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(hf_home),
        "HF_HUB_OFFLINE": "1" if offline else "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(calls)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    answers: list[str] = json.loads(done.stdout)
    return answers


def test_hub_files_come_from_one_commit_and_are_not_asked_for_again(
    server: StandInServer, tmp_path: Path
) -> None:
    files = ["config.json", "sub/words.txt"]
    found = f"{COMMIT} config.json sub/words.txt"
    assert fetch_in_new_process(server.url, tmp_path, ("some/model", files, ["absent.json"], None)) == [found]
    server.requests.clear()
    pinned = ("some/model", files, ["absent.json"], COMMIT)
    assert fetch_in_new_process(server.url, tmp_path, pinned) == [found]
    assert server.requests == []
    unpinned = ("some/model", files, ["absent.json"], None)
    assert fetch_in_new_process(server.url, tmp_path, pinned, unpinned, offline=True) == [found, found]


def test_each_trouble_of_the_hub_is_one_sentence(server: StandInServer, tmp_path: Path) -> None:
    scenes: list[tuple[tuple[object, ...], str]] = [
        (
            ("some/gated", ["config.json"], [], None),
            f"the hub model some/gated is gated: accept its terms at {server.url}/some/gated, then run "
            "`hf auth login`.",
        ),
        (
            ("some/absent", ["config.json"], [], None),
            f"no model some/absent at {server.url}, or it is private: check the id, or run `hf auth login`.",
        ),
        (
            ("some/model", ["config.json"], [], "v9"),
            "the hub model some/model has no revision 'v9': choose another.",
        ),
        (
            ("some/model", ["absent.json"], [], None),
            "the hub model some/model has no file absent.json: check the id, or choose another model.",
        ),
        (
            ("some/model/more", ["config.json"], [], None),
            "'some/model/more' is no hub id: give one like openai/clip-vit-base-patch32.",
        ),
    ]
    answers = fetch_in_new_process(server.url, tmp_path, *(call for call, _ in scenes))
    assert answers == [sentence for _, sentence in scenes]
    (answer,) = fetch_in_new_process(server.url, tmp_path, ("some/broken", ["config.json"], [], None))
    assert "config.json of the hub model some/broken" in answer
    assert "\n" not in answer


def test_the_hub_out_of_reach(tmp_path: Path) -> None:
    call = ("some/model", ["config.json"], [], None)
    advice = "connect to the network, or give a local directory with the model."
    with StandInServer() as closed:
        endpoint = closed.url
    assert fetch_in_new_process(endpoint, tmp_path, call) == [
        f"config.json of the hub model some/model is not cached and {endpoint} cannot be reached: {advice}"
    ]
    assert fetch_in_new_process(endpoint, tmp_path, call, offline=True) == [
        f"config.json of the hub model some/model is not cached and HF_HUB_OFFLINE is set: {advice}"
    ]
