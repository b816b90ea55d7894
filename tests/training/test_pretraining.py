"""Text before pictures, in one command: what is left out, what moves, and that a killed run goes on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixtell.checkpoints import load_checkpoint
from pixtell.errors import DatasetError, OptionError
from pixtell.training.captioner_job import train_captioner
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.loop import Progress, RunResult
from pixtell.training.pretraining import read_new_captions
from pixtell.training.run_options import DataOptions, RunOptions

# of the photos, number 11 is a validation picture, and a "fat" thing is in none
LINES = [
    "11.png\ta RED thing , number 3",
    *(f"A {word} thing number {number}." for word in ("old", "big", "fat") for number in range(3)),
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("\n".join(LINES), encoding="utf-8")
    return path


class Job:
    def __init__(self, photos: Path, encoder: Path, text: Path) -> None:
        self.data = DataOptions(data_dir=photos)
        self.what: dict[str, Any] = {
            "family": "clipcap",
            "encoder": str(encoder),
            "width": 8,
            "num_layers": 1,
            "min_count": 1,
            "epochs": 1,
            "pretrain_text": text,
            "pretrain_epochs": 2,
        }
        self.lines: list[str] = []

    def run(
        self,
        output: Path,
        *,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        what: dict[str, Any] | None = None,
        **run: Any,
    ) -> RunResult:
        options: dict[str, Any] = {"batch_size": 1, "dtype": "fp32", "learning_rate": 1e-2, **run}
        return train_captioner(
            self.data,
            CaptionerOptions(**{**self.what, **(what or {})}),
            RunOptions(output=output, **options),
            validate=lambda *inputs: {"CIDEr-D": float(sum(map(len, inputs[2])))},
            on_progress=on_progress,
            report=self.lines.append,
        )


@pytest.fixture
def job(photos: Path, encoder_dir: Path, text: Path) -> Job:
    return Job(photos, encoder_dir, text)


def test_captions_of_other_splits_are_left_out_and_counted(text: Path) -> None:
    lines: list[str] = []
    kept = read_new_captions(text, ["A red thing -- number 3!", "a big thing number 1"], lines.append)
    assert len(kept) == 8
    assert "A big thing number 1." not in kept
    assert lines == [
        f"text: 10 captions in {text}; 2 of them equal a validation or test caption and are left out"
    ]
    with pytest.raises(DatasetError) as caught:
        read_new_captions(text, [line.split("\t")[-1] for line in LINES], lines.append)
    assert str(caught.value) == (
        f"Every caption of {text} is a validation or test caption; name another file."
    )


def test_a_data_sets_other_captions_are_dropped_and_its_words_are_the_vocabulary(
    job: Job, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    result = job.run(run)
    assert (result.step, result.finished) == (10, True)
    assert "equal a validation or test caption" in job.lines[1]
    left_out = int(job.lines[1].split("; ")[1].split()[0])
    assert left_out == 5  # red 3 of picture 11, old and big 2 and 0 of pictures 10 and 12
    assert job.lines[2].startswith("text: all 2 steps done; mean log-probability of a token -")
    words = load_checkpoint(run).tokenizer
    assert words.decode(words.encode("a fat thing")) == "a thing"


@pytest.mark.parametrize("family", ["clipcap", "lstm"])
def test_pictures_go_on_from_the_text(job: Job, tmp_path: Path, family: str) -> None:
    """The weights that the text has left are those that the pictures begin with; the image branch is new."""
    what = {"family": family, "num_layers": 4 if family == "lstm" else 1}
    for name, changes in (("with", {}), ("without", {"pretrain_text": None, "pretrain_epochs": 3})):
        job.run(tmp_path / name, what={**what, **changes}, max_steps=1, learning_rate=1e-12)
    weights = [
        load_file(load_checkpoint(tmp_path / name).directory / "model.safetensors")
        for name in ("with", "without")
    ]
    torch.testing.assert_close(weights[0], weights[1])
    job.run(tmp_path / "learned", what=what)
    step = (tmp_path / "learned" / "pretraining" / "best").read_text().strip()
    after_text = load_file(tmp_path / "learned" / "pretraining" / step / "weights.safetensors")
    branch = "mapping." if family == "clipcap" else "image."
    moved = {name for name, value in after_text.items() if not torch.equal(value, weights[1][name])}
    still = {name for name in after_text if name.startswith(branch)}
    assert moved
    for name in still:
        torch.testing.assert_close(after_text[name], weights[1][name])
    now = load_file(load_checkpoint(tmp_path / "learned").directory / "model.safetensors")
    assert any(not torch.equal(now[name], weights[1][name]) for name in still)  # the pictures move it


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize(("phase", "step"), [("text", 2), ("text", 4), ("pictures", 1), ("pictures", 7)])
def test_a_killed_run_resumed_is_an_uninterrupted_one(
    job: Job,
    tmp_path: Path,
    assert_same_runs: Callable[[Path, Path], None],
    phase: str,
    step: int,
    ema_decay: float | None,
) -> None:
    what = {"pretrain_epochs": 4, "family": "lstm", "num_layers": 4, "epochs": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = job.run(whole, what=what, batch_size=2, ema_decay=ema_decay)

    def kill(progress: Progress) -> None:
        in_text = progress.max_steps == 4
        if in_text == (phase == "text") and progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(killed, what=what, batch_size=2, ema_decay=ema_decay, on_progress=kill)
    with pytest.raises(OptionError, match="holds a run already"):
        job.run(killed, what=what, batch_size=2, ema_decay=ema_decay)
    assert job.run(killed, what=what, batch_size=2, ema_decay=ema_decay, resume=True) == expected
    assert_same_runs(whole, killed)
    assert_same_runs(whole / "pretraining", killed / "pretraining")


def test_out_of_time_in_the_text(job: Job, tmp_path: Path) -> None:
    """Before its first validation, and again."""
    text = tmp_path / "more.txt"
    text.write_text("\n".join(f"A {word} thing." for word in "abcdefghijk"), encoding="utf-8")
    what = {"pretrain_text": text}
    result = job.run(tmp_path / "run", what=what, max_seconds=1e-9)
    assert (result.step, result.best_value, result.finished) == (1, None, False)
    result = job.run(tmp_path / "run", what=what, max_seconds=1e-9, resume=True)
    assert (result.step, result.finished) == (2, False)
    assert job.run(tmp_path / "run", what=what, resume=True).finished
    lines = (tmp_path / "run" / "pretraining" / "metrics.jsonl").read_text().splitlines()
    assert any("val/mean_logprob" in json.loads(line) for line in lines)
