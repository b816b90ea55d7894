"""What a person can ask of a training: the flags of `pixtell train` and `pixtell train-encoder`.

Each field is a flag; its default and its help exist here and nowhere else. A field that `may_change` can be
another when a run is resumed. The rules across fields run first, before anything is read: `check_captioner`,
`check_encoder`.
"""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pixtell.augment import ViewOptions
from pixtell.encoders.nano import NanoEncoderConfig
from pixtell.errors import OptionError
from pixtell.models import FAMILIES
from pixtell.options import check_positive, flag_name, option
from pixtell.training.distillation import DistillationOptions
from pixtell.training.loop import LoopOptions


@dataclass(frozen=True)
class DataOptions:
    """Which pictures."""

    dataset: str = option("folder", "Data set: flickr8k, folder (one's own) or shapes (generated).")
    data_dir: Path | None = option(None, "Where the data set lies; shapes needs none.", may_change=True)
    limit: int | None = option(None, "Use only the first N images of each split.")


@dataclass(frozen=True)
class RunOptions:
    """How long, how fast, where to."""

    output: Path = option(None, "The run's directory.", required=True, may_change=True)
    max_steps: int | None = option(None, "Stop after N updates, whatever the epochs.", may_change=True)
    max_seconds: float | None = option(
        None, "Stop cleanly after S seconds; --resume goes on.", may_change=True
    )
    batch_size: int = option(64, "Images a step.")
    learning_rate: float = option(5e-4, "Peak learning rate.", may_change=True)
    weight_decay: float = option(0.05, "AdamW's weight decay.")
    warmup_ratio: float = option(
        0.05, "Share of the steps in which the learning rate rises.", may_change=True
    )
    ema_decay: float | None = option(
        None, "Average the weights with this decay, e.g. 0.999; not given: no average."
    )
    seed: int = option(0, "Seed of everything random.")
    resume: bool = option(False, "Go on with the run that lies in --output.", may_change=True)
    device: str = option("auto", "auto, cpu, cuda or mps.", may_change=True)
    dtype: str = option("auto", "auto, fp32 or bf16 arithmetic.", may_change=True)

    def loop(self, max_steps: int, validate_every: int, patience: int | None) -> LoopOptions:
        """max_steps: where --max-steps is not given."""
        return LoopOptions(
            max_steps=self.max_steps or max_steps,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            warmup_ratio=self.warmup_ratio,
            ema_decay=self.ema_decay,
            validate_every=validate_every,
            patience=patience,
            max_seconds=self.max_seconds,
            seed=self.seed,
        )


@dataclass(frozen=True)
class CaptionerOptions:
    """What is trained on cross-entropy, and from what."""

    family: str | None = option(None, "lstm or clipcap; with --init-from it comes from there.")
    encoder: str | None = option(
        None, "nano, vgg16, a directory, a weights file or a hub id; with --init-from it comes from there."
    )
    encoder_output: str | None = option(
        None, "embedding, pooled or patches; not given: the encoder's usual one."
    )
    init_from: str | None = option(None, "Start from this model: nano, nano-lstm, a directory or a hub id.")
    features: Path | None = option(
        None, "Directory of feature caches to use and fill; not given: inside --output.", may_change=True
    )
    views: int = option(
        1, "Cached views of every training image, the first one plain, the others cropped and recoloured."
    )
    min_area: float = option(0.6, "Smallest crop of a view, as a share of the image; 1: no crop.")
    colour: float = option(0.2, "Largest change of a view's brightness, contrast and saturation; 0: none.")
    train_encoder: bool = option(False, "Train the encoder too, end to end from pixels.")
    mapping: str | None = option(
        None, "clipcap: mlp, transformer, encoder or patch; not given: patch for patches, else mlp."
    )
    prefix_length: int | None = option(
        None, "clipcap: prefix positions; not given: the mapping's usual number."
    )
    language_model: str | None = option(
        None, "clipcap: a GPT-2 directory or hub id; not given: a small one of our own, from scratch."
    )
    train_language_model: str = option(
        "all", "clipcap: train all of GPT-2, its two ends, or nothing of it (frozen)."
    )
    width: int | None = option(None, "Width of the LSTM or of our own small GPT-2; not given: 256.")
    num_layers: int = option(4, "Layers of our own small GPT-2.")
    dropout: float | None = option(None, "Dropout inside the model; not given: the family's usual one.")
    feature_dropout: float = option(0.0, "clipcap: share of feature values zeroed in training.")
    normalise_features: bool = option(False, "Scale feature vectors to length 1 first.")
    min_count: int = option(4, "Words seen less often in the training captions are unknown (word tokenizer).")
    max_tokens: int = option(40, "Training captions are cut after this many tokens.")
    epochs: int = option(15, "Passes over the training images.", may_change=True)
    label_smoothing: float = option(0.1, "Probability spread over all tokens by the loss.")
    patience: int | None = option(4, "Stop after this many epochs without a better CIDEr-D.", may_change=True)

    def view_options(self) -> ViewOptions:
        """Views under which a caption stays true: no mirror images, since captions say left and right."""
        return ViewOptions(min_area=self.min_area, flip=0.0, colour=self.colour)


@dataclass(frozen=True)
class EncoderOptions:
    """What an encoder is trained for, and by whom."""

    objective: str = option("distill", "distill: learn from --teacher.")
    teacher: Path | None = option(
        None, "Directory of a network that transformers loads with its classifier.", may_change=True
    )
    init_from: str | None = option(None, "Start from this nano encoder: nano or a directory.")
    encoder_width: int = option(
        NanoEncoderConfig.width, "Channels of the first stage; each of the four stages doubles them."
    )
    image_size: int = option(NanoEncoderConfig.image_size, "Pixels a side that the encoder is used with.")
    view_size: int = option(
        DistillationOptions.view_size, "Pixels a side of a training view; smaller is quicker."
    )
    min_area: float = option(DistillationOptions.min_area, "Smallest crop, as a share of the image.")
    pool_views: int = option(DistillationOptions.pool_views, "Views the teacher labels at a time.")
    reuse: int = option(DistillationOptions.reuse, "Times the student sees a view before it is drawn anew.")
    validate_every: int = option(1000, "Steps between validations.", may_change=True)


@dataclass(frozen=True)
class EncoderRunOptions(RunOptions):
    """As RunOptions, with the rates that suit a small network trained from random weights."""

    learning_rate: float = option(2e-3, "Peak learning rate.", may_change=True)
    weight_decay: float = option(0.02, "AdamW's weight decay.")
    warmup_ratio: float = option(
        0.03, "Share of the steps in which the learning rate rises.", may_change=True
    )
    ema_decay: float | None = option(0.9995, "Average the weights with this decay.")


# Flags that change nothing beside another: they are refused, or their user would think that they did.
_BROUGHT_ALONG = (
    "family encoder encoder_output mapping prefix_length language_model train_language_model width "
    "num_layers dropout feature_dropout normalise_features min_count"
)
_CLIPCAP_ONLY = "mapping prefix_length language_model train_language_model num_layers feature_dropout"


def check_captioner(data: DataOptions, what: CaptionerOptions, run: RunOptions) -> None:
    """Raises: OptionError for what `pixtell train` cannot do."""
    _check_run(data, run)
    check_positive(what, "views", "epochs", "min_count", "max_tokens", "patience")
    check_positive(what, "width", "num_layers", "prefix_length")
    _check_shares(what, "label_smoothing")
    what.view_options()  # for its own checks, now
    if what.init_from is not None:
        _refuse_idle(what, _BROUGHT_ALONG, "with --init-from, which brings its own")
    elif what.family not in FAMILIES:
        wrong = "is missing" if what.family is None else f"{what.family} is unknown"
        raise OptionError(
            f"--family {wrong}; choose one of {', '.join(FAMILIES)}, or start with --init-from."
        )
    elif what.encoder is None:
        raise OptionError(
            "--encoder is missing; choose nano, vgg16, a directory, a weights file or a hub id."
        )
    if what.family == "lstm":
        _refuse_idle(what, _CLIPCAP_ONLY, "with --family lstm")
    if what.language_model is not None:
        _refuse_idle(what, "width num_layers min_count", "with --language-model, which brings its own")
    if what.train_encoder:
        _refuse_idle(what, "features views", "with --train-encoder, which sees new views at every step")
    elif what.views == 1:
        _refuse_idle(what, "min_area colour", "without --views 2 or more, or --train-encoder")


def check_encoder(data: DataOptions, what: EncoderOptions, run: RunOptions) -> None:
    """Raises: OptionError for what `pixtell train-encoder` cannot do; EncoderError for a size that makes no
    encoder."""
    _check_run(data, run)
    check_positive(what, "encoder_width", "image_size", "view_size", "pool_views", "reuse", "validate_every")
    ViewOptions(min_area=what.min_area)  # for its own checks, now
    NanoEncoderConfig(width=what.encoder_width, image_size=what.image_size)
    if what.objective != "distill":
        raise OptionError(f"--objective {what.objective} is unknown; choose distill.")
    if what.teacher is None:
        raise OptionError("--teacher is missing; name the directory of a network that transformers loads.")
    if run.max_steps is None:
        raise OptionError(
            "--max-steps is missing; the learning rate needs to know where it ends: give for example 20000."
        )
    if what.init_from is not None:
        _refuse_idle(what, "encoder_width image_size", "with --init-from, which brings its own")


def fixed_options(*groups: object) -> dict[str, Any]:
    """The flags that a resumed run must have as it began: field name -> JSON value."""
    return {
        field.name: str(value) if isinstance(value, Path) else value
        for group in groups
        for field in fields(group)  # type: ignore[arg-type]
        if not field.metadata.get("may_change")
        for value in (getattr(group, field.name),)
    }


def _check_run(data: DataOptions, run: RunOptions) -> None:
    check_positive(data, "limit")
    check_positive(run, "max_steps", "max_seconds", "batch_size", "learning_rate")
    _check_shares(run, "warmup_ratio", "ema_decay")
    if not 0 <= run.weight_decay < math.inf:
        problem = "below zero" if run.weight_decay < 0 else "no finite number"
        raise OptionError(f"--weight-decay {run.weight_decay} is {problem}; give for example 0.05.")
    if not 0 <= run.seed < 2**32:
        raise OptionError(f"--seed {run.seed} is outside 0 to {2**32 - 1}; give a number such as 0.")
    if run.dtype == "fp16":
        raise OptionError("--dtype fp16 is not for training, its numbers overflow; choose bf16 or fp32.")


def _check_shares(group: object, *names: str) -> None:
    for name in names:
        value = getattr(group, name)
        if value is not None and not 0 <= value < 1:
            raise OptionError(f"{flag_name(name)} {value} is not from 0 up to 1; give for example 0.1.")


def _refuse_idle(what: CaptionerOptions | EncoderOptions, names: str, beside: str) -> None:
    given = {field.name for field in fields(what) if getattr(what, field.name) != field.default}
    idle = [flag_name(name) for name in names.split() if name in given]
    if idle:
        verb, them = ("change", "them") if len(idle) > 1 else ("changes", "it")
        raise OptionError(f"{' and '.join(idle)} {verb} nothing {beside}; leave {them} out.")
