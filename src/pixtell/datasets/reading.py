"""Files of a data set -> lines, rows and names, with every fault counted rather than the first one raised.

Knows no layout; flickr.py and folder.py say what the lines mean.
"""

import csv
import io
import os
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from pixtell.datasets.records import CaptionedImage, DatasetReport
from pixtell.errors import DatasetError, OptionError

# By these an image is found in a folder, in either case; HEIC too, to be refused by name later.
# fmt: off
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".avif", ".heic", ".heif",
)
# fmt: on
LONG_CAPTION_WORDS = 200
_NUM_EXAMPLES = 3


class Findings:
    """Collects what is wrong with a data set while it is read.

    `problems` end its use; `notes` are sentences about it; a kind of fault is told once, with its count.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self._faults: dict[str, list[str]] = {}

    def add(self, fault: str, example: str) -> None:
        """Count one more `fault`, say "Empty caption, left out", at `example`, say "captions.csv line 3"."""
        self._faults.setdefault(fault, []).append(printable(example))

    @property
    def warnings(self) -> tuple[str, ...]:
        """The notes, then a sentence a kind of fault: "Empty caption, left out: 2 (a.txt, b.txt)."."""
        return (*self.notes, *(f"{fault}: {len(at):,} ({_first(at)})." for fault, at in self._faults.items()))


def printable(name: str) -> str:
    """A name as it may stand in a sentence: escaped where it would break the line or cannot be encoded."""
    return name if name.isprintable() else ascii(name)


def normalise_name(name: str) -> str:
    """An image's name as it is compared: composed characters (macOS stores them apart), no leading "./"."""
    return unicodedata.normalize("NFC", name.strip().removeprefix("./"))


def read_text(path: Path, findings: Findings) -> str | None:
    """The text of a UTF-8 file, byte order mark or not; else None, and a problem that names the line."""
    name = printable(str(path))
    try:
        content = path.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        findings.problems.append(f"{name} cannot be read ({error.strerror}); check its permissions.")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        byte = f"0x{error.object[error.start]:02x}"
        findings.problems.append(
            f"{name}, line {line}: the byte {byte} is not UTF-8; save the file as UTF-8."
        )
    return None


def read_lines(path: Path, findings: Findings) -> list[tuple[int, str]]:
    """The lines that are not blank, stripped, with their numbers from 1; only LF, CR and CRLF end a line."""
    text = read_text(path, findings) or ""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def read_csv(
    path: Path, findings: Findings, *, required: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file as {column: text}, with the number of their first line, without faulty ones.

    Column names are compared in lower case. A file without the `required` columns is a problem.
    """
    text = read_text(path, findings)
    if text is None:
        return
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        where = f"{path.name} line {line}"
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            findings.add("Line whose quotes do not match, left out with what follows", f"{where}: {error}")
            continue
        if not any(cell.strip() for cell in row):
            continue
        if header is None:
            header = [cell.strip().lower() for cell in row]
            if not set(required) <= set(header):
                break
        elif len(row) != len(header):
            fault = (
                f"Line without exactly {len(header)} fields (a caption with commas needs quotes), left out"
            )
            findings.add(fault, where)
        else:
            yield line, dict(zip(header, row, strict=True))
    if header is None or not set(required) <= set(header):
        begins = "is empty" if header is None else f"begins with {','.join(header)[:60]!a}"
        findings.problems.append(
            f"{printable(str(path))} {begins}; its first line must name the columns {','.join(required)}."
        )


def scan(folder: Path) -> list[tuple[str, bool]]:
    """The names in a folder, sorted, and whether each is a folder; not hidden ones, nor macOS's `__MACOSX`.

    Raises DatasetError where the folder cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                (entry.name, _is_folder(entry))
                for entry in entries
                if not entry.name.startswith(".") and entry.name != "__MACOSX"
            )
    except OSError as error:
        raise DatasetError(
            f"The folder {printable(str(folder))} cannot be listed ({error.strerror}); check its permissions."
        ) from error


def scan_below(folder: Path, findings: Findings) -> list[tuple[str, bool]]:
    """Like `scan`, but a folder that cannot be listed is counted and read as empty."""
    try:
        return scan(folder)
    except DatasetError:
        findings.add("Folder that cannot be listed, left out", str(folder))
        return []


def list_folders(root: Path, findings: Findings, *, depth: int) -> list[Path]:
    """`root` and the folders up to `depth` below it, nearest first; one that cannot be listed is counted."""
    folders = [root]
    level = [(root, scan(root))]
    for _ in range(depth):
        below = [folder / name for folder, entries in level for name, is_folder in entries if is_folder]
        folders += below
        level = [(folder, scan_below(folder, findings)) for folder in below]
    return folders


def list_files(directory: Path, findings: Findings, *, recursive: bool) -> dict[str, Path]:
    """Every file in `directory` by its name relative to it ("cats/a.jpg"), hidden ones left out.

    One listing, no stat a caption. Names are case-sensitive, whatever the file system thinks. Links are
    followed, but a folder is read once.
    """
    files: dict[str, Path] = {}
    seen = {os.path.realpath(directory)}  # a link back up would never end
    stack = [(directory, "", scan(directory))]
    while stack:
        folder, prefix, entries = stack.pop()
        for name, is_folder in entries:
            path = folder / name
            if not is_folder:
                if _is_text(name):
                    files[normalise_name(prefix + name)] = path
                else:
                    findings.add("File whose name is not UTF-8, left out", prefix + name)
            elif recursive and (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                stack.append((path, f"{prefix}{name}/", scan_below(path, findings)))
    return files


def require_directory(name: str, data_dir: Path | None, *, needs: str) -> Path:
    """`data_dir`, if it is a folder; else a DatasetError that says what the data set `name` needs."""
    if data_dir is None:
        raise DatasetError(f"The data set {name} is read from disk; give --data-dir, a folder with {needs}.")
    if os.path.isdir(data_dir):  # noqa: PTH112  (Path.is_dir raises where a parent is closed to us)
        return data_dir
    what = f"There is no folder {printable(str(data_dir))}"
    if os.path.lexists(data_dir):
        what = f"{printable(str(data_dir))} is no folder"
    raise DatasetError(f"{what}; give --data-dir of {name}, a folder with {needs}.")


def holding_no_picture(folders: Sequence[Path]) -> OptionError:
    """What to raise where the folders that a person named for their pictures hold none."""
    named, several = " and ".join(map(str, folders)), len(folders) > 1
    return OptionError(
        f"The folder{'s' * several} {named} hold{'s' * (not several)} no picture "
        f"({', '.join(sorted(IMAGE_SUFFIXES))}); name another."
    )


def describe_folder(folder: Path) -> str:
    """What a folder holds, for a sentence: "folders Images; files captions.csv, a.txt, b.txt and 40 more"."""
    entries = scan(folder)
    folders = [printable(name) for name, is_folder in entries if is_folder]
    files = [printable(name) for name, is_folder in entries if not is_folder]
    parts = [f"{kind} {_first(names)}" for kind, names in (("folders", folders), ("files", files)) if names]
    return "; ".join(parts) or "nothing"


def is_image_name(name: str) -> bool:
    """Whether a file's name ends like an image's, in either case."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


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

    Captions come cleaned. Everything else is counted in `findings`; that nothing is left is a problem.
    """
    records = []
    missing = [image_id for image_id in sorted(splits) if image_id not in files]
    other_case = {file_name.lower(): file_name for file_name in files} if missing else {}
    for image_id in missing:
        other = other_case.get(image_id.lower())
        hint = f" (but {other} is: upper and lower case differ)" if other else ""
        findings.add("Image that is named but not there, left out", image_id + hint)
    for image_id, split in sorted(splits.items()):
        if image_id not in files:
            continue
        if not captions.get(image_id):
            findings.add("Image without captions, left out", image_id)
            continue
        for caption in captions[image_id]:
            if caption.count(" ") >= LONG_CAPTION_WORDS:
                findings.add(f"Caption of more than {LONG_CAPTION_WORDS} words, used as it is", image_id)
        records.append(CaptionedImage(image_id, files[image_id], tuple(captions[image_id]), split))
    if not records and not findings.problems:
        findings.problems.append(
            f"Nothing of the data set {name} can be used: no image has both file and caption."
        )
    return DatasetReport(name, sources, tuple(findings.problems), findings.warnings, tuple(records))


def _first(names: list[str]) -> str:
    """The first few of many names: "a.jpg, b.jpg, c.jpg and 5 more"."""
    more = len(names) - _NUM_EXAMPLES
    return ", ".join(names[:_NUM_EXAMPLES]) + (f" and {more:,} more" if more > 0 else "")


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; a link that leads nowhere or in a circle is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _is_text(name: str) -> bool:
    """Whether a file's name is UTF-8 (Python carries other bytes as halves of surrogate pairs)."""
    return not any("\ud800" <= character <= "\udfff" for character in name)
