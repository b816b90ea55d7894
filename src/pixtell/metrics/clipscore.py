"""CLIPScore and RefCLIPScore: how near, for a CLIP, a caption is to its image and to its nearest reference.

In: a corpus and an `Embedder`. Out: the values of both. It does not know which CLIP that is, nor where images
lie. Hessel et al. 2021, "CLIPScore: a reference-free evaluation metric for image captioning", and its code,
github.com/jmhessel/clipscore.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pixtell.errors import ScoringError
from pixtell.metrics.corpus import Corpus, Values

WEIGHT = 2.5  # stretches the cosines of ViT-B/32, rarely over 0.4, to about 0..1
PROMPT = "A photo depicts "  # before every caption and reference, as in their code

Embeddings = npt.NDArray[np.float32]


class Embedder(Protocol):
    """Images and texts in one space: `pixtell.embedder.EmbedderById` is one."""

    @property
    def name(self) -> str: ...  # which CLIP; part of a score's signature

    def images(self, image_ids: Sequence[str], /) -> npt.NDArray[Any]:
        """Embeddings (n, F), unnormalised, in the order of the ids."""
        ...

    def texts(self, texts: Sequence[str], /) -> npt.NDArray[Any]:
        """Embeddings (n, F), unnormalised, in the order of the texts."""
        ...


def clip_score(embedder: Embedder) -> Callable[[Corpus], dict[str, Values]]:
    """The metric that this embedder makes: `CLIPScore`, 0 to 2.5, and `RefCLIPScore`, 0 to 10/7.

    CLIPScore(v, c) = 2.5 max(cos(v, c), 0) for an image v and a caption c. RefCLIPScore is the harmonic mean
    of that, the 2.5 included, and max(0, max over references r of cos(c, r)); 0 where both are 0. A corpus
    without references has the first alone.

    The metric embeds every text once. Raises: ScoringError for embeddings without a direction.
    """

    def score(corpus: Corpus) -> dict[str, Values]:
        captions = [PROMPT + text for text in corpus.hypothesis_texts]
        references = [[PROMPT + text for text in texts] for texts in corpus.reference_texts]
        rows = {text: row for row, text in enumerate(dict.fromkeys(_flatten([captions, *references])))}
        images = _unit(embedder.images(corpus.image_ids), corpus.image_ids, embedder)  # (images, F)
        texts = _unit(embedder.texts(list(rows)), list(rows), embedder)  # (texts, F)
        of_captions = texts[[rows[caption] for caption in captions]]  # (images, F)
        cosines = np.einsum("if,if->i", images, of_captions)
        to_image = [WEIGHT * max(0.0, float(cosine)) for cosine in cosines]
        settings = f"clip:{embedder.name}"
        found = {"CLIPScore": Values.mean_of(to_image, settings)}
        if any(references):
            to_nearest = [
                max(0.0, float((texts[[rows[text] for text in of_image]] @ embedding).max()))
                for embedding, of_image in zip(of_captions, references, strict=True)
            ]
            harmonic = list(map(_harmonic_mean, to_image, to_nearest))
            found["RefCLIPScore"] = Values.mean_of(harmonic, settings)
        return found

    return score


def _flatten(lists: Sequence[Sequence[str]]) -> list[str]:
    return [text for texts in lists for text in texts]


def _unit(embeddings: npt.NDArray[Any], names: Sequence[str], embedder: Embedder) -> Embeddings:
    """Embeddings (n, F) of any float dtype -> the same of length 1, in fp32.

    In fp16 the squares of an embedding of length 256 overflow, and CLIPScore became 2.5 instead of 0.86.
    """
    assert embeddings.ndim == 2
    assert len(embeddings) == len(names)
    vectors = embeddings.astype(np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))  # (n,)
    lost = [name for name, length in zip(names, lengths, strict=True) if not 0 < length < np.inf]
    if lost:
        raise ScoringError(
            f"{embedder.name} gives zeros or NaN for {len(lost):,} of {len(names):,} images or texts "
            f"({lost[0]!r}{', ...' if len(lost) > 1 else ''}), and so no CLIPScore: choose another CLIP, "
            "or compute in fp32."
        )
    vectors /= lengths[:, None].astype(np.float32)
    return vectors


def _harmonic_mean(first: float, second: float) -> float:
    return 2 * first * second / (first + second) if first + second > 0 else 0.0
