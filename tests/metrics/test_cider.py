"""CIDEr-D equals pycocoevalcap, CIDEr a brute force; values by hand, edges, reuse in training."""

import math

import pytest
from pycocoevalcap.cider.cider import Cider

from pixtell.metrics.cider import DocumentFrequencies, cider, cider_d
from pixtell.metrics.corpus import Corpus

Words = list[str]


def grams(words: Words, n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


def brute_force_cider(hypothesis: Words, references: list[Words], documents: list[list[Words]]) -> float:
    """Equations 1 to 3 of Vedantam et al. 2015 as they stand, times 10."""

    def weight(gram: tuple[str, ...], words: Words, n: int) -> float:
        share = grams(words, n).count(gram) / len(grams(words, n))
        images_with_it = sum(any(gram in grams(text, n) for text in texts) for texts in documents)
        return share * math.log(len(documents) / max(1, images_with_it))

    def dot(a: Words, b: Words, n: int) -> float:
        return sum(weight(gram, a, n) * weight(gram, b, n) for gram in {*grams(a, n)} & {*grams(b, n)})

    def cosine(a: Words, b: Words, n: int) -> float:
        return dot(a, b, n) / (math.sqrt(dot(a, a, n) * dot(b, b, n)) or 1)

    cosines = [cosine(hypothesis, words, n) for n in range(1, 5) for words in references]
    return 10 * sum(cosines) / len(cosines)


def split_again(words: Words) -> Words:
    return " ".join(words).split()


@pytest.fixture
def three_images() -> Corpus:
    texts = {
        "1": ["a dog runs on green grass", "the dog runs fast"],
        "2": ["a cat sleeps on a red sofa", "the cat sleeps"],
        "3": ["two men play football outside", "men play a game"],
    }
    references = [[text.split() for text in of_image] for of_image in texts.values()]
    return Corpus(tuple(texts), [of_image[0] for of_image in references], references)


def test_cider_d_equals_pycocoevalcap(corpus, reference_scores):
    [value], [per_image] = reference_scores(Cider(), corpus)
    ours = cider_d(corpus)["CIDEr-D"]
    assert ours.value == pytest.approx(value, abs=1e-9)
    assert ours.per_image == pytest.approx(per_image, abs=1e-9)


@pytest.mark.flickr8k
def test_one_person_against_four_equals_pycocoevalcap(one_person, reference_scores):
    [value], [per_image] = reference_scores(Cider(), one_person)
    ours = cider_d(one_person)["CIDEr-D"]
    assert ours.value == pytest.approx(value, abs=1e-6)
    assert ours.per_image == pytest.approx(per_image, abs=1e-6)
    assert round(ours.value, 3) == 0.789


def test_other_scripts_equal_pycocoevalcap(scripts_corpus, reference_scores):
    [value], [per_image] = reference_scores(Cider(), scripts_corpus)
    ours = cider_d(scripts_corpus)["CIDEr-D"]
    assert ours.value == pytest.approx(value, abs=1e-6)
    assert ours.per_image == pytest.approx(per_image, abs=1e-6)


def test_degenerate_sets_equal_pycocoevalcap(degenerate_corpus, reference_scores):
    ours = cider_d(degenerate_corpus)["CIDEr-D"]
    if not any(words for of_image in degenerate_corpus.references for words in of_image):
        assert {ours.value, *ours.per_image} == {0}  # where that program stops with an error
        return
    [value], [per_image] = reference_scores(Cider(), degenerate_corpus)
    assert [ours.value, *ours.per_image] == pytest.approx([value, *per_image], abs=1e-6)


@pytest.mark.parametrize("compute", [cider, cider_d])
def test_degenerate_sets_hold_no_nan(compute, degenerate_corpus):
    [ours] = compute(degenerate_corpus).values()
    assert all(0 <= value <= 10 for value in [ours.value, *ours.per_image])


def test_cider_equals_brute_force(corpus):
    few = Corpus(corpus.image_ids[:5], corpus.hypotheses[:5], corpus.references[:5])
    documents = [[split_again(words) for words in of_image] for of_image in few.references]
    expected = [
        brute_force_cider(split_again(hypothesis), references, documents)
        for hypothesis, references in zip(few.hypotheses, documents, strict=True)
    ]
    ours = cider(few)["CIDEr"]
    assert ours.per_image == pytest.approx(expected, abs=1e-9)
    assert ours.value == pytest.approx(sum(expected) / len(expected), abs=1e-9)


@pytest.mark.parametrize("compute", [cider, cider_d])
def test_the_only_reference_itself_scores_10_and_in_three_words_7_5(compute):
    """Three words have no 4-gram, so one cosine of four is 0."""
    texts = [["a", "dog", "runs", "on", "grass"], ["two", "men", "play"]]
    [ours] = compute(Corpus(("1", "2"), texts, [[text] for text in texts])).values()
    assert ours.per_image == pytest.approx([10, 7.5])


def test_cider_d_by_hand():
    """Two images, so that a word of one of them weighs ln 2 =: w.

    Hypothesis "dog dog" against "dog runs": 1-grams (2w) and (w, w), clipped product w*w, norms 2w and
    w*sqrt(2); no common 2-grams; equal lengths. CIDEr-D = 10 / 4 / (2 * sqrt(2)); unclipped, twice that.
    """
    corpus = Corpus(("1", "2"), [["dog", "dog"], ["cat"]], [[["dog", "runs"]], [["cat"]]])
    assert cider_d(corpus)["CIDEr-D"].per_image == pytest.approx([10 / 4 / (2 * math.sqrt(2)), 10 / 4])
    assert cider(corpus)["CIDEr"].per_image == pytest.approx([10 / 4 / math.sqrt(2), 10 / 4])


def test_length_is_penalised_in_bigrams():
    """The hypothesis has 1 bigram, the reference 4: exp(-9 / 72) of the unpenalised value."""
    frequencies = DocumentFrequencies([[["dog", "b", "c", "d", "e"]], [["cat"]]])
    [short] = frequencies.cider_d([["dog", "x"]], [["dog", "b", "c", "d", "e"]])
    [unpenalised] = frequencies.cider([["dog", "x"]], [["dog", "b", "c", "d", "e"]])
    assert short == pytest.approx(unpenalised * math.exp(-9 / 72))


@pytest.mark.parametrize("compute", [cider, cider_d])
def test_one_image_scores_0_by_construction(compute):
    [ours] = compute(Corpus(("1",), [["a", "dog"]], [[["a", "dog"]]])).values()
    assert (ours.value, ours.per_image) == (0, [0])


@pytest.mark.parametrize("compute", [cider, cider_d])
def test_no_words_score_0(compute, three_images):
    corpus = Corpus(three_images.image_ids, [[], [], []], [[[], ["a"]], [[]], three_images.references[2]])
    [ours] = compute(corpus).values()
    assert (ours.value, ours.per_image) == (0, [0, 0, 0])


def test_frequencies_counted_once_score_many_captions_of_an_image(three_images):
    """As self-critical training does: K samples of an image in one call, the end token a word like others."""
    frequencies = DocumentFrequencies(three_images.references)
    of_corpus = cider_d(three_images)["CIDEr-D"].per_image
    for i, references in enumerate(three_images.references):
        scores = frequencies.cider_d(three_images.hypotheses, references)
        assert scores[i] == pytest.approx(of_corpus[i])
        assert max(scores) == scores[i]
    ended = DocumentFrequencies([[[*words, "<end>"] for words in r] for r in three_images.references])
    references = [[*words, "<end>"] for words in three_images.references[0]]
    cut_short = ["the", "dog", "runs", "fast"]
    whole, cut = ended.cider_d([[*cut_short, "<end>"], cut_short], references)
    assert whole > cut


def test_ten_thousand_words():
    words = [str(i % 5_000) for i in range(10_000)]
    corpus = Corpus(("1", "2"), [words, ["cat"]], [[words], [["cat"]]])
    assert cider_d(corpus)["CIDEr-D"].per_image == pytest.approx([10, 2.5])
