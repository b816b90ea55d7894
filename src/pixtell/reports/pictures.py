"""A comparison -> what stands beside each picture, and the numbers that the page's script sorts by.

In: a `Comparison`. Out: texts, thumbnails as data URIs, and a JSON value. Words are those of the metrics.
"""

import base64
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pixtell.metrics.ptb import ptb_words
from pixtell.reports.comparison import ComparedImage, Comparison, Thumbnail
from pixtell.reports.metric_notes import format_value, label_for, note_for
from pixtell.reports.tables import letter_of, metrics_of

_LONG_TEXT = 400  # characters; a longer caption is folded up
_SHOWN_OF_LONG = 160
_ALT_LENGTH = 250
_LENGTH = "length"  # the metric's name; counted here where no score has it
_MEDIA_TYPES = ((b"\xff\xd8\xff", "jpeg"), (b"\x89PNG\r\n\x1a\n", "png"), (b"RIFF", "webp"))


@dataclass(frozen=True)
class Text:
    """A caption. start: its first words where it is too long to stand open, else empty."""

    full: str
    start: str
    num_words: str


@dataclass(frozen=True)
class CaptionView:
    """chips: (place among the metrics, label, value) each."""

    text: Text
    chips: Sequence[tuple[int, str, str]]


@dataclass(frozen=True)
class PictureView:
    image_id: str
    source: str  # a data URI, or empty
    width: int
    height: int
    alt: str
    problem: str
    captions: Sequence[CaptionView]
    references: Sequence[Text]


@dataclass(frozen=True)
class CaptionWords:
    """The words of all captions. systems: [system][image], an empty list where there is no caption.
    references: the number of words of every reference."""

    systems: Sequence[Sequence[Sequence[str]]]
    references: Sequence[int]

    @classmethod
    def of(cls, comparison: Comparison) -> "CaptionWords":
        return cls(
            [
                [ptb_words(system.captions.get(image.image_id, "")) for image in comparison.images]
                for system in comparison.systems
            ],
            [len(ptb_words(text)) for image in comparison.images for text in image.references],
        )


def per_image_metrics(comparison: Comparison) -> list[str]:
    """Every metric that some picture has a value of, and the length."""
    metrics = metrics_of(system.scores for system in comparison.systems)
    found = [
        metric
        for metric in metrics
        if any(metric in system.scores and system.scores[metric].per_image for system in comparison.systems)
    ]
    return [*found, *([_LENGTH] if _LENGTH not in found else [])]


def picture_views(comparison: Comparison, words: CaptionWords) -> list[PictureView]:
    """What stands beside each picture, in the order of the images."""
    metrics = per_image_metrics(comparison)
    return [_picture(comparison, words, place, metrics) for place in range(len(comparison.images))]


def sort_data(comparison: Comparison, words: CaptionWords) -> dict[str, Any]:
    """What comparison.js reads: scores[system][metric][image], and for each image how little the systems'
    captions are alike, from 0 (the same words) to 1 (none in common)."""
    metrics = per_image_metrics(comparison)
    return {
        "ids": [image.image_id for image in comparison.images],
        "systems": [{"letter": letter_of(index)} for index in range(len(comparison.systems))],
        "metrics": [
            {"name": metric, "label": label_for(metric), "decimals": _decimals(metric)} for metric in metrics
        ],
        "scores": [
            [
                [
                    _rounded(_value(comparison, words, index, metric, place))
                    for place in range(len(comparison.images))
                ]
                for metric in metrics
            ]
            for index in range(len(comparison.systems))
        ],
        "apart": [
            round(_apart([system[place] for system in words.systems]), 4)
            for place in range(len(comparison.images))
        ],
    }


def data_uri(thumbnail: Thumbnail) -> str:
    """The picture as an address that holds it."""
    kind = next((kind for start, kind in _MEDIA_TYPES if thumbnail.data.startswith(start)), None)
    if kind is None:
        raise ValueError("a thumbnail is a JPEG, WebP or PNG file")
    return f"data:image/{kind};base64,{base64.b64encode(thumbnail.data).decode('ascii')}"


def _picture(comparison: Comparison, words: CaptionWords, place: int, metrics: Sequence[str]) -> PictureView:
    image = comparison.images[place]
    captions = []
    for index, system in enumerate(comparison.systems):
        chips = [
            (number, label_for(metric), _chip(metric, _value(comparison, words, index, metric, place)))
            for number, metric in enumerate(metrics)
            if metric == _LENGTH or (metric in system.scores and not note_for(metric).describes)
        ]
        captions.append(CaptionView(_text(system.captions.get(image.image_id, "")), chips))
    thumbnail = image.thumbnail
    return PictureView(
        image_id=image.image_id,
        source=data_uri(thumbnail) if thumbnail else "",
        width=thumbnail.width if thumbnail else 0,
        height=thumbnail.height if thumbnail else 0,
        alt=_alt(comparison, image),
        problem=image.problem or "This picture cannot be shown.",
        captions=captions,
        references=[_text(text) for text in image.references],
    )


def _value(comparison: Comparison, words: CaptionWords, index: int, metric: str, place: int) -> float | None:
    """A system's score on an image, None where it has none."""
    score = comparison.systems[index].scores.get(metric)
    if score is None or not score.per_image:
        return len(words.systems[index][place]) if metric == _LENGTH else None
    return score.per_image.get(comparison.images[place].image_id)


def _decimals(metric: str) -> int:
    return 0 if metric == _LENGTH else note_for(metric).decimals


def _chip(metric: str, value: float | None) -> str:
    return f"{value:,.0f}" if metric == _LENGTH and value is not None else format_value(metric, value)


def _rounded(value: float | None) -> float | None:
    """For JSON, which has no NaN."""
    return None if value is None or not math.isfinite(value) else round(value, 5)


def _apart(captions: Sequence[Sequence[str]]) -> float:
    """The mean over pairs of captions of the share of their words that only one has; not 0 unless all are the
    same words in the same order."""
    pairs = list(itertools.combinations(captions, 2))
    if not pairs or all(first == second for first, second in pairs):
        return 0.0
    shares = [
        1 - len(set(first) & set(second)) / max(1, len(set(first) | set(second))) for first, second in pairs
    ]
    return max(sum(shares) / len(shares), 0.001)


def _text(caption: str) -> Text:
    caption = caption.strip()
    if len(caption) <= _LONG_TEXT:
        return Text(caption, "", "")
    return Text(caption, caption[:_SHOWN_OF_LONG].strip(), f"{len(caption.split()):,}")


def _alt(comparison: Comparison, image: ComparedImage) -> str:
    """The first thing that anybody said of the picture, people before systems."""
    said = [*image.references, *(system.captions.get(image.image_id, "") for system in comparison.systems)]
    text = " ".join(next((text for text in said if text.strip()), image.image_id).split())
    return text if len(text) <= _ALT_LENGTH else f"{text[:_ALT_LENGTH].rstrip()}…"
