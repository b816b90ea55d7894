"""Images of a split in memory: in order, the unreadable left out and named."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.errors import DatasetError
from pixtell.images import Preprocess, load_image
from pixtell.training.image_memory import load_split_images, resident
from pixtell.training.run_options import DataOptions
from pixtell.training.split_records import read_splits

PREPROCESS = Preprocess(size=16, resize="square", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def test_images_are_in_the_order_of_their_records(photos: Path) -> None:
    records = load_dataset("folder", photos).split("train")
    kept, images = load_split_images(records, PREPROCESS, lambda line: None)
    assert kept == list(records)
    assert images.shape == (10, 3, 16, 16)
    assert images.dtype == torch.uint8
    for record, image in zip(records, images, strict=True):
        assert isinstance(record.image, Path)
        assert torch.equal(image, PREPROCESS.resize_image(load_image(record.image)))


def test_what_cannot_be_read_is_left_out_and_named(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    first, second = load_dataset("folder", photos).split("train")[:2]
    bad = CaptionedImage("bad.png", tmp_path / "bad.png", ("A dog.",), "train")
    lines: list[str] = []
    kept, images = load_split_images([first, bad, second], PREPROCESS, lines.append)
    assert kept == [first, second]
    assert len(images) == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"left out: {tmp_path / 'bad.png'}: ")


def test_none_at_all_is_said(tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture")
    bad = CaptionedImage("bad.png", tmp_path / "bad.png", ("A dog.",), "train")
    with pytest.raises(DatasetError) as caught:
        load_split_images([bad, bad], PREPROCESS, lambda line: None)
    assert str(caught.value) == ("None of 2 images can be read; check them with pixtell datasets check.")


def test_splits_share_no_image_and_a_limit_counts_images(photos: Path) -> None:
    train, val = read_splits(DataOptions("folder", photos), lambda line: None)
    assert (len(train), len(val)) == (10, 3)
    assert not {record.image_id for record in train} & {record.image_id for record in val}
    train, val = read_splits(DataOptions("folder", photos, limit=2), lambda line: None)
    assert (len(train), len(val)) == (2, 2)
    assert all(len(record.captions) == 5 for record in train)


def test_warnings_of_the_data_set_are_reported() -> None:
    lines: list[str] = []
    train, _ = read_splits(DataOptions("shapes", Path("nowhere"), limit=1), lines.append)
    assert isinstance(train[0].image, np.ndarray)
    assert lines == ["Shapes are generated; --data-dir nowhere is not read."]


def test_images_move_to_a_gpu_with_four_times_the_room_and_nowhere_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    assert resident(images, torch.device("cpu")) is images
    for free, moves in ((4 * images.nbytes, True), (4 * images.nbytes - 1, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, free))
        moved: list[torch.device] = []
        spy = _Spy(images, moved)
        resident(spy, torch.device("cuda"))  # type: ignore[arg-type]
        assert moved == [torch.device("cuda")] * moves


class _Spy:
    """A tensor that notes where it is sent."""

    def __init__(self, images: torch.Tensor, moved: list[torch.device]) -> None:
        self.nbytes = images.nbytes
        self.moved = moved

    def to(self, device: torch.device) -> None:
        self.moved.append(device)
