"""What drawn captions earn: by hand, against the metrics they are named after, and with the end counted."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from pixtell.embedder import Embedder, EmbedderById
from pixtell.errors import DatasetError, OptionError
from pixtell.metrics import Sources, score_captions
from pixtell.metrics.cider import DocumentFrequencies
from pixtell.training.rewards import (
    END,
    CiderDReward,
    Drawn,
    DrawnCaption,
    RewardSources,
    WeightedReward,
    make_reward,
    parse_reward,
    smoothed_bleu4,
)

REFERENCES = [
    ["A dog runs on the grass.", "A brown dog runs over grass."],
    ["Two men sit on a bench.", "Two people on a bench"],
    ["A child jumps into the water."],
]


def drawn(*texts: str, finished: bool = True) -> list[DrawnCaption]:
    return [DrawnCaption(text, finished) for text in texts]


def test_the_end_is_a_word_where_there_is_one() -> None:
    assert DrawnCaption("A man's dog, running.", finished=True).words == [
        "a", "man", "'s", "dog", "running", END,
    ]  # fmt: skip
    assert DrawnCaption("a dog on", finished=False).words == ["a", "dog", "on"]
    assert DrawnCaption("", finished=True).words == [END]


def test_cider_d_is_that_of_the_words_with_the_end() -> None:
    with_end = [[[*caption.lower().strip(".").split(), END] for caption in of] for of in REFERENCES]
    expected = DocumentFrequencies(with_end).cider_d(
        [["a", "dog", "runs", "on", "the", "grass", END], ["two", "men", END]], with_end[0]
    )
    reward = CiderDReward(REFERENCES)
    assert reward([0], [drawn("a dog runs on the grass", "two men")]) == [pytest.approx(expected)]
    assert reward([2, 0], [drawn("a child"), drawn("a dog")])[0] != reward([1], [drawn("a child")])[0]


def test_one_image_has_nothing_rare() -> None:
    with pytest.raises(DatasetError) as caught:
        CiderDReward(REFERENCES[:1])
    assert str(caught.value) == (
        "--reward cider-d is 0 for every caption of a lone training image; give two images or more."
    )


@pytest.mark.parametrize("name", ["cider-d", "bleu-4"])
def test_a_caption_that_breaks_off_earns_less(name: str) -> None:
    """The same words, and the words of a reference cut in the middle: both lose to the finished caption."""
    reward = make_reward({name: 1.0}, RewardSources(REFERENCES, []))
    whole, unfinished, cut = reward(
        [0],
        [
            [
                *drawn("a dog runs on the grass"),
                *drawn("a dog runs on the grass", "a dog runs on the", finished=False),
            ]
        ],
    )[0]
    assert cut < unfinished < whole


def test_smoothed_bleu_by_hand() -> None:
    words, reference = ["a", "b", "c"], ["a", "b", "d"]
    expected = math.exp(sum(map(math.log, (2 / 3, 2 / 3, 1 / 2, 1 / 1))) / 4)
    assert smoothed_bleu4(words, [reference]) == pytest.approx(expected)
    assert smoothed_bleu4(words, [words]) == pytest.approx(1.0)
    assert smoothed_bleu4(["x"], [words]) == 0.0
    assert smoothed_bleu4([], [words]) == 0.0
    shorter = math.exp(1 - 3 / 2) * math.exp(0)  # the brevity penalty; all n-grams there match
    assert smoothed_bleu4(["a", "b"], [words]) == pytest.approx(shorter)


def test_a_match_counts_as_often_as_in_the_best_reference() -> None:
    twice = smoothed_bleu4(["a", "a"], [["a", "a"], ["a"]])
    assert twice == pytest.approx(1.0)
    assert smoothed_bleu4(["a", "a"], [["a", "b"]]) < 0.8


def test_clipscore_is_the_metrics_own(tiny_clip: Path, pictures: list[Path]) -> None:
    embedder = Embedder.from_pretrained(tiny_clip, device="cpu")
    texts = ["a dog runs", "two men on a bench", "grass"]
    ids = [str(number) for number in range(3)]
    by_id = EmbedderById(embedder, dict(zip(ids, pictures, strict=False)))
    scores = score_captions(
        dict(zip(ids, texts, strict=True)),
        {number: ["a"] for number in ids},
        ["CLIPScore"],
        Sources(embedder=by_id),
    )
    reward = make_reward({"clipscore": 1.0}, RewardSources(REFERENCES, pictures, embedder))
    found = reward([2, 0, 1], [drawn(texts[2], "an egg"), drawn(texts[0]), drawn(texts[1])])
    expected = scores["CLIPScore"].per_image
    for row, values in zip((2, 0, 1), found, strict=True):
        assert values[0] == pytest.approx(expected[str(row)], abs=1e-6)
    assert reward([0], [drawn("a dog runs", finished=False)]) == [[pytest.approx(found[1][0], abs=1e-6)]]


def test_an_embedding_without_a_direction_earns_no_number(tiny_clip: Path, pictures: list[Path]) -> None:
    embedder = Embedder.from_pretrained(tiny_clip, device="cpu")
    for parameter in embedder.text_encoder.parameters():
        parameter.data.zero_()
    reward = make_reward({"clipscore": 1.0}, RewardSources(REFERENCES, pictures, embedder))
    assert math.isnan(reward([0], [drawn("a dog")])[0][0])


def test_rewards_add_up_with_their_weights() -> None:
    class Fixed:
        def __init__(self, value: float) -> None:
            self.value = value

        def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
            return [[self.value + row] * len(captions) for row, captions in zip(rows, drawn, strict=True)]

    both = WeightedReward([(1.0, Fixed(2.0)), (0.5, Fixed(10.0))])
    assert both([0, 4], [drawn("a", "b"), drawn("c")]) == [[7.0, 7.0], [13.0]]


def test_what_may_be_asked_for() -> None:
    assert parse_reward("cider-d") == {"cider-d": 1.0}
    assert parse_reward("cider-d, bleu-4=0.3") == {"cider-d": 1.0, "bleu-4": 0.3}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("cider", "--reward 'cider' is unknown; choose from "),
        ("cider-d,", "--reward '' is unknown"),
        ("bleu-4,bleu-4=2", "--reward names bleu-4 twice; give it once, with its weight."),
        ("bleu-4=much", "--reward bleu-4=much: a weight is a number above zero, such as bleu-4=0.3."),
        ("bleu-4=-1", "--reward bleu-4=-1: a weight is a number above zero"),
        ("bleu-4=nan", "--reward bleu-4=nan: a weight is a number above zero"),
        ("bleu-4=inf", "--reward bleu-4=inf: a weight is a number above zero"),
    ],
)
def test_what_may_not(text: str, sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse_reward(text)
    assert str(caught.value).startswith(sentence)
