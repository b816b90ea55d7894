"""The images of a split, decoded and resized once, in memory, for trainings that draw new views of them at
every step.

In: records. Out: uint8 (N, 3, S, S): 6,000 images at 224 pixels are 0.9 GB.
"""

from collections.abc import Callable, Sequence

import torch

from pixtell.datasets.records import CaptionedImage
from pixtell.errors import DatasetError, ImageError
from pixtell.images import Preprocess, load_images


def load_split_images(
    records: Sequence[CaptionedImage], preprocess: Preprocess, report: Callable[[str], None]
) -> tuple[list[CaptionedImage], torch.Tensor]:
    """The records whose image can be read, and their images, uint8 (N, 3, S, S); the others are reported,
    one line each.

    Raises: DatasetError where none can be read.
    """
    kept: list[CaptionedImage] = []
    images = torch.empty(len(records), 3, preprocess.size, preprocess.size, dtype=torch.uint8)
    loaded = load_images((record.image for record in records), preprocess, on_error="return")
    for record, image in zip(records, loaded, strict=True):
        if isinstance(image, ImageError):
            report(f"left out: {image}")
        else:
            images[len(kept)] = image
            kept.append(record)
    if not kept:
        raise DatasetError(
            f"None of {len(records)} images can be read; check them with pixtell datasets check."
        )
    return kept, images[: len(kept)]


def resident(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The images, uint8 (N, 3, S, S), on a GPU that has four times the room: views are drawn from them at
    every step. Elsewhere as they are."""
    if device.type != "cuda":
        return images
    free, _ = torch.cuda.mem_get_info(device)
    return images.to(device) if 4 * images.nbytes <= free else images
