"""The commands that score: `evaluate`, `score` and `compare`.

In: their flags. Out: tables on stdout, files where --output says. What they call does the work.
"""

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pixtell import cli_options
from pixtell.errors import OptionError
from pixtell.options import check_positive
from pixtell.terminal import counter, exit_code, say, show

if TYPE_CHECKING:
    from pixtell.datasets.records import CaptionedImage
    from pixtell.images import ImageSource
    from pixtell.metrics import Score, Sources


def evaluate_split(
    flags: cli_options.SplitFlags,
    metric_flags: cli_options.MetricFlags,
    model: cli_options.ModelFlag,
    compute: cli_options.ComputeFlags,
    decoding: dict[str, Any],
) -> int:
    """`pixtell evaluate`."""
    from pixtell.captioner import Captioner
    from pixtell.evaluation import evaluate
    from pixtell.files import check_writable
    from pixtell.metrics import Scorer

    check_positive(flags, "limit")
    if flags.output is not None:
        check_writable(flags.output)
    records, train_captions = _read_split(flags.dataset, flags.data_dir, flags.split, flags.limit)
    images = {record.image_id: record.image for record in records}
    scorer = Scorer(_names(metric_flags), _sources(metric_flags, images, train_captions, compute.device))
    captioner = Captioner.from_pretrained(model.model, device=compute.device, dtype=compute.dtype)
    with counter("captioning", say) as on_progress:
        evaluation = evaluate(
            captioner,
            records,
            dataset=flags.dataset,
            split=flags.split,
            options=captioner.options(**decoding),
            scorer=scorer,
            batch_size=compute.batch_size,
            on_progress=on_progress,
        )
    for error in evaluation.errors.values():
        say(f"left out: {error}")
    if flags.output is not None:  # before anything is shown: whoever reads that may have left
        evaluation.save(flags.output)
    _show_scores(evaluation.scores, evaluation.yardstick)
    return exit_code(len(evaluation.errors), len(records))


def score_files(flags: cli_options.ScoreFlags, metric_flags: cli_options.MetricFlags) -> int:
    """`pixtell score`."""
    from pixtell.files import check_writable, write_json
    from pixtell.metrics import Scorer, results_json
    from pixtell.metrics.files import read_captions

    if flags.output is not None:
        check_writable(flags.output)
    names = _names(metric_flags)
    hypotheses, references = read_captions(flags.hypotheses, flags.references)
    if metric_flags.clip is not None and flags.images is None:
        raise OptionError(
            f"--clip {metric_flags.clip} needs the pictures; say with --images DIR where they are."
        )
    images = _images_by_id(flags.images, hypotheses)
    scorer = Scorer(names, _sources(metric_flags, images, None))
    scores = scorer.score(hypotheses, references)
    yardstick = scorer.human_scores(references)
    if flags.output is not None:  # before anything is shown: whoever reads that may have left
        write_json(flags.output, results_json(scores, num_images=len(hypotheses), yardstick=yardstick))
    _show_scores(scores, yardstick)
    return 0


def compare_systems(
    flags: cli_options.CompareFlags,
    metric_flags: cli_options.MetricFlags,
    compute: cli_options.ComputeFlags,
    decoding: dict[str, Any],
) -> int:
    """`pixtell compare`."""
    from pixtell.comparison import compare, file_systems, model_system
    from pixtell.files import check_writable
    from pixtell.metrics import Scorer
    from pixtell.metrics.corpus import count_images
    from pixtell.reports import write_comparison

    check_positive(flags, "limit")
    check_writable(flags.output)
    if len(flags.model) + len(flags.captions) < 1:
        raise OptionError("No system is named; give --model nano --model nano-lstm, or --captions FILE.")
    records, train_captions, where = _compared_images(flags)
    systems = [
        model_system(
            source,
            decoding=decoding,
            batch_size=compute.batch_size,
            device=compute.device,
            dtype=compute.dtype,
        )
        for source in flags.model
    ] + file_systems(flags.captions, records)
    images = {record.image_id: record.image for record in records}
    scorer = Scorer(_names(metric_flags), _sources(metric_flags, images, train_captions, compute.device))
    names = " and ".join(system.name for system in systems)
    with counter("comparing", say) as count:
        comparison = compare(
            systems,
            records,
            title=flags.title or f"{names} on {where}",
            scorer=scorer,
            notes=[f"Made by: {_typed()}"],
            on_progress=lambda what, done, total: count(done, total, what),
        )
    write_comparison(flags.output, comparison)
    for warning in comparison.warnings:
        say(warning)
    say(f"{count_images(len(comparison.images))} in {flags.output}; open it in a browser.")
    return exit_code(len(records) - len(comparison.images), len(records))


def _compared_images(
    flags: cli_options.CompareFlags,
) -> "tuple[Sequence[CaptionedImage], Sequence[str] | None, str]":
    """The records, the captions of the training split where there are any, and where all that is from."""
    from pixtell.bulk import find_images
    from pixtell.datasets.records import CaptionedImage

    if flags.paths and flags.dataset is not None:
        raise OptionError(f"Both pictures and --dataset {flags.dataset} are named; give one of them.")
    if flags.dataset is not None:
        records, train_captions = _read_split(flags.dataset, flags.data_dir, flags.split, flags.limit)
        return records, train_captions, f"{flags.dataset} {flags.split}"
    if not flags.paths:
        if flags.data_dir is not None:
            raise OptionError(
                f"--data-dir {flags.data_dir} names no data set alone; add --dataset folder, or another name."
            )
        raise OptionError("Nothing to caption is named; give pictures or a folder, or --dataset NAME.")
    paths = find_images(flags.paths)[: flags.limit]
    named = [CaptionedImage(str(path), path, (), "test") for path in dict.fromkeys(paths)]
    return named, None, str(flags.paths[0]) if len(flags.paths) == 1 else f"{len(named):,} pictures"


def _read_split(
    name: str, data_dir: Path | None, split: str, limit: int | None
) -> "tuple[Sequence[CaptionedImage], Sequence[str] | None]":
    """The records of a split, and the captions of the training split, None where there is none."""
    from pixtell.datasets import load_dataset

    dataset = load_dataset(name, data_dir)
    for warning in dataset.warnings:
        say(warning)
    records = dataset.split(split)[:limit]
    train = [text for record in dataset.records if record.split == "train" for text in record.captions]
    return records, train if train and records[0].split != "train" else None


def _sources(
    flags: cli_options.MetricFlags,
    images: "Mapping[str, ImageSource]",
    train_captions: Sequence[str] | None,
    device: str = "auto",
) -> "Sources":
    """What some metrics need; train_captions: of the data set, unless a file of others is named."""
    from pixtell.metrics import Sources
    from pixtell.metrics.files import read_references

    if flags.train_captions is not None:
        file = read_references(flags.train_captions)
        train_captions = [text for _, texts in file.captions for text in texts]
    embedder = None
    wanted = _names(flags)
    if flags.clip is not None and (wanted is None or any("CLIPScore" in name for name in wanted)):
        from pixtell.embedder import Embedder, EmbedderById

        embedder = EmbedderById(Embedder.from_pretrained(flags.clip, device=device), images)
    return Sources(
        meteor_dir=flags.meteor_dir,
        spice_dir=flags.spice_dir,
        java=flags.java,
        embedder=embedder,
        train_captions=train_captions,
    )


def _images_by_id(folder: Path | None, image_ids: Iterable[str]) -> dict[str, Path]:
    """The pictures of a folder whose name, with or without its suffix, is an image id."""
    if folder is None:
        return {}
    from pixtell.bulk import find_images
    from pixtell.metrics.corpus import count_ids, first_ids

    if not folder.is_dir():
        raise OptionError(f"--images {folder} is no folder; give the folder that holds the pictures.")
    files = {str(path.relative_to(folder)): path for path in find_images([folder])}
    by_stem: dict[str, list[str]] = {}
    for name in files:
        by_stem.setdefault(str(Path(name).with_suffix("")), []).append(name)
    ids = list(image_ids)
    absent = [image_id for image_id in ids if image_id not in files and image_id not in by_stem]
    if absent:
        raise OptionError(f"--images {folder} lacks {count_ids(absent)} ({first_ids(absent)}); name another.")
    unclear = [key for key in ids if key not in files and len(by_stem[key]) > 1]
    if unclear:
        names = " and ".join(by_stem[unclear[0]])
        raise OptionError(f"--images {folder} has {names} for the id {unclear[0]!a}; give ids with suffixes.")
    return {image_id: files.get(image_id) or files[by_stem[image_id][0]] for image_id in ids}


def _names(flags: cli_options.MetricFlags) -> list[str] | None:
    """Raises: ScoringError for an unknown metric."""
    from pixtell.metrics import metric_names

    if flags.metrics is None:
        return None
    return metric_names([name.strip() for name in flags.metrics.split(",") if name.strip()])


def _show_scores(scores: "Mapping[str, Score]", yardstick: "Mapping[str, Score]") -> None:
    from pixtell.metrics import score_lines, warnings_for

    for line in score_lines(scores, yardstick):
        show(line)
    for warning in warnings_for(scores):
        say(warning)


def _typed() -> str:
    import shlex

    return shlex.join(["pixtell", *sys.argv[1:]])
