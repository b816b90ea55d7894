"""Scores of a comparison -> rows to show, and sentences that say what they mean.

In: a `Comparison`. Out: `Table`s of finished text and interval drawings, findings in words. It knows no HTML
beyond the drawings, and computes no score.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pixtell.metrics import Score
from pixtell.metrics.significance import Difference
from pixtell.reports.charts import PEOPLE, interval_bar
from pixtell.reports.comparison import Comparison
from pixtell.reports.metric_notes import (
    HEADLINES,
    format_change,
    format_p,
    format_percent,
    format_value,
    label_for,
    note_for,
)

_FIRST_STRONG_ISOLATE, _POP_ISOLATE = "\u2068", "\u2069"
_CAPTIONS = {
    "quality": "How good the captions are",
    "description": "What the captions look like",
}


@dataclass(frozen=True)
class Cell:
    """One system's number in one metric, as text; a text that does not apply is empty.

    mark: better, worse, other (a real difference without a better side), unclear (no difference shown) or
    untested.
    """

    value: str
    interval: str = ""
    bar: str = ""
    change: str = ""
    change_interval: str = ""
    verdict: str = ""
    mark: str = ""


@dataclass(frozen=True)
class Row:
    anchor: str
    label: str
    cells: Sequence[Cell | None]  # a system each, then the yardstick where the table has one


@dataclass(frozen=True)
class Table:
    id: str
    caption: str
    has_yardstick: bool
    rows: Sequence[Row]


@dataclass(frozen=True)
class Explanation:
    """signatures: one text where all systems agree, else one each with the system's letter before it."""

    anchor: str
    label: str
    explanation: str
    direction: str
    signatures: Sequence[str]


def letter_of(index: int) -> str:
    """What a system is called in small: A, B, ... Z, then S27."""
    return chr(ord("A") + index) if index < 26 else f"S{index + 1}"


def isolated(name: str) -> str:
    """A name for the middle of a sentence: one written from right to left must not turn the rest of it."""
    return name if name.isascii() else f"{_FIRST_STRONG_ISOLATE}{name}{_POP_ISOLATE}"


def metrics_of(scores: Iterable[Mapping[str, Score]]) -> list[str]:
    """All metrics of several systems, each once, in the order in which they come."""
    return list(dict.fromkeys(metric for found in scores for metric in found))


def headline_of(metrics: Sequence[str]) -> str | None:
    """The metric that stands for all of them where only one can be shown."""
    judging = [metric for metric in metrics if not note_for(metric).describes]
    return next((metric for metric in HEADLINES if metric in judging), judging[0] if judging else None)


def score_tables(comparison: Comparison) -> list[Table]:
    """The metrics that judge, then those that describe; a table without rows is left out."""
    metrics = metrics_of(system.scores for system in comparison.systems)
    groups = {
        "quality": [metric for metric in metrics if not note_for(metric).describes],
        "description": [metric for metric in metrics if note_for(metric).describes],
    }
    return [_table(comparison, name, group) for name, group in groups.items() if group]


def explanations(comparison: Comparison) -> list[Explanation]:
    """What each metric of the tables measures, in their order, with its settings."""
    names = [row.anchor for table in score_tables(comparison) for row in table.rows]
    metrics = metrics_of(system.scores for system in comparison.systems)
    by_anchor = {anchor_of(metric): metric for metric in metrics}
    found = []
    for metric in (by_anchor[name] for name in names):
        note = note_for(metric)
        found.append(
            Explanation(
                anchor_of(metric),
                label_for(metric),
                note.explanation,
                note.direction,
                _signatures(comparison, metric),
            )
        )
    return found


def anchor_of(metric: str) -> str:
    """The id of a metric's explanation: letters, digits and dashes."""
    return "metric-" + "".join(char if char.isascii() and char.isalnum() else "-" for char in metric.lower())


def findings(comparison: Comparison) -> list[str]:
    """What the leading metric says of every system but the first, and where people stand: sentences."""
    first, *others = comparison.systems
    metric = headline_of(metrics_of(system.scores for system in comparison.systems))
    if metric is None or metric not in first.scores:
        return []
    sentences = []
    base = first.scores[metric].value
    for system in others:
        value = system.scores[metric].value if metric in system.scores else math.nan
        if math.isfinite(value) and math.isfinite(base):
            found = comparison.differences.get((system.name, metric))
            names = (isolated(system.name), isolated(first.name))
            sentences.append(_finding(metric, names, (value, base), found))
    return [*sentences, *_against_people(comparison, metric)]


def reading(comparison: Comparison) -> list[str]:
    """How to read intervals and tests, where the tables have any: sentences."""
    sentences = []
    if any(score.interval for system in comparison.systems for score in system.scores.values()):
        sentences.append(
            "The interval says how much of a number hangs on the choice of pictures: intervals made like "
            "this hold the value over all pictures of the kind about 19 times out of 20 (bootstrap)."
        )
    if comparison.differences:
        several = ", corrected for several systems after Holm" if len(comparison.systems) > 2 else ""
        sentences.append(
            "A difference counts as real where swapping the two systems' captions at random, picture by "
            "picture, gives one as large in fewer than 5 cases of 100 (p below 0.05; paired randomisation "
            f"test{several}); “no difference shown” does not mean that there is none. Metrics are not "
            "corrected for each other: of twenty, one may seem to differ by chance."
        )
    if comparison.yardstick:
        sentences.append(
            "One person: the first reference of every picture, scored against its other references as if a "
            "system had written it. It has one reference fewer than the systems have, and so a harder task."
        )
    return sentences


def _table(comparison: Comparison, name: str, metrics: Sequence[str]) -> Table:
    has_yardstick = any(metric in comparison.yardstick for metric in metrics)
    rows = []
    for metric in metrics:
        scale = _scale(comparison, metric)
        cells = [_cell(comparison, index, metric, scale) for index in range(len(comparison.systems))]
        if has_yardstick:
            score = comparison.yardstick.get(metric)
            cells.append(_score_cell(metric, score, scale, PEOPLE) if score else None)
        rows.append(Row(anchor_of(metric), label_for(metric), cells))
    has_intervals = any(cell and cell.interval for row in rows for cell in row.cells)
    caption = _CAPTIONS[name] + (", with 95 % intervals" if has_intervals else "")
    return Table(name, caption, has_yardstick, rows)


def _cell(comparison: Comparison, index: int, metric: str, scale: tuple[float, float]) -> Cell | None:
    system, first = comparison.systems[index], comparison.systems[0].scores.get(metric)
    score = system.scores.get(metric)
    if score is None:
        return None
    plain = _score_cell(metric, score, scale, index)
    change = score.value - first.value if first else math.nan
    if index == 0 or not math.isfinite(change):
        return plain
    found = comparison.differences.get((system.name, metric))
    mark, verdict = _verdict(metric, found)
    low, high = found.interval if found else (math.nan, math.nan)
    return Cell(
        value=plain.value,
        interval=plain.interval,
        bar=plain.bar,
        change=format_change(metric, found.value if found else change),
        change_interval=f"{format_change(metric, low)} to {format_change(metric, high)}" if found else "",
        verdict=verdict,
        mark=mark,
    )


def _score_cell(metric: str, score: Score, scale: tuple[float, float], index: int) -> Cell:
    if not math.isfinite(score.value):
        return Cell(format_value(metric, score.value))
    interval = score.interval if score.interval and all(map(math.isfinite, score.interval)) else None
    return Cell(
        value=format_value(metric, score.value),
        interval=" to ".join(format_value(metric, end) for end in interval) if interval else "",
        bar=interval_bar(score.value, interval, scale, index),
    )


def _verdict(metric: str, found: Difference | None) -> tuple[str, str]:
    """A mark and the words for whether a difference is real."""
    if found is None:
        return "untested", "not tested"
    if not found.is_real:
        return "unclear", f"no difference shown, {format_p(found.p_value)}"
    better = note_for(metric).better
    if better == "none":
        return "other", f"{'▲ more' if found.value > 0 else '▼ less'}, {format_p(found.p_value)}"
    arrow = "▲" if found.value > 0 else "▼"
    mark = "better" if (found.value > 0) == (better == "higher") else "worse"
    return mark, f"{arrow} {mark}, {format_p(found.p_value)}"


def _scale(comparison: Comparison, metric: str) -> tuple[float, float]:
    """From 0, or below, to the largest number of a row."""
    every = [system.scores.get(metric) for system in comparison.systems] + [comparison.yardstick.get(metric)]
    ends = [end for score in every if score for end in (score.value, *(score.interval or ()))]
    finite = [end for end in ends if math.isfinite(end)]
    return min([0.0, *finite]), max([0.0, *finite])


def _signatures(comparison: Comparison, metric: str) -> list[str]:
    by_text: dict[str, list[str]] = {}
    for index, system in enumerate(comparison.systems):
        if metric in system.scores and system.scores[metric].signature:
            by_text.setdefault(system.scores[metric].signature, []).append(letter_of(index))
    if len(by_text) == 1:
        return list(by_text)
    return [f"{', '.join(letters)}: {text}" for text, letters in by_text.items()]


def _finding(
    metric: str, names: tuple[str, str], values: tuple[float, float], found: Difference | None
) -> str:
    """names, values: of the system, and of the first one."""
    numbers = f"{format_value(metric, values[0])} against {format_value(metric, values[1])}"
    if found is None:
        return f"In {label_for(metric)} {names[0]} reaches {numbers} of {names[1]}."
    if not found.is_real:
        return (
            f"In {label_for(metric)} no difference is shown between {names[0]} and {names[1]}: {numbers} "
            f"({format_p(found.p_value)})."
        )
    mark, _ = _verdict(metric, found)
    word = {"better": "better than", "worse": "worse than"}.get(mark, "different from")
    return f"In {label_for(metric)} {names[0]} is {word} {names[1]}: {numbers} ({format_p(found.p_value)})."


def _against_people(comparison: Comparison, metric: str) -> list[str]:
    """How near the first system comes to people, in BLEU-1 and in the leading metric."""
    first = comparison.systems[0]
    shares = {}
    for name in ("BLEU-1", metric):
        if name in first.scores and name in comparison.yardstick and comparison.yardstick[name].value > 0:
            shares[name] = first.scores[name].value / comparison.yardstick[name].value
    if metric != "CIDEr-D" or len(shares) < 2 or not all(map(math.isfinite, shares.values())):
        return []
    return [
        f"Against one person's caption scored like a system's, {isolated(first.name)} comes to "
        f"{format_percent(shares['BLEU-1'])} in BLEU-1 and to {format_percent(shares[metric])} in CIDEr-D. "
        f"BLEU alone flatters; CIDEr-D is the honest gap."
    ]
