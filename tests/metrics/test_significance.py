"""Intervals cover what they should, tests find what is there and no more, whatever is resampled."""

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixtell.errors import ScoringError
from pixtell.metrics import score_captions, score_differences
from pixtell.metrics.bleu import bleu
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.significance import differences_of, holm, intervals_of


def corpus_of(num_images: int) -> Corpus:
    """Hypotheses that share some words with their two references."""
    draw = random.Random(num_images)
    captions = [[draw.choices("abcdefg", k=draw.randint(4, 9)) for _ in range(2)] for _ in range(num_images)]
    hypotheses = [[*of_image[0][:4], *draw.choices("abcdefg", k=4)] for of_image in captions]
    return Corpus(tuple(map(str, range(num_images))), hypotheses, captions)


def interval(values: Values) -> tuple[float, float]:
    return intervals_of({"x": values})["x"]


def difference(first: Values, second: Values):
    return differences_of({"x": first}, {"x": second})["x"]


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    drawn = np.random.default_rng(1).normal(3.0, 2.0, size=2000)
    low, high = interval(Values.mean_of(drawn.tolist()))
    half = 1.96 * drawn.std() / math.sqrt(len(drawn))
    assert (low, high) == pytest.approx((drawn.mean() - half, drawn.mean() + half), abs=0.1 * half)


def test_the_interval_covers_the_truth_about_19_times_of_20():
    generator = np.random.default_rng(2)
    covered = 0
    for _ in range(200):
        low, high = interval(Values.mean_of(generator.exponential(1.0, size=100).tolist()))
        covered += low <= 1.0 <= high
    assert 0.89 <= covered / 200 <= 0.98


def test_a_draw_of_images_has_the_value_of_those_images_scored_anew():
    """BLEU is no mean: of every draw the sums give what scoring its captions from the start gives."""
    corpus = corpus_of(60)
    values = bleu(corpus)["BLEU-4"]
    assert values.statistics is not None
    assert values.combine is not None
    draw = random.Random(1)
    for _ in range(20):
        rows = draw.choices(range(60), k=60)
        drawn = Corpus(
            tuple(map(str, range(60))),
            [corpus.hypotheses[row] for row in rows],
            [corpus.references[row] for row in rows],
        )
        by_sums = values.combine(values.statistics[rows].sum(0)[None])[0]
        assert by_sums == pytest.approx(bleu(drawn)["BLEU-4"].value, abs=1e-12)
    low, high = interval(values)
    assert low < values.value < high


def test_the_same_values_give_the_same_interval_with_or_without_others_beside_them():
    one, other = Values.mean_of([0.0, 1.0, 0.5, 0.25]), Values.mean_of([1.0, 2.0, 3.0, 4.0])
    assert intervals_of({"x": one})["x"] == intervals_of({"y": other, "x": one})["x"]


def test_what_cannot_be_resampled_has_no_interval():
    assert intervals_of({"vocabulary": Values.of_corpus(12.0)}) == {}
    assert intervals_of({"one image": Values.mean_of([1.0])}) == {}
    assert intervals_of({"nan": Values.mean_of([math.nan, 1.0])}) == {}
    assert differences_of({"x": Values.mean_of([1.0])}, {"x": Values.mean_of([2.0])}) == {}
    assert differences_of({"x": Values.of_corpus(1.0)}, {"x": Values.of_corpus(2.0)}) == {}


def test_a_system_does_not_differ_from_itself():
    values = bleu(corpus_of(40))["BLEU-4"]
    found = difference(values, values)
    assert (found.value, found.interval, found.p_value) == (0, (0, 0), 1)
    assert not found.is_real


def test_a_small_difference_on_every_image_is_real_and_a_large_noise_is_not():
    drawn = np.random.default_rng(3).normal(0, 1, size=500)
    better = difference(Values.mean_of(drawn.tolist()), Values.mean_of((drawn + 0.01).tolist()))
    assert better.value == pytest.approx(0.01)
    assert better.is_real
    assert better.interval == pytest.approx((0.01, 0.01))
    shuffled = np.random.default_rng(4).permutation(drawn)
    noise = difference(Values.mean_of(drawn.tolist()), Values.mean_of(shuffled.tolist()))
    assert not noise.is_real
    assert noise.interval[0] < 0 < noise.interval[1]


def test_the_test_errs_about_once_in_20_where_nothing_differs():
    generator = np.random.default_rng(5)
    wrong = sum(
        difference(*(Values.mean_of(generator.normal(size=80).tolist()) for _ in range(2))).is_real
        for _ in range(200)
    )
    assert 2 <= wrong <= 20


def test_the_p_value_is_the_share_of_all_swaps_that_give_as_much():
    """Ten images: all 1,024 ways to swap, counted."""
    changes = [0.5, -0.2, 0.9, 0.4, -0.1, 0.3, 0.8, -0.6, 0.2, 0.7]
    seen = abs(sum(changes))
    as_much = sum(
        abs(sum(sign * change for sign, change in zip(signs, changes, strict=True))) >= seen - 1e-9
        for signs in itertools.product([1, -1], repeat=10)
    )
    found = difference(Values.mean_of([0.0] * 10), Values.mean_of(changes))
    assert found.p_value == pytest.approx(as_much / 1024, abs=0.01)


def test_of_too_few_images_nothing_is_tested():
    """Of nine images even a difference on each cannot be told from chance for several systems."""
    assert differences_of({"x": Values.mean_of([0.0] * 9)}, {"x": Values.mean_of([1.0] * 9)}) == {}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_only_raises_and_keeps_the_order(p_values):
    pairs = sorted(zip(p_values, holm(p_values), strict=True))
    assert all(p <= corrected <= 1 for p, corrected in pairs)
    assert all(ours <= theirs for (_, ours), (_, theirs) in itertools.pairwise(pairs))


def test_two_systems_are_tested_on_the_same_images_only():
    ids = [str(i) for i in range(12)]
    references = {i: [f"a dog runs {i}"] for i in ids}
    first = score_captions(dict.fromkeys(ids, "a dog"), references)
    second = score_captions({i: f"a dog runs {i}" for i in ids}, references)
    found = score_differences(first, second)
    assert found["ROUGE-L"].value == pytest.approx(second["ROUGE-L"].value - first["ROUGE-L"].value)
    assert "vocabulary" not in found
    with pytest.raises(ScoringError, match=r"of different images, or of another order; score both"):
        score_differences(first, score_captions(dict.fromkeys(ids[::-1], "a"), references))
    with pytest.raises(ScoringError, match=r"images:12.* and BLEU-1.*images:1.* do not compare; score both"):
        score_differences(first, score_captions({"1": "a"}, {"1": ["a"]}))
