"""Comparisons to make pages of: small, with pictures, and with texts that want to break out."""

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from pixtell.metrics import Score
from pixtell.metrics.significance import Difference
from pixtell.reports import ComparedImage, ComparedSystem, Comparison, Thumbnail

SUBJECTS = ("dog", "cat", "man", "girl", "bird", "horse")
MakeComparison = Callable[..., Comparison]


def thumbnail(colour: tuple[int, int, int], kind: str = "JPEG") -> Thumbnail:
    stream = io.BytesIO()
    Image.new("RGB", (32, 24), colour).save(stream, kind)
    return Thumbnail(stream.getvalue(), 32, 24)


def score(values: dict[str, float], name: str = "CIDEr-D") -> Score:
    finite = [value for value in values.values() if math.isfinite(value)]
    mean = sum(finite) / max(1, len(finite))
    return Score(mean, values, f"{name}|words:ptb|refs:2|images:{len(values)}", (mean - 0.1, mean + 0.1))


def build_comparison(
    *, systems: int = 2, images: int = 6, references: bool = True, **more: Any
) -> Comparison:
    """System s gives image i the CIDEr-D (7 i + 4 s i) % 10 / 10; its captions differ where i is odd."""
    ids = [f"{index:02}.jpg" for index in range(images)]
    made = []
    for number in range(systems):
        places = {
            name: "grass" if index % 2 == 0 or number == 0 else f"snow {number}"
            for index, name in enumerate(ids)
        }
        captions = {
            name: f"A {SUBJECTS[int(name[:2]) % 6]} in the {place}." for name, place in places.items()
        }
        values = {name: (7 * index + 4 * number * index) % 10 / 10 for index, name in enumerate(ids)}
        scores = {
            "CIDEr-D": score(values),
            "BLEU-1": score({name: 1 - value for name, value in values.items()}, "BLEU-1"),
            "vocabulary": Score(1204.0 + number, {}, "vocabulary"),
        }
        curve = [{"step": 10.0 * step, "loss": 5 / step} for step in range(1, 9)]
        curve.append({"step": 80.0, "val/CIDEr-D": 0.3, "val/BLEU-4": 0.1 + number})
        name, detail = f"model-{number}", "a family over an encoder"
        made.append(ComparedSystem(name, captions, detail, scores if references else {}, curve))
    pictures = [
        ComparedImage(
            name,
            (f"One {SUBJECTS[index % 6]} outside.", "Red ball") if references else (),
            thumbnail((40 * (index % 6), 90, 120), "WEBP" if index % 2 else "JPEG"),
        )
        for index, name in enumerate(ids)
    ]
    tested = {(system.name, "CIDEr-D"): Difference(0.1, (0.05, 0.15), 0.003) for system in made[1:]}
    defaults = {
        "differences": tested if references else {},
        "title": "Some models",
        "notes": ["pixtell compare"],
    }
    return Comparison(systems=made, images=pictures, **(defaults | more))


@pytest.fixture(scope="session")
def make_comparison() -> MakeComparison:
    return build_comparison
