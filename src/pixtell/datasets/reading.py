"""Files of a data set -> lines, rows and names, with every fault counted instead of raised one at a time.

Knows nothing of a single layout; flickr.py and folder.py say what the lines mean.
"""

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from pixtell.datasets.records import CaptionedImage, DatasetReport, clean_caption
from pixtell.errors import DatasetError

# Suffixes by which an image is recognised in a folder, in lower case; HEIC is in it so that such a file gets its own sentence when it is read.
IMAGE_SUFFIXES = (
    *(
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ),
    *(".tga", ".ico", ".jp2", ".avif", ".heic", ".heif"),
)
LONG_CAPTION_WORDS = 200
_NUM_EXAMPLES = 3


class Findings:
    """Collects what is wrong with a data set while it is read; a kind of fault is reported once, with its count and first examples."""

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._faults: dict[str, list[str]] = {}

    def add(self, fault: str, example: str) -> None:
        """Count one more `fault`, say "Empty caption, left out", at `example`, say "captions.csv line 3"."""
        self._faults.setdefault(fault, []).append(printable(example))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes, then one sentence a kind of fault: "Empty caption, left out: 2 (captions.csv line 3, captions.csv line 9)."."""
        return (*self.notes, *(f"{fault}: {len(at):,} ({_first(at)})." for fault, at in self._faults.items()))


def printable(name: str) -> str:
    """A name as it may stand in a sentence: escaped where it would break the line or cannot be encoded."""
    return name if name.isprintable() else ascii(name)


def normalise_name(name: str) -> str:
    """An image's name as it is compared: composed characters (macOS stores them apart), no leading "./"."""
    return unicodedata.normalize("NFC", name.strip().removeprefix("./"))


def read_text(path: Path, findings: Findings) -> str | None:
    """The text of a UTF-8 file, with or without a byte order mark; None, and a problem that names the line, where it is not one."""
    try:
        content = path.read_bytes()
    except OSError as error:
        findings.problems.append(
            f"{printable(str(path))} cannot be read ({error.strerror}); check its permissions."
        )
        return None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        findings.problems.append(
            f"{printable(str(path))}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8."
        )
        return None


def read_lines(path: Path, findings: Findings) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, with their numbers from 1. Only line feeds and returns end a line."""
    text = read_text(path, findings) or ""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def read_csv(
    path: Path, findings: Findings, *, required: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file as {column: text} with the number of their last line; faulty rows are counted and left out."""
    text = read_text(path, findings)
    if text is None:
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] | None = None
    while True:
        first_line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            findings.add(
                "Line that is not CSV (quotes that do not match?), left out",
                f"{path.name} line {first_line}: {error}",
            )
            continue
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = [cell.strip().lower() for cell in row]
            if not set(required) <= set(header):
                columns = ",".join(required)
                findings.problems.append(
                    f"{printable(str(path))} begins with {printable(','.join(row)[:60])!r}; its first line must name the columns {columns}."
                )
                return
        elif len(row) != len(header):
            findings.add(
                f"Line without exactly {len(header)} fields (a caption with commas needs quotes), left out",
                f"{path.name} line {first_line}",
            )
        else:
            yield first_line, dict(zip(header, row, strict=True))
    if header is None:
        findings.problems.append(
            f"{printable(str(path))} is empty; its first line must name the columns {','.join(required)}."
        )


def list_files(directory: Path, findings: Findings, *, recursive: bool) -> dict[str, Path]:
    """Every file under `directory` by its name relative to it ("cats/a.jpg"); hidden files and macOS's `__MACOSX` are passed over.

    One listing, no stat a caption. Names are case-sensitive, whatever the file system thinks.
    """
    files: dict[str, Path] = {}
    stack = [(directory, "")]
    seen: set[str] = set()  # real folders: a link back up would never end
    while stack:
        folder, prefix = stack.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        for entry in scan(folder):
            if entry.is_dir():
                if recursive:
                    stack.append((Path(entry.path), f"{prefix}{entry.name}/"))
            elif not _is_text(entry.name):
                findings.add("File whose name is not UTF-8, left out", f"{prefix}{entry.name}")
            else:
                files[normalise_name(prefix + entry.name)] = Path(entry.path)
    return files


def scan(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted, without hidden ones and `__MACOSX`. Raises DatasetError where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"),
                key=lambda entry: entry.name,
            )
    except OSError as error:
        raise DatasetError(
            f"The folder {printable(str(folder))} cannot be listed ({error.strerror}); check its name and permissions."
        ) from error


def require_directory(name: str, data_dir: Path | None, *, needs: str) -> Path:
    """`data_dir`, if it is a folder; else a DatasetError that says what the data set `name` needs."""
    if data_dir is None:
        raise DatasetError(f"The data set {name} is read from disk; give --data-dir, a folder with {needs}.")
    if not data_dir.exists():
        raise DatasetError(
            f"There is no folder {printable(str(data_dir))}; --data-dir of {name} is a folder with {needs}."
        )
    if not data_dir.is_dir():
        raise DatasetError(
            f"{printable(str(data_dir))} is a file, not a folder; --data-dir of {name} is a folder with {needs}."
        )
    return data_dir


def describe_folder(folder: Path) -> str:
    """What a folder holds, for a sentence: "folders Images; files captions.csv, a.txt, b.txt and 40 more"."""
    entries = scan(folder)
    kinds = (
        ("folders", [entry.name for entry in entries if entry.is_dir()]),
        ("files", [entry.name for entry in entries if not entry.is_dir()]),
    )
    parts = [f"{kind} {_first([printable(name) for name in names])}" for kind, names in kinds if names]
    return "; ".join(parts) or "nothing"


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like an image's, in either case."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def build_report(
    name: str,
    *,
    sources: tuple[str, ...],
    files: Mapping[str, Path],
    captions: Mapping[str, list[str]],
    splits: Mapping[str, str],
    findings: Findings,
) -> DatasetReport:
    """Join what was read: one record for each image of `splits` that has a file and at least one caption.

    Everything else is counted in `findings`; that nothing is left is a problem.
    """
    records = []
    lower_names: dict[str, str] | None = None
    for image_id, split in sorted(splits.items()):
        if image_id not in files:
            lower_names = {other.lower(): other for other in files} if lower_names is None else lower_names
            other = lower_names.get(image_id.lower())
            hint = f"{image_id}; upper and lower case differ: {other} is there" if other else image_id
            findings.add("Image that is named but not there, left out", hint)
            continue
        kept = tuple(filter(None, (clean_caption(caption) for caption in captions.get(image_id, ()))))
        if not kept:
            findings.add("Image without captions, left out", image_id)
            continue
        for caption in kept:
            if caption.count(" ") >= LONG_CAPTION_WORDS:
                findings.add(f"Caption of more than {LONG_CAPTION_WORDS} words, used as it is", image_id)
        records.append(CaptionedImage(image_id, files[image_id], kept, split))
    if not records and not findings.problems:
        findings.problems.append(
            f"The data set {name} has no image with a caption that can be used; see its warnings."
        )
    return DatasetReport(name, sources, tuple(findings.problems), findings.warnings, tuple(records))


def _first(names: list[str]) -> str:
    """The first few of many names: "a.jpg, b.jpg, c.jpg and 5 more"."""
    more = len(names) - _NUM_EXAMPLES
    return ", ".join(names[:_NUM_EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8 (Python carries other bytes as halves of surrogate pairs)."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
