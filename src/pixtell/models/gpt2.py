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


@dataclass
class _Buffer:
    """Memory that the caches of one sequence share while it grows."""

    keys_values: Tensor  # (2, B, H, C, D/H): room for C positions
    used: int  # positions written so far


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer at the S positions so far. A value: `append` leaves it as it was.

    Without gradients the buffer doubles when it is full and is written in place, so that a step copies one
    position; with gradients every append makes a new tensor, through which autograd can go back.
    """

    buffer: _Buffer
    length: int  # S

    @property
    def keys_values(self) -> Tensor:
        return self.buffer.keys_values[:, :, :, : self.length]  # (2, B, H, S, D/H)

    def append(self, new: Tensor) -> "LayerCache":
        """new: keys and values (2, B, H, T, D/H) of the next T positions."""
        length = self.length + new.shape[3]
        if torch.is_grad_enabled():
            return LayerCache.of(torch.cat((self.keys_values, new), dim=3))
        buffer = self.buffer
        if (
            length > buffer.keys_values.shape[3] or buffer.used != self.length
        ):  # full, or another cache grew in it
            buffer = _allocate(self.keys_values, rows=new.shape[1], capacity=2 * length)
            buffer.keys_values[:, :, :, : self.length] = self.keys_values
        buffer.keys_values[:, :, :, self.length : length] = new
        buffer.used = length
        return LayerCache(buffer, length)

    def select(self, rows: Tensor) -> "LayerCache":
        """Keep and repeat rows: rows (B',)."""
        if torch.is_grad_enabled():
            return LayerCache.of(self.keys_values.index_select(1, rows))
        buffer = _allocate(self.keys_values, rows=rows.shape[0], capacity=self.buffer.keys_values.shape[3])
        buffer.used = self.length
        torch.index_select(self.keys_values, 1, rows, out=buffer.keys_values[:, :, :, : self.length])
        return LayerCache(buffer, self.length)

    @staticmethod
    def of(keys_values: Tensor) -> "LayerCache":
        """The cache of the first positions: keys and values (2, B, H, S, D/H), not copied."""
        length = keys_values.shape[3]
        return LayerCache(_Buffer(keys_values, used=length), length)


def _allocate(like: Tensor, rows: int, capacity: int) -> _Buffer:
    two, _, heads, _, head_dim = like.shape
    return _Buffer(like.new_empty((two, rows, heads, capacity, head_dim)), used=0)


@dataclass(frozen=True)
class KVCache:
    """What GPT-2 remembers of the positions so far, one LayerCache a layer."""

    layers: tuple[LayerCache, ...]

    @property
    def length(self) -> int:
        return self.layers[0].length

    def select(self, rows: Tensor) -> "KVCache":
        """Keep and repeat rows: row i of the new cache is row rows[i] of this one; rows (B',)."""
        return KVCache(tuple(layer.select(rows) for layer in self.layers))


class Attention(nn.Module):
    """Causal self-attention of T new positions to themselves and to the S positions in the cache."""

    def __init__(self, config: Gpt2Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.dropout = config.dropout
        self.c_attn = nn.Linear(config.width, 3 * config.width)
        self.c_proj = nn.Linear(config.width, config.width)

    def forward(
        self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        """hidden (B, T, D); mask (T, S + T), True where a position may look, None: plainly causal."""
        batch, length, width = hidden.shape
        heads = self.c_attn(hidden).view(batch, length, 3, self.num_heads, width // self.num_heads)
        heads = heads.permute(2, 0, 3, 1, 4)  # (3, B, H, T, D/H)
        queries, new = heads[0], heads[1:]  # (B, H, T, D/H), (2, B, H, T, D/H)
        cache = LayerCache.of(new) if cache is None else cache.append(new)
        keys, values = cache.keys_values  # (B, H, S + T, D/H) each
        with _quick_backward(queries):
            attended = F.scaled_dot_product_attention(
                queries,
                keys,
                values,
                attn_mask=mask,
                dropout_p=self.dropout if self.training else 0.0,
                is_causal=mask is None and length > 1,
            )  # (B, H, T, D/H)
        joined = attended.transpose(1, 2).reshape(batch, length, width)  # (B, T, D)
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
        self, hidden: Tensor, mask: Tensor | None, cache: LayerCache | None
    ) -> tuple[Tensor, LayerCache]:
        attended, cache = self.attn(self.ln_1(hidden), mask, cache)
        hidden = hidden + attended  # (B, T, D)
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
        self._initialise()

    def embed(self, token_ids: Tensor) -> Tensor:
        """token_ids (B, T) -> embeddings (B, T, D), without positions."""
        embeddings: Tensor = self.wte(token_ids)
        return embeddings

    def project(self, hidden: Tensor) -> Tensor:
        """hidden (..., D) -> logits (..., V)."""
        return F.linear(hidden, self.wte.weight)

    def forward(self, embeddings: Tensor, cache: KVCache | None = None) -> tuple[Tensor, KVCache]:
        """Read T more positions.

        embeddings: (B, T, D), without positions; cache: of the S positions before them, B rows.
        Returns: hidden states (B, T, D) after the last layer norm, the cache of S + T positions.
        Raises: ModelError where S + T is more than max_positions.
        """
        length = embeddings.shape[1]
        past = 0 if cache is None else cache.length
        if past + length > self.config.max_positions:
            raise ModelError(
                f"GPT-2 has {self.config.max_positions} positions for prefix and tokens together and "
                f"{past + length} are needed: use shorter captions or lower --max-new-tokens."
            )
        positions = self.wpe.weight[past : past + length]  # (T, D)
        hidden = F.dropout(embeddings + positions, self.config.dropout, self.training)  # (B, T, D)
        mask = None
        if past > 0 and length > 1:
            visible = torch.ones((length, past + length), dtype=torch.bool, device=hidden.device)
            mask = visible.tril(diagonal=past)  # (T, S + T)
        layers = []
        for index, block in enumerate(self.h):
            past_layer = None if cache is None else cache.layers[index]
            if self.checkpoint_activations and torch.is_grad_enabled():
                hidden, layer = checkpoint(block, hidden, mask, past_layer, use_reentrant=False)
            else:
                hidden, layer = block(hidden, mask, past_layer)
            layers.append(layer)
        return self.ln_f(hidden), KVCache(tuple(layers))

    def _initialise(self) -> None:
        """As GPT-2: weights N(0, 0.02), residual projections smaller by sqrt(2 * num_layers), biases 0."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() > 1:
                scale = math.sqrt(2 * self.config.num_layers) if name.endswith("c_proj.weight") else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)
