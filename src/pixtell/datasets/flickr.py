"""Flickr8k on disk -> records, in the two layouts that people have.

The original: `Flicker8k_Dataset/` (so misspelled, or not) beside `Flickr8k_text/` with `Flickr8k.token.txt`
and three split files. The other: `Images/` beside `captions.txt`, a CSV file with the columns image,caption,
without split files. Either may lie up to two folders deep, as archives unpack. Does not know what the images
show. Source of the data: Hodosh, Young and Hockenmaier, JAIR 47 (2013).
"""

from pathlib import Path

from pixtell.datasets.reading import (
    Findings,
    build_report,
    describe_folder,
    is_image_name,
    list_files,
    list_folders,
    normalise_name,
    printable,
    read_csv,
    read_lines,
    require_directory,
)
from pixtell.datasets.records import DatasetReport, choose_splits, clean_caption
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
_DEPTH = 2  # folders below the data directory in which parts are looked for


def read_flickr8k(data_dir: Path | None) -> DatasetReport:
    """Flickr8k: 8,000 photos of people and dogs, five captions each, split 6,000 / 1,000 / 1,000.

    Without the official split files a tenth of the images by a hash of their names is `val` and another tenth
    `test`; a warning says so, for scores on such a split compare with nobody's. Raises DatasetError where
    `data_dir` holds neither layout.
    """
    root = require_directory("flickr8k", data_dir, needs=_NEEDS)
    findings = Findings()
    folders = list_folders(root, findings, depth=_DEPTH)
    image_folder, files = _find_images(folders, findings)
    token_path = _find_file(folders, TOKEN_FILE)
    captions_path = token_path or _find_file(folders, CSV_FILE)
    if image_folder is None or captions_path is None:
        raise DatasetError(
            _describe_lack(root, has_images=bool(files), has_captions=captions_path is not None)
        )
    read_captions = _read_token_file if token_path else _read_csv_file
    captions = read_captions(captions_path, findings)
    split_paths = {
        split: path for split, file_name in SPLIT_FILES.items() if (path := _find_file(folders, file_name))
    }
    if split_paths:
        splits = _read_split_files(split_paths, captions, files, findings)
        unused = len(captions.keys() - splits.keys())
        split_source = "official files in " + ", ".join(
            sorted({str(path.parent) for path in split_paths.values()})
        )
        split_source += f" ({unused:,} images with captions are in none and not used)" if unused else ""
    else:
        splits = choose_splits(captions, with_test=True)
        split_source = "by a hash of the image's name"
        findings.notes.append(
            f"The official split is unknown, for {', '.join(SPLIT_FILES.values())} are not there: a tenth of "
            "the images by a hash of their names is val, another tenth test; scores do not compare with "
            "published ones."
        )
        for image_id in sorted(files.keys() - captions.keys()):
            findings.add("Image without captions, left out", image_id)
    return build_report(
        "flickr8k",
        sources=(
            f"images: {image_folder} ({len(files):,} files)",
            f"captions: {captions_path} ({len(captions):,} images)",
            f"splits: {split_source}",
        ),
        files=files,
        captions=captions,
        splits=splits,
        findings=findings,
    )


def _describe_lack(root: Path, *, has_images: bool, has_captions: bool) -> str:
    """The sentence for a data directory that holds neither layout."""
    missing = [] if has_images else [f"folder named {', '.join(IMAGE_FOLDERS[:-1])} with images in it"]
    missing += [] if has_captions else [f"file {TOKEN_FILE} or {CSV_FILE}"]
    return (
        f"Flickr8k was looked for in {printable(str(root))} and {_DEPTH} folders below, but there is no "
        f"{' and no '.join(missing)} (it holds {describe_folder(root)}); "
        f"give --data-dir, a folder with {_NEEDS}, or --dataset folder for pictures of your own."
    )


def _find_images(folders: list[Path], findings: Findings) -> tuple[Path | None, dict[str, Path]]:
    """The first folder that is named like an image folder and itself holds images; its images by name."""
    for folder_name in IMAGE_FOLDERS:
        for folder in folders:
            if folder.name == folder_name:
                files = list_files(folder, findings, recursive=False)
                images = {name: path for name, path in files.items() if is_image_name(name)}
                if images:
                    return folder, images
    return None, {}


def _find_file(folders: list[Path], name: str) -> Path | None:
    """The file `name` that lies nearest to the data directory."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def _read_token_file(path: Path, findings: Findings) -> dict[str, list[str]]:
    """`Flickr8k.token.txt` to captions by image name; its lines are "1000_69.jpg#0<TAB>A child in pink ."."""
    captions: dict[str, list[str]] = {}
    seen: set[str] = set()
    for number, line in read_lines(path, findings):
        where = f"{path.name} line {number}"
        key, _, caption = line.partition("\t")
        image_name, hash_sign, index = key.rpartition("#")
        if not (hash_sign and image_name and index.strip().isdecimal()):
            findings.add('Line that is not "image.jpg#0<TAB>caption", left out', where)
        elif key in seen:
            findings.add("Caption number used twice, the later one left out", f"{where}: {key}")
        else:
            seen.add(key)
            _add_caption(captions, image_name, caption, where, findings)
    return captions


def _read_csv_file(path: Path, findings: Findings) -> dict[str, list[str]]:
    """`captions.txt`, CSV with the columns image,caption, to captions by image name."""
    captions: dict[str, list[str]] = {}
    for number, row in read_csv(path, findings, required=("image", "caption")):
        _add_caption(captions, row["image"], row["caption"], f"{path.name} line {number}", findings)
    return captions


def _add_caption(
    captions: dict[str, list[str]], image_name: str, caption: str, where: str, findings: Findings
) -> None:
    """Keep one caption. Two people may have written the same words for an image, so that equal ones stay."""
    kept = captions.setdefault(normalise_name(image_name), [])
    if cleaned := clean_caption(caption):
        kept.append(cleaned)
    else:
        findings.add("Empty caption, left out", where)


def _read_split_files(
    paths: dict[str, Path], captions: dict[str, list[str]], files: dict[str, Path], findings: Findings
) -> dict[str, str]:
    """The split of each image that a split file names.

    An image in two splits stays in the later of train, val, test: nothing that is scored was trained on.
    """
    splits: dict[str, str] = {}
    for split, file_name in SPLIT_FILES.items():
        if split not in paths:
            findings.notes.append(f"The split {split} is empty, for {file_name} is not there.")
            continue
        for number, line in read_lines(paths[split], findings):
            where = f"{file_name} line {number}: {line[:60]}"
            image_id = normalise_name(line)
            if image_id not in captions and image_id not in files:
                findings.add("Line of a split file that names no known image, left out", where)
                continue
            earlier = splits.get(image_id)
            if earlier == split:
                findings.add("Image named twice in a split file, used once", where)
            elif earlier is not None:
                findings.add(f"Image in the splits {earlier} and {split}, used in {split} only", image_id)
            splits[image_id] = split
    return splits
