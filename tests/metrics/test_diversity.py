"""Numbers about captions alone."""

import pytest

from pixtell.metrics.diversity import bad_ending_rate, distinct_share, mean_length


def test_captions_that_differ_only_in_case_or_stops_are_one():
    assert distinct_share(["A dog runs.", "a dog runs", "A cat.", "A dog"]) == 3 / 4
    assert distinct_share(["A dog."] * 10) == 1 / 10


@pytest.mark.parametrize("ending", ["a", "an", "the", "of", "with", "on", "in", "and", "to", "is"])
def test_a_caption_that_breaks_off_ends_badly(ending):
    assert bad_ending_rate([f"A dog runs {ending}.", "A dog runs .", f"A {ending} dog"]) == 1 / 3


def test_a_caption_without_words_ends_badly():
    assert bad_ending_rate(["...", "A dog"]) == 1 / 2


def test_mean_length_counts_words_without_punctuation():
    assert mean_length(["A dog, a cat.", "Dogs!", "."]) == 5 / 3
