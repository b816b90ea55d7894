"""A run on disk: `step-N/` directories, the one-line files `last` and `best`, `metrics.jsonl`.

In: the state of a training. Out: files that are whole at any moment, so that a killed run goes on from its
last checkpoint.
"""

import contextlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import nn

from pixtell.errors import CheckpointError, OptionError
from pixtell.files import atomic_directory, write_text
from pixtell.training.weight_average import WeightAverage


@dataclass
class TrainState:
    """Where a run is: updates done, and the best validation so far."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None
    validations_since_best: int = 0


class RunDirectory:
    """The checkpoints of one run; only the last and the best are kept."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def refuse_if_used(self) -> None:
        """Raises: OptionError where a run lies here already."""
        if (self.path / "last").exists():
            raise OptionError(
                f"{self.path} holds a run already; go on with --resume or name another --output."
            )

    def save(
        self,
        state: TrainState,
        save_model: Callable[[Path], None],
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> Path:
        """Write `step-N/` whole, then move `last` (and `best`) to it. The average is in place while this
        runs: `module` holds the averaged weights, `average.mean` the trained ones."""
        target = self.path / f"step-{state.step}"
        trained = module.state_dict() if average is None else {**module.state_dict(), **average.mean}
        averaged = None if average is None else {name: module.state_dict()[name] for name in average.mean}
        training = {
            "state": asdict(state),
            "module": trained,
            "average": averaged,
            "optimizer": optimizer.state_dict(),
        }
        with atomic_directory(target) as temporary:
            save_model(temporary)
            torch.save(training, temporary / "train_state.pt")
        write_text(self.path / "last", target.name + "\n")
        if state.best_step == state.step:
            write_text(self.path / "best", target.name + "\n")
        self._remove_others()
        return target

    def load_state(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
    ) -> TrainState:
        """Put the last checkpoint's training state in place.

        Raises: OptionError where there is no run; CheckpointError where its files are damaged or fit
        another model.
        """
        if not (self.path / "last").exists():
            raise OptionError(f"{self.path} holds no run to resume; leave --resume out to start one.")
        file = self.path / (self.path / "last").read_text(encoding="utf-8").strip() / "train_state.pt"
        try:
            training: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            module.load_state_dict(training["module"])
            optimizer.load_state_dict(training["optimizer"])
            if average is not None:
                for name, value in training["average"].items():
                    average.mean[name].copy_(value)
            return TrainState(**training["state"])
        except Exception as cause:  # zip, pickle, key and shape errors come in many types
            reason = str(cause).splitlines()[0]
            raise CheckpointError(
                f"{file} cannot be resumed ({reason}); use the options the run was started with, or "
                "start anew."
            ) from cause

    def _remove_others(self) -> None:
        kept = {
            (self.path / name).read_text(encoding="utf-8").strip()
            for name in ("last", "best")
            if (self.path / name).exists()
        }
        for old in self.path.glob("step-*"):
            if old.name not in kept and re.fullmatch(r"step-\d+", old.name):
                shutil.rmtree(old, ignore_errors=True)


class MetricsLog:
    """`metrics.jsonl`, one line a log event, and the same numbers for TensorBoard where it is installed.

    Opening it drops lines past `step`: what a killed run logged after its last checkpoint will be logged
    again.
    """

    def __init__(self, run: Path, step: int) -> None:
        self.path = run / "metrics.jsonl"
        run.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.stream: TextIO = self.path.open("a", encoding="utf-8")
        self.board = _open_tensorboard(run, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()
        if self.board is not None:
            self.board.close()

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        """Append one line; it is on disk when this returns."""
        self.stream.write(json.dumps({"step": step, **numbers}) + "\n")
        self.stream.flush()
        if self.board is not None:
            for name, value in numbers.items():
                self.board.add_scalar(name, value, step)


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl; a last line torn by a kill is left out."""
    path = run / "metrics.jsonl"
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def _open_tensorboard(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra `track` is not installed
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
