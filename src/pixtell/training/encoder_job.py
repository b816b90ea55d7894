"""From options to a run of `pixtell train-encoder`, without the command line.

In: what the user asked for. Out: a run directory whose checkpoints are encoders. Here data set, networks and
objective meet; what each does is theirs.
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from pixtell.devices import Placement, choose_placement, prepare_training
from pixtell.encoders import EncoderSpec, parse_encoder
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, load_nano_encoder
from pixtell.encoders.nano_text import NanoTowers
from pixtell.encoders.teacher import Teacher, load_teacher
from pixtell.errors import OptionError
from pixtell.images import Preprocess
from pixtell.reports import write_training_curves
from pixtell.training.contrastive import ContrastiveOptions
from pixtell.training.contrastive_job import make_contrastive
from pixtell.training.distillation import Distillation, DistillationOptions
from pixtell.training.image_memory import load_split_images
from pixtell.training.loop import Objective, Progress, RunResult, train
from pixtell.training.regularised import Regularised
from pixtell.training.run_files import RunDirectory
from pixtell.training.run_options import (
    DataOptions,
    EncoderOptions,
    EncoderRunOptions,
    check_encoder,
    fixed_options,
)
from pixtell.training.split_records import Report, read_splits

SOURCE_SIZE = 224  # pixels a side at which training images wait in memory for their crops


def train_encoder(
    data: DataOptions,
    what: EncoderOptions,
    run: EncoderRunOptions,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    report: Report = lambda line: None,
) -> RunResult:
    """Train an encoder and write the run directory; `DIR/step-N` is an encoder that --encoder takes.

    Raises: OptionError, DatasetError, EncoderError before anything is trained; TrainingError; StorageError.
    """
    check_encoder(data, what, run)
    spec = None if what.init_from is None else parse_encoder(what.init_from)
    what, run, learning_rate = _settle(what, run, spec)
    placement = choose_placement(run.device, run.dtype, training=True)
    prepare_training(placement)
    with RunDirectory(run.output).begin(fixed_options(data, what, run), resume=run.resume):
        report(f"device: {placement.reason}")
        torch.manual_seed(run.seed)
        make = _make_distillation if what.objective == "distill" else _make_contrastive
        objective = make(data, what, run, spec, placement, report)
        assert run.max_steps is not None
        loop = run.loop(run.max_steps, what.validate_every, patience=None, learning_rate=learning_rate)
        result = train(objective, loop, run.output, placement, resume=run.resume, on_progress=on_progress)
        write_training_curves(run.output)
        return result


def _settle(
    what: EncoderOptions, run: EncoderRunOptions, spec: EncoderSpec | None
) -> tuple[EncoderOptions, EncoderRunOptions, float]:
    """The options with what the objective usually has where nothing was given; and its learning rate.

    Raises: OptionError where the objective cannot start from `spec`.
    """
    kind = "nano" if spec is None else spec.kind
    if what.objective == "distill":
        if kind != "nano":
            raise OptionError(
                f"--init-from {what.init_from} is no nano encoder but {kind}; name one that train-encoder "
                "wrote."
            )
        view_size, min_area, batch_size = DistillationOptions.view_size, DistillationOptions.min_area, 64
        learning_rate = 2e-3
    else:
        if kind == "clip" and what.distill_weight is not None:
            raise OptionError(
                f"--distill-weight {what.distill_weight} is for nano encoders, and --init-from "
                f"{what.init_from} is a CLIP; leave it out."
            )
        if kind not in ("nano", "clip"):
            raise OptionError(
                f"--init-from {what.init_from} is neither a nano encoder nor a CLIP but {kind}, and has no "
                "text tower; name one of them."
            )
        if kind == "nano" and what.lora_rank is not None:
            raise OptionError(
                f"--lora-rank {what.lora_rank} is for a CLIP, and these towers are nano's; leave it out, or "
                "name a CLIP with --init-from."
            )
        view_size, min_area, batch_size = 128, 0.6, ContrastiveOptions.batch_size
        learning_rate = 1e-3 if kind == "nano" else 1e-5 if what.lora_rank is None else 1e-4
    settled = replace(
        what,
        view_size=what.view_size or (None if kind == "clip" else view_size),
        min_area=what.min_area or min_area,
    )
    return settled, replace(run, batch_size=run.batch_size or batch_size), learning_rate


def _make_distillation(
    data: DataOptions,
    what: EncoderOptions,
    run: EncoderRunOptions,
    spec: EncoderSpec | None,
    placement: Placement,
    report: Report,
) -> Distillation:
    encoder = (
        NanoEncoder(config=NanoEncoderConfig(width=what.encoder_width, image_size=what.image_size))
        if spec is None
        else load_nano_encoder(spec)
    )
    half = (0.5, 0.5, 0.5)
    memory = Preprocess(size=SOURCE_SIZE, resize="square", mean=half, std=half)
    train_images, val_images = (
        load_split_images(records, memory, report)[1] for records in read_splits(data, report)
    )
    report(
        f"{len(train_images):,} training and {len(val_images):,} validation images, "
        f"{sum(p.numel() for p in encoder.parameters()):,} parameters"
    )
    return _distil(encoder, train_images, val_images, what, run, placement, report)


def _make_contrastive(
    data: DataOptions,
    what: EncoderOptions,
    run: EncoderRunOptions,
    spec: EncoderSpec | None,
    placement: Placement,
    report: Report,
) -> Objective:
    contrastive = make_contrastive(data, what, run, spec, placement, report)
    if what.distill_weight is None:
        return contrastive
    assert isinstance(contrastive.towers, NanoTowers)
    distillation = _distil(
        contrastive.towers.image.encoder,
        contrastive.train.images,
        contrastive.val.images,
        what,
        replace(run, batch_size=_views_beside(contrastive.batch_size)),
        placement,
        report,
    )
    return Regularised(contrastive=contrastive, distillation=distillation, weight=what.distill_weight)


def _views_beside(batch_size: int) -> int:
    """How many views a teacher shows beside the images of a contrastive step: half as many, rounded down to a
    power of two, which fills pools evenly."""
    return 1 << max(0, (batch_size // 2).bit_length() - 1)


def _distil(
    encoder: NanoEncoder,
    train_images: torch.Tensor,
    val_images: torch.Tensor,
    what: EncoderOptions,
    run: EncoderRunOptions,
    placement: Placement,
    report: Report,
) -> Distillation:
    """train_images, val_images: uint8 (N, 3, S, S)."""
    assert what.teacher is not None
    assert what.view_size is not None
    assert what.min_area is not None
    options = DistillationOptions(
        view_size=what.view_size,
        batch_size=run.batch_size or DistillationOptions.batch_size,
        pool_views=what.pool_views,
        reuse=what.reuse,
        min_area=what.min_area,
        seed=run.seed,
    )
    teacher = load_teacher(what.teacher, (what.view_size, encoder.config.image_size))
    report(f"teacher: {_describe(teacher)}")
    teacher.to(placement.device, placement.dtype)
    return Distillation(
        encoder=encoder,
        teacher=teacher,
        train_images=train_images,
        val_images=val_images,
        options=options,
        device=placement.device,
    )


def _describe(teacher: Teacher) -> str:
    size = "any size" if teacher.size is None else f"views made {teacher.size} pixels a side"
    pooled = "its own pooled features" if teacher.own_pool else "the mean of its patches"
    return f"{size}, patches, {pooled}, {'no classes' if teacher.classifier is None else 'its classes'}"
