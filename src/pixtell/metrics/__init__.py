"""Text -> scores: BLEU, ROUGE-L, CIDEr-D and CIDEr over PTB words.

In: one hypothesis and its references for each image id. Out: a `Score` a metric. A new metric is one file
and one line in `METRICS`. No torch, no models, no Java.
"""

import importlib.metadata
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pixtell.errors import ScoringError
from pixtell.metrics.bleu import bleu
from pixtell.metrics.cider import cider, cider_d
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.rouge import rouge_l

__all__ = ["METRICS", "Score", "metric_names", "results_json", "score_captions", "warnings_for"]

# Name on output -> what computes it. One function may compute several metrics; it then runs once.
METRICS: dict[str, Callable[[Corpus], dict[str, Values]]] = {
    "BLEU-1": bleu,
    "BLEU-2": bleu,
    "BLEU-3": bleu,
    "BLEU-4": bleu,
    "ROUGE-L": rouge_l,
    "CIDEr-D": cider_d,
    "CIDEr": cider,
}

_FEW_IMAGES = 50  # document frequencies from fewer say little


@dataclass(frozen=True)
class Score:
    """One metric over a set of captions.

    signature: the settings that make two values comparable, such as
    'CIDEr-D|words:ptb|refs:5|images:1000|pixtell:0.1.0'.
    """

    value: float
    per_image: dict[str, float]
    signature: str


def score_captions(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] | None = None,
) -> dict[str, Score]:
    """Score one caption an image against the image's references.

    metrics: names as `metric_names` takes them; None: all that need no Java and no weights. An empty
    hypothesis scores next to nothing. Scores come in the order of `METRICS`.
    Raises: ScoringError for an unknown metric or ids that do not match, all of them in one sentence.
    """
    names = metric_names(metrics)
    corpus = Corpus.from_text(hypotheses, references)
    values: dict[str, Values] = {}
    for compute in dict.fromkeys(METRICS[name] for name in names):
        values |= compute(corpus)
    counts = f"refs:{corpus.references_per_image}|images:{len(corpus.image_ids)}"
    scores = {}
    for name in names:
        found = values[name]
        by_id = dict(zip(corpus.image_ids, found.per_image, strict=bool(found.per_image)))
        scores[name] = Score(found.value, by_id, f"{name}|words:ptb|{counts}|pixtell:{_version()}")
    return scores


def metric_names(metrics: Sequence[str] | None = None) -> list[str]:
    """The metrics that these names mean, in the order of `METRICS`; case does not matter, 'bleu' is all four.

    Raises: ScoringError for a name that means none, with those there are.
    """
    if metrics is None:
        return list(METRICS)
    wanted = {name.strip().lower() for name in metrics}
    known = {name: {name.lower(), re.sub(r"-\d$", "", name.lower())} for name in METRICS}
    unknown = wanted.difference(*known.values())
    if unknown or not wanted:
        what = f"Unknown metric {', '.join(map(repr, sorted(unknown)))}" if unknown else "No metric is named"
        raise ScoringError(f"{what}; choose from bleu, {', '.join(METRICS)}.")
    return [name for name in METRICS if known[name] & wanted]


def warnings_for(scores: Mapping[str, Score]) -> list[str]:
    """Sentences to print beside these scores, about numbers that mean less than they seem to."""
    ciders = [name for name in scores if name.startswith("CIDEr")]
    num_images = min((len(scores[name].per_image) for name in ciders), default=_FEW_IMAGES)
    if num_images >= _FEW_IMAGES:
        return []
    if num_images == 1:
        return [f"{' and '.join(ciders)} of one image is 0 by construction; score several images together."]
    return [
        f"{' and '.join(ciders)} over {num_images} images says little, for a word weighs by how few images "
        f"have it; score {_FEW_IMAGES} or more together."
    ]


def results_json(scores: Mapping[str, Score], *, num_images: int) -> dict[str, Any]:
    """The scores as the results file holds them."""
    return {
        "scores": {
            name: {"value": score.value, "per_image": score.per_image, "signature": score.signature}
            for name, score in scores.items()
        },
        "num_images": num_images,
    }


def _version() -> str:
    try:
        return importlib.metadata.version("pixtell")
    except importlib.metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
