"""Words -> their n-grams for n = 1 to 4, which BLEU and CIDEr count.

A 1-gram is the word itself, a longer one a tuple of words.
"""

from collections.abc import Iterable, Sequence

MAX_NGRAM = 4

Ngram = str | tuple[str, ...]


def count_ngrams(words: Sequence[str]) -> list[dict[Ngram, int]]:
    """How often each n-gram occurs, by n: a b a -> [{a: 2, b: 1}, {ab: 1, ba: 1}, {aba: 1}, {}]."""
    counted = []
    for ngrams in _each_ngram(words):
        counts: dict[Ngram, int] = {}
        for ngram in ngrams:
            counts[ngram] = counts.get(ngram, 0) + 1
        counted.append(counts)
    return counted


def ngrams_of(captions: Iterable[Sequence[str]]) -> set[Ngram]:
    """The n-grams, of every n, that occur in any of these captions."""
    found: set[Ngram] = set()
    for words in captions:
        for ngrams in _each_ngram(words):
            found.update(ngrams)
    return found


def _each_ngram(words: Sequence[str]) -> list[Iterable[Ngram]]:
    """The n-grams in order, by n.

    A word with no-break spaces inside ("2 1/2") is cut into its parts here: pycocoevalcap puts the words
    into one string and splits that again. Its ROUGE-L splits at plain spaces only and keeps such a word
    whole; so does ours.
    """
    first = " ".join(words).split()
    second, third, fourth = first[1:], first[2:], first[3:]
    return [
        first,
        zip(first, second, strict=False),
        zip(first, second, third, strict=False),
        zip(first, second, third, fourth, strict=False),
    ]
