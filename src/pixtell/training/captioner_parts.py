"""The parts of a captioner before its training: encoder, tokenizer and model, new or from another model.

In: what the user asked for, and the captions to find words in. Out: `CaptionerParts`. It reads no image.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn

from pixtell.checkpoints import (
    CheckpointConfig,
    find_checkpoint,
    load_checkpoint,
    load_head,
    model_config_json,
    read_config,
)
from pixtell.converters import find_gpt2, load_gpt2
from pixtell.datasets.records import CaptionedImage
from pixtell.encoders import ENCODERS, EncoderSpec, load_encoder, parse_encoder, weights_sha256
from pixtell.encoders.base import Encoder
from pixtell.errors import ModelError, OptionError
from pixtell.models import CaptionModel, build_model
from pixtell.models.clipcap import ClipCap
from pixtell.models.gpt2 import Gpt2
from pixtell.tokenizers import Gpt2Tokenizer, Tokenizer, WordTokenizer
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.lora import CLIP_TARGETS, add_adapters, parse_targets

_LEAST_TOKENS = 64  # room for captions in our own GPT-2, whatever the training captions need
_HEAD_DIM = 64  # of its attention, at least
# whose layers get adapters, and which
_LORA_TARGETS = {"language model": ("c_attn",), "encoder": CLIP_TARGETS}


@dataclass(frozen=True)
class CaptionerParts:
    """What will be trained, on the CPU, and the config.json that describes it.

    encoder_moved: the encoder's weights are those of a run, not of the place that config.encoder names.
    """

    encoder: Encoder
    tokenizer: Tokenizer
    model: CaptionModel
    config: CheckpointConfig
    encoder_moved: bool


def choose_parts(what: CaptionerOptions, records: Sequence[CaptionedImage]) -> CaptionerParts:
    """The parts of `--init-from`, or new ones. Random weights come from torch's global generator.

    records: of the training split, for the words of a new tokenizer.
    Raises: CheckpointError, EncoderError, ModelError, DownloadError; DatasetError where no word is common;
    OptionError for a flag that this family or these layers do not have.
    """
    if what.init_from is not None and what.encoder is not None:
        parts = _head_on_encoder(what, what.init_from, what.encoder)
    elif what.init_from is not None:
        parts = _parts_of_checkpoint(what, what.init_from)
    else:
        parts = _new_parts(what, records)
    if what.train_encoder:
        assert isinstance(parts.encoder, nn.Module)
        parts.encoder.requires_grad_(True)
    if what.checkpoint_activations:
        _gpt2_of(parts.model, "--checkpoint-activations").checkpoint_activations = True
    if what.lora_rank is not None:
        _add_lora(what, what.lora_rank, parts)
    return parts


def _add_lora(what: CaptionerOptions, rank: int, parts: CaptionerParts) -> None:
    modules: dict[str, nn.Module] = {"language model": _gpt2_of(parts.model, "--lora-rank")}
    if what.train_encoder:
        assert isinstance(parts.encoder, nn.Module)
        modules["encoder"] = parts.encoder
    targets = {word: parse_targets(what.lora_targets, _LORA_TARGETS[word]) for word in modules}
    add_adapters(modules, rank=rank, targets=targets)


def _gpt2_of(model: CaptionModel, flag: str) -> Gpt2:
    if not isinstance(model, ClipCap):
        raise OptionError(f"{flag} changes nothing in a model without a GPT-2; leave it out.")
    return model.gpt2


def _new_parts(what: CaptionerOptions, records: Sequence[CaptionedImage]) -> CaptionerParts:
    assert what.family is not None
    assert what.encoder is not None
    spec, encoder = _load_new(parse_encoder(what.encoder, what.encoder_output))
    tokenizer, model = _FAMILIES[what.family](what, encoder, records)
    config = CheckpointConfig(what.family, model_config_json(model.config), spec, tokenizer.kind)
    return CaptionerParts(encoder, tokenizer, model, config, encoder_moved=what.train_encoder)


def _load_new(spec: EncoderSpec) -> tuple[EncoderSpec, Encoder]:
    """An encoder, and its spec with the hash of its weights."""
    encoder = load_encoder(spec)
    assert isinstance(encoder, nn.Module)
    if spec.name is None:  # what ships in the package changes with the package alone
        spec = replace(spec, sha256=weights_sha256(encoder))
    return spec, encoder


def _head_on_encoder(what: CaptionerOptions, source: str, name: str) -> CaptionerParts:
    """The model and the words of `source` on another encoder, whose features they take; its own encoder may
    be gone, or have changed."""
    directory = find_checkpoint(source)
    config = read_config(directory)
    model, tokenizer = load_head(directory, config)
    spec, output = parse_encoder(name), config.encoder.output
    if output not in ENCODERS[spec.kind].outputs:
        raise OptionError(
            f"--encoder {name} gives no {output}, and --init-from {source} was trained on such; name an "
            "encoder that does, or train a new model with --family."
        )
    spec, encoder = _load_new(replace(spec, output=output))
    try:
        with torch.no_grad():
            model.start(torch.zeros(1, *encoder.feature_shape))  # (1, F) or (1, N, F)
    except ModelError as cause:
        raise OptionError(
            f"--encoder {name} does not suit --init-from {source}: {str(cause)[0].lower()}{str(cause)[1:]}"
        ) from cause
    return CaptionerParts(
        encoder, tokenizer, model, replace(config, encoder=spec), encoder_moved=what.train_encoder
    )


def _parts_of_checkpoint(what: CaptionerOptions, source: str) -> CaptionerParts:
    initial = load_checkpoint(source)
    moved = what.train_encoder or (initial.directory / "encoder.safetensors").exists()
    config = replace(initial.config, encoder=initial.config.encoder.located(initial.directory))
    return CaptionerParts(initial.encoder, initial.tokenizer, initial.model, config, encoder_moved=moved)


def _new_lstm(
    what: CaptionerOptions, encoder: Encoder, records: Sequence[CaptionedImage]
) -> tuple[Tokenizer, CaptionModel]:
    tokenizer = _train_tokenizer(what, records)
    sizes: dict[str, Any] = {
        "feature_dim": encoder.feature_shape[-1],
        "vocab_size": tokenizer.vocab_size,
        "width": what.width or 256,
        "normalise_features": what.normalise_features,
    }
    if what.dropout is not None:
        sizes["dropout"] = what.dropout
    return tokenizer, build_model("lstm", sizes)


def _new_clipcap(
    what: CaptionerOptions, encoder: Encoder, records: Sequence[CaptionedImage]
) -> tuple[Tokenizer, CaptionModel]:
    num_patches = encoder.feature_shape[0] if len(encoder.feature_shape) == 2 else None
    tokenizer: Tokenizer
    if what.language_model is None:
        tokenizer, weights = _train_tokenizer(what, records), None
        prefix_length = what.prefix_length or (10 if num_patches is None else num_patches + 1)
        gpt2 = _own_gpt2(what, tokenizer, prefix_length)
    else:
        directory = find_gpt2(what.language_model)
        tokenizer = Gpt2Tokenizer.load(directory)
        gpt2_config, weights = load_gpt2(directory)
        gpt2 = asdict(gpt2_config)
    if what.dropout is not None:
        gpt2["dropout"] = what.dropout
    sizes = {
        "feature_dim": encoder.feature_shape[-1],
        "num_patches": num_patches,
        "mapping": what.mapping or ("mlp" if num_patches is None else "patch"),
        "prefix_length": what.prefix_length,
        "normalise_features": what.normalise_features,
        "feature_dropout": what.feature_dropout,
        "language_model": what.train_language_model,
        "gpt2": gpt2,
    }
    model = build_model("clipcap", sizes)
    if weights is not None:
        assert isinstance(model, ClipCap)
        model.gpt2.load_state_dict(weights)
    return tokenizer, model


def _own_gpt2(what: CaptionerOptions, tokenizer: Tokenizer, prefix_length: int) -> dict[str, Any]:
    width = what.width or 256
    heads = max(count for count in range(1, max(2, width // _HEAD_DIM + 1)) if width % count == 0)
    return {
        "vocab_size": tokenizer.vocab_size,
        "width": width,
        "num_layers": what.num_layers,
        "num_heads": heads,
        "max_positions": prefix_length + max(what.max_tokens, _LEAST_TOKENS),
    }


def _train_tokenizer(what: CaptionerOptions, records: Sequence[CaptionedImage]) -> WordTokenizer:
    captions = [caption for record in records for caption in record.captions]
    return WordTokenizer.train(captions, min_count=what.min_count)


# family -> how its new models are made from the flags
_FAMILIES: dict[
    str,
    Callable[[CaptionerOptions, Encoder, Sequence[CaptionedImage]], tuple[Tokenizer, CaptionModel]],
] = {"clipcap": _new_clipcap, "lstm": _new_lstm}
