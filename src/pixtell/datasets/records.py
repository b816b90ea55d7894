"""What a data set is once it has been read: records of one image and its captions, each in one split.

The other files of this folder read the disk and make these records. This one knows no layouts and no pixels.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixtell.errors import DatasetError

SPLITS = ("train", "val", "test")
SPLIT_ALIASES = {"dev": "val"}

# What str.split() does not fold: control characters, a byte order mark, halves of surrogate pairs.
_UNWANTED = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class CaptionedImage:
    """One image, its captions and its split.

    `image` is a path, or a uint8 array (H, W, 3) for a generated picture. It takes no part in comparisons:
    `image_id` is unique in a data set.
    """

    image_id: str
    image: Path | NDArray[np.uint8] = field(compare=False)
    captions: tuple[str, ...]
    split: str  # one of SPLITS


@dataclass(frozen=True)
class Dataset:
    """Everything of a data set that can be used, sorted by image_id, and what was left out or guessed."""

    name: str
    records: tuple[CaptionedImage, ...]
    warnings: tuple[str, ...] = ()

    def split(self, split: str) -> tuple[CaptionedImage, ...]:
        """The records of one split; `dev` means `val`.

        Raises DatasetError, which says what there is, where the split is unknown or empty.
        """
        wanted = SPLIT_ALIASES.get(split, split)
        chosen = tuple(record for record in self.records if record.split == wanted)
        if chosen:
            return chosen
        counts = count_images(self.records)
        there = ", ".join(f"{name} ({count:,} images)" for name, count in counts.items() if count)
        lack = f"no images in the split {split!r}" if wanted in SPLITS else f"no split named {split!r}"
        raise DatasetError(
            f"The data set {self.name} has {lack}; choose from: {there or 'none, it is empty'}."
        )


@dataclass(frozen=True)
class DatasetReport:
    """What a check of a data set found, and what will be used of it.

    `problems` stop the use of the data set; a fault that only costs some images or captions stands in
    `warnings`, with its count.
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
        counts = dict.fromkeys(SPLITS, 0)
        for record in self.records:
            counts[record.split] += len(record.captions)
        return counts

    @property
    def lines(self) -> tuple[str, ...]:
        """The report as people read it, a line each: sources, problems, warnings, then what will be used."""
        captions = self.num_captions
        used = "; ".join(
            f"{split} {count:,} images with {captions[split]:,} captions"
            for split, count in self.num_images.items()
            if count and not self.problems
        )
        return (
            *self.sources,
            *(f"problem: {sentence}" for sentence in self.problems),
            *(f"warning: {sentence}" for sentence in self.warnings),
            f"will be used: {used or 'nothing'}",
        )


def count_images(records: Iterable[CaptionedImage]) -> dict[str, int]:
    """Images by split, for all of SPLITS."""
    counts = dict.fromkeys(SPLITS, 0)
    for record in records:
        counts[record.split] += 1
    return counts


def clean_caption(text: str) -> str:
    """One line: control characters removed, white space (line separators too) folded, ends stripped."""
    return " ".join(_UNWANTED.sub("", text).split())


def choose_splits(image_ids: Iterable[str], *, with_test: bool = False) -> dict[str, str]:
    """Splits for images that come without: every tenth by a hash of its name is `val`, the rest `train`.

    With `with_test`, another tenth is `test`. A name alone decides, so that adding images moves none of the
    others, but for very small sets: two images or more have at least one in `train` and one in `val`.
    """
    hashes = {image_id: _hash_name(image_id) for image_id in image_ids}
    tenths = {0: "val", 1: "test"} if with_test else {0: "val"}
    splits = {image_id: tenths.get(value % 10, "train") for image_id, value in hashes.items()}
    ordered = sorted(hashes, key=lambda image_id: hashes[image_id])
    if len(ordered) > 1 and "val" not in splits.values():
        splits[ordered[0]] = "val"
    if ordered and "train" not in splits.values():
        splits[ordered[-1]] = "train"
    return splits


def _hash_name(image_id: str) -> int:
    """A number of 64 bits that depends on the name alone, equal on every machine."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big")
