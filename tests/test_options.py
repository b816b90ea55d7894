"""A field of a dataclass is a flag: name, type, default and help come from it alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import typer

from pixtell.errors import OptionError
from pixtell.options import OnlyGiven, check_positive, command, flag_name, option


@dataclass(frozen=True)
class Where:
    paths: list[Path] = option([], "Pictures.", argument=True, required=True)
    beam_size: int = option(1, "Live sequences.")
    top_p: float | None = option(None, "Nucleus.")
    resume: bool = option(False, "Go on.")
    inner: int = 3  # no flag


@dataclass(frozen=True)
class How:
    seed: int = option(0, "Seed of the draws.")
    beam_size: int = option(5, "Shared with Where, which declares it.")
    name: str = option(None, "Name.", required=True)


def typed(arguments: str, *groups: Any) -> tuple[Any, ...]:
    """What a job is handed when `arguments` are typed."""
    handed: list[tuple[Any, ...]] = []

    def job(*instances: Any) -> int:
        handed.append(instances)
        return 7

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command(job, *groups))
    call = app(arguments.split(), standalone_mode=False)
    assert handed == []  # the job runs when typer is done
    assert call() == 7
    return handed[0]


def test_flags_become_instances() -> None:
    [where] = typed("a.jpg b --beam-size 3 --top-p 0.5 --resume", Where)
    assert where == Where([Path("a.jpg"), Path("b")], 3, 0.5, True)


def test_what_is_not_typed_has_the_default_of_the_field() -> None:
    [where] = typed("a.jpg", Where)
    assert where == Where([Path("a.jpg")])


def test_a_list_is_no_shared_default() -> None:
    assert Where().paths is not Where().paths


def test_a_flag_of_two_groups_goes_to_both() -> None:
    where, how = typed("a.jpg --beam-size 2 --name x", Where, How)
    assert (where.beam_size, how.beam_size) == (2, 2)
    where, how = typed("a.jpg --name x", Where, How)
    assert (where.beam_size, how.beam_size) == (1, 1)


def test_only_what_was_typed() -> None:
    @dataclass(frozen=True)
    class Decoding:
        beam_size: int = option(1, "Live sequences.")
        top_p: float | None = option(None, "Nucleus.")
        early_stopping: bool = option(False, "Quicker.")

    assert typed("", OnlyGiven(Decoding)) == ({},)
    assert typed("--beam-size 1", OnlyGiven(Decoding)) == ({"beam_size": 1},)
    assert typed("--beam-size 4 --top-p 0.9", OnlyGiven(Decoding)) == ({"beam_size": 4, "top_p": 0.9},)
    assert typed("--early-stopping", OnlyGiven(Decoding)) == ({"early_stopping": True},)
    assert typed("--no-early-stopping", OnlyGiven(Decoding)) == ({"early_stopping": False},)


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "a --beam-size x",
        "a --beam-size 1.5",
        "a --no-such 1",
        "a --top-p",
        "a --inner 1",
        "a --no-resume x --",
    ],
)
def test_what_cannot_be_read_never_reaches_the_job(arguments: str) -> None:
    with pytest.raises(Exception, match=r"\S") as error:
        typed(arguments, Where)
    assert isinstance(error.value, typer.BadParameter.__base__)  # click's UsageError


def test_a_required_flag_that_is_missing_is_named() -> None:
    with pytest.raises(typer.BadParameter.__base__, match="name"):  # type: ignore[arg-type]
        typed("a.jpg", Where, How)


def test_the_help_is_that_of_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command(lambda where: 0, Where))
    app(["--help"], standalone_mode=False)
    shown = capsys.readouterr().out
    for text in ("Pictures.", "--beam-size", "Live sequences.", "Nucleus.", "Go on."):
        assert text in shown
    assert "inner" not in shown


def test_flag_names() -> None:
    assert flag_name("beam_size") == "--beam-size"


@pytest.mark.parametrize("value", [0, -1, -0.5, float("nan")])
def test_numbers_that_must_be_above_zero(value: float) -> None:
    check_positive(Where(beam_size=1), "beam_size", "top_p")
    with pytest.raises(OptionError) as error:
        check_positive(Where(top_p=value), "beam_size", "top_p")
    assert str(error.value) == (
        f"--top-p {value} is not above zero; give a number such as 1 or leave it out."
    )
