"""JSON -> the frozen dataclass of a model's configuration, with every problem reported at once.

In: what `dataclasses.asdict` made and a file stored. Out: the dataclass, nested ones included. It knows the
types of fields, not what they mean: that is checked by the dataclasses themselves.
"""

import dataclasses
from collections.abc import Mapping
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from pixtell.errors import ModelError


def read_config(config_type: type[Any], config: Mapping[str, Any], *, name: str) -> Any:
    """The configuration as a config_type; name: of the model, for the error.

    Raises: ModelError naming every field that is unknown, missing or of another type.
    """
    problems = _check_value("the configuration", config, config_type)
    if problems:
        raise ModelError(
            f"This makes no {name} model: {'; '.join(problems)}; use the configuration saved with it."
        )
    return _convert(config, config_type)


def _convert(value: Any, hint: Any) -> Any:
    if not dataclasses.is_dataclass(hint):
        return value
    hints = get_type_hints(hint)
    return hint(**{name: _convert(field, hints[name]) for name, field in value.items()})  # type: ignore[operator]


def _check_value(path: str, value: Any, hint: Any) -> list[str]:
    """What is wrong with one value, and with all that lies in it; path: its name."""
    if not dataclasses.is_dataclass(hint):
        return [] if _fits(value, hint) else [f"{path} is {value!r}, not {_describe(hint)}"]
    if not isinstance(value, Mapping):
        return [f"{path} is {value!r}, not an object"]
    hints = get_type_hints(hint)
    required = [field.name for field in dataclasses.fields(hint) if field.default is dataclasses.MISSING]
    problems = [f"{path} lacks {name}" for name in required if name not in value]
    problems += [f"{path} has an unknown {name}" for name in value if name not in hints]
    for name in hints:
        if name in value:
            problems += _check_value(name, value[name], hints[name])
    return problems


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value is of a field's type: int, float, bool, str, None, Literal, or one of several."""
    if get_origin(hint) is UnionType:
        return any(_fits(value, choice) for choice in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def _describe(hint: Any) -> str:
    if get_origin(hint) is UnionType:
        return " or ".join(_describe(choice) for choice in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(repr, get_args(hint)))
    return "null" if hint is NoneType else str(hint.__name__)
