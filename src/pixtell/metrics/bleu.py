"""Words -> BLEU-1 to BLEU-4 (Papineni et al. 2002), with pycocoevalcap's numbers.

In: a `Corpus`. Out: values from 0 to 1, of the corpus and of each image.

    BLEU-n = brevity * (p1 * ... * pn) ** (1/n)    pk = (matched k-grams + 1e-15) / (k-grams + 1e-9)
    brevity = exp(1 - r/c) if c < r else 1         c words in the hypothesis, r in the closest reference

An n-gram matches as often as in the reference that has it most often. For the corpus, matches, n-grams and
lengths are summed before dividing. The closest reference is the one closest in length, of two the shorter.
The two small constants are pycocoevalcap's (`bleu_scorer.py`): an image without a common 4-gram gets a BLEU-4
near 1e-4, not 0.
"""

import functools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from pixtell.metrics.corpus import Corpus, Floats, Values, Words
from pixtell.metrics.ngrams import MAX_NGRAM, count_ngrams, each_ngram, split_again

_TINY, _SMALL = 1e-15, 1e-9


def bleu(corpus: Corpus) -> dict[str, Values]:
    """BLEU-1 to BLEU-4 of a corpus."""
    counts = np.array(
        [
            _count_matches(hypothesis, references)
            for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True)
        ],
        dtype=np.float64,
    )  # (images, 10)
    of_images = _bleu_of_counts(counts)
    of_corpus = _bleu_of_counts(counts.sum(axis=0, keepdims=True))[0]
    return {
        f"BLEU-{n + 1}": Values(
            value=float(of_corpus[n]),
            per_image=of_images[:, n].tolist(),
            statistics=counts,
            combine=functools.partial(_bleu_of_order, n=n),
        )
        for n in range(MAX_NGRAM)
    }


def _count_matches(hypothesis: Words, references: Sequence[Words]) -> list[int]:
    """Matched n-grams for n = 1..4, n-grams in the hypothesis for n = 1..4, its length, the closest's."""
    parts = [split_again(reference) for reference in references]
    ngrams = [each_ngram(reference) for reference in parts]
    matched, possible = [], []
    for n, counts in enumerate(count_ngrams(hypothesis)):
        common = set().union(*(counts.keys() & of_reference[n] for of_reference in ngrams))
        repeated = {ngram for ngram in common if counts[ngram] > 1}
        matched.append(len(common) - len(repeated))
        if repeated:  # mostly "a" alone, so that counting nothing else is quick
            found = [Counter(filter(repeated.__contains__, each_ngram(reference)[n])) for reference in parts]
            matched[n] += sum(min(counts[ngram], max(of[ngram] for of in found)) for ngram in repeated)
        possible.append(sum(counts.values()))
    length = possible[0]
    closest = min(map(len, parts), key=lambda r: (abs(r - length), r))
    return [*matched, *possible, length, closest]


def _bleu_of_counts(counts: Floats) -> Floats:
    """BLEU-1 to BLEU-4 (R, 4) from rows (R, 10) of what `_count_matches` returns, of an image or summed."""
    matched, possible = counts[:, :MAX_NGRAM], counts[:, MAX_NGRAM:-2]
    ratio = (counts[:, -2:-1] + _TINY) / (counts[:, -1:] + _SMALL)
    brevity = np.exp(np.minimum(0.0, 1 - 1 / ratio))  # (R, 1)
    products = np.cumprod((matched + _TINY) / (possible + _SMALL), axis=1)
    values: Floats = brevity * products ** (1 / np.arange(1, MAX_NGRAM + 1))
    return values


def _bleu_of_order(counts: Floats, *, n: int) -> Floats:
    values: Floats = _bleu_of_counts(counts)[:, n]
    return values
