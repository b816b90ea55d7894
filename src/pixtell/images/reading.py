"""A path, bytes, a Pillow image or an array -> image (np.uint8, (H, W, 3), RGB), or one sentence why not.

JPEGs go through simplejpeg (jpeg.py) where it is installed; everything else, and every JPEG it will not take,
through Pillow, which is imported only then. Both give the same image.
"""

import io
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pixtell.errors import ImageError
from pixtell.images.jpeg import JPEG_START, decode_jpeg, make_upright, read_jpeg_header

if TYPE_CHECKING:
    from PIL import Image as PillowImage

ImageSource: TypeAlias = "str | Path | bytes | NDArray[Any] | PillowImage.Image"

# Pillow's own limit, twice its warning threshold: 179 million pixels, half a gigabyte as RGB.
MAX_IMAGE_PIXELS = 178_956_970
# A larger file holds no picture within that limit: 16 bits, four channels, uncompressed are 1.4 GB.
MAX_FILE_BYTES = 2 * 1024**3

# What Pillow's plug-ins say of files that end too soon.
_WORDS_OF_DAMAGE = (
    "truncated",
    "broken",
    "incomplete",
    "not enough",
    "only got",
    "unrecognized",
    "decoder object",
)
# First bytes of formats that Pillow reads: where it does not know such a file, the file is damaged.
_KNOWN_STARTS = {
    JPEG_START: "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"RIFF": "WebP",
    b"BM": "BMP",
}
# Brands in bytes 8 to 12 of an ISO media file, after "ftyp": ISO/IEC 23008-12 and the AV1 image format.
_HEIC_BRANDS = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}


def load_image(source: ImageSource) -> NDArray[np.uint8]:
    """Decode one image to RGB, uint8, (H, W, 3), upright (EXIF orientation applied).

    source: a path, the bytes of a file, a Pillow image, or an array, uint8 (H, W, 3), (H, W) grey or
    (H, W, 4) RGBA. Transparency is laid on white; 16 bits are scaled to 8; of an animation the first frame is
    taken. A float TIFF is 0..1 if nothing in it is over 1, else 0..255. An array (H, W, 3) stays as it is.

    Raises: ImageError, naming the file and the reason.
    """
    if isinstance(source, np.ndarray):
        return _load_array(source)
    if isinstance(source, bytes):
        return _decode(source, "image bytes")
    if isinstance(source, str | Path):
        return _decode(read_image_bytes(Path(source)), str(source))
    from PIL import Image

    if isinstance(source, Image.Image):
        return _load_pillow(lambda: source, "Pillow image", b"")
    raise ImageError(type(source).__name__, "it is no image; give a path, bytes, a Pillow image or an array.")


def _load_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8:
        raise ImageError(
            "array", f"its dtype is {array.dtype}, not uint8; scale it to 0..255 and use astype('uint8')."
        )
    if 0 in array.shape:
        raise ImageError("array", f"its shape {array.shape} holds no pixels; give (H, W, 3).")
    if array.ndim == 2:
        return np.repeat(array[:, :, None], 3, axis=2)  # (H, W, 3)
    if array.ndim == 3 and array.shape[2] == 3:
        return array
    if array.ndim == 3 and array.shape[2] == 4:
        from PIL import Image

        return _lay_on_white(Image.fromarray(np.ascontiguousarray(array)))
    raise ImageError("array", f"its shape is {array.shape}; give (H, W, 3), (H, W) grey or (H, W, 4) RGBA.")


def read_image_bytes(path: Path) -> bytes:
    """The bytes of an image file, not yet decoded. Raises: ImageError where there is no readable file."""
    name = str(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(name, "it is a folder, not a file; name the pictures in it.")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(name, "it is not a regular file; copy the picture to a file first.")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(
                name,
                f"its {status.st_size:,} bytes are over the limit of {MAX_FILE_BYTES:,}; shrink it first.",
            )
        return path.read_bytes()
    except FileNotFoundError as cause:
        raise ImageError(name, "there is no such file; check the path.") from cause
    except PermissionError as cause:
        raise ImageError(name, "it may not be read (permission denied); change that.") from cause
    except (OSError, ValueError) as cause:  # ValueError: a null character in the path
        reason = getattr(cause, "strerror", None) or cause
        raise ImageError(name, f"it cannot be read ({reason}); check the file.") from cause


def _decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """The bytes of an image file -> (H, W, 3)."""
    if not data:
        raise ImageError(name, "it is empty (0 bytes); get the picture again.")
    if data.startswith(JPEG_START) and (header := read_jpeg_header(data)) is not None:
        _check_size(header.width, header.height, name)
        image = decode_jpeg(data)
        if image is not None:
            return make_upright(image, header.orientation)

    def open_data() -> "PillowImage.Image":
        from PIL import Image

        return Image.open(io.BytesIO(data))

    return _load_pillow(open_data, name, data[:64])


def _check_size(width: int, height: int, name: str) -> None:
    size = f"{width} x {height} pixels"
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(name, f"its {size} are over the limit of {MAX_IMAGE_PIXELS:,}; shrink it first.")
    if width * height == 0:
        raise ImageError(name, f"it has {size}, which is none; get the picture again.")


def _load_pillow(open_image: "Callable[[], PillowImage.Image]", name: str, start: bytes) -> NDArray[np.uint8]:
    """Open, check and convert with Pillow. start: the file's first bytes, to say what a refused file is."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = open_image()
        _check_size(image.width, image.height, name)
        image.load()
        return make_upright(_to_rgb(image), _orientation(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as cause:
        limit = f"{MAX_IMAGE_PIXELS:,}"
        raise ImageError(name, f"its pixels are over the limit of {limit}; shrink it first.") from cause
    except UnidentifiedImageError as cause:
        raise ImageError(name, _explain_unknown(start)) from cause
    except Exception as cause:  # Pillow's plug-ins raise nearly anything on damaged files
        detail = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
        damaged = any(word in detail.lower() for word in _WORDS_OF_DAMAGE)
        reason = "it is truncated or damaged" if damaged else "it cannot be decoded"
        raise ImageError(name, f"{reason} ({detail}); get it again or convert it to JPEG.") from cause


def _explain_unknown(start: bytes) -> str:
    """Why Pillow does not know a file, judged by its first bytes."""
    if start[4:8] == b"ftyp":
        if start[8:12] in _HEIC_BRANDS:
            return "it is HEIC, which needs Pillow's plug-in pillow-heif; convert it to JPEG or PNG first."
        if start[8:12] in _AVIF_BRANDS:
            return "it is AVIF, damaged or of a kind this Pillow lacks; convert it to JPEG or PNG first."
        return "it is a video or another media file, not an image; name pictures only."
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "it is JPEG XL, which needs a plug-in for Pillow; convert it to JPEG or PNG first."
    if b"<svg" in start:
        return "it is SVG, a drawing without pixels; convert it to PNG first."
    for known_start, kind in _KNOWN_STARTS.items():
        if start.startswith(known_start):
            return f"it begins like {kind} but is truncated, damaged or of an unknown variant; get it again."
    return "it is not an image that Pillow can read; convert it to JPEG or PNG."


def _orientation(image: "PillowImage.Image") -> int:
    """The EXIF orientation of a loaded image; TIFFs are already upright, and then have none."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block costs a picture its orientation, not its content
        return 1


def _to_rgb(image: "PillowImage.Image") -> NDArray[np.uint8]:
    """Any mode of Pillow -> (H, W, 3)."""
    if image.mode.startswith("I"):  # 16 bits, 0..65535, also where Pillow keeps them in 32
        values = np.asarray(image).astype(np.float32).clip(0, None)  # (H, W)
        return _grey_to_rgb(values * (255 / max(65535.0, float(values.max()))))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)  # (H, W)
        return _grey_to_rgb(values * (255 if values.max() <= 1 else 1))
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return np.array(ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB"))
    if image.has_transparency_data:
        return _lay_on_white(image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Grey (H, W), floats in 0..255 -> (H, W, 3)."""
    grey = np.rint(values.clip(0, 255)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _lay_on_white(image: "PillowImage.Image") -> NDArray[np.uint8]:
    """RGBA -> (H, W, 3)."""
    from PIL import Image

    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return np.array(canvas)
