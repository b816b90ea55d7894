"""Image (H, W, 3) uint8 -> the pixels an encoder wants, float32 (B, 3, S, S)."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from pixtell.errors import EncoderError

# Where the long side is over this many times the short one, "shortest_side" crops before it resizes.
MAX_ASPECT_RATIO = 4


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """What an encoder wants done to an image: its size, how it is resized, and how pixels are normalised.

    "square": resized to size x size, no crop. "shortest_side": the shortest side to `size`, then the centre,
    as CLIP does (openai/CLIP clip.py:_transform); within 2 grey levels of its processor in transformers.

    Raises: EncoderError where a value cannot be.
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
        """An image (H, W, 3) uint8 -> (3, S, S) uint8, resized and cropped, not normalised; on one thread."""
        height, width = image.shape[:2]
        if self.resize == "shortest_side" and max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            return _channels_first(self._resize_centre(image))  # (3, S, S)
        resized = self._resize_whole(image)  # (H', W', 3)
        top, left = (resized.shape[0] - self.size) // 2, (resized.shape[1] - self.size) // 2
        return _channels_first(resized[top : top + self.size, left : left + self.size])  # (3, S, S)

    def seen_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right and bottom of the part of an image (H, W) that is not cropped, in its pixels."""
        resized_height, resized_width = self._resized_shape(height, width)
        top, bottom = _kept_span(height, resized_height, self.size)
        left, right = _kept_span(width, resized_width, self.size)
        return left, top, right, bottom

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """uint8 (B, 3, S, S) -> pixels, float32 (B, 3, S, S), on the same device."""
        mean = torch.tensor(self.mean, device=batch.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=batch.device).view(3, 1, 1)
        pixels = torch.empty(batch.shape, dtype=torch.float32, device=batch.device)  # (B, 3, S, S)
        # On a CPU image by image, so that each step finds it in the cache: twice as fast.
        parts = zip(batch, pixels, strict=True) if batch.device.type == "cpu" else [(batch, pixels)]
        for images, normalised in parts:
            normalised.copy_(images).div_(255).sub_(mean).div_(std)
        return pixels

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
        if self.resize == "square":
            return self.size, self.size
        if height <= width:
            return self.size, int(self.size * width / height)
        return int(self.size * height / width), self.size

    def _resize_whole(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) -> (H', W', 3) in torch's uint8 arithmetic, at most one grey level from Pillow."""
        if not image.flags.writeable or any(stride < 0 for stride in image.strides):
            image = image.copy()  # torch takes neither
        batch = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0)  # (1, 3, H, W), channels last in memory
        shape = self._resized_shape(*image.shape[:2])
        resized = F.interpolate(batch, size=shape, mode=self.interpolation, antialias=True)
        return resized[0].permute(1, 2, 0).numpy()  # (H', W', 3)

    def _resize_centre(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """(H, W, 3) -> (S, S, 3): resizes only the centre that is kept; a 5000x2 picture costs nothing.

        torch resizes from whole pixels; Pillow takes a box with fractions, and its filter reads on around it.
        """
        from PIL import Image

        height, width = image.shape[:2]
        resized_height, resized_width = self._resized_shape(height, width)
        top, bottom = _kept_span(height, resized_height, self.size)
        left, right = _kept_span(width, resized_width, self.size)
        # Only the kept part and the filter's reach around it are copied; bicubic reaches 2 output pixels.
        reach = 2 * math.ceil(max(min(height, width) / self.size, 1)) + 2
        first_row, first_column = max(0, int(top) - reach), max(0, int(left) - reach)
        part = image[first_row : math.ceil(bottom) + reach, first_column : math.ceil(right) + reach]
        resized = Image.fromarray(np.ascontiguousarray(part)).resize(
            (self.size, self.size),
            resample=Image.Resampling[self.interpolation.upper()],
            box=(left - first_column, top - first_row, right - first_column, bottom - first_row),
        )
        return np.array(resized)  # (S, S, 3)


def _kept_span(length: int, resized_length: int, size: int) -> tuple[float, float]:
    """Begin and end, on an axis of `length`, of the `size` pixels kept of it at `resized_length`."""
    scale = length / resized_length
    start = (resized_length - size) // 2
    return start * scale, min((start + size) * scale, float(length))


def _channels_first(image: NDArray[np.uint8]) -> torch.Tensor:
    """(S, S, 3) -> (3, S, S), copied by numpy: torch would start an OpenMP team on each loader thread."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
