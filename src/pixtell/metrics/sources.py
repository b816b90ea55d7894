"""Metrics that need more than captions: what they need, and how they are made ready.

In: `Sources`, as a person gave them. Out: metrics, or one sentence with what is missing, before anything is
scored. It computes nothing itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixtell.errors import ScoringError
from pixtell.metrics.clipscore import Embedder, clip_score
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.diversity import novelty
from pixtell.metrics.meteor import meteor
from pixtell.metrics.spice import spice

Metric = Callable[[Corpus], dict[str, Values]]


@dataclass(frozen=True)
class Sources:
    """What some metrics need beside captions. A metric whose source is given belongs to the default ones."""

    meteor_dir: Path | None = None  # of METEOR's tables; None: pycocoevalcap's, where METEOR is asked for
    spice_dir: Path | None = None  # of SPICE's jars
    java: str = "java"  # the executable that runs them
    embedder: Embedder | None = None  # a CLIP, for CLIPScore and RefCLIPScore
    train_captions: Sequence[str] | None = None  # what "novel" compares with


def _prepare_meteor(sources: Sources) -> Metric:
    return meteor(sources.meteor_dir)


def _prepare_spice(sources: Sources) -> Metric:
    if sources.spice_dir is None:
        raise ScoringError("SPICE runs from jars of your own; say with --spice-dir DIR where they are.")
    return spice(sources.spice_dir, java=sources.java)


def _prepare_clip_score(sources: Sources) -> Metric:
    if sources.embedder is None:
        raise ScoringError(
            "CLIPScore needs the pictures and a CLIP; give --clip with a directory or hub id, and to pixtell "
            "score also --images DIR."
        )
    return clip_score(sources.embedder)


def _prepare_novelty(sources: Sources) -> Metric:
    if not sources.train_captions:
        raise ScoringError(
            "novel compares with the captions of a training and was given none; give --train-captions FILE."
        )
    return novelty(sources.train_captions)


@dataclass(frozen=True)
class Prepared:
    """prepare: raises ScoringError where a source is missing or unusable. field: of `Sources`, its source."""

    prepare: Callable[[Sources], Metric]
    field: str

    def is_given(self, sources: Sources) -> bool:
        return getattr(sources, self.field) is not None


# Name on output -> how it is made ready. One function may prepare several metrics; it then runs once.
PREPARED: dict[str, Prepared] = {
    "METEOR": Prepared(_prepare_meteor, "meteor_dir"),
    "SPICE": Prepared(_prepare_spice, "spice_dir"),
    "CLIPScore": Prepared(_prepare_clip_score, "embedder"),
    "RefCLIPScore": Prepared(_prepare_clip_score, "embedder"),
    "novel": Prepared(_prepare_novelty, "train_captions"),
}
