"""New parts from flags: sizes that fit each other, and public weights put in their place."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.errors import ModelError
from pixtell.models import ClipCap
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.captioner_parts import CaptionerParts, choose_parts


@pytest.fixture
def records(photos: Path) -> tuple[CaptionedImage, ...]:
    return load_dataset("folder", photos).split("train")


@pytest.fixture
def what(encoder_dir: Path) -> CaptionerOptions:
    return CaptionerOptions(family="clipcap", encoder=str(encoder_dir), width=32, num_layers=1, min_count=1)


def say(parts: CaptionerParts) -> torch.Tensor:
    """Logits of three tokens for two images."""
    features = torch.randn(2, *parts.encoder.feature_shape)
    return parts.model.eval()(features, torch.zeros(2, 3, dtype=torch.long))


@pytest.mark.parametrize(
    ("output", "mapping", "prefix_length"), [("patches", "patch", 5), ("pooled", "mlp", 10)]
)
def test_the_mapping_suits_the_features(
    what: CaptionerOptions,
    records: tuple[CaptionedImage, ...],
    output: str,
    mapping: str,
    prefix_length: int,
) -> None:
    parts = choose_parts(replace(what, encoder_output=output), records)
    assert isinstance(parts.model, ClipCap)
    assert parts.model.config.mapping == mapping
    assert parts.model.mapping.prefix_length == prefix_length
    assert parts.model.config.gpt2.max_positions == prefix_length + 64
    assert say(parts).shape == (2, 3, parts.tokenizer.vocab_size)


@pytest.mark.parametrize(("width", "heads"), [(32, 1), (256, 4), (200, 2), (320, 5)])
def test_heads_divide_any_width(
    what: CaptionerOptions, records: tuple[CaptionedImage, ...], width: int, heads: int
) -> None:
    parts = choose_parts(replace(what, width=width), records)
    assert parts.config.model["gpt2"]["num_heads"] == heads


def test_flags_reach_the_model(what: CaptionerOptions, records: tuple[CaptionedImage, ...]) -> None:
    asked: dict[str, Any] = {
        "dropout": 0.25,
        "feature_dropout": 0.5,
        "normalise_features": True,
        "max_tokens": 100,
    }
    parts = choose_parts(replace(what, train_language_model="ends", **asked), records)
    model = parts.config.model
    assert (model["gpt2"]["dropout"], model["feature_dropout"], model["normalise_features"]) == (
        0.25,
        0.5,
        True,
    )
    assert (model["language_model"], model["gpt2"]["max_positions"]) == ("ends", 105)
    lstm = choose_parts(replace(what, family="lstm", dropout=0.25, normalise_features=True), records)
    assert (lstm.config.model["dropout"], lstm.config.model["normalise_features"]) == (0.25, True)
    assert lstm.config.model["width"] == 32


def test_sizes_that_make_no_model_are_refused(
    what: CaptionerOptions, records: tuple[CaptionedImage, ...]
) -> None:
    with pytest.raises(ModelError, match="mapping"):
        choose_parts(replace(what, mapping="magic"), records)


def test_a_public_gpt2_brings_weights_and_words(
    what: CaptionerOptions, records: tuple[CaptionedImage, ...], tmp_path: Path
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    letters = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {letter: number for number, letter in enumerate(sorted(letters))}
    bpe = Tokenizer(models.BPE(vocab={**vocabulary, "<|endoftext|>": 256}, merges=[]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens(["<|endoftext|>"])
    public = GPT2LMHeadModel(GPT2Config(vocab_size=257, n_positions=64, n_embd=16, n_layer=2, n_head=2))
    public.save_pretrained(tmp_path)
    bpe.save(str(tmp_path / "tokenizer.json"))
    parts = choose_parts(
        replace(what, language_model=str(tmp_path), width=None, num_layers=4, min_count=4), records
    )
    assert isinstance(parts.model, ClipCap)
    assert parts.tokenizer.kind == "gpt2"
    assert parts.tokenizer.vocab_size == 257
    torch.testing.assert_close(parts.model.gpt2.wte.weight, public.transformer.wte.weight)
    assert say(parts).shape == (2, 3, 257)
