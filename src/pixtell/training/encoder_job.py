"""From options to a run of `pixtell train-encoder`, without the command line.

In: what the user asked for. Out: a run directory whose checkpoints are encoders.
"""

from collections.abc import Callable

import torch

from pixtell.devices import choose_placement
from pixtell.encoders import parse_encoder
from pixtell.encoders.hub import load_teacher
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, load_nano_encoder
from pixtell.errors import OptionError
from pixtell.images import Preprocess
from pixtell.reports import write_training_curves
from pixtell.training.distillation import Distillation, DistillationOptions
from pixtell.training.image_memory import load_split_images
from pixtell.training.loop import Progress, RunResult, train
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
    """Distil a teacher into a nano encoder and write the run directory; `DIR/step-N` is an encoder that
    --encoder takes.

    Raises: OptionError, DatasetError, EncoderError before anything is trained; TrainingError; StorageError.
    """
    check_encoder(data, what, run)
    assert what.teacher is not None
    assert run.max_steps is not None
    options = DistillationOptions(
        view_size=what.view_size,
        batch_size=run.batch_size,
        pool_views=what.pool_views,
        reuse=what.reuse,
        min_area=what.min_area,
        seed=run.seed,
    )
    placement = choose_placement(run.device, run.dtype, training=True)
    RunDirectory(run.output).begin(fixed_options(data, what, run), resume=run.resume)
    report(f"device: {placement.reason}")
    torch.manual_seed(run.seed)
    encoder = _choose_student(what)
    teacher = load_teacher(what.teacher).to(placement.device, placement.dtype)
    half = (0.5, 0.5, 0.5)
    memory = Preprocess(size=SOURCE_SIZE, resize="square", mean=half, std=half)
    train_images, val_images = (
        load_split_images(records, memory, report)[1] for records in read_splits(data, report)
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
    loop = run.loop(run.max_steps, what.validate_every, patience=None)
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
