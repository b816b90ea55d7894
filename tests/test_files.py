"""Files appear whole or not at all, and every refusal of the disk is one sentence."""

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pixtell.errors import CheckpointError, DatasetError, StorageError
from pixtell.files import (
    atomic_directory,
    atomic_path,
    check_writable,
    hash_file,
    read_json,
    write_json,
    write_text,
)

ADVICE = "what was there before is unchanged: free space or name another place."


def run_python(code: str, *arguments: object, file_size_limit: int | None = None) -> str:
    """What `code` prints in a fresh Python, whose files may not grow past the limit (bytes): a full disk."""
    if file_size_limit is not None:
        code = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({file_size_limit},) * 2)\n{code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def old_directory(tmp_path: Path) -> Path:
    """A directory that holds a.txt with the word "old", alone in its folder."""
    path = tmp_path / "run"
    path.mkdir()
    (path / "a.txt").write_text("old")
    return path


def test_a_file_appears_at_the_end_of_the_block_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "a.txt"
    with atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_in_the_block_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_in_the_block_keeps_the_old_directory_and_leaves_no_other(old_directory: Path) -> None:
    def write_half() -> None:
        with atomic_directory(old_directory) as temporary:
            (temporary / "a.txt").write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        write_half()
    assert (old_directory / "a.txt").read_text() == "old"
    assert list(old_directory.parent.iterdir()) == [old_directory]


def test_a_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "run"
    for name in ("first", "second"):
        with atomic_directory(path) as temporary:
            (temporary / "inside").mkdir()
            (temporary / "inside" / name).write_text(name)
    assert [file.name for file in (path / "inside").iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_cannot_take_its_place_leaves_the_old_one(old_directory: Path) -> None:
    def lose_the_new_one() -> None:
        with atomic_directory(old_directory) as temporary:
            temporary.rename(old_directory.with_name("moved"))  # as if the disk went away under it

    with pytest.raises(StorageError):
        lose_the_new_one()
    assert (old_directory / "a.txt").read_text() == "old"


def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom pixtell.files import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        " temporary.write_text('half')\n os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_two_writers_of_one_path_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    threads = [threading.Thread(target=write_text, args=(path, str(i) * 100_000)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text() in {str(i) * 100_000 for i in range(8)}
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "far" / "a.txt")
    write_text(link, "through")
    assert link.is_symlink()
    assert (tmp_path / "far" / "a.txt").read_text() == "through"


def test_a_pipe_is_written_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    thread = threading.Thread(target=lambda: read.append(pipe.read_text()))
    thread.start()
    write_text(pipe, "through")
    thread.join()
    assert read == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_files_of_libraries_that_hide_them_get_the_usual_permissions(tmp_path: Path) -> None:
    usual = tmp_path / "usual"
    usual.touch()
    with atomic_path(tmp_path / "a") as temporary:
        temporary.unlink()
        temporary.touch(mode=0o600)
    with atomic_directory(tmp_path / "b") as temporary:
        (temporary / "c").touch(mode=0o600)
    mode = stat.S_IMODE(usual.stat().st_mode)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "b" / "c").stat().st_mode) == mode


def test_a_full_disk_is_one_sentence() -> None:
    with pytest.raises(StorageError) as error:
        write_text(Path("/dev/full"), "captions\n")
    assert str(error.value) == f"/dev/full cannot be written (No space left on device); {ADVICE}"
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.parametrize(
    ("imports", "write"),
    [
        ("", "temporary.write_bytes(bytes(1_000_000))"),
        (
            "import torch; from safetensors.torch import save_file",
            "save_file({'a': torch.zeros(1_000_000)}, temporary)",
        ),
        ("import torch", "torch.save({'a': torch.zeros(1_000_000)}, temporary.open('wb'))"),
    ],
    ids=["bytes", "safetensors", "torch.save"],
)
def test_a_disk_that_fills_up_keeps_the_old_file(tmp_path: Path, imports: str, write: str) -> None:
    path = tmp_path / "weights"
    path.write_text("old")
    code = (
        f"import sys\n{imports}\nfrom pathlib import Path\nfrom pixtell.errors import StorageError\n"
        "from pixtell.files import atomic_path\n"
        f"try:\n with atomic_path(Path(sys.argv[1])) as temporary:\n  {write}\n"
        "except StorageError as error:\n print(error)"
    )
    said = run_python(code, path, file_size_limit=100_000)
    assert said == f"{path} cannot be written (File too large); {ADVICE}\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_bug_in_the_block_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="bug"), atomic_path(tmp_path / "a"):
        raise RuntimeError("bug")


def test_an_error_of_ours_in_the_block_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="absent cannot be read"), atomic_path(tmp_path / "a"):
        read_json(tmp_path / "absent", DatasetError)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("folder", "Is a directory"), ("file/a.txt", "Not a directory"), ("n" * 300, "File name too long")],
    ids=["folder", "inside a file", "long name"],
)
def test_a_place_that_cannot_be_written_is_known_before_the_work(
    tmp_path: Path, name: str, reason: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("old")
    started = False
    with pytest.raises(StorageError) as error, atomic_path(tmp_path / name):
        started = True
    assert str(error.value) == f"{tmp_path / name} cannot be written ({reason}); {ADVICE}"
    assert not started
    with pytest.raises(StorageError):
        check_writable(tmp_path / name)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder"]


def test_checking_a_place_changes_nothing_there(tmp_path: Path) -> None:
    check_writable(tmp_path / "new.json")
    (tmp_path / "old.json").write_text("old")
    check_writable(tmp_path / "old.json")
    assert [file.name for file in tmp_path.iterdir()] == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    value = {"text": "Größe 日本 \U0001f600", "broken file name": "a\udcff.jpg", "numbers": [1, 2.5, None]}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert "Größe 日本" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_json_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([1]).encode())
    assert read_json(tmp_path / "a.json") == [1]


@pytest.mark.parametrize(
    "content", [b"", b'{"a": 1', b"\xff\xfe\x00", b"[" * 100_000], ids=["empty", "cut", "binary", "deep"]
)
def test_what_is_no_json_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError) as error:
        read_json(path, DatasetError)
    assert str(error.value).startswith(f"{path} is not JSON (")
    assert str(error.value).endswith("); it may be cut short: make it again.")


def test_absent_json_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        read_json(tmp_path / "a.json")
    assert str(error.value) == (
        f"{tmp_path / 'a.json'} cannot be read (No such file or directory); check the path."
    )


def test_hash_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc" * 1_000_000)
    assert hash_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
