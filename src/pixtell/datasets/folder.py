"""One's own pictures: a folder of images with captions in one of three formats -> records.

The first format found is used: `captions.jsonl`, lines {"image": "a.jpg", "captions": ["..."]}, with "split"
if one likes; `captions.csv` with the columns image,caption (and split), a row a caption; `a.txt` beside
`a.jpg`, a line a caption. Images may lie in subfolders; their names are relative to the folder, "cats/a.jpg".
Those without a split are divided by a hash of their names. Does not know what the images show.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from pixtell.datasets.reading import (
    Findings,
    build_report,
    describe_folder,
    is_image_name,
    list_files,
    normalise_name,
    printable,
    read_csv,
    read_lines,
    require_directory,
)
from pixtell.datasets.records import SPLIT_ALIASES, SPLITS, DatasetReport, choose_splits, clean_caption
from pixtell.errors import DatasetError

JSONL_FILE = "captions.jsonl"
CSV_FILE = "captions.csv"
_NEEDS = f"images and {JSONL_FILE}, or {CSV_FILE}, or a .txt beside each image"
_JSONL_FORM = '{"image": "a.jpg", "captions": ["..."], "split": "train"}'


@dataclass
class _Annotations:
    """What a captions file says, by image name, while it is read."""

    findings: Findings
    captions: dict[str, list[str]] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)

    def add(self, image: str, captions: list[str], split: str, where: str) -> None:
        """Take in the captions of one image and its split ("" if none is given), as they stand at `where`."""
        image_id = normalise_name(image)
        split = SPLIT_ALIASES.get(split.strip().lower(), split.strip().lower())
        if split and split not in SPLITS:
            fault = f"Line whose split is none of {', '.join(SPLITS)}, left out"
            self.findings.add(fault, f"{where}: {split[:20]}")
            return
        kept = self.captions.setdefault(image_id, [])
        for caption in map(clean_caption, captions):
            if not caption:
                self.findings.add("Empty caption, left out", where)
            elif caption in kept:
                self.findings.add("Caption given twice for an image, used once", where)
            else:
                kept.append(caption)
        if split:
            earlier = self.splits.get(image_id, split)
            if earlier != split:
                fault = "Image in two splits, kept in the later of train, val, test"
                self.findings.add(fault, f"{where}: {image_id}, {earlier} and {split}")
            self.splits[image_id] = max(earlier, split, key=SPLITS.index)


def read_folder(data_dir: Path | None) -> DatasetReport:
    """Folder: one's own images with captions.jsonl, captions.csv, or a .txt beside each image.

    Raises DatasetError where there are no images, or captions in none of the formats.
    """
    root = require_directory("folder", data_dir, needs=_NEEDS)
    findings = Findings()
    files = list_files(root, findings, recursive=True)
    images = sorted(filter(is_image_name, files))
    if not images:
        raise DatasetError(
            f"No images were found in {printable(str(root))} or below (it holds {describe_folder(root)}); "
            f"give --data-dir, a folder with {_NEEDS}."
        )
    annotations = _Annotations(findings)
    if JSONL_FILE in files:
        captions_source = JSONL_FILE
        _read_jsonl(files[JSONL_FILE], annotations)
        if CSV_FILE in files:
            findings.notes.append(f"{CSV_FILE} is not read, for {JSONL_FILE} is there too.")
    elif CSV_FILE in files:
        captions_source = CSV_FILE
        _read_csv(files[CSV_FILE], annotations)
    else:
        captions_source = "a .txt beside each image"
        _read_text_files(files, images, annotations)
        if not annotations.captions:
            text_name = printable(str(PurePosixPath(images[0]).with_suffix(".txt")))
            raise DatasetError(
                f"{printable(str(root))} holds {len(images):,} images but no captions: neither {JSONL_FILE} "
                f"nor {CSV_FILE} nor a file like {text_name}; write one of them, "
                "or name another --dataset."
            )

    for image_id in images:
        if image_id not in annotations.captions:
            findings.add("Image without captions, left out", image_id)
    usable = [name for name, captions in annotations.captions.items() if captions and name in files]
    chosen = choose_splits(name for name in usable if name not in annotations.splits)
    splits = {**dict.fromkeys(annotations.captions, "train"), **chosen, **annotations.splits}
    sources = (
        f"images: {root} ({len(images):,} files)",
        f"captions: {captions_source} ({len(annotations.captions):,} images)",
        f"splits: {len(annotations.splits):,} images as given, {len(chosen):,} by a hash of the image's name",
    )
    return build_report(
        "folder",
        sources=sources,
        files=files,
        captions=annotations.captions,
        splits=splits,
        findings=findings,
    )


def _read_jsonl(path: Path, annotations: _Annotations) -> None:
    """captions.jsonl; a line of another form is counted and left out."""
    for number, line in read_lines(path, annotations.findings):
        where = f"{path.name} line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            entry = None
        image, captions, split = (
            (entry.get("image"), entry.get("captions"), entry.get("split"))
            if isinstance(entry, dict)
            else (None, None, None)
        )
        if (
            isinstance(image, str)
            and image.strip()
            and isinstance(captions, list)
            and all(isinstance(caption, str) for caption in captions)
            and isinstance(split, str | None)
        ):
            annotations.add(image, captions, split or "", where)
        else:
            annotations.findings.add(f"Line that is not {_JSONL_FORM}, left out", where)


def _read_csv(path: Path, annotations: _Annotations) -> None:
    """captions.csv; a row a caption."""
    for number, row in read_csv(path, annotations.findings, required=("image", "caption")):
        where = f"{path.name} line {number}"
        if row["image"].strip():
            annotations.add(row["image"], [row["caption"]], row.get("split", ""), where)
        else:
            annotations.findings.add("Line without an image name, left out", where)


def _read_text_files(files: dict[str, Path], images: list[str], annotations: _Annotations) -> None:
    """The .txt beside each image; a line a caption. One that cannot be read costs its image only."""
    used = set()
    for image_id in images:
        text_name = str(PurePosixPath(image_id).with_suffix(".txt"))
        if text_name in files:
            used.add(text_name)
            own = Findings()
            captions = [line for _, line in read_lines(files[text_name], own)]
            for problem in own.problems:
                annotations.findings.add("Text file that cannot be read, left out", problem)
            annotations.add(image_id, captions, "", text_name)
    for name in sorted(files.keys() - used):
        if name.endswith(".txt"):
            annotations.findings.add("Text file without an image beside it, not read", name)
