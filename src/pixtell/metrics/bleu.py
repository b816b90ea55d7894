"""Words -> BLEU-1 to BLEU-4 (Papineni et al. 2002), with pycocoevalcap's numbers.

In: a `Corpus`. Out: values from 0 to 1, of the corpus and of each image.

    BLEU-n = brevity * (p1 * ... * pn) ** (1/n)    pk = (matched k-grams + 1e-15) / (k-grams + 1e-9)
    brevity = exp(1 - r/c) if c < r else 1         c words in the hypothesis, r in the closest reference

An n-gram matches as often as in the reference that has it most often. For the corpus, matches, n-grams and
lengths are summed before dividing. The closest reference is the one closest in length, of two the shorter.
The two small constants are pycocoevalcap's (`bleu_scorer.py`): an image without a common 4-gram gets a BLEU-4
near 1e-4, not 0.
"""

import math
from collections.abc import Sequence

from pixtell.metrics.corpus import Corpus, Values, Words
from pixtell.metrics.ngrams import MAX_NGRAM, Ngram, count_ngrams

_TINY, _SMALL = 1e-15, 1e-9


def bleu(corpus: Corpus) -> dict[str, Values]:
    """BLEU-1 to BLEU-4 of a corpus."""
    names = [f"BLEU-{n}" for n in range(1, MAX_NGRAM + 1)]
    per_image = []
    total = [0] * (2 * MAX_NGRAM + 2)
    for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True):
        counts = _count_matches(hypothesis, references)
        total = [old + new for old, new in zip(total, counts, strict=True)]
        per_image.append(_bleu_of_counts(counts))
    of_corpus = _bleu_of_counts(total)
    return {name: (of_corpus[n], [values[n] for values in per_image]) for n, name in enumerate(names)}


def _count_matches(hypothesis: Words, references: Sequence[Words]) -> list[int]:
    """Matched n-grams for n = 1..4, n-grams in the hypothesis for n = 1..4, its length, the closest's."""
    hypothesis_counts = count_ngrams(hypothesis)
    reference_counts = [count_ngrams(reference) for reference in references]
    matched, possible = [], []
    for n, counts in enumerate(hypothesis_counts):
        most: dict[Ngram, int] = {}
        for reference in reference_counts:
            for ngram in counts.keys() & reference[n].keys():
                most[ngram] = max(most.get(ngram, 0), reference[n][ngram])
        matched.append(sum(min(count, counts[ngram]) for ngram, count in most.items()))
        possible.append(sum(counts.values()))
    length = possible[0]
    closest = min(
        (sum(counts[0].values()) for counts in reference_counts), key=lambda r: (abs(r - length), r)
    )
    return [*matched, *possible, length, closest]


def _bleu_of_counts(counts: Sequence[int]) -> list[float]:
    """BLEU-1 to BLEU-4 from what `_count_matches` returns, of one image or summed over images."""
    *ngrams, length, closest = counts
    ratio = (length + _TINY) / (closest + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    product, values = 1.0, []
    for n, (matched, possible) in enumerate(
        zip(ngrams[:MAX_NGRAM], ngrams[MAX_NGRAM:], strict=True), start=1
    ):
        product *= (matched + _TINY) / (possible + _SMALL)
        values.append(brevity * product ** (1 / n))
    return values
