"""LoRA: small adapters learn, the layers beside which they stand do not move.

In: a module with linear layers. Out: the same module with adapters, and, for what is saved, a copy without
them: their product added to the weights, so that whoever loads it needs neither this file nor peft.
Reference: Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, 2021; the adapters are peft's.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec

from torch import nn

from pixtell.errors import OptionError

CLIP_TARGETS = ("q_proj", "v_proj")  # where a CLIP gets adapters if nobody says otherwise
_SCALE = 2  # an adapter's product is multiplied with this


def check_peft(rank: int) -> None:
    """Raises: OptionError where there is no peft to make adapters of --lora-rank with."""
    if find_spec("peft") is None:
        raise OptionError(
            f"--lora-rank {rank} needs peft, which is not installed; pip install 'pixtell[lora]'."
        )


def parse_targets(text: str | None, usual: Collection[str]) -> list[str]:
    """What --lora-targets says; None: what is usual."""
    return list(usual) if text is None else [name.strip() for name in text.split(",")]


def add_adapters(
    modules: Mapping[str, nn.Module], *, rank: int, targets: Mapping[str, Collection[str]]
) -> None:
    """Give every layer whose name ends in one of `targets` an adapter; of a module nothing else learns then.

    modules: by the words for each, "language model" for example. targets: under the same words, last parts
    of names such as c_attn.
    Raises: OptionError, before anything is changed, for a target that no module has, or a module that has
    none of them.
    """
    from peft import LoraConfig, inject_adapter_in_model

    found = {
        word: {target for target in targets[word] if any(_names(name, target) for name in _linear(module))}
        for word, module in modules.items()
    }
    asked = {target for of_module in targets.values() for target in of_module}
    lacking = [word for word, names in found.items() if not names]
    if missing := asked - set().union(*found.values()) or (asked if lacking else set()):
        where = f" of the {' and '.join(lacking)}" if lacking else ""
        there = [f"{', '.join(_choices(module))} in the {word}" for word, module in modules.items()]
        raise OptionError(
            f"--lora-targets {','.join(sorted(missing))} names no layer{where}; there are "
            f"{' and '.join(there)}."
        )
    for word, module in modules.items():
        config = LoraConfig(r=rank, lora_alpha=_SCALE * rank, target_modules=sorted(found[word]))
        inject_adapter_in_model(config, module)


def without_adapters(module: nn.Module) -> nn.Module:
    """A copy in which the adapters are part of the weights; the module itself where it has none."""
    if not any(name.endswith("lora_A") for name, _ in module.named_modules()):
        return module
    from peft.tuners.lora import LoraLayer

    plain = copy.deepcopy(module)
    for name, layer in list(plain.named_modules()):
        if isinstance(layer, LoraLayer):
            layer.merge()
            parent, _, own = name.rpartition(".")
            setattr(plain.get_submodule(parent), own, layer.get_base_layer())
    return plain


def _linear(module: nn.Module) -> list[str]:
    return [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def _names(name: str, target: str) -> bool:
    return name == target or name.endswith("." + target)


def _choices(module: nn.Module) -> Sequence[str]:
    """What may be named: the last parts, once each."""
    return sorted({name.rpartition(".")[2] for name in _linear(module)}) or ["none"]
