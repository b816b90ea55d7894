# ruff: noqa: RUF001  (quotes and dashes that look alike are what this file tells apart)
"""Text -> METEOR's words: lower case, punctuation apart.

In: a caption's PTB words joined by spaces. Out: the words that the jar's `-norm` makes of them. Both
sides go through it; of an ordinary caption it leaves the words as they are. It does not know what matches.

The steps and their order are those of Meteor 1.5's `Normalizer` for English with punctuation kept.
"""

import re
from collections.abc import Mapping

# The letters that the jar knows by code point, as a part of a character class; any other is punctuation.
_ALPHA = (
    "A-Za-z\u0160\u017d\u0161\u017e\u0178\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u017e\u0400-\u0527"
    "\ua640-\ua66e\ua67e-\ua697\u1d00-\u1d7f"
)
_ALNUM = "0-9" + _ALPHA
_SPACE = " \\t\\n\\x0b\\f\\r"

# Nothing below changes such a text.
_PLAIN = re.compile("[a-z0-9 ]*")

_STEPS = [
    (re.compile(f"([^{_ALNUM}{_SPACE}.'`,\\-‘’])"), r" \1 "),
    (re.compile(r"\.([.]+)"), r" DOTMULTI\1"),
]
_MORE_DOTS = re.compile(r"DOTMULTI\.([^.])")
_LATER_STEPS = [
    (re.compile("([^0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile("([0-9]),([^0-9])"), r"\1 , \2"),
    (re.compile("([^0-9]),([0-9])"), r"\1 , \2"),
    (re.compile("[`‘’]"), "'"),
    (re.compile("[“”]|''"), ' " '),
    (re.compile("–"), "-"),
    (re.compile("--"), "-"),
    (re.compile(f"([{_ALNUM}.])-([{_ALNUM}])"), r"\1 \2"),
    (re.compile(f"([^{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(f"([^{_ALPHA}0-9])'([{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(f"([{_ALPHA}])'([^{_ALPHA}])"), r"\1 ' \2"),
    (re.compile(f"([{_ALPHA}])'([{_ALPHA}])"), r"\1 '\2"),
    (re.compile("([0-9])'(s)"), r"\1 '\2"),
]
_LETTER = re.compile(f"[{_ALPHA}]")
_WIDE_SPACES = re.compile("[ \u2000-\u200a\u202f\u205f\u3000\u00a0]+")
_WORD = re.compile("[^ \t\n\r\f]+")  # what Java's StringTokenizer takes apart
_TRIMMED = "".join(map(chr, range(33)))  # what Java's String.trim takes off the ends


def meteor_words(text: str, prefixes: Mapping[str, bool]) -> list[str]:
    """The words of a caption.

    prefixes: words that keep their full stop; True where only a number after them keeps it.
    """
    if _PLAIN.fullmatch(text):
        return text.split()
    text = f" {text.strip(_TRIMMED)} "
    for pattern, replacement in _STEPS:
        text = pattern.sub(replacement, text)
    while "DOTMULTI." in text:
        text = _MORE_DOTS.sub(r"DOTDOTMULTI \1", text)
        text = text.replace("DOTMULTI.", "DOTDOTMULTI")
    for pattern, replacement in _LATER_STEPS:
        text = pattern.sub(replacement, text)
    words = _WORD.findall(text)
    followed = zip(words, [*words[1:], ""], strict=False)
    text = " ".join(_cut_stop(word, following, prefixes) for word, following in followed)
    while "DOTDOTMULTI" in text:
        text = text.replace("DOTDOTMULTI", "DOTMULTI.")
    text = _WIDE_SPACES.sub(" ", text.replace("DOTMULTI", "."))
    return _WORD.findall(text.strip(_TRIMMED).lower())


def _cut_stop(word: str, following: str, prefixes: Mapping[str, bool]) -> str:
    """'end.' -> 'end .', but 'u.s.' -> 'us', and a stop stays before a lower-case word or after a prefix."""
    if len(word) < 2 or not word.endswith("."):
        return word
    stem = word[:-1]
    if "." in stem and _LETTER.search(stem):
        return word.replace(".", "")
    if prefixes.get(stem) is False or "a" <= following[:1] <= "z":
        return word
    if prefixes.get(stem) and "0" <= following[:1] <= "9":
        return word
    return f"{stem} ."
