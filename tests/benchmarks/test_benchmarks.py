"""The suite compares only what is alike, in turn, and its roads run. Nothing here asserts a time."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def comparing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import comparing

    return comparing


def test_sides_take_turns_after_they_were_found_equal(comparing: Any) -> None:
    calls = []

    def side(name: str) -> list[int]:
        calls.append(name)
        return [1, 2]

    comparison = comparing.Comparison(
        road="a road",
        peer_name="a peer",
        ours=lambda: side("A"),
        peer=lambda: side("B"),
        units=2,
        limit=1e12,
    )
    result = comparing.measure(comparison, rounds=3)
    assert "".join(calls) == "AB" + "ABABAB"
    assert len(result.cells) == len(comparing.HEADER)
    assert result.ours > 0
    assert result.problem is None


def test_what_differs_is_not_timed(comparing: Any) -> None:
    calls = []

    def ours() -> list[int]:
        calls.append("A")
        return [1]

    comparison = comparing.Comparison("a road", "a peer", ours, lambda: [2], units=1)
    result = comparing.measure(comparison, rounds=3)
    assert result.problem == "the two sides give different outputs"
    assert result.problem in result.cells
    assert calls == ["A"]


@pytest.mark.long
def test_the_suite_runs(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    command = [sys.executable, "-m", "benchmarks", "--tiny", "--rounds", "1", "--threads", "1"]
    done = subprocess.run(
        [*command, "--roads", "reading,captioning", "--output", str(page)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in page.read_text().splitlines() if line.startswith("| ClipCap")]
    assert len(lines) == 13
    assert not any("differ" in line for line in lines)
