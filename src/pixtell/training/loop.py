"""The loop that every objective shares: steps, schedule, validation, checkpoints, resume.

In: an objective, which knows its batches, its loss and its validation, all as functions of the step number.
Out: a run directory with `step-N/`, `last`, `best` and `metrics.jsonl`. It does not know what is learned.

A step depends on nothing but (seed, step number, weights, optimizer state): random numbers are seeded anew
each step. That is why a resumed run equals an uninterrupted one bit for bit on a CPU.
"""

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from pixtell.devices import Placement
from pixtell.errors import OptionError, TrainingError
from pixtell.training.run_files import MetricsLog, RunDirectory, TrainState
from pixtell.training.weight_average import WeightAverage

Numbers = Mapping[str, "float | torch.Tensor"]  # to log; tensors of one value, not waited for before that


@dataclass(frozen=True)
class LoopOptions:
    """How to optimise, whatever the objective."""

    max_steps: int  # updates
    learning_rate: float
    weight_decay: float = 0.02
    warmup_ratio: float = 0.03  # share of max_steps in which the rate rises; a cosine to zero follows
    clip_norm: float = 1.0
    ema_decay: float | None = (
        None  # validate and save an average of the weights; None: the weights themselves
    )
    validate_every: int = 1000  # steps
    patience: int | None = None  # validations without a better value before an early stop; None: never
    max_seconds: float | None = None  # stop cleanly after this long, resumable; None: never
    log_every: int = 50  # steps
    accumulate: int = 1  # calls of `loss` whose gradients add up to one update
    seed: int = 0


@dataclass(frozen=True)
class Progress:
    """What a progress bar shows; sent after every step."""

    step: int
    max_steps: int
    loss: float
    seconds_left: float
    validation: dict[str, float] | None = None  # set after a validation
    saved_to: Path | None = None


@dataclass(frozen=True)
class RunResult:
    """How a run ended: the reason in words, the last step, the best value of the objective's metric."""

    reason: str
    step: int
    best_step: int | None
    best_value: float | None
    finished: bool  # False: more steps are left, --resume goes on


class Objective(Protocol):
    """What is learned. `loss` and `validate` may use the global random state: the loop seeds it before each
    call."""

    @property
    def module(self) -> nn.Module:
        """Everything trained, with its buffers."""

    @property
    def best_metric(self) -> str:
        """A key of what validate() returns; larger is better."""

    def loss(self, call: int, /) -> tuple[torch.Tensor, Numbers]:
        """The loss of one batch, a scalar, and further numbers to log.

        call: the step; with LoopOptions.accumulate over one, step * accumulate + part, and what the parts of
        a step return adds up to its loss.
        """

    def validate(self) -> dict[str, float]:
        """Numbers of the validation split; the module is in eval mode."""

    def save(self, directory: Path) -> None:
        """Write a checkpoint that can be used into `directory`."""


def train(
    objective: Objective,
    options: LoopOptions,
    run: Path,
    placement: Placement,
    *,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> RunResult:
    """Train `objective` and write the run directory.

    A resumed run may have another learning_rate, max_steps, warm-up, patience and max_seconds than before:
    they are read anew at every step.

    Raises: TrainingError for a loss or gradient that is not finite (the last good checkpoint stays),
    OptionError where `run` holds a run already and resume is off, or holds none and resume is on;
    CheckpointError where the run is another model's; StorageError.
    """
    return _Loop(objective, options, RunDirectory(run), placement, on_progress).run(resume)


class _Loop:
    def __init__(
        self,
        objective: Objective,
        options: LoopOptions,
        directory: RunDirectory,
        placement: Placement,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.objective = objective
        self.options = options
        self.directory = directory
        self.placement = placement
        self.on_progress = on_progress
        self.parameters = [p for p in objective.module.parameters() if p.requires_grad]
        if not self.parameters:
            raise OptionError("Nothing is left to train: every part is frozen; unfreeze one.")
        self.optimizer = _make_optimizer(objective.module, options)
        self.average = WeightAverage(objective.module, options.ema_decay) if options.ema_decay else None
        self.state = TrainState()

    def run(self, resume: bool) -> RunResult:
        if resume:
            self.state = self.directory.load_state(self.objective.module, self.optimizer, self.average)
        else:
            self.directory.refuse_if_used()
        options, state = self.options, self.state
        started, first_step = time.monotonic(), state.step
        with MetricsLog(self.directory.path, state.step) as log:
            while state.step < options.max_steps and not self._is_stuck():
                loss, numbers = self._step()
                elapsed = time.monotonic() - started
                at_end = state.step == options.max_steps
                out_of_time = options.max_seconds is not None and elapsed > options.max_seconds and not at_end
                if state.step % options.log_every == 0 or at_end or out_of_time:
                    log.write(
                        state.step, {"loss": loss, "learning_rate": self._rate(state.step - 1), **numbers}
                    )
                validation = saved = None
                if state.step % options.validate_every == 0 or at_end:
                    validation = self._validate()
                    log.write(state.step, {f"val/{name}": value for name, value in validation.items()})
                if validation is not None or out_of_time:
                    saved = self._save()
                left = elapsed / (state.step - first_step) * (options.max_steps - state.step)
                self.on_progress(Progress(state.step, options.max_steps, loss, left, validation, saved))
                if out_of_time:
                    return self._result(f"{options.max_seconds:g} seconds are over", finished=False)
        if self._is_stuck():
            return self._result(f"no better {self.objective.best_metric} in {options.patience} validations")
        return self._result(f"all {options.max_steps} steps done")

    def _step(self) -> tuple[float, Numbers]:
        """One update: the loss before it, and the numbers of the objective."""
        step = self.state.step
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        losses: list[torch.Tensor] = []
        numbers: dict[str, float | torch.Tensor] = {}
        for part in range(self.options.accumulate):
            part_loss, part_numbers = self._backward(step * self.options.accumulate + part)
            losses.append(part_loss)
            numbers.update(part_numbers)
        norm = nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm)
        value, norm_value = torch.stack((torch.stack(losses).sum(), norm.float())).tolist()  # one wait a step
        self._refuse_infinite({"loss": value, "gradient": norm_value})
        self.optimizer.step()
        if self.average is not None:
            self.average.update(step)
        self.state.step += 1
        return value, numbers

    def _backward(self, call: int) -> tuple[torch.Tensor, Numbers]:
        """Add the gradients of one batch; returns its loss, without them, and the objective's numbers."""
        torch.manual_seed(step_seed(self.options.seed, call))
        self.objective.module.train()
        with self._autocast():
            loss, numbers = self.objective.loss(call)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach().float(), numbers

    def _refuse_infinite(self, values: dict[str, float]) -> None:
        """Before the weights are touched: what is not finite would make all of them NaN."""
        for name, value in values.items():
            if not math.isfinite(value):
                last = self.directory.last
                kept = f"the last good checkpoint, {last}, is kept: go on from it with --resume and"
                raise TrainingError(
                    f"The {name} became {value} at step {self.state.step + 1}; "
                    f"{kept if last else 'there is no checkpoint yet: start again with'} a lower "
                    f"--learning-rate than {self.options.learning_rate:g}."
                )

    def _validate(self) -> dict[str, float]:
        torch.manual_seed(step_seed(self.options.seed, -1))
        self.objective.module.eval()
        with self._averaged(), torch.no_grad(), self._autocast():
            numbers = self.objective.validate()
        value = numbers[self.objective.best_metric]
        self.state.validations_since_best += 1
        if self.state.best_value is None or value > self.state.best_value:
            self.state.best_value, self.state.best_step = value, self.state.step
            self.state.validations_since_best = 0
        return numbers

    def _save(self) -> Path:
        with self._averaged():
            return self.directory.save(
                self.state, self.objective.save, self.objective.module, self.optimizer, self.average
            )

    def _averaged(self) -> "nullcontext[None] | WeightAverage":
        return nullcontext() if self.average is None else self.average

    def _autocast(self) -> torch.autocast:
        mixed = self.placement.dtype != torch.float32
        return torch.autocast(
            self.placement.device.type, self.placement.dtype if mixed else None, enabled=mixed
        )

    def _rate(self, step: int) -> float:
        return self.options.learning_rate * schedule(step, self.options)

    def _is_stuck(self) -> bool:
        return (
            self.options.patience is not None and self.state.validations_since_best >= self.options.patience
        )

    def _result(self, reason: str, finished: bool = True) -> RunResult:
        return RunResult(reason, self.state.step, self.state.best_step, self.state.best_value, finished)


def schedule(step: int, options: LoopOptions) -> float:
    """The share of the learning rate at `step`: a linear warm-up, then a cosine to zero. With max_steps 100
    and warmup_ratio 0.1, step 0 gives 0.1, step 9 gives 1.0, step 55 gives 0.5."""
    warmup = max(1, round(options.warmup_ratio * options.max_steps))
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, options.max_steps - warmup)))


def step_seed(seed: int, step: int) -> int:
    """A seed of its own for every step of every run."""
    return (seed * 1_000_003 + step * 7_919 + 12_345) % 2**63


def _make_optimizer(module: nn.Module, options: LoopOptions) -> torch.optim.AdamW:
    """AdamW; biases, norms and other vectors are not decayed."""
    parameters = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": options.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=options.learning_rate, fused=True)
