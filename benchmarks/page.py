"""What the roads measured -> a JSON file -> docs/benchmarks.md.

The JSON keeps the lines of every group of roads, so that one group measured again takes the place of its old
lines alone, on the same machine; the page says how many runs its lines are from.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.comparing import HEADER
from benchmarks.sizes import Sizes

PAGE = """# How fast is it, against what and against the machine?

On {machine}. Measured {when}.

{table}

`make bench` measures all of it and writes this page; `python -m benchmarks --roads {some} --output
docs/benchmarks.md` measures one group of roads again.

How to read it:

- Weights are random, of the public sizes: speed does not depend on them. Peers have the same weights, the
  same images and the same number of new tokens, {sizes.new_tokens} a caption.
- Before any time is taken, outputs are compared: tokens have to be equal, losses to 0.001, pixels to 2.5
  grey levels, features to a cosine of 0.999, scores to 1e-6 (METEOR 1e-4). Of a whole folder nine captions
  in ten have to be equal, since the pixels of the two processors are not. int8 and bf16 are not compared
  here, on random weights: `python -m benchmarks.int8` compares int8's CIDEr-D with fp32's, of a trained
  model.
- Rates are images a second, in training captions a second: medians of {rounds} rounds, all sides of a road
  in turn.
- A rate does not change with the number of images once there are a few batches of them: {sizes.images}
  images are read and encoded, {sizes.folder_images} captioned as a folder. A peer that takes one at a time
  gets {sizes.slow_images} (without a cache: {fewest}).
- *share* is ours of what the machine could do at most, by the figure named last: matrix products at the
  best rate measured; all weights read from memory once a step; JPEGs decoded and nothing else. Norms,
  attention, choosing tokens and files are not in it. Above 100 %, a program read memory quicker than the
  measure of it.
"""


@dataclass(frozen=True)
class Run:
    """What holds for all roads of one run. started: in seconds, its identity."""

    machine: str
    started: float
    rounds: int


def keep(path: Path, run: Run, group: str, lines: Sequence[Sequence[str]]) -> None:
    """Put the lines of a group into the JSON file, in the place of its older ones. What another machine
    measured, or another number of rounds, goes."""
    from pixtell.files import write_text

    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    name = run.machine.partition(":")[0]
    if str(stored.get("machine")).partition(":")[0] != name or stored.get("rounds") != run.rounds:
        stored = {"groups": {}}
    stored |= {"machine": run.machine, "rounds": run.rounds}
    stored["groups"][group] = {"started": run.started, "lines": [list(line) for line in lines]}
    write_text(path, json.dumps(stored, indent=1) + "\n")


def page(stored: Mapping[str, Any], order: Sequence[str], sizes: Sizes) -> str:
    """The page of what `keep` kept; order: of the groups."""
    groups = {name: stored["groups"][name] for name in order if name in stored["groups"]}
    runs = len({group["started"] for group in groups.values()})
    rows = [HEADER, ["---"] * len(HEADER)]
    rows += [line for group in groups.values() for line in group["lines"] if len(line) > 1]
    notes = [line[0] for group in groups.values() for line in group["lines"] if len(line) == 1]
    text = PAGE.format(
        machine=stored["machine"],
        when="in one run" if runs == 1 else f"in {runs} runs",
        table="\n".join("| " + " | ".join(row) + " |" for row in rows),
        some=next(iter(groups), order[0]),
        rounds=stored["rounds"],
        sizes=sizes,
        fewest=sizes.slow_images // 4,
    )
    return text + ("\nMemory:\n\n" + "\n".join(f"- {note}" for note in notes) + "\n" if notes else "")
