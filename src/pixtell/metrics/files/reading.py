"""A file -> its text, lines, JSON or CSV rows, or one sentence that says what is wrong with it.

Text is UTF-8, with a byte order mark or not. It does not know what the text means.
"""

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pixtell.errors import ScoringError


def read_text(path: Path) -> str:
    """Raises: ScoringError where the file cannot be read, is empty or is no text."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as cause:
        raise ScoringError(f"{path} cannot be read ({cause.strerror or cause}); check the path.") from cause
    except UnicodeDecodeError as cause:
        line = cause.object.count(b"\n", 0, cause.start) + 1
        byte = f"0x{cause.object[cause.start]:02x}"
        raise ScoringError(
            f"{path}, line {line:,}: the byte {byte} is not UTF-8; save the file as UTF-8."
        ) from cause
    if "\x00" in text:
        line = text.count("\n", 0, text.index("\x00")) + 1
        raise ScoringError(f"{path}, line {line:,}: a NUL is no text; save the file as UTF-8 text.")
    if not text.strip():
        raise ScoringError(f"{path} is empty; write a caption for each image into it.")
    return text


def split_lines(text: str) -> list[str]:
    """Lines end with LF or CRLF and with nothing else: a caption may hold any other separator."""
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")]


def parse_json(path: Path, text: str, *, line: int | None = None) -> Any:
    """JSON, but an object that names a key twice, whose first value would be lost, is an error.

    Raises: ScoringError; line: the number of the one line that `text` is, if it is one.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as cause:
        where = f"{path}, line {line:,}," if line else str(path)
        if isinstance(cause, _RepeatedKeyError):
            raise ScoringError(f"{where} holds {cause} twice in one object; give each id once.") from cause
        raise ScoringError(f"{where} is not JSON ({cause}); it may be cut short: make it again.") from cause


def read_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV file that are not blank, with the number of their first line.

    Raises: ScoringError at a row whose quotes do not match.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as cause:
            raise ScoringError(
                f"{path}, line {line:,}, is not CSV ({cause}); put a caption with commas or quotes into "
                "quotes, and double the quotes inside."
            ) from cause
        if any(cell.strip() for cell in row):
            yield line, row


class _RepeatedKeyError(ValueError):
    """The key, as `ascii` shows it."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _RepeatedKeyError(ascii(key))
            seen.add(key)
    return value
