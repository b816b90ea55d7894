"""load_images: ordered, bounded, at home with bad images, and leaving no thread behind."""

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixtell.errors import ImageError
from pixtell.images import Preprocess, load_images

PREPROCESS = Preprocess(size=4, resize="square", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


def plain_image(value: int) -> NDArray[np.uint8]:
    return np.full((6, 8, 3), value, dtype=np.uint8)


def loader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("pixtell-images")]


@pytest.mark.parametrize("threads", [None, 1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_order_is_kept(threads: int | None, count: int) -> None:
    loaded = list(load_images(map(plain_image, range(count)), PREPROCESS, threads=threads))
    assert [int(image[0, 0, 0]) for image in loaded] == list(range(count))
    assert all(image.shape == (3, 4, 4) and image.dtype == torch.uint8 for image in loaded)
    assert loader_threads() == []


def test_a_single_image_is_loaded_on_the_calling_thread() -> None:
    images = load_images([plain_image(1)], PREPROCESS, threads=4)
    next(images)
    assert loader_threads() == []


@pytest.mark.parametrize(("ahead", "most"), [(0, 8), (3, 8), (20, 20)])
def test_look_ahead_is_bounded_and_threads_end_with_the_consumer(ahead: int, most: int) -> None:
    """Four images a thread, or more where a batch is larger."""
    taken = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal taken
        while True:
            taken += 1
            yield plain_image(taken % 256)

    images = load_images(endless(), PREPROCESS, threads=2, ahead=ahead)
    for _ in range(30):
        next(images)
    assert 30 + most <= taken <= 30 + most + 2
    assert loader_threads()
    images.close()  # type: ignore[attr-defined]
    assert loader_threads() == []


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_image_is_returned_in_its_place(threads: int) -> None:
    sources = [plain_image(0), b"no image", plain_image(2), "absent.jpg", plain_image(4)]
    loaded = list(load_images(sources, PREPROCESS, threads=threads, on_error="return"))
    assert [isinstance(image, ImageError) for image in loaded] == [False, True, False, True, False]
    assert [image.name for image in loaded if isinstance(image, ImageError)] == ["image bytes", "absent.jpg"]


@pytest.mark.parametrize("threads", [1, 3])
def test_a_bad_image_is_raised_in_its_place(threads: int) -> None:
    images = load_images([plain_image(0), "absent.jpg", plain_image(2)], PREPROCESS, threads=threads)
    assert int(next(images)[0, 0, 0]) == 0
    with pytest.raises(ImageError, match=r"^absent\.jpg: there is no such file"):
        next(images)
    assert loader_threads() == []


def test_an_error_of_the_source_itself_ends_the_threads() -> None:
    def broken() -> Iterator[NDArray[np.uint8]]:
        yield from map(plain_image, range(20))
        raise RuntimeError("the list ended in a storm")

    with pytest.raises(RuntimeError, match="storm"):
        list(load_images(broken(), PREPROCESS, threads=2))
    assert loader_threads() == []
