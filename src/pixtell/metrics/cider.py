"""Words -> CIDEr-D and CIDEr (Vedantam et al. 2015).

In: a `Corpus`, or one image's captions and document frequencies counted before. Out: values from 0 to 10.

Each caption is four vectors, of its 1-grams to 4-grams; an n-gram weighs

    its count in the caption * ln(images / max(1, images with a reference that has it))

CIDEr is 10 times the mean cosine over n and references. CIDEr-D, which pycocoevalcap calls CIDEr, clips a
hypothesis's weight at the reference's in the dot product (not in the norm) and multiplies by
exp(-d*d / (2 * 6*6)), d the difference in length, counted in 2-grams there and here. Words are not stemmed.

One image alone scores 0: every n-gram is in all images and weighs nothing.
"""

import itertools
import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pixtell.metrics.corpus import Corpus, Values, Words
from pixtell.metrics.ngrams import MAX_NGRAM, Ngram, count_ngrams, ngrams_of

_SIGMA = 6.0
_SCALE = 10.0
_SLOTS_PER_IMAGE = 1024  # of a table of n-grams by hash; five captions have some 150 different ones
_MOST_SLOTS = 1 << 23


class _Vector(NamedTuple):
    """A caption as CIDEr sees it; lists by n, from 1. An n-gram's weight is its count times its rarity."""

    counts: list[dict[Ngram, int]]
    norms: list[float]  # of the weights
    num_bigrams: int


class DocumentFrequencies:
    """In how many images of a reference corpus each n-gram occurs: counted once, good for many captions.

    Self-critical training counts its training references once, then scores each image's samples with
    `cider_d`.
    """

    def __init__(self, references: Sequence[Sequence[Words]]) -> None:
        """references: the references of each image, as words."""
        self.num_images = len(references)
        counts = _count_images(references)
        # Of no image or of one, an n-gram weighs the same: no n-gram weighs more than one that no image has.
        self._rarest = math.log(max(1, self.num_images))
        self._rarity = {ngram: math.log(self.num_images / count) for ngram, count in counts.items()}

    def cider_d(self, hypotheses: Sequence[Words], references: Sequence[Words]) -> list[float]:
        """CIDEr-D of each of several captions of one image."""
        return self._mean_similarities(self._clipped_cosine, hypotheses, references)

    def cider(self, hypotheses: Sequence[Words], references: Sequence[Words]) -> list[float]:
        """CIDEr of each of several captions of one image."""
        return self._mean_similarities(self._cosine, hypotheses, references)

    def _mean_similarities(
        self,
        similarity: Callable[[_Vector, _Vector], float],
        hypotheses: Sequence[Words],
        references: Sequence[Words],
    ) -> list[float]:
        """Of each hypothesis 10 * the mean over references of the mean over n."""
        vectors = [self._vector(words) for words in references]
        scale = _SCALE / (MAX_NGRAM * len(vectors))
        return [
            scale * sum(similarity(hypothesis, vector) for vector in vectors)
            for hypothesis in map(self._vector, hypotheses)
        ]

    def _vector(self, words: Words) -> _Vector:
        counts = count_ngrams(words)
        rarity, rarest = self._rarity.get, itertools.repeat(self._rarest)
        norms = [math.hypot(*map(operator.mul, of_n.values(), map(rarity, of_n, rarest))) for of_n in counts]
        return _Vector(counts, norms, num_bigrams=sum(counts[1].values()))

    def _cosine(self, hypothesis: _Vector, reference: _Vector) -> float:
        """The sum over n of the cosines, 0 where a vector is."""
        total = 0.0
        for n in range(MAX_NGRAM):
            ours, theirs = hypothesis.counts[n], reference.counts[n]
            product = 0.0
            for ngram in ours.keys() & theirs.keys():
                product += ours[ngram] * theirs[ngram] * self._rarity.get(ngram, self._rarest) ** 2
            if product:
                total += product / (hypothesis.norms[n] * reference.norms[n])
        return total

    def _clipped_cosine(self, hypothesis: _Vector, reference: _Vector) -> float:
        """As `_cosine`, the hypothesis's counts clipped at the reference's, times the penalty on length."""
        total = 0.0
        for n in range(MAX_NGRAM):
            ours, theirs = hypothesis.counts[n], reference.counts[n]
            product = 0.0
            for ngram in ours.keys() & theirs.keys():
                clipped = min(ours[ngram], theirs[ngram])
                product += clipped * theirs[ngram] * self._rarity.get(ngram, self._rarest) ** 2
            if product:
                total += product / (hypothesis.norms[n] * reference.norms[n])
        difference = hypothesis.num_bigrams - reference.num_bigrams
        return total * math.exp(-(difference**2) / (2 * _SIGMA**2))


def _count_images(references: Sequence[Sequence[Words]]) -> Counter[Ngram]:
    """In how many images each n-gram occurs, of those that occur in two or more.

    Most n-grams are of one image and would take most of the memory. So slots, which several n-grams may
    share, are counted first (0, 1, or 2 for more), then only the n-grams of slots with 2.
    """
    num_slots = min(_MOST_SLOTS, 1 << (_SLOTS_PER_IMAGE * len(references)).bit_length())
    slots = np.zeros(num_slots, np.uint8)
    for of_image in references:
        ours = _slots_of(ngrams_of(of_image), num_slots)
        slots[ours] += slots[ours] < 2
    counts: Counter[Ngram] = Counter()
    for of_image in references:
        ngrams = ngrams_of(of_image)
        counts.update(itertools.compress(ngrams, slots[_slots_of(ngrams, num_slots)] > 1))
    return counts


def _slots_of(ngrams: Collection[Ngram], num_slots: int) -> npt.NDArray[np.int64]:
    """num_slots: a power of two."""
    return np.fromiter(map(hash, ngrams), np.int64, len(ngrams)) & (num_slots - 1)


def cider_d(corpus: Corpus) -> dict[str, Values]:
    """CIDEr-D of a corpus, its own references as the documents."""
    frequencies = DocumentFrequencies(corpus.references)
    return {"CIDEr-D": _over_images(corpus, frequencies.cider_d)}


def cider(corpus: Corpus) -> dict[str, Values]:
    """CIDEr of a corpus, its own references as the documents."""
    frequencies = DocumentFrequencies(corpus.references)
    return {"CIDEr": _over_images(corpus, frequencies.cider)}


def _over_images(corpus: Corpus, score: Callable[[Sequence[Words], Sequence[Words]], list[float]]) -> Values:
    per_image = [
        score([hypothesis], references)[0]
        for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True)
    ]
    return Values.mean_of(per_image)
