"""Recall at K: against counting by hand, and what ties, copies and broken numbers do."""

import numpy as np
import pytest

from pixtell.metrics.retrieval import RANKS, ranks_of, score_retrieval, unit_vectors


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("num_images", [7, 600])  # 600: more than one block of queries
def test_recall_is_what_counting_gives(num_images: int) -> None:
    rng = np.random.default_rng(0)
    images = rng.normal(size=(num_images, 5)).astype(np.float32)
    texts = rng.normal(size=(2 * num_images, 5)).astype(np.float32)
    captions = [[2 * image, 2 * image + 1] for image in range(num_images)]
    found = score_retrieval(images, texts, captions)

    unit_images, unit_texts = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (images, texts))
    of_texts = np.argsort(-(unit_texts @ unit_images.T), axis=1)
    of_images = np.argsort(-(unit_images @ unit_texts.T), axis=1)
    for k in RANKS:
        texts_right = [text // 2 in of_texts[text, :k] for text in range(len(texts))]
        images_right = [bool({2 * i, 2 * i + 1} & set(of_images[i, :k])) for i in range(num_images)]
        assert found.text_to_image[k] == pytest.approx(np.mean(texts_right))
        assert found.image_to_text[k] == pytest.approx(np.mean(images_right))
    shares = [*found.text_to_image.values(), *found.image_to_text.values()]
    assert found.mean_recall == pytest.approx(np.mean(shares))
    assert list(found.numbers())[::3] == ["text_to_image_R@1", "image_to_text_R@1", "mean_recall"]


def test_lengths_change_nothing() -> None:
    rng = np.random.default_rng(1)
    images, texts = rng.normal(size=(9, 4)), rng.normal(size=(9, 4))
    captions = [[row] for row in range(9)]
    stretched = images * rng.uniform(0.1, 10, size=(9, 1))
    assert score_retrieval(images, texts, captions) == score_retrieval(stretched, texts * 3, captions)


def test_embeddings_that_are_all_alike_find_nothing() -> None:
    same = np.ones((12, 3), np.float32)
    found = score_retrieval(same, same, [[row] for row in range(12)])
    assert found.mean_recall == 0


def test_numbers_that_are_none_count_against_the_query() -> None:
    gallery = np.eye(3, dtype=np.float32)
    broken = np.array([[np.nan, 0, 0], [0, 1, 0]], np.float32)
    assert ranks_of(broken, gallery, [[0], [1]]).tolist() == [2, 0]


def test_equal_captions_are_right_for_either_image_and_ask_twice() -> None:
    """Images 0 and 1 share text 0; image 2 has text 1, which is nearer to image 0."""
    images = np.array([[1, 0], [0.9, 0.1], [0, 1]], np.float32)
    texts = np.array([[1, 0], [1, 0.1]], np.float32)
    found = score_retrieval(images, texts, [[0], [0], [1]])
    assert found.text_to_image[1] == pytest.approx(2 / 3)  # twice text 0, once text 1
    assert found.image_to_text[1] == pytest.approx(2 / 3)  # image 1 is nearer to text 1


def test_a_query_without_a_right_answer_is_last() -> None:
    eye = np.eye(4, dtype=np.float32)
    assert ranks_of(eye, eye, [[0], [], [2, 3], [0]]).tolist() == [0, 4, 0, 3]


def test_zeros_stay_zeros() -> None:
    unit = unit_vectors(np.array([[0, 0], [3, 4]]))
    np.testing.assert_allclose(unit, [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert unit.dtype == np.float32
