"""`pixtell train-encoder` from options to a run whose checkpoints are encoders."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.nano import NanoEncoder
from pixtell.errors import DatasetError, EncoderError, OptionError
from pixtell.training.encoder_job import _views_beside, train_encoder
from pixtell.training.loop import Progress, RunResult
from pixtell.training.run_options import DataOptions, EncoderOptions, EncoderRunOptions


class Job:
    """A short distillation: pools of 16 views, four steps each."""

    def __init__(self, photos: Path, teacher: Path) -> None:
        self.data = DataOptions(data_dir=photos)
        self.what = EncoderOptions(
            teacher=teacher,
            encoder_width=2,
            image_size=64,
            view_size=64,
            pool_views=16,
            reuse=2,
            validate_every=5,
        )
        self.lines: list[str] = []

    def run(
        self,
        output: Path,
        *,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        what: dict[str, Any] | None = None,
        **run: Any,
    ) -> RunResult:
        options = EncoderRunOptions(
            **{"output": output, "max_steps": 10, "batch_size": 8, "dtype": "fp32", **run}
        )
        return train_encoder(
            self.data,
            replace(self.what, **what or {}),
            options,
            on_progress=on_progress,
            report=self.lines.append,
        )


@pytest.fixture
def job(photos: Path, teacher_dir: Path) -> Job:
    return Job(photos, teacher_dir)


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_run_killed_between_pools_is_an_uninterrupted_one(
    job: Job, tmp_path: Path, assert_same_runs: Callable[[Path, Path], None], ema_decay: float | None
) -> None:
    """Saved at step 5, in the second pool; killed at step 9, in the third."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = job.run(whole, ema_decay=ema_decay)

    def kill(progress: Progress) -> None:
        if progress.step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(killed, ema_decay=ema_decay, on_progress=kill)
    assert (killed / "last").read_text() == "step-5\n"
    assert job.run(killed, ema_decay=ema_decay, resume=True) == expected
    assert_same_runs(whole, killed)


def test_a_checkpoint_is_an_encoder_to_go_on_from(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path / "first")
    step = tmp_path / "first" / "step-10"
    encoder = load_encoder(parse_encoder(str(step)))
    assert isinstance(encoder, NanoEncoder)
    assert encoder.feature_shape == (4, 16)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert (tmp_path / "first" / "curves.svg").exists()
    blank = {"encoder_width": 48, "image_size": 192, "init_from": str(step)}
    job.run(tmp_path / "second", what=blank, max_steps=1, learning_rate=1e-12, ema_decay=None)
    second = load_encoder(parse_encoder(str(tmp_path / "second" / "step-1")))
    assert isinstance(second, NanoEncoder)
    for (name, one), other in zip(encoder.named_parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(one, other, msg=name)


def test_it_says_what_it_does(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path, max_steps=1)
    assert job.lines[0] == "device: cpu, fp32: as asked"
    assert job.lines[1].startswith("10 training and 3 validation images, ")
    assert job.lines[2] == "teacher: any size, patches, the mean of its patches, its classes"


def test_a_clip_teaches_too(job: Job, tiny_clip: Path, tmp_path: Path) -> None:
    """Made for 32 pixels, beside views of 64; killed and resumed it is the run it would have been."""
    whole = job.run(tmp_path / "whole", what={"teacher": tiny_clip})
    assert job.lines[2] == (
        "teacher: views made 32 pixels a side, patches, its own pooled features, no classes"
    )
    job.run(tmp_path / "parts", what={"teacher": tiny_clip}, max_seconds=1e-9)
    assert job.run(tmp_path / "parts", what={"teacher": tiny_clip}, resume=True) == whole
    encoder = load_encoder(parse_encoder(str(tmp_path / "parts")))
    assert encoder.fingerprint == load_encoder(parse_encoder(str(tmp_path / "whole"))).fingerprint


def test_a_teacher_that_is_none_is_refused(job: Job, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=str(photos)):
        job.run(tmp_path, what={"teacher": photos})


def test_a_training_that_is_refused_leaves_nothing_behind(job: Job, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(EncoderError, match=str(photos)):
        job.run(run, what={"teacher": photos})
    data, job.data = job.data, DataOptions(data_dir=tmp_path)
    with pytest.raises(DatasetError, match="No images were found"):
        job.run(run)
    contrastive = {"objective": "contrastive", "teacher": None, "pool_views": EncoderOptions.pool_views}
    job.data = data
    with pytest.raises(DatasetError, match="No word occurs 1000 times or more"):
        job.run(run, what={**contrastive, "reuse": EncoderOptions.reuse, "min_count": 1000})
    assert list(tmp_path.iterdir()) == []
    assert job.run(run, max_steps=1).finished


def test_an_encoder_of_another_kind_is_no_start(job: Job, teacher_dir: Path, tmp_path: Path) -> None:
    blank = {"encoder_width": 48, "image_size": 192}
    with pytest.raises(OptionError) as caught:
        job.run(tmp_path, what={**blank, "init_from": str(teacher_dir)})
    assert str(caught.value) == (
        f"--init-from {teacher_dir} is no nano encoder but hub; name one that train-encoder wrote."
    )


def test_other_options_on_resume_are_refused_and_a_longer_run_is_not(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path, max_steps=1)
    with pytest.raises(OptionError, match="began with --pool-views 16, not 32: give the same again"):
        job.run(tmp_path, what={"pool_views": 32}, resume=True)
    assert job.run(tmp_path, max_steps=2, resume=True).step == 2


def test_views_beside_captions_are_half_as_many_and_fill_pools() -> None:
    assert [_views_beside(batch) for batch in (2, 3, 100, 128, 512)] == [1, 1, 32, 64, 256]
