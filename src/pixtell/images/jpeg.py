"""JPEG bytes -> image, without Pillow; and the EXIF orientation, undone.

The header is read here: its size before anything is decoded, and the orientation without an import.
"""

import importlib
import re
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

JPEG_START = b"\xff\xd8\xff"


@dataclass(frozen=True, kw_only=True)
class JpegHeader:
    """What stands before the first scan."""

    width: int
    height: int
    num_components: int  # 1 grey, 3 colour, 4 CMYK
    precision: int  # bits a component
    orientation: int  # EXIF's, 1..8; 1 is upright


def decode_jpeg(data: bytes) -> NDArray[np.uint8] | None:
    """simplejpeg's decoding of a whole JPEG, RGB (H, W, 3), not yet upright; equal to Pillow's.

    None where Pillow must judge: simplejpeg is not installed, or libjpeg complains of anything.
    """
    try:
        simplejpeg = importlib.import_module("simplejpeg")
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")
        return image
    except (ImportError, ValueError):
        return None


def read_jpeg_header(data: bytes) -> JpegHeader | None:
    """The header (ITU-T T.81 annex B), or None where it is damaged or of a kind that only Pillow decodes."""
    try:
        header = _read_segments(data)
    except (struct.error, IndexError):
        return None
    return header if header and header.num_components in (1, 3) and header.precision == 8 else None


def make_upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo an EXIF orientation of an image (H, W, 3); 5 to 8 swap height and width (EXIF 2.3, 4.6.4)."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def _read_segments(data: bytes) -> JpegHeader | None:
    position, frame, exif_orientation, xmp_orientation = len(JPEG_START) - 1, None, None, None
    while data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker == 0xDA:  # the scan begins
            break
        (length,) = struct.unpack_from(">H", data, position + 2)
        segment = data[position + 4 : position + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = struct.unpack_from(">BHHB", segment)  # precision, height, width, components
        elif marker == 0xE1 and segment.startswith(b"Exif\0\0") and exif_orientation is None:
            exif_orientation = _read_exif_orientation(segment[6:])
        elif marker == 0xE1 and (match := re.search(rb'tiff:Orientation(?:="|>)([0-9])', segment)):
            xmp_orientation = int(match[1])
        position += 2 + length
    if frame is None:
        return None
    precision, height, width, num_components = frame
    return JpegHeader(
        width=width,
        height=height,
        num_components=num_components,
        precision=precision,
        orientation=exif_orientation or xmp_orientation or 1,
    )


def _read_exif_orientation(tiff: bytes) -> int | None:
    """Tag 0x0112 of the first directory of a TIFF header; None if absent, or if the block is broken."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(order + "I", tiff, 4)
        (num_entries,) = struct.unpack_from(order + "H", tiff, directory)
        for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == 0x0112:
                return int(value)
    except struct.error:
        pass
    return None
