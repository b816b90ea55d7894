"""From options to a run of `pixtell train-encoder`, without the command line.

In: what the user asked for. Out: a run directory whose checkpoints are encoders.
"""

from collections.abc import Callable

import torch

from pixtell.datasets import load_dataset
from pixtell.devices import choose_placement
from pixtell.encoders import parse_encoder
from pixtell.encoders.hub import load_teacher
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, load_nano_encoder
from pixtell.errors import OptionError
from pixtell.images import Preprocess
from pixtell.options import check_positive
from pixtell.reports import write_training_curves
from pixtell.training.distillation import Distillation, DistillationOptions
from pixtell.training.image_memory import load_split_images
from pixtell.training.loop import Progress, RunResult, train
from pixtell.training.run_options import DataOptions, EncoderOptions, EncoderRunOptions

SOURCE_SIZE = 224  # pixels a side at which training images wait in memory for their crops


def train_encoder(
    data: DataOptions,
    what: EncoderOptions,
    run: EncoderRunOptions,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    report: Callable[[str], None] = lambda line: None,
) -> RunResult:
    """Distil a teacher into a nano encoder and write the run directory; `DIR/step-N` is an encoder that
    --encoder takes.

    Raises: OptionError, DatasetError, EncoderError before anything is trained; TrainingError.
    """
    if what.objective != "distill":
        raise OptionError(f"--objective {what.objective} is unknown; choose distill.")
    if what.teacher is None:
        raise OptionError("--teacher is missing; name the directory of a network that transformers loads.")
    check_positive(
        what, "encoder_width", "image_size", "view_size", "min_area", "pool_views", "reuse", "validate_every"
    )
    if run.max_steps is None:
        raise OptionError(
            "--max-steps is missing; the learning rate needs to know where it ends: give for example 20000."
        )
    placement = choose_placement(run.device, run.dtype, training=True)
    report(f"device: {placement.reason}")
    teacher = load_teacher(what.teacher).to(placement.device, placement.dtype)
    dataset = load_dataset(data.dataset, data.data_dir)
    for warning in dataset.warnings:
        report(warning)
    half = (0.5, 0.5, 0.5)
    memory = Preprocess(size=SOURCE_SIZE, resize="square", mean=half, std=half)
    train_images, val_images = (
        load_split_images(dataset.split(split)[: data.limit], memory, report)[1] for split in ("train", "val")
    )
    torch.manual_seed(run.seed)
    encoder = _choose_student(what)
    options = DistillationOptions(
        view_size=what.view_size,
        batch_size=run.batch_size,
        pool_views=what.pool_views,
        reuse=what.reuse,
        min_area=what.min_area,
        seed=run.seed,
    )
    objective = Distillation(
        encoder=encoder,
        teacher=teacher,
        train_images=train_images,
        val_images=val_images,
        options=options,
        device=placement.device,
    )
    report(
        f"{len(train_images):,} training and {len(val_images):,} validation images, "
        f"{sum(p.numel() for p in encoder.parameters()):,} parameters"
    )
    loop = run.loop(run.max_steps, what.validate_every, None)
    result = train(objective, loop, run.output, placement, resume=run.resume, on_progress=on_progress)
    write_training_curves(run.output)
    return result


def _choose_student(what: EncoderOptions) -> NanoEncoder:
    if what.init_from is None:
        return NanoEncoder(config=NanoEncoderConfig(width=what.encoder_width, image_size=what.image_size))
    spec = parse_encoder(what.init_from, "patches")
    if spec.kind != "nano":
        raise OptionError(
            f"--init-from {what.init_from} is no nano encoder but {spec.kind}; name one that "
            "train-encoder wrote."
        )
    return load_nano_encoder(spec)
