"""A trained vision model of transformers as a teacher to distil from.

In: a directory in transformers' layout. Out: what the model sees of pixels: patches, pooled features, and
classes where it has any.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.encoders.base import freeze
from pixtell.encoders.hub import as_patches, load_backbone, read_hub_preprocess
from pixtell.encoders.pretrained import load_model, name_some, read_config
from pixtell.errors import EncoderError

_CLASSIFIER = "ForImageClassification"  # in the name of a model that was saved with one
# What a model raises for a size it was not made for, or for outputs that it does not have.
_UNFIT = (AttributeError, TypeError, ValueError, RuntimeError)


class TeacherOutput(NamedTuple):
    """What a teacher sees: the grid of its last layer, row by row, its pooled features, its classes before
    softmax."""

    patches: torch.Tensor  # (B, N, F)
    pooled: torch.Tensor  # (B, P)
    logits: torch.Tensor | None  # (B, C); None: no classifier over the pooled features


class Teacher(nn.Module):
    """A frozen backbone in eval mode.

    mean and std are those of its pixels: pixels = (RGB / 255 - mean) / std. size: pixels a side that it
    takes, to which others are resized; None: any that its stride divides. own_pool: its pooled features are
    not the mean of its patches, but of a class token or a pooling layer.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        classifier: nn.Module | None,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        size: int | None = None,
        own_pool: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.mean = mean
        self.std = std
        self.size = size
        self.own_pool = own_pool
        freeze(self).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: torch.Tensor) -> TeacherOutput:
        """Pixels (B, 3, H, W), any float dtype, to features and logits in the teacher's own dtype."""
        if self.size is not None and pixels.shape[2:] != (self.size, self.size):
            pixels = F.interpolate(pixels, (self.size, self.size), mode="bilinear", antialias=True)
        dtype = next(self.backbone.parameters()).dtype
        pixels = pixels.to(dtype).contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
        outputs = self.backbone(pixels)
        patches = as_patches(outputs.last_hidden_state)  # (B, N, F)
        pooled = getattr(outputs, "pooler_output", None)
        if pooled is None:
            return TeacherOutput(patches, patches.mean(1), None)
        logits = None if self.classifier is None else self.classifier(pooled)  # (B, C)
        return TeacherOutput(patches, pooled.flatten(1), logits)


def load_teacher(source: str | Path, sizes: Sequence[int] = (64, 96)) -> Teacher:
    """The vision model in the directory `source`, fp32, on the CPU; with its classifier, if it was saved with
    one that reads the pooled features.

    sizes: pixels a side of what it will be shown. Where it does not take all of these, they are resized to
    the one that it was made for.

    Raises:
        EncoderError: no such directory, no vision model of transformers, weights that lack something, no
            features of images of either size.
    """
    directory = Path(source)
    config = read_config(directory)
    if any(_CLASSIFIER in name for name in config.architectures or ()):
        model = _load_classifier(directory, config)
        backbone = getattr(model, "vision_model", model) if model.base_model is model else model.base_model
        classifier = getattr(model, "classifier", None)
        config = getattr(config, "vision_config", config)
    else:
        model, classifier = None, None
        backbone, config = load_backbone(directory)
    preprocess = read_hub_preprocess(directory, config)
    teacher = Teacher(backbone=backbone, classifier=None, mean=preprocess.mean, std=preprocess.std)
    if not all(_sees(teacher, size) for size in sizes):
        teacher.size = preprocess.size
        if not _sees(teacher, preprocess.size):
            raise EncoderError(
                f"{directory} holds a {type(backbone).__name__}, which gives no patches of an image of "
                f"{preprocess.size} pixels a side: correct its preprocessor_config.json, or choose another."
            )
    pixels = torch.randn(2, 3, *2 * [teacher.size or sizes[0]], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        seen = teacher(pixels)
        mean = seen.patches.mean(1)  # (B, F)
        teacher.own_pool = mean.shape != seen.pooled.shape or not torch.allclose(
            mean, seen.pooled, rtol=1e-3, atol=1e-4
        )
        if model is not None and _reads_pooled(classifier, seen.pooled, model(pixels).logits):
            teacher.classifier = classifier
    return teacher


def _load_classifier(directory: Path, config: Any) -> Any:
    """The whole model. Raises: EncoderError where weights are missing."""
    model, missing = load_model(directory, f"AutoModel{_CLASSIFIER}", config)
    if any(key.startswith("classifier") for key in missing):
        raise EncoderError(
            f"{directory} has no weights for its classifier, which distillation needs: save the whole model."
        )
    if missing:
        raise EncoderError(f"the weights in {directory} lack {name_some(missing)}: save the model again.")
    return model


@torch.no_grad()
def _sees(teacher: Teacher, size: int) -> bool:
    """Whether the teacher gives a grid of patches of images of `size` pixels a side."""
    try:
        patches = teacher(torch.zeros(1, 3, size, size)).patches
    except _UNFIT:
        return False
    return len(patches.shape) == 3 and patches.shape[1] > 0


def _reads_pooled(classifier: nn.Module | None, pooled: torch.Tensor, logits: torch.Tensor) -> bool:
    """Whether the classifier makes the model's own logits (B, C) of its pooled features (B, P)."""
    if classifier is None:
        return False
    try:
        return bool(torch.allclose(classifier(pooled), logits, rtol=1e-3, atol=1e-4))
    except _UNFIT:  # it reads something else
        return False
