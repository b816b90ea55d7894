"""Two towers, one for images and one for texts, whose embeddings share a space: what contrastive training
trains and search reads.

In: pixels; text ids. Out: embeddings (B, F), unnormalised. `nano_text.py` and `clip_towers.py` make them; how
they are trained stands in `training/`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from pixtell.images import Preprocess


class Towers(nn.Module, ABC):
    """Both towers and the temperature between them, all of it trainable."""

    name: str  # for people
    pad_id: int  # what fills up a row of text ids on the right
    logit_scale: nn.Parameter  # (), log of what cosines are multiplied with, 1 / temperature

    @property
    @abstractmethod
    def preprocess(self) -> Preprocess:
        """What the image tower wants done to an image."""

    @property
    @abstractmethod
    def image_backbone(self) -> nn.Module:
        """The image tower up to its projection."""

    @abstractmethod
    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels (B, 3, S, S) -> (B, F)."""

    @abstractmethod
    def embed_texts(self, text_ids: torch.Tensor) -> torch.Tensor:
        """Text ids (B, T), padded with pad_id -> (B, F). Padding changes nothing."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of one text, at most as many as the text tower has positions, without padding."""

    @abstractmethod
    def knows(self, text: str) -> bool:
        """Whether the text tower knows a word of it; byte pairs can spell any."""

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write everything that is needed to load them again into `directory`, which the caller makes
        atomic."""


def pad_text_ids(rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    """Rows of ids -> (B, T), T that of the longest, filled up on the right."""
    length = max(map(len, rows), default=0)
    return torch.tensor([[*row, *[pad_id] * (length - len(row))] for row in rows], dtype=torch.long)
