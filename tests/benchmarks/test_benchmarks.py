"""The suite compares only what is alike, in turn, and its roads run. Nothing here asserts a time."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def at_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


@pytest.fixture
def comparing(at_root: None) -> Any:
    from benchmarks import comparing

    return comparing


@pytest.fixture
def page(at_root: None) -> Any:
    from benchmarks import page

    return page


@pytest.fixture
def curves_page(at_root: None) -> Any:
    from benchmarks import curves_page

    return curves_page


def road(comparing: Any, calls: list[str], outputs: dict[str, list[int]], **options: Any) -> Any:
    """A road whose sides note that they were called; outputs: of each, `peer` among them."""

    def work(name: str) -> Any:
        return lambda: (calls.append(name), outputs[name])[1]

    sides = [
        comparing.Side(name, work(name), units=2, limit=comparing.Limit(1e12, "nothing"))
        for name in outputs
        if name != "peer"
    ]
    return comparing.Road("a road", "a peer", work("peer"), 2, sides, **options)


def test_sides_take_turns_after_they_were_found_equal(comparing: Any) -> None:
    calls: list[str] = []
    outputs = {"A": [1, 2], "B": [1, 2], "peer": [1, 2]}
    results = list(comparing.measure(road(comparing, calls, outputs), rounds=3))
    assert calls == ["peer", "A", "B", *["A", "B", "peer"] * 3]
    for result in results:
        assert len(result.cells) == len(comparing.HEADER)
        assert result.ours > 0
        assert result.problem is None


def test_what_differs_is_not_timed(comparing: Any) -> None:
    calls: list[str] = []
    outputs = {"A": [1], "B": [2], "peer": [2]}
    differs, alike = comparing.measure(road(comparing, calls, outputs), rounds=2)
    assert differs.problem == "the two sides give different outputs"
    assert differs.problem in differs.cells
    assert len(differs.cells) == len(comparing.HEADER)
    assert alike.ours > 0
    assert calls == ["peer", "A", "B", *["B", "peer"] * 2]


def test_what_is_missing_is_named_and_not_run(comparing: Any) -> None:
    calls: list[str] = []
    outputs = {"A": [1], "peer": [1]}
    [result] = comparing.measure(road(comparing, calls, outputs, missing="left out: no Java"), rounds=1)
    assert "left out: no Java" in result.cells
    assert calls == []


def test_rates_count_what_each_side_makes(comparing: Any) -> None:
    """A peer so slow that it makes a part alone is not found slower for that."""

    def pause() -> None:
        time.sleep(0.02)

    side = comparing.Side("", pause, units=100, problem=lambda ours, peers: None)
    [result] = comparing.measure(comparing.Road("a road", "a peer", pause, 10, [side]), rounds=3)
    assert result.ours <= 100 / 0.02
    assert result.peer <= 10 / 0.02


def test_one_group_measured_again_takes_the_place_of_its_own_lines(page: Any, tmp_path: Path) -> None:
    store = tmp_path / "page.json"
    order = ("reading", "captioning", "memory")
    cells = ["1", "2", "3", "4", "5", "6", "7"]
    page.keep(store, page.Run("a CPU: fast", 1.0, 5), "reading", [["old road", "peer", *cells]])
    page.keep(store, page.Run("a CPU: fast", 1.0, 5), "captioning", [["other road", "peer", *cells]])
    page.keep(store, page.Run("a CPU: fast", 1.0, 5), "memory", [["0.5 GB"]])
    assert "Measured in one run." in page.page(json.loads(store.read_text()), order, page.Sizes())
    page.keep(store, page.Run("a CPU: faster", 2.0, 5), "reading", [["new road", "peer", *cells]])
    text = page.page(json.loads(store.read_text()), order, page.Sizes())
    assert "a CPU: faster" in text
    assert "Measured in 2 runs." in text
    assert text.index("| new road |") < text.index("| other road |") < text.index("- 0.5 GB")
    assert "old road" not in text
    page.keep(store, page.Run("another CPU: fast", 3.0, 5), "reading", [["new road", "peer", *cells]])
    assert "other road" not in page.page(json.loads(store.read_text()), order, page.Sizes())


def test_the_page_of_curves_says_where_they_bend(curves_page: Any, tmp_path: Path) -> None:
    rates = {1: 10.0, 2: 18.0, 4: 30.0, 8: 32.0, 16: 31.0}
    points = [{"value": value, "rate": rate, "peak_gb": 0.4 + value / 100} for value, rate in rates.items()]
    flat = [{"value": value, "rate": 20.0, "peak_gb": 0.5} for value in (100, 1000)]
    curves = {
        "batch_size": {"axis": "batch_size", "model": "nano", "points": points},
        "images": {"axis": "images", "model": "nano", "points": flat},
    }
    output = tmp_path / "scaling.md"
    output.with_suffix(".json").write_text(json.dumps({"machine": "a CPU", "curves": curves}))
    curves_page.write_page(output)
    text = " ".join(output.read_text().split())
    assert "the rate becomes 3.1 times as high, and 4 give 94% of the best; memory 0.41 to 0.56 GB." in text
    assert "100 to 1,000 images so far the rate becomes 1.00 times as high; memory 0.50 to 0.50 GB." in text
    assert "0.41 GB at the least" in text
    for name in ("batch-size", "images"):
        drawing = tmp_path / "images" / f"scaling-{name}.svg"
        assert drawing.read_text().count("<svg") == 1
        assert drawing.name in text
    before = (tmp_path / "images" / "scaling-images.svg").read_bytes()
    curves_page.write_page(output)
    assert (tmp_path / "images" / "scaling-images.svg").read_bytes() == before


def test_a_page_of_curves_has_one_machine(at_root: None, tmp_path: Path) -> None:
    from benchmarks.curves import CURVES, keep

    store = tmp_path / "scaling.json"
    first, second = CURVES[:2]
    keep(store, "a CPU: fast", first, [])
    keep(store, "a CPU: faster", second, [])
    assert list(json.loads(store.read_text())["curves"]) == [first.name, second.name]
    keep(store, "another CPU: fast", second, [])
    assert list(json.loads(store.read_text())["curves"]) == [second.name]


@pytest.mark.long
def test_the_suite_runs(tmp_path: Path) -> None:
    output = tmp_path / "page.md"
    run("benchmarks", "--tiny", "--rounds", "1", "--threads", "1", "--output", str(output))
    lines = [line for line in output.read_text().splitlines() if line.startswith("| ")]
    captioning = [line for line in lines if line.startswith("| ClipCap")]
    assert len(captioning) == 4 * 3 + 2
    assert not any("differ" in line or "equal" in line for line in lines)
    assert sum("peak memory" in line.lower() for line in output.read_text().splitlines()) == 6


@pytest.mark.long
def test_curves_run(tmp_path: Path) -> None:
    output = tmp_path / "page.md"
    run("benchmarks.curves", "--tiny", "--curves", "workers,images", "--output", str(output))
    stored = json.loads(output.with_suffix(".json").read_text())["curves"]
    assert [point["value"] for point in stored["images"]["points"]] == [16, 32]
    assert all(point["rate"] > 0 for curve in stored.values() for point in curve["points"])
    assert "## Number of images" in output.read_text()
    assert ", tiny models, " in output.read_text()


def test_no_rounds_measure_nothing() -> None:
    command = [sys.executable, "-m", "benchmarks", "--rounds", "0"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("--rounds 0 measures nothing; give 1 or more, 5 for a page\n")


def run(module: str, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
