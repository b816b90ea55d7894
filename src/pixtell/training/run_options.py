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
from pixtell.encoders.nano_text import NanoTextConfig
from pixtell.errors import OptionError
from pixtell.options import check_positive, flag_name, option
from pixtell.training.contrastive import ContrastiveOptions
from pixtell.training.distillation import DistillationOptions
from pixtell.training.loop import LoopOptions
from pixtell.training.lora import check_peft


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
    learning_rate: float | None = option(
        None, "Peak learning rate; not given: 5e-4, for scst 5e-5.", may_change=True
    )
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

    def loop(
        self, max_steps: int, validate_every: int, patience: int | None, learning_rate: float = 5e-4
    ) -> LoopOptions:
        """max_steps, learning_rate: where --max-steps and --learning-rate are not given."""
        return LoopOptions(
            max_steps=self.max_steps or max_steps,
            learning_rate=self.learning_rate or learning_rate,
            weight_decay=self.weight_decay,
            warmup_ratio=self.warmup_ratio,
            ema_decay=self.ema_decay,
            validate_every=validate_every,
            patience=patience,
            max_seconds=self.max_seconds,
            seed=self.seed,
        )


@dataclass(frozen=True)
class EncoderOptions:
    """What an encoder is trained for, and by whom."""

    objective: str = option(
        "distill", "distill: learn from --teacher; contrastive: images and captions find each other."
    )
    teacher: Path | None = option(
        None,
        "Directory of a vision model that transformers loads, with or without a classifier.",
        may_change=True,
    )
    distill_weight: float | None = option(
        None, "contrastive: learn from --teacher too, its loss times this; not given: from captions alone."
    )
    init_from: str | None = option(
        None, "Start from this nano encoder: nano or a directory; contrastive: also from a whole CLIP."
    )
    encoder_width: int = option(
        NanoEncoderConfig.width, "Channels of the first stage; each of the four stages doubles them."
    )
    image_size: int = option(NanoEncoderConfig.image_size, "Pixels a side that the encoder is used with.")
    view_size: int | None = option(
        None, "Pixels a side of a training view; smaller is quicker; not given: 128, of a CLIP its own."
    )
    min_area: float | None = option(
        None, "Smallest crop, as a share of the image; not given: 0.25 to distill, 0.6 with captions."
    )
    pool_views: int = option(DistillationOptions.pool_views, "Views the teacher labels at a time.")
    reuse: int = option(DistillationOptions.reuse, "Times the student sees a view before it is drawn anew.")
    captions_per_image: int = option(
        ContrastiveOptions.captions_per_image, "contrastive: captions of each image in a step, drawn anew."
    )
    chunk_size: int | None = option(
        None, "contrastive: images in memory at a time, for batches that do not fit; not given: all."
    )
    freeze_encoder: bool = option(
        False, "contrastive: leave the encoder of --init-from as it is; texts learn to find its images."
    )
    lora_rank: int | None = option(
        None, "contrastive, from a CLIP: train adapters of this rank and the temperature, nothing else."
    )
    lora_targets: str | None = option(
        None, "contrastive: layers that get adapters; not given: q_proj and v_proj."
    )
    text_width: int = option(NanoTextConfig.width, "contrastive: width of a new text tower.")
    text_dropout: float = option(NanoTextConfig.dropout, "contrastive: dropout in a new text tower.")
    min_count: int = option(4, "contrastive: words seen less often are unknown to a new text tower.")
    validate_every: int = option(1000, "Steps between validations.", may_change=True)


@dataclass(frozen=True)
class EncoderRunOptions(RunOptions):
    """As RunOptions, with what suits encoders; what depends on the objective is None where it is not
    given."""

    batch_size: int | None = option(  # type: ignore[assignment]
        None, "Images a step; not given: 64 to distill, 256 for contrastive."
    )
    learning_rate: float | None = option(
        None,
        "Peak learning rate; not given: 2e-3 to distill, 1e-3 for nano towers, 1e-5 for a CLIP, 1e-4 for "
        "adapters.",
        may_change=True,
    )
    weight_decay: float = option(0.02, "AdamW's weight decay.")
    warmup_ratio: float = option(
        0.03, "Share of the steps in which the learning rate rises.", may_change=True
    )
    ema_decay: float | None = option(0.9995, "Average the weights with this decay.")


# Flags that change nothing beside another: they are refused, or their user would think that they did.
_CONTRASTIVE_ONLY = (
    "distill_weight captions_per_image chunk_size freeze_encoder lora_rank lora_targets text_width "
    "text_dropout min_count"
)


def check_encoder(data: DataOptions, what: EncoderOptions, run: RunOptions) -> None:
    """Raises: OptionError for what `pixtell train-encoder` cannot do; EncoderError for a size that makes no
    encoder."""
    check_run(data, run)
    check_positive(what, "encoder_width", "image_size", "view_size", "pool_views", "reuse", "validate_every")
    check_positive(what, "captions_per_image", "chunk_size", "text_width", "min_count", "distill_weight")
    check_positive(what, "lora_rank")
    check_shares(what, "text_dropout")
    ViewOptions(min_area=ViewOptions.min_area if what.min_area is None else what.min_area)  # its own checks
    NanoEncoderConfig(width=what.encoder_width, image_size=what.image_size)
    NanoTextConfig(width=what.text_width)
    if what.objective == "distill":
        refuse_idle(what, _CONTRASTIVE_ONLY, "with --objective distill")
        if what.teacher is None:
            raise OptionError(
                "--teacher is missing; name the directory of a vision model that transformers loads."
            )
    elif what.objective == "contrastive":
        _check_contrastive(what, run.batch_size or ContrastiveOptions.batch_size)
    else:
        raise OptionError(f"--objective {what.objective} is unknown; choose distill or contrastive.")
    if run.max_steps is None:
        raise OptionError(
            "--max-steps is missing; the learning rate needs to know where it ends: give for example 20000."
        )
    if what.init_from is None:
        refuse_idle(what, "freeze_encoder", "without --init-from, for a new encoder has nothing to keep")
    else:
        refuse_idle(what, "encoder_width image_size", "with --init-from, which brings its own")


def _check_contrastive(what: EncoderOptions, batch_size: int) -> None:
    if what.distill_weight is None:
        refuse_idle(what, "teacher pool_views reuse", "with --objective contrastive without --distill-weight")
    elif what.teacher is None:
        raise OptionError(
            f"--distill-weight {what.distill_weight} has no teacher to learn from; name one with --teacher."
        )
    elif what.freeze_encoder:
        raise OptionError(
            f"--distill-weight {what.distill_weight} changes nothing with --freeze-encoder; leave one out."
        )
    if what.lora_rank is None:
        refuse_idle(what, "lora_targets", "without --lora-rank")
    else:
        refuse_idle(what, "freeze_encoder", "with --lora-rank, which trains nothing but adapters")
        check_peft(what.lora_rank)
    if batch_size == 1:
        raise OptionError(
            "--batch-size 1 leaves nothing to compare an image with; give 2 or more, better hundreds."
        )
    if what.chunk_size is not None and what.chunk_size > batch_size:
        raise OptionError(
            f"--chunk-size {what.chunk_size} is more than --batch-size {batch_size}; give a part of it, or "
            "leave it out."
        )


def fixed_options(*groups: object) -> dict[str, Any]:
    """The flags that a resumed run must have as it began: field name -> JSON value."""
    return {
        field.name: str(value) if isinstance(value, Path) else value
        for group in groups
        for field in fields(group)  # type: ignore[arg-type]
        if not field.metadata.get("may_change")
        for value in (getattr(group, field.name),)
    }


def check_run(data: DataOptions, run: RunOptions) -> None:
    """Raises: OptionError for what no training can do."""
    check_positive(data, "limit")
    check_positive(run, "max_steps", "max_seconds", "batch_size", "learning_rate")
    check_shares(run, "warmup_ratio", "ema_decay")
    if not 0 <= run.weight_decay < math.inf:
        problem = "below zero" if run.weight_decay < 0 else "no finite number"
        raise OptionError(f"--weight-decay {run.weight_decay} is {problem}; give for example 0.05.")
    if not 0 <= run.seed < 2**32:
        raise OptionError(f"--seed {run.seed} is outside 0 to {2**32 - 1}; give a number such as 0.")
    if run.dtype == "fp16":
        raise OptionError("--dtype fp16 is not for training, its numbers overflow; choose bf16 or fp32.")


def check_shares(group: object, *names: str) -> None:
    """Raises: OptionError where one of these numbers is set and not from 0 up to 1."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not 0 <= value < 1:
            raise OptionError(f"{flag_name(name)} {value} is not from 0 up to 1; give for example 0.1.")


def refuse_idle(what: Any, names: str, beside: str) -> None:
    """Raises: OptionError where a flag of these differs from its default."""
    given = {field.name for field in fields(what) if getattr(what, field.name) != field.default}
    idle = [flag_name(name) for name in names.split() if name in given]
    if idle:
        verb, them = ("change", "them") if len(idle) > 1 else ("changes", "it")
        raise OptionError(f"{' and '.join(idle)} {verb} nothing {beside}; leave {them} out.")
