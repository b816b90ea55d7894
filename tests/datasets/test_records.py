import hashlib
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixtell.datasets.records import (
    SPLITS,
    CaptionedImage,
    Dataset,
    DatasetReport,
    choose_splits,
    clean_caption,
)
from pixtell.errors import DatasetError

NAMES = st.sets(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12))


def record(image_id: str, split: str, captions: tuple[str, ...] = ("A dog .",)) -> CaptionedImage:
    return CaptionedImage(image_id, Path(image_id), captions, split)


def test_dev_is_val_and_records_keep_their_order() -> None:
    data = Dataset("toy", (record("a", "train"), record("b", "val"), record("c", "val")))
    assert data.split("dev") == data.split("val") == (data.records[1], data.records[2])
    assert data.split("train") == (data.records[0],)


def test_a_split_that_is_unknown_or_empty_is_refused_with_what_there_is() -> None:
    data = Dataset("toy", (record("a", "train"), record("b", "val")))
    with pytest.raises(DatasetError) as unknown:
        data.split("tset")
    assert (
        str(unknown.value)
        == "The data set toy has no split named 'tset'; choose from: train (1 images), val (1 images)."
    )
    with pytest.raises(DatasetError) as empty:
        data.split("test")
    assert "has no images in the split 'test'; choose from: train (1 images), val (1 images)." in str(
        empty.value
    )
    with pytest.raises(DatasetError, match="none, it is empty"):
        Dataset("toy", ()).split("train")


def test_records_with_arrays_can_be_compared_and_hashed() -> None:
    one, other = (
        CaptionedImage("a", np.full((2, 2, 3), grey, dtype=np.uint8), ("A dog .",), "train")
        for grey in (0, 1)
    )
    assert one == other
    assert len({one, other}) == 1


def test_a_report_counts_by_split_and_says_what_will_be_used() -> None:
    records = (record("a", "train", ("x", "y")), record("b", "train"), record("c", "test"))
    report = DatasetReport("toy", ("images: here",), (), ("Something odd: 1 (b).",), records)
    assert report.num_images == {"train": 2, "val": 0, "test": 1}
    assert report.num_captions == {"train": 3, "val": 0, "test": 1}
    assert report.lines == (
        "images: here",
        "warning: Something odd: 1 (b).",
        "will be used: train 2 images with 3 captions; test 1 images with 1 captions",
    )
    bad = DatasetReport("toy", (), ("It is broken.",), (), records)
    assert bad.lines == ("problem: It is broken.", "will be used: nothing")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  A dog\truns\r\n fast . ", "A dog runs fast ."),
        ("A dog\u2028runs\u2029\x0b\x0c\x85fast", "A dog runs fast"),
        ("\ufeffA\x00 d\x07o\x7fg", "A dog"),
        ("A \ud83d dog", "A dog"),
        ("\u200d\U0001f415", "\u200d\U0001f415"),
        (" \x00\t", ""),
    ],
)
def test_captions_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_caption(text) == cleaned


@given(st.text())
def test_a_cleaned_caption_is_one_line_that_can_be_stored(text: str) -> None:
    cleaned = clean_caption(text)
    assert clean_caption(cleaned) == cleaned
    assert not {unicodedata.category(character) for character in cleaned} & {"Cc", "Cs", "Zl", "Zp"}
    assert len(cleaned.splitlines()) <= 1
    assert len(cleaned.encode()) >= len(cleaned)


@given(NAMES, NAMES)
def test_a_name_decides_the_split_alone(names: set[str], others: set[str]) -> None:
    few, many = choose_splits(names), choose_splits(names | others)
    forced = sum(few[name] != many[name] for name in names)
    assert few.keys() == names
    assert set(few.values()) <= {"train", "val"}
    assert forced <= 1  # the one image that a very small set puts into val, or into train


@given(NAMES)
def test_the_smallest_sets_have_an_image_to_train_on_and_one_to_validate_on(names: set[str]) -> None:
    splits = choose_splits(names)
    assert ("train" in splits.values()) == (len(names) >= 1)
    assert ("val" in splits.values()) == (len(names) >= 2)


@given(st.text(st.characters(codec="utf-8"), max_size=8))
def test_about_a_tenth_is_val(prefix: str) -> None:
    names = [f"{prefix}{index}.jpg" for index in range(4000)]
    splits = list(choose_splits(names).values())
    assert 0.07 < splits.count("val") / len(names) < 0.13  # 6 standard deviations
    with_test = list(choose_splits(names, with_test=True).values())
    assert 0.07 < with_test.count("val") / len(names) < 0.13
    assert 0.07 < with_test.count("test") / len(names) < 0.13
    assert set(with_test) == set(SPLITS)


def test_the_hash_never_changes() -> None:
    """Runs of different versions must not mix what was trained on with what is validated on."""
    names = [f"{index}.jpg" for index in range(100)]
    expected = [name for name in names if int(hashlib.sha256(name.encode()).hexdigest()[:16], 16) % 10 == 0]
    assert expected[:3] == ["33.jpg", "41.jpg", "46.jpg"]
    assert [name for name, split in choose_splits(names).items() if split == "val"] == expected
