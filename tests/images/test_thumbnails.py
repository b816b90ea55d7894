"""Small pictures for pages."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from pixtell.errors import ImageError
from pixtell.images import make_thumbnails


def test_every_source_gives_a_small_webp_or_its_error_in_order(tmp_path: Path) -> None:
    wide = np.zeros((100, 800, 3), np.uint8)
    wide[:, 400:] = 255
    absent = tmp_path / "absent.jpg"
    Image.fromarray(wide).save(tmp_path / "wide.png")
    first, error, second = make_thumbnails([wide, absent, tmp_path / "wide.png"], longest_side=80)
    assert isinstance(error, ImageError)
    assert "no such file" in error.reason
    assert first == second
    data, width, height = first
    assert (width, height) == (80, 10)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.size) == ("WEBP", (80, 10))
    pixels = np.asarray(image.convert("L"))
    assert pixels[:, :35].max() < 30
    assert pixels[:, 45:].min() > 225


def test_a_small_picture_is_not_enlarged_and_a_thin_one_keeps_its_pixel() -> None:
    thin = np.zeros((2, 5000, 3), np.uint8)
    small = np.zeros((7, 9, 3), np.uint8)
    (_, *of_thin), (_, *of_small) = make_thumbnails([thin, small])
    assert of_thin == [320, 1]
    assert of_small == [9, 7]
