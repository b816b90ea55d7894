"""Which files a person means, and what is written about each."""

import csv
import io
import json
import os
from pathlib import Path

import pytest

from pixtell.bulk import FORMATS, Result, choose_format, find_images, refuse_to_overwrite
from pixtell.captioner import Caption
from pixtell.errors import ImageError, OptionError

DOG = Caption("A dog runs.", (3, 4), -1.23456789, -0.41)
CAT = Caption('A "cat", sleeping.', (5,), -2.0, -1.0, unsure=True)
BROKEN = ImageError("a.jpg", "it is empty (0 bytes); get the picture again.")
ODD_PATHS = [
    "a.jpg",
    "a\tb.jpg",
    "a\nb.jpg",
    "a\rb.jpg",
    "a\\tb.jpg",
    'a,"b".jpg',
    "Größe 日本.jpg",
    os.fsdecode(b"\xff.jpg"),
]


def lines(name: str, path: str, result: Result) -> str:
    return choose_format(name)[1](Path(path), result)


def test_folders_are_read_recursively_and_sorted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/z.png", "a/b/c.webp", "notes.txt", "a.jpg", "captions.jsonl", "B.heic"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    found = find_images([tmp_path])
    assert found == sorted(found)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == {
        "b.JPG",
        "a/z.png",
        "a/b/c.webp",
        "a.jpg",
        "B.heic",
    }


def test_what_is_named_is_taken_in_the_order_given(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").touch()
    (tmp_path / "note.txt").touch()
    named = [tmp_path / "note.txt", tmp_path / "absent.jpg"]
    assert find_images([named[0], tmp_path, named[1]]) == [named[0], tmp_path / "x.jpg", named[1]]


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(OptionError) as error:
        find_images([tmp_path])
    assert str(error.value).startswith(f"The folder {tmp_path} holds no picture (.avif, .bmp, ")
    assert str(error.value).endswith("); name another.")
    with pytest.raises(OptionError, match=r"^No picture is named; give the path of a file or a folder\.$"):
        find_images([])


def test_text_is_a_line_a_caption() -> None:
    assert lines("text", "a.jpg", DOG) == "a.jpg\tA dog runs.\n"
    assert lines("text", "a.jpg", [DOG, CAT]) == 'a.jpg\tA dog runs.\na.jpg\tA "cat", sleeping.\n'
    assert lines("text", "a.jpg", BROKEN) == ""


@pytest.mark.parametrize("path", ODD_PATHS)
def test_any_path_comes_back_from_a_line_of_text(path: str) -> None:
    line = lines("text", path, DOG)
    assert line.endswith("\n")
    escaped, caption = line[:-1].split("\t")
    assert "\n" not in escaped
    assert "\r" not in escaped
    assert caption == DOG.text
    plain = escaped.replace("\\\\", "\0").replace("\\t", "\t").replace("\\n", "\n").replace("\\r", "\r")
    assert plain.replace("\0", "\\") == path


@pytest.mark.parametrize("path", ODD_PATHS)
def test_any_path_comes_back_from_json_and_csv(path: str) -> None:
    line = lines("jsonl", path, DOG)
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line)["path"] == path
    assert next(csv.reader(io.StringIO(lines("csv", path, DOG), newline=""))) == [path, DOG.text]


def test_json_has_the_shape_of_its_result() -> None:
    dog = {"caption": "A dog runs.", "logprob": -1.234568}
    cat = {"caption": 'A "cat", sleeping.', "logprob": -2.0, "unsure": True}
    assert json.loads(lines("jsonl", "a.jpg", DOG)) == {"path": "a.jpg", **dog}
    assert json.loads(lines("jsonl", "a.jpg", CAT)) == {"path": "a.jpg", **cat}
    assert json.loads(lines("jsonl", "a.jpg", [DOG, CAT])) == {"path": "a.jpg", "captions": [dog, cat]}
    assert json.loads(lines("jsonl", "a.jpg", BROKEN)) == {"path": "a.jpg", "error": BROKEN.reason}


def test_csv_has_a_header_and_a_row_a_caption() -> None:
    text = choose_format("csv")[0] + lines("csv", "a.jpg", [DOG, CAT]) + lines("csv", "b.jpg", BROKEN)
    assert list(csv.DictReader(io.StringIO(text))) == [
        {"path": "a.jpg", "caption": DOG.text},
        {"path": "a.jpg", "caption": CAT.text},
    ]


def test_a_format_that_is_not_there() -> None:
    assert list(FORMATS) == ["text", "jsonl", "csv"]
    with pytest.raises(OptionError) as error:
        choose_format("xml")
    assert str(error.value) == "--format 'xml' is unknown; choose one of text, jsonl, csv."


def test_captions_never_take_the_place_of_a_picture_or_of_a_data_set(tmp_path: Path) -> None:
    picture, captions = tmp_path / "a.jpg", tmp_path / "captions.jsonl"
    refuse_to_overwrite(captions, [picture])
    for file in (picture, captions):
        file.touch()
    with pytest.raises(OptionError, match=r"a\.jpg is one of the pictures; name another file\."):
        refuse_to_overwrite(tmp_path / "." / "a.jpg", [picture])
    with pytest.raises(OptionError, match=r"captions\.jsonl may hold people's captions"):
        refuse_to_overwrite(captions, [picture])
    refuse_to_overwrite(tmp_path / "machine.jsonl", [picture])
