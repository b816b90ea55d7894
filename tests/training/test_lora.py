"""LoRA: what learns, what is saved, and that whoever loads it needs no peft."""

import copy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixtell.batching import encode_captions
from pixtell.checkpoints import load_checkpoint
from pixtell.decoding import DecodingOptions
from pixtell.devices import Placement
from pixtell.errors import OptionError
from pixtell.evaluation import validation_scores
from pixtell.models import ClipCap, build_model
from pixtell.models.gpt2 import Gpt2, Gpt2Config
from pixtell.tokenizers import WordTokenizer
from pixtell.training.captioner_job import train_captioner
from pixtell.training.captioner_options import CaptionerOptions, check_captioner
from pixtell.training.cross_entropy import CrossEntropy
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import LoopOptions, Progress, RunResult, train
from pixtell.training.lora import add_adapters, without_adapters
from pixtell.training.run_options import DataOptions, RunOptions
from pixtell.training.text import TextPretraining

CONFIG = Gpt2Config(vocab_size=9, width=16, num_layers=2, num_heads=2, max_positions=12, dropout=0.0)


class InMemory:
    """Features of all images."""

    module = None

    def __init__(self, features: torch.Tensor) -> None:
        self.features = features

    def __call__(self, rows: torch.Tensor, epoch: int) -> torch.Tensor:
        return self.features[rows]


@pytest.fixture
def gpt2() -> Gpt2:
    torch.manual_seed(0)
    return Gpt2(CONFIG)


def test_only_adapters_learn_and_become_part_of_the_weights(gpt2: Gpt2) -> None:
    inputs = torch.randn(2, 5, 16)
    before, weights = gpt2(inputs)[0], copy.deepcopy(gpt2.state_dict())
    add_adapters({"language model": gpt2}, rank=3, targets={"language model": ["c_attn", "mlp.c_proj"]})
    assert torch.equal(gpt2(inputs)[0], before)  # they begin at zero
    optimizer = torch.optim.Adam([p for p in gpt2.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        gpt2(inputs)[0][..., 0].mean().backward()
        optimizer.step()
    learned = gpt2(inputs)[0]
    assert not torch.allclose(learned, before, atol=1e-3)

    plain = without_adapters(gpt2)
    torch.testing.assert_close(plain(inputs)[0], learned)
    fresh = Gpt2(CONFIG)
    fresh.load_state_dict(plain.state_dict())  # its names are those of a GPT-2
    torch.testing.assert_close(fresh(inputs)[0], learned)
    for name, value in plain.state_dict().items():
        change = value - weights[name]
        if name.endswith(("attn.c_attn.weight", "mlp.c_proj.weight")):
            assert 1 <= torch.linalg.matrix_rank(change) <= 3
        else:
            assert not change.any(), name
    assert torch.equal(gpt2(inputs)[0], learned)  # the one that learns keeps its adapters
    assert any("lora_A" in name for name in gpt2.state_dict())


def test_a_module_without_adapters_is_itself(gpt2: Gpt2) -> None:
    assert without_adapters(gpt2) is gpt2


@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (
            {"language model": ["c_attn", "q_proj", "nope"], "encoder": ["c_attn", "q_proj", "nope"]},
            "--lora-targets nope,q_proj names no layer; there are c_attn, c_fc, c_proj in the language model "
            "and c_attn, c_fc, c_proj in the encoder.",
        ),
        (
            {"language model": ["c_attn"], "encoder": ["_attn"]},
            "--lora-targets _attn names no layer of the encoder; there are c_attn, c_fc, c_proj in the "
            "language model and c_attn, c_fc, c_proj in the encoder.",
        ),
    ],
)
def test_a_target_that_names_no_layer(targets: dict[str, list[str]], sentence: str) -> None:
    modules = {"language model": Gpt2(CONFIG), "encoder": Gpt2(CONFIG)}
    with pytest.raises(OptionError) as caught:
        add_adapters(modules, rank=2, targets=targets)
    assert str(caught.value) == sentence
    assert not any("lora" in name for module in modules.values() for name in module.state_dict())


def test_without_peft_it_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(OptionError) as caught:
        check_captioner(
            DataOptions(),
            CaptionerOptions(family="clipcap", encoder="nano", lora_rank=8),
            RunOptions(output=tmp_path),
        )
    assert str(caught.value) == (
        "--lora-rank 8 needs peft, which is not installed; pip install 'pixtell[lora]'."
    )


class Job:
    def __init__(self, photos: Path, encoder: Path) -> None:
        self.data = DataOptions(data_dir=photos)
        self.what = CaptionerOptions(
            family="clipcap", encoder=str(encoder), width=8, num_layers=2, min_count=1, epochs=2, lora_rank=2
        )

    def run(
        self,
        output: Path,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        what: dict[str, Any] | None = None,
        **run: Any,
    ) -> RunResult:
        return train_captioner(
            self.data,
            replace(self.what, **what or {}),
            RunOptions(**{"output": output, "batch_size": 4, "dtype": "fp32", "learning_rate": 1e-2, **run}),
            validate=lambda *inputs: {"CIDEr-D": float(sum(map(len, inputs[2])))},
            on_progress=on_progress,
        )


@pytest.fixture
def job(photos: Path, encoder_dir: Path) -> Job:
    return Job(photos, encoder_dir)


def weights_of(run: Path, file: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return load_file(load_checkpoint(run).directory / file)


def test_a_run_saves_a_plain_model(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path / "start", max_steps=1, learning_rate=1e-12)
    job.run(tmp_path / "run")
    before, after = weights_of(tmp_path / "start"), weights_of(tmp_path / "run")
    moved = {name for name, value in after.items() if (value - before[name]).abs().max() > 1e-6}
    expected = {name for name in after if name.startswith("mapping.") or name.endswith("c_attn.weight")}
    assert moved == expected


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_killed_run_resumed_is_an_uninterrupted_one(
    job: Job, tmp_path: Path, assert_same_runs: Callable[[Path, Path], None], ema_decay: float | None
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = job.run(whole, ema_decay=ema_decay)

    def kill(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.run(killed, kill, ema_decay=ema_decay)
    assert job.run(killed, ema_decay=ema_decay, resume=True) == expected
    assert_same_runs(whole, killed)


def test_a_clip_learns_through_adapters_too(job: Job, tiny_clip: Path, tmp_path: Path) -> None:
    what = {"encoder": str(tiny_clip), "train_encoder": True, "lora_targets": "c_attn, v_proj"}
    job.run(tmp_path / "start", what=what, max_steps=1, learning_rate=1e-12)
    job.run(tmp_path / "run", what=what)
    name = "encoder.safetensors"
    before, after = weights_of(tmp_path / "start", name), weights_of(tmp_path / "run", name)
    moved = {name for name, value in after.items() if not torch.allclose(value, before[name])}
    assert moved
    assert all(name.endswith("v_proj.weight") for name in moved)


def test_an_encoder_without_such_layers_is_refused(job: Job, tmp_path: Path) -> None:
    with pytest.raises(OptionError) as caught:
        job.run(tmp_path, what={"train_encoder": True})
    assert str(caught.value).startswith(
        "--lora-targets q_proj,v_proj names no layer of the encoder; there are "
    )


def test_a_model_without_gpt2_is_refused(job: Job, tmp_path: Path) -> None:
    job.run(tmp_path / "lstm", what={"family": "lstm", "num_layers": 4, "lora_rank": None, "epochs": 1})
    blank = {"family": None, "encoder": None, "width": None, "num_layers": 4, "min_count": 4}
    for changes, flag in (
        ({}, "--lora-rank"),
        ({"lora_rank": None, "checkpoint_activations": True}, "--check"),
    ):
        with pytest.raises(OptionError, match=f"^{flag}.* changes nothing in a model without a GPT-2"):
            job.run(tmp_path / "on", what={**blank, "init_from": str(tmp_path / "lstm"), **changes})


def test_who_has_read_the_texts_learns_the_shapes_through_adapters(
    shapes_facts: Any, tmp_path: Path, placement: Placement
) -> None:
    """Text first, then pictures: through adapters beside a GPT-2 that stands still, with accumulated
    gradients, blocks computed again, feature dropout and averaged weights. No validation caption was ever
    seen."""
    features, captions = shapes_facts
    texts = [caption for (caption,) in captions["train"]]
    words = WordTokenizer.train(texts)
    gpt2 = {"vocab_size": words.vocab_size, "width": 48, "num_layers": 2, "num_heads": 2}
    torch.manual_seed(0)
    model = build_model(
        "clipcap",
        {
            "feature_dim": 20,
            "prefix_length": 4,
            "feature_dropout": 0.02,
            "gpt2": {**gpt2, "max_positions": 40, "dropout": 0.0},
        },
    )
    assert isinstance(model, ClipCap)
    mapping = copy.deepcopy(model.mapping.state_dict())
    read = TextPretraining(
        model=model,
        feature_shape=(20,),
        token_ids=[[*words.encode(text), words.eos_id] for text in texts],
        validation_ids=[[*words.encode(text), words.eos_id] for (text,) in captions["val"]],
        ignored_ids=words.forbidden_ids,
        batches=ImageBatches(num_images=len(texts), batch_size=64, accumulate=1, seed=0),
        label_smoothing=0.0,
        device=placement.device,
    )
    model.mapping.requires_grad_(False)
    before = read.validate()["mean_logprob"]
    train(read, LoopOptions(max_steps=60, learning_rate=5e-3), tmp_path / "text", placement)
    model.mapping.requires_grad_(True)
    assert read.validate()["mean_logprob"] > before + 1.5
    for name, value in model.mapping.state_dict().items():
        assert torch.equal(value, mapping[name])

    model.gpt2.checkpoint_activations = True
    add_adapters({"language model": model.gpt2}, rank=8, targets={"language model": ["c_attn", "c_fc"]})

    def scores() -> dict[str, float]:
        return validation_scores(model, words, [features["val"]], shapes_facts.references, DecodingOptions())

    pictures = CrossEntropy(
        model=model,
        features=InMemory(features["train"]),
        token_ids=encode_captions(captions["train"], words, max_tokens=30),
        ignored_ids=words.forbidden_ids,
        batches=ImageBatches(num_images=len(texts), batch_size=16, accumulate=2, seed=0),
        label_smoothing=0.0,
        device=placement.device,
        evaluate=scores,
        save=lambda directory: None,
    )
    options = LoopOptions(max_steps=150, learning_rate=5e-3, accumulate=2, ema_decay=0.9)
    result = train(pictures, options, tmp_path / "pictures", placement)
    assert result.best_value is not None
    assert result.best_value > 6  # CIDEr-D, of 10
