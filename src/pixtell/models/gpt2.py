"""GPT-2 with an explicit KV cache.

In: embeddings (B, T, D), of a prefix or of tokens, and the cache of all positions before them. Out: hidden
states (B, T, D) and the longer cache. It does not know where embeddings come from; positions are added here
and nowhere else.

Parameter names are the hub's (`wte`, `wpe`, `h.N.attn.c_attn`, ..., `ln_f`) without their `transformer.`; the
hub's projections are stored transposed (Conv1D), ours are Linear. Pre-norm, gelu_new, tied output head.
Reference: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from pixtell.errors import ModelError
from pixtell.models.base import check_sizes, raise_problems
from pixtell.models.kv_cache import KVCache, LayerCache
from pixtell.models.packed import PackedLinear, can_pack, pack_linears


@dataclass(frozen=True)
class Gpt2Config:
    """The sizes of a GPT-2. Raises: ModelError naming everything that is wrong."""

    vocab_size: int  # V
    width: int = 768  # D, a multiple of num_heads
    num_layers: int = 12
    num_heads: int = 12
    max_positions: int = 1024  # prefix and tokens together
    dropout: float = 0.1  # of embeddings, attention weights and residual branches, in training

    def __post_init__(self) -> None:
        problems = check_sizes(
            "GPT-2",
            vocab_size=self.vocab_size,
            width=self.width,
            num_layers=self.num_layers,
            num_heads=self.num_heads,
            max_positions=self.max_positions,
        )
        if self.num_heads > 0 and self.width % self.num_heads:
            problems.append(f"GPT-2's num_heads {self.num_heads} do not divide its width {self.width}")
        if not 0 <= self.dropout < 1:
            problems.append(f"GPT-2's dropout {self.dropout} is not in 0 <= dropout < 1")
        raise_problems(problems)


class Attention(nn.Module):
    """Causal self-attention of T new positions to themselves and to the S positions in the cache."""

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width)
        self.c_proj = nn.Linear(config.width, config.width)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None, last_only: bool = False
    ) -> tuple[Tensor, LayerCache]:
        """hidden (B, T, D); mask (B or 1, T, S + T), True where a position may look, None: plainly causal.
        last_only: the last position looks at all, the others only leave keys and values; without a mask."""
        batch, length, width = hidden.shape
        heads = self.c_attn(hidden).view(batch, length, 3, self.num_heads, width // self.num_heads)
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, T, D/H)
        queries, new = heads[0], heads[1:]  # (B, H, T, D/H), (2, B, H, T, D/H)
        if last_only:
            queries = queries[:, :, -1:]  # (B, H, 1, D/H)
        cache = LayerCache.of(new) if cache is None else cache.append(new)
        keys, values = cache.keys_values  # (B, H, S + T, D/H) each
        with _quick_backward(queries):
            attended = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=None if mask is None else mask.unsqueeze(1),  # (B or 1, 1, T, S + T)
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=mask is None and queries.shape[2] > 1,
            )  # (B, H, T, D/H)
        joined = attended.transpose(1, 2).flatten(2)  # (B, T, D)
        return F.dropout(self.c_proj(joined), self.dropout, self.training), cache


def _quick_backward(queries: Tensor) -> AbstractContextManager[None]:
    """Where gradients will be wanted in bf16 on a CPU: the plain kernel, as the other one goes back there
    four times slower than in fp32 (torch 2.13)."""
    if queries.requires_grad and queries.dtype == torch.bfloat16 and queries.device.type == "cpu":
        kernel: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
        return kernel
    return nullcontext()


class FeedForward(nn.Module):
    """D -> 4 D -> D at each position."""

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.c_fc = nn.Linear(config.width, 4 * config.width)
        self.c_proj = nn.Linear(4 * config.width, config.width)

    def forward(self, hidden: Tensor) -> Tensor:
        activated = F.gelu(self.c_fc(hidden), approximate="tanh")  # (B, T, 4 D)
        return F.dropout(self.c_proj(activated), self.dropout, self.training)  # (B, T, D)


class Block(nn.Module):
    """Attention and feed-forward, each behind a layer norm and beside a residual."""

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width)
        self.mlp = FeedForward(config)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None, last_only: bool = False
    ) -> tuple[Tensor, LayerCache]:
        attended, cache = self.attn(self.ln_1(hidden), mask, cache, last_only)
        hidden = (hidden[:, -1:] if last_only else hidden) + attended  # (B, T, D)
        return hidden + self.mlp(self.ln_2(hidden)), cache


class Gpt2(nn.Module):
    """Embeddings in, hidden states out; `embed` and `project` share the table of token embeddings.

    checkpoint_activations: keep what goes into each block, no more, and compute the rest again on the way
    back: less memory, more time, the same gradients.
    """

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_activations = False
        self.wte = nn.Embedding(config.vocab_size, config.width)
        self.wpe = nn.Embedding(config.max_positions, config.width)
        self.h = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.ln_f = nn.LayerNorm(config.width)
        self._packed_head: PackedLinear | None = None
        self._initialise()

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (B, T) -> embeddings (B, T, D), without positions."""
        embeddings: Tensor = self.wte(token_ids)
        return embeddings

    def project(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> logits (..., V)."""
        if self._packed_head is not None:
            logits: Tensor = self._packed_head(hidden)
            return logits
        return F.linear(hidden, self.wte.weight)

    def pack(self) -> None:
        """Pack the weights of all products. The table of token embeddings stays, too: rows are read of it."""
        pack_linears(self.h)
        if can_pack(self.wte.weight):
            self._packed_head = PackedLinear(self.wte.weight)

    def forward(
        self, embeddings: Tensor, cache: KVCache | None = None, *, last_only: bool = False
    ) -> tuple[Tensor, KVCache]:
        """Read T more positions.

        embeddings: (R, T, D), without positions; cache: of the positions before them, R sequences, whose
        branches are read side by side: as K * T positions of B rows. last_only: hidden states of the last
        position alone, (R, 1, D), are wanted: most of the last block is spared. Not with a cache.
        Returns: hidden states (R, T, D) after the last layer norm, the cache of all positions.
        Raises: ModelError where there are more than max_positions.
        """
        assert cache is None or not last_only
        length = embeddings.shape[1]
        past = 0 if cache is None else cache.length
        if past + length > self.config.max_positions:
            raise ModelError(
                f"GPT-2 has {self.config.max_positions} positions for prefix and tokens together and "
                f"{past + length} are needed: use shorter captions or lower --max-new-tokens."
            )
        positions = self.wpe.weight[past : past + length]  # (T, D)
        hidden = F.dropout(embeddings + positions, self.config.dropout, self.training)  # (R, T, D)
        mask = None if cache is None else cache.mask(length)  # (B or 1, K * T, S + K * T)
        if mask is not None:
            hidden = hidden.reshape(-1, mask.shape[1], self.config.width)  # (B, K * T, D)
        layers = []
        for index, block in enumerate(self.h):
            past_layer = None if cache is None else cache.layers[index]
            inputs = (hidden, mask, past_layer, last_only and index == len(self.h) - 1)
            if self.checkpoint_activations and torch.is_grad_enabled():
                hidden, layer = checkpoint(block, *inputs, use_reentrant=False)
            else:
                hidden, layer = block(*inputs)
            layers.append(layer)
        hidden = self.ln_f(hidden).view(len(embeddings), 1 if last_only else length, self.config.width)
        visible = None
        if cache is not None and cache.visible is not None and mask is not None:
            visible = mask[:, length - 1 :: length]  # (B, K, S + K * T), as the last of the T sees it
        return hidden, KVCache(tuple(layers), past + length, visible)

    def _initialise(self) -> None:
        """As GPT-2: weights N(0, 0.02), residual projections smaller by sqrt(2 * num_layers), biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                scale = math.sqrt(2 * self.config.num_layers) if name.endswith("c_proj.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)
