"""Several systems and the same images in, a comparison that can be shown out.

In: models or files of captions, and records (of images without captions, too). Out: `reports.Comparison`:
captions, scores, what differs for certain, small pictures, training curves where a run's are known. It draws
no page.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixtell.captioner import Caption, Captioner, stored_options
from pixtell.checkpoints import find_checkpoint, read_config
from pixtell.datasets.records import CaptionedImage
from pixtell.errors import DatasetError, ImageError, OptionError
from pixtell.images import make_thumbnails
from pixtell.metrics import (
    Score,
    Scorer,
    score_differences,
    warnings_for,
)
from pixtell.metrics.files import read_captions_of
from pixtell.metrics.significance import Difference, holm
from pixtell.reports import ComparedImage, ComparedSystem, Comparison, Thumbnail, read_metrics

OnProgress = Callable[[str, int, int], None]  # what is going on, done, total
_MOST_NAMED = 5  # warnings about single images


@dataclass(frozen=True)
class System:
    """One that takes part.

    captions: for records in order, each one's caption, or the ImageError of one that cannot be read. detail:
    one line on what it is. curves: the lines of its run's metrics.jsonl, where they are known.
    """

    name: str
    captions: Callable[[Sequence[CaptionedImage]], Iterator[str | ImageError]]
    detail: str = ""
    curves: Sequence[Mapping[str, float]] = ()


def model_system(
    source: str,
    *,
    decoding: Mapping[str, Any],
    batch_size: int = 16,
    device: str = "auto",
    dtype: str = "auto",
) -> System:
    """A model that `Captioner.from_pretrained` takes. Its weights are read when its turn comes, so that only
    one model is in memory at a time.

    decoding: fields of DecodingOptions, over the model's defaults.
    Raises: CheckpointError where there is no such model; OptionError for decoding options that cannot be.
    """
    directory = find_checkpoint(source)
    config = read_config(directory)
    options = stored_options(directory, config).changed(decoding)
    options.validate()
    # Of the options as they came out: who draws has one beam, whatever the model brings.
    how = ", ".join(f"{name} {getattr(options, name)}" for name in config.decoding | dict(decoding))
    detail = f"{config.family} over {Path(config.encoder.source).name}{'; ' if how else ''}{how}"

    def captions(records: Sequence[CaptionedImage]) -> Iterator[str | ImageError]:
        captioner = Captioner.from_pretrained(source, device=device, dtype=dtype)
        images = (record.image for record in records)
        for result in captioner.stream(images, options=options, batch_size=batch_size, on_error="return"):
            if isinstance(result, ImageError):
                yield result
            else:
                yield (result if isinstance(result, Caption) else result[0]).text

    return System(source, captions, detail, _curves_of(Path(source), directory))


def file_systems(paths: Sequence[Path], records: Sequence[CaptionedImage]) -> list[System]:
    """Anybody's captions of these records, from files that `pixtell score --hypotheses` takes; captions of
    other images are left out.

    Raises: ScoringError where a file cannot be read or has not exactly one caption for each record.
    """
    stems = Counter(path.stem for path in paths)
    return [_file_system(path, path.stem if stems[path.stem] == 1 else str(path), records) for path in paths]


def _file_system(path: Path, name: str, records: Sequence[CaptionedImage]) -> System:
    found = read_captions_of([record.image_id for record in records], path)

    def captions(records: Sequence[CaptionedImage]) -> Iterator[str | ImageError]:
        return (found[record.image_id] for record in records)

    return System(name, captions, f"captions from {path.name}")


def compare(
    systems: Sequence[System],
    records: Sequence[CaptionedImage],
    *,
    title: str,
    scorer: Scorer | None = None,
    notes: Sequence[str] = (),
    on_progress: OnProgress = lambda what, done, total: None,
) -> Comparison:
    """Put systems side by side on the same images, scored against the records' captions where there are any.

    scorer: None scores with all metrics that need nothing more. An image that cannot be read is left out for
    all systems, and said in the warnings.
    Raises: OptionError where two systems have one name; DatasetError where no image can be read; ScoringError
    from the metrics.
    """
    repeated = [name for name, count in Counter(system.name for system in systems).items() if count > 1]
    if repeated:
        raise OptionError(f"{repeated[0]!r} is named more than once; name each system once.")
    captions, errors = _caption(systems, records, on_progress)
    kept = [record for record in records if record.image_id not in errors]
    if not kept:
        first = next(iter(errors.values()), "there are none")
        raise DatasetError(f"No image of {len(records):,} can be compared; the first: {first}")
    scores, differences, yardstick = _score(captions, kept, scorer)
    return Comparison(
        title=title,
        systems=[
            ComparedSystem(
                name=system.name,
                detail=system.detail,
                captions={record.image_id: captions[system.name][record.image_id] for record in kept},
                scores=scores[system.name],
                curves=system.curves,
            )
            for system in systems
        ],
        images=list(_images(kept, on_progress)),
        differences=differences,
        yardstick=yardstick,
        warnings=[*warnings_for(next(iter(scores.values()))), *_warnings(errors)],
        notes=notes,
    )


def _caption(
    systems: Sequence[System], records: Sequence[CaptionedImage], on_progress: OnProgress
) -> tuple[dict[str, dict[str, str]], dict[str, ImageError]]:
    """Captions by system and image_id; the images that a system could not read."""
    captions: dict[str, dict[str, str]] = {}
    errors: dict[str, ImageError] = {}
    for system in systems:
        captions[system.name] = {}
        for done, (record, result) in enumerate(zip(records, system.captions(records), strict=True), start=1):
            if isinstance(result, ImageError):
                errors[record.image_id] = result
            else:
                captions[system.name][record.image_id] = result
            on_progress(f"captioning with {system.name}", done, len(records))
    return captions, errors


def _score(
    captions: Mapping[str, Mapping[str, str]], records: Sequence[CaptionedImage], scorer: Scorer | None
) -> tuple[dict[str, dict[str, Score]], dict[tuple[str, str], Difference], dict[str, Score]]:
    """Scores by system, differences to the first by (system, metric), the yardstick."""
    references = {record.image_id: record.captions for record in records}
    of_system = {name: {key: found[key] for key in references} for name, found in captions.items()}
    scorer = scorer or Scorer()
    if any(references.values()):
        scores = {name: scorer.score(found, references) for name, found in of_system.items()}
        yardstick = scorer.human_scores(references)
    else:
        scores = {name: scorer.describe(found) for name, found in of_system.items()}
        yardstick = {}
    return scores, _differences(scores), yardstick


def _differences(scores: Mapping[str, Mapping[str, Score]]) -> dict[tuple[str, str], Difference]:
    """Every system minus the first; p-values corrected, metric by metric, for how many systems there are."""
    (_, of_first), *others = scores.items()
    found = {
        (name, metric): difference
        for name, of_system in others
        for metric, difference in score_differences(of_first, of_system).items()
    }
    for metric in dict.fromkeys(metric for _, metric in found):
        keys = [key for key in found if key[1] == metric]
        corrected = holm([found[key].p_value for key in keys])
        for key, p_value in zip(keys, corrected, strict=True):
            found[key] = Difference(found[key].value, found[key].interval, p_value)
    return found


def _images(records: Sequence[CaptionedImage], on_progress: OnProgress) -> Iterator[ComparedImage]:
    thumbnails = make_thumbnails(record.image for record in records)
    for done, (record, made) in enumerate(zip(records, thumbnails, strict=True), start=1):
        if isinstance(made, ImageError):  # readable a moment ago, or captioned by a file alone
            yield ComparedImage(record.image_id, record.captions, problem=made.reason)
        else:
            yield ComparedImage(record.image_id, record.captions, Thumbnail(*made))
        on_progress("making small pictures", done, len(records))


def _curves_of(source: Path, directory: Path) -> Sequence[Mapping[str, float]]:
    """The curves of the run that a checkpoint belongs to; () for one that was moved away from it."""
    runs = [place for place in (source, directory.parent) if (place / "metrics.jsonl").is_file()]
    return read_metrics(runs[0]) if runs else ()


def _warnings(errors: Mapping[str, ImageError]) -> list[str]:
    named = [f"Left out: {error}" for error in errors.values()]
    more = len(named) - _MOST_NAMED
    return named[:_MOST_NAMED] + (
        [f"Left out: {more:,} more images that cannot be read."] if more > 0 else []
    )
