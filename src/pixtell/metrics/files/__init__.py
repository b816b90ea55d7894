"""Caption files -> hypotheses and references by image id.

In: paths; each file in any form that `formats.py` knows, recognised by its suffix and content. Out: text by
image id. Ids are compared as strings: 42 and "42" are one image, folder/a.jpg and a.jpg are two. It does not
score.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from pixtell.errors import ScoringError
from pixtell.metrics.corpus import check_pairs, count_ids, first_ids
from pixtell.metrics.files.formats import CaptionFile, read_hypotheses, read_references

__all__ = ["CaptionFile", "read_captions", "read_captions_of", "read_hypotheses", "read_references"]


def read_captions(
    hypotheses: Path, references: Path | Sequence[Path]
) -> tuple[dict[str, str], dict[str, list[str]]]:
    """Read the files; the result has the same ids in both, in the order of the hypotheses.

    references: where there are several files, an image has the captions that it has in any of them.
    Raises: ScoringError where a file cannot be read or has another form; or one, with counts and the first
    ids, for all that does not match: missing, repeated and unknown ids, empty hypotheses.
    """
    paths = [references] if isinstance(references, Path) else list(references)
    ours, theirs = read_hypotheses(hypotheses), [read_references(path) for path in paths]
    _check_lines(ours, theirs)
    pairs = [(image_id, text) for image_id, texts in ours.captions for text in texts or [""]]
    by_id: dict[str, list[str]] = {}
    for file in theirs:
        for image_id, texts in file.captions:
            by_id.setdefault(image_id, []).extend(texts)
    for image_id, texts in by_id.items():
        if not any(text.strip() for text in texts):  # blank lines are no references
            by_id[image_id] = []
    image_ids = [image_id for image_id, _ in pairs]
    empty = [image_id for image_id, text in pairs if not text.strip()]
    try:
        check_pairs(image_ids, by_id, empty)
    except ScoringError as error:
        if hint := _same_file_names(image_ids, by_id):
            raise ScoringError(f"{str(error).removesuffix('.')}; {hint}.") from error
        raise
    return dict(pairs), {image_id: by_id[image_id] for image_id in image_ids}


def read_captions_of(image_ids: Sequence[str], path: Path) -> dict[str, str]:
    """The captions that a file has for these images, in their order; those of other images are left out.

    Raises: ScoringError where the file cannot be read, names no images, or has not exactly one caption for
    each.
    """
    file = read_hypotheses(path)
    if file.is_plain:
        raise ScoringError(
            f"{path} is plain text, which names no images; give captions with names, such as CSV with the "
            "columns image_id,caption."
        )
    found: dict[str, list[str]] = {}
    for image_id, texts in file.captions:
        found.setdefault(image_id, []).extend(texts or [""])
    problems = {
        "without a caption": [image_id for image_id in image_ids if image_id not in found],
        "with more than one": [image_id for image_id in image_ids if len(found.get(image_id, [])) > 1],
        "with an empty one": [
            image_id for image_id in image_ids if any(not text.strip() for text in found.get(image_id, []))
        ],
    }
    wrong = [f"{count_ids(ids)} {problem} ({first_ids(ids)})" for problem, ids in problems.items() if ids]
    if wrong:
        hint = _same_file_names(list(found), image_ids)
        raise ScoringError(
            f"{path} does not fit the pictures: {', '.join(wrong)}; {hint or 'give one caption for each'}."
        )
    return {image_id: found[image_id][0] for image_id in image_ids}


def _check_lines(ours: CaptionFile, theirs: Sequence[CaptionFile]) -> None:
    """Raise where line numbers, the ids of plain text, cannot be the ids of all files."""
    files = [ours, *theirs]
    plain = [file for file in files if file.is_plain]
    if not plain:
        return
    if named := [file for file in files if not file.is_plain]:
        raise ScoringError(
            f"{plain[0].path} is plain text, in which an image is a line, but {named[0].path} names its "
            "images; give both as plain text, or both with names, such as CSV with the columns "
            "image_id,caption."
        )
    if len({len(file.captions) for file in files}) > 1:
        lengths = ", ".join(f"{file.path} has {len(file.captions):,}" for file in files)
        raise ScoringError(
            f"The numbers of lines differ: {lengths}; in plain text line 1 of each file is of the first "
            "image, line 2 of the second, and so on."
        )


def _same_file_names(image_ids: Sequence[str], references: Collection[str]) -> str:
    """Words about ids that differ but end in the same file name; '' where there are none."""
    known = set(image_ids)
    unmatched = _by_file_name(image_id for image_id in references if image_id not in known)
    pairs = [
        (image_id, unmatched[name])
        for name, image_id in _by_file_name(known.difference(references)).items()
        if name in unmatched
    ]
    if not pairs:
        return ""
    ours, theirs = min(pairs)
    return (
        f"{len(pairs):,} would match by file name, as {ours!a} and {theirs!a}: write the ids the same in "
        "both files"
    )


def _by_file_name(image_ids: Iterable[str]) -> dict[str, str]:
    """'folder/a.jpg' -> {'a.jpg': 'folder/a.jpg'}, without file names that occur twice."""
    named = [(re.split(r"[/\\]", image_id)[-1], image_id) for image_id in image_ids]
    counts = Counter(name for name, _ in named)
    return {name: image_id for name, image_id in named if name and counts[name] == 1}
