import csv
import io
from pathlib import Path
from typing import Protocol

import pytest

from pixtell.datasets import check_dataset, load_dataset
from pixtell.datasets.records import choose_splits
from pixtell.errors import DatasetError


class WriteTree(Protocol):
    def __call__(self, tree: dict[str, str | bytes]) -> Path: ...


TOKENS = "".join(f"{name}.jpg#{index}\t{name} number {index} .\n" for name in "abcd" for index in range(2))


def original(
    prefix: str = "", images: str = "Flicker8k_Dataset/", text: str = "Flickr8k_text/"
) -> dict[str, str | bytes]:
    """Four images, two captions each: a and b to train on, c is val, d is test."""
    return {
        **{f"{prefix}{images}{name}.jpg": "" for name in "abcd"},
        f"{prefix}{text}Flickr8k.token.txt": TOKENS,
        f"{prefix}{text}Flickr8k.lemma.token.txt": "not read",
        f"{prefix}{text}Flickr_8k.trainImages.txt": "b.jpg\na.jpg\n",
        f"{prefix}{text}Flickr_8k.devImages.txt": "c.jpg\n",
        f"{prefix}{text}Flickr_8k.testImages.txt": "d.jpg\n",
    }


def as_csv(rows: list[tuple[str, str]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([("image", "caption"), *rows])
    return stream.getvalue()


def other_layout(num_images: int) -> dict[str, str | bytes]:
    names = [f"{index:03}.jpg" for index in range(num_images)]
    return {
        **{f"Images/{name}": "" for name in names},
        "captions.txt": as_csv([(name, f'A dog, "Rex", runs {n} .') for name in names for n in range(5)]),
    }


@pytest.mark.parametrize(
    "tree",
    [
        original(),
        original(images="Flickr8k_Dataset/"),
        original(images="Images/"),
        original(images="Flickr8k_Dataset/Flicker8k_Dataset/"),
        original(prefix="flickr8k/"),
        original(text=""),
        {**original(), "__MACOSX/Flicker8k_Dataset/._a.jpg": "", "Flicker8k_Dataset/._a.jpg": ""},
        {**original(), "captions.txt": "the original captions are preferred"},
    ],
)
def test_the_original_layout_is_found_as_archives_unpack(
    write_tree: WriteTree, tree: dict[str, str | bytes]
) -> None:
    data = load_dataset("flickr8k", write_tree(tree))
    assert data.warnings == ()
    assert [(record.image_id, record.split) for record in data.records] == [
        ("a.jpg", "train"),
        ("b.jpg", "train"),
        ("c.jpg", "val"),
        ("d.jpg", "test"),
    ]
    assert data.split("dev")[0].captions == ("c number 0 .", "c number 1 .")
    assert all(isinstance(r.image, Path) and r.image.is_file() for r in data.records)


def test_the_layout_without_split_files_is_split_by_name_and_says_so(write_tree: WriteTree) -> None:
    data = load_dataset("flickr8k", write_tree(other_layout(60)))
    names = [record.image_id for record in data.records]
    assert {record.image_id: record.split for record in data.records} == choose_splits(names, with_test=True)
    assert {record.split for record in data.records} == {"train", "val", "test"}
    assert data.records[0].captions[1] == 'A dog, "Rex", runs 1 .'
    assert data.warnings == (
        "The official split is unknown, for Flickr_8k.trainImages.txt, Flickr_8k.devImages.txt, "
        "Flickr_8k.testImages.txt are not there: a tenth of the images by a hash of their names is val, "
        "another tenth test; scores do not compare with published ones.",
    )


def test_split_files_beside_the_other_layout_are_used(write_tree: WriteTree) -> None:
    tree = other_layout(4)
    tree |= {
        "Flickr_8k.trainImages.txt": "000.jpg\n001.jpg\n",
        "Flickr_8k.devImages.txt": "002.jpg\n",
        "Flickr_8k.testImages.txt": "003.jpg\n",
    }
    data = load_dataset("flickr8k", write_tree(tree))
    assert data.warnings == ()
    assert [record.split for record in data.records] == ["train", "train", "val", "test"]


def test_an_absent_image_is_a_warning_with_a_count(write_tree: WriteTree) -> None:
    tree = original()
    del tree["Flicker8k_Dataset/a.jpg"]
    data = load_dataset("flickr8k", write_tree(tree))
    assert data.warnings == ("Image that is named but not there, left out: 1 (a.jpg).",)
    assert [record.image_id for record in data.split("train")] == ["b.jpg"]


def test_every_fault_is_reported_at_once_and_the_rest_is_used(write_tree: WriteTree) -> None:
    tree = original()
    del tree["Flicker8k_Dataset/a.jpg"]
    tree |= {f"Flicker8k_Dataset/{name}.jpg": "" for name in "ef"}
    tree["Flickr8k_text/Flickr8k.token.txt"] = (
        TOKENS
        + "b.jpg#0\tb again .\n"  # line 9
        + "b.jpg#2\t \x07 \n"
        + "no tab and no number\n"
        + "2258.jpg.1#0\tNames no image .\n"
        + "f.jpg#0\t"
        + "very " * 200
        + "long .\n"
    )
    tree["Flickr8k_text/Flickr_8k.trainImages.txt"] = "b.jpg\na.jpg\nb.jpg\ne.jpg\nf.jpg\n\n\x00rubbish\n"
    tree["Flickr8k_text/Flickr_8k.testImages.txt"] = "d.jpg\nb.jpg\n"
    report = check_dataset("flickr8k", write_tree(tree))
    assert report.problems == ()
    assert set(report.warnings) == {
        "Image that is named but not there, left out: 1 (a.jpg).",
        "Caption number used twice, the later one left out: 1 (Flickr8k.token.txt line 9: b.jpg#0).",
        "Empty caption, left out: 1 (Flickr8k.token.txt line 10).",
        'Line that is not "image.jpg#0<TAB>caption", left out: 1 (Flickr8k.token.txt line 11).',
        "Image named twice in a split file, used once: 1 (Flickr_8k.trainImages.txt line 3: b.jpg).",
        "Line of a split file that names no known image, left out: 1 "
        "('Flickr_8k.trainImages.txt line 7: \\x00rubbish').",
        "Image in the splits train and test, used in test only: 1 (b.jpg).",
        "Image without captions, left out: 1 (e.jpg).",
        "Caption of more than 200 words, used as it is: 1 (f.jpg).",
    }
    assert {record.image_id: record.split for record in report.records} == {
        "b.jpg": "test",
        "c.jpg": "val",
        "d.jpg": "test",
        "f.jpg": "train",
    }
    assert "(1 images with captions are in none and not used)" in report.sources[2]
    assert load_dataset("flickr8k", write_tree(tree)).warnings == report.warnings


def test_an_image_in_all_three_splits_is_only_tested_on(write_tree: WriteTree) -> None:
    tree = original()
    for name in ("train", "dev", "test"):
        tree[f"Flickr8k_text/Flickr_8k.{name}Images.txt"] = "a.jpg\n"
    assert [record.split for record in load_dataset("flickr8k", write_tree(tree)).records] == ["test"]


def test_a_missing_split_file_leaves_its_split_empty_and_says_so(write_tree: WriteTree) -> None:
    tree = original()
    del tree["Flickr8k_text/Flickr_8k.devImages.txt"]
    data = load_dataset("flickr8k", write_tree(tree))
    assert data.warnings == ("The split val is empty, for Flickr_8k.devImages.txt is not there.",)
    with pytest.raises(DatasetError, match="no images in the split 'dev'; choose from: train"):
        data.split("dev")


def test_images_without_captions_count_where_nothing_splits_them(write_tree: WriteTree) -> None:
    report = check_dataset("flickr8k", write_tree({**other_layout(5), "Images/z.jpg": ""}))
    assert "Image without captions, left out: 1 (z.jpg)." in report.warnings


def test_equal_captions_of_an_image_stay(write_tree: WriteTree) -> None:
    tree = {**original(), "Flickr8k_text/Flickr8k.token.txt": "a.jpg#0\tA dog .\na.jpg#1\tA dog .\n"}
    assert load_dataset("flickr8k", write_tree(tree)).records[0].captions == ("A dog .", "A dog .")


@pytest.mark.parametrize(
    ("tree", "looked_for", "found"),
    [
        (
            {"Flickr8k_text/Flickr8k.token.txt": TOKENS},
            "there is no folder named Flicker8k_Dataset, Flickr8k_Dataset, Images with images in it",
            "(it holds folders Flickr8k_text)",
        ),
        (
            {"Images/a.jpg": "", "captions.csv": ""},
            "there is no file Flickr8k.token.txt or captions.txt",
            "(it holds folders Images; files captions.csv)",
        ),
        (
            {f"{n}.txt": "" for n in range(8)},
            "with images in it and no file Flickr8k.token.txt",
            "(it holds files 0.txt, 1.txt, 2.txt and 5 more)",
        ),
        (
            {"Images/readme.md": "", "captions.txt": as_csv([])},
            "with images in it",
            "(it holds folders Images; files captions.txt)",
        ),
        ({}, "with images in it and no file", "(it holds nothing)"),
    ],
)
def test_a_folder_of_neither_layout_says_what_was_looked_for_and_found(
    write_tree: WriteTree, tree: dict[str, str | bytes], looked_for: str, found: str
) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset("flickr8k", write_tree(tree))
    sentence = str(error.value)
    assert looked_for in sentence
    assert found in sentence
    assert sentence.endswith(
        "give --data-dir, a folder with Flicker8k_Dataset and Flickr8k_text, or Images and captions.txt, or "
        "--dataset folder for pictures of your own."
    )
    assert "\n" not in sentence


def test_text_in_another_encoding_is_named_by_file_line_and_byte(write_tree: WriteTree) -> None:
    tree = original()
    tree["Flickr8k_text/Flickr8k.token.txt"] = TOKENS.encode() + "a.jpg#5\tUn café .\n".encode("latin-1")
    root = write_tree(tree)
    path = root / "Flickr8k_text" / "Flickr8k.token.txt"
    with pytest.raises(DatasetError) as error:
        load_dataset("flickr8k", root)
    assert str(error.value).startswith(f"{path}, line 9: the byte 0xe9 is not UTF-8; save the file as UTF-8.")


def test_a_split_file_in_another_encoding_is_a_problem_beside_the_others(write_tree: WriteTree) -> None:
    tree = original()
    tree["Flickr8k_text/Flickr_8k.devImages.txt"] = b"c.jpg\n\xff\n"
    tree["Flickr8k_text/Flickr_8k.testImages.txt"] = b"\xfe\n"
    report = check_dataset("flickr8k", write_tree(tree))
    assert [problem.split("/")[-1] for problem in report.problems] == [
        "Flickr_8k.devImages.txt, line 2: the byte 0xff is not UTF-8; save the file as UTF-8.",
        "Flickr_8k.testImages.txt, line 1: the byte 0xfe is not UTF-8; save the file as UTF-8.",
    ]
    assert report.lines[-1] == "will be used: nothing"


def test_nothing_that_can_be_used_is_an_end_with_its_reasons(write_tree: WriteTree) -> None:
    tree = {**original(), "Flickr8k_text/Flickr8k.token.txt": "z.jpg#0\tNot there .\n"}
    with pytest.raises(DatasetError) as error:
        load_dataset("flickr8k", write_tree(tree))
    assert str(error.value) == (
        "Nothing of the data set flickr8k can be used: no image has both file and caption. "
        "Image without captions, left out: 4 (a.jpg, b.jpg, c.jpg and 1 more)."
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "captions.txt is empty; its first line must name the columns image,caption."),
        (
            "000.jpg,A dog runs .\n",
            "captions.txt begins with '000.jpg,a dog runs .'; its first line must name the columns image,",
        ),
    ],
)
def test_a_captions_file_without_its_header_is_refused(
    write_tree: WriteTree, content: str, sentence: str
) -> None:
    with pytest.raises(DatasetError) as error:
        load_dataset("flickr8k", write_tree({**other_layout(3), "captions.txt": content}))
    assert sentence in str(error.value)


@pytest.mark.flickr8k
def test_the_real_data_set_has_its_official_counts(flickr8k_dir: Path) -> None:
    data = load_dataset("flickr8k", flickr8k_dir)
    assert {split: len(data.split(split)) for split in ("train", "val", "test")} == {
        "train": 5999,
        "val": 1000,
        "test": 1000,
    }
    assert all(len(record.captions) == 5 for record in data.records)
    assert data.warnings == ("Image that is named but not there, left out: 1 (3050606344_af711c726c.jpg).",)
    assert data.split("train")[0].image_id == "1000268201_693b08cb0e.jpg"
    assert data.split("train")[0].captions[1] == "A girl going into a wooden building ."
