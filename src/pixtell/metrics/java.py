"""A Java from outside: its version read, a program run on it within a time, and nothing of it left running.

In: an executable and arguments. Out: that it ended well, and its last word. It does not know the programs.
"""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pixtell.errors import ScoringError

_TAIL_BYTES = 16_384  # of stderr that are kept
_CHECK_SECONDS = 30.0  # a cold Java on a busy machine takes seconds to say its version
# Lines of a stack trace or after an error that say nothing of its cause.
_SILENT_LINES = ("at ", "... ", "Error: Could not create the Java", "Error: A fatal exception")


@dataclass(frozen=True)
class Java:
    """path: of the executable. version: 8 for "1.8.0_392", 17 for "17.0.15". text: as it says it itself."""

    path: str
    version: int
    text: str


def find_java(java: str = "java", *, timeout_seconds: float = _CHECK_SECONDS) -> Java:
    """The Java of that name or path. Raises: ScoringError where there is none that says its version."""
    path = shutil.which(os.path.expanduser(java))  # noqa: PTH111 (a Path would make "./java" a name on PATH)
    if path is None:
        raise ScoringError(f"no Java is found as {java!r}: install one, or name its executable with --java.")
    path = str(Path(path).absolute())  # programs run in another directory
    end = _run([path, "-version"], Path.cwd(), timeout_seconds)
    found = re.search(r'version "(?:1\.)?(\d+)[^"\n]*"', end.stderr)
    if end.timed_out:
        raise ScoringError(f"'{java} -version' {end.reason}: name another Java with --java.")
    if end.code is None:
        raise ScoringError(f"{java!r} {end.reason}: name another Java with --java.")
    if end.code != 0 or found is None:
        raise ScoringError(
            f"'{java} -version' {end.reason} and says {end.last_word!r} instead of its version: name another "
            "Java with --java."
        )
    return Java(path, int(found[1]), found[0].split('"')[1])


def run_java(
    java: Java, arguments: Sequence[str], *, directory: Path, timeout_seconds: float, program: str
) -> str:
    """Run Java in `directory` to its end, and give the last word it had on stderr.

    program: what it is called in errors. However this ends, no process of it is left.

    Raises: ScoringError where it takes longer, ends with an error or does not start.
    """
    end = _run([java.path, *arguments], directory, timeout_seconds)
    if end.code == 0:
        return end.last_word
    advice = "check its jars, and try another Java with --java"
    if end.timed_out:
        advice = "score fewer images at once"
    elif "OutOfMemoryError" in end.last_word:
        advice = "score fewer images at once, or set _JAVA_OPTIONS=-Xmx12g on a machine that has the memory"
    raise ScoringError(f"{program} on Java {java.text} {end.reason} ({end.last_word}): {advice}.")


@dataclass(frozen=True)
class _End:
    """How a process ended, also in words. code: None where it was stopped or never began."""

    code: int | None
    reason: str
    stderr: str = ""
    timed_out: bool = False

    @property
    def last_word(self) -> str:
        """The last line of stderr that tells something: "Caused by: ..." rather than "... 3 more"."""
        lines = [" ".join(line.split()) for line in self.stderr.splitlines()]
        telling = [line for line in lines if line and not line.startswith(_SILENT_LINES)]
        if not telling:
            return "nothing on stderr"
        return "".join(c if c.isprintable() else " " for c in telling[-1][:300]).rstrip(".")


def _run(command: Sequence[str], directory: Path, timeout_seconds: float) -> _End:
    """Run a command in a process group of its own, which is killed whatever happens, Ctrl-C included."""
    try:
        process = subprocess.Popen(
            command,
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as cause:
        return _End(None, f"does not start: {cause.strerror or cause}")
    assert process.stderr is not None
    tail = bytearray()
    # A pipe that nobody reads fills, and the process stands still for ever.
    drain = threading.Thread(target=_drain, args=(process.stderr, tail), daemon=True)
    code: int | None = None
    try:
        drain.start()
        code = process.wait(timeout_seconds)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _kill(process)
        drain.join(5)  # ends with the last process that holds the pipe
    stderr = tail.decode("utf-8", "replace")
    if code is None:
        reason = f"was stopped, for it was not done after {timeout_seconds:,.0f} seconds"
        return _End(None, reason, stderr, timed_out=True)
    reason = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
    return _End(code, reason, stderr)


def _drain(stream: IO[bytes], tail: bytearray) -> None:
    with stream:
        while chunk := os.read(stream.fileno(), 65_536):
            tail += chunk
            del tail[:-_TAIL_BYTES]


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End the process, and on POSIX all that it started; wait for it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.wait()
