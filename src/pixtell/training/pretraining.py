"""The phase before the pictures: a run of its own, in `pretraining/` inside the captioner's run.

In: a file of captions, the parts of a captioner, and the captions that nothing may be learned from. Out: the
model with a language model that knows sentences; files as every run has them, so that a killed one goes on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from pixtell.datasets.text import read_caption_lines
from pixtell.devices import Placement
from pixtell.errors import DatasetError
from pixtell.files import follow_run
from pixtell.metrics.ptb import ptb_words
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.captioner_parts import CaptionerParts
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import Progress, RunResult, train
from pixtell.training.run_files import RunDirectory
from pixtell.training.run_options import RunOptions
from pixtell.training.split_records import Report
from pixtell.training.text import WEIGHTS_FILE, TextPretraining

_CAPTIONS_AN_IMAGE = 5  # a batch of --batch-size images has about so many times more captions


def pretraining_directory(run: Path) -> RunDirectory:
    """Where the phase's own run lies."""
    return RunDirectory(run / "pretraining")


def read_new_captions(path: Path, held_out: Iterable[str], report: Report) -> list[str]:
    """The captions of a file without those that equal, as PTB words, one of `held_out`; says how many.

    Raises: DatasetError where none is left.
    """
    lines = read_caption_lines(path)
    known = {tuple(ptb_words(caption)) for caption in held_out}
    kept = [line for line in lines if tuple(ptb_words(line)) not in known]
    report(
        f"text: {len(lines):,} captions in {path}; {len(lines) - len(kept):,} of them equal a validation or "
        "test caption and are left out"
    )
    if not kept:
        raise DatasetError(f"Every caption of {path} is a validation or test caption; name another file.")
    return kept


def pretrain(
    what: CaptionerOptions,
    run: RunOptions,
    parts: CaptionerParts,
    captions: Sequence[str],
    validation_captions: Sequence[str],
    placement: Placement,
    on_progress: Callable[[Progress], None],
) -> RunResult:
    """Train the model's language model on `captions`, or go on with that, and put the best weights in place.

    parts.model lies on the device. Raises: as `loop.train`.
    """
    directory = pretraining_directory(run.output)
    tokenizer, model = parts.tokenizer, parts.model
    batches = ImageBatches(
        num_images=len(captions),
        batch_size=_CAPTIONS_AN_IMAGE * run.batch_size,
        accumulate=what.accumulate,
        seed=run.seed,
    )

    def encode(texts: Sequence[str]) -> list[list[int]]:
        return [[*tokenizer.encode(text), tokenizer.eos_id][: what.max_tokens] for text in texts]

    objective = TextPretraining(
        model=model,
        feature_shape=parts.encoder.feature_shape,
        token_ids=encode(captions),
        validation_ids=encode(validation_captions),
        ignored_ids=tokenizer.forbidden_ids,
        batches=batches,
        label_smoothing=what.label_smoothing,
        device=placement.device,
    )
    all_steps = what.pretrain_epochs * batches.steps_per_epoch
    options = replace(
        run.loop(all_steps, batches.steps_per_epoch, None),
        max_steps=min(all_steps, run.max_steps or all_steps),
        accumulate=what.accumulate,
    )
    frozen = [parameter for parameter in model.image_branch.parameters() if parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(False)
    begun = directory.last is not None
    result = train(objective, options, directory.path, placement, resume=begun, on_progress=on_progress)
    for parameter in frozen:
        parameter.requires_grad_(True)
        parameter.grad = None
    # From the disk, also where they are in memory: a run that is killed after this goes on from the same.
    from safetensors.torch import load_file

    model.load_state_dict(load_file(follow_run(directory.path) / WEIGHTS_FILE))
    return result
