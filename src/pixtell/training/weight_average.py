"""An exponential moving average of a module's weights (EMA): smoother, usually better, weights to validate
and ship.

In: a module that is being trained. Out: its average, put in place for the length of a `with` block.
"""

from types import TracebackType

import torch
from torch import nn


class WeightAverage:
    """Averages trained parameters and floating-point buffers; `with average:` swaps them into the module and
    back. Frozen parameters stay out: they are their own average.

    The decay rises from 0.5 to `decay` over the first steps, min(decay, (1 + step) / (2 + step)), so that
    the average forgets the random initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.live = {
            name: value
            for name, value in module.state_dict(keep_vars=True).items()
            if value.is_floating_point() and (value.requires_grad or not isinstance(value, nn.Parameter))
        }
        self.mean = {name: value.detach().clone() for name, value in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights as they are after `step`."""
        decay = min(self.decay, (1 + step) / (2 + step))
        torch._foreach_lerp_(list(self.mean.values()), list(self.live.values()), 1 - decay)

    def __enter__(self) -> None:
        self._swap()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for name, value in self.live.items():
            kept = value.detach().clone()
            value.copy_(self.mean[name])
            self.mean[name].copy_(kept)
