"""Dataclass fields -> command-line parameters, so that default, type and help exist once.

In: frozen dataclasses whose fields carry `metadata={"help": ...}`. Out: a function with the signature that
typer reads. It knows no command.
"""

import dataclasses
import functools
import inspect
import math
import typing
from collections.abc import Callable, Iterator
from typing import Annotated, Any

from pixtell.errors import OptionError


def option(default: Any, text: str, **metadata: Any) -> Any:
    """A dataclass field that is a flag: its default and its one line of help.

    argument=True makes it positional; required=True lets it have no default.
    """
    metadata = {"help": text, **metadata}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class OnlyGiven:
    """A group of flags of which only those that were typed are passed on, as a dict: the others come from
    elsewhere (a model's own defaults, say)."""

    group: type


def command(run: Callable[..., int], *groups: "type | OnlyGiven") -> Callable[..., Callable[[], int]]:
    """A function for typer with one parameter for every field of `groups`; it returns the call of `run` with
    one instance of each group, to be made when typer is done.

    A field of the name and type `beam_size: int` becomes `--beam-size INTEGER`; a bool that is False
    becomes `--resume` alone. A field that two groups share is one flag, declared by the first.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for group in groups:
        for parameter in _parameters(group):
            parameters.setdefault(parameter.name, parameter)

    def call(**values: Any) -> Callable[[], int]:
        return functools.partial(run, *(_instance(group, values) for group in groups))

    call.__signature__ = inspect.Signature(list(parameters.values()))  # type: ignore[attr-defined]
    call.__annotations__ = {name: parameter.annotation for name, parameter in parameters.items()}
    call.__doc__ = run.__doc__
    return call


def flag_name(field_name: str) -> str:
    """What a person types for a field: "beam_size" -> "--beam-size"."""
    return "--" + field_name.replace("_", "-")


def check_positive(group: object, *names: str) -> None:
    """Raises: OptionError where one of these numbers is set and not above zero (nan is not), or infinite."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not 0 < value < math.inf:
            problem = "infinite" if value == math.inf else "not above zero"
            raise OptionError(
                f"{flag_name(name)} {value} is {problem}; give a number such as 1 or leave it out."
            )


def _instance(group: "type | OnlyGiven", values: dict[str, Any]) -> Any:
    kind = group.group if isinstance(group, OnlyGiven) else group
    own = {field.name: values[field.name] for field in dataclasses.fields(kind) if field.name in values}
    if isinstance(group, OnlyGiven):
        return {name: value for name, value in own.items() if value is not None}
    return kind(**own)


def _parameters(group: "type | OnlyGiven") -> Iterator[inspect.Parameter]:
    kind = group.group if isinstance(group, OnlyGiven) else group
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if "help" in field.metadata:
            hint = hints[field.name]
            if isinstance(group, OnlyGiven):
                flag = flag_name(field.name)
                if hint is bool:  # what is given may be either, as the default elsewhere may be
                    flag += f"/--no-{flag[2:]}"
                yield _parameter(field, hint if _allows_none(hint) else hint | None, None, flag)
            else:
                yield _parameter(field, hint, _default_of(field), flag_name(field.name))


def _parameter(field: "dataclasses.Field[Any]", hint: Any, default: Any, flag: str) -> inspect.Parameter:
    import typer

    text = field.metadata["help"]
    info: Any = (
        typer.Argument(help=text)
        if field.metadata.get("argument")
        else typer.Option(flag, help=text, metavar=_metavar(hint))
    )
    if field.metadata.get("required"):
        default = inspect.Parameter.empty
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info]
    )


def _metavar(hint: Any) -> str | None:
    """'<path>' for list[Path], a flag that may come several times; None: as typer has it."""
    return f"<{typing.get_args(hint)[0].__name__.lower()}>" if typing.get_origin(hint) is list else None


def _default_of(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _allows_none(hint: Any) -> bool:
    return type(None) in typing.get_args(hint)
