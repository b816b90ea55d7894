"""Runs the roads and prints one table.

    python -m benchmarks [--tiny] [--roads reading,captioning] [--rounds 5] [--threads 2] [--output PAGE.md]

Equal output is checked first; a road whose sides differ is named and not timed. Rates are images a second, of
training captions a second; medians of A B A B ... rounds. Limits are measured in the same run. With --output
each group of roads is kept in PAGE.json when it is done, and the page made anew.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import captioning, encoding, folders, memory, metrics, reading, training
from benchmarks.comparing import HEADER, Road, aligned, measure
from benchmarks.machine import Machine, measure_machine
from benchmarks.page import Run, keep, page
from benchmarks.sizes import TINY, Models, Sizes

ROADS: dict[str, Callable[[Models, Machine], Iterator[Road]]] = {
    "reading": reading.roads,
    "encoding": encoding.roads,
    "captioning": captioning.roads,
    "folders": folders.roads,
    "training": training.roads,
    "scoring": metrics.roads,
}
MEMORY = "memory"
GROUPS = (*ROADS, MEMORY)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models: to try the suite out")
    parser.add_argument("--roads", default=",".join(GROUPS), help="some of %(default)s")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of A and B in turn")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path, help="write the table to this page")
    arguments = parser.parse_args()
    chosen = arguments.roads.split(",")
    if unknown := sorted({*chosen} - {*GROUPS}):
        parser.error(f"there is no road {unknown[0]}; choose from {', '.join(GROUPS)}")
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds} measures nothing; give 1 or more, 5 for a page")
    torch.set_num_threads(arguments.threads)
    machine = measure_machine(tiny=arguments.tiny)
    run = Run(machine.describe(), time.time(), arguments.rounds)
    sizes = TINY if arguments.tiny else Sizes()
    print(run.machine, flush=True)
    print(aligned(HEADER), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        models = Models(sizes, Path(directory))
        for group in GROUPS:
            if group not in chosen:
                continue
            started = time.perf_counter()
            lines = list(_shown(_lines(group, models, machine, arguments.rounds)))
            print(f"({group}: {time.perf_counter() - started:.0f} s)", flush=True)
            if arguments.output is not None:
                _write(arguments.output, run, group, lines, sizes)


def _lines(group: str, models: Models, machine: Machine, rounds: int) -> Iterator[list[str]]:
    """The cells of the lines of a group; memory has lines of one cell."""
    if group == MEMORY:
        yield from ([line] for line in memory.lines(models))
        return
    for road in ROADS[group](models, machine):
        for result in measure(road, rounds):
            yield result.cells


def _shown(lines: Iterator[list[str]]) -> Iterator[list[str]]:
    for line in lines:
        print(aligned(line) if len(line) > 1 else line[0], flush=True)
        yield line


def _write(output: Path, run: Run, group: str, lines: list[list[str]], sizes: Sizes) -> None:
    from pixtell.files import write_text

    store = output.with_suffix(".json")
    keep(store, run, group, lines)
    write_text(output, page(json.loads(store.read_text(encoding="utf-8")), GROUPS, sizes))


if __name__ == "__main__":
    main()
