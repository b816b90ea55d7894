"""Augmentation of training images, a batch at a time, on whatever device the batch is on.

In: uint8 images (B, 3, S, S) and a generator. Out: uint8 views (B, 3, size, size). It knows neither encoder
nor objective.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pixtell.errors import OptionError


@dataclass(frozen=True)
class ViewOptions:
    """How far a view may stray from its image.

    min_area: smallest share of the area a crop keeps (1.0: no crop). aspect: crops are up to this much
    wider or taller than the image, as far as their area leaves room.
    flip: probability of a mirror image. colour: largest relative change of brightness, contrast and
    saturation.
    Raises: OptionError for a share that is none.
    """

    min_area: float = 0.25
    aspect: float = 4 / 3
    flip: float = 0.5
    colour: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.min_area <= 1:
            raise OptionError(
                f"--min-area {self.min_area} is no share of an image; give a number above 0 and at most 1."
            )
        if not 0 <= self.colour <= 1:
            raise OptionError(f"--colour {self.colour} is no share; give a number from 0 to 1.")


def random_views(
    images: torch.Tensor, size: int, options: ViewOptions, generator: torch.Generator
) -> torch.Tensor:
    """Random crops, resized, mirrored and recoloured: uint8 (B, 3, S, S) -> uint8 (B, 3, size, size)."""
    boxes = _random_boxes(len(images), options, generator).to(images.device)  # (B, 2, 3)
    shape = [len(images), 3, size, size]
    with torch.autocast(images.device.type, enabled=False):  # places in bf16 would be half a pixel off
        grid = F.affine_grid(boxes, shape, align_corners=False)  # (B, size, size, 2)
    pixels = images.to(memory_format=torch.channels_last).float()  # (B, 3, S, S)
    views = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if options.colour > 0:
        views = _recolour(views, options.colour, generator)
    return views.round_().clamp_(0, 255).to(torch.uint8)


def mix(views: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Mixup (Zhang et al. 2018): every view blended with another of its batch by a weight from U(0, 1).
    uint8 (B, 3, H, W) in and out."""
    weight = _uniform(len(views), generator, 0, 1).to(views.device)[:, None, None, None]
    partner = torch.randperm(len(views), generator=generator).to(views.device)
    return (views * weight + views[partner] * (1 - weight)).round_().to(torch.uint8)


def _random_boxes(count: int, options: ViewOptions, generator: torch.Generator) -> torch.Tensor:
    """Crops as affine matrices from view to image coordinates in [-1, 1], (count, 2, 3)."""
    area = _uniform(count, generator, options.min_area, 1)
    room = (-area.log()).clamp(max=math.log(options.aspect))  # a crop of the whole area has one shape only
    aspect = (_uniform(count, generator, -1, 1) * room).exp()
    width = (area * aspect).sqrt().clamp(max=1)
    height = (area / aspect).sqrt().clamp(max=1)
    left = _uniform(count, generator, -1, 1) * (1 - width)
    top = _uniform(count, generator, -1, 1) * (1 - height)
    mirror = torch.where(_uniform(count, generator, 0, 1) < options.flip, -1.0, 1.0)
    zero = torch.zeros(count)
    return torch.stack([torch.stack([width * mirror, zero, left], 1), torch.stack([zero, height, top], 1)], 1)


def _recolour(views: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    factors = _uniform(3 * len(views), generator, 1 - strength, 1 + strength).to(views.device)
    brightness, contrast, saturation = factors.view(3, -1, 1, 1, 1)  # each (B, 1, 1, 1)
    views = views * brightness
    mean = views.mean(dim=(1, 2, 3), keepdim=True)
    views = (views - mean) * contrast + mean
    grey = views.mean(dim=1, keepdim=True)
    recoloured: torch.Tensor = (views - grey) * saturation + grey
    return recoloured


def _uniform(count: int, generator: torch.Generator, low: float, high: float) -> torch.Tensor:
    values: torch.Tensor = torch.rand(count, generator=generator) * (high - low) + low
    return values
