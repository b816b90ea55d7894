import re
from pathlib import Path

import numpy as np
import pytest

from pixtell.datasets.records import CaptionedImage
from pixtell.datasets.shapes import (
    COLOURS,
    KINDS,
    NUM_IMAGES,
    RELATIONS,
    Shape,
    ShapesScene,
    draw,
    make_records,
    make_scenes,
    read_shapes,
)

SMALL = {"train": 30, "val": 10, "test": 10}


@pytest.fixture(scope="module")
def scenes() -> dict[str, tuple[ShapesScene, ...]]:
    return make_scenes()


@pytest.fixture(scope="module")
def records() -> tuple[CaptionedImage, ...]:
    return read_shapes().records


def read_off(image: np.ndarray) -> str:
    """The caption of a picture from its pixels alone, by counting: an oracle that knows nothing of scenes."""
    background = image[0, 0].astype(int)
    found = []
    for name, rgb in COLOURS.items():
        mask = (image == np.array(rgb)).all(axis=2)
        for part in split_parts(mask):
            rows, columns = np.nonzero(part)
            height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
            fill = part.sum() / (height * width)  # square 1, circle 0.79, triangle 0.5
            kind = "square" if fill > 0.9 else "circle" if fill > 0.65 else "triangle"
            found.append((part.sum() / fill, f"{name} {kind}", columns.mean(), rows.mean()))
    assert len(found) == 2, background
    (_, small, small_x, small_y), (_, large, large_x, large_y) = sorted(found)
    dx, dy = large_x - small_x, large_y - small_y
    if abs(dx) > abs(dy):
        relation = "to the right of" if dx > 0 else "to the left of"
    else:
        relation = "below" if dy > 0 else "above"
    return f"A large {large} is {relation} a small {small}."


def split_parts(mask: np.ndarray) -> list[np.ndarray]:
    """Two shapes of one colour lie apart along one axis: cut at the empty rows or columns between them."""
    for axis in (0, 1):
        used = np.flatnonzero(mask.any(axis=1 - axis))
        gaps = np.flatnonzero(np.diff(used) > 1)
        if gaps.size:
            cut = used[gaps[0]] + 1
            first, second = mask.copy(), mask.copy()
            first[(slice(cut, None), slice(None)) if axis == 0 else (slice(None), slice(cut, None))] = False
            second[(slice(None, cut), slice(None)) if axis == 0 else (slice(None), slice(None, cut))] = False
            return [first, second]
    return [mask] if mask.any() else []


def test_every_caption_can_be_read_off_its_picture(records: tuple[CaptionedImage, ...]) -> None:
    for record in records:
        assert isinstance(record.image, np.ndarray)
        assert record.captions == (read_off(record.image),)


def test_captions_are_grammatical(records: tuple[CaptionedImage, ...]) -> None:
    look = rf"({'|'.join(COLOURS)}) ({'|'.join(KINDS)})"
    form = re.compile(rf"A large {look} is ({'|'.join(RELATIONS)}) a small {look}\.")
    assert all(form.fullmatch(caption) for record in records for caption in record.captions)


def test_records_are_whole_sorted_and_unique(records: tuple[CaptionedImage, ...]) -> None:
    ids = [record.image_id for record in records]
    assert ids == sorted(set(ids))
    assert {split: sum(r.split == split for r in records) for split in NUM_IMAGES} == NUM_IMAGES
    for record in records:
        assert isinstance(record.image, np.ndarray)
        assert (record.image.shape, record.image.dtype) == ((64, 64, 3), np.uint8)
    assert len({record.image.tobytes() for record in records}) == len(records)  # type: ignore[union-attr]


def test_no_caption_of_one_split_occurs_in_another(records: tuple[CaptionedImage, ...]) -> None:
    by_split = {split: {r.captions[0] for r in records if r.split == split} for split in NUM_IMAGES}
    assert not by_split["train"] & by_split["val"]
    assert not by_split["train"] & by_split["test"]
    assert not by_split["val"] & by_split["test"]
    assert {split: len(captions) for split, captions in by_split.items()} == {
        "train": 700,
        "val": 100,
        "test": 100,
    }


def test_every_word_and_every_place_of_it_is_seen_in_training(records: tuple[CaptionedImage, ...]) -> None:
    seen = {
        split: {pair for r in records if r.split == split for pair in enumerate(r.captions[0].split())}
        for split in NUM_IMAGES
    }
    assert seen["val"] | seen["test"] <= seen["train"]


def test_a_seed_gives_the_same_pictures_and_another_seed_others() -> None:
    first, again, other = (make_records(seed=seed, num_images=SMALL) for seed in (3, 3, 4))
    assert first == again
    assert all(np.array_equal(a.image, b.image) for a, b in zip(first, again, strict=True))  # type: ignore[arg-type]
    assert first != other


def test_the_pictures_of_seed_0_never_change(scenes: dict[str, tuple[ShapesScene, ...]]) -> None:
    """Numbers in the docs are made with them."""
    assert scenes["train"][0].caption == "A large blue square is above a small green circle."
    assert scenes["val"][7].caption == "A large red square is to the left of a small purple square."


def test_an_image_id_leads_to_its_scene(scenes: dict[str, tuple[ShapesScene, ...]]) -> None:
    record = next(r for r in make_records() if r.image_id == "val-00007")
    assert record.captions == (scenes["val"][7].caption,)
    assert np.array_equal(record.image, draw(scenes["val"][7]))  # type: ignore[arg-type]


@pytest.mark.parametrize("image_size", [32, 64, 224])
def test_boxes_hold_their_shapes_tightly_and_apart(
    scenes: dict[str, tuple[ShapesScene, ...]], image_size: int
) -> None:
    for scene in scenes["val"][:40]:
        image = draw(scene, image_size=image_size).astype(int)
        painted = np.abs(image - scene.background).sum(axis=2) > 0
        boxed = np.zeros_like(painted)
        for shape in (scene.large, scene.small):
            left, top, right, bottom = shape.box(image_size)
            assert min(left, top) >= 0
            assert max(right, bottom) <= image_size
            area = slice(int(top), int(np.ceil(bottom))), slice(int(left), int(np.ceil(right)))
            rows, columns = np.nonzero(painted[area])
            assert np.ptp(rows) + 1 >= bottom - top - 2
            assert np.ptp(columns) + 1 >= right - left - 2
            assert not boxed[area].any()  # boxes do not overlap
            boxed[area] = True
        assert not painted[~boxed].any()


def test_a_drawn_shape_has_its_area() -> None:
    """Coverage is exact enough: pi r^2, 4 r^2 and 2 r^2 pixels, to 1 %."""
    far = Shape("square", "blue", 0.95, 0.95, 0.01)
    for kind, area in (("circle", np.pi), ("square", 4.0), ("triangle", 2.0)):
        image = draw(ShapesScene(Shape(kind, "red", 0.4, 0.45, 0.3), far, background=255), image_size=100)
        red = (255 - image[:90, :90, 1].astype(float)) / (255 - COLOURS["red"][1])
        assert red.sum() == pytest.approx(area * 30**2, rel=0.01)


def test_a_data_dir_is_said_to_be_of_no_use() -> None:
    assert read_shapes(None).warnings == ()
    assert read_shapes(Path("photos")).warnings == ("Shapes are generated; --data-dir photos is not read.",)
