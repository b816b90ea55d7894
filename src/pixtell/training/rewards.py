"""What drawn captions earn in self-critical training: sums of weighted metrics.

In: captions drawn for images of the training split, and whether each came to its end. Out: a number a
caption. It knows neither models nor gradients.

The end token is a word of captions and references, so that a caption which breaks off loses the n-grams that
a finished one ends in: without it a third of the captions learn to end in "with a".
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from pixtell.embedder import Embedder, Embeddings
from pixtell.errors import DatasetError, OptionError
from pixtell.images import ImageSource
from pixtell.metrics.cider import DocumentFrequencies
from pixtell.metrics.clipscore import PROMPT, WEIGHT
from pixtell.metrics.ngrams import MAX_NGRAM, Ngram, count_ngrams
from pixtell.metrics.ptb import ptb_words

END = "<eos>"  # no PTB word
_BLOCK = 32  # images that are embedded together


@dataclass(frozen=True)
class DrawnCaption:
    """text: without the end token. finished: whether it came to one."""

    text: str
    finished: bool

    @property
    def words(self) -> list[str]:
        """PTB words, and the end as the last where the caption came to it."""
        return [*ptb_words(self.text), END] if self.finished else ptb_words(self.text)


Drawn = Sequence[Sequence[DrawnCaption]]  # for each image of a batch, its captions


class Reward(Protocol):
    """Rewards of captions."""

    def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
        """rows: which training image each list of captions describes. Returns: as `drawn`."""


class CiderDReward:
    """CIDEr-D, 0 to 10, against the references of the training split, whose document frequencies are counted
    once."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        """references: the captions of every training image.

        Raises: DatasetError for a single image, whose CIDEr-D is 0 whatever is said.
        """
        if len(references) < 2:
            raise DatasetError(
                "--reward cider-d is 0 for every caption of a lone training image; give two images or more."
            )
        self.references = _with_end(references)
        self.frequencies = DocumentFrequencies(self.references)

    def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
        return [
            self.frequencies.cider_d([caption.words for caption in captions], self.references[row])
            for row, captions in zip(rows, drawn, strict=True)
        ]


class Bleu4Reward:
    """BLEU-4 of single captions, 0 to 1, smoothed: without that nearly all of them earn 0.

    Matches and n-grams of 2 to 4 words count one more each (BLEU+1: Lin and Och, ORANGE, 2004).
    """

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self.references = _with_end(references)

    def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
        return [
            [smoothed_bleu4(caption.words, self.references[row]) for caption in captions]
            for row, captions in zip(rows, drawn, strict=True)
        ]


class ClipScoreReward:
    """CLIPScore, 0 to 2.5: how near a CLIP finds a caption to its image; people's captions play no part, nor
    does the end. Images are embedded once, a block of the training images at a time: always the same ones
    together, for the last bits of an embedding depend on who else is in the batch, and a resumed run must
    find what an uninterrupted one remembers."""

    def __init__(self, embedder: Embedder, images: Sequence[ImageSource]) -> None:
        """images: of every training image, its path or pixels."""
        self.embedder = embedder
        self.images = images
        self._blocks: dict[int, Embeddings] = {}  # number of a block -> (n, F), of length 1

    def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
        texts = [PROMPT + caption.text for captions in drawn for caption in captions]
        of_texts = iter(_unit(self.embedder.texts(texts)))  # (B * K, F)
        return [
            [WEIGHT * float(np.maximum(0.0, self._image(row) @ next(of_texts))) for _ in captions]
            for row, captions in zip(rows, drawn, strict=True)
        ]

    def _image(self, row: int) -> Embeddings:
        """(F,), of length 1."""
        number, place = divmod(row, _BLOCK)
        if number not in self._blocks:
            block = self.images[number * _BLOCK : (number + 1) * _BLOCK]
            self._blocks[number] = _unit(self.embedder.images(block))
        embedding: Embeddings = self._blocks[number][place]
        return embedding


class WeightedReward:
    """The sum of several rewards, each times its weight."""

    def __init__(self, parts: Sequence[tuple[float, Reward]]) -> None:
        self.parts = parts

    def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
        sums = [[0.0] * len(captions) for captions in drawn]
        for weight, reward in self.parts:
            for of_image, values in zip(sums, reward(rows, drawn), strict=True):
                of_image[:] = [total + weight * value for total, value in zip(of_image, values, strict=True)]
        return sums


def smoothed_bleu4(words: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of one caption with add-one smoothing of the n-grams above one word.

    "a b c" against "a b d": p1 = 2/3, p2 = (1 + 1) / (2 + 1), p3 = (0 + 1) / (1 + 1), p4 = (0 + 1) / (0 + 1).
    """
    counts = count_ngrams(words)
    of_references = [count_ngrams(reference) for reference in references]
    logs = 0.0
    for n in range(MAX_NGRAM):
        most: dict[Ngram, int] = {}
        for reference in of_references:
            for ngram in counts[n].keys() & reference[n].keys():
                most[ngram] = max(most.get(ngram, 0), reference[n][ngram])
        matched = sum(min(count, counts[n][ngram]) for ngram, count in most.items())
        if matched == 0 and n == 0:
            return 0.0
        logs += math.log((matched + (n > 0)) / (sum(counts[n].values()) + (n > 0)))
    length = len(words)
    closest = min((len(reference) for reference in references), key=lambda r: (abs(r - length), r))
    return math.exp(min(0.0, 1 - closest / length) + logs / MAX_NGRAM)


@dataclass(frozen=True)
class RewardSources:
    """What rewards are made from. references, images: of every training image; embedder: a CLIP."""

    references: Sequence[Sequence[str]]
    images: Sequence[ImageSource]
    embedder: Embedder | None = None


def _clip_score(sources: RewardSources) -> ClipScoreReward:
    assert sources.embedder is not None  # the flags were checked
    return ClipScoreReward(sources.embedder, sources.images)


# --reward's name -> the reward
REWARDS: dict[str, Callable[[RewardSources], Reward]] = {
    "cider-d": lambda sources: CiderDReward(sources.references),
    "bleu-4": lambda sources: Bleu4Reward(sources.references),
    "clipscore": _clip_score,
}


def parse_reward(text: str) -> dict[str, float]:
    """ "cider-d,bleu-4=0.3" -> {"cider-d": 1.0, "bleu-4": 0.3}. Raises: OptionError."""
    weights: dict[str, float] = {}
    for part in text.split(","):
        name, _, weight = part.strip().partition("=")
        if name not in REWARDS:
            raise OptionError(
                f"--reward {name!r} is unknown; choose from {', '.join(REWARDS)}, as in cider-d,bleu-4=0.3."
            )
        if name in weights:
            raise OptionError(f"--reward names {name} twice; give it once, with its weight.")
        try:
            weights[name] = float(weight or 1)
        except ValueError:
            weights[name] = math.nan
        if not 0 < weights[name] < math.inf:
            raise OptionError(
                f"--reward {part.strip()}: a weight is a number above zero, such as {name}=0.3."
            )
    return weights


def make_reward(weights: Mapping[str, float], sources: RewardSources) -> Reward:
    """The reward that `parse_reward` read."""
    return WeightedReward([(weight, REWARDS[name](sources)) for name, weight in weights.items()])


def _with_end(references: Sequence[Sequence[str]]) -> list[list[list[str]]]:
    return [[DrawnCaption(caption, finished=True).words for caption in captions] for captions in references]


def _unit(embeddings: Embeddings) -> Embeddings:
    """(n, F) -> the same of length 1; of zeros NaN, which no training takes for a reward."""
    with np.errstate(invalid="ignore"):
        unit: Embeddings = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    return unit
