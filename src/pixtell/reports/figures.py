"""A comparison -> its distributions and training curves, as drawings with words.

In: a `Comparison`, and how many words its captions have. Out: `Figure`s in the order to show. How a drawing
is made stands in charts.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pixtell.reports.charts import (
    HISTOGRAM_HEIGHT,
    LINES_HEIGHT,
    PEOPLE,
    Bins,
    Chart,
    Series,
    bins_for,
    histogram,
    line_chart,
    quantile,
)
from pixtell.reports.comparison import Comparison
from pixtell.reports.curves import points_of
from pixtell.reports.metric_notes import format_percent, format_value, label_for
from pixtell.reports.tables import letter_of

_CURVES = {
    "loss": "Training loss",
    "val/CIDEr-D": "CIDEr-D on the validation split",
    "val/BLEU-4": "BLEU-4 on the validation split",
}


@dataclass(frozen=True)
class Figure:
    """One drawing. system: whose, by place, or None. label: where it is of no system. summary: a few words
    that stand beside it."""

    chart: Chart
    label: str = ""
    system: int | None = None
    summary: str = ""


@dataclass(frozen=True)
class FigureGroup:
    """Figures of one metric, on equal scales."""

    metric: str
    label: str
    figures: Sequence[Figure]


def length_figures(systems: Sequence[Sequence[int]], references: Sequence[int]) -> list[Figure]:
    """How many words captions have, a figure a system, then the references'.

    systems: for each system the words of each caption. references: of every reference.
    """
    every = [length for lengths in (*systems, references) for length in lengths]
    bins = bins_for(every, whole_numbers=True)
    top_share = _top_share(bins, [*systems, references])
    figures = []
    for index, lengths in enumerate([*systems, references]):
        if not lengths:
            continue
        is_system = index < len(systems)
        ordered = sorted(lengths)
        mean = sum(ordered) / len(ordered)
        spread = f"half of them {quantile(ordered, 0.25)} to {quantile(ordered, 0.75)}"
        chart = Chart(
            histogram(
                lengths,
                bins,
                top_share=top_share,
                index=index if is_system else PEOPLE,
                outline=references if is_system else (),
            ),
            HISTOGRAM_HEIGHT,
            f"Histogram of words in a caption: from {ordered[0]} to {ordered[-1]}, {spread}, "
            f"median {quantile(ordered, 0.5)}.",
        )
        summary = f"{mean:.1f} words on average, {spread}"
        figures.append(
            Figure(chart, "" if is_system else "References", index if is_system else None, summary)
        )
    return figures


def score_figures(comparison: Comparison, metrics: Sequence[str]) -> list[FigureGroup]:
    """How the scores of single pictures spread, a group a metric, a figure a system."""
    groups = []
    for metric in metrics:
        values = {
            index: [value for value in system.scores[metric].per_image.values() if math.isfinite(value)]
            for index, system in enumerate(comparison.systems)
            if metric in system.scores
        }
        values = {index: found for index, found in values.items() if found}
        if values:
            groups.append(FigureGroup(metric, label_for(metric), _score_group(metric, values)))
    return groups


def curve_figures(comparison: Comparison) -> list[Figure]:
    """The training curves that are known, all systems in one drawing a kind."""
    curves = [points_of(system.curves) for system in comparison.systems]
    figures = []
    for name, label in _CURVES.items():
        series = []
        for index, found in enumerate(curves):
            points = sorted(point for point in found.get(name, ()) if all(map(math.isfinite, point)))
            if points:
                series.append(Series(index, letter_of(index), points))
        if series:
            texts = [_curve_text(comparison.systems[line.index].name, line.points) for line in series]
            drawing = line_chart(series, from_zero=name != "loss")
            figures.append(Figure(Chart(drawing, LINES_HEIGHT, f"{label} by step. {' '.join(texts)}"), label))
    return figures


def _score_group(metric: str, values: Mapping[int, Sequence[float]]) -> list[Figure]:
    bins = bins_for([value for found in values.values() for value in found], whole_numbers=False)
    top_share = _top_share(bins, list(values.values()))
    figures = []
    for index, found in values.items():
        ordered = sorted(found)
        quarter, median, three_quarters = (
            format_value(metric, quantile(ordered, share)) for share in (0.25, 0.5, 0.75)
        )
        chart = Chart(
            histogram(found, bins, top_share=top_share, index=index),
            HISTOGRAM_HEIGHT,
            f"Histogram of {label_for(metric)}: from {format_value(metric, ordered[0])} to "
            f"{format_value(metric, ordered[-1])}, half of the pictures {quarter} to {three_quarters}, "
            f"median {median}.",
        )
        zeros = sum(value <= 0 for value in found) / len(found)
        summary = f"median {median}" + (f", {format_percent(zeros)} at 0" if zeros >= 0.05 else "")
        figures.append(Figure(chart, system=index, summary=summary))
    return figures


def _top_share(bins: Bins, groups: Sequence[Sequence[float]]) -> float:
    """The share of the highest bar over all groups, rounded up to a twentieth: the common scale."""
    highest = max((max(bins.shares(values)) for values in groups if values), default=0.0)
    return math.ceil(highest * 20 - 1e-9) / 20


def _curve_text(name: str, points: Sequence[tuple[float, float]]) -> str:
    (first_step, first), (last_step, last) = points[0], points[-1]
    return f"{name}: from {first:.3g} at step {first_step:,.0f} to {last:.3g} at step {last_step:,.0f}."
