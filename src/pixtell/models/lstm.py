"""The conventional system: an image branch and an LSTM branch, merged before the next word is chosen.

In: features and token ids. Out: logits. Whole captions are trained at once: the LSTM reads each caption one
time, not once per word of it.
Reference: Tanti et al., What is the Role of Recurrent Neural Networks (RNNs) in an Image Caption Generator?,
2017: the merge architecture.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixtell.errors import ModelError
from pixtell.models.base import CaptionModel, TensorFunctions, check_sizes, raise_problems


@dataclass(frozen=True)
class LstmConfig:
    """The sizes of the merge network. Raises: ModelError naming everything that is wrong."""

    feature_dim: int  # F
    vocab_size: int  # V
    width: int = 256  # of both branches, of token embeddings and of the merged layer
    dropout: float = 0.5  # of features and of token embeddings, in training
    normalise_features: bool = False  # to length 1, after a grid's mean

    def __post_init__(self) -> None:
        problems = check_sizes(
            "the lstm", feature_dim=self.feature_dim, vocab_size=self.vocab_size, width=self.width
        )
        if not 0 <= self.dropout < 1:
            problems.append(f"the lstm has dropout {self.dropout}, which is not in 0 <= dropout < 1")
        raise_problems(problems)


@dataclass(frozen=True)
class LstmState:
    """What decoding carries: the LSTM's state and the image branch, which never changes."""

    hidden: Tensor  # h (1, B, W)
    cell: Tensor  # c (1, B, W)
    image: Tensor  # (B, W)


def _kernel_for(read: Tensor) -> AbstractContextManager[None]:
    """oneDNN's LSTM, or torch's own where oneDNN has none: in bf16 on a CPU without AVX-512 (torch 2.13)."""
    if read.device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return nullcontext()
    slower: AbstractContextManager[None] = torch.backends.mkldnn.flags(enabled=False)
    return slower if torch.is_autocast_enabled("cpu") or read.dtype == torch.bfloat16 else nullcontext()


class LstmCaptioner(CaptionModel):
    """features -> dropout -> dense (relu); tokens -> embedding -> dropout -> LSTM; sum -> dense (relu) -> V.

    A grid of features is averaged first. The bos embedding that the LSTM reads first is learned.
    """

    def __init__(self, config: LstmConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.vocab_size
        self.feature_dim = config.feature_dim
        self.image = nn.Linear(config.feature_dim, config.width)
        self.bos = nn.Parameter(torch.randn(config.width))
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.lstm = nn.LSTM(config.width, config.width, batch_first=True)
        self.merge = nn.Linear(config.width, config.width)
        self.output = nn.Linear(config.width, config.vocab_size)

    @property
    def image_branch(self) -> nn.Linear:
        return self.image

    def read(self, state: LstmState, token_ids: Tensor, image_index: Tensor | None = None) -> Tensor:
        if image_index is not None:
            state = self.reorder(state, image_index)
        read = self._drop(self.embedding(token_ids[:, :-1]))  # (B, T - 1, W): the last token predicts nothing
        if read.shape[1] == 0:
            return read
        outputs, _ = self._run_lstm(read, state)  # (B, T - 1, W)
        return self._merge(state.image.unsqueeze(1), outputs)

    def project(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.output(hidden)
        return logits

    def start(self, features: Tensor) -> tuple[Tensor, LstmState]:
        image = self._read_image(features)  # (B, W)
        outputs, (hidden, cell) = self._run_lstm(self._drop(self._bos(image.shape[0])))  # (B, 1, W)
        return self.project(self._merge(image, outputs[:, 0])), LstmState(hidden, cell, image)

    def step(self, token_ids: Tensor, state: LstmState) -> tuple[Tensor, LstmState]:
        embeddings = self._drop(self.embedding(token_ids.unsqueeze(1)))  # (B, 1, W)
        outputs, (hidden, cell) = self._run_lstm(embeddings, state)  # (B, 1, W)
        return self.project(self._merge(state.image, outputs[:, 0])), LstmState(hidden, cell, state.image)

    def reorder(self, state: LstmState, beam_index: Tensor) -> LstmState:
        return LstmState(
            state.hidden.index_select(1, beam_index),
            state.cell.index_select(1, beam_index),
            state.image.index_select(0, beam_index),
        )

    def tensor_functions(self) -> TensorFunctions:
        return TensorFunctions(_ImageGraph(self), _LanguageGraph(self), None)

    def _read_image(self, features: Tensor) -> Tensor:
        """features (B, F) or (B, N, F) -> the image branch (B, W)."""
        if features.dim() not in (2, 3) or features.shape[-1] != self.feature_dim:
            raise ModelError(
                f"Features of shape {tuple(features.shape[1:])} do not fit: this model takes "
                f"({self.feature_dim},) or (N, {self.feature_dim}); use the encoder that it was made for."
            )
        pooled = features.mean(dim=1) if features.dim() == 3 else features  # (B, F)
        if self.config.normalise_features:
            pooled = F.normalize(pooled, dim=-1)
        return F.relu(self.image(self._drop(pooled)))

    def _run_lstm(self, read: Tensor, state: LstmState | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """read (B, T, W) -> outputs (B, T, W) and the new hidden and cell, (1, B, W) each."""
        begun = None if state is None else (state.hidden, state.cell)
        with _kernel_for(read):
            outputs, (hidden, cell) = self.lstm(read, begun)
        return outputs, (hidden, cell)

    def _bos(self, rows: int) -> Tensor:
        return self.bos.expand(rows, 1, -1)  # (B, 1, W)

    def _drop(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.config.dropout, self.training)

    def _merge(self, image: Tensor, outputs: Tensor) -> Tensor:
        """image and outputs (B, ..., W) -> what is projected (B, ..., W)."""
        return F.relu(self.merge(image + outputs))


class _ImageGraph(nn.Module):
    """features -> the bos embedding as a prefix (B, 1, W), then h, c and the image branch (B, W) each."""

    def __init__(self, model: LstmCaptioner) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        image = self.model._read_image(features)  # (B, W)
        return self.model._bos(image.shape[0]), torch.zeros_like(image), torch.zeros_like(image), image


class _LanguageGraph(nn.Module):
    """prefix, token_ids, h, c and image branch -> logits, h, c and image branch."""

    def __init__(self, model: LstmCaptioner) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, prefix: Tensor, token_ids: Tensor, hidden: Tensor, cell: Tensor, image: Tensor
    ) -> tuple[Tensor, ...]:
        read = torch.cat((prefix, self.model.embedding(token_ids)), dim=1)  # (B, P + T, W)
        outputs, (hidden, cell) = self.model.lstm(read, (hidden.unsqueeze(0), cell.unsqueeze(0)))
        logits = self.model.project(self.model._merge(image, outputs[:, -1]))  # (B, V)
        return logits, hidden.squeeze(0), cell.squeeze(0), image
