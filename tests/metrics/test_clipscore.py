"""CLIPScore and RefCLIPScore follow their formulas; embeddings without a direction are refused."""

import math
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from pixtell.errors import ScoringError
from pixtell.metrics.clipscore import PROMPT, clip_score
from pixtell.metrics.corpus import Corpus


class TableEmbedder:
    """Embeddings out of a table; it remembers what it was asked for."""

    name = "a table"

    def __init__(self, table: dict[str, Sequence[float]], dtype: Any = np.float32) -> None:
        self.table = table
        self.dtype = dtype
        self.asked: list[str] = []

    def images(self, image_ids: Sequence[str]) -> npt.NDArray[Any]:
        return np.array([self.table[image_id] for image_id in image_ids], dtype=self.dtype)

    def texts(self, texts: Sequence[str]) -> npt.NDArray[Any]:
        self.asked += texts
        return self.images([text.removeprefix(PROMPT) for text in texts])


def corpus_of(captions: dict[str, tuple[str, list[str]]]) -> Corpus:
    return Corpus.from_text(
        {image_id: caption for image_id, (caption, _) in captions.items()},
        {image_id: references for image_id, (_, references) in captions.items()},
    )


def cosine(first: Sequence[float], second: Sequence[float]) -> float:
    dot = math.fsum(a * b for a, b in zip(first, second, strict=True))
    return dot / math.hypot(*first) / math.hypot(*second)


def random_case(seed: int) -> tuple[Corpus, dict[str, Sequence[float]]]:
    choose = random.Random(seed)
    table = {name: [choose.gauss(0, 3) for _ in range(5)] for name in "abcdefghijkl"}
    captions = {
        image_id: (choose.choice("fghijkl"), [choose.choice("fghijkl") for _ in range(choose.randint(1, 4))])
        for image_id in "abcde"
    }
    return corpus_of(captions), table


@pytest.mark.parametrize("seed", range(20))
def test_both_scores_are_their_formulas(seed: int) -> None:
    corpus, table = random_case(seed)
    scores = clip_score(TableEmbedder(table))(corpus)
    for index, image_id in enumerate(corpus.image_ids):
        caption = table[corpus.hypothesis_texts[index]]
        to_image = 2.5 * max(cosine(table[image_id], caption), 0)
        to_nearest = max(0, *(cosine(table[text], caption) for text in corpus.reference_texts[index]))
        both = 0 if 0 in (to_image, to_nearest) else 2 / (1 / to_image + 1 / to_nearest)
        assert scores["CLIPScore"].per_image[index] == pytest.approx(to_image, abs=1e-6)
        assert scores["RefCLIPScore"].per_image[index] == pytest.approx(both, abs=1e-6)
    for score in scores.values():
        assert score.value == pytest.approx(sum(score.per_image) / 5)


def test_a_worked_example() -> None:
    """cos(image, caption) = 0.6, cos(caption, references) = 0.8 and 0: 1.5, and 2 * 1.5 * 0.8 / 2.3."""
    table = {"1.jpg": (1, 0), "a dog": (3, 4), "dogs": (0, 2), "a cat": (4, -3)}
    scores = clip_score(TableEmbedder(table))(corpus_of({"1.jpg": ("a dog", ["a cat", "dogs"])}))
    assert scores["CLIPScore"].value == pytest.approx(1.5)
    assert scores["RefCLIPScore"].value == pytest.approx(2.4 / 2.3)


def test_the_largest_values_there_are() -> None:
    table = {"1.jpg": (1, 2), "a dog": (1, 2)}
    scores = clip_score(TableEmbedder(table))(corpus_of({"1.jpg": ("a dog", ["a dog"])}))
    assert scores["CLIPScore"].value == pytest.approx(2.5)
    assert scores["RefCLIPScore"].value == pytest.approx(10 / 7)


def test_what_points_away_scores_zero() -> None:
    table = {"1.jpg": (1, 0), "2.jpg": (0, 1), "here": (1, 0), "there": (-1, 0)}
    corpus = corpus_of({"1.jpg": ("there", ["here"]), "2.jpg": ("here", ["there"])})
    scores = clip_score(TableEmbedder(table))(corpus)
    assert scores["CLIPScore"].per_image == [0, 0]
    assert scores["RefCLIPScore"].per_image == [0, 0]


def test_neither_length_nor_half_precision_changes_a_score() -> None:
    """An embedding of length 300 in fp16, whose squares add up to infinity there."""
    corpus, table = random_case(1)
    expected = clip_score(TableEmbedder(table))(corpus)
    longer = {name: [300 * value / math.hypot(*vector) for value in vector] for name, vector in table.items()}
    for dtype, tolerance in ((np.float16, 5e-3), (np.float64, 1e-6)):
        scores = clip_score(TableEmbedder(longer, dtype))(corpus)
        for name, score in scores.items():
            assert score.per_image == pytest.approx(expected[name].per_image, abs=tolerance)


def test_every_text_is_embedded_once_with_the_prompt_before_it() -> None:
    embedder = TableEmbedder(dict.fromkeys(("1", "2", "a dog", "a cat", "", "dogs"), (1, 2)))
    clip_score(embedder)(
        corpus_of({"1": ("a dog", ["a cat", "a dog", "a cat"]), "2": ("", ["dogs", "a dog"])})
    )
    assert sorted(embedder.asked) == [
        "A photo depicts ",
        "A photo depicts a cat",
        "A photo depicts a dog",
        "A photo depicts dogs",
    ]


@pytest.mark.parametrize("value", [0.0, math.nan, math.inf])
def test_an_embedding_without_direction_is_one_sentence(value: float) -> None:
    table = {"1.jpg": (1, 0), "a dog": (1, 0), "a cat": (value, 0)}
    corpus = corpus_of({"1.jpg": ("a dog", ["a dog", "a cat"])})
    advice = "and so no CLIPScore: choose another CLIP, or compute in fp32."
    with pytest.raises(ScoringError) as error:
        clip_score(TableEmbedder(table))(corpus)
    assert str(error.value) == (
        f"a table gives zeros or NaN for 1 of 2 images or texts ('A photo depicts a cat'), {advice}"
    )
    with pytest.raises(ScoringError) as error:
        clip_score(TableEmbedder({**table, "1.jpg": (value, 0)}))(corpus)
    assert str(error.value) == f"a table gives zeros or NaN for 1 of 1 images or texts ('1.jpg'), {advice}"
