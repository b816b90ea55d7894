"""What a data set is once it has been read: records of one image and its captions, each in one split.

Disk goes in through the other files of this folder; `CaptionedImage` records come out. Nothing here knows layouts, pixels or tokens.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixtell.errors import DatasetError

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {"dev": "val", "valid": "val", "validation": "val"}

# What str.split() does not fold already: control characters, a byte order mark inside the text, halves of surrogate pairs.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class CaptionedImage:
    """One image, its captions and its split.

    `image` is a path, or a uint8 array (H, W, 3) for generated pictures; it takes no part in comparisons, `image_id` is unique in a data set.
    """

    image_id: str
    image: Path | NDArray[np.uint8] = field(compare=False)
    captions: tuple[str, ...]
    split: str  # one of SPLITS


@dataclass(frozen=True)
class Dataset:
    """Everything of a data set that can be used, sorted by image_id, and what was left out or guessed on the way."""

    name: str
    records: tuple[CaptionedImage, ...]
    warnings: tuple[str, ...] = ()

    def split(self, split: str) -> tuple[CaptionedImage, ...]:
        """The records of one split; `dev` means `val`. Raises DatasetError, with what there is, where the split is unknown or empty."""
        wanted = SPLIT_ALIASES.get(split, split)
        chosen = tuple(record for record in self.records if record.split == wanted)
        if chosen:
            return chosen
        there = ", ".join(
            f"{name} ({count:,} images)" for name, count in count_images(self.records).items() if count
        )
        reason = f"no images in the split {split!r}" if wanted in SPLITS else f"no split named {split!r}"
        raise DatasetError(
            f"The data set {self.name} has {reason}; choose one of: {there or 'none, the data set is empty'}."
        )


@dataclass(frozen=True)
class DatasetReport:
    """What a check of a data set found, and what will be used of it.

    `problems` stop the use of the data set; a fault that only costs some images or captions stands in `warnings` with its count.
    """

    name: str
    sources: tuple[str, ...]  # what was read, and from where: one line each
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    records: tuple[CaptionedImage, ...]

    @property
    def num_images(self) -> Mapping[str, int]:
        """Usable images by split, for all of SPLITS."""
        return count_images(self.records)

    @property
    def num_captions(self) -> Mapping[str, int]:
        """Usable captions by split, for all of SPLITS."""
        return {
            name: sum(len(record.captions) for record in self.records if record.split == name)
            for name in SPLITS
        }

    @property
    def lines(self) -> tuple[str, ...]:
        """The report as people read it, a line each: sources, problems, warnings, then what will be used."""
        captions = self.num_captions
        used = [
            f"{name} {count:,} images with {captions[name]:,} captions"
            for name, count in self.num_images.items()
            if count
        ]
        return (
            *self.sources,
            *(f"problem: {sentence}" for sentence in self.problems),
            *(f"warning: {sentence}" for sentence in self.warnings),
            f"will be used: {'; '.join(used) if used and not self.problems else 'nothing'}",
        )


def count_images(records: tuple[CaptionedImage, ...]) -> dict[str, int]:
    """Images by split, for all of SPLITS."""
    counts = dict.fromkeys(SPLITS, 0)
    for record in records:
        counts[record.split] += 1
    return counts


def clean_caption(text: str) -> str:
    """One line of text: control characters removed, white space (line separators included) folded, ends stripped."""
    return " ".join(_UNWANTED.sub("", text).split())


def choose_split(image_id: str, *, with_test: bool = False) -> str:
    """The split of an image that comes without one: `val` for every tenth image by a hash of its name, else `train`.

    With `with_test`, another tenth is `test`. The answer depends on the name alone: adding images moves none of the others.
    """
    remainder = (
        int.from_bytes(hashlib.sha256(image_id.encode("utf-8", "surrogatepass")).digest()[:8], "big") % 10
    )
    if remainder == 0:
        return "val"
    return "test" if with_test and remainder == 1 else "train"
