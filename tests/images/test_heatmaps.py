"""Maps over an image: where the colour lies, that it keeps its order, that nothing on a sheet is cut."""

import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pixtell.images import Tile, draw_sheet, encode_png, overlay
from pixtell.images.heatmaps import colours_of


def photo(height: int = 60, width: int = 90) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def heat(row: int, column: int, side: int = 3) -> NDArray[np.float32]:
    grid = np.zeros((side, side), np.float32)
    grid[row, column] = 1
    return grid


def is_grey(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Nearly: far from a peak, a smooth curve through the cells is not quite 0."""
    return np.ptp(image.astype(int), axis=2) <= 3


def ink(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (image < 250).any(axis=2)


def test_higher_is_lighter_and_different() -> None:
    colours = colours_of(np.linspace(0, 1, 101))
    assert colours.shape == (101, 3)
    lightness = colours @ (0.2126, 0.7152, 0.0722)
    assert (np.diff(lightness) > 0.5).all()


def test_colour_lies_where_the_heat_is() -> None:
    image = np.full((60, 90, 3), 128, np.uint8)
    drawn = overlay(image, heat(2, 0))
    assert (drawn.shape, drawn.dtype) == ((60, 90, 3), np.uint8)
    colour = np.ptp(drawn.astype(int), axis=2)
    assert colour[50, 15] > 60  # the middle of the lower left cell
    assert is_grey(drawn)[:20].all()
    assert is_grey(drawn)[:, 60:].all()
    assert np.array_equal(overlay(image, np.zeros((3, 3), np.float32))[0, 0], [117, 117, 117])


def test_outside_the_box_nothing_is_coloured() -> None:
    drawn = overlay(photo(), np.ones((3, 3), np.float32), box=(1 / 6, 0, 5 / 6, 1))
    assert is_grey(drawn)[:, :15].all()
    assert is_grey(drawn)[:, 75:].all()
    assert not is_grey(drawn)[:, 15:75].any()


@pytest.mark.parametrize("num_tiles", [0, 1, 4, 5, 13])
def test_a_sheet_has_a_place_for_the_picture_and_every_map(num_tiles: int) -> None:
    tiles = [Tile(heat(1, 1), "word", "+1.0")] * num_tiles
    sheet = draw_sheet(photo(), tiles, title="A title.")
    rows, columns = -(-(num_tiles + 1) // 5), min(5, num_tiles + 1)
    assert sheet.shape[1] == columns * 254 + 14
    faces = [
        sheet[top : top + 160, left : left + 240]
        for top in (start_of_rows(sheet, rows))
        for left in range(14, sheet.shape[1] - 14, 254)
    ]
    full = [face for face in faces if ink(face).mean() > 0.9]
    assert len(full) == num_tiles + 1
    assert [bool(is_grey(face)[0, 0]) for face in full[1:]] == [True] * num_tiles
    assert margins_are_white(sheet)


def start_of_rows(sheet: NDArray[np.uint8], rows: int) -> list[int]:
    """The tops of the pictures: a row is 160 pixels of picture and 60 of letters."""
    return [sheet.shape[0] - (row + 1) * 220 for row in reversed(range(rows))]


def margins_are_white(sheet: NDArray[np.uint8]) -> bool:
    edges = (sheet[:10], sheet[-10:], sheet[:, :10], sheet[:, -10:])
    return not any(ink(edge).any() for edge in edges)


def test_long_captions_and_words_are_not_cut() -> None:
    long = "a word " * 60 + "w" * 200
    sheet = draw_sheet(photo(), [Tile(heat(0, 0), "w" * 60, "+1.0")], title=long)
    short = draw_sheet(photo(), [Tile(heat(0, 0), "w", "+1.0")], title="A.")
    assert sheet.shape[0] > short.shape[0] + 200  # the title took several lines
    assert margins_are_white(sheet)
    assert not ink(sheet[-50:, 254:266]).any()  # between the two tiles' words


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3000), (3000, 2), (9, 16), (700, 500)])
def test_pictures_of_any_shape(height: int, width: int) -> None:
    sheet = draw_sheet(photo(height, width), [Tile(heat(0, 0), "word")], title="A title.")
    assert margins_are_white(sheet)
    assert sheet.shape[0] <= 14 * 2 + 28 + 300


def test_a_png_comes_back() -> None:
    image = photo()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(image)))), image)
