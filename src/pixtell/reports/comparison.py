"""What a comparison of systems is made of, ready to be shown.

In: captions, scores and small pictures that somebody else has made. Out: frozen values that page.py reads. It
computes nothing and knows no model, no data set and no file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pixtell.metrics import Score
from pixtell.metrics.significance import Difference


@dataclass(frozen=True)
class Thumbnail:
    """A small picture as the page carries it.

    data: a whole JPEG, WebP or PNG file, about 320 pixels wide. width, height: in pixels, as they are shown.
    """

    data: bytes
    width: int
    height: int


@dataclass(frozen=True)
class ComparedImage:
    """One picture and what people said of it.

    references: empty where nobody did. thumbnail: None where the picture cannot be shown; `problem` then says
    why, in a sentence.
    """

    image_id: str
    references: Sequence[str] = ()
    thumbnail: Thumbnail | None = None
    problem: str | None = None


@dataclass(frozen=True)
class ComparedSystem:
    """One system: a model with its decoding, or a file of captions.

    name: short, different from the other systems' names. detail: one line on what it is, may be empty.
    captions: by image_id. scores: by metric, in the order to show; {} where there is nothing to score
    against. curves: lines of its run's metrics.jsonl (`step`, `loss`, `val/CIDEr-D`, ...), () where unknown.
    """

    name: str
    captions: Mapping[str, str]
    detail: str = ""
    scores: Mapping[str, Score] = field(default_factory=dict)
    curves: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True)
class Comparison:
    """Systems side by side on the same images, in the order to show.

    differences: by (name of a system, metric): that system minus the first one, with p-values that are
    corrected for the number of systems already; a pair that could not be tested is left out.
    yardstick: one person's caption against the others', by metric; {} where unknown.
    warnings: sentences about numbers that mean less than they seem to; they stand on top. notes: how the page
    was made: command, versions, what was left out.
    """

    title: str
    systems: Sequence[ComparedSystem]
    images: Sequence[ComparedImage]
    differences: Mapping[tuple[str, str], Difference] = field(default_factory=dict)
    yardstick: Mapping[str, Score] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
