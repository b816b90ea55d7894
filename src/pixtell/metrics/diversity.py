"""Captions alone -> numbers about them: how many differ, how many break off, how long they are.

In: captions as text, at least one. Out: a number. It needs no references.
"""

from collections.abc import Sequence

from pixtell.metrics.ptb import ptb_words

# Words that no finished caption ends in. One that does was cut short, or its model was trained to collect
# n-grams without the end token in its reward.
_BAD_ENDINGS = """
    a an the of with on in and to is are at by for from as or his her its their that while near into"""
BAD_ENDINGS = frozenset(_BAD_ENDINGS.split())


def distinct_share(captions: Sequence[str]) -> float:
    """The share of different captions, compared as words: 1 where no two are equal, 1 / n where all n are."""
    return len({tuple(ptb_words(caption)) for caption in captions}) / len(captions)


def bad_ending_rate(captions: Sequence[str]) -> float:
    """The share of captions whose last word is one of `BAD_ENDINGS`, or that hold no word at all."""
    # "with a." ends in the word "a.", an initial
    last_words = [(ptb_words(caption) or [""])[-1].rstrip(".") for caption in captions]
    return sum(not word or word in BAD_ENDINGS for word in last_words) / len(captions)


def mean_length(captions: Sequence[str]) -> float:
    """The mean number of words."""
    return sum(len(ptb_words(caption)) for caption in captions) / len(captions)
