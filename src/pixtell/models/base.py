"""What every captioning model promises, and what decoding needs of it.

In: features of images and token ids. Out: logits. A model knows neither images, files nor tokenizers.

`logits[:, t]` predicts `token_ids[:, t]` from the features and `token_ids[:, :t]`: token ids carry no bos,
end in eos and are padded on the right, with any id (what follows has no influence on what stands before it).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pixtell.errors import ModelError
from pixtell.models.packed import pack_linears

DecodingState = Any  # what start and step carry; only the decoder that made it can read it


class CaptionDecoder(Protocol):
    """A language model with weights, as decoding sees it: a torch model or another runtime's.

    A state is a value: a step leaves the state it was given as it was, and rows never mix.
    """

    def start(self, features: Tensor) -> tuple[Tensor, DecodingState]:
        """features (B, F) or (B, N, F) -> logits (B, V) of the first token, state of B rows."""
        ...

    def step(self, token_ids: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]:
        """token_ids (B,), the ones just chosen -> logits (B, V) of the next token, state of B rows."""
        ...

    def reorder(self, state: DecodingState, beam_index: Tensor) -> DecodingState:
        """Keep and repeat rows: row i of the new state is row beam_index[i] of the old; beam_index (B',)."""
        ...


@dataclass(frozen=True)
class TensorFunctions:
    """A model as two functions of tensors alone, rows first, for runtimes that keep no Python.

    image: features -> prefix (B, P, D), then the tensors of the state before anything is read.
    language: prefix (B, P, D), token_ids (B, T), then state -> logits (B, V) of the token after the last of
    the P + T positions, then state. P is 0 in a step, T is 0 at the start.
    max_positions: how many positions can be read in all; None: any number.
    """

    image: nn.Module
    language: nn.Module
    max_positions: int | None


class CaptionModel(nn.Module, ABC):
    """A CaptionDecoder that can be trained. A class, not a protocol: training needs all of torch's Module.

    vocab_size: V; feature_dim: F.
    """

    vocab_size: int
    feature_dim: int

    @property
    @abstractmethod
    def image_branch(self) -> nn.Module:
        """The part through which images come in; the others are the language model's."""

    def forward(self, features: Tensor, token_ids: Tensor, image_index: Tensor | None = None) -> Tensor:
        """The logits of whole captions at once.

        features: (B, F) or (B, N, F), or with image_index one row an image.
        token_ids: (B, T).
        image_index: (B,), the row of features that each caption describes: captions share an image branch.
        Returns: logits (B, T, V). `start(features)[0]` equals `forward(features, token_ids)[:, 0]`.
        Raises: ModelError where the features have another shape than the model's.
        """
        logits, state = self.start(features)
        if image_index is not None:
            logits = logits.index_select(0, image_index)  # (B, V)
        further = self.project(self.read(state, token_ids, image_index))  # (B, T - 1, V)
        return torch.cat((logits.unsqueeze(1), further), dim=1)

    @abstractmethod
    def read(self, state: DecodingState, token_ids: Tensor, image_index: Tensor | None = None) -> Tensor:
        """What `project` turns into the logits of all tokens of whole captions but the first: (B, T - 1, W).
        Who needs the logits of some positions alone projects those.

        state: what `start` gave; it may be read again and again, so that several batches of captions share
        one pass of their images. token_ids: (B, T). image_index: (B,), the row of the state that each caption
        goes on from; None: its own.
        """

    @abstractmethod
    def project(self, hidden: Tensor) -> Tensor:
        """(..., W) -> logits (..., V)."""

    @abstractmethod
    def start(self, features: Tensor) -> tuple[Tensor, DecodingState]: ...

    @abstractmethod
    def step(self, token_ids: Tensor, state: DecodingState) -> tuple[Tensor, DecodingState]: ...

    @abstractmethod
    def reorder(self, state: DecodingState, beam_index: Tensor) -> DecodingState: ...

    def pack(self) -> None:
        """Lay the weights out for decoding alone, where this machine is quicker so: the same captions, no
        gradients any more, and nothing to save. To be called where the model stays, in its dtype."""
        pack_linears(self)

    @abstractmethod
    def tensor_functions(self) -> TensorFunctions:
        """`start` and `step` as functions of tensors alone, over the same weights, in eval mode."""


def check_sizes(owner: str, **sizes: int | None) -> list[str]:
    """The problems of sizes that must be whole numbers above 0; None is not looked at."""
    return [f"{owner} has {name} {size}" for name, size in sizes.items() if size is not None and size < 1]


def raise_problems(problems: list[str]) -> None:
    """Raises: ModelError with all problems of a configuration in one sentence, where there are any."""
    if problems:
        raise ModelError(f"This makes no model: {'; '.join(problems)}; change the model's configuration.")
