"""Numbers -> small drawings as inline SVG.

In: finite numbers. Out: markup whose colours the page's style sheet decides (class `s0`, `s1`, ... of a
system, `people`). Every drawing can be read without colour: by dash, shape and letter. It does not know what
the numbers mean.

All drawings are 320 units wide, the width of a phone's page, so that their letters stay as large as the text.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixtell.reports.metric_notes import MINUS, format_percent

NUM_COLOURS = 6  # classes s0 .. s5 in comparison.css
PEOPLE = -1  # in the place of a system's number
HISTOGRAM_HEIGHT, LINES_HEIGHT = 112, 190

_WIDTH = 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 22, 10, 24  # margins around the plot
_MAX_POINTS = 160  # of a line; more are averaged
_MAX_MARKERS = 9
_LETTER_HEIGHT = 13
_LETTERS_WIDTH = 34  # of a number of an axis, with room
_DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2", "1 3")
# Marks around (0, 0), about 4 units each way: circle, square, triangle, diamond, cross, bar
_MARKERS = (
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0Z",
    "M-3.2-3.2h6.4v6.4h-6.4Z",
    "M0-4.2L4 3H-4Z",
    "M0-4.5L4.5 0L0 4.5L-4.5 0Z",
    "M-3.5-1h2.5v-2.5h2v2.5h2.5v2h-2.5v2.5h-2v-2.5h-2.5Z",
    "M-1.5-4.5h3v9h-3Z",
)
_MARKER_OF_PEOPLE = "M-1-5.5h2v11h-2Z"


@dataclass(frozen=True)
class Chart:
    """svg: what stands inside <svg>. height: of the drawing, 320 wide. text: what it shows, in words."""

    svg: str
    height: int
    text: str
    width: int = _WIDTH


@dataclass(frozen=True)
class Series:
    """One line of a chart: whose it is (its place, its letter) and its points, x ascending."""

    index: int
    letter: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bins:
    """Equal bins from 0 up, `width` wide; the last one also takes all that lies beyond.

    whole_numbers: what falls into them are such. is_open: something lies beyond the last one.
    """

    width: float
    count: int
    whole_numbers: bool
    is_open: bool

    @property
    def stop(self) -> float:
        return self.width * self.count

    def place(self, value: float) -> int:
        """The number of the bin that a value falls into."""
        return min(max(math.floor(value / self.width + 1e-9), 0), self.count - 1)

    def shares(self, values: Sequence[float]) -> list[float]:
        """The share of the values in each bin."""
        counts = [0] * self.count
        for value in values:
            counts[self.place(value)] += 1
        return [count / max(1, len(values)) for count in counts]


def bins_for(values: Sequence[float], *, whole_numbers: bool, max_bins: int = 30) -> Bins:
    """Bins for values from 0 up; the largest hundredth may fall into the last one.

    whole_numbers: each bin holds as many of them, and values far from the others fall into the last one, too.
    """
    ordered = sorted(values)
    top = max(0.0, quantile(ordered, 0.99)) if ordered else 1.0
    width: float
    if whole_numbers:
        top = min(top, 4 * quantile(ordered, 0.5) + 10) if ordered else top
        width = max(1, math.ceil((top + 1) / max_bins))
        count = math.floor(top / width) + 1
    else:
        width = _nice_step((top or 1.0) / max_bins)
        count = max(1, math.ceil(top / width + 1e-9))
    beyond = width * count + (0 if whole_numbers else 1e-9)
    return Bins(width, count, whole_numbers, is_open=bool(ordered) and ordered[-1] >= beyond)


def histogram(
    values: Sequence[float], bins: Bins, *, top_share: float, index: int, outline: Sequence[float] = ()
) -> str:
    """Bars of the shares of `values`, scaled so that `top_share` reaches the top; the median marked.

    outline: values whose shares are drawn as a dashed line over the bars.
    """
    plot = _Plot(0, bins.stop, 0, top_share, height=HISTOGRAM_HEIGHT)
    bar = plot.x(bins.width) - plot.x(0)
    gap = 1 if bar > 4 else 0.4
    bars = [
        f"M{plot.x(place * bins.width) + gap / 2:.1f} {plot.bottom:.1f}"
        f"v{plot.y(share) - plot.bottom:.1f}h{bar - gap:.1f}V{plot.bottom:.1f}Z"
        for place, share in enumerate(bins.shares(values))
        if share
    ]
    shift = bins.width / 2 if bins.whole_numbers else 0  # a bar of whole numbers stands over its number
    parts = [plot.frame(format_percent, y_ticks=(0, top_share), x_shift=shift, last=bins)]
    parts.append(f'<path class="bars {_class(index)}" d="{"".join(bars)}"/>')
    if outline:
        steps = [
            f"V{plot.y(share):.1f}H{plot.x((place + 1) * bins.width):.1f}"
            for place, share in enumerate(bins.shares(outline))
        ]
        path = f"M{plot.x(0):.1f} {plot.bottom:.1f}{''.join(steps)}V{plot.bottom:.1f}"
        parts.append(f'<path class="outline" d="{path}"/>')
    if values:
        median = quantile(sorted(values), 0.5)
        middle = bins.place(median) * bins.width + shift if bins.whole_numbers else median
        x = plot.x(min(middle, bins.stop))
        parts.append(f'<path class="median" d="M{x:.1f} {plot.bottom:.1f}V{plot.top - 2}"/>')
        parts.append(f'<path class="median-mark" d="M{x:.1f} {plot.top}l-4-7h8Z"/>')
    return "".join(parts)


def line_chart(series: Sequence[Series], *, from_zero: bool) -> str:
    """Lines over the same axes, each with a dash, a mark and its letter at the end.

    from_zero: the y axis begins at 0, and not near the lowest value.
    """
    points = [point for line in series for point in line.points]
    low, high = min(y for _, y in points), max(y for _, y in points)
    low = min(0.0, low) if from_zero else low
    ticks = nice_ticks(low, high, 4)
    plot = _Plot(0, max(x for x, _ in points), ticks[0], ticks[-1], height=LINES_HEIGHT)
    parts = [plot.frame(_plain, y_ticks=ticks)]
    ends, letters = [], []
    for line in series:
        kind, places = line.index % NUM_COLOURS, [(plot.x(x), plot.y(y)) for x, y in thinned(line.points)]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        dash = f' stroke-dasharray="{_DASHES[kind]}"' if _DASHES[kind] else ""
        parts.append(f'<path class="line s{kind}" d="{path}"{dash}/>')
        parts += [
            f'<path class="mark s{kind}" transform="translate({x:.1f} {y:.1f})" d="{_MARKERS[kind]}"/>'
            for x, y in _every_few(places)
        ]
        ends.append(places[-1])
        letters.append((kind, line.letter))
    for (kind, letter), (x, y) in zip(letters, _apart(ends), strict=True):
        parts.append(f'<text class="end s{kind}" x="{x + 7:.1f}" y="{y + 4:.1f}">{letter}</text>')
    return "".join(parts)


def legend_mark(index: int) -> str:
    """The dash and mark of a line, 34 x 12, as they stand in `line_chart`."""
    kind = index % NUM_COLOURS
    dash = f' stroke-dasharray="{_DASHES[kind]}"' if _DASHES[kind] else ""
    return (
        f'<path class="line s{kind}" d="M1 6H33"{dash}/>'
        f'<path class="mark s{kind}" transform="translate(17 6)" d="{_MARKERS[kind]}"/>'
    )


def interval_bar(
    value: float, interval: tuple[float, float] | None, scale: tuple[float, float], index: int
) -> str:
    """A mark at a value with a line over its interval, on a scale from left to right, 120 x 12."""
    low, high = scale
    width = (high - low) or 1.0

    def x(number: float) -> float:
        return 5 + 110 * min(max((number - low) / width, 0), 1)

    kind = _class(index)
    marker = _MARKER_OF_PEOPLE if index == PEOPLE else _MARKERS[index % NUM_COLOURS]
    parts = ['<path class="axis" d="M5 6H115"/>']
    if interval is not None:
        parts.append(f'<path class="whisker {kind}" d="M{x(interval[0]):.1f} 6H{x(interval[1]):.1f}"/>')
    parts.append(f'<path class="mark {kind}" transform="translate({x(value):.1f} 6)" d="{marker}"/>')
    return "".join(parts)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of the ordered values does not exceed."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points; where there are too many, means of neighbours, the last one as it is."""
    if len(points) <= _MAX_POINTS:
        return list(points)
    size = math.ceil(len(points) / _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    means = [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    ]
    return [*means[:-1], points[-1]]


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """About `count` round numbers, the first not above `low`, the last not below `high`."""
    if high <= low:
        low, high = min(low, 0.0), max(high, low + 1.0, 0.0)
    step = _nice_step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [place * step for place in range(first, last + 1)]


@dataclass(frozen=True)
class _Plot:
    """Numbers -> places in the drawing."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    height: int

    @property
    def top(self) -> int:
        return _TOP

    @property
    def bottom(self) -> int:
        return self.height - _BOTTOM

    def x(self, value: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self.x_low) / ((self.x_high - self.x_low) or 1)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - _TOP) * (value - self.y_low) / ((self.y_high - self.y_low) or 1)

    def frame(
        self,
        y_text: Callable[[float], str],
        y_ticks: Sequence[float],
        *,
        x_shift: float = 0,
        last: Bins | None = None,
    ) -> str:
        """Axis, grid and their numbers. x_shift: how far right of a number's place its text stands. last:
        bins whose last one is open get a '+' there."""
        parts = []
        for tick in y_ticks:
            y, kind = self.y(tick), "axis" if tick == y_ticks[0] else "grid"
            parts.append(f'<path class="{kind}" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
            parts.append(f'<text class="y" x="{_LEFT - 5}" y="{y + 4:.1f}">{y_text(tick)}</text>')
        ticks = nice_ticks(self.x_low, self.x_high, 4)
        places = {self.x(tick + x_shift): _plain(tick) for tick in ticks if self.x_low <= tick <= self.x_high}
        places = {x: text for x, text in places.items() if x <= _WIDTH - _RIGHT + 1}
        if last is not None and last.is_open:
            end = self.x(last.stop - last.width + x_shift)
            places = {x: text for x, text in places.items() if end - x > _LETTERS_WIDTH}
            places[end] = f"{_plain(last.stop - last.width)}+"
        y = self.height - 7
        parts += [f'<text class="x" x="{x:.1f}" y="{y}">{text}</text>' for x, text in places.items()]
        return "".join(parts)


def _class(index: int) -> str:
    return "people" if index == PEOPLE else f"s{index % NUM_COLOURS}"


def _every_few(places: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """A few of the places, evenly, the last one among them."""
    size = math.ceil(len(places) / _MAX_MARKERS)
    return places[::-1][::size]


def _apart(places: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same places, moved down where letters would lie on each other."""
    moved = list(places)
    done: list[int] = []
    for index in sorted(range(len(places)), key=lambda index: places[index][1]):
        x, y = places[index]
        for other in done:
            if abs(moved[other][0] - x) < _LETTER_HEIGHT:
                y = max(y, moved[other][1] + _LETTER_HEIGHT)
        moved[index] = (x, y)
        done.append(index)
    return moved


def _nice_step(least: float) -> float:
    """The smallest of 1, 2, 2.5 and 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))


def _plain(value: float) -> str:
    """A number of an axis: '1,000', '0.25'."""
    return f"{value:,.10g}".replace("-", MINUS) if value else "0"
