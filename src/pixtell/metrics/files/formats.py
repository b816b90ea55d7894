r"""One caption file -> image ids with their captions.

Hypotheses and references may have any of these forms:

    COCO results        [{"image_id": 17, "caption": "A dog."}, ...]
    COCO annotations    {"annotations": [{"image_id": 17, "caption": "A dog."}, ...], ...}
    lists by id         {"17": ["A dog.", "The dog runs."], ...}
    our results         {"captions": [{"image_id": ..., "caption": ..., "references": [...]}, ...], ...}
    JSON lines          {"image_id": 17, "caption": "A dog."}, or "captions": [...]
    CSV                 a header with image_id and caption; a row a caption
    Flickr tokens       17.jpg#0<TAB>A dog.
    plain text          a line an image; several references are separated by tabs; ids are "1", "2", ...

For image_id JSON and CSV may say image or path, as `pixtell caption` writes it; a line of that command that
has an "error" is an image without a caption. A results file gives its captions as hypotheses and their
references as references. It does not join files.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixtell.errors import ScoringError
from pixtell.metrics.files.reading import parse_json, read_rows, read_text, split_lines

Entry = tuple[str, list[str]]  # image id, its captions

_ID_KEYS = ("image_id", "image", "path")
_TOKEN_LINE = re.compile(r"([^\t]*[^\t\s])#(\d+)\t(.*)", re.DOTALL)
_LONGEST_CAPTION = 1_000_000  # characters; ten thousand words are about 60,000


@dataclass(frozen=True)
class CaptionFile:
    """captions: as they stand in the file; an id may come more than once, and with no caption where making
    one failed. is_plain: the ids are the numbers of lines."""

    path: Path
    captions: list[Entry]
    is_plain: bool = False


def read_hypotheses(path: Path) -> CaptionFile:
    """Raises: ScoringError where the file cannot be read or has another form."""
    return _read(path, as_references=False)


def read_references(path: Path) -> CaptionFile:
    """Raises: ScoringError where the file cannot be read or has another form."""
    return _read(path, as_references=True)


def _read(path: Path, *, as_references: bool) -> CaptionFile:
    text = read_text(path)
    parse = _recognise(path, text)
    captions = parse(path, text, as_references)
    _check_texts(path, captions)
    return CaptionFile(path, captions, is_plain=parse is _parse_plain)


def _recognise(path: Path, text: str) -> Callable[[Path, str, bool], list[Entry]]:
    suffix, start = path.suffix.lower(), text.lstrip()
    if suffix in (".jsonl", ".ndjson"):
        return _parse_json_lines
    if suffix == ".json" or re.match(r"\[\s*[\[{\]]|\{\s*[\"}]", start):
        return _parse_json_lines if _is_lines(start) else _parse_json
    first_line = start.split("\n", 1)[0]
    if _TOKEN_LINE.fullmatch(first_line):
        return _parse_tokens
    columns = {cell.strip('\r "').lower() for cell in first_line.split(",")}
    if suffix == ".csv" or ("caption" in columns and columns.intersection(_ID_KEYS)):
        return _parse_csv
    return _parse_plain


def _is_lines(text: str) -> bool:
    """Whether this JSON text goes on after a first line that is a whole object."""
    first_line, _, rest = text.partition("\n")
    try:
        return bool(rest.strip()) and isinstance(json.loads(first_line), dict)
    except (ValueError, RecursionError):
        return False


def _parse_json(path: Path, text: str, as_references: bool) -> list[Entry]:
    content = parse_json(path, text)
    if isinstance(content, dict):
        if isinstance(content.get("annotations"), list):
            return _entries(path, content["annotations"], "entries", range(len(content["annotations"])))
        if isinstance(content.get("captions"), list) and not content.keys() & _ID_KEYS:
            key = "references" if as_references else "caption"
            return _entries(path, content["captions"], "entries", range(len(content["captions"])), key)
        if _entry(content) is not None:  # JSON lines, of one line
            content = [content]
        elif all(map(_are_texts, content.values())):
            return [(i, [texts] if isinstance(texts, str) else texts) for i, texts in content.items()]
    if isinstance(content, list):
        return _entries(path, content, "entries", range(len(content)))
    raise ScoringError(
        f'{path} holds no captions; give COCO results ([{{"image_id": ..., "caption": ...}}, ...]), COCO '
        'annotations, lists by id ({"image_id": ["...", ...]}), or what pixtell evaluate --output wrote.'
    )


def _parse_json_lines(path: Path, text: str, as_references: bool) -> list[Entry]:
    lines = [(number, line) for number, line in enumerate(split_lines(text), start=1) if line.strip()]
    values = [parse_json(path, line, line=number) for number, line in lines]
    if len(values) == 1 and isinstance(values[0], list):  # COCO results in one line
        return _entries(path, values[0], "entries", range(len(values[0])))
    return _entries(path, values, "lines", [number for number, _ in lines])


def _parse_csv(path: Path, text: str, as_references: bool) -> list[Entry]:
    rows = list(read_rows(path, text))
    header = [cell.strip().lower() for cell in rows[0][1]]
    id_key = next((key for key in _ID_KEYS if key in header), None)
    if id_key is None or "caption" not in header:
        raise ScoringError(
            f"{path} begins with {','.join(header)[:60]!a}; its first line must name the columns image_id "
            "(or image, or path) and caption."
        )
    id_column, caption_column = header.index(id_key), header.index("caption")
    good = [
        (row[id_column].strip(), [row[caption_column]])
        for _, row in rows[1:]
        if len(row) == len(header) and row[id_column].strip()
    ]
    if len(good) < len(rows) - 1:
        bad = [n for n, row in rows[1:] if len(row) != len(header) or not row[id_column].strip()]
        raise ScoringError(
            f"{path}: {len(bad):,} of {len(rows) - 1:,} rows, the first in line {bad[0]:,}, have no {id_key} "
            f"or not {len(header)} fields; put a caption with commas into quotes."
        )
    return good


def _parse_tokens(path: Path, text: str, as_references: bool) -> list[Entry]:
    found: dict[tuple[str, str], Entry] = {}
    bad = []
    for number, line in enumerate(split_lines(text), start=1):
        match = _TOKEN_LINE.fullmatch(line)
        if match and (key := (match[1].strip(), match[2])) not in found:
            found[key] = key[0], [match[3]]
        elif line.strip():
            bad.append(number)
    if bad:
        raise ScoringError(
            f"{path}: {len(bad):,} of {number:,} lines, the first line {bad[0]:,}, are not "
            "image#number<TAB>caption as the first one is, or repeat a number; correct them."
        )
    return list(found.values())


def _parse_plain(path: Path, text: str, as_references: bool) -> list[Entry]:
    lines = split_lines(text)
    if as_references:
        texts = [[cell for cell in line.split("\t") if cell.strip()] for line in lines]
    else:
        texts = [[line] for line in lines]
        tabs = [number for number, line in enumerate(lines, start=1) if "\t" in line]
        if tabs:
            raise ScoringError(
                f"{path}: {len(tabs):,} of {len(lines):,} lines, the first line {tabs[0]:,}, hold a tab, but "
                "plain hypotheses are one caption a line; for captions with image names give CSV or JSON "
                "lines, which pixtell caption writes with --format."
            )
    return [(str(number), captions) for number, captions in enumerate(texts, start=1)]


def _entries(
    path: Path, values: Sequence[Any], what: str, places: Sequence[int], key: str | None = None
) -> list[Entry]:
    """what: the name of the values in a sentence, places: where they stand; key: see `_entry`."""
    entries = [_entry(value, key) for value in values]
    good = [entry for entry in entries if entry is not None]
    if len(good) < len(entries):
        first = next(place for place, entry in zip(places, entries, strict=True) if entry is None)
        at = f"line {first:,}" if what == "lines" else f"at index {first}"
        wanted = "references that are" if key == "references" else "a caption that is"
        raise ScoringError(
            f"{path}: {len(entries) - len(good):,} of {len(entries):,} {what}, the first {at}, lack an "
            f"image_id or {wanted} text; correct them."
        )
    return good


def _entry(value: Any, key: str | None = None) -> Entry | None:
    """{"image_id": 17, "caption": "A dog."} -> ("17", ["A dog."]); None where the value is none.

    key: where the captions stand; None: caption, captions, or error, which stands for none.
    """
    if not isinstance(value, dict):
        return None
    image_id = next((value[name] for name in _ID_KEYS if name in value), None)
    if isinstance(image_id, bool) or not isinstance(image_id, str | int) or image_id == "":
        return None
    if key is None:
        key = next((name for name in ("caption", "captions") if name in value), None)
    captions: Any = value.get(key) if key else [] if "error" in value else None
    if isinstance(captions, list):
        captions = [one.get("caption") if isinstance(one, dict) else one for one in captions]
    if not _are_texts(captions):
        return None
    return str(image_id), [captions] if isinstance(captions, str) else captions


def _are_texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(text, str) for text in value)
    )


def _check_texts(path: Path, captions: list[Entry]) -> None:
    """Raise for a caption of no length that a caption has, or with half a character in it, as JSON allows."""
    long = [i for i, texts in captions if any(len(text) > _LONGEST_CAPTION for text in texts)]
    if long:
        raise ScoringError(
            f"{path} holds captions of over {_LONGEST_CAPTION:,} characters ({_count(long)}); give one "
            "caption an image."
        )
    halved = [i for i, texts in captions if any(map(_is_halved, texts))]
    if halved:
        raise ScoringError(
            f"{path} holds captions with half a character, a lone surrogate ({_count(halved)}); correct them."
        )


def _count(image_ids: Sequence[str]) -> str:
    return f"{len(image_ids):,}, the first of image {image_ids[0][:80]!a}"


def _is_halved(text: str) -> bool:
    return not text.isascii() and re.search("[\ud800-\udfff]", text) is not None
