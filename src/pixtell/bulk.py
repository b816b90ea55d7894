"""Many images: which ones a person means, and their captions as lines of text, JSON or CSV.

In: paths of files and folders, and what the captioner made of them. Out: lines. It prints nothing.
"""

import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from pixtell.captioner import Caption
from pixtell.datasets.reading import IMAGE_SUFFIXES, holding_no_picture
from pixtell.errors import ImageError, OptionError

CAPTION_FILES = ("captions.jsonl", "captions.csv", "captions.txt")  # what a data set is read from

Result = Caption | Sequence[Caption] | ImageError


def find_images(paths: Iterable[Path]) -> list[Path]:
    """Files as they are named; folders recursively, sorted, by the suffixes of picture files.

    A file that is named is taken whatever its suffix, also one that is absent: it becomes an error line of
    its own.
    Raises: OptionError where nothing is named, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(
                file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
            )
            if not inside:
                raise holding_no_picture([path])
            found.extend(inside)
        else:
            found.append(path)
    if not found:
        raise OptionError("No picture is named; give the path of a file or a folder.")
    return found


def refuse_to_overwrite(output: Path, images: Sequence[Path]) -> None:
    """Raises: OptionError where captions would take the place of a picture, or of the captions that people
    wrote for the folder it is in."""
    if not output.exists():
        return
    if any(image.exists() and output.samefile(image) for image in images):
        raise OptionError(f"--output {output} is one of the pictures; name another file.")
    folder = output.resolve().parent
    if output.name in CAPTION_FILES and any(folder in image.resolve().parents for image in images):
        raise OptionError(
            f"--output {output} may hold people's captions of these pictures; name another file."
        )


def text_lines(path: Path, result: Result) -> str:
    r"""`path<TAB>caption`, a line a caption; a tab, newline or backslash in the path is written \t, \n, \\.
    Nothing for an image that failed."""
    escaped = str(path).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return "".join(f"{escaped}\t{caption.text}\n" for caption in _captions(result))


def json_lines(path: Path, result: Result) -> str:
    """One JSON object a line: path with caption and logprob, or captions, or error. ASCII alone, so that it
    is the same in every encoding, and paths come back exactly, also those that are no UTF-8."""
    if isinstance(result, ImageError):
        value: dict[str, Any] = {"error": result.reason}
    elif isinstance(result, Caption):
        value = _caption_json(result)
    else:
        value = {"captions": [_caption_json(caption) for caption in result]}
    return json.dumps({"path": str(path), **value}) + "\n"


def csv_lines(path: Path, result: Result) -> str:
    """`path,caption`, quoted where CSV asks for it; a line a caption. Nothing for an image that failed."""
    stream = io.StringIO()
    # Python before 3.13 does not quote a \r by itself.
    quote_all = "\r" in str(path)
    writer = csv.writer(
        stream, lineterminator="\n", quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    )
    writer.writerows((path, caption.text) for caption in _captions(result))
    return stream.getvalue()


# name -> the first line of the file, and what makes the lines of one image
FORMATS: dict[str, tuple[str, Callable[[Path, Result], str]]] = {
    "text": ("", text_lines),
    "jsonl": ("", json_lines),
    "csv": ("path,caption\n", csv_lines),
}


def choose_format(name: str) -> tuple[str, Callable[[Path, Result], str]]:
    """Raises: OptionError that lists the formats."""
    if name not in FORMATS:
        raise OptionError(f"--format {name!r} is unknown; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _captions(result: Result) -> Sequence[Caption]:
    if isinstance(result, ImageError):
        return ()
    return (result,) if isinstance(result, Caption) else result


def _caption_json(caption: Caption) -> dict[str, Any]:
    value = {"caption": caption.text, "logprob": round(caption.logprob, 6)}
    return {**value, "unsure": True} if caption.unsure else value
