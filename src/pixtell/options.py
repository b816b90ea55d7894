"""Dataclass fields -> command-line parameters, so that default, type and help exist once.

In: frozen dataclasses whose fields carry `metadata={"help": ...}`. Out: a function with the signature that typer reads. It knows no command.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
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


def command(run: Callable[..., None], *groups: type) -> Callable[..., None]:
    """A function for typer with one parameter for every field of `groups`; it calls `run` with one instance of each group.

    A field of the name and type `beam_size: int` becomes `--beam-size INTEGER`; a bool that is False becomes `--resume` alone.
    A field that two groups share is one flag.
    """
    parameters: dict[str, inspect.Parameter] = {}
    for group in groups:
        hints = typing.get_type_hints(group)
        for field in dataclasses.fields(group):
            if field.metadata.get("help"):
                parameters.setdefault(field.name, _parameter(field, hints[field.name]))

    def call(**values: Any) -> None:
        run(*(_instance(group, values) for group in groups))

    ordered = sorted(parameters.values(), key=lambda parameter: not parameter.annotation.__metadata__[0].__class__.__name__.startswith("Argument"))
    call.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    call.__doc__ = run.__doc__
    return call


def flag_name(field_name: str) -> str:
    """What a person types for a field: "beam_size" -> "--beam-size"."""
    return "--" + field_name.replace("_", "-")


def check_positive(group: object, *names: str) -> None:
    """Raises: OptionError where one of these numbers is set and not above zero."""
    for name in names:
        value = getattr(group, name)
        if value is not None and value <= 0:
            raise OptionError(f"{flag_name(name)} {value} is not above zero; give a number such as 1 or leave it out.")


def _instance(group: type, values: dict[str, Any]) -> Any:
    names = {field.name for field in dataclasses.fields(group)}
    return group(**{name: value for name, value in values.items() if name in names})


def _parameter(field: "dataclasses.Field[Any]", hint: Any) -> inspect.Parameter:
    import typer

    text = field.metadata["help"]
    default = field.default
    if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    if field.metadata.get("argument"):
        info: Any = typer.Argument(help=text)
    else:
        info = typer.Option(flag_name(field.name), help=text)
    if field.metadata.get("required"):
        default = inspect.Parameter.empty
        hint = _without_none(hint)
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[hint, info])


def _without_none(hint: Any) -> Any:
    """`Path | None` -> `Path`: typer asks for a required flag only where None is not allowed."""
    kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
    return kinds[0] if len(kinds) == 1 and type(None) in typing.get_args(hint) else hint


def as_path(value: str | Path | None) -> Path | None:
    """A path a person typed, `~` resolved."""
    return None if value is None else Path(value).expanduser()
