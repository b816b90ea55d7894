"""How rate and memory go with batch size, beams, caption length, number of images and threads: tables.

    python -m benchmarks.curves [--model nano] [--tiny] [--curves batch_size,beam_size] [--output PAGE.md]

Each point is a process of its own that captions JPEG files and reports images a second, without start-up, and
its peak memory (Linux only). What is not on the axis is batch 16, 1 beam, 20 tokens, two threads. Captions
have the full number of tokens. `images` captions the same pictures again and again: memory must stay flat.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import torch

from benchmarks.machine import measure_machine
from benchmarks.sizes import Models, Sizes


@dataclass(frozen=True)
class Point:
    """What one process does. workers: threads that read pictures; None: as many as cores."""

    images: int = 256
    batch_size: int = 16
    beam_size: int = 1
    new_tokens: int = 20
    threads: int = 2
    workers: int | None = None


CURVES: dict[str, list[int]] = {
    "batch_size": [1, 2, 4, 8, 16, 32, 64],
    "beam_size": [1, 2, 3, 5, 8],
    "new_tokens": [5, 10, 20, 40],
    "threads": [1, 2],
    "workers": [1, 2, 4, 8],
    "images": [100, 1000, 10_000, 50_000],
}
HEADER = "| {name} | images /s | peak memory, GB |\n| --- | --- | --- |"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="nano", help="as --model of pixtell")
    parser.add_argument("--tiny", action="store_true", help="two points a curve, 16 images")
    parser.add_argument("--curves", default=",".join(CURVES), help="which, with commas")
    parser.add_argument("--output", type=Path, help="write the tables to this page")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        point, pictures = map(json.loads, arguments.child)
        print(json.dumps(caption(arguments.model, Point(**point), pictures)))
        return
    with tempfile.TemporaryDirectory() as directory:
        sizes = Sizes(images=8 if arguments.tiny else 64)
        pictures = [str(path) for path in Models(sizes, Path(directory)).pictures]
        lines = list(run_curves(arguments.model, arguments.curves.split(","), pictures, arguments.tiny))
    if arguments.output is not None:
        from pixtell.files import write_text

        machine = measure_machine(tiny=arguments.tiny)
        title = (
            f"# How do rate and memory go with sizes?\n\nModel {arguments.model}, on {machine.describe()}.\n"
        )
        write_text(arguments.output, "\n".join([title, *lines]) + "\n")


def run_curves(model: str, names: list[str], pictures: list[str], tiny: bool) -> Iterator[str]:
    """The lines of the tables, printed as they come."""
    usual = Point(images=16) if tiny else Point()
    for name in names:
        values = CURVES[name]
        if tiny:
            values = [8, 16] if name == "images" else values[:2]
        yield _shown(f"\n{HEADER.format(name=name)}")
        for value in values:
            command = [sys.executable, "-m", "benchmarks.curves", "--model", model, "--child"]
            point = json.dumps(asdict(replace(usual, **{name: value})))
            done = subprocess.run(
                [*command, point, json.dumps(pictures)], check=True, stdout=subprocess.PIPE, text=True
            )
            rate, peak = json.loads(done.stdout.splitlines()[-1])
            yield _shown(f"| {value:,} | {rate:.3g} | {peak:.2f} |")


def caption(model: str, point: Point, pictures: list[str]) -> tuple[float, float]:
    """Images a second and the peak in GB of this process."""
    from pixtell import Captioner
    from pixtell.images import load_images

    torch.set_num_threads(point.threads)
    captioner = Captioner.from_pretrained(model, device="cpu")
    options = captioner.options(
        beam_size=point.beam_size, max_new_tokens=point.new_tokens, min_length=point.new_tokens
    )
    sources = islice(cycle(pictures), point.images)
    started = time.perf_counter()
    if point.workers is None:
        done = sum(1 for _ in captioner.stream(sources, options=options, batch_size=point.batch_size))
    else:  # reading alone: it must never be what the rest waits for
        loaded = load_images(sources, captioner.encoder.preprocess, threads=point.workers)
        done = sum(1 for _ in loaded)
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    [kib] = [line.split()[1] for line in status if line.startswith("VmHWM:")]
    return done / seconds, int(kib) * 1024 / 1e9


def _shown(line: str) -> str:
    print(line, flush=True)
    return line


if __name__ == "__main__":
    main()
