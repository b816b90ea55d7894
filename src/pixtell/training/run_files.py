"""A run on disk: `step-N/` directories, the one-line files `last` and `best`, `options.json`,
`metrics.jsonl`.

In: the state of a training. Out: files that are whole at any moment, so that a killed run goes on from its
last checkpoint.
"""

import contextlib
import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pixtell.errors import CheckpointError, OptionError, StorageError
from pixtell.files import atomic_directory, read_json, write_json, write_text
from pixtell.options import flag_name
from pixtell.reports import read_metrics
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

    @property
    def last(self) -> Path | None:
        """The last checkpoint, or None before the first."""
        pointer = self.path / "last"
        return self.path / pointer.read_text(encoding="utf-8").strip() if pointer.exists() else None

    @contextlib.contextmanager
    def begin(
        self, options: Mapping[str, Any], *, resume: bool, first_phase: "RunDirectory | None" = None
    ) -> Iterator[None]:
        """Before the long work: see that a run can start, or go on, here, and note its options. What is
        refused inside, before the first checkpoint, takes the note along: no run lies here then.

        options: field name -> JSON value, of the flags that must stay as they are for as long as the run
        lasts. first_phase: a run that comes before this one; where that has begun, so has this.
        Raises: OptionError as `refuse_if_used` and `refuse_if_new`, and where a resumed run began with other
        options; StorageError where nothing can be written here.
        """
        note = self.path / "options.json"
        if not resume:
            self.refuse_if_used()
            if first_phase is not None:
                first_phase.refuse_if_used()
        else:
            if first_phase is None or first_phase.last is None:
                self.refuse_if_new()
            if note.exists():
                self._refuse_others(read_json(note, CheckpointError), options)
        was_there = self.path.exists()
        write_json(note, options)
        try:
            yield
        finally:
            if self.last is None and (first_phase is None or first_phase.last is None):
                with contextlib.suppress(OSError):  # what cannot be swept away does no harm
                    note.unlink(missing_ok=True)
                    if not was_there and not any(self.path.iterdir()):
                        self.path.rmdir()

    def refuse_if_used(self) -> None:
        """Raises: OptionError where a run lies here already."""
        if self.last is not None:
            raise OptionError(
                f"{self.path} holds a run already; go on with --resume or name another --output."
            )

    def refuse_if_new(self) -> None:
        """Raises: OptionError where no run lies here."""
        if self.last is None:
            raise OptionError(f"{self.path} holds no run to resume; leave --resume out to start one.")

    def save(
        self,
        state: TrainState,
        save_model: Callable[[Path], None],
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None,
    ) -> Path:
        """Write `step-N/` whole, then move `best` (if it is that) and `last` to it. The average is in place
        while this runs: `module` holds the averaged weights, `average.mean` the trained ones.

        Raises: StorageError; the checkpoints from before stay.
        """
        target = self.path / f"step-{state.step}"
        weights = module.state_dict()
        swapped = {} if average is None else average.mean
        training = {
            "state": asdict(state),
            "module": {**weights, **swapped},
            "average": None if average is None else {name: weights[name] for name in swapped},
            "optimizer": optimizer.state_dict(),
        }
        with atomic_directory(target) as temporary:
            save_model(temporary)
            with (temporary / "train_state.pt").open("wb") as stream:
                torch.save(training, stream)
        # A kill between these two leaves `last` behind: the run goes on from there and comes by here again.
        if state.best_step == state.step:
            write_text(self.path / "best", target.name + "\n")
        write_text(self.path / "last", target.name + "\n")
        self._remove_others()
        return target

    def load_state(
        self, module: nn.Module, optimizer: torch.optim.Optimizer, average: WeightAverage | None
    ) -> TrainState:
        """Put the last checkpoint's training state in place.

        Raises: OptionError where there is no run; CheckpointError where its files are damaged or fit
        another model.
        """
        self.refuse_if_new()
        assert self.last is not None
        file = self.last / "train_state.pt"
        try:
            training: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            if (training["average"] is None) != (average is None):
                raise ValueError("--ema-decay is " + ("new" if average else "missing"))
            module.load_state_dict(training["module"])
            optimizer.load_state_dict(training["optimizer"])
            if average is not None:
                for name, value in training["average"].items():
                    average.mean[name].copy_(value)
            return TrainState(**training["state"])
        except Exception as cause:  # zip, pickle, key and shape errors come in many types
            reason = (str(cause).strip() or type(cause).__name__).splitlines()[-1].strip()
            raise CheckpointError(
                f"{file} cannot be resumed ({reason}); use the options the run was started with, or "
                "start anew."
            ) from cause

    def _refuse_others(self, began: Any, options: Mapping[str, Any]) -> None:
        began = began if isinstance(began, dict) else {}
        changed = [
            f"{flag_name(name)} {_typed(began[name])}, not {_typed(value)}"
            for name, value in options.items()
            if name in began and began[name] != value
        ]
        if changed:
            raise OptionError(
                f"The run in {self.path} began with {'; '.join(changed)}: give the same again, or another "
                "--output to start anew."
            )

    def _remove_others(self) -> None:
        """Old checkpoints, and what a killed process half wrote."""
        kept = {
            (self.path / name).read_text(encoding="utf-8").strip()
            for name in ("last", "best")
            if (self.path / name).exists()
        }
        for old in self.path.iterdir():
            if old.name not in kept and re.fullmatch(r"step-\d+|\.step-\d+\..*\.(tmp|old)", old.name):
                shutil.rmtree(old, ignore_errors=True)


class MetricsLog:
    """`metrics.jsonl`, one line a log event, and the same numbers for TensorBoard where it is installed.

    Opening it drops lines past `step`: what a killed run logged after its last checkpoint will be logged
    again.
    """

    def __init__(self, run: Path, step: int) -> None:
        self.path = run / "metrics.jsonl"
        kept = [line for line in read_metrics(run) if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
        self.stream = self.path.open("ab", buffering=0)
        self.board = _open_tensorboard(run, step)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(self, *error: object) -> None:
        self.stream.close()
        if self.board is not None:
            with contextlib.suppress(OSError):  # metrics.jsonl holds all that TensorBoard could not write
                self.board.close()

    def write(self, step: int, numbers: Mapping[str, float | torch.Tensor]) -> None:
        """Append one line; a kill right after loses nothing of it. Raises: StorageError."""
        values = {name: float(value) for name, value in numbers.items()}
        line = (json.dumps({"step": step, **values}) + "\n").encode()
        try:
            if self.stream.write(line) < len(line):  # what is left of a disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if self.board is not None:
                for name, value in values.items():
                    self.board.add_scalar(name, value, step)
        except OSError as cause:
            raise StorageError(
                f"{self.path} cannot be written ({cause.strerror}); free space and go on with --resume."
            ) from cause


def _typed(value: object) -> str:
    return "(not given)" if value is None else str(value)


def _open_tensorboard(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # the extra `track` is not installed
        return None
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
