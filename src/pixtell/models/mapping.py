"""Mapping networks: features -> prefix.

In: features, one vector an image (B, F) or a grid (B, N, F). Out: a prefix (B, P, D) of embeddings that a
language model continues. They do not know which encoder made the features, nor whether these are normalised.

Sub-modules are named so that the published weights of ClipCap (`clip_project.`) and of clip-gpt-captioning
(`mp.`) fit by renaming the prefix of their keys.
"""

import inspect
from abc import ABC, abstractmethod
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixtell.models.base import check_sizes, raise_problems


class MappingNetwork(nn.Module, ABC):
    """features -> prefix. prefix_length: P."""

    prefix_length: int

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """features (B, F) or (B, N, F) -> prefix (B, P, D)."""


class MlpMapping(MappingNetwork):
    """F -> D P / 2 -> tanh -> D P.

    Reference: Mokady et al., ClipCap: CLIP Prefix for Image Captioning, 2021.
    """

    def __init__(self, *, feature_dim: int, width: int, prefix_length: int = 10) -> None:
        super().__init__()
        self.prefix_length = prefix_length
        self.width = width
        hidden_dim = width * prefix_length // 2
        self.model = nn.Sequential(
            nn.Linear(feature_dim, hidden_dim), nn.Tanh(), nn.Linear(hidden_dim, width * prefix_length)
        )

    def forward(self, features: Tensor) -> Tensor:
        prefix: Tensor = self.model(features).view(-1, self.prefix_length, self.width)
        return prefix


class TransformerMapping(MappingNetwork):
    """The CLIP vector, spread over clip_length positions, and learned constants attend to each other; what
    then stands at the constants' positions is the prefix.

    Reference: the same paper, section 3.2.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        width: int,
        prefix_length: int = 10,
        clip_length: int = 10,
        mapping_layers: int = 8,
        mapping_heads: int = 8,
    ) -> None:
        super().__init__()
        _check_heads("transformer", mapping_heads, width=width)
        self.prefix_length = prefix_length
        self.clip_length = clip_length
        self.width = width
        self.linear = nn.Linear(feature_dim, clip_length * width)
        self.prefix_const = nn.Parameter(torch.randn(prefix_length, width))
        self.transformer = _Stack([_MappingBlock(width, mapping_heads) for _ in range(mapping_layers)])

    def forward(self, features: Tensor) -> Tensor:
        spread = self.linear(features).view(-1, self.clip_length, self.width)  # (B, C, D)
        constants = self.prefix_const.expand(spread.shape[0], -1, -1)  # (B, P, D)
        hidden: Tensor = self.transformer(torch.cat((spread, constants), dim=1))  # (B, C + P, D)
        return hidden[:, self.clip_length :]  # (B, P, D)


class _Stack(nn.Module):
    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, hidden: Tensor) -> Tensor:
        for layer in self.layers:
            hidden = layer(hidden)  # (B, S, D)
        return hidden


class _MappingBlock(nn.Module):
    """A pre-norm block of the ClipCap paper: full attention, relu between D and 2 D."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = _MappingAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            OrderedDict(fc1=nn.Linear(width, 2 * width), relu=nn.ReLU(), fc2=nn.Linear(2 * width, width))
        )

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.norm1(hidden))  # (B, S, D)
        forwarded: Tensor = self.mlp(self.norm2(hidden))
        return hidden + forwarded


class _MappingAttention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.to_queries = nn.Linear(width, width, bias=False)
        self.to_keys_values = nn.Linear(width, 2 * width, bias=False)
        self.project = nn.Linear(width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        batch, length, width = hidden.shape
        head_dim = width // self.num_heads
        queries = self.to_queries(hidden).view(batch, length, self.num_heads, head_dim).transpose(1, 2)
        pairs = self.to_keys_values(hidden).view(batch, length, 2, self.num_heads, head_dim)
        keys, values = pairs.permute(2, 0, 3, 1, 4)  # (B, H, S, D/H) each
        attended = F.scaled_dot_product_attention(queries, keys, values)  # (B, H, S, D/H)
        projected: Tensor = self.project(attended.transpose(1, 2).reshape(batch, length, width))
        return projected


class EncoderMapping(MappingNetwork):
    """A transformer encoder over the one CLIP vector, then a linear layer to the prefix.

    Reference: the design of clip-gpt-captioning (post-norm layers, relu, ratio 4). Each image is a
    sequence of its own here; there, in training, the images of a batch attended to each other.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        width: int,
        prefix_length: int = 4,
        mapping_layers: int = 6,
        mapping_heads: int = 16,
    ) -> None:
        super().__init__()
        _check_heads("encoder", mapping_heads, feature_dim=feature_dim)
        self.prefix_length = prefix_length
        self.width = width
        self.transformer_encoder = _Stack(
            [
                nn.TransformerEncoderLayer(feature_dim, mapping_heads, 4 * feature_dim, batch_first=True)
                for _ in range(mapping_layers)
            ]
        )
        self.mapper = nn.Linear(feature_dim, prefix_length * width)

    def forward(self, features: Tensor) -> Tensor:
        hidden = self.transformer_encoder(features.unsqueeze(1))  # (B, 1, F)
        prefix: Tensor = self.mapper(hidden).view(-1, self.prefix_length, self.width)
        return prefix


class PatchMapping(MappingNetwork):
    """One prefix position a patch, in the grid's order, and their mean as the last: P = N + 1."""

    def __init__(self, *, feature_dim: int, width: int, num_patches: int) -> None:
        super().__init__()
        self.prefix_length = num_patches + 1
        self.norm = nn.LayerNorm(feature_dim)
        self.mlp = nn.Sequential(nn.Linear(feature_dim, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.positions = nn.Parameter(torch.empty(self.prefix_length, width))
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        patches = self.mlp(self.norm(features))  # (B, N, D)
        prefix = torch.cat((patches, patches.mean(dim=1, keepdim=True)), dim=1)  # (B, N + 1, D)
        return prefix + self.positions


MAPPINGS: dict[str, type[MappingNetwork]] = {
    "mlp": MlpMapping,
    "transformer": TransformerMapping,
    "encoder": EncoderMapping,
    "patch": PatchMapping,
}


def build_mapping(mapping: str, *, feature_dim: int, width: int, **sizes: int | None) -> MappingNetwork:
    """The mapping network of that name; a size of None takes the mapping's own default.

    Raises: ModelError where `check_mapping` finds a problem, or the heads do not divide the width.
    """
    raise_problems(check_mapping(mapping, feature_dim=feature_dim, width=width, **sizes))
    given = {name: size for name, size in sizes.items() if size is not None}
    return MAPPINGS[mapping](feature_dim=feature_dim, width=width, **given)


def check_mapping(mapping: str, **sizes: int | None) -> list[str]:
    """The problems of a mapping's sizes: an unknown name, a size missing, not taken, or below 1."""
    if mapping not in MAPPINGS:
        return [f"there is no mapping {mapping!r} (there are {', '.join(MAPPINGS)})"]
    parameters = inspect.signature(MAPPINGS[mapping]).parameters
    given = {name: size for name, size in sizes.items() if size is not None}
    return [
        *(f"the mapping {mapping} takes no {name}" for name in given if name not in parameters),
        *(
            f"the mapping {mapping} needs {name}"
            for name, parameter in parameters.items()
            if parameter.default is parameter.empty and name not in given
        ),
        *check_sizes(f"the mapping {mapping}", **given),
    ]


def _check_heads(mapping: str, mapping_heads: int, **sizes: int) -> None:
    raise_problems(
        [
            f"the mapping {mapping} has {mapping_heads} mapping_heads, which do not divide {name} {size}"
            for name, size in sizes.items()
            if size % mapping_heads
        ]
    )
