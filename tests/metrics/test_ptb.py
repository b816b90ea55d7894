# ruff: noqa: RUF001  (quotes and dashes that look alike are what is tested)
"""PTB words: golden captions recorded from the Java tokeniser, properties, and that program where Java is."""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixtell.metrics.ptb import PUNCTUATION, ptb_words

# (caption, what pycocoevalcap's PTBTokenizer makes of it): `test_golden_captions_are_what_java_gives`.
GOLDEN = [
    ("A dog 's ball .", "a | dog | 's | ball"),
    (
        "A man's dog doesn't like the men's cats.",
        "a | man | 's | dog | does | n't | like | the | men | 's | cats",
    ),
    (
        "He'd say they've gone; she'll say I'm \"late\", we're not.",
        "he | 'd | say | they | 've | gone | she | 'll | say | i | 'm | late | we | 're | not",
    ),
    ("I cannot go, gonna stay", "i | can | not | go | gon | na | stay"),
    (
        "'Tis the '80s: rock 'n' roll at 5 o'clock",
        "'t | is | the | '80s | rock | 'n' | roll | at | 5 | o'clock",
    ),
    (
        "O'Brien and the ne'er-do-well y'all know, ma'am",
        "o'brien | and | the | ne'er | do-well | y' | all | know | ma'am",
    ),
    ("the dogs' 'home'", "the | dogs | home"),
    (
        "a t-shirt, a 5-year-old and a red--white flag",
        "a | t-shirt | a | 5-year-old | and | a | red | white | flag",
    ),
    ("\"quoted\" ``old'' ‘single’ “double” «angled»", "quoted | old | single | double | angled"),
    (
        "a (small) [square] {curly} box",
        "a | -lrb- | small | -rrb- | -lsb- | square | -rsb- | -lcb- | curly | -rcb- | box",
    ),
    ("it’s a naïve café's menu", "it | 's | a | naïve | café | 's | menu"),
    ("black/white and/or w/o a/b/c/d", "black/white | and/or | w/o | a/b/c | / | d"),
    ("1,000 dogs, 3.5 cats & 2 1/2 birds", "1,000 | dogs | 3.5 | cats | & | 2\xa01/2 | birds"),
    ("a 1/2-inch bit at 10:30 a.m. on 9/11/2001", "a | 1/2-inch | bit | at | 10:30 | a.m. | on | 9/11/2001"),
    ("+44 20 1234 5678 or (555) 123-4567", "+44\xa020\xa01234\xa05678 | or | -lrb-555-rrb-\xa0123-4567"),
    ("No. 5 in the U.S. and Washington D.C.", "no. | 5 | in | the | u.s. | and | washington | d.c."),
    (
        "Mr. Smith, Dr. Who & co. of St. Louis etc.",
        "mr. | smith | dr. | who | & | co. | of | st. | louis | etc.",
    ),
    ("the letter P. The end.", "the | letter | p | the | end"),
    ("$5, US$5, 5% , #1 and #dogs @home", "$ | 5 | us$ | 5 | 5 | % | # | 1 | and | #dogs | @home"),
    ("€5 £5 5¢ ½ cup 5°C", "$ | 5 | # | 5 | 5 | cents | 1/2 | cup | 5 | ° | c"),
    ("AT&T, R&B, C++ and C#", "at&t | r&b | c++ | and | c#"),
    ("wow!! really?! ok... yes. . . no", "wow | !! | really | ?! | ok | yes | no"),
    ("a_b __ * ** ~ ^ = + < >", "a_b | __ | * | ** | ~ | ^ | = | + | < | >"),
    ("<b>bold</b> &amp; &lt;tag&gt; &nbsp;", "<b> | bold | </b> | & | < | tag | >"),
    (":) ;-( <3", ":-rrb- | ;--lrb- | < | 3"),
    (
        "www.example.com/dogs, see a.b@c.org or http://x.org/a?b=c.",
        "www.example.com/dogs | see | a.b@c.org | or | http://x.org/a?b=c",
    ),
    ("readme.txt. photo.jpg", "readme.txt | photo.jpg"),
    ("日本語、テスト。 नमस्ते ١٢٣ Привет", "日本語 | 、 | テスト | 。 | नमस्ते | ١٢٣ | привет"),
    ("a dog 🐶 runs 👨\u200d👩\u200d👧 away", "a | dog | runs | away"),
    ("soft\xadhyphen", "softhyphen"),
    ("m² x₂ ™ •", "m | ² | x | ₂ | ™ | •"),
    ("- -- --- ----- ....", "-----"),
    ("...", ""),
    ("a\tb  c", "a | b | c"),
    ("", ""),
]

# {kind: [[caption, words], ...]}, recorded from that program too. ASCII, so that what is invisible is seen.
HARD: dict[str, list[tuple[str, str]]] = json.loads(
    Path(__file__).with_name("ptb_cases.json").read_text(encoding="ascii")
)

# What random captions are put together from, so that the rows of the table meet.
_PIECES = """
    a b cannot I A An The is dog dogs Dog isn it do mr Mr. St. st no. No. p. co. Jan. etc. e.g. p.m.
    U.S. U K x com txt www. http://a.b/c 1 2 12 80 555 1234 1/2 ½ ' ' 's n't 'n' 'em ’ ‘ “ ” " `` - - --
    — … . . , , ; : ! ? !! ... ( ) [ ] { } < > <b> / & &amp; @ # $ € % + = _ * ~ ^ | \\ é ñ 日 ١ ☺ 🐶 ²"""
PIECES = [*_PIECES.split(), *" " * 60]


def random_captions(count: int, *, seed: int) -> list[str]:
    choose = random.Random(seed)
    return ["".join(choose.choices(PIECES, k=choose.randint(1, 9))).strip() or "a" for _ in range(count)]


def java_words(captions: Sequence[str]) -> list[list[str]]:
    """pycocoevalcap's words. A guard stands after each caption: that program looks past the end of a line."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    guarded = {i: [{"caption": caption}, {"caption": "zz"}] for i, caption in enumerate(captions)}
    cut = PTBTokenizer().tokenize(guarded)
    assert all(cut[i][1] == "zz" for i in guarded)
    return [[word for word in cut[i][0].split(" ") if word] for i in guarded]


@pytest.mark.parametrize(("caption", "words"), GOLDEN)
def test_golden_captions(caption: str, words: str) -> None:
    assert " | ".join(ptb_words(caption)) == words


@pytest.mark.parametrize("kind", HARD)
def test_hard_captions(kind: str) -> None:
    for caption, words in HARD[kind]:
        assert (caption, " | ".join(ptb_words(caption))) == (caption, words)


@pytest.mark.java
def test_golden_and_hard_captions_are_what_java_gives() -> None:
    recorded = [*GOLDEN, *(case for cases in HARD.values() for case in cases)]
    found = java_words([caption for caption, _ in recorded])
    differing = [
        (caption, words, java)
        for (caption, words), java in zip(recorded, found, strict=True)
        if " | ".join(java) != words
    ]
    assert differing == []


@pytest.mark.java
def test_words_of_random_captions_equal_java() -> None:
    captions = random_captions(8000, seed=1)
    differing = [
        (caption, ours, java)
        for caption, java in zip(captions, java_words(captions), strict=True)
        if (ours := ptb_words(caption)) != java
    ]
    assert differing == []


@pytest.mark.java
@pytest.mark.flickr8k
def test_words_of_all_flickr8k_captions_equal_java(flickr8k_dir: Path) -> None:
    lines = (flickr8k_dir / "Flickr8k_text" / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    captions = [line.split("\t", 1)[1] for line in lines]
    assert len(captions) == 40_000
    assert [ptb_words(caption) for caption in captions] == java_words(captions)


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x85", "\u2028", "\u2029"])
def test_a_line_separator_is_a_space(separator: str) -> None:
    assert ptb_words(f"two dogs{separator}run 2{separator}1/2 miles.") == ptb_words(
        f"two dogs run 2{' ' * len(separator)}1/2 miles."
    )


@pytest.mark.parametrize("control", ["\x00", "\x01", "\x1c", "\x1f", "\x7f", "\ufeff", "\ud800", "\u200d"])
def test_control_characters_end_words_and_vanish(control: str) -> None:
    assert ptb_words(f"a dog{control}runs{control}") == ["a", "dog", "runs"]


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "dog", "Runs", "cannot", "THE", "gonna", "st", "I"]), min_size=1))
def test_plain_words_are_cut_at_spaces(words: list[str]) -> None:
    """With or without a full stop; `st` and `I` keep theirs, the short road and the long one agree."""
    expected = " ".join(words).lower().replace("cannot", "can not").replace("gonna", "gon na").split()
    assert ptb_words(" ".join(words)) == expected
    assert ptb_words("  ".join(words) + " . ") == expected
    assert ptb_words(" ,".join(words) + " !") == expected
    stop = "." if words[-1] in ("a", "st", "I") else ""
    assert ptb_words(" ".join(words) + ".") == [*expected[:-1], expected[-1] + stop]


@settings(deadline=None)
@given(st.text())
def test_words_hold_no_spaces_no_capitals_and_no_punctuation(caption: str) -> None:
    words = ptb_words(caption)
    assert all(word and not set(" \n\r\u2028") & set(word) and word == word.lower() for word in words)
    assert not PUNCTUATION & set(words)


@settings(deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii")))
def test_words_come_from_the_caption(caption: str) -> None:
    """Letters and digits are neither lost nor made, but for the names of brackets."""
    text = "".join(ptb_words(caption))
    for name in ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"):
        text = text.replace(name, "")
    if "&" not in caption:  # entities lose theirs
        assert [c for c in text if c.isalnum()] == [c for c in caption.lower() if c.isalnum()]


def test_a_caption_of_ten_thousand_words() -> None:
    assert (
        ptb_words("A dog's red ball, 5-year-old. " * 2000)
        == ["a", "dog", "'s", "red", "ball", "5-year-old"] * 2000
    )


@pytest.mark.parametrize("letter", ["a", "é", "1", "-"])
def test_a_word_of_a_million_characters(letter: str) -> None:
    word = letter * (1_000_000 // len(letter))
    assert ptb_words(word) == [word]


@pytest.mark.parametrize(
    "piece", ["%", "é ", "🐶", "#.", "1.a.", "<!a", "<a b='", "www.&", "'a", "a-'", "f@"]
)
def test_time_is_linear_whatever_is_repeated(piece: str) -> None:
    """Eight times the text takes some eight times the time; where a row starts anew everywhere, 64 times."""

    def seconds(length: int) -> float:
        started = time.process_time()
        ptb_words(piece * (length // len(piece)))
        return time.process_time() - started

    assert min(seconds(8_000) for _ in range(2)) < 24 * min(seconds(1_000) for _ in range(3))


def test_nothing_but_spaces_or_punctuation_has_no_words() -> None:
    assert ptb_words("") == ptb_words("  ") == ptb_words(" ... ! , -- '' ") == []
