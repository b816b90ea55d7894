"""What a person can ask: every rule, in the words of the flags."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from pixtell.errors import EncoderError, OptionError
from pixtell.training.captioner_options import CaptionerOptions, check_captioner
from pixtell.training.run_options import (
    DataOptions,
    EncoderOptions,
    EncoderRunOptions,
    RunOptions,
    check_encoder,
    fixed_options,
)

DATA = DataOptions()
WHAT = CaptionerOptions(family="clipcap", encoder="nano")
RUN = RunOptions(output=Path("run"))
SCST = {"family": None, "encoder": None, "init_from": "nano", "objective": "scst"}
ENCODER = EncoderOptions(teacher=Path("teacher"))
ENCODER_RUN = EncoderRunOptions(output=Path("run"), max_steps=100)


def positive(flag: str, value: float) -> str:
    return f"{flag} {value} is not above zero; give a number such as 1 or leave it out."


def share(flag: str, value: float) -> str:
    return f"{flag} {value} is not from 0 up to 1; give for example 0.1."


@pytest.mark.parametrize(
    ("group", "changes", "sentence"),
    [
        ("data", {"limit": 0}, positive("--limit", 0)),
        ("run", {"max_steps": 0}, positive("--max-steps", 0)),
        ("run", {"max_seconds": -1.0}, positive("--max-seconds", -1.0)),
        ("run", {"batch_size": 0}, positive("--batch-size", 0)),
        ("run", {"learning_rate": 0.0}, positive("--learning-rate", 0.0)),
        (
            "run",
            {"learning_rate": float("inf")},
            "--learning-rate inf is infinite; give a number such as 1 or leave it out.",
        ),
        (
            "run",
            {"weight_decay": float("nan")},
            "--weight-decay nan is no finite number; give for example 0.05.",
        ),
        ("run", {"seed": -1}, "--seed -1 is outside 0 to 4294967295; give a number such as 0."),
        ("run", {"warmup_ratio": 1.0}, share("--warmup-ratio", 1.0)),
        ("run", {"ema_decay": 1.5}, share("--ema-decay", 1.5)),
        ("run", {"weight_decay": -0.1}, "--weight-decay -0.1 is below zero; give for example 0.05."),
        (
            "run",
            {"dtype": "fp16"},
            "--dtype fp16 is not for training, its numbers overflow; choose bf16 or fp32.",
        ),
        ("what", {"views": 0}, positive("--views", 0)),
        ("what", {"epochs": 0}, positive("--epochs", 0)),
        ("what", {"min_count": 0}, positive("--min-count", 0)),
        ("what", {"max_tokens": 0}, positive("--max-tokens", 0)),
        ("what", {"patience": 0}, positive("--patience", 0)),
        ("what", {"width": 0}, positive("--width", 0)),
        ("what", {"num_layers": 0}, positive("--num-layers", 0)),
        ("what", {"prefix_length": 0}, positive("--prefix-length", 0)),
        ("what", {"label_smoothing": 1.0}, share("--label-smoothing", 1.0)),
        (
            "what",
            {"min_area": 2.0, "views": 2},
            "--min-area 2.0 is no share of an image; give a number above 0 and at most 1.",
        ),
        (
            "what",
            {"family": "rnn"},
            "--family rnn is unknown; choose one of clipcap, lstm, or start with --init-from.",
        ),
        (
            "what",
            {"family": None},
            "--family is missing; choose one of clipcap, lstm, or start with --init-from.",
        ),
        (
            "what",
            {"encoder": None},
            "--encoder is missing; choose nano, vgg16, a directory, a weights file or a hub id.",
        ),
        (
            "what",
            {"init_from": "nano"},
            "--family changes nothing with --init-from, which brings its own; leave it out.",
        ),
        (
            "what",
            {"family": None, "encoder": None, "init_from": "nano", "dropout": 0.1, "width": 64},
            "--width and --dropout change nothing with --init-from, which brings its own; leave them out.",
        ),
        (
            "what",
            {"family": "lstm", "mapping": "mlp"},
            "--mapping changes nothing with --family lstm; leave it out.",
        ),
        (
            "what",
            {"language_model": "gpt2", "num_layers": 2, "min_count": 1},
            "--num-layers and --min-count change nothing with --language-model, which brings its own; leave "
            "them out.",
        ),
        ("what", {"accumulate": 0}, positive("--accumulate", 0)),
        (
            "what",
            {"objective": "guess"},
            "--objective guess is unknown; choose cross-entropy or scst.",
        ),
        (
            "what",
            {"objective": "scst"},
            "--objective scst improves a model that cross-entropy has trained; name one with --init-from.",
        ),
        (
            "what",
            {**SCST, "samples": 1},
            "--samples 1 leaves a caption nothing to be better than; give 2 or more, say 5.",
        ),
        (
            "what",
            {**SCST, "label_smoothing": 0.2},
            "--label-smoothing changes nothing with --objective scst; leave it out.",
        ),
        (
            "what",
            {"samples": 3, "reward": "bleu-4"},
            "--samples and --reward change nothing without --objective scst; leave them out.",
        ),
        (
            "what",
            {**SCST, "reward": "cider-d,clipscore"},
            "--reward clipscore needs a CLIP; name its directory or hub id with --clip, or leave it out.",
        ),
        (
            "what",
            {**SCST, "clip": "openai/clip-vit-base-patch32"},
            "--clip changes nothing without --reward clipscore; leave it out.",
        ),
        (
            "what",
            {"pretrain_epochs": 2},
            "--pretrain-epochs changes nothing without --pretrain-text; leave it out.",
        ),
        (
            "what",
            {"pretrain_text": Path("t"), "train_language_model": "frozen"},
            "--pretrain-text changes nothing with --train-language-model frozen; leave it out.",
        ),
        (
            "what",
            {**SCST, "pretrain_text": Path("t")},
            "--pretrain-text changes nothing with --objective scst; leave it out.",
        ),
        ("what", {"lora_rank": 0}, positive("--lora-rank", 0)),
        (
            "what",
            {"lora_targets": "c_fc"},
            "--lora-targets changes nothing without --lora-rank; leave it out.",
        ),
        (
            "what",
            {"lora_rank": 4, "train_language_model": "ends"},
            "--train-language-model changes nothing with --lora-rank, which trains nothing of it but "
            "adapters; leave it out.",
        ),
        (
            "what",
            {"family": "lstm", "lora_rank": 4, "checkpoint_activations": True},
            "--lora-rank and --checkpoint-activations change nothing with --family lstm; leave them out.",
        ),
        (
            "what",
            {**SCST, "reward": "bleu-4=0"},
            "--reward bleu-4=0: a weight is a number above zero, such as bleu-4=0.3.",
        ),
        (
            "what",
            {"train_encoder": True, "views": 2, "features": Path("f")},
            "--features and --views change nothing with --train-encoder, which sees new views at every step; "
            "leave them out.",
        ),
        (
            "what",
            {"colour": 0.0},
            "--colour changes nothing without --views 2 or more, or --train-encoder; leave it out.",
        ),
    ],
)
def test_what_train_cannot_do_is_said(group: str, changes: dict[str, Any], sentence: str) -> None:
    asked: dict[str, Any] = {"data": DATA, "what": WHAT, "run": RUN}
    asked[group] = replace(asked[group], **changes)
    with pytest.raises(OptionError) as caught:
        check_captioner(**asked)
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objective": "guess"}, "--objective guess is unknown; choose distill or contrastive."),
        (
            {"chunk_size": 8, "min_count": 1},
            "--chunk-size and --min-count change nothing with --objective distill; leave them out.",
        ),
        (
            {"objective": "contrastive", "reuse": 2},
            "--teacher and --reuse change nothing with --objective contrastive without --distill-weight; "
            "leave them out.",
        ),
        (
            {"objective": "contrastive", "teacher": None, "distill_weight": 0.5},
            "--distill-weight 0.5 has no teacher to learn from; name one with --teacher.",
        ),
        (
            {"objective": "contrastive", "distill_weight": 0.5, "init_from": "nano", "freeze_encoder": True},
            "--distill-weight 0.5 changes nothing with --freeze-encoder; leave one out.",
        ),
        (
            {"distill_weight": 0.5},
            "--distill-weight changes nothing with --objective distill; leave it out.",
        ),
        (
            {"objective": "contrastive", "teacher": None, "chunk_size": 512},
            "--chunk-size 512 is more than --batch-size 256; give a part of it, or leave it out.",
        ),
        (
            {"objective": "contrastive", "teacher": None, "freeze_encoder": True},
            "--freeze-encoder changes nothing without --init-from, for a new encoder has nothing to keep; "
            "leave it out.",
        ),
        (
            {"lora_rank": 4},
            "--lora-rank changes nothing with --objective distill; leave it out.",
        ),
        (
            {"objective": "contrastive", "teacher": None, "lora_targets": "q_proj"},
            "--lora-targets changes nothing without --lora-rank; leave it out.",
        ),
        (
            {
                "objective": "contrastive",
                "teacher": None,
                "init_from": "clip",
                "lora_rank": 4,
                "freeze_encoder": True,
            },
            "--freeze-encoder changes nothing with --lora-rank, which trains nothing but adapters; leave it "
            "out.",
        ),
        ({"lora_rank": 0}, positive("--lora-rank", 0)),
        ({"chunk_size": 0}, positive("--chunk-size", 0)),
        ({"captions_per_image": 0}, positive("--captions-per-image", 0)),
        ({"text_dropout": 1.0}, share("--text-dropout", 1.0)),
        ({"text_width": 33}, "--text-width 33 is not a multiple of 32; choose for example 160."),
        (
            {"teacher": None},
            "--teacher is missing; name the directory of a vision model that transformers loads.",
        ),
        ({"pool_views": 0}, positive("--pool-views", 0)),
        ({"reuse": -1}, positive("--reuse", -1)),
        ({"view_size": 0}, positive("--view-size", 0)),
        ({"validate_every": 0}, positive("--validate-every", 0)),
        ({"min_area": 7.0}, "--min-area 7.0 is no share of an image; give a number above 0 and at most 1."),
        ({"image_size": 50}, "--image-size 50 is not a multiple of 32; choose for example 192."),
        (
            {"init_from": "nano", "encoder_width": 16},
            "--encoder-width changes nothing with --init-from, which brings its own; leave it out.",
        ),
    ],
)
def test_what_train_encoder_cannot_do_is_said(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises((OptionError, EncoderError)) as caught:
        check_encoder(DATA, replace(ENCODER, **changes), ENCODER_RUN)
    assert str(caught.value) == sentence


def test_an_encoders_training_must_know_its_end() -> None:
    with pytest.raises(OptionError) as caught:
        check_encoder(DATA, ENCODER, replace(ENCODER_RUN, max_steps=None))
    assert str(caught.value) == (
        "--max-steps is missing; the learning rate needs to know where it ends: give for example 20000."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"family": "lstm", "views": 4, "min_area": 0.8},
        {"train_encoder": True, "min_area": 1.0, "colour": 0.0},
        {"language_model": "gpt2", "mapping": "transformer"},
        {"family": None, "encoder": None, "init_from": "nano", "views": 2},
        {"family": None, "encoder": "another", "init_from": "nano"},
        {**SCST, "encoder": "another"},
        {**SCST, "samples": 2, "reward": "cider-d,bleu-4=0.3", "train_encoder": True},
    ],
)
def test_what_can_be_done_passes(changes: dict[str, Any]) -> None:
    check_captioner(DATA, replace(WHAT, **changes), RUN)


def test_an_encoders_training_passes() -> None:
    check_encoder(DATA, ENCODER, ENCODER_RUN)


def test_a_resumed_run_may_change_its_limits_and_places_only() -> None:
    groups = (DATA, WHAT, RUN, ENCODER, ENCODER_RUN)
    names = {field.name for group in groups for field in fields(group)}
    assert names - set(fixed_options(*groups)) == {
        "data_dir", "device", "dtype", "epochs", "features", "learning_rate", "max_seconds", "max_steps",
        "output", "patience", "resume", "teacher", "validate_every", "warmup_ratio",
    }  # fmt: skip


def test_every_flag_has_help() -> None:
    for group in (DataOptions, RunOptions, CaptionerOptions, EncoderOptions, EncoderRunOptions):
        for field in fields(group):
            assert field.metadata["help"].endswith("."), field.name


def test_the_loop_gets_what_was_asked() -> None:
    run = replace(RUN, learning_rate=0.1, weight_decay=0.2, warmup_ratio=0.3, ema_decay=0.4, seed=5)
    options = run.loop(100, 10, 3)
    assert (options.max_steps, options.validate_every, options.patience, options.seed) == (100, 10, 3, 5)
    assert (options.learning_rate, options.weight_decay, options.warmup_ratio) == (0.1, 0.2, 0.3)
    assert options.ema_decay == 0.4
    assert replace(run, max_steps=7, max_seconds=8.0).loop(100, 10, None).max_steps == 7
    assert replace(run, max_steps=7, max_seconds=8.0).loop(100, 10, None).max_seconds == 8.0


@pytest.mark.parametrize(
    ("batch_size", "chunk_size", "sentence"),
    [
        (1, None, "--batch-size 1 leaves nothing to compare an image with; give 2 or more, better hundreds."),
        (64, 65, "--chunk-size 65 is more than --batch-size 64; give a part of it, or leave it out."),
    ],
)
def test_batches_that_cannot_be_compared_are_refused(
    batch_size: int, chunk_size: int | None, sentence: str
) -> None:
    what = EncoderOptions(objective="contrastive", chunk_size=chunk_size)
    with pytest.raises(OptionError) as caught:
        check_encoder(DATA, what, replace(ENCODER_RUN, batch_size=batch_size))
    assert str(caught.value) == sentence
