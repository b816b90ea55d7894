"""Values -> how sure they are: bootstrap intervals, and a paired test of two systems.

In: the `Values` of metrics by name, of one system or of two on the same images. Out: intervals, differences
with an interval and a p-value; a metric whose value is no function of sums over images (the size of a
vocabulary) or is nan is left out, and so are all where there are too few images: one for an interval, nine
for a test. It computes no metric.

Everything is drawn over images, never over captions or words, from a seeded generator: the same captions give
the same intervals. What a metric takes from the whole corpus, such as CIDEr's document frequencies, stays as
it is.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pixtell.metrics.corpus import Floats, Values

CONFIDENCE = 0.95
_LEVEL = 0.05
_FEWEST_TESTED = 10  # images; of five even the smallest p-value there can be, 2 / 2**5, is above the level
_RESAMPLES = 2000
_SHUFFLES = 10_000
_SEED = 12345
_DRAWS_AT_A_TIME = 4_000_000  # 32 MB of fp64, however many images


@dataclass(frozen=True)
class Difference:
    """Of a second system to a first, on the same images.

    value: second minus first. interval: 95 %, paired bootstrap. p_value: how often a difference as large
    comes about by chance where the systems are equally good.
    """

    value: float
    interval: tuple[float, float]
    p_value: float

    @property
    def is_real(self) -> bool:
        """Whether chance is an unlikely reason, at 5 %."""
        return self.p_value < _LEVEL


def intervals_of(values: Mapping[str, Values]) -> dict[str, tuple[float, float]]:
    """The 95 % interval of each corpus value: percentiles of the values of 2,000 corpora of as many images,
    drawn from its own with replacement (Efron 1979; for translation Koehn 2004)."""
    columns = _Columns(values)
    if columns.num_images < 2:
        return {}
    resampled = columns.values_of(_resampled_sums(columns.statistics))
    found = {name: _percentiles(drawn) for name, drawn in resampled.items()}
    # Where all images have one value, as where no caption ends badly, no draw can show how sure that is.
    return {name: (low, high) for name, (low, high) in found.items() if low < high}


def differences_of(first: Mapping[str, Values], second: Mapping[str, Values]) -> dict[str, Difference]:
    """Second minus first, metric by metric, on the same images in the same order.

    The interval resamples images for both together. The test is approximate randomisation (Noreen 1989; for
    such metrics Riezler and Maxwell 2005): were the systems equally good, it would not matter who wrote which
    of an image's two captions; so the two are swapped at random, 10,000 times, and the p-value is the share
    of swaps that give at least the difference seen.
    """
    ours = _Columns({name: values for name, values in first.items() if name in second})
    theirs = _Columns({name: second[name] for name in ours.names})
    ours = _Columns({name: first[name] for name in theirs.names})  # what either lacks is left out
    if ours.num_images < _FEWEST_TESTED:
        return {}
    width = ours.statistics.shape[1]
    sums = _resampled_sums(np.hstack([ours.statistics, theirs.statistics]))
    of_first, of_second = ours.values_of(sums[:, :width]), theirs.values_of(sums[:, width:])
    p_values = _p_values(ours, theirs)
    return {
        name: Difference(
            value=second[name].value - first[name].value,
            interval=_percentiles(of_second[name] - of_first[name]),
            p_value=p_values[name],
        )
        for name in ours.names
    }


def holm(p_values: Sequence[float]) -> list[float]:
    """The same p-values, corrected for being several (Holm 1979), for one of many is small by chance alone.

    Example: 0.01, 0.04, 0.03 -> 0.03, 0.06, 0.06.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, p_values[place] * (len(p_values) - rank)))
        corrected[place] = largest
    return corrected


class _Columns:
    """The statistics of several metrics side by side, so that one draw of images serves them all."""

    def __init__(self, values: Mapping[str, Values]) -> None:
        self._values = {
            name: found
            for name, found in values.items()
            if found.statistics is not None and not math.isnan(found.value)
        }
        parts = [found.statistics for found in self._values.values() if found.statistics is not None]
        self.statistics: Floats = np.hstack(parts) if parts else np.zeros((0, 0))  # (images, S)
        self._widths = [part.shape[1] for part in parts]

    @property
    def names(self) -> list[str]:
        return list(self._values)

    @property
    def num_images(self) -> int:
        return len(self.statistics)

    def values_of(self, sums: Floats) -> dict[str, Floats]:
        """Sums (R, S) -> the values (R,) of each metric."""
        found, start = {}, 0
        for (name, values), width in zip(self._values.items(), self._widths, strict=True):
            assert values.combine is not None  # it comes with the statistics
            found[name] = values.combine(sums[:, start : start + width])
            start += width
        return found


def _resampled_sums(statistics: Floats) -> Floats:
    """(images, S) -> (2,000, S): the sums over images drawn with replacement."""
    generator = np.random.default_rng(_SEED)
    num_images = len(statistics)
    sums = []
    for rows in _chunks(_RESAMPLES, num_images):
        drawn = generator.integers(num_images, size=(rows, num_images))
        drawn += num_images * np.arange(rows)[:, None]  # each row counts in a stretch of its own
        counts = np.bincount(drawn.ravel(), minlength=rows * num_images).reshape(rows, num_images)
        sums.append(counts.astype(np.float64) @ statistics)
    return np.concatenate(sums)


def _p_values(first: _Columns, second: _Columns) -> dict[str, float]:
    generator = np.random.default_rng(_SEED)
    change = second.statistics - first.statistics  # what a swap moves from one system to the other
    first_sums, second_sums = first.statistics.sum(axis=0), second.statistics.sum(axis=0)
    seen = _absolute_differences(first, second, first_sums[None], second_sums[None])
    at_least = dict.fromkeys(seen, 0)
    for rows in _chunks(_SHUFFLES, len(change)):
        swapped = generator.integers(2, size=(rows, len(change)), dtype=np.uint8)
        moved = swapped.astype(np.float64) @ change  # (rows, S)
        by_chance = _absolute_differences(first, second, first_sums + moved, second_sums - moved)
        for name, differences in by_chance.items():
            # rounding must not decide whether a tie counts
            at_least[name] += int((differences >= seen[name] - 1e-12).sum())
    return {name: (count + 1) / (_SHUFFLES + 1) for name, count in at_least.items()}


def _absolute_differences(
    first: _Columns, second: _Columns, first_sums: Floats, second_sums: Floats
) -> dict[str, Floats]:
    of_first, of_second = first.values_of(first_sums), second.values_of(second_sums)
    return {name: np.abs(of_second[name] - of_first[name]) for name in of_first}


def _chunks(total: int, num_images: int) -> Iterator[int]:
    """How many draws to make at a time."""
    size = max(1, _DRAWS_AT_A_TIME // num_images)
    for start in range(0, total, size):
        yield min(size, total - start)


def _percentiles(values: Floats) -> tuple[float, float]:
    tail = 100 * (1 - CONFIDENCE) / 2
    # nan: a draw of images that have no value
    low, high = np.nanpercentile(values, [tail, 100 - tail])
    return float(low), float(high)
