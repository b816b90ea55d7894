"""Distillation: an encoder learns, without labels, to see what a trained network (the teacher) sees.

In: a student, a teacher, uint8 images. Out: the loss of a step, for `loop.train`, and agreement on the
validation images.

Both look at the same view of an image, crops, colours and blends included (Beyer et al. 2022, "Knowledge
distillation: a good teacher is patient and consistent"). The teacher costs as much as the student, so views
come in pools: one teacher pass a view, `reuse` passes of the student over each pool.

A teacher may see the view at another size, and through another grid: its patches are averaged, or
interpolated, to the student's cells.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.augment import ViewOptions, mix, random_views
from pixtell.encoders.nano import STRIDE, NanoEncoder, save_nano_encoder
from pixtell.encoders.teacher import Teacher
from pixtell.errors import OptionError
from pixtell.images import Preprocess
from pixtell.training.image_memory import resident
from pixtell.training.loop import Numbers

# Views a teacher pass: what a CPU keeps in its caches; what keeps another device busy.
_CPU_TEACHER_BATCH, _DEVICE_TEACHER_BATCH = 128, 512
_SAMPLE_VIEWS = 256  # whose spread standardises the teacher's features


@dataclass(frozen=True)
class DistillationOptions:
    """What the student sees and how its errors are weighed.

    Raises: OptionError for sizes that do not fit.
    """

    view_size: int = 128  # pixels a side of a view, a multiple of 32; smaller is quicker
    batch_size: int = 64  # views a step
    pool_views: int = 8192  # views the teacher labels at a time
    reuse: int = 4  # times the student sees a view before the pool is made anew
    mixup_share: float = 0.5  # of a pool's views that are blends of two
    patch_weight: float = 3.0
    cosine_weight: float = 1.0
    class_weight: float = 0.5
    temperature: float = 2.0  # of the class distributions that are compared
    min_area: float = 0.25  # smallest crop, as a share of the image
    seed: int = 0

    def __post_init__(self) -> None:
        if self.view_size % STRIDE or self.view_size < STRIDE:
            raise OptionError(
                f"--view-size {self.view_size} is not a multiple of {STRIDE}; choose for example 128."
            )
        if self.pool_views * self.reuse % self.batch_size:
            raise OptionError(
                f"--pool-views {self.pool_views} times --reuse {self.reuse} is not a multiple of "
                f"--batch-size {self.batch_size}; choose powers of two."
            )


class _Seen(NamedTuple):
    """What the teacher sees of V views, as it gives it, on the teacher's device."""

    patches: torch.Tensor  # (V, N, F_teacher), on the student's grid
    pooled: torch.Tensor | None  # (V, P); None: the mean of the patches
    logits: torch.Tensor | None  # (V, C)

    def at(self, rows: torch.Tensor) -> "_Seen":
        """Of the views at `rows` (B,)."""
        return _Seen(*(None if part is None else part[rows] for part in self))  # type: ignore[arg-type]


class _Sight(NamedTuple):
    """What the teacher sees, or the student guesses that it does, in units of the teacher's spread."""

    patches: torch.Tensor  # (B, N, F_teacher)
    pooled: torch.Tensor  # (B, P)


class _Pool(NamedTuple):
    """V views as the teacher sees them, and the order in which the student does, all on its device: 8,192
    views of 192 pixels and 36 patches of a MobileNet's are 1.7 GB."""

    views: torch.Tensor  # uint8 (V, 3, S, S)
    seen: _Seen
    order: torch.Tensor  # (reuse * V,) rows; every pass over the pool is a permutation of its own


class _Student(nn.Module):
    """The encoder, a 1x1 convolution to the teacher's channels, another layer to its pooled features where
    these are not the mean of its patches, and the statistics that standardise them."""

    patch_mean: torch.Tensor
    patch_std: torch.Tensor
    own_mean: torch.Tensor
    own_std: torch.Tensor

    def __init__(self, *, encoder: NanoEncoder, sample: _Seen) -> None:
        """sample: of some views, for their mean and spread."""
        super().__init__()
        self.encoder = encoder.requires_grad_(True)
        self.projection = nn.Linear(encoder.config.feature_dim, sample.patches.shape[2])
        self.register_buffer("patch_mean", sample.patches.mean(dim=(0, 1)))
        self.register_buffer("patch_std", sample.patches.std(dim=(0, 1)).clamp(min=1e-3))
        self.pooled_projection: nn.Linear | None = None
        if sample.pooled is not None:
            self.pooled_projection = nn.Linear(encoder.config.feature_dim, sample.pooled.shape[1])
            self.register_buffer("own_mean", sample.pooled.mean(dim=0))
            self.register_buffer("own_std", sample.pooled.std(dim=0).clamp(min=1e-3))

    def forward(self, pixels: torch.Tensor) -> _Sight:
        """pixels (B, 3, H, W) -> what the teacher sees of them, as guessed, fp32."""
        grid = self.encoder.grid(pixels).flatten(2).transpose(1, 2)  # (B, N, F)
        patches = self.projection(grid).float()  # (B, N, F_teacher)
        if self.pooled_projection is None:
            return _Sight(patches, patches.mean(dim=1))
        return _Sight(patches, self.pooled_projection(grid.mean(dim=1)).float())

    def standardise(self, seen: _Seen) -> _Sight:
        """What the teacher saw, in units of its spread."""
        patches = (seen.patches.float() - self.patch_mean) / self.patch_std
        if seen.pooled is None:
            return _Sight(patches, patches.mean(dim=1))
        return _Sight(patches, (seen.pooled.float() - self.own_mean) / self.own_std)

    @property
    def pooled_statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and spread of the teacher's pooled features, (P,) each."""
        if self.pooled_projection is None:
            return self.patch_mean, self.patch_std
        return self.own_mean, self.own_std


class Distillation:
    """The objective. `module` holds student and projections; what is saved is the encoder alone.

    train_images, val_images: uint8 (N, 3, S, S), whole pictures resized to a square, in memory.
    """

    best_metric = "pooled_cosine"

    def __init__(
        self,
        *,
        encoder: NanoEncoder,
        teacher: Teacher,
        train_images: torch.Tensor,
        val_images: torch.Tensor,
        options: DistillationOptions,
        device: torch.device,
    ) -> None:
        self.options = options
        self.device = device
        self.teacher = teacher
        self.train_images = resident(train_images, device)
        self.teacher_batch = _CPU_TEACHER_BATCH if device.type == "cpu" else _DEVICE_TEACHER_BATCH
        self.pool_index = -1
        self.pool: _Pool | None = None
        self.view_options = ViewOptions(min_area=options.min_area)
        self.student_view = encoder.preprocess
        self.teacher_view = Preprocess(
            size=options.view_size, resize="square", mean=teacher.mean, std=teacher.std
        )
        self.module = _Student(encoder=encoder, sample=self._sample()).to(device)
        self.steps_per_pool = options.pool_views * options.reuse // options.batch_size
        self._val_batches = torch.split(_resized(val_images, encoder.config.image_size), self.teacher_batch)
        self._val_targets: list[_Seen] = []  # filled once

    def loss(self, step: int) -> tuple[torch.Tensor, Numbers]:
        pool = self._pool_of(step)
        start = step % self.steps_per_pool * self.options.batch_size
        rows = pool.order[start : start + self.options.batch_size]  # (B,)
        pixels = self.student_view.normalise(pool.views[rows])  # (B, 3, S, S)
        seen = pool.seen.at(rows)
        target, guess = self.module.standardise(seen), self.module(pixels)
        patch_loss = F.smooth_l1_loss(guess.patches, target.patches)
        cosine = F.cosine_similarity(self._centred(guess), self._centred(target)).mean()
        loss = self.options.patch_weight * patch_loss + self.options.cosine_weight * (1 - cosine)
        if seen.logits is not None:
            wanted = seen.logits.float()  # (B, C)
            divergence = class_divergence(self._classify(guess), wanted, self.options.temperature)
            loss = loss + self.options.class_weight * divergence
        return loss, {"patch_loss": patch_loss.detach(), "cosine": cosine.detach()}

    def validate(self) -> dict[str, float]:
        """Mean cosine between the centred pooled features of student and teacher, and how often their top
        classes agree, on whole validation images at the size the encoder is used with."""
        cosines, agreements = [], []
        if not self._val_targets:
            self._val_targets = [self._look(batch) for batch in self._val_batches]
        for batch, seen in zip(self._val_batches, self._val_targets, strict=True):
            guess = self.module(self.student_view.normalise(batch.to(self.device)))
            target = self.module.standardise(seen)
            cosines.append(F.cosine_similarity(self._centred(guess), self._centred(target)))
            if seen.logits is not None:
                agreements.append(self._classify(guess).argmax(1) == seen.logits.argmax(1))
        numbers = {"pooled_cosine": float(torch.cat(cosines).mean())}
        if agreements:
            numbers["top_class_agreement"] = float(torch.cat(agreements).float().mean())
        return numbers

    def save(self, directory: Path) -> None:
        save_nano_encoder(self.module.encoder, directory)

    def _centred(self, sight: _Sight) -> torch.Tensor:
        """The pooled features, centred, in the teacher's own units, (B, P)."""
        return sight.pooled * self.module.pooled_statistics[1]

    def _classify(self, guess: _Sight) -> torch.Tensor:
        """The teacher's classifier on the student's pooled guess, (B, C)."""
        pooled = self._centred(guess) + self.module.pooled_statistics[0]
        assert self.teacher.classifier is not None
        weight = next(self.teacher.classifier.parameters())
        return self.teacher.classifier(pooled.to(weight.dtype)).float()  # type: ignore[no-any-return]

    def _pool_of(self, step: int) -> _Pool:
        index = step // self.steps_per_pool
        if self.pool is None or index != self.pool_index:
            self.pool = None  # free the old one first
            self.pool, self.pool_index = self._make_pool(index), index
        return self.pool

    def _make_pool(self, index: int) -> _Pool:
        options, count = self.options, len(self.train_images)
        generator = _generator(options.seed, index)
        epochs = -(-options.pool_views // count)
        chosen = torch.cat([torch.randperm(count, generator=generator) for _ in range(epochs)])
        views, seen = [], []
        for number, rows in enumerate(torch.split(chosen[: options.pool_views], self.teacher_batch)):
            images = self.train_images[rows].to(self.device)  # (b, 3, S, S)
            view = random_views(images, options.view_size, self.view_options, generator)
            if (number * options.mixup_share) % 1 + options.mixup_share >= 1:  # 0.5: every other batch
                view = mix(view, generator)
            seen.append(self._look(view))
            views.append(view)
        order = [torch.randperm(options.pool_views, generator=generator) for _ in range(options.reuse)]
        parts = (None if part[0] is None else torch.cat(part) for part in zip(*seen, strict=True))
        return _Pool(torch.cat(views), _Seen(*parts), torch.cat(order).to(self.device))  # type: ignore[arg-type]

    def _sample(self) -> _Seen:
        """What the teacher sees of some views, fp32 on the device."""
        options, device = self.options, self.device
        images = self.train_images[:_SAMPLE_VIEWS].to(device)  # (V, 3, S, S)
        views = random_views(images, options.view_size, self.view_options, _generator(options.seed, -1))
        seen = self._look(views)
        pooled = None if seen.pooled is None else seen.pooled.float()
        return _Seen(seen.patches.float(), pooled, None)

    @torch.no_grad()
    def _look(self, views: torch.Tensor) -> _Seen:
        """What the teacher sees of uint8 views (V, 3, S, S)."""
        with torch.autocast(self.device.type, enabled=False):
            seen = self.teacher(self.teacher_view.normalise(views.to(self.device)))
            patches = resample_grid(seen.patches, views.shape[-1] // STRIDE)
        return _Seen(patches, seen.pooled if self.teacher.own_pool else None, seen.logits)


def resample_grid(patches: torch.Tensor, side: int) -> torch.Tensor:
    """Patches of a square grid (B, n * n, F), row by row, to one of (B, side * side, F): means of the cells
    that a coarser one covers, a finer one interpolated."""
    own = math.isqrt(patches.shape[1])
    if own == side:
        return patches
    grid = patches.transpose(1, 2).reshape(len(patches), -1, own, own).float()  # (B, F, n, n)
    if own > side:
        grid = F.adaptive_avg_pool2d(grid, side)
    else:
        grid = F.interpolate(grid, (side, side), mode="bilinear", align_corners=False)
    return grid.flatten(2).transpose(1, 2).to(patches.dtype)


def class_divergence(logits: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL divergence of the student's classes from the teacher's, logits (B, C) both, at a temperature, scaled
    by its square so that gradients stay as large (Hinton et al. 2015)."""
    log_probs = F.log_softmax(logits / temperature, dim=1)  # (B, C)
    wanted_log_probs = F.log_softmax(wanted / temperature, dim=1)  # (B, C)
    return F.kl_div(log_probs, wanted_log_probs, log_target=True, reduction="batchmean") * temperature**2


def _resized(images: torch.Tensor, size: int) -> torch.Tensor:
    """uint8 (N, 3, S, S) -> uint8 (N, 3, size, size)."""
    if images.shape[-1] == size:
        return images
    parts = torch.split(images, 256)
    return torch.cat([F.interpolate(part, (size, size), mode="bicubic", antialias=True) for part in parts])


def _generator(seed: int, stream: int) -> torch.Generator:
    return torch.Generator().manual_seed((seed * 2_654_435_761 + stream * 40_503 + 17) % 2**63)
