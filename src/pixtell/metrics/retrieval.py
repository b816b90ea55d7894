"""Retrieval: how often the right picture, or the right text, is among the first few.

In: embeddings of images and of texts, and which texts are captions of which image. Out: R@1, R@5 and R@10,
both ways. numpy alone; it knows no models. Recall at K as in Karpathy and Fei-Fei 2015, "Deep visual-semantic
alignments for generating image descriptions".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

RANKS = (1, 5, 10)
_QUERIES = 512  # at a time: 512 queries on a million others are 2 GB

Floats: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Retrieval:
    """Shares, 0 to 1, of the queries whose first right answer is among the first K, by K of RANKS."""

    text_to_image: dict[int, float]  # a query is a caption; right are the images that it is a caption of
    image_to_text: dict[int, float]  # a query is an image; right is any of its captions

    @property
    def mean_recall(self) -> float:
        """The mean of all six."""
        return float(np.mean([*self.text_to_image.values(), *self.image_to_text.values()]))

    def numbers(self) -> dict[str, float]:
        """By name, such as "text_to_image_R@5"; "mean_recall" comes last."""
        ways = {"text_to_image": self.text_to_image, "image_to_text": self.image_to_text}
        shares = {f"{way}_R@{k}": share for way, recalls in ways.items() for k, share in recalls.items()}
        return {**shares, "mean_recall": self.mean_recall}


def score_retrieval(images: Floats, texts: Floats, captions: Sequence[Sequence[int]]) -> Retrieval:
    """Rank every image for each caption, and every text for each image, by cosine.

    images (I, F), texts (T, F): of any length. captions: of each image, the rows of `texts`. Two images may
    share a row: where texts are the different ones, equal captions are right for either image, and such a
    caption is a query for each of them.
    """
    image_unit, text_unit = unit_vectors(images), unit_vectors(texts)
    owners: list[list[int]] = [[] for _ in range(len(texts))]
    for image, rows in enumerate(captions):
        for row in rows:
            owners[row].append(image)
    of_texts = ranks_of(text_unit, image_unit, owners)  # (T,)
    queries = np.array(
        [row for rows in captions for row in rows], dtype=np.intp
    )  # each caption of each image
    return Retrieval(
        text_to_image=_recalls(of_texts[queries]),
        image_to_text=_recalls(ranks_of(image_unit, text_unit, captions)),
    )


def unit_vectors(embeddings: Floats) -> Floats:
    """Embeddings (n, F) scaled to length 1, fp32; zeros stay."""
    wide = np.asarray(embeddings, np.float32)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(lengths == 0, 1, lengths)).astype(np.float32, copy=False)


def ranks_of(queries: Floats, gallery: Floats, right: Sequence[Sequence[int]]) -> npt.NDArray[np.intp]:
    """The rank, from 0, of each query's first right answer, (Q,): how many wrong ones are as near or nearer.

    queries (Q, F), gallery (G, F). A tie counts against the query, and so does a similarity that is no
    number: embeddings that are all alike find nothing. right: rows of the gallery; with none the rank is G.
    """
    ranks = np.full(len(queries), len(gallery), dtype=np.intp)
    for start in range(0, len(queries), _QUERIES):
        similarities = queries[start : start + _QUERIES] @ gallery.T  # (q, G)
        for place, row in enumerate(similarities):
            rows = np.asarray(right[start + place], dtype=np.intp)
            if len(rows):
                in_front = ~(row < row[rows].max())  # (G,)
                in_front[rows] = False
                ranks[start + place] = np.count_nonzero(in_front)
    return ranks


def _recalls(ranks: npt.NDArray[np.intp]) -> dict[int, float]:
    return {k: float(np.mean(ranks < k)) if len(ranks) else 0.0 for k in RANKS}
