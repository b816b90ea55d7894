"""From options to a run of `pixtell train`, without the command line.

In: what the user asked for. Out: a run directory. Here data set, encoder, feature cache, tokenizer, model
and objective meet; what each does is theirs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from pixtell.augment import ViewOptions
from pixtell.batching import encode_captions
from pixtell.checkpoints import (
    Checkpoint,
    CheckpointConfig,
    load_checkpoint,
    model_config_json,
    save_checkpoint,
)
from pixtell.converters import find_gpt2, load_gpt2
from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.decoding import DecodingOptions
from pixtell.devices import Placement, choose_placement
from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.base import Encoder, EncoderSpec
from pixtell.errors import OptionError
from pixtell.features import FeatureCache
from pixtell.models import FAMILIES, CaptionModel, build_model
from pixtell.models.clipcap import ClipCap
from pixtell.options import check_positive
from pixtell.reports import write_training_curves
from pixtell.tokenizers import Gpt2Tokenizer, Tokenizer, WordTokenizer
from pixtell.training.cross_entropy import CachedFeatures, CrossEntropy, FeatureSource, PixelFeatures
from pixtell.training.image_memory import load_split_images
from pixtell.training.loop import Progress, RunResult, train
from pixtell.training.run_options import CaptionerOptions, DataOptions, RunOptions
from pixtell.training.split_features import extract_split

# model, tokenizer, batches of validation features, references, decoding options -> numbers:
# `evaluation.validation_scores`
Validate = Callable[..., dict[str, float]]
Report = Callable[[str], None]  # takes one line about what the job is doing


@dataclass(frozen=True)
class _Inputs:
    """The two splits with their features, however they come about."""

    train_records: Sequence[CaptionedImage]
    val_records: Sequence[CaptionedImage]
    source: FeatureSource
    val_features: Callable[[], list[torch.Tensor]]


def train_captioner(
    data: DataOptions,
    what: CaptionerOptions,
    run: RunOptions,
    *,
    validate: Validate,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    report: Report = lambda line: None,
) -> RunResult:
    """Train a captioner with cross-entropy and write the run directory: checkpoints, metrics.jsonl,
    curves.svg.

    Raises: OptionError, DatasetError, EncoderError, CheckpointError, ModelError, FeatureCacheError before
    anything is trained; TrainingError.
    """
    check_positive(what, "views", "epochs", "min_count", "max_tokens", "patience")
    placement = choose_placement(run.device, run.dtype, training=True)
    report(f"device: {placement.reason}")
    dataset = load_dataset(data.dataset, data.data_dir)
    for warning in dataset.warnings:
        report(warning)
    train_records, val_records = (dataset.split(split)[: data.limit] for split in ("train", "val"))
    initial = load_checkpoint(what.init_from) if what.init_from else None
    spec, encoder = _choose_encoder(what, initial)
    encoder = encoder.to(placement.device)
    torch.manual_seed(run.seed)
    tokenizer = _choose_tokenizer(what, initial, train_records)
    model, config = _choose_model(what, initial, encoder, spec, tokenizer)
    model.to(placement.device)
    prepare = _inputs_from_pixels if what.train_encoder else _inputs_from_cache
    inputs = prepare(what, run, encoder, train_records, val_records, placement, report)
    references = {record.image_id: record.captions for record in inputs.val_records}
    moved = encoder if what.train_encoder and isinstance(encoder, nn.Module) else None
    objective = CrossEntropy(
        model=model,
        features=inputs.source,
        token_ids=encode_captions(
            [r.captions for r in inputs.train_records], tokenizer, max_tokens=what.max_tokens
        ),
        ignored_ids=tokenizer.forbidden_ids,
        batch_size=run.batch_size,
        label_smoothing=what.label_smoothing,
        seed=run.seed,
        device=placement.device,
        evaluate=lambda: validate(
            model, tokenizer, inputs.val_features(), references, DecodingOptions(**config.decoding)
        ),
        save=lambda directory: save_checkpoint(
            directory, config=config, model=model, tokenizer=tokenizer, moved_encoder=moved
        ),
    )
    size = sum(p.numel() for p in objective.module.parameters() if p.requires_grad)
    report(
        f"{len(inputs.train_records):,} training and {len(inputs.val_records):,} validation images, "
        f"{size:,} parameters to train"
    )
    options = run.loop(what.epochs * objective.steps_per_epoch, objective.steps_per_epoch, what.patience)
    result = train(objective, options, run.output, placement, resume=run.resume, on_progress=on_progress)
    write_training_curves(run.output)
    return result


def _inputs_from_cache(
    what: CaptionerOptions,
    run: RunOptions,
    encoder: Encoder,
    train_records: Sequence[CaptionedImage],
    val_records: Sequence[CaptionedImage],
    placement: Placement,
    report: Report,
) -> _Inputs:
    """Every image through the encoder once (once a view), before training."""
    directory = what.features or run.output / "features"
    cache = extract_split(
        encoder,
        train_records,
        directory,
        placement,
        views=what.views,
        how=_view_options(what),
        seed=run.seed,
        report=report,
    )
    val_cache = extract_split(encoder, val_records, directory, placement, report=report)
    train_kept, val_kept = _kept(train_records, cache), _kept(val_records, val_cache)
    source = CachedFeatures(
        cache=cache, image_ids=[record.image_id for record in train_kept], device=placement.device
    )
    val_rows = val_cache.rows([record.image_id for record in val_kept])

    def val_features() -> list[torch.Tensor]:
        return [part.to(placement.device).float() for part in torch.split(val_rows, 100)]

    return _Inputs(train_kept, val_kept, source, val_features)


def _inputs_from_pixels(
    what: CaptionerOptions,
    run: RunOptions,
    encoder: Encoder,
    train_records: Sequence[CaptionedImage],
    val_records: Sequence[CaptionedImage],
    placement: Placement,
    report: Report,
) -> _Inputs:
    """Images in memory; every step encodes new views of them, and the encoder learns."""
    train_kept, images = load_split_images(train_records, encoder.preprocess, report)
    val_kept, val_images = load_split_images(val_records, encoder.preprocess, report)
    source = PixelFeatures(
        encoder=encoder, images=images, views=_view_options(what), seed=run.seed, device=placement.device
    )

    def val_features() -> list[torch.Tensor]:
        return [
            encoder(encoder.preprocess.normalise(part.to(placement.device)))
            for part in torch.split(val_images, 64)
        ]

    return _Inputs(train_kept, val_kept, source, val_features)


def _choose_encoder(what: CaptionerOptions, initial: Checkpoint | None) -> tuple[EncoderSpec, Encoder]:
    if initial is not None:
        if what.encoder or what.family:
            raise OptionError(
                "--init-from brings its own family and encoder; leave --family and --encoder out."
            )
        return initial.config.encoder.located(initial.directory), initial.encoder
    if what.family not in FAMILIES:
        raise OptionError(
            f"--family {what.family} is unknown; choose one of {', '.join(FAMILIES)}, or start with "
            "--init-from."
        )
    if what.encoder is None:
        raise OptionError(
            "--encoder is missing; choose nano, vgg16, a directory, a weights file or a hub id."
        )
    spec = parse_encoder(what.encoder, what.encoder_output)
    return spec, load_encoder(spec)


def _choose_tokenizer(
    what: CaptionerOptions, initial: Checkpoint | None, records: Sequence[CaptionedImage]
) -> Tokenizer:
    if initial is not None:
        return initial.tokenizer
    if what.family == "clipcap" and what.language_model is not None:
        return Gpt2Tokenizer.load(find_gpt2(what.language_model))
    captions = [caption for record in records for caption in record.captions]
    return WordTokenizer.train(captions, min_count=what.min_count)


def _choose_model(
    what: CaptionerOptions,
    initial: Checkpoint | None,
    encoder: Encoder,
    spec: EncoderSpec,
    tokenizer: Tokenizer,
) -> tuple[CaptionModel, CheckpointConfig]:
    if initial is not None:
        return initial.model, replace(initial.config, encoder=spec)
    assert what.family is not None
    feature_dim = encoder.feature_shape[-1]
    if what.family == "lstm":
        sizes: dict[str, Any] = {
            "feature_dim": feature_dim,
            "vocab_size": tokenizer.vocab_size,
            "width": what.width or 256,
        }
        if what.dropout is not None:
            sizes["dropout"] = what.dropout
    else:
        sizes = _clipcap_sizes(what, encoder, tokenizer)
    model = build_model(what.family, {**sizes, "normalise_features": what.normalise_features})
    if isinstance(model, ClipCap) and what.language_model is not None:
        model.gpt2.load_state_dict(load_gpt2(what.language_model)[1])
    return model, CheckpointConfig(what.family, model_config_json(model.config), spec, tokenizer.kind)


def _clipcap_sizes(what: CaptionerOptions, encoder: Encoder, tokenizer: Tokenizer) -> dict[str, Any]:
    is_grid = len(encoder.feature_shape) == 2
    if what.language_model is not None:
        gpt2 = model_config_json(load_gpt2(what.language_model)[0])
    else:
        width = what.width or 256
        gpt2 = {
            "vocab_size": tokenizer.vocab_size,
            "width": width,
            "num_layers": what.num_layers,
            "num_heads": max(1, width // 64),
        }
        gpt2["max_positions"] = (
            what.max_tokens + (encoder.feature_shape[0] + 1 if is_grid else what.prefix_length or 10) + 8
        )
    if what.dropout is not None:
        gpt2["dropout"] = what.dropout
    return {
        "feature_dim": encoder.feature_shape[-1],
        "num_patches": encoder.feature_shape[0] if is_grid else None,
        "mapping": what.mapping or ("patch" if is_grid else "mlp"),
        "prefix_length": what.prefix_length,
        "feature_dropout": what.feature_dropout,
        "language_model": what.train_language_model,
        "gpt2": gpt2,
    }


def _view_options(what: CaptionerOptions) -> ViewOptions:
    """Views under which a caption stays true: no mirror images, since captions say left and right."""
    return ViewOptions(min_area=what.min_area, flip=0.0, colour=what.colour)


def _kept(records: Sequence[CaptionedImage], cache: FeatureCache) -> list[CaptionedImage]:
    """The records whose image could be read."""
    return [record for record in records if record.image_id in cache]
