"""The loop: a resumed run is an uninterrupted one, what stops it, what it keeps, what it says."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pixtell.devices import Placement
from pixtell.errors import CheckpointError, OptionError, StorageError, TrainingError
from pixtell.training.loop import LoopOptions, Progress, RunResult, schedule, step_seed, train

OPTIONS = LoopOptions(max_steps=20, learning_rate=1e-2, validate_every=5, log_every=2)


class ToyObjective:
    """Regression with dropout, batch norm and a batch for each step: all that a resumed run must bring back.

    kill_at, nan_at, flat_at: the step at which the process dies, the loss is NaN, or only the gradient is.
    values: what validations find, in turn; left out: the negative error. on_save: called with the directory.
    """

    best_metric = "value"

    def __init__(
        self,
        *,
        kill_at: int = -1,
        nan_at: int = -1,
        flat_at: int = -1,
        values: list[float] | None = None,
        on_save: Callable[[Path], None] = lambda directory: None,
    ) -> None:
        torch.manual_seed(0)
        self.module = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))
        self.kill_at, self.nan_at, self.flat_at = kill_at, nan_at, flat_at
        self.values = None if values is None else iter(values)
        self.on_save = on_save
        self.steps: list[int] = []

    def loss(self, step: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        if step == self.kill_at:
            raise KeyboardInterrupt
        self.steps.append(step)
        points = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        loss = (self.module(points) - points.sum(1, keepdim=True)).square().mean()
        if step == self.nan_at:
            loss = loss * float("nan")
        if step == self.flat_at:  # finite, with a gradient that is not
            loss = loss + (self.module[0].weight * 0).sum().sqrt()
        return loss, {"twice": 2 * loss.detach()}

    def validate(self) -> dict[str, float]:
        assert not self.module.training
        points = torch.randn(64, 4, generator=torch.Generator().manual_seed(10**6))
        error = (self.module(points) - points.sum(1, keepdim=True)).square().mean()
        return {"value": -float(error) if self.values is None else next(self.values)}

    def save(self, directory: Path) -> None:
        save_file(self.module.state_dict(), directory / "toy.safetensors")
        self.on_save(directory)


def go(
    run: Path, objective: ToyObjective, options: LoopOptions, placement: Placement, **more: object
) -> RunResult:
    return train(objective, options, run, placement, **more)  # type: ignore[arg-type]


def lines_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def last_of(run: Path) -> str:
    return (run / "last").read_text().strip()


def checkpoints_of(run: Path) -> set[str]:
    return {path.name for path in run.iterdir() if "step-" in path.name}


# ---- resume


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize("kill_at", [6, 10, 19])
def test_a_killed_run_resumed_is_an_uninterrupted_one(
    tmp_path: Path,
    placement: Placement,
    assert_same_runs: Callable[[Path, Path], None],
    kill_at: int,
    ema_decay: float | None,
) -> None:
    options = replace(OPTIONS, ema_decay=ema_decay)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = go(whole, ToyObjective(), options, placement)
    with pytest.raises(KeyboardInterrupt):
        go(killed, ToyObjective(kill_at=kill_at), options, placement)
    objective = ToyObjective()
    assert go(killed, objective, options, placement, resume=True) == expected
    assert objective.steps == list(range(kill_at - kill_at % 5, 20))  # from the last checkpoint
    assert_same_runs(whole, killed)
    assert lines_of(killed) == lines_of(whole)  # what the killed run logged past it is logged once


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_run_stopped_by_the_clock_again_and_again_is_an_uninterrupted_one(
    tmp_path: Path,
    placement: Placement,
    assert_same_runs: Callable[[Path, Path], None],
    ema_decay: float | None,
) -> None:
    options = replace(OPTIONS, ema_decay=ema_decay, max_steps=7)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    expected = go(whole, ToyObjective(), options, placement)
    no_time = replace(options, max_seconds=1e-9)
    for step in range(1, 7):
        result = go(stopped, ToyObjective(), no_time, placement, resume=step > 1)
        assert (result.step, result.finished, result.reason) == (step, False, "1e-09 seconds are over")
        assert last_of(stopped) == f"step-{step}"
    assert go(stopped, ToyObjective(), no_time, placement, resume=True) == expected
    assert_same_runs(whole, stopped)


def test_gradients_of_several_calls_are_one_update(tmp_path: Path, placement: Placement) -> None:
    objective = ToyObjective()
    options = replace(OPTIONS, max_steps=2, accumulate=3, log_every=1)
    assert go(tmp_path / "run", objective, options, placement).step == 2
    assert objective.steps == [0, 1, 2, 3, 4, 5]
    parts = ToyObjective()
    losses = []
    for call in range(3):  # the first update of another, in which nothing moves
        torch.manual_seed(step_seed(0, call))
        losses.append(parts.loss(call)[0].item())
    assert lines_of(tmp_path / "run")[0]["loss"] == pytest.approx(sum(losses))


def test_a_stopped_run_has_logged_something(tmp_path: Path, placement: Placement) -> None:
    go(tmp_path, ToyObjective(), replace(OPTIONS, max_seconds=1e-9), placement)
    assert [line["step"] for line in lines_of(tmp_path)] == [1]


def test_a_resumed_run_takes_the_new_learning_rate(tmp_path: Path, placement: Placement) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, ToyObjective(kill_at=10), OPTIONS, placement)
    go(tmp_path, ToyObjective(), replace(OPTIONS, learning_rate=5e-3), placement, resume=True)
    rates = {int(line["step"]): line["learning_rate"] for line in lines_of(tmp_path) if "loss" in line}
    for step, rate in rates.items():
        peak = 1e-2 if step <= 10 else 5e-3
        assert rate == pytest.approx(peak * schedule(step - 1, OPTIONS))


def test_a_run_is_neither_overwritten_nor_made_up(tmp_path: Path, placement: Placement) -> None:
    with pytest.raises(OptionError) as caught:
        go(tmp_path, ToyObjective(), OPTIONS, placement, resume=True)
    assert str(caught.value) == f"{tmp_path} holds no run to resume; leave --resume out to start one."
    go(tmp_path, ToyObjective(), OPTIONS, placement)
    with pytest.raises(OptionError) as caught:
        go(tmp_path, ToyObjective(), OPTIONS, placement)
    assert str(caught.value) == (
        f"{tmp_path} holds a run already; go on with --resume or name another --output."
    )


def test_a_run_killed_before_its_first_checkpoint_starts_anew(tmp_path: Path, placement: Placement) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, ToyObjective(kill_at=4), OPTIONS, placement)
    go(tmp_path, ToyObjective(), OPTIONS, placement)
    assert [line["step"] for line in lines_of(tmp_path) if "loss" in line] == list(range(2, 21, 2))


def test_a_finished_run_resumed_does_nothing(tmp_path: Path, placement: Placement) -> None:
    expected = go(tmp_path, ToyObjective(), OPTIONS, placement)
    objective = ToyObjective()
    assert go(tmp_path, objective, OPTIONS, placement, resume=True) == expected
    assert objective.steps == []


# ---- what is kept


def test_the_last_and_the_best_are_kept(tmp_path: Path, placement: Placement) -> None:
    values = [0.1, 0.5, 0.3, 0.2]
    result = go(tmp_path, ToyObjective(values=values), OPTIONS, placement)
    assert result == RunResult("all 20 steps done", 20, 10, 0.5, True)
    assert checkpoints_of(tmp_path) == {"step-10", "step-20"}
    assert (tmp_path / "best").read_text() == "step-10\n"
    assert (tmp_path / "last").read_text() == "step-20\n"
    assert [line["val/value"] for line in lines_of(tmp_path) if "val/value" in line] == values


def test_patience_ends_a_run_for_good(tmp_path: Path, placement: Placement) -> None:
    options = replace(OPTIONS, patience=2)
    result = go(
        tmp_path, ToyObjective(values=[0.1, 0.5, 0.5, 0.2]), replace(options, max_steps=40), placement
    )
    assert result == RunResult("no better value in 2 validations", 20, 10, 0.5, True)
    again = ToyObjective()
    assert go(tmp_path, again, replace(options, max_steps=40), placement, resume=True) == result
    assert again.steps == []


def test_more_patience_lets_it_go_on(tmp_path: Path, placement: Placement) -> None:
    options = replace(OPTIONS, patience=1, max_steps=15)
    go(tmp_path, ToyObjective(values=[0.5, 0.1]), options, placement)
    result = go(tmp_path, ToyObjective(values=[0.6]), replace(options, patience=2), placement, resume=True)
    assert (result.step, result.best_step) == (15, 15)


@pytest.mark.parametrize("reason", ["killed", "full"])
def test_a_broken_write_leaves_the_last_checkpoint(
    tmp_path: Path,
    placement: Placement,
    assert_same_runs: Callable[[Path, Path], None],
    limit_file_size: Callable[[int], None],
    reason: str,
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    go(whole, ToyObjective(), OPTIONS, placement)

    def break_at_the_second(directory: Path) -> None:
        if "step-10" in directory.name:
            if reason == "killed":
                raise KeyboardInterrupt
            limit_file_size(3000)  # a train_state.pt is larger

    with pytest.raises((KeyboardInterrupt, StorageError)) as caught:
        go(broken, ToyObjective(on_save=break_at_the_second), OPTIONS, placement)
    if reason == "full":
        assert str(caught.value) == (
            f"{broken / 'step-10'} cannot be written (File too large); what was there before is unchanged: "
            "free space or name another place."
        )
        limit_file_size(10**9)
    assert last_of(broken) == "step-5"
    assert checkpoints_of(broken) == {"step-5"}
    go(broken, ToyObjective(), OPTIONS, placement, resume=True)
    assert_same_runs(whole, broken)


def test_an_average_is_what_is_validated_and_saved(tmp_path: Path, placement: Placement) -> None:
    """Against the definition, from the weights after every step."""
    objective = ToyObjective()
    weight = objective.module[0].weight
    mean = weight.detach().clone()
    validated = []
    validate = objective.validate
    objective.validate = lambda: (validated.append(weight.detach().clone()), validate())[1]  # type: ignore[method-assign]

    def follow(progress: Progress) -> None:
        nonlocal mean
        decay = min(0.9, progress.step / (progress.step + 1))
        mean = decay * mean + (1 - decay) * weight.detach()

    options = replace(OPTIONS, max_steps=12, validate_every=12, ema_decay=0.9)
    go(tmp_path, objective, options, placement, on_progress=follow)
    torch.testing.assert_close(validated[0], mean)
    assert torch.equal(load_file(tmp_path / "step-12/toy.safetensors")["0.weight"], validated[0])
    assert not torch.equal(weight, validated[0])  # training itself goes on from the weights


# ---- numbers that are none


@pytest.mark.parametrize(("kind", "name"), [("nan_at", "loss"), ("flat_at", "gradient")])
def test_a_loss_that_is_no_number_stops_before_it_spreads(
    tmp_path: Path, placement: Placement, kind: str, name: str
) -> None:
    objective = ToyObjective(**{kind: 7})  # type: ignore[arg-type]
    with pytest.raises(TrainingError) as caught:
        go(tmp_path, objective, OPTIONS, placement)
    assert str(caught.value) == (
        f"The {name} became nan at step 8; the last good checkpoint, {tmp_path / 'step-5'}, is kept: go on "
        "from it with --resume and a lower --learning-rate than 0.01."
    )
    assert all(parameter.isfinite().all() for parameter in objective.module.parameters())
    assert last_of(tmp_path) == "step-5"
    result = go(tmp_path, ToyObjective(), replace(OPTIONS, learning_rate=1e-3), placement, resume=True)
    assert result.finished


def test_without_a_checkpoint_it_says_so(tmp_path: Path, placement: Placement) -> None:
    with pytest.raises(TrainingError) as caught:
        go(tmp_path, ToyObjective(nan_at=0), OPTIONS, placement)
    assert str(caught.value) == (
        "The loss became nan at step 1; there is no checkpoint yet: start again with a lower "
        "--learning-rate than 0.01."
    )


# ---- what is optimised


@pytest.mark.parametrize(
    ("step", "share"), [(0, 0.1), (4, 0.5), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0)], ids=str
)
def test_the_rate_rises_in_a_line_and_falls_as_a_cosine(step: int, share: float) -> None:
    options = LoopOptions(max_steps=100, learning_rate=1.0, warmup_ratio=0.1)
    assert schedule(step, options) == pytest.approx(share)


def test_every_step_of_every_run_has_a_seed_of_its_own() -> None:
    seeds = {step_seed(seed, step) for seed in range(5) for step in range(-1, 1000)}
    assert len(seeds) == 5 * 1001


class Still(nn.Module):
    """Everything has a gradient of zero, so that weight decay alone moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        nn.init.ones_(self.linear.bias)


class StillObjective(ToyObjective):
    def __init__(self) -> None:
        super().__init__()
        self.module = Still()  # type: ignore[assignment]

    def loss(self, step: int) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        module = self.module
        return (module.norm(module.linear(module.frozen(torch.ones(2, 3)))) * 0).sum(), {}  # type: ignore[operator]

    def validate(self) -> dict[str, float]:
        return {"value": 0.0}


def test_matrices_decay_vectors_do_not_and_the_frozen_stay(tmp_path: Path, placement: Placement) -> None:
    objective = StillObjective()
    before = {name: value.clone() for name, value in objective.module.state_dict().items()}
    options = LoopOptions(max_steps=1, learning_rate=0.1, weight_decay=0.5, warmup_ratio=0.0, ema_decay=0.9)
    go(tmp_path, objective, options, placement)
    after = objective.module.state_dict()
    torch.testing.assert_close(after["linear.weight"], before["linear.weight"] * (1 - 0.1 * 0.5))
    for name in ("linear.bias", "norm.weight", "norm.bias", "frozen.weight", "frozen.bias"):
        assert torch.equal(after[name], before[name]), name
    assert all(parameter.grad is None for parameter in objective.module.frozen.parameters())  # type: ignore[union-attr]


def test_nothing_to_train_is_said(tmp_path: Path, placement: Placement) -> None:
    objective = ToyObjective()
    objective.module.requires_grad_(False)
    with pytest.raises(OptionError) as caught:
        go(tmp_path, objective, OPTIONS, placement)
    assert str(caught.value) == "Nothing is left to train: every part is frozen; unfreeze one."


def test_large_gradients_are_cut(tmp_path: Path, placement: Placement) -> None:
    objective = ToyObjective()
    norms = []

    def note(progress: Progress) -> None:
        gradients = [p.grad for p in objective.module.parameters() if p.grad is not None]
        norms.append(math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients)))

    go(tmp_path, objective, replace(OPTIONS, clip_norm=0.25), placement, on_progress=note)
    assert max(norms) <= 0.25 + 1e-5


def test_it_learns_in_bf16_too(tmp_path: Path) -> None:
    placement = Placement(torch.device("cpu"), torch.bfloat16, "as the test asks")
    objective = ToyObjective()
    go(tmp_path, objective, replace(OPTIONS, max_steps=60, learning_rate=3e-2), placement)
    values = [line["val/value"] for line in lines_of(tmp_path) if "val/value" in line]
    assert values[-1] > values[0] / 2
    assert all(parameter.dtype == torch.float32 for parameter in objective.module.parameters())


# ---- what is reported


def test_every_step_is_reported(tmp_path: Path, placement: Placement) -> None:
    reports: list[Progress] = []
    go(
        tmp_path,
        ToyObjective(values=[1.0, 2.0]),
        replace(OPTIONS, max_steps=7),
        placement,
        on_progress=reports.append,
    )
    assert [report.step for report in reports] == list(range(1, 8))
    assert {report.max_steps for report in reports} == {7}
    assert [report.validation for report in reports if report.validation] == [{"value": 1.0}, {"value": 2.0}]
    assert [report.saved_to for report in reports if report.saved_to] == [
        tmp_path / "step-5",
        tmp_path / "step-7",
    ]
    assert reports[-1].seconds_left == 0
    assert all(report.seconds_left > 0 for report in reports[:-1])


def test_what_is_logged(tmp_path: Path, placement: Placement) -> None:
    go(tmp_path, ToyObjective(), replace(OPTIONS, max_steps=5), placement)
    lines = lines_of(tmp_path)
    assert [sorted(line) for line in lines] == [["learning_rate", "loss", "step", "twice"]] * 3 + [
        ["step", "val/value"]
    ]
    assert [line["step"] for line in lines] == [2, 4, 5, 5]
    assert all(line["twice"] == pytest.approx(2 * line["loss"]) for line in lines[:3])


def test_another_models_run_is_refused(tmp_path: Path, placement: Placement) -> None:
    go(tmp_path, ToyObjective(), OPTIONS, placement)
    other = ToyObjective()
    other.module = nn.Sequential(nn.Linear(4, 9))
    with pytest.raises(CheckpointError, match=r"cannot be resumed \(size mismatch for 0.*start anew\.$"):
        go(tmp_path, other, OPTIONS, placement, resume=True)
