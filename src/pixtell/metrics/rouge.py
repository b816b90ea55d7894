"""Words -> ROUGE-L (Lin and Och 2004), with pycocoevalcap's numbers.

In: a `Corpus`. Out: values from 0 to 1, of the corpus and of each image.

    ROUGE-L = (1 + b*b) * P * R / (R + b*b * P)      b = 1.2
    P = max over references of LCS / words in the hypothesis
    R = max over references of LCS / words in the reference

LCS is the length of the longest common subsequence: a b c d and a x c d have one of 3. The two maxima may
come from different references. The value of a corpus is the mean over images.
"""

from collections.abc import Sequence

from pixtell.metrics.corpus import Corpus, Values, Words

_BETA_SQUARED = 1.2**2


def rouge_l(corpus: Corpus) -> dict[str, Values]:
    """ROUGE-L of a corpus."""
    per_image = [
        _rouge_of_image(hypothesis, references)
        for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True)
    ]
    return {"ROUGE-L": Values.mean_of(per_image)}


def _rouge_of_image(hypothesis: Words, references: Sequence[Words]) -> float:
    hypothesis = hypothesis or [""]  # no words are one empty word in pycocoevalcap
    filled = [reference or [""] for reference in references]
    common = common_lengths(hypothesis, filled)
    precision = max(common) / len(hypothesis)
    recall = max(length / len(reference) for length, reference in zip(common, filled, strict=True))
    if precision == 0:
        return 0.0
    return (1 + _BETA_SQUARED) * precision * recall / (recall + _BETA_SQUARED * precision)


def common_lengths(words: Words, others: Sequence[Words]) -> list[int]:
    """The length of the longest common subsequence of `words` with each of `others`.

    Bit-parallel (Crochemore et al. 2001): bit i of `rows` is 0 where the table's column steps up at word i.
    A column costs a few operations on one integer; two captions of 10,000 words take milliseconds.
    """
    full = (1 << len(words)) - 1
    places: dict[str, int] = {}
    for place, word in enumerate(words):
        places[word] = places.get(word, 0) | 1 << place
    lengths = []
    for other in others:
        rows = full
        for word in other:
            if hits := rows & places.get(word, 0):
                rows = (rows + hits | rows - hits) & full
        lengths.append(len(words) - rows.bit_count())
    return lengths
