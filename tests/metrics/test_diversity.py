"""Numbers about captions alone."""

import math

import pytest

from pixtell.metrics.corpus import Corpus
from pixtell.metrics.diversity import (
    bad_ending_rate,
    bad_endings,
    distinct_share,
    length,
    noun_recall,
    novelty,
    variety,
)
from pixtell.metrics.nouns import nouns_of


def test_captions_that_differ_only_in_case_or_stops_are_one():
    assert distinct_share(["A dog runs.", "a dog runs", "A cat.", "A dog"]) == 3 / 4
    assert distinct_share(["A dog."] * 10) == 1 / 10


@pytest.mark.parametrize("ending", ["a", "an", "the", "of", "with", "on", "in", "and", "to", "is"])
def test_a_caption_that_breaks_off_ends_badly(ending):
    assert bad_ending_rate([f"A dog runs {ending}.", "A dog runs .", f"A {ending} dog"]) == 1 / 3


def test_a_caption_without_words_ends_badly():
    assert bad_ending_rate(["...", "A dog"]) == 1 / 2


def corpus_of(hypotheses: list[str], references: list[list[str]] | None = None) -> Corpus:
    ids = [str(i) for i in range(len(hypotheses))]
    texts = references or [["a dog"]] * len(hypotheses)
    return Corpus.from_text(dict(zip(ids, hypotheses, strict=True)), dict(zip(ids, texts, strict=True)))


def test_length_and_bad_endings_of_each_image():
    corpus = corpus_of(["A dog, a cat.", "A dog on the", "."])
    assert length(corpus)["length"].per_image == [4, 4, 0]
    found = bad_endings(corpus)["bad-endings"]
    assert found.per_image == [0, 1, 1]
    assert found.value == pytest.approx(2 / 3)


def test_variety_by_hand():
    """Words: a dog runs a dog sleeps; pairs: (a dog) (dog runs) (a dog) (dog sleeps)."""
    found = variety(corpus_of(["A dog runs.", "A dog sleeps!", "A dog runs"]))
    assert {name: values.value for name, values in found.items()} == pytest.approx(
        {"distinct": 2 / 3, "distinct-1": 4 / 9, "distinct-2": 3 / 6, "vocabulary": 4}
    )
    assert all(values.per_image == [] for values in found.values())
    assert variety(corpus_of(["."]))["distinct-2"].value == 0


def test_a_sentence_of_the_training_is_not_novel_whatever_its_case():
    found = novelty(["A DOG runs!", "a cat"])(corpus_of(["a dog runs", "a dog", "A cat."]))["novel"]
    assert found.per_image == [0, 1, 0]


def test_noun_recall_asks_for_what_two_references_name():
    corpus = corpus_of(
        ["Two dogs and a bike.", "A dog.", "A dog."],
        [
            ["A dog chases a ball.", "Dogs with balls", "a dog near a tree"],  # dog and ball, not the tree
            ["Beautiful."],
            ["A woman on a bicycle"],  # of one reference alone all nouns count
        ],
    )
    found = noun_recall(corpus)["noun-recall"]
    assert found.per_image == pytest.approx([1 / 2, math.nan, 0], nan_ok=True)
    assert found.value == pytest.approx(1 / 4)
    assert noun_recall(corpus_of(["A dog."], [["Red."]])) == {}


def test_a_noun_is_one_in_the_plural_and_by_another_name():
    assert nouns_of(
 ["men", "women", "children", "people", "puppies", "benches", "t-shirts", "leaves"]
) == {
        "man", "woman", "child", "person", "puppy", "bench", "shirt", "leaf",
    }  # fmt: skip
    assert nouns_of(["playing", "red", "a"]) == set()
