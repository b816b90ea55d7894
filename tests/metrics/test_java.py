"""A Java from outside: which version it says it is, what is none, and what it leaves running."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixtell.errors import ScoringError
from pixtell.metrics.java import find_java, run_java


def sentence_of(java: str, **limits: float) -> str:
    with pytest.raises(ScoringError) as error:
        find_java(java, **limits)
    return str(error.value)


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('java version "1.8.0_392"', 8),
        ('openjdk version "9" 2017', 9),
        ('Picked up JAVA_TOOL_OPTIONS: -Dx="1"\nopenjdk version "13-ea" 2019-09-17', 13),
        ('openjdk version "21.0.1" 2023-10-17 LTS', 21),
    ],
)
def test_versions_as_javas_say_them(says: str, version: int, make_java: Callable[..., str]) -> None:
    assert find_java(make_java("", says)).version == version


def test_no_java_and_what_is_none(make_java: Callable[..., str], tmp_path: Path) -> None:
    assert sentence_of("jaba") == (
        "no Java is found as 'jaba': install one, or name its executable with --java."
    )
    (tmp_path / "java").write_text("not executable")
    assert "no Java is found" in sentence_of(str(tmp_path / "java"))
    (tmp_path / "java").chmod(0o755)
    assert "does not start: Exec format error" in sentence_of(str(tmp_path / "java"))
    java = make_java("", "Unable to locate a Java Runtime.")
    assert sentence_of(java) == (
        f"'{java} -version' ended with code 0 and says 'Unable to locate a Java Runtime' instead of its "
        "version: name another Java with --java."
    )
    Path(java).write_text("#!/bin/sh\nsleep 60\n")
    assert sentence_of(java, timeout_seconds=0.2) == (
        f"'{java} -version' was stopped, for it was not done after 0 seconds: name another Java with --java."
    )


def test_what_a_java_leaves_running_when_it_ends_is_stopped_too(
    make_java: Callable[..., str], tmp_path: Path, hanging: Any
) -> None:
    java = find_java(make_java(hanging.code))
    start = time.monotonic()
    last_word = run_java(java, ["-jar"], directory=tmp_path, timeout_seconds=60, program="SPICE")
    assert last_word == "Parsing reference captions"
    assert time.monotonic() - start < 5
    assert hanging.all_end(hanging.pids()[1:])
