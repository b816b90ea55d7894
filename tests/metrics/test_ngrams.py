"""N-grams, counted and as a set."""

from pixtell.metrics.ngrams import count_ngrams, ngrams_of


def test_each_n_gram_is_counted():
    assert count_ngrams(["a", "b", "a", "b", "a"]) == [
        {"a": 3, "b": 2},
        {("a", "b"): 2, ("b", "a"): 2},
        {("a", "b", "a"): 2, ("b", "a", "b"): 1},
        {("a", "b", "a", "b"): 1, ("b", "a", "b", "a"): 1},
    ]
    assert count_ngrams([]) == [{}, {}, {}, {}]


def test_a_word_of_several_parts_is_counted_as_its_parts():
    assert count_ngrams(["2\xa01/2", "dogs"]) == count_ngrams(["2", "1/2", "dogs"])


def test_the_set_holds_what_any_caption_has():
    assert ngrams_of([["a", "b"], ["b", "c"], []]) == {"a", "b", "c", ("a", "b"), ("b", "c")}
