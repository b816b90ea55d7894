"""Where the features of training images come from: a cache, or the encoder itself.

In: rows of training images and the number of the epoch. Out: features (B, F) or (B, N, F). It knows neither
captions nor models.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import nn

from pixtell.augment import ViewOptions, random_views
from pixtell.encoders.base import Encoder
from pixtell.features import FeatureCache
from pixtell.training.image_memory import resident


class FeatureSource(Protocol):
    """Where the features of the training images come from."""

    @property
    def module(self) -> nn.Module | None:
        """What is trained along with the model, or None."""

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        """Features (B, F) or (B, N, F) of the images at `rows` (B,)."""


class CachedFeatures:
    """Features from the cache: quick, as the encoder does not run. Each epoch takes the next view of every
    image, each image at another."""

    module = None

    def __init__(self, *, cache: FeatureCache, image_ids: Sequence[str], device: torch.device) -> None:
        self.cache = cache
        self.image_ids = image_ids
        self.device = device

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        ids = [self.image_ids[row] for row in rows.tolist()]
        views = ((rows + epoch) % self.cache.views).tolist()
        return self.cache.rows(ids, views).to(self.device).float()  # (B, F) or (B, N, F)


class PixelFeatures:
    """Features from pixels, end to end: what of the encoder is not frozen learns too, on a new view of each
    image every time."""

    def __init__(
        self, *, encoder: Encoder, images: torch.Tensor, views: ViewOptions, seed: int, device: torch.device
    ) -> None:
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder
        self.module = encoder
        self.images = resident(images, device)  # uint8 (N, 3, S, S)
        self.views = views
        self.seed = seed
        self.device = device

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch * 100_003 + int(rows[0]))
        preprocess = self.encoder.preprocess
        views = random_views(self.images[rows].to(self.device), preprocess.size, self.views, generator)
        features: torch.Tensor = self.encoder(preprocess.normalise(views))  # (B, F) or (B, N, F)
        return features
