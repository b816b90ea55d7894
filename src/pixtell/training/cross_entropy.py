"""Cross-entropy: the model learns to say the next token of people's captions.

In: a model, token ids, and a source of features. Out: the loss of a step, for `loop.train`. The captions of
an image share its image branch.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.augment import ViewOptions, random_views
from pixtell.batching import IGNORED, epoch_batches, make_batch
from pixtell.encoders.base import Encoder
from pixtell.features import FeatureCache
from pixtell.models.base import CaptionModel
from pixtell.training.loop import Numbers


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
    """Features from pixels, end to end: the encoder learns too, on a new view of each image every time."""

    def __init__(
        self, *, encoder: Encoder, images: torch.Tensor, views: ViewOptions, seed: int, device: torch.device
    ) -> None:
        assert isinstance(encoder, nn.Module)
        self.encoder = encoder
        self.module = encoder.requires_grad_(True)
        self.images = images  # uint8 (N, 3, S, S)
        self.views = views
        self.seed = seed
        self.device = device

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch * 100_003 + int(rows[0]))
        preprocess = self.encoder.preprocess
        views = random_views(self.images[rows].to(self.device), preprocess.size, self.views, generator)
        features: torch.Tensor = self.encoder(preprocess.normalise(views))  # (B, F) or (B, N, F)
        return features


class CrossEntropy:
    """The objective. token_ids: for every image its captions, each ending in eos. ignored_ids: tokens
    nobody should learn to say (unknown).

    evaluate: scores of the validation split with the model as it stands, by free decoding; save: writes the
    checkpoint.
    """

    best_metric = "CIDEr-D"

    def __init__(
        self,
        *,
        model: CaptionModel,
        features: FeatureSource,
        token_ids: Sequence[Sequence[Sequence[int]]],
        ignored_ids: Sequence[int],
        batch_size: int,
        label_smoothing: float,
        seed: int,
        device: torch.device,
        evaluate: Callable[[], dict[str, float]],
        save: Callable[[Path], None],
    ) -> None:
        self.model = model
        self.features = features
        self.token_ids = token_ids
        self.ignored_ids = torch.tensor(list(ignored_ids), dtype=torch.long)
        self.batch_size = batch_size
        self.label_smoothing = label_smoothing
        self.seed = seed
        self.device = device
        self.validate = evaluate
        self.save = save
        self.module: nn.Module = nn.ModuleDict(
            {"model": model} if features.module is None else {"model": model, "encoder": features.module}
        )
        self.steps_per_epoch = -(-len(token_ids) // batch_size)
        self._epoch = -1
        self._batches: list[torch.Tensor] = []

    def loss(self, step: int) -> tuple[torch.Tensor, Numbers]:
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 7_368_787 + epoch)
            self._batches, self._epoch = epoch_batches(self.token_ids, self.batch_size, generator), epoch
        batch = make_batch(self.token_ids, self._batches[place])
        features = self.features(batch.rows, epoch)
        logits = self.model(
            features, batch.token_ids.to(self.device), batch.image_index.to(self.device)
        )  # (C, T, V)
        labels = batch.labels.flatten()  # (C * T,), on the CPU
        learned = ((labels != IGNORED) & ~torch.isin(labels, self.ignored_ids)).nonzero()[:, 0]
        # Padding leaves before fp32: of captions padded to their longest it is more than half of the memory.
        loss = F.cross_entropy(
            logits.flatten(0, 1)[learned.to(self.device)].float(),
            labels[learned].to(self.device),
            label_smoothing=self.label_smoothing,
        )
        return loss, {"epoch": epoch + (place + 1) / self.steps_per_epoch}
