"""ROUGE-L: equal to pycocoevalcap, published examples, the common subsequence against a table."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocoevalcap.rouge.rouge import Rouge

from pixtell.metrics.corpus import Corpus
from pixtell.metrics.rouge import common_lengths, rouge_l


def rouge(hypothesis: str, *references: str) -> float:
    corpus = Corpus(("1",), [hypothesis.split()], [[reference.split() for reference in references]])
    return rouge_l(corpus)["ROUGE-L"].value


def common_length_by_table(ours: list[str], theirs: list[str]) -> int:
    table = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i, our in enumerate(ours):
        for j, their in enumerate(theirs):
            table[i + 1][j + 1] = table[i][j] + 1 if our == their else max(table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


def test_equals_pycocoevalcap(corpus, reference_scores):
    [value], [per_image] = reference_scores(Rouge(), corpus)
    ours = rouge_l(corpus)["ROUGE-L"]
    assert ours.value == pytest.approx(value, abs=1e-9)
    assert ours.per_image == pytest.approx(per_image, abs=1e-9)


@pytest.mark.flickr8k
def test_one_person_against_four_equals_pycocoevalcap(one_person, reference_scores):
    [value], [per_image] = reference_scores(Rouge(), one_person)
    ours = rouge_l(one_person)["ROUGE-L"]
    assert ours.value == pytest.approx(value, abs=1e-6)
    assert ours.per_image == pytest.approx(per_image, abs=1e-6)
    assert round(ours.value, 3) == 0.488


def test_other_scripts_equal_pycocoevalcap(scripts_corpus, reference_scores):
    [value], [per_image] = reference_scores(Rouge(), scripts_corpus)
    ours = rouge_l(scripts_corpus)["ROUGE-L"]
    assert ours.value == pytest.approx(value, abs=1e-6)
    assert ours.per_image == pytest.approx(per_image, abs=1e-6)


def test_degenerate_sets_equal_pycocoevalcap_and_hold_no_nan(degenerate_corpus, reference_scores):
    """No words on both sides are a match of one empty word, there as here."""
    [value], [per_image] = reference_scores(Rouge(), degenerate_corpus)
    ours = rouge_l(degenerate_corpus)["ROUGE-L"]
    assert [ours.value, *ours.per_image] == pytest.approx([value, *per_image], abs=1e-6)
    assert all(0 <= value <= 1 for value in [ours.value, *ours.per_image])


def test_published_examples():
    """Lin 2004, section 3.1: the summaries S2 and S3 of S1, with LCS 3 and 2 of 4 words."""
    assert rouge("police kill the gunman", "police killed the gunman") == pytest.approx(3 / 4)
    assert rouge("the gunman kill police", "police killed the gunman") == pytest.approx(2 / 4)


def test_precision_and_recall_may_come_from_two_references():
    """P = 2/2 from the long reference, R = 1/1 from the short one."""
    assert rouge("a dog", "a big dog runs", "dog") == pytest.approx(1)


def test_beta_weighs_recall():
    """P = 1, R = 1/2: (1 + 1.44) * 0.5 / (0.5 + 1.44)."""
    assert rouge("a dog", "a dog runs fast") == pytest.approx(1.22 / 1.94)


def test_nothing_in_common_or_no_words_is_0():
    assert rouge("a dog", "the cat") == rouge("", "the cat") == rouge("a dog", "") == 0


@settings(deadline=None)
@given(
    st.lists(st.sampled_from("abcd")), st.lists(st.lists(st.sampled_from("abcde")), min_size=1, max_size=3)
)
def test_common_lengths_equal_the_table(words, others):
    assert common_lengths(words, others) == [common_length_by_table(words, other) for other in others]


def test_ten_thousand_words():
    words = [str(i) for i in range(10_000)]
    assert common_lengths(words, [words[::-1], words[::2]]) == [1, 5_000]
