"""From options to a contrastive objective: which towers, which pairs.

In: what the user asked for of `pixtell train-encoder --objective contrastive`. Out: the objective, ready for
the loop.
"""

from collections.abc import Sequence
from dataclasses import replace

from pixtell.augment import ViewOptions
from pixtell.datasets.records import CaptionedImage
from pixtell.devices import Placement
from pixtell.encoders import EncoderSpec
from pixtell.encoders.clip_towers import load_clip_towers
from pixtell.encoders.nano import STRIDE, NanoEncoder, NanoEncoderConfig, load_nano_encoder
from pixtell.encoders.nano_text import NanoTextConfig, NanoTowers, has_text_tower, load_nano_towers
from pixtell.encoders.towers import Towers
from pixtell.errors import DatasetError, OptionError
from pixtell.images import Preprocess
from pixtell.tokenizers import WordTokenizer
from pixtell.training.contrastive import CaptionedImages, Contrastive, ContrastiveOptions
from pixtell.training.image_memory import load_split_images
from pixtell.training.lora import CLIP_TARGETS, add_adapters, parse_targets
from pixtell.training.run_options import DataOptions, EncoderOptions, EncoderRunOptions
from pixtell.training.split_records import Report, read_splits

_MEMORY_SCALE = 7 / 6  # how much larger than a view training images wait in memory, for crops to be sharp


def make_contrastive(
    data: DataOptions,
    what: EncoderOptions,
    run: EncoderRunOptions,
    spec: EncoderSpec | None,
    placement: Placement,
    report: Report,
) -> Contrastive:
    """spec: what --init-from names, of kind nano or clip; None for new towers.

    Raises: OptionError, DatasetError, EncoderError.
    """
    train_records, val_records = (
        _with_text(records, split, report)
        for split, records in zip(("train", "val"), read_splits(data, report), strict=True)
    )
    towers = choose_towers(what, spec, [text for record in train_records for text in record.captions])
    towers.requires_grad_(True)
    towers.image_backbone.requires_grad_(not what.freeze_encoder)
    if what.lora_rank is not None:
        targets = {"CLIP": parse_targets(what.lora_targets, CLIP_TARGETS)}
        add_adapters({"CLIP": towers}, rank=what.lora_rank, targets=targets)
        towers.logit_scale.requires_grad_(True)
    train_records = _without_unknown(train_records, towers, report)
    options = ContrastiveOptions(
        view_size=_view_size(what, towers),
        batch_size=run.batch_size or ContrastiveOptions.batch_size,
        chunk_size=what.chunk_size,
        captions_per_image=what.captions_per_image,
        views=ViewOptions(min_area=what.min_area or 1.0),
        seed=run.seed,
    )
    in_memory = replace(towers.preprocess, size=round(_MEMORY_SCALE * towers.preprocess.size))
    train = _load_pairs(train_records, in_memory, towers, report)
    val = _load_pairs(val_records, towers.preprocess, towers, report)
    report(
        f"{len(train.images):,} training and {len(val.images):,} validation images, "
        f"{len(train.text_ids):,} and {len(val.text_ids):,} different captions, "
        f"{sum(p.numel() for p in towers.parameters() if p.requires_grad):,} parameters to train"
    )
    return Contrastive(towers=towers, train=train, val=val, options=options, device=placement.device)


def choose_towers(what: EncoderOptions, spec: EncoderSpec | None, captions: Sequence[str]) -> Towers:
    """The towers to train: loaded, or new where there is nothing to load.

    captions: a new text tower's words are those seen often enough in them.
    Raises: OptionError, DatasetError, EncoderError.
    """
    if spec is not None and (spec.kind == "clip" or has_text_tower(spec)):
        _refuse_new_text(what)
        return load_clip_towers(spec) if spec.kind == "clip" else load_nano_towers(spec)
    encoder = (
        NanoEncoder(config=NanoEncoderConfig(width=what.encoder_width, image_size=what.image_size))
        if spec is None
        else load_nano_encoder(spec)
    )
    tokenizer = WordTokenizer.train(captions, min_count=what.min_count)
    config = NanoTextConfig(width=what.text_width, dropout=what.text_dropout)
    return NanoTowers(encoder=encoder, config=config, tokenizer=tokenizer, learn_statistics=spec is None)


def _with_text(records: Sequence[CaptionedImage], split: str, report: Report) -> list[CaptionedImage]:
    """The records that have a caption, without the empty ones. Raises: DatasetError where fewer than two are
    left."""
    said = [replace(r, captions=tuple(text for text in r.captions if text.strip())) for r in records]
    kept = [record for record in said if record.captions]
    if len(kept) < len(records):
        report(f"{split}: {len(records) - len(kept):,} images without a caption, left out")
    _require_two(kept, split)
    return kept


def _require_two(records: Sequence[CaptionedImage], split: str) -> None:
    if len(records) < 2:
        count = "one image" if records else "no image"
        raise DatasetError(
            f"The split {split} has {count} with captions, and contrastive training compares images with "
            "each other: give two or more."
        )


def _without_unknown(
    records: Sequence[CaptionedImage], towers: Towers, report: Report
) -> list[CaptionedImage]:
    """The records without captions of which the text tower knows no word: to it they would all be equal."""
    kept = []
    for record in records:
        captions = tuple(text for text in record.captions if towers.knows(text))
        if captions:
            kept.append(replace(record, captions=captions))
    lost = sum(len(r.captions) for r in records) - sum(len(r.captions) for r in kept)
    if lost:
        report(f"train: {lost:,} captions without a known word, left out")
    _require_two(kept, "train")
    return kept


def _load_pairs(
    records: Sequence[CaptionedImage], preprocess: Preprocess, towers: Towers, report: Report
) -> CaptionedImages:
    kept, images = load_split_images(records, preprocess, report)
    _require_two(kept, kept[0].split)
    return CaptionedImages.make(images, [record.captions for record in kept], towers.encode)


def _view_size(what: EncoderOptions, towers: Towers) -> int:
    size = towers.preprocess.size
    if isinstance(towers, NanoTowers):
        asked = what.view_size or size
        if asked % STRIDE:
            raise OptionError(f"--view-size {asked} is not a multiple of {STRIDE}; choose for example 128.")
        if towers.learn_statistics and asked < 2 * STRIDE:  # one image of one cell has no spread
            raise OptionError(
                f"--view-size {asked} is too small for a new encoder; give {2 * STRIDE} or more."
            )
        return asked
    if what.view_size not in (None, size):
        raise OptionError(
            f"--view-size {what.view_size} is not for {towers.name}, which sees {size} pixels a side; leave "
            "it out."
        )
    return size


def _refuse_new_text(what: EncoderOptions) -> None:
    new = EncoderOptions()
    given = [
        flag
        for flag, value, usual in (
            ("--text-width", what.text_width, new.text_width),
            ("--text-dropout", what.text_dropout, new.text_dropout),
            ("--min-count", what.min_count, new.min_count),
        )
        if value != usual
    ]
    if given:
        raise OptionError(
            f"{' and '.join(given)} belong to a new text tower, and --init-from {what.init_from} brings one; "
            "leave them out."
        )
