"""Words -> CIDEr-D and CIDEr (Vedantam et al. 2015).

In: a `Corpus`, or one image's captions and document frequencies counted before. Out: values from 0 to 10.

Each caption is four vectors, of its 1-grams to 4-grams; an n-gram weighs

    its count in the caption * ln(images / max(1, images with a reference that has it))

CIDEr is 10 times the mean cosine over n and references. CIDEr-D, which pycocoevalcap calls CIDEr, clips a
hypothesis's weight at the reference's in the dot product (not in the norm) and multiplies by
exp(-d*d / (2 * 6*6)), d the difference in length, counted in 2-grams there and here. Words are not stemmed.

One image alone scores 0: every n-gram is in all images and weighs nothing.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from pixtell.metrics.corpus import Corpus, Values, Words
from pixtell.metrics.ngrams import MAX_NGRAM, Ngram, count_ngrams, ngrams_of

_SIGMA = 6.0
_SCALE = 10.0


class _Vector(NamedTuple):
    """A caption as CIDEr sees it; lists by n, from 1."""

    weights: list[dict[Ngram, float]]
    norms: list[float]
    num_bigrams: int


class DocumentFrequencies:
    """In how many images of a reference corpus each n-gram occurs: counted once, good for many captions.

    Self-critical training counts its training references once, then scores each image's samples with
    `cider_d`.
    """

    def __init__(self, references: Iterable[Sequence[Words]]) -> None:
        """references: the references of each image, as words."""
        self.num_images = 0
        self._counts: dict[Ngram, int] = {}
        counts = self._counts
        for of_image in references:
            self.num_images += 1
            for ngram in ngrams_of(of_image):
                counts[ngram] = counts.get(ngram, 0) + 1
        # by document frequency: no n-gram weighs more than one that no image has
        self._log_rarity = [
            math.log(self.num_images / max(1, frequency)) for frequency in range(self.num_images + 1)
        ]

    def cider_d(self, hypotheses: Sequence[Words], references: Sequence[Words]) -> list[float]:
        """CIDEr-D of each of several captions of one image."""
        vectors = [self._vector(words) for words in references]
        return [_mean_similarity(_clipped_cosine, self._vector(words), vectors) for words in hypotheses]

    def cider(self, hypotheses: Sequence[Words], references: Sequence[Words]) -> list[float]:
        """CIDEr of each of several captions of one image."""
        vectors = [self._vector(words) for words in references]
        return [_mean_similarity(_cosine, self._vector(words), vectors) for words in hypotheses]

    def _vector(self, words: Words) -> _Vector:
        frequency, log_rarity = self._counts.get, self._log_rarity
        counts = count_ngrams(words)
        weights = [
            {ngram: count * log_rarity[frequency(ngram, 0)] for ngram, count in of_n.items()}
            for of_n in counts
        ]
        norms = [math.hypot(*of_n.values()) for of_n in weights]
        return _Vector(weights, norms, num_bigrams=sum(counts[1].values()))


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


def _mean_similarity(
    similarity: Callable[[_Vector, _Vector], float], hypothesis: _Vector, references: Sequence[_Vector]
) -> float:
    """10 * the mean over references of the mean over n."""
    total = sum(similarity(hypothesis, reference) for reference in references)
    return _SCALE * total / (MAX_NGRAM * len(references))


def _cosine(hypothesis: _Vector, reference: _Vector) -> float:
    """The sum over n of the cosines, 0 where a vector is."""
    total = 0.0
    for n in range(MAX_NGRAM):
        ours, theirs = hypothesis.weights[n], reference.weights[n]
        if product := sum(ours[ngram] * theirs[ngram] for ngram in ours.keys() & theirs.keys()):
            total += product / (hypothesis.norms[n] * reference.norms[n])
    return total


def _clipped_cosine(hypothesis: _Vector, reference: _Vector) -> float:
    """As `_cosine`, the hypothesis's weights clipped at the reference's, times the penalty on length."""
    total = 0.0
    for n in range(MAX_NGRAM):
        ours, theirs = hypothesis.weights[n], reference.weights[n]
        product = 0.0
        for ngram in ours.keys() & theirs.keys():
            product += min(ours[ngram], theirs[ngram]) * theirs[ngram]
        if product:
            total += product / (hypothesis.norms[n] * reference.norms[n])
    difference = hypothesis.num_bigrams - reference.num_bigrams
    return total * math.exp(-(difference**2) / (2 * _SIGMA**2))
