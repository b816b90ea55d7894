"""The families of captioning models, and how one is built from its stored configuration.

A family is one file and one line of FAMILIES.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from pixtell.errors import ModelError
from pixtell.models.base import CaptionDecoder, CaptionModel, DecodingState
from pixtell.models.clipcap import ClipCap, ClipCapConfig
from pixtell.models.configs import read_config
from pixtell.models.gpt2 import Gpt2Config
from pixtell.models.lstm import LstmCaptioner, LstmConfig

__all__ = [
    "FAMILIES",
    "CaptionDecoder",
    "CaptionModel",
    "ClipCap",
    "ClipCapConfig",
    "DecodingState",
    "Family",
    "Gpt2Config",
    "LstmCaptioner",
    "LstmConfig",
    "build_model",
]


@dataclasses.dataclass(frozen=True)
class Family:
    """config_type: a frozen dataclass of JSON values; build: a model with random weights from one."""

    config_type: type[Any]
    build: Callable[[Any], CaptionModel]


FAMILIES: dict[str, Family] = {
    "clipcap": Family(ClipCapConfig, ClipCap),
    "lstm": Family(LstmConfig, LstmCaptioner),
}


def build_model(family: str, config: Mapping[str, Any]) -> CaptionModel:
    """The model of a family, with random weights.

    config: what `dataclasses.asdict` makes of the family's configuration; defaults may be left out.
    Raises: ModelError where the family or a field is unknown, a field is missing, or a value cannot be.
    """
    if family not in FAMILIES:
        raise ModelError(f"There is no family {family!r} of models: choose one of {', '.join(FAMILIES)}.")
    known = FAMILIES[family]
    return known.build(read_config(known.config_type, config, name=family))
