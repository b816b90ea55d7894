"""The screen of a command: its output on stdout or in a file, what there is to say of it on stderr.

In: lines; where the output goes; numbers done and in all, and `say`, which prints a line. Out: a stream; a
bar in a terminal, elsewhere a line now and then. The only file that prints. It knows no job.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pixtell.errors import StorageError

if TYPE_CHECKING:
    from pixtell.training.loop import Progress

Say = Callable[[str], None]


def say(line: str) -> None:
    """One line to a person, on stderr."""
    if sys.stderr is not None:  # closed by whoever started us
        with contextlib.suppress(OSError):  # stderr is full, and there is nobody else to tell
            print(f"pixtell: {line}", file=sys.stderr, flush=True)


def show(line: str) -> None:
    """One line of what was asked for, on stdout. Raises: StorageError where that is full."""
    with open_stdout() as stream:
        print(line, file=stream)


def exit_code(failed: int, total: int) -> int:
    """0 where all pictures could be read, else 1, and how many could not is said."""
    if failed:
        say(f"{failed:,} of {total:,} pictures could not be read.")
    return int(failed > 0)


@contextlib.contextmanager
def open_output(path: Path | None) -> Iterator[TextIO]:
    """Standard output, or a UTF-8 file that appears whole at the end. Raises: StorageError."""
    if path is None:
        with open_stdout() as stream:
            yield stream
        return
    from pixtell.files import atomic_path

    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream,
    ):
        yield stream


@contextlib.contextmanager
def open_stdout() -> Iterator[TextIO]:
    """Standard output, flushed at the end.

    Raises: StorageError where it leads to a full disk; BrokenPipeError where its reader went away.
    """
    if sys.stdout is None:
        raise StorageError("Standard output is closed; write elsewhere, for example with --output.")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as cause:
        drop_stdout()
        raise StorageError(
            f"Standard output cannot be written ({cause.strerror}); free space or write elsewhere."
        ) from cause


def drop_stdout() -> None:
    """Let what is still to be written go nowhere, so that Python does not complain of it on its way out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def training_progress(say: Say) -> Iterator[Callable[["Progress"], None]]:
    """What shows the progress of a training; each validation is a line that stays."""
    with counter("training", say) as count:

        def show(progress: "Progress") -> None:
            count(progress.step, progress.max_steps, f"loss {progress.loss:.3f}")
            if progress.validation is not None:
                numbers = ", ".join(f"{name} {value:.4f}" for name, value in progress.validation.items())
                say(f"step {progress.step:,}: loss {progress.loss:.3f}, {numbers}")

        yield show


@contextlib.contextmanager
def counter(verb: str, say: Say, *, line_seconds: float = 30.0) -> Iterator[Callable[..., None]]:
    """A function (done, total, note="") that shows how far a job is and when it will be done.

    line_seconds: between lines, where stderr is no terminal.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield _line_counter(verb, say, line_seconds)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task(verb, total=None, note="")

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield show


def _line_counter(verb: str, say: Say, line_seconds: float) -> Callable[..., None]:
    last = time.monotonic()
    first: tuple[float, int] | None = (
        None  # when, and how far the job was: a resumed one begins in the middle
    )

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal first, last
        now = time.monotonic()
        first = first or (now, done)
        if now - last >= line_seconds:
            last = now
            left = (now - first[0]) / max(1, done - first[1]) * (total - done)
            say(f"{verb}: {done:,} of {total:,}, about {left / 60:.0f} minutes left {note}".rstrip())

    return show
