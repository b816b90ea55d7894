"""GPT-2 as a function of tensors alone, for a tracer: no branch depends on a length, no cache is an object.

In: embeddings and, layer by layer, the keys and values so far. Out: the last hidden state and the longer
keys and values. The weights are those of the `Gpt2` it is made of; equal to the last of its `forward`.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pixtell.models.gpt2 import Attention, Block, Gpt2


class Gpt2Graph(nn.Module):
    """One function serves the prefix (nothing before it) and each step (one more position)."""

    def __init__(self, gpt2: Gpt2) -> None:
        super().__init__()
        self.gpt2 = gpt2

    def forward(self, embeddings: Tensor, past: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """embeddings (B, T, D), without positions; past: keys, values, keys, ... (B, H, S, D/H), S from 0.

        Returns: the last hidden state (B, 1, D), the keys and values of S + T positions.
        """
        length, before = embeddings.shape[1], past[0].shape[2]
        new = torch.arange(length, device=embeddings.device) + before  # (T,)
        every = torch.arange(before + length, device=embeddings.device)  # (S + T,)
        hidden = embeddings + F.embedding(new, self.gpt2.wpe.weight)  # (B, T, D)
        unseen = (every[None, :] > new[:, None]).to(hidden.dtype) * torch.finfo(hidden.dtype).min
        present: list[Tensor] = []
        for index, block in enumerate(cast("list[Block]", self.gpt2.h)):
            keys, values = past[2 * index], past[2 * index + 1]  # (B, H, S, D/H)
            last_only = index == len(self.gpt2.h) - 1
            attended, keys, values = attend(block.attn, block.ln_1(hidden), unseen, keys, values, last_only)
            hidden = (hidden[:, -1:] if last_only else hidden) + attended  # (B, T, D)
            hidden = hidden + block.mlp(block.ln_2(hidden))
            present += [keys, values]
        return self.gpt2.ln_f(hidden), present


def attend(
    attention: Attention, hidden: Tensor, unseen: Tensor, keys: Tensor, values: Tensor, last_only: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """hidden (B, T, D); unseen (T, S + T), 0 where a position may look, else the least number there is;
    keys, values (B, H, S, D/H) -> (B, T, D), last_only: (B, 1, D), and keys and values of S + T positions."""
    length, width = hidden.shape[1], attention.c_proj.in_features
    head_dim = width // attention.num_heads
    shape = (-1, length, attention.num_heads, head_dim)
    projected = attention.c_attn(hidden).split(width, dim=-1)  # 3 x (B, T, D)
    queries, new_keys, new_values = (part.view(shape).transpose(1, 2) for part in projected)
    keys = torch.cat((keys, new_keys), dim=2)  # (B, H, S + T, D/H)
    values = torch.cat((values, new_values), dim=2)
    if last_only:
        queries, unseen = queries[:, :, -1:], unseen[-1:]  # (B, H, 1, D/H), (1, S + T)
    # The queries are scaled, not the products nor the keys: they are the fewest numbers.
    scaled = queries / math.sqrt(head_dim)
    weights = (scaled @ keys.transpose(2, 3) + unseen).softmax(dim=-1)  # (B, H, T, S + T)
    joined = (weights @ values).transpose(1, 2).flatten(2)  # (B, T, D)
    return attention.c_proj(joined), keys, values
