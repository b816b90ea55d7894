"""The features of a split's images, from the cache, extracted first where they are not there yet.

In: an encoder and records. Out: a `FeatureCache`; images that cannot be read are reported, one line each.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from pixtell.augment import ViewOptions, random_views
from pixtell.datasets.records import CaptionedImage
from pixtell.devices import Placement
from pixtell.encoders.base import Encoder
from pixtell.errors import DatasetError
from pixtell.features import FeatureCache, Views, extract_features

_SOURCE_SCALE = (
    8 / 7
)  # views are cut from images this much larger than the encoder's, so that crops stay sharp


def extract_split(
    encoder: Encoder,
    records: Sequence[CaptionedImage],
    directory: Path,
    placement: Placement,
    *,
    views: int = 1,
    how: ViewOptions | None = None,
    seed: int = 0,
    report: Callable[[str], None] = lambda line: None,
    on_progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Features of all `records`, `views` of each: the plain image first, then random crops in other colours.

    how: of the views after the first; None: the defaults of ViewOptions.
    Raises: FeatureCacheError, StorageError; DatasetError where not one image can be read.
    """
    how = how or ViewOptions()
    size = encoder.preprocess.size

    def make(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return random_views(images, size, how, generator)

    further = Views(
        count=views,
        make=make,
        description=f"random_views {asdict(how)}",
        source_size=round(size * _SOURCE_SCALE),
        seed=seed,
    )
    cache = extract_features(
        encoder,
        {record.image_id: record.image for record in records},
        directory,
        views=further,
        device=placement.device,
        on_progress=on_progress,
    )
    for error in cache.errors.values():
        report(f"left out: {error}")
    if len(cache) == 0:
        first = next(iter(cache.errors.values()))
        raise DatasetError(
            f"None of {len(records)} images can be read, first {first}; check the data set with pixtell "
            "datasets check."
        )
    return cache
