"""What a metric found, as a value that explains itself; and what changes between two systems.

In: `Values` with their images. Out: `Score`, its JSON, differences between the scores of two systems. It
computes no metric.
"""

import importlib.metadata
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pixtell.errors import ScoringError
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.significance import Difference, differences_of, intervals_of


@dataclass(frozen=True)
class Score:
    """One metric over a set of captions.

    per_image: by image id, without the images that have no value of their own (all, for a vocabulary).
    interval: 95 %, or None where none can be drawn. signature: the settings that make two values comparable,
    such as 'CIDEr-D|words:ptb|refs:5|images:1000|pixtell:0.1.0'.
    """

    value: float
    per_image: dict[str, float]
    signature: str
    interval: tuple[float, float] | None = None
    # what a paired test needs; None in a score that was read from a file
    values: Values | None = field(default=None, repr=False, compare=False)
    image_ids: tuple[str, ...] = field(default=(), repr=False, compare=False)


def scores_of(corpus: Corpus, values: Mapping[str, Values]) -> dict[str, Score]:
    """The scores of several metrics of one corpus."""
    intervals = intervals_of(values)
    counts = f"refs:{corpus.references_per_image}|images:{len(corpus.image_ids)}"
    return {
        name: Score(
            value=found.value,
            per_image={
                image_id: value
                for image_id, value in zip(corpus.image_ids, found.per_image, strict=bool(found.per_image))
                if not math.isnan(value)
            },
            signature=f"{name}|{found.settings}|{counts}|pixtell:{_version()}",
            interval=intervals.get(name),
            values=found,
            image_ids=corpus.image_ids,
        )
        for name, found in values.items()
    }


def score_differences(first: Mapping[str, Score], second: Mapping[str, Score]) -> dict[str, Difference]:
    """Second minus first for every metric that both have and that can be tested.

    Raises: ScoringError where they were scored on different images, or with different settings.
    """
    names = [name for name in first if name in second and first[name].values and second[name].values]
    for name in names:
        if first[name].signature != second[name].signature:
            raise ScoringError(
                f"{first[name].signature} and {second[name].signature} do not compare; score both systems on "
                "the same images with the same settings."
            )
        if first[name].image_ids != second[name].image_ids:
            raise ScoringError(
                f"{name} of the two systems is of different images, or of another order; score both on the "
                "same."
            )
    return differences_of(
        {name: values for name in names if (values := first[name].values)},
        {name: values for name in names if (values := second[name].values)},
    )


def score_lines(scores: Mapping[str, Score], yardstick: Mapping[str, Score]) -> list[str]:
    """The scores as a table for people: value, interval, and what one person's captions get."""
    width = max(map(len, scores), default=0)
    lines = [
        f"{'':{width}}  {'value':>8}  {'95 % interval':^18}  {'one person' if yardstick else ''}".rstrip()
    ]
    for name, score in scores.items():
        low_high = "" if score.interval is None else " to ".join(map(_number, score.interval))
        person = f"{_number(yardstick[name].value):>10}" if name in yardstick else ""
        lines.append(f"{name:{width}}  {_number(score.value):>8}  {low_high:^18}  {person}".rstrip())
    return lines


def results_json(
    scores: Mapping[str, Score], *, num_images: int, yardstick: Mapping[str, Score] | None = None
) -> dict[str, Any]:
    """The scores as the results file holds them. yardstick: as `human_scores` gives it."""
    results: dict[str, Any] = {
        "scores": {name: _score_json(score) for name, score in scores.items()},
        "num_images": num_images,
    }
    if yardstick:
        results["yardstick"] = {
            name: _score_json(score) | {"per_image": {}} for name, score in yardstick.items()
        }
    return results


def _score_json(score: Score) -> dict[str, Any]:
    return {
        "value": None if math.isnan(score.value) else score.value,  # JSON has no nan
        "per_image": score.per_image,
        "interval": None if score.interval is None else list(score.interval),
        "signature": score.signature,
    }


def _number(value: float) -> str:
    """Four decimals for what is a share, fewer for what is a count: '0.1712', '9.84', '312'."""
    return f"{value:.4f}" if abs(value) < 5 else f"{value:.2f}" if abs(value) < 100 else f"{value:,.0f}"


def _version() -> str:
    try:
        return importlib.metadata.version("pixtell")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
