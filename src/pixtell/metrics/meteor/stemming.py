"""Word -> its English stem (Porter's second stemmer, "Porter2", as of 2015).

In: a lower-case word. Out: its stem; "running" -> "run". It does not know what a stem is for.

After the description at snowballstem.org/algorithms/english/stemmer.html, in the version that Meteor 1.5
carries. Written out here because packages that offer it follow later versions, which cut some words
otherwise: a score would depend on the version that happens to be installed. R1 is what follows the first
consonant after a vowel, R2 the same within R1; both are given as the places where they begin. A `Y` is a y
that is a consonant.
"""

import functools
import re
from collections.abc import Iterable

_WHOLE_WORDS = {word: word for word in ("sky", "news", "howe", "atlas", "cosmos", "bias", "andes")} | {
    "skis": "ski",
    "skies": "sky",
    "dying": "die",
    "lying": "lie",
    "tying": "tie",
    "idly": "idl",
    "gently": "gentl",
    "ugly": "ugli",
    "early": "earli",
    "only": "onli",
    "singly": "singl",
}
_DONE_AFTER_PLURAL = frozenset(
    ("inning", "outing", "canning", "herring", "earring", "proceed", "exceed", "succeed")
)

_REGION = re.compile("[aeiouy][^aeiouy]")
_LATE_REGION = re.compile("gener|commun|arsen")
_HAS_VOWEL = re.compile("[aeiouy]")
_SHORT_SYLLABLE = re.compile("(?:[^aeiouy][aeiouy][^aeiouywxY]|^[aeiouy][^aeiouy])$")

_DERIVED = {  # step 2, in R1
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "abli": "able",
    "entli": "ent",
    "izer": "ize",
    "ization": "ize",
    "ational": "ate",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "aliti": "al",
    "alli": "al",
    "fulness": "ful",
    "ousli": "ous",
    "ousness": "ous",
    "iveness": "ive",
    "iviti": "ive",
    "biliti": "ble",
    "bli": "ble",
    "fulli": "ful",
    "lessli": "less",
    "ogi": "og",
    "li": "",
}
_DERIVED_FURTHER = {  # step 3, in R1
    "tional": "tion",
    "ational": "ate",
    "alize": "al",
    "icate": "ic",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
    "ative": "",
}


def _longest_of(suffixes: Iterable[str]) -> re.Pattern[str]:
    """Matches the longest of these that a word ends in."""
    return re.compile(f"(?:{'|'.join(sorted(suffixes, key=len, reverse=True))})$")


_DERIVED_SUFFIX, _FURTHER_SUFFIX = _longest_of(_DERIVED), _longest_of(_DERIVED_FURTHER)
_ENDING = re.compile(  # step 4, in R2; the longer ones before what they end in
    "(?:ance|ence|able|ible|ement|ment|ent|ant|ism|ate|iti|ous|ive|ize|ion|al|er|ic)$"
)


@functools.lru_cache(maxsize=1 << 16)
def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if word in _WHOLE_WORDS or len(word) < 3:
        return _WHOLE_WORDS.get(word, word)
    word = _mark_consonants(word.removeprefix("'"))
    r1, r2 = _regions(word)
    word = _cut_plural(word)
    if word not in _DONE_AFTER_PLURAL:
        word = _cut_past(word, r1)
        if word[-1:] in ("y", "Y") and len(word) > 2 and word[-2] not in "aeiouy":
            word = word[:-1] + "i"
        word = _cut_derived(word, r1, r2)
        word = _cut_ending(word, r1, r2)
    return word.replace("Y", "y")


def _mark_consonants(word: str) -> str:
    """A y at the beginning or after a vowel becomes Y; the second of 'yy' follows a vowel or does not as the
    first was left."""
    letters = list(word)
    for place, letter in enumerate(letters):
        if letter == "y" and (place == 0 or letters[place - 1] in "aeiouy"):
            letters[place] = "Y"
    return "".join(letters)


def _regions(word: str) -> tuple[int, int]:
    """Where R1 and R2 begin."""
    found = _LATE_REGION.match(word) or _REGION.search(word)
    r1 = found.end() if found else len(word)
    found = _REGION.search(word, r1)
    return r1, found.end() if found else len(word)


def _cut_plural(word: str) -> str:
    """Step 1a, with the apostrophes before it."""
    for suffix in ("'s'", "'s", "'"):
        if word.endswith(suffix):
            word = word.removesuffix(suffix)
            break
    if word.endswith("sses"):
        return word[:-2]
    if word.endswith(("ied", "ies")):
        return word[:-2] if len(word) > 4 else word[:-1]
    if word.endswith("s") and not word.endswith(("us", "ss")) and _HAS_VOWEL.search(word[:-2]):
        return word[:-1]
    return word


def _cut_past(word: str, r1: int) -> str:
    """Step 1b."""
    for suffix in ("eedly", "eed"):
        if word.endswith(suffix):
            start = len(word) - len(suffix)
            return word[:start] + "ee" if start >= r1 else word
    for suffix in ("ingly", "edly", "ing", "ed"):
        if word.endswith(suffix):
            rest = word.removesuffix(suffix)
            if not _HAS_VOWEL.search(rest):
                return word
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if rest[-2:] in ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt"):
                return rest[:-1]
            return rest + "e" if len(rest) == r1 and _SHORT_SYLLABLE.search(rest) else rest
    return word


def _cut_derived(word: str, r1: int, r2: int) -> str:
    """Steps 2 and 3."""
    found = _DERIVED_SUFFIX.search(word)
    if found and found.start() >= r1:
        suffix, before = found[0], word[: found.start()]
        allowed = {"ogi": "l", "li": "cdeghkmnrt"}.get(suffix)
        if allowed is None or before[-1:] in tuple(allowed):
            word = before + _DERIVED[suffix]
    found = _FURTHER_SUFFIX.search(word)
    if found and found.start() >= (r2 if found[0] == "ative" else r1):
        word = word[: found.start()] + _DERIVED_FURTHER[found[0]]
    return word


def _cut_ending(word: str, r1: int, r2: int) -> str:
    """Steps 4 and 5."""
    found = _ENDING.search(word)
    if found and found.start() >= r2:
        before = word[: found.start()]
        if found[0] != "ion" or before.endswith(("s", "t")):
            word = before
    rest = word[:-1]
    if word.endswith("e"):
        return rest if len(rest) >= r2 or (len(rest) >= r1 and not _SHORT_SYLLABLE.search(rest)) else word
    return rest if word.endswith("ll") and len(rest) >= r2 else word
