"""Any vision backbone that transformers reads: as a frozen encoder, and as a teacher to distil from.

In: a directory in transformers' layout, or a hub id. transformers is imported inside functions only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pixtell.encoders.base import EncoderSpec, check_output, fingerprint_of, freeze
from pixtell.encoders.pretrained import (
    architecture_of,
    image_size_of,
    load_model,
    model_directory,
    name_some,
    read_config,
    read_preprocess,
)
from pixtell.errors import EncoderError
from pixtell.images import Preprocess

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# Trained on pixels in -1..1, that is RGB / 127.5 - 1; most others were trained on ImageNet's statistics.
_HALF_MODELS = ("mobilenet_v1", "mobilenet_v2", "vit", "beit")


class HubEncoder(nn.Module):
    """A backbone as an Encoder.

    "patches": the last layer's grid (B, C, h, w), row by row, or its tokens without those that stand before
    the grid (class, distillation, registers); (B, N, F). "pooled": the model's own pooled output, or the mean
    of the patches where it has none; (B, F).
    """

    def __init__(self, *, backbone: nn.Module, name: str, output: str, preprocess: Preprocess) -> None:
        super().__init__()
        self.backbone = backbone
        self.name = name
        self.output = output
        self.preprocess = preprocess
        freeze(self)
        with torch.no_grad():
            features = self(torch.zeros(1, 3, preprocess.size, preprocess.size))
        self.feature_shape = tuple(features.shape[1:])

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self, architecture_of(self.backbone.config), self.output)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        outputs = self.backbone(pixel_values=pixels.to(next(self.backbone.parameters()).dtype))
        pooled = getattr(outputs, "pooler_output", None)
        if self.output == "pooled" and pooled is not None:
            return torch.flatten(pooled, 1)  # (B, F)
        patches = _patches(outputs.last_hidden_state)  # (B, N, F)
        return patches.mean(1) if self.output == "pooled" else patches


def load_hub_encoder(spec: EncoderSpec, *, base_dir: Path | None = None) -> HubEncoder:
    """The encoder of `spec`, fp32, on the CPU.

    Raises:
        EncoderError: no such directory, no vision model, damaged weights, or no such output.
        DownloadError: a hub id whose files cannot be had.
    """
    check_output(spec.output, ("patches", "pooled"), f"encoder {spec.source}")
    directory = model_directory(spec, base_dir)
    config = read_config(directory)
    config = getattr(config, "vision_config", config)  # of two towers, the one that sees
    model, missing = load_model(directory, "AutoModel", config)
    if missing and all(key.startswith("pooler.") for key in missing):
        model.pooler = None  # saved without: it would be random
    elif missing:
        raise EncoderError(f"the weights in {directory} lack {name_some(missing)}: save the model again.")
    preprocess = _read_preprocess(directory, config)
    try:
        return HubEncoder(
            backbone=model, name=spec.hub_id or directory.name, output=spec.output, preprocess=preprocess
        )
    except (AttributeError, TypeError, ValueError, RuntimeError) as cause:
        raise EncoderError(
            f"{directory} holds a {type(model).__name__}, which gives no patches of an image of "
            f"{preprocess.size} pixels a side: correct its preprocessor_config.json, or choose another."
        ) from cause


def _read_preprocess(directory: Path, config: Any) -> Preprocess:
    half = config.model_type in _HALF_MODELS
    default = Preprocess(
        size=image_size_of(config),
        resize="square",
        mean=(0.5, 0.5, 0.5) if half else IMAGENET_MEAN,
        std=(0.5, 0.5, 0.5) if half else IMAGENET_STD,
        interpolation="bilinear",
    )
    return read_preprocess(directory, default)


def _patches(hidden: torch.Tensor) -> torch.Tensor:
    """A grid (B, C, h, w) or tokens (B, n + N, F) to patches (B, N, F).

    Images are square, so N is the largest square in the number of tokens: 197 = 1 + 14 x 14.
    """
    if hidden.ndim == 4:
        return hidden.flatten(2).transpose(1, 2)  # (B, N, F)
    return hidden[:, -(math.isqrt(hidden.shape[1]) ** 2) :]  # (B, N, F)


# ---- the teacher


class TeacherOutput(NamedTuple):
    """What a teacher sees: the grid of its last layer, row by row, its mean, its classes before softmax."""

    patches: torch.Tensor  # (B, N, F)
    pooled: torch.Tensor  # (B, F)
    logits: torch.Tensor | None  # (B, C); None: a backbone that was saved without a classifier


class Teacher(nn.Module):
    """A frozen convolutional network in eval mode, for any size divisible by its stride (MobileNetV2: 32).

    mean and std are those of its pixels: pixels = (RGB / 255 - mean) / std.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        classifier: nn.Module | None,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.mean = mean
        self.std = std
        freeze(self).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: torch.Tensor) -> TeacherOutput:
        """Pixels (B, 3, H, W), any float dtype, to features and logits in the teacher's own dtype."""
        dtype = next(self.backbone.parameters()).dtype
        pixels = pixels.to(dtype).contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
        outputs = self.backbone(pixels)
        logits = None if self.classifier is None else self.classifier(outputs.pooler_output)  # (B, C)
        return TeacherOutput(_patches(outputs.last_hidden_state), outputs.pooler_output.flatten(1), logits)


def load_teacher(source: str | Path) -> Teacher:
    """The network in the directory `source`, with its classifier if it was saved with one, fp32, on the CPU.

    Raises:
        EncoderError: no such directory, no vision model of transformers, no grid of features, weights that
            lack the classifier or anything else.
    """
    directory = Path(source)
    config = read_config(directory)
    classifies = any("ForImageClassification" in name for name in config.architectures or ())
    model, missing = load_model(
        directory, "AutoModelForImageClassification" if classifies else "AutoModel", config
    )
    if any(key.startswith("classifier") for key in missing):
        raise EncoderError(
            f"{directory} has no weights for its classifier, which distillation needs: save the whole model."
        )
    if missing:
        raise EncoderError(f"the weights in {directory} lack {name_some(missing)}: save the model again.")
    preprocess = _read_preprocess(directory, config)
    teacher = Teacher(
        backbone=model.base_model,
        classifier=getattr(model, "classifier", None),
        mean=preprocess.mean,
        std=preprocess.std,
    )
    _check_teacher(model, teacher, classifies=classifies, directory=directory)
    return teacher


@torch.no_grad()
def _check_teacher(model: Any, teacher: Teacher, *, classifies: bool, directory: Path) -> None:
    """Run both at a size of no model's own; raises EncoderError where the teacher differs from the model."""
    pixels = torch.zeros(1, 3, 96, 64)
    try:
        outputs = teacher.backbone(pixels)
        fits = outputs.last_hidden_state.ndim == 4 and outputs.pooler_output is not None
        if fits and classifies:
            logits = teacher(pixels).logits
            fits = logits is not None and torch.allclose(logits, model(pixels).logits, atol=1e-4)
    except (AttributeError, TypeError, ValueError, RuntimeError):
        fits = False
    if not fits:
        raise EncoderError(
            f"{directory} gives no grid of features at any size with a classifier over their mean: distil "
            "from a convolutional network such as MobileNetV2."
        )
