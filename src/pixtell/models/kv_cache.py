"""What GPT-2 remembers of the positions it has read, so that no position is read twice.

In: keys and values of new positions. Out: those of all positions so far, and who may look at which. Values
all through: growing or branching leaves a cache as it was.

Sequences that have one beginning, such as the beams of an image, are branches of one row: the beginning is
there once, then come the positions of all branches, and each branch sees its own. To choose other branches
is to change what is seen, and copies no key. Letters: B rows, K branches of each (R = B * K sequences), S
positions of a row, T new ones of each sequence.
"""

import math
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from torch import Tensor

_ROOM = 32  # positions that a buffer has to spare when it is made: most captions need no second one


@dataclass
class _Buffer:
    """Memory that the caches of one sequence share while it grows."""

    keys_values: Tensor  # (2, B, H, C, D/H): room for C positions
    used: int  # positions written so far


@dataclass(frozen=True)
class LayerCache:
    """Keys and values of one layer at the S positions so far. A value: `append` leaves it as it was.

    Without gradients the buffer is written in place, so that a step copies one position; when it is full it
    doubles, and gets room for a caption of usual length at least. With gradients every append makes a new
    tensor, through which autograd can go back.
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
        is_full = length > buffer.keys_values.shape[3]
        if is_full or buffer.used != self.length:  # the second: another cache grew in it
            buffer = _allocate(self.keys_values, rows=new.shape[1], capacity=length + max(length, _ROOM))
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

    def take(self, rows: Tensor, positions: Tensor) -> "LayerCache":
        """Keep and repeat rows, and of each some positions alone: rows (B',), positions (B', T)."""
        taken = self.keys_values[:, rows[:, None], :, positions]  # (B', T, 2, H, D/H)
        return LayerCache.of(taken.permute(2, 0, 3, 1, 4))  # (2, B', H, T, D/H)

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
    """What GPT-2 remembers of R sequences of equal length, one LayerCache a layer.

    length: positions of each sequence. visible: (B, K, S), True where a position is of that branch; None:
    each row is one sequence, and S is the length.
    """

    layers: tuple[LayerCache, ...]
    length: int
    visible: Tensor | None = None

    @property
    def num_branches(self) -> int:
        return 1 if self.visible is None else self.visible.shape[1]  # K

    def mask(self, length: int) -> Tensor | None:
        """Where `length` new positions of each sequence may look, themselves included: (B or 1, K * T,
        S + K * T), None: everywhere."""
        if self.visible is None and length == 1:
            return None
        device = self.layers[0].keys_values.device
        seen = self.visible
        if seen is None:
            seen = torch.ones((1, 1, self.length), dtype=torch.bool, device=device)  # (1, 1, S)
        own = torch.eye(seen.shape[1], dtype=torch.bool, device=device)  # (K, K)
        own = own.repeat_interleave(length, 0).repeat_interleave(length, 1).tril()  # (K * T, K * T)
        seen = seen.repeat_interleave(length, 1)  # (B, K * T, S)
        return torch.cat((seen, own.expand(len(seen), -1, -1)), dim=2)  # (B, K * T, S + K * T)

    def select(self, rows: Tensor) -> "KVCache":
        """Keep and repeat sequences: i of the new cache is rows[i] of this one, in a row of its own;
        rows (R',). Where there are branches it waits for the device."""
        owners = rows // self.num_branches  # (R',)
        if self.visible is None:
            return replace(self, layers=tuple(layer.select(owners) for layer in self.layers))
        visible = self.visible.flatten(0, 1)[rows]  # (R', S)
        positions = visible.nonzero()[:, 1].view(-1, self.length)  # (R', positions of a sequence)
        # Never whole rows: those hold the positions of all branches, K times as many as are kept.
        return KVCache(tuple(layer.take(owners, positions) for layer in self.layers), self.length)

    def branch(self, rows: Tensor) -> "KVCache":
        """As `select`, but as many neighbours as come from one row, over and over, are branches of one row
        again. Needs the numbers in `rows` (R',): waits for the device."""
        owners = [row // self.num_branches for row in rows.tolist()]
        branches = math.gcd(*(len(list(same)) for _, same in groupby(owners)))  # K'
        if branches <= 1:
            return self.select(rows)
        owners = owners[::branches]  # of B' rows
        layers = self.layers
        if owners != list(range(layers[0].keys_values.shape[1])):
            index = rows[::branches] // self.num_branches  # (B',)
            layers = tuple(layer.select(index) for layer in layers)
        if self.visible is None:
            visible = rows.new_ones((len(owners), branches, self.length), dtype=torch.bool)  # (B', K', S)
        else:
            visible = self.visible.flatten(0, 1)[rows].view(len(owners), branches, -1)  # (B', K', S)
        return KVCache(layers, self.length, visible)
