"""Any vision backbone that transformers reads, as a frozen encoder.

In: a directory in transformers' layout, or a hub id. transformers is imported inside functions only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

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
        patches = as_patches(outputs.last_hidden_state)  # (B, N, F)
        return patches.mean(1) if self.output == "pooled" else patches


def load_hub_encoder(spec: EncoderSpec, *, base_dir: Path | None = None) -> HubEncoder:
    """The encoder of `spec`, fp32, on the CPU.

    Raises:
        EncoderError: no such directory, no vision model, damaged weights, or no such output.
        DownloadError: a hub id whose files cannot be had.
    """
    check_output(spec.output, ("patches", "pooled"), f"encoder {spec.source}")
    directory = model_directory(spec, base_dir)
    model, config = load_backbone(directory)
    preprocess = read_hub_preprocess(directory, config)
    try:
        return HubEncoder(
            backbone=model, name=spec.hub_id or directory.name, output=spec.output, preprocess=preprocess
        )
    except (AttributeError, TypeError, ValueError, RuntimeError) as cause:
        raise EncoderError(
            f"{directory} holds a {type(model).__name__}, which gives no patches of an image of "
            f"{preprocess.size} pixels a side: correct its preprocessor_config.json, or choose another."
        ) from cause


def load_backbone(directory: Path) -> tuple[Any, Any]:
    """The frozen vision model in `directory`, of two towers the one that sees, and its config.

    Raises: EncoderError as `load_hub_encoder` does.
    """
    config = read_config(directory)
    config = getattr(config, "vision_config", config)
    model, missing = load_model(directory, "AutoModel", config)
    if missing and all(key.startswith("pooler.") for key in missing):
        model.pooler = None  # saved without: it would be random
    elif missing:
        raise EncoderError(f"the weights in {directory} lack {name_some(missing)}: save the model again.")
    return model, config


def read_hub_preprocess(directory: Path, config: Any) -> Preprocess:
    """The preprocess of the backbone in a directory; what its files don't say is usual for its type."""
    half = config.model_type in _HALF_MODELS
    default = Preprocess(
        size=image_size_of(config),
        resize="square",
        mean=(0.5, 0.5, 0.5) if half else IMAGENET_MEAN,
        std=(0.5, 0.5, 0.5) if half else IMAGENET_STD,
        interpolation="bilinear",
    )
    return read_preprocess(directory, default)


def as_patches(hidden: torch.Tensor) -> torch.Tensor:
    """A grid (B, C, h, w) or tokens (B, n + N, F) to patches (B, N, F).

    Images are square, so N is the largest square in the number of tokens: 197 = 1 + 14 x 14.
    """
    if hidden.ndim == 4:
        return hidden.flatten(2).transpose(1, 2)  # (B, N, F)
    return hidden[:, -(math.isqrt(hidden.shape[1]) ** 2) :]  # (B, N, F)
