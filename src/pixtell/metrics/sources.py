"""Metrics that need more than captions: what they need, and how they are made ready.

In: `Sources`, as a person gave them. Out: metrics, or one sentence with what is missing, before anything is
scored. It computes nothing itself.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pixtell.errors import ScoringError
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.diversity import novelty

Metric = Callable[[Corpus], dict[str, Values]]


@dataclass(frozen=True)
class Sources:
    """What some metrics need beside captions. A metric whose source is given belongs to the default ones."""

    train_captions: Sequence[str] | None = None  # what "novel" compares with


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
    "novel": Prepared(_prepare_novelty, "train_captions"),
}
