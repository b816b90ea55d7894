"""Files of captions alone: what is read, and what is said of those that cannot be."""

import gzip
from pathlib import Path

import pytest

from pixtell.datasets.text import read_caption_lines
from pixtell.errors import DatasetError

CONTENT = "\ufeffA dog runs.\r\n\n1.jpg\tA  cat\x00 sits.\n2.jpg\t\n  Two men .  "


@pytest.mark.parametrize("name", ["captions.txt", "captions.tsv.gz"])
def test_a_caption_a_line_with_or_without_a_name(tmp_path: Path, name: str) -> None:
    content = CONTENT.encode()
    (tmp_path / name).write_bytes(gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    assert read_caption_lines(tmp_path / name) == ["A dog runs.", "A cat sits.", "Two men ."]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.txt", b"", "holds no caption; name a text file, a caption a line."),
        ("a.txt", b"a dog\n\xff\xfe\n", "a.txt, line 2, is not UTF-8; save the file as UTF-8."),
        ("a.gz", b"a dog", "a.gz cannot be read (Not a gzipped file"),
        ("a.gz", gzip.compress(b"a dog" * 99, mtime=0)[:-9], "a.gz is cut short or damaged; copy it again."),
        ("a.gz", gzip.compress(b"a dog" * 99, mtime=0)[:10] + b"\x07" * 30, "a.gz is cut short or damaged"),
        ("", b"", "cannot be read (Is a directory); name a text file, a caption a line."),
        ("none.txt", None, "none.txt cannot be read (No such file or directory)"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    if name and content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError) as caught:
        read_caption_lines(tmp_path / name)
    assert reason in str(caught.value)
