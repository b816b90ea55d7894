"""Counts of matches -> METEOR (Denkowski and Lavie 2014, version 1.5, English, tuned to rankings).

In: rows of `alignment.STATISTICS`, of one caption or summed over many. Out: values from 0 to 1.

    score = F * (1 - penalty)        F = 1 / ((1 - 0.85) / P + 0.85 / R)
    penalty = 0.6 * (chunks / ((matched words here + there) / 2)) ** 0.2

P is the matched weight over the whole weight in the hypothesis, R the same in the reference. A content word
weighs 0.75, a function word 0.25; a match counts 1 if exact, 0.6 by stem, 0.8 by synonym, 0.6 by paraphrase.
"""

import numpy as np
import numpy.typing as npt

from pixtell.metrics.corpus import Floats
from pixtell.metrics.meteor.alignment import CHUNKS, MATCHED

_ALPHA, _BETA, _GAMMA, _DELTA = 0.85, 0.2, 0.6, 0.75
_KIND_WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # exact, stem, synonym, paraphrase


def meteor_of(counts: Floats) -> Floats:
    """Counts (N, STATISTICS) -> values (N,); 0 where nothing matches or a caption is empty."""
    hypothesis, reference = counts[:, 0], counts[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = _weighted(counts, 4) / (
            _DELTA * (hypothesis - counts[:, 2]) + (1 - _DELTA) * counts[:, 2]
        )
        recall = _weighted(counts, 5) / (_DELTA * (reference - counts[:, 3]) + (1 - _DELTA) * counts[:, 3])
        f_mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        fragmentation = counts[:, CHUNKS] / ((counts[:, MATCHED] + counts[:, MATCHED + 1]) / 2)
        fragmentation[is_perfect(counts)] = 0.0
        values = f_mean * (1 - _GAMMA * fragmentation**_BETA)
    return np.nan_to_num(np.maximum(values, 0.0), nan=0.0)


def is_perfect(counts: Floats) -> npt.NDArray[np.bool_]:
    """Whether all words match in one chunk: no penalty, and no chunk in the sum over a corpus."""
    whole = (counts[:, MATCHED] == counts[:, 0]) & (counts[:, MATCHED + 1] == counts[:, 1])
    perfect: npt.NDArray[np.bool_] = whole & (counts[:, CHUNKS] == 1)
    return perfect


def _weighted(counts: Floats, first: int) -> Floats:
    """The weight of matches; first: the column of exact content words."""
    total = np.zeros(len(counts))
    for delta, column in ((_DELTA, first), (1 - _DELTA, first + 2)):
        for kind, weight in enumerate(_KIND_WEIGHTS):
            total += counts[:, column + 4 * kind] * weight * delta
    return total
