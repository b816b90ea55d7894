"""METEOR by hand, on tiny tables in the layout of the real ones: no Java, no pycocoevalcap."""

import gzip
import itertools
import sys
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixtell.errors import ScoringError
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.meteor import meteor
from pixtell.metrics.meteor.alignment import Caption, align
from pixtell.metrics.meteor.normalizing import meteor_words
from pixtell.metrics.meteor.paraphrases import ParaphraseTable
from pixtell.metrics.meteor.stemming import stem
from pixtell.metrics.meteor.tables import SynonymTable

LISTS = {
    "function/english.words": "the\na\nin\n",
    "nonbreaking/english.prefixes": "# comment\n\nDr\nNo #NUMERIC_ONLY#\n",
    "synonym/english.exceptions": "mouse\nmice\n",
    "synonym/english.synsets": "mouse\n07\nrodent\n07 08\npuppy\n09\nwhelp\n09\n",
}
ENTRIES = [
    ("crimson", "red"),
    ("man on a bike", "cyclist"),
    ("stands on", "is on top of"),
    ("crimson", "dark red"),  # not beside the other entry of its phrase
]


def write_tables(
    folder: Path, entries: Sequence[tuple[str, str]] = ENTRIES, lists: dict[str, str] = LISTS
) -> Path:
    (folder / "data").mkdir(parents=True)
    with zipfile.ZipFile(folder / "meteor-1.5.jar", "w") as jar:
        for name, text in lists.items():
            jar.writestr(name, text)
    text = "".join(f"0.1\n{phrase}\n{paraphrase}\n" for phrase, paraphrase in entries)
    (folder / "data" / "paraphrase-en.gz").write_bytes(gzip.compress(text.encode()))
    return folder


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("meteor"))


def score(folder: Path, *pairs: tuple[str, list[str]]) -> Values:
    corpus = Corpus(
        image_ids=tuple(map(str, range(len(pairs)))),
        hypotheses=[hypothesis.split(" ") for hypothesis, _ in pairs],
        references=[[text.split(" ") for text in references] for _, references in pairs],
    )
    return meteor(folder)(corpus)["METEOR"]


def f_mean(precision: float, recall: float) -> float:
    return 1 / (0.15 / precision + 0.85 / recall)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "expected"),
    [
        # all words in one chunk: no penalty
        ("dog runs", "dog runs", 1.0),
        # one of two words, in one chunk: the whole penalty
        ("dog runs", "dog sleeps", 0.5 * 0.4),
        # each kind of match alone is worth its weight
        ("dogs", "dog", 0.6),
        ("whelp", "puppy", 0.8),
        ("mice", "rodent", 0.8),  # an irregular plural
        ("whelps", "puppy", 0.8),  # a regular one
        ("cyclist", "man on a bike", 0.6),
        ("man on a bike", "cyclist", 0.6),  # the table is read both ways
        ("dark red", "crimson", 0.6),
        # a function word weighs a third of a content word: 0.25 of 1, 0.75 of 1
        ("the dog", "the cat", 0.25 * 0.4),
        ("a dog", "in dog", 0.75 * 0.4),
        # two chunks of two words each; one word of four too many in the reference
        ("cat dog red green", "red green cat dog", 1 - 0.6 * 0.5**0.2),
        ("cat dog sun", "cat dog big sun", f_mean(1, 0.75) * (1 - 0.6 * (2 / 3) ** 0.2)),
        # a phrase of two words for one of four, and one word: the chunk has 3 words here and 5 there
        ("dog stands on x", "dog is on top of y", None),
        ("dog", "cat", 0.0),
        ("", "dog", 0.0),
        ("dog", "", 0.0),
        ("", "", 0.0),
        # what parts captions for the jar is no word
        ("dog ||| runs", "dog runs", 1.0),
        ("dog runs", "dog ||| runs", 1.0),
        ("\u72ac \u8d70\u308b", "\u72ac \u8d70\u308b", 1.0),
        ("dog \x01 \x1b \u2028 \ud800", "dog \x01 \x1b \u2028 \ud800", 1.0),
    ],
)
def test_values_by_hand(tables: Path, hypothesis: str, reference: str, expected: float | None) -> None:
    if expected is None:
        precision, recall = (1 + 2 * 0.6) / 4, (1 + 4 * 0.6) / 6
        expected = f_mean(precision, recall) * (1 - 0.6 * (1 / ((3 + 5) / 2)) ** 0.2)
    values = score(tables, (hypothesis, [reference]))
    assert values.value == pytest.approx(expected, abs=1e-12)
    assert values.per_image == [pytest.approx(expected, abs=1e-12)]


def test_the_best_reference_counts(tables: Path) -> None:
    values = score(tables, ("dog runs", ["cat", "dog sleeps", "dog runs", ""]))
    assert values.value == pytest.approx(1.0)


def test_the_corpus_sums_counts_and_is_no_mean(tables: Path) -> None:
    values = score(tables, ("dog runs", ["dog runs"]), ("sun cat", ["sun red big"]))
    # 3 matches of 4 and 5 words; the caption that matches as a whole has no chunk in the sum
    expected = f_mean(3 / 4, 3 / 5) * (1 - 0.6 * (1 / 3) ** 0.2)
    assert values.value == pytest.approx(expected, abs=1e-12)
    assert values.per_image[0] == pytest.approx(1.0)
    assert values.value != pytest.approx(sum(values.per_image) / 2, abs=0.01)


def test_statistics_give_the_corpus(tables: Path) -> None:
    pairs = [
        ("dog runs", ["dog sleeps"]),
        ("the red dog", ["a crimson dog"]),
        ("dog", ["dog"]),
        ("", ["dog"]),
    ]
    values = score(tables, *pairs)
    assert values.statistics is not None
    assert values.combine is not None
    picked = [1, 1, 3]
    again = score(tables, *(pairs[index] for index in picked))
    sums = np.stack([values.statistics.sum(0), values.statistics[picked].sum(0)])
    assert values.combine(sums) == pytest.approx([values.value, again.value], abs=1e-15)


def test_many_images_are_scored_as_they_are_alone(tables: Path) -> None:
    pairs = [("dog runs", ["dog sleeps"]), ("the red dog", ["a crimson dog"]), ("mice", ["rodent"])]
    alone = [score(tables, pair).value for pair in pairs]
    assert score(tables, *pairs * 2000).per_image == pytest.approx(alone * 2000)  # several batches


def test_long_captions_end(tables: Path) -> None:
    words = ["a", "dog", "red", "mice", "runs", "in", "the", "sun", "dark", "green"]
    long = " ".join(words * 1000)
    begun = time.monotonic()
    values = score(tables, (long, ["a red dog in the sun", "a a a a a a a a"] * 2), (words[1], [long]))
    crowded = score(tables, (long, [" ".join(words[::-1] * 100)]), (long, [long]), ("x" * 10_000, ["y"]))
    assert time.monotonic() - begun < 60
    assert 0 < values.per_image[0] < 0.01
    assert crowded.per_image[0] > 0.1
    assert crowded.per_image[1:] == [1.0, 0.0]


# --- The parts.


def plain_caption(words: str) -> Caption:
    return Caption(words, words, [frozenset()] * len(words), [False] * len(words), [()] * len(words))


@settings(max_examples=60, deadline=None)
@given(st.text("abc", max_size=5), st.text("abc", max_size=5))
def test_the_alignment_is_the_best(hypothesis: str, reference: str) -> None:
    """Most words, then fewest chunks, of all alignments of equal words."""
    best = (0, 0)
    places = range(len(hypothesis))
    for chosen in itertools.product([None, *places], repeat=len(reference)):
        used = [place for place in chosen if place is not None]
        if len(set(used)) < len(used) or any(
            place is not None and hypothesis[place] != letter
            for place, letter in zip(chosen, reference, strict=True)
        ):
            continue
        following = [None, *(None if place is None else place + 1 for place in chosen[:-1])]
        chunks = sum(p is not None and p != f for p, f in zip(chosen, following, strict=False))
        best = min(best, (-len(used), chunks))
    counts = align(plain_caption(hypothesis), plain_caption(reference), {})
    assert (-counts[21], counts[20]) == best


@pytest.mark.parametrize(
    ("word", "expected"),
    # from the description of the algorithm, and the rules it names
    [
        *[("consign", "consign"), ("consistency", "consist"), ("knavish", "knavish"), ("knack", "knack")],
        *[("dying", "die"), ("skies", "sky"), ("news", "news"), ("innings", "inning"), ("exceeds", "exceed")],
        *[("ties", "tie"), ("cries", "cri"), ("gas", "gas"), ("gaps", "gap"), ("kiwis", "kiwi")],
        *[("hopping", "hop"), ("hoping", "hope"), ("luxuriating", "luxuri"), ("bed", "bed"), ("sky", "sky")],
        *[
            ("say", "say"),
            ("cry", "cri"),
            ("by", "by"),
            ("youth", "youth"),
            ("sayings", "say"),
            ("yyy", "yyy"),
        ],
        *[
            ("generally", "general"),
            ("communism", "communism"),
            ("arsenal", "arsenal"),
            ("rationally", "ration"),
        ],
        *[("sensational", "sensat"), ("hopefulness", "hope"), ("geology", "geolog"), ("quickly", "quick")],
        *[
            ("replacement", "replac"),
            ("adoption", "adopt"),
            ("rate", "rate"),
            ("cease", "ceas"),
            ("roll", "roll"),
        ],
        *[
            ("controlled", "control"),
            ("boy's", "boy"),
            ("'s'", "s"),
            ("", ""),
            ("\u72ac", "\u72ac"),
            ("ing", "ing"),
        ],
    ],
)
def test_stems(word: str, expected: str) -> None:
    assert stem(word) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("two dogs 12", "two dogs 12"),
        ("don't dogs' boy's 1990's", "don 't dogs ' boy 's 1990 's"),
        ("x-ray, 1,000 a--b", "x ray , 1,000 a b"),
        ("wait... end.", "wait ... end ."),
        ("u.s. dr. x Dr. X", "us dr. x dr. x"),
        ("No. 5 no. x No. X end. Y", "no. 5 no. x no . x end . y"),
        ("`quoted' \u201cx\u201d (y) \u20ac5", "' quoted ' \" x \" ( y ) \u20ac 5"),
        ("a\u00a0b\u3000c \x01 d\x01", "a b c \x01 d"),
        ("\u039f\u0394\u039f\u03a3 \xc9", "\u03bf \u03b4 \u03bf \u03c3 \xe9"),
        (" \t\n", ""),
    ],
)
def test_words(text: str, expected: str) -> None:
    assert " ".join(meteor_words(text, {"Dr": False, "No": True})) == expected


def test_bases_of_inflected_words() -> None:
    words = ["fox", "box", "fly", "woman", "bake", "run", "big", "glass", "a"]
    synonyms = SynonymTable(
        ["ox", "oxen", "go", "went gone"],
        [line for word in [*words, "ox", "go"] for line in (word, f"{len(word)}-{word}")],
    )
    bases = {
        "foxes": "fox",
        "flies": "fly",
        "women": "woman",
        "baking": "bake",
        "runs": "run",
        "baked": "bake",
    }
    bases |= {"oxen": "ox", "gone": "go", "glass": "glass", "a": "a"}
    assert {word: synonyms.senses(word) for word in bases} == {
        word: frozenset([f"{len(base)}-{base}"]) for word, base in bases.items()
    }
    assert synonyms.senses("biggest") == synonyms.senses("nothing") == synonyms.senses("") == frozenset()


def test_paraphrases_in_the_order_of_the_file(tables: Path) -> None:
    table = ParaphraseTable.read(tables / "data" / "paraphrase-en.gz")
    phrases = ["dark red", "red", "man on a bike", "nothing", "crimson", "cyclist", "\ud800"]
    assert table.among(phrases) == {4: {1: 0, 0: 1}, 2: {5: 0}}
    assert table.among([]) == {}


def test_a_table_of_many_entries_without_a_last_line_feed(tmp_path: Path) -> None:
    entries = [(f"phrase {index % 5000}", f"other phrase {index}") for index in range(400_000)]
    text = "\n".join(f"0.1\n{phrase}\n{other}" for phrase, other in entries)  # 13 MB, more than one piece
    (tmp_path / "many.gz").write_bytes(gzip.compress(text.encode(), 1))
    table = ParaphraseTable.read(tmp_path / "many.gz")
    found = table.among(
        ["phrase 7", "other phrase 395007", "other phrase 7", "other phrase 8", "phrase 4999"]
    )
    assert found == {0: {2: 0, 1: 1}}
    assert len(np.unique(table.paraphrases)) == len(entries)  # no two with one hash


# --- What can be wrong with the tables: one sentence each.


def test_no_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)  # another test may have loaded it
    with pytest.raises(ScoringError, match=r"pycocoevalcap, which is not installed: run `pip install"):
        meteor()


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(
        ScoringError, match=r"cannot be found \(.*meteor-1\.5\.jar and .*paraphrase-en\.gz\): run `pip"
    ):
        meteor(tmp_path / "absent")


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04" + bytes(100)])
def test_a_jar_that_is_none(tmp_path: Path, content: bytes) -> None:
    (write_tables(tmp_path / "meteor") / "meteor-1.5.jar").write_bytes(content)
    with pytest.raises(ScoringError, match=r"meteor-1\.5\.jar cannot be read .*: run `pip install"):
        meteor(tmp_path / "meteor")


def test_a_jar_of_something_else(tmp_path: Path) -> None:
    folder = write_tables(tmp_path, lists={"META-INF/MANIFEST.MF": ""})
    with pytest.raises(ScoringError, match=r"is not Meteor 1\.5"):
        meteor(folder)


@pytest.mark.parametrize("name", ["synonym/english.exceptions", "synonym/english.synsets"])
def test_a_list_cut_short(tmp_path: Path, name: str) -> None:
    folder = write_tables(tmp_path, lists=LISTS | {name: "mouse\nmice\nfox\n"})
    with pytest.raises(ScoringError, match="a line is missing in a list"):
        meteor(folder)


@pytest.mark.parametrize(
    "content", [b"", b"no gzip", gzip.compress(b"", mtime=0), gzip.compress(b"0.1\na\n", mtime=0)]
)
def test_paraphrases_that_are_none(tmp_path: Path, content: bytes) -> None:
    (write_tables(tmp_path / "meteor") / "data" / "paraphrase-en.gz").write_bytes(content)
    with pytest.raises(ScoringError, match=r"paraphrase-en\.gz is no table of paraphrases .*install"):
        meteor(tmp_path / "meteor")


def test_paraphrases_cut_short(tmp_path: Path) -> None:
    path = write_tables(tmp_path) / "data" / "paraphrase-en.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScoringError, match="is no table of paraphrases"):
        meteor(tmp_path)
