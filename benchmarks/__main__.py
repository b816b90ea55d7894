"""Runs the roads and prints one table.

    python -m benchmarks [--tiny] [--roads reading,captioning] [--rounds 5] [--threads 2] [--output PAGE.md]

Equal output is checked first; a road whose sides differ is named and not timed. Rates are images a second, of
training captions a second; medians of A B A B ... rounds. Limits are measured in the same run.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks import captioning, encoding, folders, memory, reading, training
from benchmarks.comparing import HEADER, Comparison, measure
from benchmarks.machine import Machine, measure_machine
from benchmarks.sizes import TINY, Models, Sizes

ROADS: dict[str, Callable[[Models, Machine], Iterator[Comparison]]] = {
    "reading": reading.roads,
    "encoding": encoding.roads,
    "captioning": captioning.roads,
    "folders": folders.roads,
    "training": training.roads,
}
MEMORY = "memory"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="tiny models: to try the suite out")
    parser.add_argument("--roads", help=f"some of {','.join((*ROADS, MEMORY))}; not given: all")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of A and B in turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, help="write the table to this page")
    arguments = parser.parse_args()
    chosen = (arguments.roads or ",".join((*ROADS, MEMORY))).split(",")
    if unknown := sorted({*chosen} - {*ROADS, MEMORY}):
        parser.error(f"there is no road {unknown[0]}; choose from {', '.join((*ROADS, MEMORY))}")
    torch.set_num_threads(arguments.threads)
    machine = measure_machine(tiny=arguments.tiny)
    print(machine.describe(), flush=True)
    with tempfile.TemporaryDirectory() as directory:
        models = Models(TINY if arguments.tiny else Sizes(), Path(directory))
        rows = list(_run(models, machine, chosen, arguments.rounds))
        notes = list(_print_all(memory.lines(models))) if MEMORY in chosen else []
    if arguments.output is not None:
        _write_page(arguments.output, machine, rows, notes, arguments.rounds)


def _run(models: Models, machine: Machine, chosen: list[str], rounds: int) -> Iterator[list[str]]:
    print(_aligned(HEADER), flush=True)
    for name, roads in ROADS.items():
        if name in chosen:
            for comparison in roads(models, machine):
                cells = measure(comparison, rounds).cells
                print(_aligned(cells), flush=True)
                yield cells


def _print_all(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        print(line, flush=True)
        yield line


def _aligned(cells: list[str]) -> str:
    road, peer, *numbers = cells
    return f"{road:60} {peer:42} " + " ".join(f"{number:>8}" for number in numbers)


def _write_page(path: Path, machine: Machine, rows: list[list[str]], notes: list[str], rounds: int) -> None:
    from pixtell.files import write_text

    table = ["| " + " | ".join(row) + " |" for row in (HEADER, ["---"] * len(HEADER), *rows)]
    page = f"""# How fast is it, against what and against the machine?

`make bench` wrote this page. On {machine.describe()}.

Weights are random, of the public sizes; equal output is checked first. Rates are images a second, in training
captions a second; medians of {rounds} rounds in turn. The limit is what the machine could do: products at its
best rate, weights read from memory once a step, or, for reading, JPEGs decoded and nothing else.

{chr(10).join(table)}
"""
    if notes:
        page += "\n" + "\n".join(f"- {note}" for note in notes) + "\n"
    write_text(path, page)


if __name__ == "__main__":
    main()
