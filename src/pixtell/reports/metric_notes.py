"""What a page says of a metric: in a sentence what it measures, which way is better, how it is written.

In: a metric's name as `pixtell.metrics` spells it. Out: a `MetricNote`. It knows no scores; a name that it
does not know gets a plain note.
"""

import math
from dataclasses import dataclass
from typing import Literal

Better = Literal["higher", "lower", "none"]

HEADLINES = ("CIDEr-D", "SPICE", "METEOR", "RefCLIPScore", "CLIPScore", "BLEU-4")  # the first there is leads

MINUS = "\N{MINUS SIGN}"

_NOT_A_NUMBER = "n/a"
_DIRECTIONS = {
    "higher": "Higher is better.",
    "lower": "Lower is better.",
    "none": "Neither more nor less is better.",
}


@dataclass(frozen=True)
class MetricNote:
    """explanation: a sentence or two; empty where nothing is known. better: which way; 'none' where a number
    only describes. describes: it says what captions look like, not how good they are. label: as the page
    calls it; empty: by its name. decimals: digits after the point.
    """

    explanation: str
    better: Better = "higher"
    describes: bool = False
    label: str = ""
    decimals: int = 3

    @property
    def direction(self) -> str:
        """Which way is better, as a sentence."""
        return _DIRECTIONS[self.better]


def _description(label: str, explanation: str, *, better: Better = "none", decimals: int = 3) -> MetricNote:
    return MetricNote(explanation, better, describes=True, label=label, decimals=decimals)


_BLEU_N = MetricNote(
    "How many of a caption's runs of words, up to as many as the number says, stand in a reference; too "
    "short is punished. Of one caption alone it is often 0."
)
_DISTINCT_N = (
    "The share of different {what} among all. It falls with the number of captions: compare it on the same "
    "pictures only."
)

_NOTES = {
    "BLEU-1": MetricNote(
        "How many of a caption's words stand in a reference. One sentence for every picture, written without "
        "a look at any, comes near to people here."
    ),
    "BLEU-2": _BLEU_N,
    "BLEU-3": _BLEU_N,
    "BLEU-4": _BLEU_N,
    "ROUGE-L": MetricNote("The longest row of words, gaps allowed, that a caption shares with a reference."),
    "METEOR": MetricNote(
        "Words that match a reference, also through stems, synonyms and paraphrases, and in how few pieces "
        "they do."
    ),
    "CIDEr-D": MetricNote(
        "How alike a caption and the references are, where words that few pictures share weigh most: what "
        "could be said of any picture gains little. From 0 to 10. Read it first."
    ),
    "CIDEr": MetricNote("CIDEr-D without its guards against repeated words and odd lengths."),
    "SPICE": MetricNote("Things, properties and relations that a caption shares with the references."),
    "CLIPScore": MetricNote(
        "How near a picture and its caption lie for a CLIP model. Needs no reference; forgives bad grammar."
    ),
    "RefCLIPScore": MetricNote("CLIPScore together with how near the caption lies to its nearest reference."),
    "noun-recall": MetricNote(
        "Of the frequent nouns that a picture's references agree on, the share that the caption names.",
        label="Noun recall",
    ),
    "length": _description("Length", "Words in a caption, on average.", decimals=1),
    "vocabulary": _description("Vocabulary", "Different words in all captions together.", decimals=0),
    "distinct": _description(
        "Distinct captions",
        "The share of different captions; near 0, all pictures get the same one.",
        better="higher",
    ),
    "distinct-1": _description("Distinct-1", _DISTINCT_N.format(what="words"), better="higher"),
    "distinct-2": _description("Distinct-2", _DISTINCT_N.format(what="pairs of words"), better="higher"),
    "novel": _description("Novel captions", "The share of captions that stand nowhere in the training set."),
    "bad-endings": _description(
        "Bad endings", "The share of captions that stop in mid-sentence, as after “with a”.", better="lower"
    ),
}


def note_for(metric: str) -> MetricNote:
    """What is known of a metric by this name."""
    return _NOTES.get(metric) or MetricNote("", "none")


def label_for(metric: str) -> str:
    """How the page calls a metric."""
    return note_for(metric).label or metric


def format_value(metric: str, value: float | None) -> str:
    """A metric's value as the page writes it: '0.398', '1,204'; 'n/a' where it is no number."""
    if value is None or not math.isfinite(value):
        return _NOT_A_NUMBER
    text = f"{abs(value):,.{note_for(metric).decimals}f}"
    return f"{MINUS}{text}" if value < 0 and text.strip("0.") else text


def format_change(metric: str, value: float) -> str:
    """A difference with its sign: '+0.045', '0.000', and below 0 a minus sign."""
    text = format_value(metric, value)
    return f"+{text}" if value > 0 and math.isfinite(value) and text.strip("0.") else text


def format_p(p_value: float) -> str:
    """'p = 0.003'; below a thousandth 'p < 0.001'; near 0.05 with the digit that decides: 'p = 0.0496'."""
    if p_value < 0.001:
        return "p < 0.001"
    return f"p = {p_value:.4f}" if f"{p_value:.3f}" == "0.050" else f"p = {p_value:.3f}"


def format_percent(share: float) -> str:
    """A share as the page writes it: '88 %'."""
    return f"{100 * share:.0f} %"
