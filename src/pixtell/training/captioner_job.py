"""From options to a run of `pixtell train`, without the command line.

In: what the user asked for. Out: a run directory. Here data set, encoder, feature cache, tokenizer, model
and objective meet; what each does is theirs.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from pixtell.batching import encode_captions
from pixtell.checkpoints import save_checkpoint
from pixtell.datasets.records import CaptionedImage
from pixtell.decoding import DecodingOptions
from pixtell.devices import Placement, choose_placement, prepare_training
from pixtell.embedder import Embedder
from pixtell.encoders.base import Encoder
from pixtell.features import FeatureCache
from pixtell.reports import write_training_curves
from pixtell.training.captioner_options import CaptionerOptions, check_captioner
from pixtell.training.captioner_parts import CaptionerParts, choose_parts
from pixtell.training.cross_entropy import CrossEntropy
from pixtell.training.feature_sources import CachedFeatures, FeatureSource, PixelFeatures
from pixtell.training.image_batches import ImageBatches
from pixtell.training.image_memory import load_split_images
from pixtell.training.loop import Progress, RunResult, train
from pixtell.training.lora import without_adapters
from pixtell.training.pretraining import pretrain, pretraining_directory, read_new_captions
from pixtell.training.rewards import RewardSources, make_reward, parse_reward
from pixtell.training.run_files import RunDirectory
from pixtell.training.run_options import DataOptions, RunOptions, fixed_options
from pixtell.training.scst import SelfCritical
from pixtell.training.split_features import extract_split
from pixtell.training.split_records import (
    Report,
    Splits,
    choose_records,
    held_out_captions,
    read_dataset,
)

# model, tokenizer, batches of validation features, references, decoding options -> numbers:
# `evaluation.validation_scores`
Validate = Callable[..., dict[str, float]]

_VALIDATION_BATCH = 64  # images
_LEARNING_RATES = {"cross-entropy": 5e-4, "scst": 5e-5}  # where none is given


@dataclass(frozen=True)
class _Inputs:
    """The two splits with their features, however they come about."""

    train_records: Sequence[CaptionedImage]
    val_records: Sequence[CaptionedImage]
    source: FeatureSource
    val_features: Callable[[], Iterator[torch.Tensor]]  # batches (B, F) or (B, N, F)


def train_captioner(
    data: DataOptions,
    what: CaptionerOptions,
    run: RunOptions,
    *,
    validate: Validate,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    report: Report = lambda line: None,
) -> RunResult:
    """Train a captioner and write the run directory: checkpoints, metrics.jsonl, curves.svg.

    Raises: OptionError, DatasetError, EncoderError, CheckpointError, ModelError, FeatureCacheError before
    anything is trained; TrainingError; StorageError.
    """
    check_captioner(data, what, run)
    placement = choose_placement(run.device, run.dtype, training=True)
    prepare_training(placement)
    directory = RunDirectory(run.output)
    first_phase = None if what.pretrain_text is None else pretraining_directory(run.output)
    with directory.begin(fixed_options(data, what, run), resume=run.resume, first_phase=first_phase):
        return _train(data, what, run, placement, validate, on_progress, report)


def _train(
    data: DataOptions,
    what: CaptionerOptions,
    run: RunOptions,
    placement: Placement,
    validate: Validate,
    on_progress: Callable[[Progress], None],
    report: Report,
) -> RunResult:
    """What can still be refused once the flags are known to be good; then the training."""
    report(f"device: {placement.reason}")
    dataset = read_dataset(data, report)
    splits = choose_records(dataset, data)
    torch.manual_seed(run.seed)
    parts = choose_parts(what, splits[0])
    parts.model.to(placement.device)
    begun = RunDirectory(run.output).last is not None
    if what.pretrain_text is not None and not begun:
        started = time.monotonic()
        captions = read_new_captions(what.pretrain_text, held_out_captions(dataset), report)
        val_captions = [caption for record in splits[1] for caption in record.captions]
        result = pretrain(what, run, parts, captions, val_captions, placement, on_progress)
        if not result.finished:
            return result
        report(f"text: {result.reason}; mean log-probability of a token {result.best_value:.3f}")
        if run.max_seconds is not None:
            run = replace(run, max_seconds=max(1e-9, run.max_seconds - (time.monotonic() - started)))
    embedder = None if what.clip is None else Embedder.from_pretrained(what.clip, device=run.device)
    encoder = parts.encoder.to(placement.device)
    make_inputs = _inputs_from_pixels if what.train_encoder else _inputs_from_cache
    inputs = make_inputs(what, run, encoder, splits, placement, report)
    objective = _make_objective(what, run, parts, inputs, embedder, validate)
    size = sum(p.numel() for p in objective.module.parameters() if p.requires_grad)
    report(
        f"{len(inputs.train_records):,} training and {len(inputs.val_records):,} validation images, "
        f"{size:,} parameters to train"
    )
    if len(inputs.val_records) == 1:
        report(
            f"val: {objective.best_metric} of one image is 0 by construction, so the first validation stays "
            "the best; give more images to validate on."
        )
    an_epoch = objective.batches.steps_per_epoch
    options = run.loop(what.epochs * an_epoch, an_epoch, what.patience, _LEARNING_RATES[what.objective])
    options = replace(options, accumulate=what.accumulate)
    result = train(objective, options, run.output, placement, resume=begun, on_progress=on_progress)
    write_training_curves(run.output)
    return result


def _make_objective(
    what: CaptionerOptions,
    run: RunOptions,
    parts: CaptionerParts,
    inputs: _Inputs,
    embedder: Embedder | None,
    validate: Validate,
) -> CrossEntropy | SelfCritical:
    captions = [record.captions for record in inputs.train_records]
    references = {record.image_id: record.captions for record in inputs.val_records}
    decoding = DecodingOptions(**parts.config.decoding)
    device = next(parts.model.parameters()).device
    moved = parts.encoder if parts.encoder_moved else None
    assert moved is None or isinstance(moved, nn.Module)
    token_ids = encode_captions(captions, parts.tokenizer, max_tokens=what.max_tokens)
    batches = ImageBatches(
        num_images=len(captions), batch_size=run.batch_size, accumulate=what.accumulate, seed=run.seed
    )

    def evaluate() -> dict[str, float]:
        return validate(parts.model, parts.tokenizer, inputs.val_features(), references, decoding)

    def save(directory: Path) -> None:
        save_checkpoint(
            directory,
            config=parts.config,
            model=without_adapters(parts.model),
            tokenizer=parts.tokenizer,
            moved_encoder=None if moved is None else without_adapters(moved),
        )

    if what.objective == "scst":
        sources = RewardSources(captions, [record.image for record in inputs.train_records], embedder)
        return SelfCritical(
            model=parts.model,
            features=inputs.source,
            tokenizer=parts.tokenizer,
            reward=make_reward(parse_reward(what.reward), sources),
            batches=batches,
            num_samples=what.samples,
            max_tokens=what.max_tokens,
            device=device,
            evaluate=evaluate,
            save=save,
        )
    return CrossEntropy(
        model=parts.model,
        features=inputs.source,
        token_ids=token_ids,
        ignored_ids=parts.tokenizer.forbidden_ids,
        batches=batches,
        label_smoothing=what.label_smoothing,
        device=device,
        evaluate=evaluate,
        save=save,
    )


def _inputs_from_cache(
    what: CaptionerOptions,
    run: RunOptions,
    encoder: Encoder,
    splits: Splits,
    placement: Placement,
    report: Report,
) -> _Inputs:
    """Every image through the encoder once (once a view), before training."""
    directory = what.features or run.output / "features"
    report(f"features of {sum(map(len, splits)):,} images: what {directory} lacks is extracted now")
    cache = extract_split(
        encoder,
        splits[0],
        directory,
        placement,
        views=what.views,
        how=what.view_options(),
        seed=run.seed,
        report=report,
    )
    val_cache = extract_split(encoder, splits[1], directory, placement, report=report)
    train_kept, val_kept = _kept(splits[0], cache), _kept(splits[1], val_cache)
    train_ids, val_ids = ([record.image_id for record in kept] for kept in (train_kept, val_kept))

    def val_features() -> Iterator[torch.Tensor]:
        for start in range(0, len(val_ids), _VALIDATION_BATCH):
            rows = val_cache.rows(val_ids[start : start + _VALIDATION_BATCH])  # (B, F) or (B, N, F)
            yield rows.to(placement.device).float()

    source = CachedFeatures(cache=cache, image_ids=train_ids, device=placement.device)
    return _Inputs(train_kept, val_kept, source, val_features)


def _inputs_from_pixels(
    what: CaptionerOptions,
    run: RunOptions,
    encoder: Encoder,
    splits: Splits,
    placement: Placement,
    report: Report,
) -> _Inputs:
    """Images in memory; every step encodes new views of them, and the encoder learns."""
    train_kept, images = load_split_images(splits[0], encoder.preprocess, report)
    val_kept, val_images = load_split_images(splits[1], encoder.preprocess, report)

    def val_features() -> Iterator[torch.Tensor]:
        for part in torch.split(val_images, _VALIDATION_BATCH):
            yield encoder(encoder.preprocess.normalise(part.to(placement.device)))

    source = PixelFeatures(
        encoder=encoder, images=images, views=what.view_options(), seed=run.seed, device=placement.device
    )
    return _Inputs(train_kept, val_kept, source, val_features)


def _kept(records: Sequence[CaptionedImage], cache: FeatureCache) -> list[CaptionedImage]:
    """The records whose image could be read."""
    return [record for record in records if record.image_id in cache]
