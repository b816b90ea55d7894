"""What people type, and what it does. Only this file exits; what it prints goes through terminal.py.

A command is registered by its name and one line of help; its options, and torch, are imported only when
that command is called, so that `pixtell --help` answers at once. Captions and scores go to stdout,
everything else to stderr. Exit codes: 0 all done; 1 done, but some inputs failed; 2 nothing could start; 130
stopped by Ctrl-C; 141 whoever read the output went away.
"""

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from pixtell import cli_options, cli_scoring, cli_search
from pixtell.errors import ImageError, OptionError, PixtellError
from pixtell.options import OnlyGiven, check_positive, command
from pixtell.terminal import counter, drop_stdout, exit_code, open_output, say, show, training_progress

if TYPE_CHECKING:
    from pixtell.training.loop import RunResult

Groups = tuple[type | OnlyGiven, ...]

_ALL_DONE = 0
_SOME_FAILED = 1  # as `exit_code` says of pictures
_NOTHING_STARTED = 2
_STOPPED = 128 + 2  # as shells count SIGINT
_READER_LEFT = 128 + 13  # and SIGPIPE

# What typer raises for flags it cannot read: click's UsageError, wherever this version of typer keeps it.
_UsageError = cast("type[typer.BadParameter]", typer.BadParameter.__base__)


def main() -> None:
    """The entry point: `pixtell COMMAND ...`."""
    raise SystemExit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Do what was typed; returns the exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path that the terminal cannot show becomes \udcff
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        # typer reads the flags and no more: it would turn interrupts and broken pipes into exits of its own.
        job = build_app(arguments)(list(arguments) or ["--help"], prog_name="pixtell", standalone_mode=False)
        return job() if callable(job) else _ALL_DONE
    except _UsageError as error:
        say(_explain_usage(error))
    except PixtellError as error:
        say(str(error))
    except KeyboardInterrupt:
        say("stopped.")
        return _STOPPED
    except BrokenPipeError:
        drop_stdout()
        return _READER_LEFT
    return _NOTHING_STARTED


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
    for name, (text, job, groups) in COMMANDS.items():
        app.command(name, help=text)(command(job, *groups()) if name == called else _not_called)
    app.callback()(_no_command)
    return app


def _explain_usage(error: "typer.BadParameter") -> str:
    """What typer has against the flags, on one line, and where to look."""
    problem = " ".join(error.format_message().split()).rstrip(".")
    where = "pixtell" if error.ctx is None else error.ctx.command_path
    return f"{problem}{' See' if problem.endswith('?') else '; see'} {where} --help."


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        show(f"pixtell {version('pixtell')}")
        raise typer.Exit


def _no_command(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """What comes before a command."""


def _not_called() -> None:
    raise AssertionError("a command that was not called")


def _caption(
    flags: cli_options.CaptionFlags,
    model: cli_options.ModelFlag,
    compute: cli_options.ComputeFlags,
    decoding: dict[str, Any],
) -> int:
    from pixtell.bulk import choose_format, find_images, refuse_to_overwrite
    from pixtell.captioner import Captioner
    from pixtell.devices import use_one_thread
    from pixtell.explain import SheetFolder

    header, to_lines = choose_format(flags.format)
    paths = find_images(flags.paths)
    if flags.output is not None:
        refuse_to_overwrite(flags.output, paths)
    sheets = None if flags.explain is None else SheetFolder(flags.explain, flags.paths, paths)
    if len(paths) == 1:
        use_one_thread()
    captioner = Captioner.from_pretrained(model.model, device=compute.device, dtype=compute.dtype)
    options = captioner.options(**decoding)
    if sheets is not None:
        sheets.check(captioner)
    results = captioner.stream(paths, options=options, batch_size=compute.batch_size, on_error="return")
    failed = 0
    with open_output(flags.output) as stream:
        stream.write(header)
        for number, (path, result) in enumerate(zip(paths, results, strict=True)):
            stream.write(to_lines(path, result))
            stream.flush()
            try:
                if isinstance(result, ImageError):
                    raise result
                best = result[0] if isinstance(result, list) else result
                if best.unsure:
                    mean = f"mean log-probability {best.mean_logprob:.2f} a token"
                    say(f"{path}: unsure ({mean}); it may be unlike the pictures the model knows.")
                if sheets is not None:
                    sheets.write(number, captioner, best)
            except ImageError as error:  # for a sheet the picture is read again, and may be gone
                failed += 1
                say(str(error))
    if sheets is not None:
        say(f"Pictures explained in {sheets.directory}: {sheets.num_written:,}.")
    return exit_code(failed, len(paths))


def _features(flags: cli_options.FeatureFlags) -> int:
    from pixtell.augment import ViewOptions
    from pixtell.datasets import load_dataset
    from pixtell.devices import choose_placement
    from pixtell.encoders import load_encoder, parse_encoder
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
        with counter(split, say) as count:
            cache = extract_split(
                encoder, records, flags.output, placement, views=views, how=how, report=say, on_progress=count
            )
        failed += len(cache.errors)
        total += len(records)
        say(f"{split}: {len(records) - len(cache.errors):,} images in {cache.path}")
    return exit_code(failed, total)


def _train(data: Any, what: Any, run: Any) -> int:
    from pixtell.evaluation import validation_scores
    from pixtell.training.captioner_job import train_captioner

    with training_progress(say) as on_progress:
        result = train_captioner(
            data, what, run, validate=validation_scores, on_progress=on_progress, report=say
        )
    _say_how_it_ended(result, run.output)
    return _ALL_DONE


def _train_encoder(data: Any, what: Any, run: Any) -> int:
    from pixtell.training.encoder_job import train_encoder

    with training_progress(say) as on_progress:
        result = train_encoder(data, what, run, on_progress=on_progress, report=say)
    _say_how_it_ended(result, run.output)
    return _ALL_DONE


def _datasets(flags: cli_options.DatasetFlags) -> int:
    from pixtell.datasets import DATASETS, check_dataset

    if flags.action == "list":
        for name, read in DATASETS.items():
            show(f"{name:10} {(read.__doc__ or '').splitlines()[0]}")
        return _ALL_DONE
    if flags.action != "check":
        raise OptionError(f"pixtell datasets {flags.action!r} is unknown; choose list or check.")
    report = check_dataset(flags.dataset, flags.data_dir)
    for line in report.lines:
        show(line)
    return _SOME_FAILED if report.problems else _ALL_DONE


def _models(flags: cli_options.ModelFlags) -> int:
    from pixtell.checkpoints import SHIPPED, find_checkpoint, read_config

    if flags.action == "export":
        return _export(flags)
    if flags.action != "list":
        raise OptionError(f"pixtell models {flags.action!r} is unknown; choose list or export.")
    for name in SHIPPED:
        directory = find_checkpoint(name)
        config = read_config(directory)
        size = (directory / "model.safetensors").stat().st_size / 1e6
        show(f"{name:10} {config.family:8} {size:5.1f} MB, over {Path(config.encoder.source).name}")
    return _ALL_DONE


def _export(flags: cli_options.ModelFlags) -> int:
    from pixtell.exports import export_checkpoint

    if flags.format != "onnx":
        raise OptionError(f"--format {flags.format!r} is unknown; choose onnx.")
    if flags.model is None or flags.output is None:
        missing = "The model" if flags.model is None else "--output"
        raise OptionError(f"{missing} is missing; write pixtell models export nano --output nano-onnx.")
    export_checkpoint(flags.model, flags.output, dtype=flags.dtype, report=say)
    size = sum(path.stat().st_size for path in flags.output.iterdir()) / 1e6
    say(f"{flags.output} holds {flags.model} as {flags.dtype}, {size:.1f} MB; it is a --model.")
    return _ALL_DONE


def _decoding() -> OnlyGiven:
    from pixtell.decoding import DecodingOptions

    return OnlyGiven(DecodingOptions)


def _train_groups() -> Groups:
    from pixtell.training.captioner_options import CaptionerOptions
    from pixtell.training.run_options import DataOptions, RunOptions

    return DataOptions, CaptionerOptions, RunOptions


def _train_encoder_groups() -> Groups:
    from pixtell.training.run_options import DataOptions, EncoderOptions, EncoderRunOptions

    return DataOptions, EncoderOptions, EncoderRunOptions


# name -> one line of help, what it does, and what imports the groups of its flags
COMMANDS: dict[str, tuple[str, Callable[..., int], Callable[[], Groups]]] = {
    "caption": (
        "Caption pictures and folders of pictures.",
        _caption,
        lambda: (cli_options.CaptionFlags, cli_options.ModelFlag, cli_options.ComputeFlags, _decoding()),
    ),
    "features": (
        "Put a data set through an encoder once, onto disk.",
        _features,
        lambda: (cli_options.FeatureFlags,),
    ),
    "train": ("Train a captioner.", _train, _train_groups),
    "train-encoder": (
        "Train an encoder, from a teacher or with captions.",
        _train_encoder,
        _train_encoder_groups,
    ),
    "evaluate": (
        "Caption a split of a data set and score the captions.",
        cli_scoring.evaluate_split,
        lambda: (
            cli_options.SplitFlags,
            cli_options.MetricFlags,
            cli_options.ModelFlag,
            cli_options.ComputeFlags,
            _decoding(),
        ),
    ),
    "score": (
        "Score anyone's captions against references.",
        cli_scoring.score_files,
        lambda: (cli_options.ScoreFlags, cli_options.MetricFlags),
    ),
    "compare": (
        "Put systems side by side, as a page.",
        cli_scoring.compare_systems,
        lambda: (
            cli_options.CompareFlags,
            cli_options.MetricFlags,
            cli_options.ComputeFlags,
            _decoding(),
        ),
    ),
    "search": (
        "Rank the pictures of folders by a text.",
        cli_search.search_folders,
        lambda: (cli_options.SearchFlags, cli_options.ComputeFlags),
    ),
    "datasets": (
        "List the kinds of data sets, or check one.",
        _datasets,
        lambda: (cli_options.DatasetFlags,),
    ),
    "models": ("List the models in the package, or export one.", _models, lambda: (cli_options.ModelFlags,)),
}


def _say_how_it_ended(result: "RunResult", output: Path) -> None:
    best = (
        "" if result.best_value is None else f"; best at step {result.best_step:,} ({result.best_value:.4f})"
    )
    more = "" if result.finished else "; go on with --resume"
    say(f"{result.reason}{best}; the run is in {output}{more}.")
