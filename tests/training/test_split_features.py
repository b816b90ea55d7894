"""Features of a split: the plain image first, views by options and seed, and what cannot be read."""

from pathlib import Path

import pytest
import torch

from pixtell.augment import ViewOptions
from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.devices import Placement
from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.base import Encoder
from pixtell.errors import DatasetError
from pixtell.images import load_image
from pixtell.training.split_features import extract_split


@pytest.fixture
def encoder(encoder_dir: Path) -> Encoder:
    return load_encoder(parse_encoder(str(encoder_dir)))


def test_the_first_view_is_the_plain_image(
    photos: Path, encoder: Encoder, tmp_path: Path, placement: Placement
) -> None:
    records = load_dataset("folder", photos).split("val")
    cache = extract_split(encoder, records, tmp_path, placement, views=3)
    assert (len(cache), cache.views) == (3, 3)
    for record in records:
        assert isinstance(record.image, Path)
        plain = encoder(encoder.preprocess(load_image(record.image)))[0]
        torch.testing.assert_close(cache[record.image_id].float(), plain, atol=2e-3, rtol=2e-3)
        views = torch.stack([cache.rows([record.image_id], view)[0] for view in range(3)])
        assert len({view.numpy().tobytes() for view in views}) == 3


def test_all_that_changes_a_view_has_a_cache_of_its_own(
    photos: Path, encoder: Encoder, tmp_path: Path, placement: Placement
) -> None:
    records = load_dataset("folder", photos).split("val")[:1]

    def path_of(views: int, how: ViewOptions | None = None, seed: int = 0) -> Path:
        return extract_split(encoder, records, tmp_path, placement, views=views, how=how, seed=seed).path

    paths = [path_of(1), path_of(2), path_of(3), path_of(2, seed=1), path_of(2, ViewOptions(colour=0.0))]
    assert len(set(paths)) == 5
    assert path_of(1, ViewOptions(colour=0.0), seed=1) == paths[0]  # of the plain image nothing changes


def test_what_cannot_be_read_is_left_out_and_named(
    photos: Path, encoder: Encoder, tmp_path: Path, placement: Placement
) -> None:
    bad = CaptionedImage("bad", tmp_path / "bad.png", ("A dog.",), "train")
    bad_file = tmp_path / "bad.png"
    bad_file.write_bytes(b"no picture")
    good = load_dataset("folder", photos).split("val")[0]
    lines: list[str] = []
    cache = extract_split(encoder, [bad, good], tmp_path / "features", placement, report=lines.append)
    assert list(cache) == [good.image_id]
    assert lines == [f"left out: {cache.errors['bad']}"]
    with pytest.raises(DatasetError) as caught:
        extract_split(encoder, [bad], tmp_path / "features", placement)
    assert str(caught.value).startswith(f"None of 1 images can be read, first {bad_file}: ")
    assert str(caught.value).endswith("; check the data set with pixtell datasets check.")
