"""tests/conftest.py: the network guard holds, and skips for want of something are counted and named."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = Path(__file__).with_name("conftest.py")


def run_pytest(tmp_path: Path, test: str, **env: str) -> str:
    """The output of a pytest of its own over one test file beside a copy of our conftest."""
    (tmp_path / "conftest.py").write_text(CONFTEST.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\nmarkers =\n  flickr8k\n  java\n  chromium\n  long\n", encoding="utf-8"
    )
    (tmp_path / "test_it.py").write_text(test, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


def test_loopback_is_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
        socket.create_connection(("localhost", server.getsockname()[1])).close()


def test_threads_are_one_per_process() -> None:
    torch = pytest.importorskip("torch")
    assert torch.get_num_threads() == int(os.environ["OMP_NUM_THREADS"])


def test_leaving_the_machine_fails_the_test(tmp_path: Path) -> None:
    output = run_pytest(
        tmp_path,
        """
import socket, threading, urllib.request

def test_by_number():
    socket.socket().connect(("192.0.2.1", 80))

def test_by_name():
    urllib.request.urlopen("http://example.invalid/")

def test_swallowed_in_a_thread():
    def run():
        try:
            socket.socket().connect_ex(("192.0.2.1", 80))
        except BaseException:
            pass
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

def test_of_virtue():
    pass
""",
    )
    assert "FAILED test_it.py::test_by_number" in output
    assert "FAILED test_it.py::test_by_name" in output
    assert "ERROR test_it.py::test_swallowed_in_a_thread" in output
    assert "tried to reach 192.0.2.1" in output
    assert "ERROR test_it.py::test_of_virtue" not in output


def test_what_was_not_tested_is_counted_and_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    output = run_pytest(
        tmp_path,
        """
import pytest

@pytest.mark.flickr8k
def test_marked():
    raise AssertionError

def test_by_fixture(flickr8k_dir):
    raise AssertionError

@pytest.mark.java
def test_of_java():
    raise AssertionError

def test_here():
    pass
""",
        PIXTELL_FLICKR8K=str(absent),
        PATH="",
    )
    assert "NOT TESTED ON THIS MACHINE" in output
    assert f"2 skipped, {absent} is absent: set PIXTELL_FLICKR8K" in output
    assert "  test_it.py::test_marked\n  test_it.py::test_by_fixture\n" in output
    assert "1 skipped, there is no java: install a Java runtime:\n  test_it.py::test_of_java\n" in output
    assert "1 passed, 3 skipped" in output


def test_files_with_long_tests_go_first(tmp_path: Path) -> None:
    (tmp_path / "test_a.py").write_text("def test_a(): pass\n", encoding="utf-8")
    output = run_pytest(
        tmp_path,
        "import pytest\ndef test_1(): pass\n@pytest.mark.long\ndef test_2(): pass\n",
        PYTEST_ADDOPTS="-v",
    )
    places = [
        output.index(name) for name in ("test_it.py::test_1", "test_it.py::test_2", "test_a.py::test_a")
    ]
    assert places == sorted(places)
