"""Small drawings: every value falls into its bin, axes hold what they show, and the markup is sound."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pixtell.reports.charts import (
    LINES_HEIGHT,
    Series,
    bins_for,
    histogram,
    interval_bar,
    line_chart,
    nice_ticks,
    quantile,
    thinned,
)
from pixtell.reports.metric_notes import format_change, format_value

SCORES = st.lists(st.floats(0, 10), min_size=1, max_size=60)
LENGTHS = st.lists(st.integers(0, 20_000), min_size=1, max_size=60)
STEPS = st.lists(st.tuples(st.integers(0, 10**6), st.floats(-100, 1e9)), min_size=1, max_size=400)


def drawn(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(f"<svg>{svg}</svg>")


@given(values=SCORES)
@example(values=[0.0])
@example(values=[0.1] * 99 + [9.0])
def test_scores_fall_into_their_bins(values: list[float]) -> None:
    bins = bins_for(values, whole_numbers=False)
    assert bins.count <= 31
    assert sum(bins.shares(values)) == pytest.approx(1)
    for value in values:
        place = bins.place(value)
        assert place * bins.width <= value + 1e-6
        assert place == bins.count - 1 or value < (place + 1) * bins.width + 1e-6
    assert bins.is_open == (max(values) > bins.stop + 1e-9)
    drawn(histogram(values, bins, top_share=1.0, index=3, outline=values))


@given(lengths=LENGTHS)
@example(lengths=[0])
@example(lengths=[9, 10, 11, 12, 10_000])
def test_lengths_fall_into_bins_of_whole_numbers(lengths: list[int]) -> None:
    bins = bins_for(lengths, whole_numbers=True)
    assert float(bins.width).is_integer()
    assert bins.count <= 31
    assert sum(bins.shares(lengths)) == pytest.approx(1)
    assert bins.is_open == (max(lengths) >= bins.stop)
    drawn(histogram(lengths, bins, top_share=1.0, index=-1))


def test_one_endless_caption_does_not_flatten_the_others() -> None:
    bins = bins_for([9, 10, 11, 12, 10_000], whole_numbers=True)
    assert bins.width <= 2
    assert bins.is_open
    assert "+</text>" in histogram([9, 10, 11, 12, 10_000], bins, top_share=1.0, index=0)


@given(low=st.floats(-1e6, 1e6), width=st.floats(0, 1e6))
@example(low=3.5, width=0.0)
@example(low=0.0, width=0.3)
def test_ticks_are_few_and_hold_the_range(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width, 4)
    assert 2 <= len(ticks) <= 7
    slack = 1e-6 * (1 + abs(low) + width)
    assert ticks[0] <= low + slack
    assert ticks[-1] >= low + width - slack


@given(points=STEPS)
@example(points=[(0, 1.0)])
def test_lines_stay_inside_their_drawing(points: list[tuple[int, float]]) -> None:
    line = [(float(step), value) for step, value in sorted(points)]
    svg = line_chart([Series(0, "A", line), Series(7, "H", line[:1])], from_zero=False)
    for path in drawn(svg).findall("path"):
        if path.attrib["class"].startswith("line"):
            for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path.attrib["d"]):
                assert -0.1 <= float(x) <= 320.1
                assert -0.1 <= float(y) <= LINES_HEIGHT + 0.1


def test_lines_differ_without_colour() -> None:
    line = [(1.0, 1.0), (2.0, 2.0)]
    svg = drawn(line_chart([Series(index, "ABCDEF"[index], line) for index in range(6)], from_zero=True))
    dashes = [path.get("stroke-dasharray") for path in svg.findall("path") if "line" in path.attrib["class"]]
    marks = {path.attrib["d"] for path in svg.findall("path") if "mark" in path.attrib["class"]}
    ends = [float(text.attrib["y"]) for text in svg.findall("text") if "end" in text.attrib["class"]]
    assert len(set(dashes)) == len(dashes) == len(marks) == 6
    assert all(abs(a - b) >= 12 for a in ends for b in ends if a is not b)  # equal ends, letters apart


def test_long_lines_are_thinned_and_keep_their_last_point() -> None:
    line = [(float(step), 1.0 / (step + 1)) for step in range(100_000)]
    few = thinned(line)
    assert len(few) <= 160
    assert few[-1] == line[-1]
    assert [x for x, _ in few] == sorted(x for x, _ in few)


def test_a_bar_stays_on_its_scale() -> None:
    svg = drawn(interval_bar(2.0, (-1.0, 3.0), (0.0, 1.0), 0))
    assert [path.attrib["class"] for path in svg] == ["axis", "whisker s0", "mark s0"]
    assert svg[1].attrib["d"] == "M5.0 6H115.0"
    drawn(interval_bar(0.0, None, (0.0, 0.0), -1))


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([1, 2, 3, 4], share) for share in (0.0, 0.25, 0.5, 0.75, 1.0)] == [1, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("metric", "value", "text", "change"),
    [
        ("CIDEr-D", 0.3981, "0.398", "+0.398"),
        ("CIDEr-D", -0.0449, "\N{MINUS SIGN}0.045", "\N{MINUS SIGN}0.045"),
        ("CIDEr-D", -0.0001, "0.000", "0.000"),
        ("vocabulary", 1204.0, "1,204", "+1,204"),
        ("length", 10.0, "10.0", "+10.0"),
        ("anything", float("nan"), "n/a", "n/a"),
        ("anything", float("inf"), "n/a", "n/a"),
    ],
)
def test_numbers_as_text(metric: str, value: float, text: str, change: str) -> None:
    assert format_value(metric, value) == text
    assert format_change(metric, value) == change
