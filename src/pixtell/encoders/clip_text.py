"""CLIP's text tower with its tokenizer, for any CLIP that transformers loads.

In: the directory or hub id of a whole CLIP. Out: a TextEncoder whose embeddings share their space with the
"embedding" output of `clip.py`. transformers is imported inside functions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixtell.encoders.base import EncoderSpec, freeze, weights_sha256
from pixtell.encoders.pretrained import load_model, model_directory, name_some, read_config
from pixtell.errors import EncoderError
from pixtell.tokenizers import ClipTokenizer

# In configs saved before 2023 the eos id is wrong; then transformers pools at the largest id of a row.
_WRONG_EOS_ID = 2


class ClipTextEncoder(nn.Module):
    """The text tower as a TextEncoder: its hidden state at eos, layer-normed and projected, (B, F)."""

    def __init__(self, *, tower: nn.Module, tokenizer: ClipTokenizer, name: str) -> None:
        super().__init__()
        self.tower = tower  # a CLIPTextModelWithProjection
        self.tokenizer = tokenizer
        self.name = name
        freeze(self)

    @property
    def fingerprint(self) -> str:
        return weights_sha256(self)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `tokenizer.encode_batch`."""
        return self.tokenizer.encode_batch(texts)

    def unknown_words(self, text: str) -> list[str]:
        """None: byte pairs can spell any word."""
        return []

    def knows(self, text: str) -> bool:
        """Always."""
        return True

    def forward(self, text_ids: torch.Tensor) -> torch.Tensor:
        """Text ids (B, T), as `encode_batch` pads them, to embeddings (B, F), unnormalised."""
        embeddings: torch.Tensor = self.tower(input_ids=text_ids).text_embeds
        return embeddings  # (B, F)


def load_clip_text(spec: EncoderSpec, *, base_dir: Path | None = None) -> ClipTextEncoder:
    """The text tower beside the image tower of `spec`, frozen, in eval mode, fp32, on the CPU.

    Raises:
        EncoderError: no such directory, no CLIP, one without text tower or tokenizer, files that do not fit
            each other, damaged weights.
        DownloadError: a hub id whose files cannot be had.
    """
    directory = model_directory(spec, base_dir)
    config = read_config(directory)
    if config.model_type != "clip":
        what = "an image tower alone" if config.model_type == "clip_vision_model" else "no CLIP"
        raise EncoderError(
            f"{directory} is {what} (model_type {config.model_type!r}) and cannot read texts: give a whole "
            "CLIP."
        )
    text_config = config.text_config
    text_config.projection_dim = config.projection_dim  # a whole CLIP keeps it on top
    if spec.hub_id is not None:
        _fetch_tokenizer(spec.hub_id, directory)
    tokenizer = ClipTokenizer.load(directory, max_length=text_config.max_position_embeddings)
    _check_fit(tokenizer, text_config, directory)
    tower, missing = load_model(directory, "CLIPTextModelWithProjection", text_config, main_input="input_ids")
    if missing:
        raise EncoderError(
            f"the weights in {directory} lack {name_some(missing)} of the text tower: save the whole CLIP "
            "again."
        )
    return ClipTextEncoder(tower=tower, tokenizer=tokenizer, name=spec.hub_id or directory.name)


def _fetch_tokenizer(hub_id: str, directory: Path) -> None:
    """Bring the tokenizer's files into the snapshot `directory`, named by its commit."""
    from pixtell.downloads import fetch_hub_files

    fetch_hub_files(hub_id, ["config.json"], optional=["tokenizer.json"], revision=directory.name)
    if not (directory / "tokenizer.json").exists():
        fetch_hub_files(hub_id, ["vocab.json", "merges.txt"], revision=directory.name)


def _check_fit(tokenizer: ClipTokenizer, config: Any, directory: Path) -> None:
    """Refuse a tokenizer whose ids the tower has no row for, or whose eos it would not find."""
    if tokenizer.vocab_size > config.vocab_size:
        raise EncoderError(
            f"the tokenizer in {directory} has {tokenizer.vocab_size:,} tokens and the text tower "
            f"{config.vocab_size:,}: take the tokenizer's files that came with the model."
        )
    if config.eos_token_id not in (_WRONG_EOS_ID, tokenizer.eos_id):
        raise EncoderError(
            f"the config.json in {directory} says eos_token_id {config.eos_token_id} and its tokenizer has "
            f"{tokenizer.eos_id}: correct it, else all texts are alike to the tower."
        )
