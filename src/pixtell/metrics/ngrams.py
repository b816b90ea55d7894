"""Words -> their n-grams for n = 1 to 4, which BLEU and CIDEr count.

A 1-gram is the word itself, a longer one a tuple of words.
"""

from collections.abc import Iterable, Sequence

MAX_NGRAM = 4

Ngram = str | tuple[str, ...]


def count_ngrams(words: Sequence[str]) -> list[dict[Ngram, int]]:
    """How often each n-gram occurs, by n: a b a -> [{a: 2, b: 1}, {ab: 1, ba: 1}, {aba: 1}, {}]."""
    parts = split_again(words)
    counted = []
    for n, ngrams in enumerate(each_ngram(parts)):
        counts: dict[Ngram, int] = dict.fromkeys(ngrams, 1)
        if len(counts) < len(parts) - n:  # some come twice, which is rare for all n but 1
            counts = {}
            for ngram in each_ngram(parts)[n]:
                counts[ngram] = counts.get(ngram, 0) + 1
        counted.append(counts)
    return counted


def ngrams_of(captions: Iterable[Sequence[str]]) -> set[Ngram]:
    """The n-grams, of every n, that occur in any of these captions."""
    found: set[Ngram] = set()
    for words in captions:
        found.update(*each_ngram(split_again(words)))
    return found


def split_again(words: Sequence[str]) -> list[str]:
    """Cut words with no-break spaces inside ("2 1/2") into their parts.

    pycocoevalcap does so where it counts n-grams: it puts the words into one string and splits that again.
    Its ROUGE-L splits at plain spaces only and keeps such a word whole; so does ours.
    """
    given, parts = list(words), " ".join(words).split()
    return given if given == parts else parts  # the given ones know their hashes


def each_ngram(parts: Sequence[str]) -> list[Iterable[Ngram]]:
    """The n-grams of words without spaces in order, by n."""
    second, third, fourth = parts[1:], parts[2:], parts[3:]
    return [
        parts,
        zip(parts, second, strict=False),
        zip(parts, second, third, strict=False),
        zip(parts, second, third, fourth, strict=False),
    ]
