"""CLIP's image tower as a frozen encoder, for any CLIP that transformers loads.

In: a directory or a hub id, of a whole CLIP or its vision tower alone. Radford et al. 2021, "Learning
transferable visual models from natural language supervision". transformers is imported inside functions only.
"""

from __future__ import annotations

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

# openai/CLIP clip.py:_transform
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class ClipEncoder(nn.Module):
    """The image tower as an Encoder.

    "embedding": the class token, layer-normed and projected to the space that images share with texts, not
    L2-normalised, (B, F). "pooled": the same before the projection, (B, F). "patches": the tokens of the last
    layer without the class token, before the last layer norm, (B, N, F).
    """

    def __init__(self, *, tower: nn.Module, name: str, output: str, preprocess: Preprocess) -> None:
        super().__init__()
        self.tower = tower  # a CLIPVisionModelWithProjection for "embedding", else a CLIPVisionModel
        self.name = name
        self.output = output
        self.preprocess = preprocess
        freeze(self)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        config: Any = self.tower.config
        if self.output == "embedding":
            return (config.projection_dim,)
        num_patches = (config.image_size // config.patch_size) ** 2
        return (config.hidden_size,) if self.output == "pooled" else (num_patches, config.hidden_size)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self, architecture_of(self.tower.config), self.output)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        outputs = self.tower(pixel_values=pixels.to(next(self.tower.parameters()).dtype))
        if self.output == "embedding":
            features: torch.Tensor = outputs.image_embeds  # (B, F)
        elif self.output == "pooled":
            features = outputs.pooler_output  # (B, F)
        else:
            features = outputs.last_hidden_state[:, 1:]  # (B, 1 + N, F) -> (B, N, F)
        return features


def load_clip(spec: EncoderSpec, *, base_dir: Path | None = None) -> ClipEncoder:
    """The encoder of `spec`, fp32, on the CPU.

    Raises:
        EncoderError: no such directory, no CLIP, damaged weights, no projection for "embedding".
        DownloadError: a hub id whose files cannot be had.
    """
    check_output(spec.output, ("embedding", "pooled", "patches"), f"encoder {spec.source}")
    directory = model_directory(spec, base_dir)
    config = read_config(directory)
    if config.model_type == "clip":  # a whole CLIP keeps the width of the projection on top
        config.vision_config.projection_dim = config.projection_dim
        config = config.vision_config
    elif config.model_type != "clip_vision_model":
        raise EncoderError(f"{directory} is no CLIP (model_type {config.model_type!r}): give one that is.")
    class_name = "CLIPVisionModelWithProjection" if spec.output == "embedding" else "CLIPVisionModel"
    tower, missing = load_model(directory, class_name, config)
    if missing == ["visual_projection.weight"]:
        check_output(spec.output, ("pooled", "patches"), f"{directory}, a tower without projection,")
    if missing:
        raise EncoderError(f"the weights in {directory} lack {name_some(missing)}: save the model again.")
    default = Preprocess(size=image_size_of(config), resize="shortest_side", mean=CLIP_MEAN, std=CLIP_STD)
    preprocess = read_preprocess(directory, default)
    if preprocess.size != config.image_size:
        raise EncoderError(
            f"{directory} preprocesses to {preprocess.size} pixels a side and its tower takes "
            f"{config.image_size}: correct its preprocessor_config.json."
        )
    return ClipEncoder(
        tower=tower, name=spec.hub_id or directory.name, output=spec.output, preprocess=preprocess
    )
