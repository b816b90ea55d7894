"""Text -> scores: n-gram metrics over PTB words, numbers about captions, and metrics that need tables, jars
or a CLIP.

In: one hypothesis and its references for each image id. Out: a `Score` a metric. A new metric is one file
and one line in `METRICS`, or in `PREPARED` where it needs more than captions. No torch, no models.
"""

import re
from collections.abc import Mapping, Sequence

from pixtell.errors import ScoringError
from pixtell.metrics.bleu import bleu
from pixtell.metrics.cider import cider, cider_d
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.diversity import bad_endings, length, noun_recall, variety
from pixtell.metrics.rouge import rouge_l
from pixtell.metrics.scores import Score, results_json, score_differences, score_lines, scores_of
from pixtell.metrics.sources import PREPARED, Metric, Sources

__all__ = [
    "METRICS",
    "PREPARED",
    "Score",
    "Scorer",
    "Sources",
    "metric_names",
    "results_json",
    "score_captions",
    "score_differences",
    "score_lines",
    "warnings_for",
]

# Name on output -> what computes it. One function may compute several metrics; it then runs once.
METRICS: dict[str, Metric] = {
    "BLEU-1": bleu,
    "BLEU-2": bleu,
    "BLEU-3": bleu,
    "BLEU-4": bleu,
    "ROUGE-L": rouge_l,
    "CIDEr-D": cider_d,
    "CIDEr": cider,
    "noun-recall": noun_recall,
    "length": length,
    "bad-endings": bad_endings,
    "distinct": variety,
    "distinct-1": variety,
    "distinct-2": variety,
    "vocabulary": variety,
}

# Those that ask for no references.
WITHOUT_REFERENCES = frozenset(
    ["length", "bad-endings", "distinct", "distinct-1", "distinct-2", "vocabulary", "novel", "CLIPScore"]
)

_SLOW = frozenset(["SPICE"])
_FEW_IMAGES = 50  # document frequencies from fewer say little


class Scorer:
    """Metrics that are ready: names are known, and what they need is there."""

    def __init__(self, metrics: Sequence[str] | None = None, sources: Sources | None = None) -> None:
        """metrics: names as `metric_names` takes them; None: all that need nothing or whose source is given.

        Raises: ScoringError for an unknown metric, or one whose source is missing or unusable.
        """
        sources = sources or Sources()
        self.names = metric_names(metrics, sources)
        self._asked_by_name = metrics is not None
        prepares = dict.fromkeys(PREPARED[name].prepare for name in self.names if name in PREPARED)
        prepared = {prepare: prepare(sources) for prepare in prepares}
        self._metrics: dict[str, Metric] = {
            name: METRICS[name] if name in METRICS else prepared[PREPARED[name].prepare]
            for name in self.names
        }

    def score(
        self, hypotheses: Mapping[str, str], references: Mapping[str, Sequence[str]]
    ) -> dict[str, Score]:
        """As `score_captions`; a metric that has no value on these captions is left out.

        Raises: ScoringError for ids that do not match, or where no metric has a value.
        """
        return self._score(Corpus.from_text(hypotheses, references), self.names)

    def describe(self, hypotheses: Mapping[str, str]) -> dict[str, Score]:
        """The scores of captions that have no references: of those metrics that ask for none.

        Raises: ScoringError where all of them do.
        """
        names = [name for name in self.names if name in WITHOUT_REFERENCES]
        comparing = [name for name in self.names if name not in WITHOUT_REFERENCES]
        if comparing and self._asked_by_name:
            raise ScoringError(
                f"There are no references for {', '.join(comparing)}; give a data set with captions, or "
                f"choose from {', '.join(sorted(WITHOUT_REFERENCES))}."
            )
        return self._score(Corpus.without_references(hypotheses), names)

    def human_scores(self, references: Mapping[str, Sequence[str]]) -> dict[str, Score]:
        """The yardstick: each image's first reference scored as a hypothesis against its others.

        Images with one reference are left out, and so is SPICE, which takes too long to run twice; where
        nothing is left: {}.
        """
        several = {image_id: captions for image_id, captions in references.items() if len(captions) > 1}
        names = [name for name in self.names if name not in _SLOW]
        if not several or not names:
            return {}
        first = {image_id: captions[0] for image_id, captions in several.items()}
        others = {image_id: captions[1:] for image_id, captions in several.items()}
        return self._score(Corpus.from_text(first, others), names)

    def _score(self, corpus: Corpus, names: Sequence[str]) -> dict[str, Score]:
        values: dict[str, Values] = {}
        for compute in dict.fromkeys(self._metrics[name] for name in names):
            values |= compute(corpus)
        found = {name: values[name] for name in names if name in values}
        if not found:
            raise ScoringError(
                f"{', '.join(names)} of these captions has no value; ask for other metrics too."
            )
        return scores_of(corpus, found)


def score_captions(
    hypotheses: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    metrics: Sequence[str] | None = None,
    sources: Sources | None = None,
) -> dict[str, Score]:
    """Score one caption an image against the image's references.

    metrics: names as `metric_names` takes them; None: all that need nothing or whose source is given. Scores
    come in the order of `METRICS`, then of `PREPARED`; an empty hypothesis scores next to nothing.
    Raises: ScoringError for an unknown metric, a missing source, or ids that do not match, all of them in one
    sentence.
    """
    return Scorer(metrics, sources).score(hypotheses, references)


def metric_names(metrics: Sequence[str] | None = None, sources: Sources | None = None) -> list[str]:
    """The metrics that these names mean, in the order of `METRICS` and `PREPARED`; case does not matter,
    'bleu' is all four.

    metrics: None: all that need nothing or whose source is in `sources`.
    Raises: ScoringError for a name that means none, with those there are.
    """
    if metrics is None:
        given = sources or Sources()
        return [*METRICS, *(name for name, metric in PREPARED.items() if metric.is_given(given))]
    wanted = {name.strip().lower() for name in metrics}
    known = {name: {name.lower(), re.sub(r"-\d$", "", name.lower())} for name in (*METRICS, *PREPARED)}
    unknown = wanted.difference(*known.values())
    if unknown or not wanted:
        what = f"Unknown metric {', '.join(map(repr, sorted(unknown)))}" if unknown else "No metric is named"
        raise ScoringError(f"{what}; choose from bleu, {', '.join(known)}.")
    return [name for name in known if known[name] & wanted]


def warnings_for(scores: Mapping[str, Score]) -> list[str]:
    """Sentences to print beside these scores, about numbers that mean less than they seem to."""
    ciders = [name for name in scores if name.startswith("CIDEr")]
    num_images = min((len(scores[name].per_image) for name in ciders), default=_FEW_IMAGES)
    if num_images >= _FEW_IMAGES:
        return []
    names, several = " and ".join(ciders), len(ciders) > 1
    if num_images == 1:
        be = "are" if several else "is"
        return [f"{names} of one image {be} 0 by construction; score several images together."]
    say = "say" if several else "says"
    return [
        f"{names} over {num_images} images {say} little, for a word weighs by how few images have it; "
        f"score {_FEW_IMAGES} or more together."
    ]
