"""Where and in what precision to compute: the only place that probes the machine.

In: what the user asked for. Out: a device, a dtype and the reason in words, chosen once at the door.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pixtell.errors import OptionError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """A device, the dtype of the arithmetic, and why these (for the log)."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_placement(device: str = "auto", dtype: str = "auto", *, training: bool = False) -> Placement:
    """Turn "auto|cpu|cuda|mps" and "auto|fp32|bf16|fp16" into a placement.

    "auto" takes CUDA, then MPS, then the CPU. The automatic dtype is fp32 where captions are made, so that
    they are the same everywhere; in training it is bf16 on CUDA and on CPUs with avx512_bf16, where
    convolutions run two to three times as fast.

    Raises: OptionError for a name that is not one of these, a device this machine lacks, fp16 on a CPU.
    """
    chosen = _choose_device(device)
    if dtype == "auto":
        if training and _has_fast_bf16(chosen):
            return Placement(
                chosen, torch.bfloat16, f"{chosen.type}, bf16: this {chosen.type} computes it natively"
            )
        return Placement(chosen, torch.float32, f"{chosen.type}, fp32")
    if dtype == "int8":
        raise OptionError(
            "--dtype int8 is for exported models: run pixtell models export MODEL --format onnx --dtype int8 "
            "--output DIR, then name DIR."
        )
    if dtype not in DTYPES:
        raise OptionError(f"--dtype {dtype!r} is unknown; choose one of auto, {', '.join(DTYPES)}.")
    if dtype == "fp16" and chosen.type == "cpu":
        raise OptionError("--dtype fp16 is not for a CPU; choose fp32 or bf16 there.")
    return Placement(chosen, DTYPES[dtype], f"{chosen.type}, {dtype}: as asked")


def choose_exported_placement(device: str = "auto", dtype: str = "auto", *, exported: str) -> Placement:
    """The placement of a model that was exported to ONNX as `exported`, fp32 or int8: it has no choice.

    Raises: OptionError where another device or dtype is asked for.
    """
    if device not in ("auto", "cpu"):
        raise OptionError(
            f"--device {device} is not for a model exported to ONNX, which runs on the CPU; leave it out, or "
            "name the model it was exported from."
        )
    if dtype not in ("auto", exported):
        raise OptionError(
            f"--dtype {dtype} is not for this model, which was exported as {exported}; leave it out, or name "
            "the model it was exported from."
        )
    return Placement(torch.device("cpu"), torch.float32, f"cpu, ONNX Runtime, {exported}")


def prepare_training(placement: Placement) -> None:
    """On CUDA, for this process: convolutions try their kernels and keep the quickest, and what stays in fp32
    beside bf16 multiplies in TF32. For jobs that train, once, before they begin."""
    if placement.device.type == "cuda":
        torch.backends.cudnn.benchmark = True
        if placement.dtype != torch.float32:
            torch.set_float32_matmul_precision("high")


def use_one_thread() -> None:
    """Compute on one thread from now on, in this process: for a single picture, where starting a second one
    costs more than it brings, and seconds on a busy machine. For doors only."""
    torch.set_num_threads(1)


def _choose_device(device: str) -> torch.device:
    present: dict[str, Callable[[], bool]] = {
        "cuda": torch.cuda.is_available,
        "mps": torch.backends.mps.is_available,
        "cpu": lambda: True,
    }
    if device == "auto":
        return torch.device(next(name for name, is_present in present.items() if is_present()))
    name = device.split(":")[0]
    if name not in present:
        raise OptionError(f"--device {device!r} is unknown; choose one of auto, cpu, cuda, mps.")
    if not present[name]():
        raise OptionError(f"--device {device} is not on this machine; leave it out or choose --device cpu.")
    try:
        chosen = torch.device(device)
    except RuntimeError as cause:
        raise OptionError(f"--device {device!r} is not a device; write for example {name}:0.") from cause
    count = torch.cuda.device_count() if name == "cuda" else 1
    if (chosen.index or 0) >= count:
        raise OptionError(
            f"--device {device} is not on this machine, which has {count}; count from {name}:0."
        )
    return chosen


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if device.type != "cpu":
        return False
    try:
        return "avx512_bf16" in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:  # no Linux: the slower, exact road
        return False
