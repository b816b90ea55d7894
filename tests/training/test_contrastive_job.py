"""`pixtell train-encoder --objective contrastive`: resumed to the bit, started from anything, and what it
says."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.embedder import Embedder
from pixtell.encoders import load_encoder, parse_encoder
from pixtell.errors import DatasetError, EncoderError, OptionError
from pixtell.files import follow_run
from pixtell.search import retrieval_of
from pixtell.training.contrastive_job import _with_text
from pixtell.training.encoder_job import train_encoder
from pixtell.training.loop import Progress, RunResult
from pixtell.training.run_options import DataOptions, EncoderOptions, EncoderRunOptions

NEW = EncoderOptions(
    objective="contrastive",
    encoder_width=2,
    image_size=64,
    view_size=64,
    text_width=32,
    min_count=1,
    chunk_size=3,
    validate_every=3,
)
START = EncoderOptions(objective="contrastive", chunk_size=3, validate_every=3)


class Job:
    """Six steps of eight images each on the folder of photos."""

    def __init__(self, data_dir: Path) -> None:
        self.data = DataOptions(data_dir=data_dir)
        self.lines: list[str] = []

    def run(
        self,
        output: Path,
        what: EncoderOptions = NEW,
        *,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        **run: Any,
    ) -> RunResult:
        options = EncoderRunOptions(
            **{"output": output, "max_steps": 6, "batch_size": 8, "dtype": "fp32", **run}
        )
        return train_encoder(self.data, what, options, on_progress=on_progress, report=self.lines.append)


@pytest.fixture
def job(photos: Path) -> Job:
    return Job(photos)


@pytest.mark.parametrize("chunk_size", [None, 3])
@pytest.mark.parametrize("start", ["new", "clip", "taught"])
def test_a_killed_run_resumed_is_an_uninterrupted_one(
    job: Job,
    tmp_path: Path,
    tiny_clip: Path,
    teacher_dir: Path,
    assert_same_runs: Callable[[Path, Path], None],
    start: str,
    chunk_size: int | None,
) -> None:
    whats = {
        "new": NEW,
        "clip": replace(START, init_from=str(tiny_clip)),
        "taught": replace(NEW, teacher=teacher_dir, distill_weight=0.5, pool_views=128, reuse=2),
    }
    what = replace(whats[start], chunk_size=chunk_size)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = job.run(whole, what, ema_decay=0.9)

    def kill(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(killed, what, ema_decay=0.9, on_progress=kill)
    assert (killed / "last").read_text() == "step-3\n"
    assert job.run(killed, what, ema_decay=0.9, resume=True) == expected
    assert_same_runs(whole, killed)
    assert (whole / "step-6").exists()


def test_a_run_is_an_encoder_and_a_pair_of_towers_to_go_on_from(job: Job, tmp_path: Path) -> None:
    result = job.run(tmp_path / "first", ema_decay=None)
    encoder = load_encoder(parse_encoder(str(tmp_path / "first")))
    assert encoder.feature_shape == (4, 16)
    assert (tmp_path / "first" / "curves.svg").exists()

    records = load_dataset("folder", job.data.data_dir).split("val")
    found = retrieval_of(Embedder.from_pretrained(tmp_path / "first"), records)
    assert found.mean_recall == pytest.approx(result.best_value, abs=0.2)  # three pictures, in fp16

    what = replace(START, init_from=str(tmp_path / "first"))
    job.run(tmp_path / "second", what, max_steps=1, learning_rate=1e-12, ema_decay=None)
    one, other = (Embedder.from_pretrained(tmp_path / name) for name in ("first", "second"))
    texts = ["a red thing", "an odd number"]
    np.testing.assert_allclose(one.texts(texts), other.texts(texts), atol=1e-5)


def test_a_new_text_tower_for_a_trained_encoder_that_stays(
    job: Job, encoder_dir: Path, tmp_path: Path
) -> None:
    what = replace(NEW, init_from=str(encoder_dir), encoder_width=48, image_size=192, freeze_encoder=True)
    job.run(tmp_path / "run", what)
    kept, before = (load_encoder(parse_encoder(str(path))) for path in (tmp_path / "run", encoder_dir))
    assert kept.fingerprint == before.fingerprint
    state = torch.load(tmp_path / "run" / "step-6" / "train_state.pt", weights_only=True)
    trained = state["optimizer"]["param_groups"]
    assert 0 < sum(len(group["params"]) for group in trained) < len(state["module"])


def test_statistics_of_a_trained_encoder_stay(job: Job, encoder_dir: Path, tmp_path: Path) -> None:
    what = replace(NEW, init_from=str(encoder_dir), encoder_width=48, image_size=192)
    job.run(tmp_path / "run", what, ema_decay=None)
    after, before = (load_encoder(parse_encoder(str(path))) for path in (tmp_path / "run", encoder_dir))
    assert isinstance(after, torch.nn.Module)
    assert isinstance(before, torch.nn.Module)
    for (name, one), other in zip(after.named_buffers(), before.buffers(), strict=True):
        assert torch.equal(one, other), name
    moved = [not torch.equal(a, b) for a, b in zip(after.parameters(), before.parameters(), strict=True)]
    assert all(moved)


def test_a_clip_is_fine_tuned_and_read_again(job: Job, tiny_clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPModel, CLIPProcessor

    result = job.run(tmp_path / "run", replace(START, init_from=str(tiny_clip)), ema_decay=None)
    best = tmp_path / "run" / f"step-{result.best_step}"
    assert load_encoder(parse_encoder(str(tmp_path / "run"))).feature_shape == (24,)
    records = load_dataset("folder", job.data.data_dir).split("val")
    found = retrieval_of(Embedder.from_pretrained(tmp_path / "run"), records)
    assert found.mean_recall == pytest.approx(result.best_value)

    model, processor = CLIPModel.from_pretrained(best), CLIPProcessor.from_pretrained(best)
    before = CLIPModel.from_pretrained(tiny_clip)
    assert not torch.equal(model.visual_projection.weight, before.visual_projection.weight)
    texts = [text for record in records for text in record.captions]
    images = [Image.open(record.image).convert("RGB") for record in records]  # type: ignore[arg-type]
    with torch.no_grad():
        theirs = model(**processor(text=texts, images=images, padding=True, return_tensors="pt"))
    mine = Embedder.from_pretrained(best).texts(texts)
    np.testing.assert_allclose(
        mine / np.linalg.norm(mine, axis=1, keepdims=True), theirs.text_embeds.numpy(), atol=1e-5
    )


def test_a_clip_learns_through_adapters(job: Job, tiny_clip: Path, tmp_path: Path) -> None:
    """Nothing moves but the layers with adapters and the temperature; what is saved is a plain CLIP."""
    what = replace(START, init_from=str(tiny_clip), lora_rank=2, lora_targets="v_proj, fc1")
    whole = job.run(tmp_path / "whole", what, learning_rate=1e-2)
    job.run(tmp_path / "parts", what, learning_rate=1e-2, max_seconds=1e-9)
    assert job.run(tmp_path / "parts", what, learning_rate=1e-2, resume=True) == whole
    before, after, resumed = (
        load_file(follow_run(directory) / "model.safetensors")
        for directory in (tiny_clip, tmp_path / "whole", tmp_path / "parts")
    )
    assert before.keys() == after.keys()
    moved = {name for name, value in after.items() if not torch.equal(value, before[name])}
    expected = {name for name in after if name.endswith(("v_proj.weight", "fc1.weight", "logit_scale"))}
    assert moved == expected
    assert all(torch.equal(value, resumed[name]) for name, value in after.items())
    Embedder.from_pretrained(tmp_path / "whole").texts(["a thing"])
    with pytest.raises(OptionError) as caught:
        job.run(tmp_path / "on", replace(what, lora_targets="c_attn"))
    assert str(caught.value) == (
        "--lora-targets c_attn names no layer of the CLIP; there are fc1, fc2, k_proj, out_proj, q_proj, "
        "text_projection, v_proj, visual_projection in the CLIP."
    )
    with pytest.raises(OptionError) as caught:
        job.run(tmp_path / "on", replace(NEW, lora_rank=2))
    assert str(caught.value) == (
        "--lora-rank 2 is for a CLIP, and these towers are nano's; leave it out, or name a CLIP with "
        "--init-from."
    )


def test_empty_captions_are_no_captions(tmp_path: Path) -> None:
    """Also beside others: no image is pulled towards a text of nothing."""
    records = [
        CaptionedImage("a", tmp_path / "a.png", ("", "A dog."), "train"),
        CaptionedImage("b", tmp_path / "b.png", (" ",), "train"),
        CaptionedImage("c", tmp_path / "c.png", ("A cat.",), "train"),
    ]
    lines: list[str] = []
    kept = _with_text(records, "train", lines.append)
    assert [(record.image_id, record.captions) for record in kept] == [("a", ("A dog.",)), ("c", ("A cat.",))]
    assert lines == ["train: 1 images without a caption, left out"]


def test_a_teacher_beside_the_captions_adds_its_loss(job: Job, teacher_dir: Path, tmp_path: Path) -> None:
    lines = {}
    for weight in (0.5, 2.0):
        what = replace(NEW, teacher=teacher_dir, distill_weight=weight, pool_views=64, reuse=1)
        job.run(tmp_path / str(weight), what, max_steps=1)
        text = (tmp_path / str(weight) / "metrics.jsonl").read_text()
        lines[weight] = [json.loads(line) for line in text.splitlines()]
        first = lines[weight][0]
        expected = first["contrastive_loss"] + weight * first["distillation_loss"]
        assert first["loss"] == pytest.approx(expected, rel=1e-5)
        assert {"val/mean_recall", "val/pooled_cosine"} <= lines[weight][1].keys()
    assert lines[0.5][0]["contrastive_loss"] == lines[2.0][0]["contrastive_loss"]
    assert lines[0.5][0]["distillation_loss"] == lines[2.0][0]["distillation_loss"]


def test_it_says_what_it_does_and_logs_what_it_finds(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path, max_steps=3)
    assert job.lines[0] == "device: cpu, fp32: as asked"
    assert job.lines[1].startswith("10 training and 3 validation images, 20 and 15 different captions, ")
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert {"val/text_to_image_R@1", "val/image_to_text_R@10", "val/mean_recall"} <= lines[-1].keys()
    assert lines[0]["logit_scale"] == pytest.approx(1 / 0.07, rel=0.1)
    assert json.loads((tmp_path / "options.json").read_text())["min_area"] == 0.6


def test_usual_values_are_those_of_the_objective(job: Job, tiny_clip: Path, tmp_path: Path) -> None:
    rates: dict[str, float] = {}
    for name, what in {"nano": NEW, "clip": replace(START, init_from=str(tiny_clip))}.items():
        job.run(tmp_path / name, what, max_steps=1, batch_size=None)
        line = json.loads((tmp_path / name / "metrics.jsonl").read_text().splitlines()[0])
        rates[name] = line["learning_rate"]
        assert json.loads((tmp_path / name / "options.json").read_text())["batch_size"] == 256
    assert rates == {"nano": pytest.approx(1e-3), "clip": pytest.approx(1e-5)}


def write_data(directory: Path, counts: dict[str, int]) -> Path:
    lines = []
    for split, count in counts.items():
        for number in range(count):
            name = f"{split}{number}.png"
            Image.new("RGB", (8, 8), (number, 0, 0)).save(directory / name)
            lines.append(json.dumps({"image": name, "captions": [f"A dog {number}."], "split": split}))
    (directory / "captions.jsonl").write_text("\n".join(lines))
    return directory


@pytest.mark.parametrize(
    ("counts", "split"), [({"train": 1, "val": 3}, "train"), ({"train": 3, "val": 1}, "val")]
)
def test_a_split_of_one_image_is_refused(tmp_path: Path, counts: dict[str, int], split: str) -> None:
    with pytest.raises(DatasetError) as caught:
        Job(write_data(tmp_path, counts)).run(tmp_path / "run")
    assert str(caught.value) == (
        f"The split {split} has one image with captions, and contrastive training compares images with each "
        "other: give two or more."
    )


def test_captions_without_a_known_word_are_left_out(tmp_path: Path) -> None:
    """To the text tower they would be equal, and their images' own."""
    job = Job(write_data(tmp_path, {"train": 5, "val": 3}))
    path = tmp_path / "captions.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = lines[0].replace("A dog 0.", "Zebra.")
    lines[1] = lines[1].replace('"A dog 1."', '"A dog 1.", "Giraffe."')
    path.write_text("\n".join(lines))
    job.run(tmp_path / "run", replace(NEW, min_count=2), max_steps=1)
    assert "train: 2 captions without a known word, left out" in job.lines
    assert job.lines[-1].startswith("4 training and 3 validation images, ")


def test_what_it_cannot_start_from_is_said(
    job: Job, tmp_path: Path, teacher_dir: Path, tiny_clip: Path, tiny_towers: Path
) -> None:
    def sentence_of(what: EncoderOptions) -> str:
        with pytest.raises((OptionError, EncoderError)) as caught:
            job.run(tmp_path / "run", what)
        return str(caught.value)

    assert sentence_of(replace(START, init_from=str(teacher_dir))) == (
        f"--init-from {teacher_dir} is neither a nano encoder nor a CLIP but hub, and has no text tower; "
        "name one of them."
    )
    from transformers import CLIPVisionModel

    vision = tmp_path / "vision"
    CLIPVisionModel.from_pretrained(tiny_clip).save_pretrained(vision)
    assert sentence_of(replace(START, init_from=str(vision))).startswith(f"{vision} is an image tower alone")
    assert sentence_of(replace(START, init_from=str(tiny_clip), view_size=64)) == (
        "--view-size 64 is not for tiny-clip, which sees 32 pixels a side; leave it out."
    )
    given = replace(START, init_from=str(tiny_towers), text_width=64, min_count=1)
    assert sentence_of(given) == (
        f"--text-width and --min-count belong to a new text tower, and --init-from {tiny_towers} brings one; "
        "leave them out."
    )
    assert (
        sentence_of(replace(START, init_from=str(tiny_clip), teacher=teacher_dir, distill_weight=0.5))
        == f"--distill-weight 0.5 is for nano encoders, and --init-from {tiny_clip} is a CLIP; leave it out."
    )
    assert sentence_of(replace(NEW, view_size=100)) == (
        "--view-size 100 is not a multiple of 32; choose for example 128."
    )
    assert sentence_of(replace(NEW, view_size=32)) == (
        "--view-size 32 is too small for a new encoder; give 64 or more."
    )


@pytest.mark.long
def test_the_towers_learn_the_shapes(tmp_path: Path) -> None:
    """No caption of the validation split is in the training split: who finds its picture has put the words
    together. By chance one in a hundred would be right."""
    what = EncoderOptions(
        objective="contrastive",
        encoder_width=8,
        image_size=64,
        view_size=64,
        min_area=1.0,
        text_width=64,
        text_dropout=0.0,
    )
    run = EncoderRunOptions(
        output=tmp_path, max_steps=180, batch_size=64, learning_rate=1.5e-3, ema_decay=0.95, dtype="fp32"
    )
    result = train_encoder(DataOptions(dataset="shapes"), what, run)
    records = load_dataset("shapes", None).split("test")
    found = retrieval_of(Embedder.from_pretrained(tmp_path), records)
    assert found.text_to_image[1] > 0.75
    assert found.image_to_text[1] > 0.75
    assert found.text_to_image[10] > 0.97
    assert result.best_value is not None
    assert result.best_value > 0.9
