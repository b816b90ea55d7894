"""Absolute rates on a GPU, against what the device can do: captioning and training at the public shapes.

    python -m benchmarks.gpu [--device cpu --tiny] [--max-seconds 75] [--output FILE]

Nothing is downloaded. Prints a Markdown table as it goes; FILE gets the same as JSON, rewritten after every
road. A road is not begun once the seconds are over. Limits are measured in the same run: one product of
8192 x 8192 matrices, one copy, and the road itself at batch 1, whose time is mostly that of starting kernels.
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes seconds to import, and they count
    from benchmarks.gpu_roads import Bench, Row

HEADER = (
    "road",
    "/s",
    "ms",
    "ms a step",
    "TFLOP/s",
    "of bf16",
    "products ms",
    "memory ms",
    "launches ms",
    "nearest",
    "of it",
    "GB",
)


def main() -> int:
    started = time.monotonic()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--device", default="auto", help="as --device of pixtell")
    parser.add_argument("--tiny", action="store_true", help="tiny models: to try the program out")
    parser.add_argument("--max-seconds", type=float, default=75, help="no road begins after these")
    parser.add_argument("--output", type=Path, help="write the numbers to this file, as JSON")
    arguments = parser.parse_args()

    from benchmarks.gpu_roads import TINY, Bench, Scale
    from pixtell.devices import choose_placement
    from pixtell.errors import PixtellError

    try:
        device = choose_placement(arguments.device).device
    except PixtellError as problem:
        parser.error(str(problem))
    bench = Bench(TINY if arguments.tiny else Scale(), device)
    report = describe(bench)
    print(
        f"{report['device']}, torch {report['torch']}: {report['bf16_tflops']:.3g} TFLOP/s in bf16, "
        f"{report['fp32_tflops']:.3g} in fp32, {report['copy_gb_per_s']:.4g} GB/s copied\n"
    )
    print(_line(HEADER))
    print(_line(["---"] * len(HEADER)), flush=True)
    for _ in run(bench, started + arguments.max_seconds, report):
        report["seconds"] = time.monotonic() - started
        if arguments.output is not None:
            from pixtell.files import write_json

            write_json(arguments.output, report)
    print(f"\n{time.monotonic() - started:.0f} s in all; {len(report['skipped'])} roads left out.")
    return 1 if report["problems"] else 0


def describe(bench: "Bench") -> dict[str, Any]:
    """The report before any road."""
    import torch
    import transformers

    limits = bench.limits
    return {
        "device": limits.device,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "bf16_tflops": limits.bf16_flops / 1e12,
        "fp32_tflops": limits.fp32_flops / 1e12,
        "copy_gb_per_s": limits.bandwidth / 1e9,
        "rows": [],
        "skipped": [],
        "problems": [],
    }


def run(bench: "Bench", deadline: float, report: dict[str, Any]) -> Iterator[None]:
    """Measure every road that there is time for, print it and add it to the report; yields after each.

    A road that fails, on a device with too little memory say, is named and the others go on.
    """
    from benchmarks.gpu_roads import roads

    for road in roads(bench.scale):
        if time.monotonic() > deadline:
            report["skipped"].append(road.name)
        else:
            try:
                row = bench.measure(road)
            except RuntimeError as problem:  # torch's own, out of memory among them
                report["problems"].append(f"{road.name}: {problem}")
                print(f"{road.name} failed: {problem}", file=sys.stderr, flush=True)
            else:
                report["rows"].append(as_json(row))
                print(_line(cells(row)), flush=True)
        yield


def as_json(row: "Row") -> dict[str, Any]:
    road = row.road
    return {
        "road": road.name,
        "models": road.pair.name,
        "dtype": road.dtype,
        "stage": road.stage,
        "batch": road.batch,
        "beam_size": road.beam_size,
        "per_second": row.units / row.seconds,
        "seconds": row.seconds,
        "flops": row.work.flops,
        "bytes": row.work.bytes,
        "tflops": row.work.flops / row.seconds / 1e12,
        "share_of_bf16": row.share_of_bf16,
        "products_seconds": row.products,
        "memory_seconds": row.memory,
        "launches_seconds": row.launches,
        "nearer_limit": row.nearer_limit,
        "share_of_limit": row.share_of_limit,
        "peak_bytes": row.peak_bytes,
    }


def cells(row: "Row") -> list[str]:
    """The line of the table, as HEADER has it."""
    return [
        row.road.name,
        f"{row.units / row.seconds:,.0f}",
        f"{1000 * row.seconds:.1f}",
        f"{1000 * row.seconds / row.steps:.2f}" if row.steps else "",
        f"{row.work.flops / row.seconds / 1e12:.3g}",
        f"{row.share_of_bf16:.1%}",
        f"{1000 * row.products:.2f}",
        f"{1000 * row.memory:.2f}",
        f"{1000 * row.launches:.2f}",
        row.nearer_limit,
        f"{row.share_of_limit:.0%}",
        f"{row.peak_bytes / 1e9:.1f}" if row.peak_bytes else "",
    ]


def _line(cells: "list[str] | tuple[str, ...]") -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
