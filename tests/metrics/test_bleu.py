"""BLEU: equal to pycocoevalcap, values computed by hand, edges."""

import math
import time

import pytest
from pycocoevalcap.bleu.bleu import Bleu

from pixtell.metrics.bleu import bleu
from pixtell.metrics.corpus import Corpus


def one_image(hypothesis: str, *references: str) -> Corpus:
    return Corpus(("1",), [hypothesis.split()], [[reference.split() for reference in references]])


def test_equals_pycocoevalcap(corpus, reference_scores):
    values, per_image = reference_scores(Bleu(4), corpus)
    scores = bleu(corpus)
    assert list(scores) == ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]
    for n, ours in enumerate(scores.values()):
        assert ours.value == pytest.approx(values[n], abs=1e-9)
        assert ours.per_image == pytest.approx(per_image[n], abs=1e-9)


def assert_equal_to_pycocoevalcap(corpus, reference_scores):
    values, per_image = reference_scores(Bleu(4), corpus)
    for n, ours in enumerate(bleu(corpus).values()):
        assert ours.value == pytest.approx(values[n], abs=1e-6)
        assert ours.per_image == pytest.approx(per_image[n], abs=1e-6)


@pytest.mark.flickr8k
def test_one_person_against_four_equals_pycocoevalcap(one_person, reference_scores):
    assert_equal_to_pycocoevalcap(one_person, reference_scores)
    scores = bleu(one_person)
    assert scores["BLEU-1"].value == pytest.approx(0.6364, abs=1e-4)
    assert scores["BLEU-4"].value == pytest.approx(0.2095, abs=1e-4)


def test_other_scripts_equal_pycocoevalcap(scripts_corpus, reference_scores):
    assert_equal_to_pycocoevalcap(scripts_corpus, reference_scores)


def test_degenerate_sets_equal_pycocoevalcap_and_hold_no_nan(degenerate_corpus, reference_scores):
    assert_equal_to_pycocoevalcap(degenerate_corpus, reference_scores)
    for found in bleu(degenerate_corpus).values():
        assert all(0 <= value <= 1 for value in [found.value, *found.per_image])


def test_a_word_counts_as_often_as_one_reference_has_it():
    """Papineni et al. 2002, section 2.1: modified unigram precision 2/7."""
    the = " ".join(["the"] * 7)
    scores = bleu(one_image(the, "the cat is on the mat", "there is a cat on the mat"))
    assert scores["BLEU-1"].value == pytest.approx(2 / 7, abs=1e-8)


def test_precisions_by_hand():
    scores = bleu(one_image("a dog runs on grass", "a dog runs on the grass"))
    brevity = math.exp(1 - 6 / 5)
    assert scores["BLEU-1"].value == pytest.approx(brevity * 5 / 5, abs=1e-6)
    assert scores["BLEU-2"].value == pytest.approx(brevity * (5 / 5 * 3 / 4) ** (1 / 2), abs=1e-6)
    assert scores["BLEU-3"].value == pytest.approx(brevity * (5 / 5 * 3 / 4 * 2 / 3) ** (1 / 3), abs=1e-6)
    product = 5 / 5 * 3 / 4 * 2 / 3 * 1 / 2
    assert scores["BLEU-4"].value == pytest.approx(brevity * product ** (1 / 4), abs=1e-6)


def test_the_closest_reference_sets_the_length_and_the_shorter_of_two():
    two_away, three_away = "a b", "a"
    shorter = bleu(one_image("a b c d", "a b c d e f", two_away))
    longer = bleu(one_image("a b c d", "a b c d e f", three_away))
    assert shorter["BLEU-1"].value == pytest.approx(1, abs=1e-8)
    assert longer["BLEU-1"].value == pytest.approx(math.exp(1 - 6 / 4), abs=1e-8)


def test_the_corpus_is_no_mean_of_images():
    corpus = Corpus(("1", "2"), [["a"], ["x", "b", "c"]], [[["a"]], [["a", "b", "c"]]])
    ours = bleu(corpus)["BLEU-1"]
    assert ours.per_image == pytest.approx([1, 2 / 3], abs=1e-8)
    assert ours.value == pytest.approx(3 / 4, abs=1e-8)


def test_no_words_score_nothing():
    assert bleu(one_image("", "a dog"))["BLEU-1"].value == 0
    assert bleu(one_image("a dog", ""))["BLEU-1"].value == pytest.approx(0, abs=1e-9)


def test_ten_thousand_words():
    words = " ".join(str(i) for i in range(10_000))
    assert bleu(one_image(words, words, "a dog"))["BLEU-4"].value == pytest.approx(1, abs=1e-6)


def test_time_is_linear_in_repeated_words():
    """Eight times the words, each of them twice, take some eight times the time; one by one, 64 times."""

    def seconds(num_words: int) -> float:
        words = [str(i) for i in range(num_words // 2)] * 2
        started = time.process_time()
        bleu(one_image(" ".join(words), " ".join(words)))
        return time.process_time() - started

    assert min(seconds(16_000) for _ in range(2)) < 24 * min(seconds(2_000) for _ in range(3))
