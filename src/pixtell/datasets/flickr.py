"""Flickr8k on disk -> records, in the two layouts that people have.

The original: `Flicker8k_Dataset/` (so misspelled, or not) beside `Flickr8k_text/` with `Flickr8k.token.txt` and three split files. The other:
`Images/` beside `captions.txt`, a CSV file `image,caption`, without split files. Either may lie up to two folders deep, as archives unpack.
Does not know the images' content. Source of the data: Hodosh, Young and Hockenmaier, JAIR 47 (2013).
"""

from pathlib import Path

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
    scan,
)
from pixtell.datasets.records import DatasetReport, choose_split
from pixtell.errors import DatasetError

IMAGE_FOLDERS = ("Flicker8k_Dataset", "Flickr8k_Dataset", "Images", "images")
TOKEN_FILE = "Flickr8k.token.txt"
CSV_FILE = "captions.txt"
SPLIT_FILES = {
    "train": "Flickr_8k.trainImages.txt",
    "val": "Flickr_8k.devImages.txt",
    "test": "Flickr_8k.testImages.txt",
}
_NEEDS = f"Flicker8k_Dataset and Flickr8k_text, or Images and {CSV_FILE}"


def read_flickr8k(data_dir: Path | None) -> DatasetReport:
    """Flickr8k: 8,000 photos of people and dogs, five captions each, split 6,000 / 1,000 / 1,000.

    Without the official split files the split is unknown: a tenth of the images by a hash of their names is `val`, another tenth `test`, and a
    warning says so, for scores on it compare with nobody's. Raises DatasetError where `data_dir` holds neither layout.
    """
    root = require_directory("flickr8k", data_dir, needs=_NEEDS)
    folders = _list_folders(root)
    findings = Findings()
    image_folder, files = _find_images(folders, findings)
    token_path = _find_file(folders, TOKEN_FILE)
    csv_path = _find_file(folders, CSV_FILE)
    if image_folder is None or (token_path is None and csv_path is None):
        missing = [f"a folder {' or '.join(IMAGE_FOLDERS[:3])} with images"] if image_folder is None else []
        missing += [f"a file {TOKEN_FILE} or {CSV_FILE}"] if token_path is None and csv_path is None else []
        raise DatasetError(
            f"Flickr8k was looked for in {printable(str(root))}, but {' and '.join(missing)} is not in it or up to two folders below "
            f"(it holds {describe_folder(root)}); give --data-dir, a folder with {_NEEDS}."
        )

    captions_path = token_path or csv_path
    assert captions_path is not None
    captions = (
        _read_token_file(captions_path, findings) if token_path else _read_csv_file(captions_path, findings)
    )
    split_paths = {
        split: path for split, file_name in SPLIT_FILES.items() if (path := _find_file(folders, file_name))
    }
    if split_paths:
        splits = _read_split_files(split_paths, captions, files, findings)
        split_source = f"splits: {', '.join(str(path) for path in split_paths.values())}"
        unused = len(captions.keys() - splits.keys())
        split_source += f" ({unused:,} captioned images are in no split and not used)" if unused else ""
    else:
        splits = {image_id: choose_split(image_id, with_test=True) for image_id in captions}
        split_source = "splits: by a hash of the image's name"
        findings.notes.append(
            f"The official split is unknown, for {', '.join(SPLIT_FILES.values())} are not there: a tenth of the images by a hash of their names "
            "is val, another tenth test; scores do not compare with published ones."
        )
        for image_id in sorted(files.keys() - captions.keys()):
            findings.add("Image without captions, left out", image_id)
    sources = (
        f"images: {image_folder} ({len(files):,} files)",
        f"captions: {captions_path} ({len(captions):,} images)",
        split_source,
    )
    return build_report(
        "flickr8k", sources=sources, files=files, captions=captions, splits=splits, findings=findings
    )


def _list_folders(root: Path) -> list[Path]:
    """`root` and the folders up to two levels below, nearest first."""
    levels = [[root]]
    for _ in range(2):
        levels.append([Path(entry.path) for folder in levels[-1] for entry in scan(folder) if entry.is_dir()])
    return [folder for level in levels for folder in level]


def _find_images(folders: list[Path], findings: Findings) -> tuple[Path | None, dict[str, Path]]:
    """The first folder that is named like an image folder and directly holds images, and its images by name."""
    for name in IMAGE_FOLDERS:
        for folder in folders:
            if folder.name == name:
                files = {
                    name: path
                    for name, path in list_files(folder, findings, recursive=False).items()
                    if is_image_name(name)
                }
                if files:
                    return folder, files
    return None, {}


def _find_file(folders: list[Path], name: str) -> Path | None:
    """The file `name` that lies nearest to the data directory."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _read_token_file(path: Path, findings: Findings) -> dict[str, list[str]]:
    """`Flickr8k.token.txt`, lines like "1000268201_693b08cb0e.jpg#0<TAB>A child in a pink dress .", to captions by image name."""
    captions: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, line in read_lines(path, findings):
        key, tab, caption = line.partition("\t")
        image_id, hash_sign, index = key.rpartition("#")
        if not (hash_sign and image_id and index.strip().isdecimal()):
            findings.add('Line that is not "image.jpg#0<TAB>caption", left out', f"{path.name} line {number}")
        elif key in seen:
            findings.add(
                "Caption number used twice, the later one left out", f"{path.name} line {number}: {key}"
            )
        elif not (tab and caption.strip()):
            findings.add("Empty caption, left out", f"{path.name} line {number}")
        else:
            seen.add(key)
            captions.setdefault(normalise_name(image_id), []).append(caption)
    return captions


def _read_csv_file(path: Path, findings: Findings) -> dict[str, list[str]]:
    """`captions.txt`, a CSV file with the header image,caption, to captions by image name."""
    captions: dict[str, list[str]] = {}
    for number, row in read_csv(path, findings, required=("image", "caption")):
        if row["image"].strip() and row["caption"].strip():
            captions.setdefault(normalise_name(row["image"]), []).append(row["caption"])
        else:
            findings.add("Empty caption or image name, left out", f"{path.name} line {number}")
    return captions


def _read_split_files(
    paths: dict[str, Path], captions: dict[str, list[str]], files: dict[str, Path], findings: Findings
) -> dict[str, str]:
    """The split of each image that a split file names. An image in two splits stays in the later one: test, then val, then train.

    So the images that scores are made on are never trained on.
    """
    splits: dict[str, str] = {}
    for split, file_name in SPLIT_FILES.items():
        if split not in paths:
            findings.notes.append(f"The split {split} is empty, for {file_name} is not there.")
            continue
        for number, line in read_lines(paths[split], findings):
            image_id = normalise_name(line)
            if image_id not in captions and image_id not in files:
                findings.add(
                    "Split file line that names no known image, left out",
                    f"{file_name} line {number}: {image_id[:60]}",
                )
                continue
            earlier = splits.get(image_id)
            if earlier == split:
                findings.add(
                    "Image named twice in a split file, used once", f"{file_name} line {number}: {image_id}"
                )
            elif earlier is not None:
                findings.add(
                    "Image in two splits, kept in the later one only", f"{image_id}: {earlier}, {split}"
                )
            splits[image_id] = split
    return splits
