"""A run on disk: what a resumed run is checked against, which files are cut back or swept away."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pixtell.errors import CheckpointError, OptionError, StorageError
from pixtell.training.run_files import MetricsLog, RunDirectory, TrainState, read_metrics
from pixtell.training.weight_average import WeightAverage


def save(run: Path, *, step: int = 1, best_step: int | None = None, average: bool = False) -> nn.Linear:
    module = nn.Linear(3, 2)
    RunDirectory(run).save(
        TrainState(step=step, best_step=best_step, best_value=0.5),
        lambda directory: None,
        module,
        torch.optim.AdamW(module.parameters()),
        WeightAverage(module, 0.9) if average else None,
    )
    return module


def load(run: Path, *, average: bool = False) -> TrainState:
    module = nn.Linear(3, 2)
    return RunDirectory(run).load_state(
        module, torch.optim.AdamW(module.parameters()), WeightAverage(module, 0.9) if average else None
    )


def begin(run: Path, options: dict[str, Any], *, resume: bool) -> None:
    """And train nothing."""
    with RunDirectory(run).begin(options, resume=resume):
        pass


def raise_after(work: Callable[[Path], object], run: Path) -> None:
    work(run)
    raise KeyboardInterrupt


# ---- options


def test_a_resumed_run_must_have_the_options_it_began_with(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    options = {"batch_size": 64, "limit": None, "seed": 0}
    with directory.begin(options, resume=False):
        assert json.loads((tmp_path / "options.json").read_text()) == options
        save(tmp_path)
    begin(tmp_path, options, resume=True)
    with pytest.raises(OptionError) as caught:
        begin(tmp_path, {"batch_size": 32, "limit": 20, "seed": 0}, resume=True)
    assert json.loads((tmp_path / "options.json").read_text()) == options
    assert str(caught.value) == (
        f"The run in {tmp_path} began with --batch-size 64, not 32; --limit (not given), not 20: give the "
        "same again, or another --output to start anew."
    )


def test_options_of_an_older_pixtell_are_no_hindrance(tmp_path: Path) -> None:
    save(tmp_path)
    begin(tmp_path, {"seed": 0}, resume=True)
    (tmp_path / "options.json").write_text("{}")
    begin(tmp_path, {"seed": 1}, resume=True)


def test_a_start_is_refused_before_the_long_work(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="holds no run to resume; leave --resume out to start one"):
        begin(tmp_path, {}, resume=True)
    begin(tmp_path, {"seed": 0}, resume=False)
    begin(tmp_path, {"seed": 1}, resume=False)  # nothing was trained: it may begin again
    save(tmp_path)
    with pytest.raises(
        OptionError, match="holds a run already; go on with --resume or name another --output"
    ):
        begin(tmp_path, {}, resume=False)


def test_a_place_that_cannot_be_written_is_said_before_the_long_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        begin(file / "run", {}, resume=False)


@pytest.mark.parametrize("there", ["nothing", "folder", "file"])
def test_what_is_refused_leaves_no_note(tmp_path: Path, there: str) -> None:
    """And nothing is taken away that was there before."""
    run = tmp_path / "run"
    if there != "nothing":
        run.mkdir()
    if there == "file":
        (run / "mine.txt").write_text("mine")
    with pytest.raises(OptionError), RunDirectory(run).begin({"seed": 0}, resume=False):
        raise OptionError("refused.")
    left = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*"))]
    assert left == {"nothing": [], "folder": ["run"], "file": ["run", "run/mine.txt"]}[there]


def test_a_run_that_has_begun_keeps_its_note_whatever_ends_it(tmp_path: Path) -> None:
    for name, first in (("a", "a"), ("b", "b/pretraining")):  # or its first phase has begun
        run = tmp_path / name
        first_phase = RunDirectory(tmp_path / first)
        with (
            pytest.raises(KeyboardInterrupt),
            RunDirectory(run).begin({"seed": 0}, resume=False, first_phase=first_phase),
        ):
            raise_after(save, first_phase.path)
        assert json.loads((run / "options.json").read_text()) == {"seed": 0}


# ---- checkpoints


def test_state_comes_back(tmp_path: Path) -> None:
    save(tmp_path, step=7, best_step=7)
    assert load(tmp_path) == TrainState(step=7, best_step=7, best_value=0.5)


def test_what_a_killed_process_left_is_swept_away(tmp_path: Path) -> None:
    save(tmp_path, step=1, best_step=1)
    for name in (".step-2.ab12cd34.tmp", ".step-1.ab12cd34.old", "step-9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_text("half")
    for name in ("features", "tensorboard", "step-notes"):
        (tmp_path / name).mkdir()
    save(tmp_path, step=3, best_step=1)
    assert {path.name for path in tmp_path.iterdir()} == {
        "step-1", "step-3", "best", "last", "features", "tensorboard", "step-notes"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("saved", "loaded", "reason"),
    [(True, False, "--ema-decay is missing"), (False, True, "--ema-decay is new")],
)
def test_an_average_that_comes_or_goes_is_said(
    tmp_path: Path, saved: bool, loaded: bool, reason: str
) -> None:
    save(tmp_path, average=saved)
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path, average=loaded)
    assert str(caught.value) == (
        f"{tmp_path / 'step-1' / 'train_state.pt'} cannot be resumed ({reason}); use the options the run was "
        "started with, or start anew."
    )


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "other"])
def test_a_damaged_state_is_one_sentence(tmp_path: Path, damage: str) -> None:
    save(tmp_path)
    file = tmp_path / "step-1" / "train_state.pt"
    if damage == "gone":
        file.unlink()
    elif damage == "other":
        torch.save({"something": 1}, file)
    else:
        file.write_bytes(file.read_bytes()[:500] if damage == "cut" else b"")
    with pytest.raises(CheckpointError) as caught:
        load(tmp_path)
    sentence = str(caught.value)
    assert sentence.startswith(f"{file} cannot be resumed (")
    assert sentence.endswith("; use the options the run was started with, or start anew.")
    assert "\n" not in sentence
    assert "()" not in sentence


# ---- metrics


def test_a_log_is_cut_back_to_where_the_run_goes_on(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        for step in (10, 20, 30):
            log.write(step, {"loss": torch.tensor(step / 10)})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 40, "lo')  # torn by the kill
    with MetricsLog(tmp_path, 20) as log:
        assert [line["step"] for line in read_metrics(tmp_path)] == [10, 20]
        log.write(30, {"loss": 7.0})
    assert read_metrics(tmp_path) == [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 2.0},
        {"step": 30, "loss": 7.0},
    ]


def test_a_line_is_in_the_file_at_once(tmp_path: Path) -> None:
    with MetricsLog(tmp_path, 0) as log:
        log.write(1, {"loss": 0.5})
        assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n'


def test_a_log_on_a_full_disk_is_one_sentence(tmp_path: Path, limit_file_size: Callable[[int], None]) -> None:
    with MetricsLog(tmp_path, 0) as log:
        log.board = None  # its own file would be full first
        log.write(1, {"loss": 0.5})
        limit_file_size((tmp_path / "metrics.jsonl").stat().st_size + 10)
        with pytest.raises(StorageError) as caught:
            log.write(2, {"loss": 0.5})
        limit_file_size(10**9)
    assert str(caught.value) in {
        f"{tmp_path / 'metrics.jsonl'} cannot be written ({reason}); free space and go on with --resume."
        for reason in ("File too large", "No space left on device")
    }
    assert read_metrics(tmp_path) == [{"step": 1, "loss": 0.5}]


def test_tensorboard_has_the_numbers_too(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with MetricsLog(tmp_path, 0) as log:
        for step in (1, 2):
            log.write(step, {"loss": step / 4, "val/CIDEr-D": step / 8})
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["loss", "val/CIDEr-D"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 0.25), (2, 0.5)]
