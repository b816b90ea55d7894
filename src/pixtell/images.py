"""Image bytes, paths, arrays or Pillow images -> image (np.uint8, (H, W, 3), RGB) -> pixels.

In: anything a person calls a picture. Out: `load_image` gives the decoded image, `Preprocess` the pixels
an encoder wants, `load_images` many of them, in order, on threads. It knows no encoder, data set or feature.

JPEGs go through simplejpeg where it is installed; everything else, and every JPEG it will not take, through
Pillow, which is imported only then. Both give the same image. No other file of the package reads images.
"""

import importlib
import io
import math
import os
import re
import stat
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pixtell.errors import EncoderError, ImageError

if TYPE_CHECKING:
    from PIL import Image as PillowImage

ImageSource: TypeAlias = "str | Path | bytes | NDArray[Any] | PillowImage.Image"

# Twice Pillow's warning threshold, and Pillow's own limit: 179 million pixels, half a gigabyte as RGB.
MAX_IMAGE_PIXELS = 178_956_970
# A file larger than this holds no picture within the pixel limit (16 bits, four channels, uncompressed).
MAX_FILE_BYTES = 2 * 1024**3
# Where the long side is over this many times the short one, "shortest_side" crops before it resizes.
MAX_ASPECT_RATIO = 4

# First bytes of formats that Pillow reads: where it does not know such a file, the file is damaged.
_KNOWN_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"II*\x00": "TIFF",
    b"MM\x00*": "TIFF",
    b"RIFF": "WebP",
    b"BM": "BMP",
}
# Brands in bytes 8 to 12 of an ISO media file ("ftyp" box): ISO/IEC 23008-12 and the AV1 image format.
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
        return _decode(_read_file(Path(source)), str(source))
    return _load_pillow(lambda: source, "Pillow image", b"")


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What an encoder wants done to an image: its size, how it is resized, and how pixels are normalised.

    "square": resized to size x size, no crop. "shortest_side": the shortest side to `size`, then the centre,
    as CLIP does (openai/CLIP clip.py:_transform); within 2 grey levels of its processor in transformers.
    """

    size: int  # S, in pixels: an image becomes S x S
    resize: Literal["square", "shortest_side"]
    mean: tuple[float, float, float]  # of R, G, B in 0..1, taken away
    std: tuple[float, float, float]  # of R, G, B in 0..1, divided by
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"  # both with antialiasing, as Pillow has it

    def __post_init__(self) -> None:
        if not 1 <= self.size <= 4096:
            raise EncoderError(
                f"preprocess size {self.size} is outside 1..4096; give the image size in pixels."
            )
        for name, value, valid in (
            ("resize", self.resize, ("square", "shortest_side")),
            ("interpolation", self.interpolation, ("bicubic", "bilinear")),
        ):
            if value not in valid:
                raise EncoderError(f"preprocess {name} {value!r} is unknown; use one of: {', '.join(valid)}.")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(value > 0 for value in self.std):
            raise EncoderError(
                f"preprocess mean {self.mean} and std {self.std} must be three numbers each, std above 0."
            )

    def resize_image(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """An image (H, W, 3) uint8 -> (3, S, S) uint8, resized and cropped, not yet normalised."""
        height, width = image.shape[:2]
        if self.resize == "square":
            return self._interpolate(image, self.size, self.size)
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            return self._resize_centre(image)
        resized_height, resized_width = self._resized_shape(height, width)
        resized = self._interpolate(image, resized_height, resized_width)  # (3, H', W')
        top, left = (resized_height - self.size) // 2, (resized_width - self.size) // 2
        return resized[:, top : top + self.size, left : left + self.size].contiguous()  # (3, S, S)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, S, S) -> pixels, float32 (B, 3, S, S), on the same device."""
        mean = torch.tensor(self.mean, device=batch.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(3, 1, 1)
        return batch.to(torch.float32).div_(255).sub_(mean).div_(std)  # (B, 3, S, S)

    def __call__(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """An image (H, W, 3) uint8 -> pixels, float32 (1, 3, S, S)."""
        return self.normalise(self.resize_image(image).unsqueeze(0))

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values; `from_json` is the way back."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Preprocess":
        """Raises: EncoderError where a field is missing, unknown or of the wrong kind."""
        try:
            mean, std = tuple(map(float, value["mean"])), tuple(map(float, value["std"]))
            return cls(**{**value, "size": int(value["size"]), "mean": mean, "std": std})
        except (KeyError, TypeError, ValueError) as cause:
            raise EncoderError(
                f"preprocess {value!r} is not usable ({cause}); it needs size, resize, mean and std."
            ) from cause

    def _resized_shape(self, height: int, width: int) -> tuple[int, int]:
        """Shape before the centre crop; the long side is rounded down, as in torchvision and transformers."""
        if height <= width:
            return self.size, int(self.size * width / height)
        return int(self.size * height / width), self.size

    def _interpolate(self, image: NDArray[np.uint8], height: int, width: int) -> torch.Tensor:
        """(H, W, 3) -> (3, height, width); at most one grey level from Pillow's own resize."""
        if not image.flags.writeable or any(stride < 0 for stride in image.strides):
            image = image.copy()  # torch takes neither
        batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W), channels last in memory
        resized = F.interpolate(batch, size=(height, width), mode=self.interpolation, antialias=True)
        return resized[0].contiguous()  # (3, height, width)

    def _resize_centre(self, image: NDArray[np.uint8]) -> torch.Tensor:
        """(H, W, 3) -> (3, S, S): resizes only the centre that is kept; a 5000x2 picture costs nothing.

        torch resizes from whole pixels; Pillow takes a box with fractions, and its filter reads on around it.
        """
        from PIL import Image

        height, width = image.shape[:2]
        top, bottom = _kept_span(height, self._resized_shape(height, width)[0], self.size)
        left, right = _kept_span(width, self._resized_shape(height, width)[1], self.size)
        # Only the kept part and the filter's reach around it are copied; bicubic reaches 2 output pixels.
        reach = 2 * math.ceil(max(min(height, width) / self.size, 1)) + 2
        first_row, first_column = max(0, int(top) - reach), max(0, int(left) - reach)
        part = image[first_row : math.ceil(bottom) + reach, first_column : math.ceil(right) + reach]
        resized = Image.fromarray(np.ascontiguousarray(part)).resize(
            (self.size, self.size),
            resample=Image.Resampling[self.interpolation.upper()],
            box=(left - first_column, top - first_row, right - first_column, bottom - first_row),
        )
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()  # (3, S, S)


def load_images(
    sources: Iterable[ImageSource],
    preprocess: Preprocess,
    *,
    threads: int | None = None,
    on_error: Literal["raise", "return"] = "raise",
) -> Iterator[torch.Tensor | ImageError]:
    """Load and resize many images on threads: yields uint8 (3, S, S) in the order of `sources`.

    threads: None takes one per usable core, 8 at most. `sources` is read as it is needed, a few images ahead
    and no further. A single image is loaded on the calling thread. If the consumer stops, the threads end.

    Raises: ImageError in the place of a bad image; with on_error="return" it is yielded there instead.
    """
    if threads is None:
        threads = min(8, _usable_cores())

    def load(source: ImageSource) -> torch.Tensor | ImageError:
        try:
            return preprocess.resize_image(load_image(source))  # (3, S, S)
        except ImageError as error:
            if on_error == "raise":
                raise
            return error

    remaining = iter(sources)
    first = list(islice(remaining, 2))
    if len(first) < 2 or threads <= 1:
        yield from map(load, first)
        yield from map(load, remaining)
        return
    executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="pixtell-images")
    try:
        pending: deque[Future[torch.Tensor | ImageError]] = deque()
        pending.extend(
            executor.submit(load, source) for source in chain(first, islice(remaining, 4 * threads))
        )
        while pending:
            yield pending.popleft().result()
            pending.extend(executor.submit(load, source) for source in islice(remaining, 1))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _kept_span(length: int, resized_length: int, size: int) -> tuple[float, float]:
    """Begin and end, on an axis of `length`, of the `size` pixels kept of it at `resized_length`."""
    scale = length / resized_length
    start = (resized_length - size) // 2
    return start * scale, min((start + size) * scale, float(length))


# ---- sources -> bytes or arrays


def _read_file(path: Path) -> bytes:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError(str(path), "it is a folder, not a file; name the pictures in it.")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(str(path), "it is not a regular file; copy the picture to a file first.")
        if status.st_size > MAX_FILE_BYTES:
            raise ImageError(
                str(path),
                f"its {status.st_size:,} bytes are over the limit of {MAX_FILE_BYTES:,}; shrink it first.",
            )
        return path.read_bytes()
    except FileNotFoundError as cause:
        raise ImageError(str(path), "there is no such file; check the path.") from cause
    except PermissionError as cause:
        raise ImageError(str(path), "it may not be read (permission denied); change that.") from cause
    except (OSError, ValueError) as cause:  # ValueError: a null character in the path
        reason = getattr(cause, "strerror", None) or cause
        raise ImageError(str(path), f"it cannot be read ({reason}); check the file.") from cause


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

        return _on_white(Image.fromarray(np.ascontiguousarray(array), mode="RGBA"))
    raise ImageError("array", f"its shape is {array.shape}; give (H, W, 3), (H, W) grey or (H, W, 4) RGBA.")


def _decode(data: bytes, name: str) -> NDArray[np.uint8]:
    """The bytes of an image file -> (H, W, 3)."""
    if not data:
        raise ImageError(name, "it is empty (0 bytes); get the picture again.")
    if data.startswith(b"\xff\xd8\xff"):
        image = _decode_jpeg(data, name)
        if image is not None:
            return image

    def open_data() -> "PillowImage.Image":
        from PIL import Image

        return Image.open(io.BytesIO(data))

    return _load_pillow(open_data, name, data[:64])


# ---- JPEG


@dataclass(frozen=True)
class _JpegHeader:
    width: int
    height: int
    num_components: int
    precision: int  # bits
    orientation: int  # EXIF, 1..8


def _decode_jpeg(data: bytes, name: str) -> NDArray[np.uint8] | None:
    """simplejpeg's decoding, upright, or None where Pillow must judge: absent, CMYK, 12 bits, damaged."""
    try:
        header = _read_jpeg_header(data)
    except (struct.error, IndexError):
        return None
    if header is None or header.num_components not in (1, 3) or header.precision != 8:
        return None
    _check_pixel_count(header.width, header.height, name)
    try:
        simplejpeg = importlib.import_module("simplejpeg")
        image: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB")  # (H, W, 3)
    except (ImportError, ValueError):  # ValueError: anything libjpeg warns of
        return None
    return _upright(image, header.orientation)


def _read_jpeg_header(data: bytes) -> _JpegHeader | None:
    """Size and orientation from the segments before the first scan (ITU-T T.81 annex B; EXIF 2.3, 4.5)."""
    position, frame, exif_orientation, xmp_orientation = 2, None, None, None
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
    return _JpegHeader(width, height, num_components, precision, exif_orientation or xmp_orientation or 1)


def _read_exif_orientation(tiff: bytes) -> int | None:
    """Tag 0x0112 of the first directory of a TIFF header."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    (directory,) = struct.unpack_from(order + "I", tiff, 4)
    (num_entries,) = struct.unpack_from(order + "H", tiff, directory)
    for entry in range(directory + 2, directory + 2 + 12 * num_entries, 12):
        tag, _, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
        if tag == 0x0112:
            return int(value)
    return None


def _upright(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Undo the EXIF orientation of an image (H, W, 3); 5 to 8 swap height and width."""
    if orientation in (5, 6, 7, 8):
        image = image.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


# ---- everything else


def _load_pillow(open_image: "Callable[[], PillowImage.Image]", name: str, start: bytes) -> NDArray[np.uint8]:
    """Open, check and convert with Pillow. start: the file's first bytes, to say what a refused file is."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = open_image()
        _check_pixel_count(image.width, image.height, name)
        image.load()
        return _upright(_to_rgb(image), _pillow_orientation(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as cause:
        raise ImageError(name, _TOO_MANY_PIXELS) from cause
    except UnidentifiedImageError as cause:
        raise ImageError(name, _explain_unknown(start)) from cause
    except Exception as cause:  # Pillow's plug-ins raise nearly anything on damaged files
        detail = " ".join(str(cause).split()).rstrip(".") or type(cause).__name__
        damaged = any(
            word in detail.lower() for word in ("truncated", "broken", "not enough", "unrecognized")
        )
        reason = "it is truncated or damaged" if damaged else "it cannot be decoded"
        raise ImageError(name, f"{reason} ({detail}); get it again or convert it to JPEG.") from cause


_TOO_MANY_PIXELS = f"it has more pixels than the limit of {MAX_IMAGE_PIXELS:,}; make it smaller first."


def _check_pixel_count(width: int, height: int, name: str) -> None:
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(
            name,
            f"its {width} x {height} pixels are over the limit of {MAX_IMAGE_PIXELS:,}; shrink it first.",
        )
    if width * height == 0:
        raise ImageError(name, f"its size is {width} x {height}, so it holds no pixels; get it again.")


def _explain_unknown(start: bytes) -> str:
    """Why Pillow does not know a file, judged by its first bytes."""
    if start[4:8] == b"ftyp":
        if start[8:12] in _HEIC_BRANDS:
            return "it is HEIC, which needs Pillow's plug-in pillow-heif; convert it to JPEG or PNG first."
        if start[8:12] in _AVIF_BRANDS:
            return "it is AVIF, which this Pillow was built without; convert it to JPEG or PNG first."
        return "it is a video or another media file, not an image; name pictures only."
    if start.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL ")):
        return "it is JPEG XL, which needs a plug-in for Pillow; convert it to JPEG or PNG first."
    if b"<svg" in start:
        return "it is SVG, a drawing without pixels; convert it to PNG first."
    for known_start, kind in _KNOWN_STARTS.items():
        if start.startswith(known_start):
            return f"it begins like {kind} but is truncated, damaged or of an unknown variant; get it again."
    return "it is not an image that Pillow can read; convert it to JPEG or PNG."


def _pillow_orientation(image: "PillowImage.Image") -> int:
    """The EXIF orientation of a loaded image; TIFFs are already upright, and then have none."""
    try:
        return int(image.getexif().get(0x0112, 1))
    except Exception:  # a broken EXIF block costs a picture its orientation, not its content
        return 1


def _to_rgb(image: "PillowImage.Image") -> NDArray[np.uint8]:
    """Any mode of Pillow -> (H, W, 3)."""
    if image.mode.startswith("I"):  # 16 bits: 0..65535, also where Pillow keeps them in 32
        values = np.asarray(image).astype(np.float32).clip(0, None)  # (H, W)
        return _grey_to_rgb(values * (255 / max(65535.0, float(values.max()))))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image), nan=0.0)  # (H, W)
        return _grey_to_rgb(values * (255 if values.max() <= 1 else 1))
    if image.mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.array(converted)
    if image.has_transparency_data:
        return _on_white(image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _grey_to_rgb(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """Grey (H, W), 0..255 in floats -> (H, W, 3)."""
    grey = np.rint(values.clip(0, 255)).astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def _on_white(image: "PillowImage.Image") -> NDArray[np.uint8]:
    """RGBA -> (H, W, 3), laid on white."""
    from PIL import Image

    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image, mask=image.getchannel("A"))
    return np.array(canvas)
