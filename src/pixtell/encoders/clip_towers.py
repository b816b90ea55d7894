"""A whole CLIP whose towers learn on, for any CLIP that transformers loads.

In: a directory or hub id. Out: Towers; and, saved, a directory that transformers reads again, as do `clip.py`
and `clip_text.py`. transformers is imported inside functions only.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch

from pixtell.encoders.base import EncoderSpec
from pixtell.encoders.clip import load_clip
from pixtell.encoders.clip_text import load_clip_text
from pixtell.encoders.pretrained import load_model, model_directory, name_some, read_config
from pixtell.encoders.towers import Towers
from pixtell.errors import EncoderError
from pixtell.files import write_json
from pixtell.images import Preprocess
from pixtell.tokenizers import ClipTokenizer

# Beside config.json and the weights: what tokenizers and preprocessors of transformers read.
_COMPANIONS = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "preprocessor_config.json",
    "processor_config.json",
)


class ClipTowers(Towers):
    """A CLIPModel with its tokenizer and its preprocess. source: the directory its files are in."""

    def __init__(
        self, *, model: Any, tokenizer: ClipTokenizer, preprocess: Preprocess, name: str, source: Path
    ) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.name = name
        self.source = source
        self.pad_id = tokenizer.eos_id  # the tower reads at its first place
        self._preprocess = preprocess

    @property
    def logit_scale(self) -> torch.nn.Parameter:  # type: ignore[override]
        scale: torch.nn.Parameter = self.model.logit_scale
        return scale

    @property
    def preprocess(self) -> Preprocess:
        return self._preprocess

    @property
    def image_backbone(self) -> torch.nn.Module:
        backbone: torch.nn.Module = self.model.vision_model
        return backbone

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        pooled = self.model.vision_model(pixel_values=pixels.to(self.model.dtype)).pooler_output  # (B, D)
        embeddings: torch.Tensor = self.model.visual_projection(pooled)
        return embeddings  # (B, F)

    def embed_texts(self, text_ids: torch.Tensor) -> torch.Tensor:
        pooled = self.model.text_model(input_ids=text_ids).pooler_output  # (B, D)
        embeddings: torch.Tensor = self.model.text_projection(pooled)
        return embeddings  # (B, F)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text)

    def knows(self, text: str) -> bool:
        return True

    def save(self, directory: Path) -> None:
        self.model.save_pretrained(directory)
        for name in _COMPANIONS:
            if (self.source / name).is_file():
                shutil.copyfile(self.source / name, directory / name)
        if not any(
            (directory / name).exists() for name in ("preprocessor_config.json", "processor_config.json")
        ):
            write_json(directory / "preprocessor_config.json", _processor_json(self._preprocess))


def load_clip_towers(spec: EncoderSpec, *, base_dir: Path | None = None) -> ClipTowers:
    """The whole CLIP of `spec`, fp32, frozen, on the CPU.

    Raises:
        EncoderError: no such directory, no CLIP, one without text tower or tokenizer, damaged weights.
        DownloadError: a hub id whose files cannot be had.
    """
    directory = model_directory(spec, base_dir)
    text = load_clip_text(spec, base_dir=base_dir)  # its checks: a whole CLIP, a tokenizer that fits it
    preprocess = load_clip(spec, base_dir=base_dir).preprocess
    model, missing = load_model(directory, "CLIPModel", read_config(directory), main_input="input_ids")
    if missing:
        raise EncoderError(
            f"the weights in {directory} lack {name_some(missing)}: save the whole CLIP again."
        )
    return ClipTowers(
        model=model, tokenizer=text.tokenizer, preprocess=preprocess, name=text.name, source=directory
    )


def _processor_json(preprocess: Preprocess) -> dict[str, Any]:
    """A Preprocess as transformers' CLIPImageProcessor stores it, for a CLIP that came without."""
    size = preprocess.size
    square = preprocess.resize == "square"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": size, "width": size} if square else {"shortest_edge": size},
        "do_center_crop": not square,
        "crop_size": {"height": size, "width": size},
        "resample": 3 if preprocess.interpolation == "bicubic" else 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
        "do_convert_rgb": True,
    }
