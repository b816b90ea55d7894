"""What people type. The only file that prints or exits.

A command is registered by its name and one line of help; its options, and torch, are imported only when
that command is called, so that `pixtell --help` answers at once. Captions go to stdout, everything else to
stderr. Exit codes: 0 all done; 1 done, but some inputs failed; 2 nothing could start.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from pixtell import cli_options
from pixtell.errors import ImageError, OptionError, PixtellError
from pixtell.options import OnlyGiven, command

if TYPE_CHECKING:
    from pixtell.metrics import Score
    from pixtell.training.loop import Progress, RunResult

_SOME_FAILED = 1
_NOTHING_STARTED = 2
_LOG_SECONDS = 30.0  # between lines of progress where stderr is no terminal


def main() -> None:
    """The entry point: `pixtell COMMAND ...`."""
    try:
        build_app(sys.argv[1:])()
    except PixtellError as error:
        say(str(error))
        raise SystemExit(_NOTHING_STARTED) from None
    except KeyboardInterrupt:
        say("stopped.")
        raise SystemExit(130) from None


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """All commands, by name and help; only the one that `arguments` call gets its options, since these
    import what they belong to."""
    app = typer.Typer(
        help="Turns pictures into sentences.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    called = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name, (text, build) in COMMANDS.items():
        app.command(name, help=text)(build() if name == called else _not_called)
    app.callback()(_no_command)
    return app


def say(line: str) -> None:
    """One line to a person, on stderr."""
    print(f"pixtell: {line}", file=sys.stderr, flush=True)


def _no_command() -> None:
    """Without this callback typer would make a program of a lone command."""


def _not_called() -> None:
    raise AssertionError("a command that was not called")


def _caption_command() -> Callable[..., None]:
    from pixtell.decoding import DecodingOptions

    return command(_caption, cli_options.CaptionFlags, cli_options.ComputeFlags, OnlyGiven(DecodingOptions))


def _caption(
    flags: cli_options.CaptionFlags, compute: cli_options.ComputeFlags, decoding: dict[str, Any]
) -> None:
    from pixtell.bulk import choose_format, find_images
    from pixtell.captioner import Captioner

    header, to_lines = choose_format(flags.format)
    paths = find_images(flags.paths)
    captioner = Captioner.from_pretrained(compute.model, device=compute.device, dtype=compute.dtype)
    options = captioner.options(**decoding)
    results = captioner.stream(paths, options=options, batch_size=compute.batch_size, on_error="return")
    failed = 0
    with _output(flags.output) as stream:
        stream.write(header)
        for path, result in zip(paths, results, strict=True):
            stream.write(to_lines(path, result))
            stream.flush()
            if isinstance(result, ImageError):
                failed += 1
                say(str(result))
            elif not isinstance(result, list) and result.unsure:
                mean = result.logprob / (len(result.token_ids) + 1)
                say(
                    f"{path}: unsure (mean log-probability {mean:.2f} a token); it may be unlike the "
                    "pictures the model knows."
                )
    _exit_if_failed(failed, len(paths))


def _features_command() -> Callable[..., None]:
    return command(_features, cli_options.FeatureFlags)


def _features(flags: cli_options.FeatureFlags) -> None:
    from pixtell.augment import ViewOptions
    from pixtell.datasets import load_dataset
    from pixtell.devices import choose_placement
    from pixtell.encoders import load_encoder, parse_encoder
    from pixtell.options import check_positive
    from pixtell.training.split_features import extract_split

    check_positive(flags, "views", "limit")
    placement = choose_placement(flags.device)
    dataset = load_dataset(flags.dataset, flags.data_dir)
    encoder = load_encoder(parse_encoder(flags.encoder, flags.encoder_output)).to(placement.device)
    failed = total = 0
    for split in sorted({record.split for record in dataset.records}):
        records = dataset.split(split)[: flags.limit]
        views = flags.views if split == "train" else 1
        how = ViewOptions(min_area=flags.min_area, flip=0.0, colour=flags.colour)
        with _counter(split) as count:
            cache = extract_split(
                encoder, records, flags.output, placement, views=views, how=how, report=say, on_progress=count
            )
        failed += len(cache.errors)
        total += len(records)
        say(f"{split}: {len(records) - len(cache.errors):,} images in {cache.path}")
    _exit_if_failed(failed, total)


def _train_command() -> Callable[..., None]:
    from pixtell.training.run_options import CaptionerOptions, DataOptions, RunOptions

    return command(_train, DataOptions, CaptionerOptions, RunOptions)


def _train(data: Any, what: Any, run: Any) -> None:
    from pixtell.evaluation import validation_scores
    from pixtell.training.captioner_job import train_captioner

    with _progress() as on_progress:
        result = train_captioner(
            data, what, run, validate=validation_scores, on_progress=on_progress, report=say
        )
    _say_how_it_ended(result, run.output)


def _train_encoder_command() -> Callable[..., None]:
    from pixtell.training.run_options import DataOptions, EncoderOptions, EncoderRunOptions

    return command(_train_encoder, DataOptions, EncoderOptions, EncoderRunOptions)


def _train_encoder(data: Any, what: Any, run: Any) -> None:
    from pixtell.training.encoder_job import train_encoder

    with _progress() as on_progress:
        result = train_encoder(data, what, run, on_progress=on_progress, report=say)
    _say_how_it_ended(result, run.output)


def _evaluate_command() -> Callable[..., None]:
    from pixtell.decoding import DecodingOptions

    return command(_evaluate, cli_options.SplitFlags, cli_options.ComputeFlags, OnlyGiven(DecodingOptions))


def _evaluate(
    flags: cli_options.SplitFlags, compute: cli_options.ComputeFlags, decoding: dict[str, Any]
) -> None:
    from pixtell.captioner import Captioner
    from pixtell.datasets import load_dataset
    from pixtell.evaluation import evaluate

    dataset = load_dataset(flags.dataset, flags.data_dir)
    for warning in dataset.warnings:
        say(warning)
    records = dataset.split(flags.split)[: flags.limit]
    captioner = Captioner.from_pretrained(compute.model, device=compute.device, dtype=compute.dtype)
    with _counter("captioning") as on_progress:
        evaluation = evaluate(
            captioner,
            records,
            dataset=flags.dataset,
            split=flags.split,
            options=captioner.options(**decoding),
            metrics=_metric_names(flags.metrics),
            batch_size=compute.batch_size,
            on_progress=on_progress,
        )
    _print_scores(evaluation.scores)
    print(f"{'distinct':10} {evaluation.distinct_share:.4f}")
    print(f"{'bad ends':10} {evaluation.bad_ending_rate:.4f}")
    if flags.output is not None:
        evaluation.save(flags.output)
    for error in evaluation.errors:
        say(f"left out: {error}")
    _exit_if_failed(len(evaluation.errors), len(records))


def _score_command() -> Callable[..., None]:
    return command(_score, cli_options.ScoreFlags)


def _score(flags: cli_options.ScoreFlags) -> None:
    from pixtell.files import write_json
    from pixtell.metrics import results_json, score_captions
    from pixtell.metrics.files import read_captions

    hypotheses, references = read_captions(flags.hypotheses, flags.references)
    scores = score_captions(hypotheses, references, _metric_names(flags.metrics))
    _print_scores(scores)
    if flags.output is not None:
        write_json(flags.output, results_json(scores, num_images=len(hypotheses)))


def _datasets_command() -> Callable[..., None]:
    return command(_datasets, cli_options.DatasetFlags)


def _datasets(flags: cli_options.DatasetFlags) -> None:
    from pixtell.datasets import DATASETS, check_dataset

    if flags.action == "list":
        for name in DATASETS:
            print(name)
        return
    if flags.action != "check":
        raise OptionError(f"pixtell datasets {flags.action!r} is unknown; choose list or check.")
    report = check_dataset(flags.dataset, flags.data_dir)
    for line in report.sources:
        print(line)
    for split, count in report.num_images.items():
        print(f"{split}: {count:,} images")
    for warning in report.warnings:
        say(f"warning: {warning}")
    for problem in report.problems:
        say(f"problem: {problem}")
    if report.problems:
        raise typer.Exit(_SOME_FAILED)


def _models_command() -> Callable[..., None]:
    return command(_models, cli_options.ModelFlags)


def _models(flags: cli_options.ModelFlags) -> None:
    from pixtell.checkpoints import SHIPPED, find_checkpoint, read_config

    if flags.action != "list":
        raise OptionError(f"pixtell models {flags.action!r} is unknown; choose list.")
    for name in SHIPPED:
        directory = find_checkpoint(name)
        config = read_config(directory)
        size = (directory / "model.safetensors").stat().st_size / 1e6
        print(f"{name:10} {config.family:8} {size:5.1f} MB, over the {config.encoder.source} encoder")


# name -> one line of help, and what makes the function with its options
COMMANDS: dict[str, tuple[str, Callable[[], Callable[..., None]]]] = {
    "caption": ("Caption pictures and folders of pictures.", _caption_command),
    "features": ("Put a data set through an encoder once, onto disk.", _features_command),
    "train": ("Train a captioner.", _train_command),
    "train-encoder": ("Train an image encoder from a teacher.", _train_encoder_command),
    "evaluate": ("Caption a split of a data set and score the captions.", _evaluate_command),
    "score": ("Score anyone's captions against references.", _score_command),
    "datasets": ("List the kinds of data sets, or check one.", _datasets_command),
    "models": ("List the models in the package.", _models_command),
}


@contextlib.contextmanager
def _output(path: Path | None) -> Iterator[TextIO]:
    """The screen, or a file that appears whole at the end."""
    if path is None:
        yield sys.stdout
        return
    from pixtell.files import atomic_path

    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        yield stream


@contextlib.contextmanager
def _progress() -> Iterator[Callable[["Progress"], None]]:
    """A bar with the time left in a terminal; elsewhere a line now and then. Validations are lines in
    both."""
    with _counter("training") as count:

        def show(progress: "Progress") -> None:
            count(progress.step, progress.max_steps, f"loss {progress.loss:.3f}")
            if progress.validation is not None:
                numbers = ", ".join(f"{name} {value:.4f}" for name, value in progress.validation.items())
                say(f"step {progress.step:,}: loss {progress.loss:.3f}, {numbers}")

        yield show


@contextlib.contextmanager
def _counter(verb: str) -> Iterator[Callable[..., None]]:
    """A function (done, total, note) that shows how far a job is."""
    if not sys.stderr.isatty():
        yield _line_counter(verb)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task(verb, total=None, note="")

        def show(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield show


def _line_counter(verb: str) -> Callable[..., None]:
    started = last = time.monotonic()

    def show(done: int, total: int, note: str = "") -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_SECONDS:
            last = now
            left = (now - started) / done * (total - done)
            say(f"{verb}: {done:,} of {total:,}, about {left / 60:.0f} minutes left {note}".rstrip())

    return show


def _say_how_it_ended(result: "RunResult", output: Path) -> None:
    best = (
        "" if result.best_value is None else f"; best at step {result.best_step:,} ({result.best_value:.4f})"
    )
    more = "" if result.finished else "; go on with --resume"
    say(f"{result.reason}{best}; the run is in {output}{more}.")


def _metric_names(typed: str | None) -> list[str] | None:
    return None if typed is None else [name.strip() for name in typed.split(",") if name.strip()]


def _print_scores(scores: "dict[str, Score]") -> None:
    for name, score in scores.items():
        print(f"{name:10} {score.value:.4f}")


def _exit_if_failed(failed: int, total: int) -> None:
    if failed:
        say(f"{failed:,} of {total:,} pictures could not be read.")
        raise typer.Exit(_SOME_FAILED)
