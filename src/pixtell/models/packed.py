"""Linear layers whose weights lie in memory as oneDNN multiplies them: for decoding on a CPU in fp32.

A step of decoding has few rows and reads every weight once. `nn.Linear` lays each weight out anew at every
call, which takes up to as long as the product itself; a `PackedLinear` did it once. It is not for training.

The two functions are those that torch's own compiler calls, and are not public: where a torch or a machine
lacks them, layers stay as they are.
"""

import platform
from collections.abc import Callable
from typing import Any, NoReturn, Self

import torch
from torch import Tensor, nn

from pixtell.errors import ModelError

# Their fast path reads the weights of the layers below them.
_READS_WEIGHTS = (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)


class PackedLinear(nn.Module):
    """hidden (..., W) -> (..., W'): what the `nn.Linear` it is made of gives, up to rounding, without
    gradients. It can be copied and pickled; a move or a place in a checkpoint raises ModelError."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """weight (W', W), bias (W',), both copied, fp32 on the CPU: `can_pack`."""
        super().__init__()
        # No buffers: what is packed has no strides, and most of what torch does to buffers fails on it.
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
        self._bias = None if bias is None else bias.detach().clone()

    def forward(self, hidden: Tensor) -> Tensor:
        """Raises: ModelError where a gradient should pass."""
        if torch.is_grad_enabled() and hidden.requires_grad:
            _refuse("passes no gradients")
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            hidden.float(), self._weight, self._bias, "none", [], ""
        )  # (..., W')
        return product

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_weight": self._weight.to_dense()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        weight = torch.ops.mkldnn._reorder_linear_weight(state["_weight"])
        super().__setstate__({**state, "_weight": weight})  # type: ignore[no-untyped-call]

    def _save_to_state_dict(self, *_: Any) -> NoReturn:
        _refuse("cannot be saved")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        _refuse("cannot be moved")


def can_pack(weight: Tensor) -> bool:
    """Whether this torch, on this machine, multiplies packed weights like these."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.float32
        and platform.machine().lower() in ("x86_64", "amd64")
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def pack_linears(module: nn.Module) -> None:
    """Put a PackedLinear in the place of every nn.Linear below `module` whose weights can be packed."""
    for name, child in list(module.named_children()):
        # Subclasses stay: their owners read their weights, as torch's attention does.
        if type(child) is nn.Linear:
            if can_pack(child.weight):
                setattr(module, name, PackedLinear(child.weight, child.bias))
        elif not isinstance(child, _READS_WEIGHTS):
            pack_linears(child)


def _refuse(what: str) -> NoReturn:
    raise ModelError(
        f"This model was packed for decoding and {what}: load it anew, with load_checkpoint, for that."
    )
