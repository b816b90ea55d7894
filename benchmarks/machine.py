"""What this machine is, and the most it can do: the limits that the roads are held against."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

# The figures of a machine, as the table names what limits a road.
PRODUCTS, INT8_PRODUCTS, BF16_PRODUCTS = "fp32 products", "int8 products", "bf16 products"
BANDWIDTH = "weights read once a step"


@dataclass(frozen=True)
class Machine:
    """name: of the processor. flops, int8_ops, bf16_flops: operations a second in matrix products; bf16: None
    where the processor has no instruction for them. bandwidth: bytes a second that are read from memory. All
    measured, on `threads` threads."""

    name: str
    threads: int
    flops: float
    int8_ops: float
    bf16_flops: float | None
    bandwidth: float

    def describe(self) -> str:
        bf16 = "" if self.bf16_flops is None else f", {self.bf16_flops / 1e9:.0f} in bf16"
        return (
            f"{self.name}, {self.threads} threads of {os.cpu_count()}: {self.flops / 1e9:.0f} GFLOP/s in "
            f"fp32 matrix products{bf16}, {self.int8_ops / 1e9:.0f} Gop/s in int8, "
            f"{self.bandwidth / 1e9:.1f} GB/s read"
        )


def measure_machine(*, tiny: bool) -> Machine:
    """Takes a few seconds. tiny: smaller products, for trying the suite out."""
    from pixtell.devices import choose_placement

    size = 256 if tiny else 2048
    left, right = torch.randn(size, size), torch.randn(size, size)
    halves = left.bfloat16(), right.bfloat16()
    has_bf16 = choose_placement("cpu", "auto", training=True).dtype == torch.bfloat16
    vector = torch.randn(2 * size)
    table = torch.randn(8 * size, 2 * size)  # 268 MB: larger than any cache
    return Machine(
        # Part of the name: numbers of tiny models never stand beside others.
        name=_processor_name() + (", tiny models" if tiny else ""),
        threads=torch.get_num_threads(),
        flops=2 * size**3 / _best(lambda: left @ right),
        int8_ops=_int8_ops(size),
        bf16_flops=2 * size**3 / _best(lambda: halves[0] @ halves[1]) if has_bf16 else None,
        bandwidth=table.nbytes / _best(lambda: table @ vector),
    )


def _int8_ops(size: int) -> float:
    """Through the kernel that exported models run on: rows quantised as they come, weights before."""
    import numpy as np
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = random.integers(-64, 64, (size, size), dtype=np.int8)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["rows"], ["quantised", "scale", "zero"]),
        helper.make_node("MatMulInteger", ["quantised", "weights", "zero"], ["products"]),
    ]
    graph = helper.make_graph(
        nodes,
        "product",
        [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [size, size])],
        [helper.make_tensor_value_info("products", TensorProto.INT32, [size, size])],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    rows = {"rows": random.standard_normal((size, size), dtype=np.float32)}
    return 2 * size**3 / _best(lambda: session.run(None, rows))


def _best(work: Callable[[], object], times: int = 7) -> float:
    """Seconds of the quickest of several runs: a limit is what the machine does undisturbed."""
    work()
    found = []
    for _ in range(times):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return min(found)


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "an unnamed processor"
