"""Writing files so that they appear whole or not at all, and reading JSON with a readable error.

In: a path and what goes into it. Out: the file, synced and renamed into place. It does not know what the
files mean.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixtell.errors import CheckpointError, PixtellError, StorageError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block ends well, else
    remove it.

    Raises: StorageError where the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """As `atomic_path` for a directory with files in it. An older directory of that name is replaced as a
    whole.

    Raises: StorageError where the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    retired = path.with_name(f".{path.name}.{os.getpid()}.old")
    with _storage_errors(path):
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            for file in sorted(temporary.rglob("*")):
                if file.is_file():
                    _sync(file)
            _sync(temporary)
            if path.exists():  # a directory cannot be renamed over a full one: step aside first
                path.replace(retired)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all. Raises: StorageError."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, whole or not at all. Raises: StorageError."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path, error: type[PixtellError] = CheckpointError) -> Any:
    """Read a JSON file; raises `error` where it is absent, unreadable or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as cause:
        raise error(f"{path} cannot be read ({cause.strerror or cause}); check the path.") from cause
    except (ValueError, RecursionError) as cause:
        raise error(f"{path} is not JSON ({cause}); it may be cut short: make it again.") from cause


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextlib.contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as cause:
        reason = cause.strerror or str(cause)
        raise StorageError(
            f"{path} cannot be written ({reason}); what was there before is unchanged: free space or "
            "name another place."
        ) from cause


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
