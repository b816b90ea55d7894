import json
import os
import unicodedata
from pathlib import Path
from typing import Protocol

import pytest

from pixtell.datasets import check_dataset, load_dataset
from pixtell.datasets.records import choose_splits
from pixtell.errors import DatasetError

FORM = '{"image": "a.jpg", "captions": ["..."], "split": "train"}'
GIVE = (
    "give --data-dir, a folder with images and captions.jsonl, or captions.csv, or a .txt beside each image."
)
NAMES = [f"{index:02}.jpg" for index in range(40)]


class WriteTree(Protocol):
    def __call__(self, tree: dict[str, str | bytes]) -> Path: ...


def images(*names: str) -> dict[str, str | bytes]:
    return dict.fromkeys(names, "")


def as_jsonl(*entries: object) -> str:
    return "".join(json.dumps(entry) + "\n" for entry in entries)


@pytest.mark.parametrize(
    "captions",
    [
        {
            "captions.jsonl": as_jsonl(
                *({"image": name, "captions": [f"Dog {name}.", "A dog, running."]} for name in NAMES)
            )
        },
        {
            "captions.csv": "image,caption\n"
            + "".join(f'{name},Dog {name}.\n{name},"A dog, running."\n' for name in NAMES)
        },
        {
            "captions.csv": "\ufeffCaption , Image\r\n"
            + "".join(f'Dog {name}.,{name}\r\n"A dog, running.", {name}\r\n' for name in NAMES)
        },
        {f"{name[:-4]}.txt": f"Dog {name}.\n\n A dog, running. \n" for name in NAMES},
    ],
    ids=["jsonl", "csv", "csv with columns swapped", "txt"],
)
def test_the_formats_say_the_same(write_tree: WriteTree, captions: dict[str, str | bytes]) -> None:
    data = load_dataset("folder", write_tree({**images(*NAMES), **captions}))
    assert data.warnings == ()
    assert [record.image_id for record in data.records] == NAMES
    assert {record.image_id: record.split for record in data.records} == choose_splits(NAMES)
    assert {record.split for record in data.records} == {"train", "val"}
    for record in data.records:
        assert record.captions == (f"Dog {record.image_id}.", "A dog, running.")


def test_given_splits_are_kept_and_only_the_others_divided(write_tree: WriteTree) -> None:
    entries = [
        {"image": "a.jpg", "captions": ["A."], "split": "test"},
        {"image": "b.jpg", "captions": ["B."], "split": "dev"},
    ]
    entries += [{"image": name, "captions": ["C."], "split": None} for name in NAMES]  # type: ignore[dict-item]
    report = check_dataset(
        "folder", write_tree({**images("a.jpg", "b.jpg", *NAMES), "captions.jsonl": as_jsonl(*entries)})
    )
    splits = {record.image_id: record.split for record in report.records}
    assert splits == {**choose_splits(NAMES), "a.jpg": "test", "b.jpg": "val"}
    assert report.sources[2] == "splits: 2 images as given, 40 by a hash of the image's name"


def test_a_csv_may_have_a_split_column(write_tree: WriteTree) -> None:
    tree = {**images("a.jpg", "b.jpg"), "captions.csv": "split,image,caption\nVal,a.jpg,A.\ntrain,b.jpg,B.\n"}
    assert [record.split for record in load_dataset("folder", write_tree(tree)).records] == ["val", "train"]


def test_subfolders_any_suffix_and_any_alphabet(write_tree: WriteTree) -> None:
    names = ["cats/a.jpg", "dogs/deep/a.PNG", "dogs/été.webp", "b.jpeg"]
    tree = {**images(*names), ".hidden/x.jpg": "", "__MACOSX/y.jpg": "", ".z.jpg": ""}
    tree |= {str(Path(name).with_suffix(".txt")): f"At {name}." for name in names}
    data = load_dataset("folder", write_tree(tree))
    assert data.warnings == ()
    assert {record.image_id for record in data.records} == set(names)
    assert {record.captions[0] for record in data.records} == {f"At {name}." for name in names}


def test_names_match_however_their_accents_are_stored(write_tree: WriteTree) -> None:
    apart, composed = (unicodedata.normalize(form, "été.jpg") for form in ("NFD", "NFC"))
    assert apart != composed
    tree = {**images(apart), "captions.jsonl": as_jsonl({"image": f"./{composed}", "captions": ["Summer."]})}
    record = load_dataset("folder", write_tree(tree)).records[0]
    assert record.image_id == composed
    assert isinstance(record.image, Path)
    assert record.image.is_file()


def test_every_fault_of_a_jsonl_is_reported_at_once(write_tree: WriteTree) -> None:
    lines = [
        '{"image": "a.jpg", "captions": ["A dog.", " ", "A dog."], "split": "train"}',
        '{"image": "a.jpg", "captions": ["A cat."], "split": "val"}',
        '{"image": "gone.jpg", "captions": ["A bird."]}',
        '{"image": "B.JPG", "captions": ["A bird."]}',
        '{"image": "c.jpg", "captions": ["A fish."], "split": "training"}',
        '{"image": "d.jpg", "captions": []}',
        '{"image": "e.jpg", "captions": "no list"}',
        '{"image": "e.jpg", "captions": [1]}',
        '{"image": "", "captions": ["x"]}',
        '{"image": "e.jpg", "captions": ["x"], "split": 3}',
        "not json",
        "[" * 100_000,
        '["a.jpg"]',
        '{"image": "\\ud800.jpg", "captions": ["x"]}',
        '{"image": "../data/a.jpg", "captions": ["x"]}',
        json.dumps({"image": "f.jpg", "captions": ["long " * 201]}),
    ]
    tree = {
        **images("a.jpg", "b.jpg", "c.jpg", "d.jpg", "f.jpg"),
        "captions.jsonl": "\n".join(lines),
        "captions.csv": "",
    }
    report = check_dataset("folder", write_tree(tree))
    assert report.problems == ()
    assert set(report.warnings) == {
        "captions.csv is not read, for captions.jsonl is there too.",
        "Empty caption, left out: 1 (captions.jsonl line 1).",
        "Caption given twice for an image, used once: 1 (captions.jsonl line 1).",
        "Image in two splits, kept in the later of train, val, test: 1 "
        "(captions.jsonl line 2: a.jpg, train and val).",
        "Line whose split is none of train, val, test, left out: 1 (captions.jsonl line 5: training).",
        f"Line that is not {FORM}, left out: 7 "
        "(captions.jsonl line 7, captions.jsonl line 8, captions.jsonl line 9 and 4 more).",
        "Image that is named but not there, left out: 4 (../data/a.jpg, "
        "B.JPG (but b.jpg is: upper and lower case differ), gone.jpg and 1 more).",
        "Image without captions, left out: 3 (b.jpg, c.jpg, d.jpg).",
        "Caption of more than 200 words, used as it is: 1 (f.jpg).",
    }
    assert [(record.image_id, record.split, len(record.captions)) for record in report.records] == [
        ("a.jpg", "val", 2),
        ("f.jpg", "train", 1),
    ]
    "".join(report.lines).encode()


def test_every_fault_of_a_csv_is_reported_at_once(write_tree: WriteTree) -> None:
    content = (
        "image,caption\n"
        "a.jpg,A dog, running.\n"
        "a.jpg\n"
        "\n"
        'a.jpg,"Two\nlines, one caption."\n'
        "a.jpg,\n"
        ",A dog.\n"
        'a.jpg,"A dog" runs.\n'
        "b.jpg,A cat.\n"
        'b.jpg,"never closed\n'
    )
    report = check_dataset("folder", write_tree({**images("a.jpg", "b.jpg"), "captions.csv": content}))
    assert set(report.warnings) == {
        "Line without exactly 2 fields (a caption with commas needs quotes), left out: 2 "
        "(captions.csv line 2, captions.csv line 3).",
        "Empty caption, left out: 1 (captions.csv line 7).",
        "Line without an image name, left out: 1 (captions.csv line 8).",
        "Line whose quotes do not match, left out with what follows: 2 "
        "(captions.csv line 9: ',' expected after '\"', captions.csv line 11: unexpected end of data).",
    }
    assert [record.captions for record in report.records] == [("Two lines, one caption.",), ("A cat.",)]


def test_every_fault_of_text_files_is_reported_at_once(write_tree: WriteTree) -> None:
    tree = {
        **images("a.jpg", "b.jpg", "c.jpg", "d.jpg"),
        "a.txt": "A dog.\nA dog.\n",
        "b.txt": b"caf\xe9",
        "c.txt": " \n",
    }
    tree |= {"notes.txt": "not a caption", "Thumbs.db": "x"}
    root = write_tree(tree)
    report = check_dataset("folder", root)
    assert set(report.warnings) == {
        "Caption given twice for an image, used once: 1 (a.txt).",
        f"Text file that cannot be read, left out: 1 ({root}/b.txt, line 1: the byte 0xe9 is not UTF-8; "
        "save the file as UTF-8.).",
        "Text file without an image beside it, not read: 1 (notes.txt).",
        "Image without captions, left out: 3 (d.jpg, b.jpg, c.jpg).",
    }
    assert [record.image_id for record in report.records] == ["a.jpg"]


def test_images_without_a_usable_caption_take_no_part_in_the_division(write_tree: WriteTree) -> None:
    """Else the one image of a small set's val could be one that is not there."""
    entries = [{"image": name, "captions": ["A."]} for name in ("a.jpg", "b.jpg", *NAMES)]
    data = load_dataset(
        "folder", write_tree({**images("a.jpg", "b.jpg"), "captions.jsonl": as_jsonl(*entries)})
    )
    assert {record.split for record in data.records} == {"train", "val"}


@pytest.mark.parametrize(
    ("tree", "begin", "end"),
    [
        (
            {"captions.csv": "image,caption\n", "old/readme.md": ""},
            "No images were found in ",
            f"or below (it holds folders old; files captions.csv); {GIVE}",
        ),
        ({}, "No images were found in ", f"or below (it holds nothing); {GIVE}"),
        (
            images("cats/a.jpg", "b.jpg"),
            "",
            "holds 2 images but no captions: neither captions.jsonl nor captions.csv nor a file like b.txt; "
            "write one of them, or name another --dataset.",
        ),
        (
            {**images("a.jpg"), "captions.csv": "a.jpg,A dog.\n"},
            "",
            "captions.csv begins with 'a.jpg,a dog.'; its first line must name the columns image,caption. "
            "Image without captions, left out: 1 (a.jpg).",
        ),
        (
            {**images("a.jpg"), "captions.jsonl": b"\xff\xfe{\x00"},
            "",
            "captions.jsonl, line 1: the byte 0xff is not UTF-8; save the file as UTF-8. "
            "Image without captions, left out: 1 (a.jpg).",
        ),
        (
            {**images("a.jpg"), "captions.jsonl": as_jsonl({"image": "b.jpg", "captions": ["B."]})},
            "Nothing of the data set folder can be used: no image has both file and caption. ",
            "Image without captions, left out: 1 (a.jpg). "
            "Image that is named but not there, left out: 1 (b.jpg).",
        ),
    ],
)
def test_what_cannot_be_used_is_one_sentence(
    write_tree: WriteTree, tree: dict[str, str | bytes], begin: str, end: str
) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset("folder", write_tree(tree))
    assert str(error.value).startswith(begin)
    assert str(error.value).endswith(end)
    assert "\n" not in str(error.value)


def test_links_are_followed_and_a_circle_ends(write_tree: WriteTree) -> None:
    root = write_tree({**images("a.jpg"), "a.txt": "A dog."})
    (root / "round").symlink_to(root, target_is_directory=True)
    (root / "self").symlink_to(root / "self")
    (root.parent / "elsewhere").mkdir()
    (root.parent / "elsewhere" / "b.jpg").write_bytes((root / "a.jpg").read_bytes())
    (root.parent / "elsewhere" / "b.txt").write_text("A cat.", encoding="utf-8")
    (root / "more").symlink_to(root.parent / "elsewhere", target_is_directory=True)
    data = load_dataset("folder", root)
    assert [record.image_id for record in data.records] == ["a.jpg", "more/b.jpg"]


def test_a_name_that_is_not_text_is_left_out_and_can_be_printed(write_tree: WriteTree) -> None:
    root = write_tree({**images("a.jpg"), "a.txt": "A dog."})
    try:
        (root / os.fsdecode(b"\xff.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    report = check_dataset("folder", root)
    assert report.warnings == ("File whose name is not UTF-8, left out: 1 ('\\udcff.jpg').",)
    "".join(report.lines).encode()
