"""An image and maps over it -> a sheet to look at: the picture, then a tile for each map.

In: an image, maps of 0 to 1, the words that belong to them. Out: an image. It does not know what the maps
measure.
"""

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL import Image as PillowImage
    from PIL import ImageDraw, ImageFont

Box: TypeAlias = tuple[float, float, float, float]  # left, top, right, bottom

_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
_SIDE = 240  # pixels of a tile's longer side
_GAP = 14  # pixels between tiles, and around the sheet
_COLUMNS = 5  # tiles a row, at most
_TITLE_SIZE, _LABEL_SIZE, _NOTE_SIZE, _SMALLEST_SIZE = 22, 20, 14, 8  # of letters, in pixels
_PAPER, _INK, _PALE_INK = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_COVER = 0.85  # of the picture, by the colour of the value 1

# Dark violet to pale yellow; each stop is lighter than the one before, so that the order survives in grey.
_STOPS = np.array([(45, 15, 105), (140, 25, 120), (225, 70, 70), (250, 160, 45), (255, 245, 150)], np.float64)


@dataclass(frozen=True)
class Tile:
    """One map on the sheet. heat: (h, w), 0 to 1, any grid; label: under it; note: smaller, under that."""

    heat: NDArray[np.float32]
    label: str
    note: str = ""


def draw_sheet(
    image: NDArray[np.uint8], tiles: Sequence[Tile], *, title: str, box: Box = _WHOLE
) -> NDArray[np.uint8]:
    """The title, the picture, and a tile for each map, in rows: uint8 (H', W', 3).

    image: (H, W, 3) uint8. box: the part of the image that the maps lie on, in fractions of its sides; what
    is outside stays grey.
    """
    from PIL import Image, ImageDraw

    picture = _fit(image)  # (h, w, 3)
    faces = [picture, *(overlay(picture, tile.heat, box=box) for tile in tiles)]
    columns = min(_COLUMNS, len(faces))
    width = columns * (_SIDE + _GAP) + _GAP
    lines = _wrap(title, _font(_TITLE_SIZE), width - 2 * _GAP)
    top = 2 * _GAP + len(lines) * (_TITLE_SIZE + 6)
    row_height = picture.shape[0] + _LABEL_SIZE + _NOTE_SIZE + 12 + _GAP
    rows = -(-len(faces) // columns)
    sheet = Image.new("RGB", (width, top + rows * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((_GAP, _GAP + number * (_TITLE_SIZE + 6)), line, _INK, _font(_TITLE_SIZE))
    for number, face in enumerate(faces):
        row, column = divmod(number, columns)
        left, above = _GAP + column * (_SIDE + _GAP), top + row * row_height
        sheet.paste(Image.fromarray(face), (left + (_SIDE - face.shape[1]) // 2, above))
        if number > 0:
            below = above + face.shape[0] + 4
            _write_centred(draw, tiles[number - 1].label, _LABEL_SIZE, _INK, (left, below))
            _write_centred(
                draw, tiles[number - 1].note, _NOTE_SIZE, _PALE_INK, (left, below + _LABEL_SIZE + 4)
            )
    return np.asarray(sheet)


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32], *, box: Box = _WHOLE) -> NDArray[np.uint8]:
    """The image in pale grey, coloured where the heat is: uint8 (H, W, 3).

    image: (H, W, 3) uint8. heat: (h, w), 0 to 1, stretched smoothly over `box` (fractions of the sides).
    """
    from PIL import Image

    height, width = image.shape[:2]
    left, right = (round(value * width) for value in (box[0], box[2]))
    top, bottom = (round(value * height) for value in (box[1], box[3]))
    size = max(1, right - left), max(1, bottom - top)
    stretched = Image.fromarray(np.ascontiguousarray(heat, np.float32)).resize(size, Image.Resampling.BICUBIC)
    values = np.zeros((height, width, 1), np.float32)
    values[top : top + size[1], left : left + size[0], 0] = np.clip(np.asarray(stretched), 0, 1)
    grey = 40 + 0.6 * image.mean(axis=2, keepdims=True, dtype=np.float32)  # (H, W, 1), 40 to 193
    cover = _COVER * values
    mixed = grey * (1 - cover) + colours_of(values[:, :, 0]) * cover  # (H, W, 3)
    drawn: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return drawn


def colours_of(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Values 0 to 1 of any shape (...) -> colours (..., 3), 0 to 255, the lighter the higher."""
    places = np.linspace(0, 1, len(_STOPS))
    return np.stack([np.interp(values, places, _STOPS[:, channel]) for channel in range(3)], axis=-1)


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """The bytes of a PNG file of an image, uint8 (H, W, 3)."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return stream.getvalue()


def _fit(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The image with its longer side at _SIDE, enlarged where it is smaller."""
    from PIL import Image

    height, width = image.shape[:2]
    scale = _SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    fitted: PillowImage.Image = Image.fromarray(np.ascontiguousarray(image)).resize(
        size, Image.Resampling.BICUBIC, reducing_gap=3.0
    )
    return np.asarray(fitted)


@functools.cache  # each is parsed anew otherwise, which takes longer than drawing
def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _wrap(text: str, font: "ImageFont.FreeTypeFont | ImageFont.ImageFont", width: int) -> list[str]:
    """Lines of at most `width` pixels, broken at spaces; a word longer than a line is broken inside."""
    lines = [""]
    for word in text.split():
        joined = f"{lines[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        if lines[-1]:
            lines.append("")
        for letter in word:
            if lines[-1] and font.getlength(lines[-1] + letter) > width:
                lines.append("")
            lines[-1] += letter
    return lines


def _write_centred(
    draw: "ImageDraw.ImageDraw", text: str, size: int, ink: tuple[int, int, int], at: tuple[int, int]
) -> None:
    """One line under a tile, in smaller letters where it is long, cut at the tile's width at the last."""
    while size > _SMALLEST_SIZE and _font(size).getlength(text) > _SIDE:
        size -= 1
    line = _wrap(text, _font(size), _SIDE)[0] if text else ""
    draw.text((at[0] + (_SIDE - _font(size).getlength(line)) / 2, at[1]), line, ink, _font(size))
