"""pixtell turns pictures into sentences: it trains, evaluates, compares and runs image captioners.

The public names are imported when they are first asked for, so that `import pixtell` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixtell.captioner import Caption, Captioner
    from pixtell.decoding import DecodingOptions
    from pixtell.errors import ImageError, PixtellError
    from pixtell.metrics import Score, score_captions

__all__ = ["Caption", "Captioner", "DecodingOptions", "ImageError", "PixtellError", "Score", "score_captions"]

_HOMES = {
    "Caption": "pixtell.captioner",
    "Captioner": "pixtell.captioner",
    "DecodingOptions": "pixtell.decoding",
    "ImageError": "pixtell.errors",
    "PixtellError": "pixtell.errors",
    "Score": "pixtell.metrics",
    "score_captions": "pixtell.metrics",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'pixtell' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
