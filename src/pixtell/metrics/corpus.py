"""What every metric reads, captions joined with their references, and what it returns.

In: hypotheses and references as text, by image id. Out: a `Corpus` of words, in the order of the
hypotheses, or one sentence with all that does not match. It does not know the metrics.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pixtell.errors import ScoringError
from pixtell.metrics.ptb import ptb_words

Words = Sequence[str]
Floats = npt.NDArray[np.float64]

_SHOWN_IDS = 3
_SHOWN_LETTERS = 80


@dataclass(frozen=True)
class Values:
    """What one metric says of a corpus.

    value: of the whole corpus. per_image: in the corpus's order; empty where one image has no value of its
    own, such as the size of a vocabulary.
    statistics (images, S), combine (R, S) -> (R,): the corpus's value is `combine` of the statistics summed
    over its images. So the value of any other choice of the same images takes one product and no scoring:
    that is what intervals and tests need (significance.py). None where no sum gives the value.
    per_image may hold nan for an image without a value. settings: what else the value depends on, for the
    score's signature.
    """

    value: float
    per_image: list[float]
    statistics: Floats | None = None
    combine: Callable[[Floats], Floats] | None = None
    settings: str = "words:ptb"

    @classmethod
    def mean_of(cls, per_image: Sequence[float], settings: str = "words:ptb") -> "Values":
        """The usual case: the corpus's value is the mean over its images."""
        statistics = np.array([per_image, np.ones(len(per_image))]).T  # (images, 2): value, count
        return cls(sum(per_image) / len(per_image), list(per_image), statistics, _quotient, settings)

    @classmethod
    def of_corpus(cls, value: float) -> "Values":
        """A number that the corpus has and no single image."""
        return cls(value, [])


@dataclass(frozen=True)
class Corpus:
    """One hypothesis an image and its references: as words, and as the text they were cut from (empty in a
    corpus that was made of words)."""

    image_ids: tuple[str, ...]
    hypotheses: list[Words]
    references: list[list[Words]]
    hypothesis_texts: Sequence[str] = ()
    reference_texts: Sequence[Sequence[str]] = ()

    @classmethod
    def from_text(cls, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]) -> "Corpus":
        """Raises: ScoringError where the ids do not match or there is nothing to score."""
        check_pairs(list(hypotheses), references)
        return cls(
            image_ids=tuple(hypotheses),
            hypotheses=[ptb_words(caption) for caption in hypotheses.values()],
            references=[[ptb_words(caption) for caption in references[image_id]] for image_id in hypotheses],
            hypothesis_texts=list(hypotheses.values()),
            reference_texts=[references[image_id] for image_id in hypotheses],
        )

    @classmethod
    def without_references(cls, hypotheses: Mapping[str, str]) -> "Corpus":
        """For metrics of captions alone."""
        return cls(
            image_ids=tuple(hypotheses),
            hypotheses=[ptb_words(caption) for caption in hypotheses.values()],
            references=[[] for _ in hypotheses],
            hypothesis_texts=list(hypotheses.values()),
            reference_texts=[[] for _ in hypotheses],
        )

    @property
    def references_per_image(self) -> str:
        """'5', or '4-5' where images differ."""
        counts = {len(references) for references in self.references}
        return str(min(counts)) if len(counts) == 1 else f"{min(counts)}-{max(counts)}"


def check_pairs(
    image_ids: Sequence[str], references: Mapping[str, Sequence[str]], empty_ids: Sequence[str] = ()
) -> None:
    """Raise one ScoringError that names everything wrong with these hypotheses' ids, if anything is.

    image_ids: of the hypotheses, repeated where a file repeats them; empty_ids: of those without a caption.
    """
    if not image_ids:
        raise ScoringError("There are no hypotheses to score; give one caption for each image.")
    counts = Counter(image_ids)
    problems = {
        "without a hypothesis": [
            image_id for image_id, texts in references.items() if texts and image_id not in counts
        ],
        "without references": [image_id for image_id in counts if not references.get(image_id)],
        "with more than one hypothesis": [image_id for image_id, count in counts.items() if count > 1],
        "with an empty hypothesis": list(empty_ids),
    }
    found = [f"{count_ids(ids)} {problem} ({first_ids(ids)})" for problem, ids in problems.items() if ids]
    if found:
        raise ScoringError(
            f"Hypotheses and references do not match: {', '.join(found)}; give exactly one caption for each "
            "image that has references."
        )


def _quotient(sums: Floats) -> Floats:
    """Sums (R, 2) of values and of how many there are -> their means (R,)."""
    quotient: Floats = sums[:, 0] / sums[:, 1]
    return quotient


def count_ids(ids: Sequence[str]) -> str:
    """'1 image', '1,000 images': for a sentence."""
    return f"{len(ids):,} image{'' if len(ids) == 1 else 's'}"


def count_images(count: int) -> str:
    """'1 image is', '1,000 images are': for a sentence."""
    return f"{count:,} image is" if count == 1 else f"{count:,} images are"


def first_ids(ids: Sequence[str]) -> str:
    """The first three ids, for a sentence: short, and without what would move a terminal's cursor."""
    shown = [image_id if image_id.isprintable() else ascii(image_id) for image_id in ids[:_SHOWN_IDS]]
    cut = [text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}..." for text in shown]
    return ", ".join(cut) + (", ..." if len(ids) > _SHOWN_IDS else "")
