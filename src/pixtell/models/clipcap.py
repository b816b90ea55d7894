"""ClipCap: a mapping network turns features into a prefix, GPT-2 continues the prefix as a sentence.

In: features and token ids. Out: logits. Captions of one image share one pass of the prefix through GPT-2.
Reference: Mokady et al., ClipCap: CLIP Prefix for Image Captioning, 2021.
"""

from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixtell.errors import ModelError
from pixtell.models.base import CaptionModel, TensorFunctions, raise_problems
from pixtell.models.gpt2 import Gpt2, Gpt2Config
from pixtell.models.gpt2_graph import Gpt2Graph
from pixtell.models.kv_cache import KVCache
from pixtell.models.mapping import MappingNetwork, build_mapping, check_mapping

LanguageModelTraining = Literal["all", "frozen", "ends"]


@dataclass(frozen=True)
class ClipCapConfig:
    """The sizes of a ClipCap. A size of None is the mapping's own default, or one that it does not have.

    Raises: ModelError naming everything that is wrong.
    """

    feature_dim: int  # F
    gpt2: Gpt2Config
    mapping: str = "mlp"  # a key of MAPPINGS
    num_patches: int | None = None  # N, for a mapping of grids; None: features are one vector
    prefix_length: int | None = None  # P; mlp and transformer 10, encoder 4; patch has num_patches + 1
    clip_length: int | None = None  # transformer: 10
    mapping_layers: int | None = None  # transformer: 8, encoder: 6
    mapping_heads: int | None = None  # transformer: 8, encoder: 16
    normalise_features: bool = False  # to length 1, each vector, before the mapping
    feature_dropout: float = 0.0  # share of feature values zeroed in training
    language_model: LanguageModelTraining = "all"  # what of GPT-2 is trained; ends: its first and last block

    def __post_init__(self) -> None:
        problems = check_mapping(
            self.mapping, feature_dim=self.feature_dim, width=self.gpt2.width, **self.sizes
        )
        if not 0 <= self.feature_dropout < 1:
            problems.append(f"feature_dropout {self.feature_dropout} is not in 0 <= feature_dropout < 1")
        if self.language_model not in get_args(LanguageModelTraining):
            choices = ", ".join(get_args(LanguageModelTraining))
            problems.append(f"language_model {self.language_model!r} is none of {choices}")
        raise_problems(problems)

    @property
    def sizes(self) -> dict[str, int | None]:
        """The sizes that only the mapping knows."""
        return {
            "num_patches": self.num_patches,
            "prefix_length": self.prefix_length,
            "clip_length": self.clip_length,
            "mapping_layers": self.mapping_layers,
            "mapping_heads": self.mapping_heads,
        }


class ClipCap(CaptionModel):
    """Mapping network and GPT-2. The state of decoding is GPT-2's KV cache of prefix and tokens so far."""

    def __init__(self, config: ClipCapConfig) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = config.gpt2.vocab_size
        self.feature_dim = config.feature_dim
        self.mapping = build_mapping(
            config.mapping, feature_dim=config.feature_dim, width=config.gpt2.width, **config.sizes
        )
        self.gpt2 = Gpt2(config.gpt2)
        if self.mapping.prefix_length >= config.gpt2.max_positions:
            raise ModelError(
                f"A prefix of {self.mapping.prefix_length} positions leaves no room in GPT-2's "
                f"{config.gpt2.max_positions} max_positions: take a shorter prefix."
            )
        if config.language_model != "all":
            self.gpt2.requires_grad_(False)
        if config.language_model == "ends":
            self.gpt2.h[0].requires_grad_(True)
            self.gpt2.h[-1].requires_grad_(True)

    @property
    def image_branch(self) -> MappingNetwork:
        return self.mapping

    def train(self, mode: bool = True) -> Self:
        """As torch's; a GPT-2 that is not trained stays without dropout."""
        super().train(mode)
        if self.config.language_model == "frozen":
            self.gpt2.eval()
        return self

    def read(self, state: KVCache, token_ids: Tensor, image_index: Tensor | None = None) -> Tensor:
        if image_index is not None:
            state = state.select(image_index)
        hidden = self.gpt2.embed(token_ids[:, :-1])  # (B, T - 1, D): the last token predicts nothing
        if hidden.shape[1] > 0:
            hidden, _ = self.gpt2(hidden, state)
        return hidden

    def project(self, hidden: Tensor) -> Tensor:
        return self.gpt2.project(hidden)

    def start(self, features: Tensor) -> tuple[Tensor, KVCache]:
        hidden, cache = self.gpt2(self.map_features(features), last_only=True)  # (B, 1, D)
        return self.project(hidden[:, -1]), cache  # (B, V)

    def step(self, token_ids: Tensor, state: KVCache) -> tuple[Tensor, KVCache]:
        hidden, cache = self.gpt2(self.gpt2.embed(token_ids.unsqueeze(1)), state)  # (B, 1, D)
        return self.project(hidden[:, -1]), cache  # (B, V)

    def reorder(self, state: KVCache, beam_index: Tensor) -> KVCache:
        return state.branch(beam_index)

    def pack(self) -> None:
        self.gpt2.pack()  # the mapping runs once a batch

    def tensor_functions(self) -> TensorFunctions:
        return TensorFunctions(_ImageGraph(self), _LanguageGraph(self), self.config.gpt2.max_positions)

    def map_features(self, features: Tensor) -> Tensor:
        """features (B, F) or (B, N, F) -> prefix (B, P, D).

        Raises: ModelError where the features have another shape than the configuration says.
        """
        config = self.config
        grid = () if config.num_patches is None else (config.num_patches,)
        expected = (*grid, config.feature_dim)
        if tuple(features.shape[1:]) != expected:
            raise ModelError(
                f"Features of shape {tuple(features.shape[1:])} do not fit: this model's mapping "
                f"{config.mapping} takes {expected}; use the encoder and output it was made for."
            )
        if config.normalise_features:
            features = F.normalize(features, dim=-1)
        prefix: Tensor = self.mapping(F.dropout(features, config.feature_dropout, self.training))
        return prefix


class _ImageGraph(nn.Module):
    """features -> prefix, and the keys and values of no position, (B, H, 0, D/H) each."""

    def __init__(self, model: ClipCap) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Tensor) -> tuple[Tensor, ...]:
        prefix = self.model.map_features(features)  # (B, P, D)
        config = self.model.config.gpt2
        shape = (prefix.shape[0], config.num_heads, 0, config.width // config.num_heads)
        return prefix, *(prefix.new_zeros(shape) for _ in range(2 * config.num_layers))


class _LanguageGraph(nn.Module):
    """prefix, token_ids, keys and values -> logits, keys and values."""

    def __init__(self, model: ClipCap) -> None:
        super().__init__()
        self.gpt2 = model.gpt2
        self.graph = Gpt2Graph(model.gpt2)

    def forward(self, prefix: Tensor, token_ids: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        embeddings = torch.cat((prefix, self.gpt2.embed(token_ids)), dim=1)  # (B, P + T, D)
        hidden, present = self.graph(embeddings, past)  # (B, P + T, D)
        return self.gpt2.project(hidden[:, -1]), *present  # (B, V)
