"""A file of captions alone -> captions, for training on text.

In: one caption a line, or an image's name, a tab and its caption; UTF-8, as it is or in .gz. Out: clean
captions, in order.
"""

import gzip
import zlib
from pathlib import Path

from pixtell.datasets.reading import printable
from pixtell.datasets.records import clean_caption
from pixtell.errors import DatasetError


def read_caption_lines(path: Path) -> list[str]:
    """The captions of a file; lines without one are left out.

    Raises: DatasetError where the file cannot be read or holds no caption.
    """
    name = printable(str(path))
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8-sig")
    except OSError as error:  # gzip's BadGzipFile too
        reason = error.strerror or str(error)
        raise DatasetError(
            f"{name} cannot be read ({reason}); name a text file, a caption a line."
        ) from error
    except (EOFError, zlib.error) as error:
        raise DatasetError(f"{name} is cut short or damaged; copy it again.") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise DatasetError(f"{name}, line {line}, is not UTF-8; save the file as UTF-8.") from error
    captions = [clean_caption(line.rpartition("\t")[2]) for line in text.split("\n")]
    captions = [caption for caption in captions if caption]
    if not captions:
        raise DatasetError(f"{name} holds no caption; name a text file, a caption a line.")
    return captions
