"""How rate and memory go with batch size, beams, caption length, threads and number of images.

    python -m benchmarks.curves [--tiny] [--curves batch_size,images] [--output docs/scaling.md]

Each point is a process of its own that captions JPEG files and reports images a second, without start-up, and
its peak memory (Linux only). What is not on the axis is batch 16, 1 beam, 20 tokens, all cores; captions have
the full number of tokens. `workers` reads and resizes pictures, no more. `images` is one process that
captions 50,000 small files, hard links to a few, in 5 tokens each, and says how it stands on the way.

Models: `nano`, and CLIP ViT-B/32 with GPT-2 small, weights random. With --output the numbers are kept in a
JSON file beside the page, curve by curve, and page and drawings are made of it; --redraw does only that.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from benchmarks.curves_page import write_page
from benchmarks.machine import measure_machine
from benchmarks.memory import peak_gb
from benchmarks.sizes import TINY, Models, Sizes, write_pictures

CORES = os.cpu_count() or 1
PUBLIC = "CLIP ViT-B/32 + GPT-2 small"


@dataclass(frozen=True)
class Point:
    """What one process does. workers: threads that read pictures, and nothing else is done; None: captions.
    milestones: numbers of images after which it reports; the last one is its end."""

    milestones: tuple[int, ...] = (256,)
    batch_size: int = 16
    beam_size: int = 1
    new_tokens: int = 20
    threads: int = CORES
    workers: int | None = None


@dataclass(frozen=True)
class Curve:
    """axis: a field of Point, or `images`. usual: what all of its points share."""

    name: str
    axis: str
    values: tuple[int, ...]
    model: str = "nano"
    usual: Point = Point()


# fmt: off
_FEW = Point(milestones=(32,))
_READING = Point(milestones=(1024,))
_SHORT = Point(new_tokens=5)
CURVES = (
    Curve("batch_size", "batch_size", (1, 2, 4, 8, 16, 32, 64)),
    Curve("batch_size_public", "batch_size", (1, 4, 16, 32), PUBLIC, _FEW),
    Curve("beam_size", "beam_size", (1, 2, 3, 5, 8)),
    Curve("beam_size_public", "beam_size", (1, 3, 5), PUBLIC, _FEW),
    Curve("new_tokens", "new_tokens", (5, 10, 20, 40)),
    Curve("threads", "threads", tuple(sorted({1, 2, CORES}))),
    Curve("workers", "workers", (1, 2, 4, 8), usual=_READING),
    Curve("images", "images", (128, 1024, 8192, 20_000, 50_000), usual=_SHORT),
)
# fmt: on


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.curves",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = ",".join(curve.name for curve in CURVES)
    parser.add_argument("--curves", default=names, help="some of %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny models, two points a curve, few images")
    parser.add_argument("--output", type=Path, help="page; its JSON lies beside it, drawings in images/")
    parser.add_argument("--redraw", action="store_true", help="measure nothing, make the page of its JSON")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        model, point, pictures = arguments.child
        for reached in caption(model, Point(**json.loads(point)), Path(pictures)):
            print(json.dumps(reached), flush=True)
        return
    chosen = arguments.curves.split(",")
    if unknown := sorted({*chosen} - {*names.split(",")}):
        parser.error(f"there is no curve {unknown[0]}; choose from {names}")
    if not arguments.redraw:
        run(arguments.output, [curve for curve in CURVES if curve.name in chosen], arguments.tiny)
    elif arguments.output is None:
        parser.error("--redraw makes a page again; name it with --output")
    else:
        write_page(arguments.output)


def run(output: Path | None, curves: Sequence[Curve], tiny: bool) -> None:
    """Measure, print, and after each curve keep its numbers and make the page anew."""
    torch.set_num_threads(CORES)
    machine = measure_machine(tiny=tiny).describe()
    print(machine, flush=True)
    with tempfile.TemporaryDirectory() as name:
        models = Models(TINY if tiny else Sizes(images=64), Path(name))
        for curve in curves:
            points = list(measured(smaller(curve) if tiny else curve, models))
            if output is not None:
                keep(output.with_suffix(".json"), machine, curve, points)
                write_page(output)


def smaller(curve: Curve) -> Curve:
    """Two points of a few images each."""
    values = (16, 32) if curve.axis == "images" else curve.values[:2]
    return replace(curve, values=values, usual=replace(curve.usual, milestones=(8,)))


def measured(curve: Curve, models: Models) -> Iterator[dict[str, float]]:
    """The points of a curve, printed as they come."""
    print(f"\n{curve.name} ({curve.model})\n  value  images /s  peak memory, GB", flush=True)
    model = str(models.checkpoint) if curve.model == PUBLIC else curve.model
    if curve.axis == "images":
        runs = [replace(curve.usual, milestones=curve.values)]
        pictures = small_pictures(models.directory / "small", max(curve.values))
    else:
        runs = [replace(curve.usual, **{curve.axis: value}) for value in curve.values]
        pictures = models.pictures[0].parent
    reports = (report for point in runs for report in reports_of(model, point, pictures))
    for value, (rate, peak) in zip(curve.values, reports, strict=True):
        print(f"{value:7,}  {rate:9.3g}  {peak:15.3f}", flush=True)
        yield {"value": value, "rate": rate, "peak_gb": peak}


def reports_of(model: str, point: Point, pictures: Path) -> Iterator[tuple[float, float]]:
    """What a process of its own says at each of its milestones."""
    command = [sys.executable, "-m", "benchmarks.curves", "--child", model]
    command += [json.dumps(asdict(point)), str(pictures)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            rate, peak = json.loads(line)
            yield rate, peak
    if process.returncode:
        raise SystemExit(f"captioning {pictures} ended with {process.returncode}: {' '.join(command)}")


def caption(model: str, point: Point, pictures: Path) -> Iterator[tuple[float, float]]:
    """Images a second since the milestone before, and the peak in GB of this process."""
    from pixtell import Captioner
    from pixtell.images import load_images

    torch.set_num_threads(point.threads)
    captioner = Captioner.from_pretrained(model, device="cpu")
    options = captioner.options(
        beam_size=point.beam_size, max_new_tokens=point.new_tokens, min_length=point.new_tokens
    )
    last = max(point.milestones)
    paths = sorted(pictures.rglob("*.jpg"))
    sources = islice(cycle(paths), last)
    results: Iterator[Any]
    if point.workers is None:
        first = paths[: point.batch_size]
        list(captioner.stream(first, options=options, batch_size=point.batch_size))  # the first is slower
        results = captioner.stream(sources, options=options, batch_size=point.batch_size)
    else:
        results = load_images(sources, captioner.encoder.preprocess, threads=point.workers)
    before, started = 0, time.perf_counter()
    for done, _ in enumerate(results, start=1):
        if done in point.milestones:
            now = time.perf_counter()
            yield (done - before) / (now - started), peak_gb()
            before, started = done, now


def small_pictures(folder: Path, count: int) -> Path:
    """`count` files of 160 x 120, hard links to 100 different ones, in folders of 1,000."""
    originals = write_pictures(folder / "originals", 100, size=(160, 120))
    for number in range(count):
        place = folder / "links" / f"{number // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % len(originals)], place / f"{number:06}.jpg")
    return folder / "links"


def keep(path: Path, machine: str, curve: Curve, points: Sequence[dict[str, float]]) -> None:
    """Put a curve into the JSON file, in the place of an older one. What another machine measured goes."""
    from pixtell.files import write_text

    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if str(stored.get("machine")).partition(":")[0] != machine.partition(":")[0]:
        stored = {"curves": {}}
    stored["machine"] = machine
    stored["curves"][curve.name] = {"axis": curve.axis, "model": curve.model, "points": list(points)}
    write_text(path, json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
