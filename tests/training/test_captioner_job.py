"""`pixtell train` from options to a run: resumed to the bit, started from another model, and what it says."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixtell.checkpoints import load_checkpoint
from pixtell.encoders import load_encoder, parse_encoder, weights_sha256
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder
from pixtell.errors import DatasetError, EncoderError, OptionError, PixtellError
from pixtell.evaluation import validation_scores
from pixtell.models import ClipCap, LstmCaptioner
from pixtell.training.captioner_job import train_captioner
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.loop import Progress, RunResult
from pixtell.training.run_options import DataOptions, RunOptions
from pixtell.training.split_records import read_splits


def no_validation(*inputs: Any) -> dict[str, float]:
    """Uses up the features, and finds nothing."""
    for features in inputs[2]:
        assert features.dtype == torch.float32
    return {"CIDEr-D": 0.0}


USUAL = {"num_layers": CaptionerOptions.num_layers, "min_count": CaptionerOptions.min_count}


class Job:
    """A short training on the folder of photos; fields are replaced by name, whichever group they are of."""

    def __init__(self, photos: Path, encoder: Path) -> None:
        self.data = DataOptions(data_dir=photos)
        self.what = CaptionerOptions(
            family="clipcap", encoder=str(encoder), width=8, num_layers=1, min_count=1, epochs=3
        )
        self.lines: list[str] = []

    def run(
        self,
        output: Path,
        *,
        validate: Callable[..., dict[str, float]] = no_validation,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        what: dict[str, Any] | None = None,
        data: dict[str, Any] | None = None,
        **run: Any,
    ) -> RunResult:
        options = RunOptions(
            **{"output": output, "batch_size": 4, "dtype": "fp32", "learning_rate": 1e-2, **run}
        )
        return train_captioner(
            replace(self.data, **data or {}),
            replace(self.what, **what or {}),
            options,
            validate=validate,
            on_progress=on_progress,
            report=self.lines.append,
        )


def save_encoder(directory: Path, *, seed: int = 0, **sizes: int) -> Path:
    """A nano encoder of random weights; without sizes its features are those of `encoder_dir`, (4, 16)."""
    torch.manual_seed(seed)
    config = NanoEncoderConfig(**{"width": 2, "blocks": (1, 1, 1, 1), "image_size": 64, **sizes})  # type: ignore[arg-type]
    directory.mkdir()
    save_nano_encoder(NanoEncoder(config=config).eval(), directory)
    return directory


@pytest.fixture
def job(photos: Path, encoder_dir: Path) -> Job:
    return Job(photos, encoder_dir)


LSTM = {"family": "lstm", "num_layers": 4}
BLANK = {"family": None, "encoder": None, "width": None, "num_layers": 4, "min_count": 4}  # with init_from
PIXELS = {"train_encoder": True, "min_area": 0.7}


@pytest.mark.parametrize("ema_decay", [None, 0.9])
@pytest.mark.parametrize(
    "what", [{"views": 3}, LSTM, {**LSTM, **PIXELS}], ids=["clipcap-cache", "lstm-cache", "lstm-pixels"]
)
def test_a_killed_run_resumed_is_an_uninterrupted_one(
    job: Job,
    tmp_path: Path,
    assert_same_runs: Callable[[Path, Path], None],
    what: dict[str, Any],
    ema_decay: float | None,
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = job.run(whole, what=what, ema_decay=ema_decay)
    assert (expected.step, expected.finished) == (9, True)

    def kill(progress: Progress) -> None:
        if progress.step == 5:  # in the middle of the second epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(killed, what=what, ema_decay=ema_decay, on_progress=kill)
    assert job.run(killed, what=what, ema_decay=ema_decay, resume=True) == expected
    assert_same_runs(whole, killed)
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    assert (whole / "curves.svg").exists()


@pytest.mark.parametrize(
    ("first", "what"),
    [
        ({}, {"views": 2, "accumulate": 2}),
        (LSTM, {"reward": "cider-d,bleu-4=0.3", "samples": 2}),
        (LSTM, {**PIXELS, "reward": "cider-d,clipscore=2", "clip": "tiny"}),
    ],
    ids=["clipcap-cache", "lstm-cache", "lstm-pixels-clip"],
)
def test_self_critical_training_resumes_to_the_bit(
    job: Job,
    tmp_path: Path,
    assert_same_runs: Callable[[Path, Path], None],
    tiny_clip: Path,
    first: dict[str, Any],
    what: dict[str, Any],
) -> None:
    job.run(tmp_path / "first", what={**first, "epochs": 1})
    what = {**what, "clip": str(tiny_clip)} if "clip" in what else what
    what = {**BLANK, **what, "objective": "scst", "init_from": str(tmp_path / "first")}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = job.run(whole, what=what, learning_rate=1e-3)

    def kill(progress: Progress) -> None:
        if progress.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(killed, what=what, learning_rate=1e-3, on_progress=kill)
    assert job.run(killed, what=what, learning_rate=1e-3, resume=True) == expected
    assert_same_runs(whole, killed)
    assert (whole / "metrics.jsonl").read_text() == (killed / "metrics.jsonl").read_text()
    line = json.loads((whole / "metrics.jsonl").read_text().splitlines()[-2])
    assert line["samples/reward"] > 0
    assert {"samples/distinct_share", "samples/bad_ending_rate", "samples/mean_tokens"} <= line.keys()


def test_no_caption_of_another_split_is_rewarded(job: Job, photos: Path, tmp_path: Path) -> None:
    """Other captions of the validation pictures, and the same model comes out."""
    other = tmp_path / "photos"
    shutil.copytree(photos, other)
    lines = [json.loads(line) for line in (other / "captions.jsonl").read_text().splitlines()]
    for line in lines:
        line["captions"] = ["A cat."] if line["split"] == "val" else line["captions"]
    (other / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    job.run(tmp_path / "first", what={**LSTM, "epochs": 1})
    what = {**BLANK, "objective": "scst", "init_from": str(tmp_path / "first"), "epochs": 1}
    weights = []
    for number, folder in enumerate((photos, other)):
        run = tmp_path / f"run{number}"
        job.run(run, what=what, data={"data_dir": folder}, learning_rate=1e-3)
        weights.append((load_checkpoint(run).directory / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_a_run_out_of_time_can_be_used_and_goes_on(job: Job, tmp_path: Path) -> None:
    result = job.run(tmp_path, max_seconds=1e-9)
    assert (result.step, result.finished) == (1, False)
    assert isinstance(load_checkpoint(tmp_path).model, ClipCap)
    assert (tmp_path / "curves.svg").exists()
    assert job.run(tmp_path, resume=True).finished


def test_validation_captions_freely_and_the_best_is_kept(job: Job, tmp_path: Path) -> None:
    result = job.run(tmp_path, validate=validation_scores, what={"epochs": 2})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = [line["val/CIDEr-D"] for line in lines if "val/CIDEr-D" in line]
    assert len(values) == 2
    assert result.best_value == max(values)
    names = {"val/CIDEr-D", "val/BLEU-4", "val/distinct_share", "val/bad_ending_rate"}
    assert names <= set().union(*lines)


def test_a_run_is_a_model_without_flags(job: Job, tmp_path: Path) -> None:
    """Both families: what was trained is what is loaded, encoder and words included."""
    for family, kind in (("clipcap", ClipCap), ("lstm", LstmCaptioner)):
        run = tmp_path / family
        job.run(run, what={"family": family, "num_layers": 4 if family == "lstm" else 1})
        checkpoint = load_checkpoint(run)
        assert isinstance(checkpoint.model, kind)
        assert checkpoint.encoder.feature_shape == (4, 16)
        assert checkpoint.tokenizer.decode(checkpoint.tokenizer.encode("a red thing")) == "a red thing"
        assert not (checkpoint.directory / "encoder.safetensors").exists()


def test_an_encoder_that_changed_since_is_refused(job: Job, encoder_dir: Path, tmp_path: Path) -> None:
    encoder = tmp_path / "encoder"
    shutil.copytree(encoder_dir, encoder)
    job.run(tmp_path / "run", what={"encoder": str(encoder)})
    load_checkpoint(tmp_path / "run")
    torch.manual_seed(5)
    config = NanoEncoderConfig(width=2, blocks=(1, 1, 1, 1), image_size=64)
    save_nano_encoder(NanoEncoder(config=config), encoder)
    with pytest.raises(EncoderError, match="changed since the model was trained on them"):
        load_checkpoint(tmp_path / "run")


def test_a_moved_encoder_travels_with_every_model_made_from_it(job: Job, tmp_path: Path) -> None:
    moved, after = tmp_path / "moved", tmp_path / "after"
    job.run(moved, what={**LSTM, **PIXELS, "epochs": 1})
    beginning = load_checkpoint(moved)
    job.run(after, what={**BLANK, "init_from": str(moved), "epochs": 1})
    end = load_checkpoint(after)
    name = "encoder.safetensors"
    assert (end.directory / name).read_bytes() == (beginning.directory / name).read_bytes()
    assert end.encoder.fingerprint == beginning.encoder.fingerprint
    before, now = (load_file(c.directory / "model.safetensors") for c in (beginning, end))
    assert before.keys() == now.keys()
    assert not torch.equal(before["merge.weight"], now["merge.weight"])
    assert isinstance(end.encoder, NanoEncoder)


@pytest.mark.parametrize("objective", ["cross-entropy", "scst"])
def test_a_model_goes_on_with_another_encoder(job: Job, tmp_path: Path, objective: str) -> None:
    """Its own one, of the run that moved it, is not asked for; the new one stays as it is, where it is."""
    job.run(tmp_path / "first", what={"epochs": 1, "encoder_output": "patches", **PIXELS})
    first = load_checkpoint(tmp_path / "first")
    other = save_encoder(tmp_path / "other", seed=5)
    shutil.rmtree(tmp_path / "first" / "features", ignore_errors=True)
    (first.directory / "encoder.safetensors").unlink()
    what = {**BLANK, "init_from": str(tmp_path / "first"), "encoder": str(other), "objective": objective}
    job.run(tmp_path / "second", what=what, max_steps=1, learning_rate=1e-12)
    second = load_checkpoint(tmp_path / "second")
    assert not (second.directory / "encoder.safetensors").exists()
    spec, expected = second.config.encoder, parse_encoder(str(other))
    assert spec.located(second.directory) == replace(expected, sha256=weights_sha256(load_encoder(expected)))
    assert second.encoder.fingerprint == load_encoder(expected).fingerprint
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value)
    assert second.tokenizer.vocab_size == first.tokenizer.vocab_size
    job.run(tmp_path / "third", what={**what, **PIXELS}, max_steps=1)
    assert (load_checkpoint(tmp_path / "third").directory / "encoder.safetensors").exists()


def test_an_encoder_of_other_features_is_refused(job: Job, tmp_path: Path, tiny_clip: Path) -> None:
    for number, family in enumerate((LSTM, {"num_layers": 1})):
        job.run(tmp_path / f"run{number}", what={**family, "epochs": 1})
    wide = save_encoder(tmp_path / "wide", width=4)
    more = save_encoder(tmp_path / "more", image_size=96)
    for number, other, shape, takes in [
        (0, wide, "(4, 32)", "this model takes (16,) or (N, 16); use the encoder that it was made for."),
        (
            1,
            more,
            "(9, 16)",
            "this model's mapping patch takes (4, 16); use the encoder and output it was made for.",
        ),
    ]:
        source = tmp_path / f"run{number}"
        with pytest.raises(OptionError) as caught:
            job.run(tmp_path / "on", what={**BLANK, "init_from": str(source), "encoder": str(other)})
        assert str(caught.value) == (
            f"--encoder {other} does not suit --init-from {source}: features of shape {shape} do not fit: "
            + takes
        )
    job.run(tmp_path / "embedding", what={**LSTM, "encoder": str(tiny_clip), "epochs": 1})
    what = {**BLANK, "init_from": str(tmp_path / "embedding"), "encoder": str(wide)}
    with pytest.raises(OptionError) as caught:
        job.run(tmp_path / "on", what=what)
    assert str(caught.value) == (
        f"--encoder {wide} gives no embedding, and --init-from {tmp_path / 'embedding'} was trained on such; "
        "name an encoder that does, or train a new model with --family."
    )


def test_a_model_to_start_from_gives_its_weights(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path / "first", what=LSTM)
    first = load_checkpoint(tmp_path / "first")
    result = job.run(
        tmp_path / "second",
        what={**BLANK, "init_from": str(tmp_path / "first")},
        max_steps=1,
        learning_rate=1e-12,
    )
    assert result.step == 1
    second = load_checkpoint(tmp_path / "second")
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(second.model.state_dict()[name], value)
    assert second.tokenizer.vocab_size == first.tokenizer.vocab_size


def test_a_picture_that_cannot_be_read_is_left_out(job: Job, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    for name in ("03.png", "11.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:60])
    for number, what in enumerate([{}, {**LSTM, **PIXELS}]):
        job.lines.clear()
        result = job.run(tmp_path / f"run{number}", what={**what, "epochs": 1}, data={"data_dir": folder})
        assert result.finished
        assert sum(line.startswith("left out: ") for line in job.lines) == 2
        assert any(line.startswith("9 training and 2 validation images, ") for line in job.lines)


def test_features_are_extracted_once(job: Job, tmp_path: Path) -> None:
    features = tmp_path / "features"
    job.run(tmp_path / "a", what={"features": features})
    stamps = {path: path.stat().st_mtime_ns for path in features.rglob("*") if path.suffix == ".bin"}
    assert stamps
    job.run(tmp_path / "b", what={**LSTM, "features": features})
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert not (tmp_path / "b" / "features").exists()


def test_the_job_says_what_it_does(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path, max_steps=1)
    assert job.lines[0] == "device: cpu, fp32: as asked"
    assert job.lines[1] == f"features of 13 images: what {tmp_path / 'features'} lacks is extracted now"
    assert job.lines[2].startswith("10 training and 3 validation images, ")
    assert job.lines[2].endswith(" parameters to train")


# ---- refusals, all before the long work


@pytest.mark.parametrize("objective", ["cross-entropy", "scst"])
def test_a_single_image_to_validate_on_is_warned_of(
    job: Job, photos: Path, tmp_path: Path, objective: str
) -> None:
    """Its CIDEr-D is 0 whatever is said of it: every n-gram is in all images."""
    warning = (
        "val: CIDEr-D of one image is 0 by construction, so the first validation stays the best; give more "
        "images to validate on."
    )
    job.run(tmp_path / "three", max_steps=1)
    assert warning not in job.lines
    if objective == "scst":
        job.what = CaptionerOptions(objective="scst", init_from=str(tmp_path / "three"), epochs=2)
    shutil.copytree(photos, tmp_path / "photos")
    lines = (photos / "captions.jsonl").read_text().splitlines()
    (tmp_path / "photos" / "captions.jsonl").write_text("\n".join(lines[:11]))  # the last one is of val
    data = {"data_dir": tmp_path / "photos"}
    result = job.run(tmp_path / "one", data=data, batch_size=10, validate=validation_scores)
    assert job.lines.count(warning) == 1
    assert (result.best_step, result.best_value) == (1, 0)


def test_other_options_on_resume_are_refused(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path, max_steps=1)
    with pytest.raises(OptionError) as caught:
        job.run(tmp_path, batch_size=2, seed=3, data={"limit": 5}, resume=True)
    assert str(caught.value) == (
        f"The run in {tmp_path} began with --limit (not given), not 5; --batch-size 4, not 2; --seed 0, not "
        "3: give the same again, or another --output to start anew."
    )
    assert job.run(tmp_path, max_steps=2, learning_rate=1e-3, resume=True).step == 2


def test_a_used_or_empty_directory_is_refused_first(job: Job, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="holds no run to resume"):
        job.run(tmp_path, resume=True)
    job.run(tmp_path, max_steps=1)
    job.lines.clear()
    with pytest.raises(OptionError, match="holds a run already"):
        job.run(tmp_path, data={"data_dir": tmp_path / "nowhere"})
    assert job.lines == []


def test_captions_without_words_are_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="No word occurs 1000 times or more"):
        job.run(tmp_path, what={"min_count": 1000})


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": {"data_dir": Path("absent")}},
        {"what": {"encoder": "absent"}},
        {"what": {"min_count": 1000}},
        {"what": {"pretrain_text": Path("absent.txt")}},
        {"what": {"init_from": "absent", **dict.fromkeys(["family", "encoder", "width"]), **USUAL}},
    ],
    ids=str,
)
def test_a_training_that_is_refused_leaves_nothing_behind(
    job: Job, tmp_path: Path, wrong: dict[str, Any]
) -> None:
    with pytest.raises(PixtellError):
        job.run(tmp_path / "run", **wrong)
    assert list(tmp_path.iterdir()) == []


def test_after_a_refusal_the_same_place_will_do(job: Job, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DatasetError, match="No word occurs 1000 times or more"):
        job.run(run, what={"min_count": 1000})
    with pytest.raises(OptionError, match="holds no run to resume"):
        job.run(run, resume=True)
    assert job.run(run, max_steps=1).finished
    assert json.loads((run / "options.json").read_text())["min_count"] == 1


def test_flags_are_checked_first(job: Job, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--batch-size 0 is not above zero"):
        job.run(tmp_path / "run", batch_size=0)
    assert not (tmp_path / "run").exists()


def test_a_data_set_without_validation_says_what_to_add(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    entry = {"image": "a.jpg", "captions": ["A dog."], "split": "train"}
    (tmp_path / "captions.jsonl").write_text(json.dumps(entry))
    with pytest.raises(
        DatasetError, match='no picture to validate on, all 1 are in other splits; give "split": "val"'
    ):
        read_splits(DataOptions(dataset="folder", data_dir=tmp_path), print)
