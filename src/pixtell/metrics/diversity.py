"""Captions -> numbers about them: how long, how varied, how many break off, what they name.

In: captions as text or a `Corpus`. Out: a number, or `Values`. These judge no meaning, but they show at once
what a good-looking average hides: one caption for every picture, captions that stop in mid-sentence,
sentences learned by heart, things that are never named.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from pixtell.metrics.corpus import Corpus, Floats, Values, Words
from pixtell.metrics.nouns import nouns_of
from pixtell.metrics.ptb import ptb_words

# Words that no finished caption ends in. One that does was cut short, or its model was trained to collect
# n-grams without the end token in its reward.
_BAD_ENDINGS = """
    a an the of with on in and to is are at by for from as or his her its their that while near into"""
BAD_ENDINGS = frozenset(_BAD_ENDINGS.split())

_AGREED = 2  # references that must name a noun, where there are so many


def distinct_share(captions: Sequence[str]) -> float:
    """The share of different captions, compared as words: 1 where no two are equal, 1 / n where all n are."""
    return _distinct_share([ptb_words(caption) for caption in captions])


def bad_ending_rate(captions: Sequence[str]) -> float:
    """The share of captions whose last word is one of `BAD_ENDINGS`, or that hold no word at all."""
    return sum(_ends_badly(ptb_words(caption)) for caption in captions) / len(captions)


def length(corpus: Corpus) -> dict[str, Values]:
    """Words a caption."""
    return {"length": Values.mean_of([float(len(words)) for words in corpus.hypotheses])}


def variety(corpus: Corpus) -> dict[str, Values]:
    """How much the captions of a corpus differ, as numbers that grow smaller or larger with the number of
    captions: compare them on the same images only.

    distinct: different captions / captions. distinct-n (Li et al. 2016): different n-grams / n-grams.
    vocabulary: different words.
    """
    words = [word for caption in corpus.hypotheses for word in caption]
    pairs = [pair for caption in corpus.hypotheses for pair in itertools.pairwise(caption)]
    return {
        "distinct": Values.of_corpus(_distinct_share(corpus.hypotheses)),
        "distinct-1": Values.of_corpus(len(set(words)) / max(1, len(words))),
        "distinct-2": Values.of_corpus(len(set(pairs)) / max(1, len(pairs))),
        "vocabulary": Values.of_corpus(float(len(set(words)))),
    }


def bad_endings(corpus: Corpus) -> dict[str, Values]:
    """The share of captions that stop in mid-sentence."""
    return {"bad-endings": Values.mean_of([float(_ends_badly(words)) for words in corpus.hypotheses])}


def novelty(train_captions: Iterable[str]) -> Callable[[Corpus], dict[str, Values]]:
    """The share of captions that are no sentence of `train_captions`, compared as words."""
    known = {tuple(ptb_words(caption)) for caption in train_captions}
    lines = "\n".join(sorted(" ".join(words) for words in known))
    settings = f"words:ptb|train:{hashlib.sha256(lines.encode(errors='surrogatepass')).hexdigest()[:8]}"

    def novel(corpus: Corpus) -> dict[str, Values]:
        is_novel = [float(tuple(words) not in known) for words in corpus.hypotheses]
        return {"novel": Values.mean_of(is_novel, settings)}

    return novel


def noun_recall(corpus: Corpus) -> dict[str, Values]:
    """Of the frequent nouns (nouns.py) that an image's references agree on, the share that the hypothesis
    names, over all images; an image whose references agree on none has no value, nor has a corpus of such.

    They agree on a noun where two of them name it; of one reference alone all nouns count.
    """
    counts = np.array(
        [
            _count_named(hypothesis, references)
            for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True)
        ],
        dtype=np.float64,
    )  # (images, 2): named, asked for
    if not counts[:, 1].any():
        return {}
    of_images = _share_named(counts)
    value = float(_share_named(counts.sum(axis=0, keepdims=True))[0])
    return {"noun-recall": Values(value, of_images.tolist(), counts, _share_named)}


def _distinct_share(captions: Sequence[Words]) -> float:
    return len({tuple(words) for words in captions}) / len(captions)


def _ends_badly(words: Words) -> bool:
    # "with a." ends in the word "a.", an initial
    last = words[-1].rstrip(".") if words else ""
    return not last or last in BAD_ENDINGS


def _count_named(hypothesis: Words, references: Sequence[Words]) -> tuple[int, int]:
    named = Counter(noun for words in references for noun in nouns_of(words))
    agreed = {noun for noun, count in named.items() if count >= min(_AGREED, len(references))}
    return len(agreed & nouns_of(hypothesis)), len(agreed)


def _share_named(counts: Floats) -> Floats:
    """(R, 2) -> (R,); nan where no noun was asked for."""
    asked = counts[:, 1]
    shares: Floats = np.divide(counts[:, 0], asked, out=np.full(len(counts), np.nan), where=asked > 0)
    return shares
