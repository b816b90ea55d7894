"""Caption files -> hypotheses and references by image id.

In: hypotheses in the COCO results format `[{"image_id": ..., "caption": ...}]`; references in the COCO
annotation format `{"annotations": [{"image_id": ..., "caption": ...}]}` or as `{"image_id": ["...", ...]}`.
Out: text by image id. Ids are compared as strings: 42 and "42" are one image. It does not score.
"""

from pathlib import Path
from typing import Any

from pixtell.errors import ScoringError
from pixtell.files import read_json
from pixtell.metrics.corpus import check_pairs


def read_captions(hypotheses: Path, references: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read both files; the result has the same ids in both, in the order of the hypotheses.

    Raises: ScoringError where a file cannot be read or has another format; or one, with counts and the
    first ids, for all that does not match: missing, repeated and unknown ids, empty hypotheses.
    """
    pairs = read_hypotheses(hypotheses)
    references_by_id = read_references(references)
    empty = [image_id for image_id, caption in pairs if not caption.strip()]
    check_pairs([image_id for image_id, _ in pairs], references_by_id, empty)
    return dict(pairs), {image_id: references_by_id[image_id] for image_id, _ in pairs}


def read_hypotheses(path: Path) -> list[tuple[str, str]]:
    """(image id, caption) as a COCO results file has them, repeated ids included. Raises: ScoringError."""
    return _read_entries(path, read_json(path, ScoringError))


def read_references(path: Path) -> dict[str, list[str]]:
    """Image id -> its captions, from either format. Raises: ScoringError."""
    content = read_json(path, ScoringError)
    references: dict[str, list[str]] = {}
    if isinstance(content, dict) and "annotations" in content:
        for image_id, caption in _read_entries(path, content["annotations"]):
            references.setdefault(image_id, []).append(caption)
    elif isinstance(content, dict) and all(map(_is_texts, content.values())):
        references = content
    else:
        raise ScoringError(
            f"{path} holds no references; give COCO annotations, or an object of image ids with lists of "
            "captions."
        )
    return references


def _read_entries(path: Path, content: Any) -> list[tuple[str, str]]:
    if not isinstance(content, list):
        raise ScoringError(f'{path} holds no list of captions; give [{{"image_id": ..., "caption": ...}}].')
    bad = [index for index, entry in enumerate(content) if not _is_entry(entry)]
    if bad:
        raise ScoringError(
            f"{path}: {len(bad):,} of {len(content):,} entries, the first at index {bad[0]}, lack an "
            "image_id or a caption that is text; correct them."
        )
    return [(str(entry["image_id"]), entry["caption"]) for entry in content]


def _is_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("image_id"), str | int)
        and isinstance(entry.get("caption"), str)
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)
