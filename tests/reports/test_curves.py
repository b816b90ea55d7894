"""Curves of a run: what is drawn, from what, and what is said where there is nothing."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pixtell.errors import CheckpointError
from pixtell.reports import read_metrics, write_training_curves

LINES = [
    {"step": 10, "loss": 3.0, "learning_rate": 0.1},
    {"step": 20, "loss": 2.0, "learning_rate": 0.05},
    {
        "step": 20,
        "val/CIDEr-D": 0.3,
        "val/BLEU-4": 0.1,
        "val/distinct_share": 0.4,
        "val/bad_ending_rate": 0.0,
    },
]


def write_log(run: Path, lines: list[dict[str, float]], tail: str = "") -> None:
    run.mkdir(exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines) + tail
    (run / "metrics.jsonl").write_text(text, encoding="utf-8")


def texts_of(path: Path) -> str:
    """What matplotlib notes of each text it draws, as comments of the SVG."""
    return " ".join(
        str(node.text)
        for node in ElementTree.parse(
            path, ElementTree.XMLParser(target=ElementTree.TreeBuilder(insert_comments=True))
        ).iter()
        if node.tag is ElementTree.Comment
    )


def test_a_panel_for_each_kind_of_number_there_is(tmp_path: Path) -> None:
    write_log(tmp_path, LINES)
    path = write_training_curves(tmp_path)
    assert path == tmp_path / "curves.svg"
    texts = texts_of(path)
    for text in ("loss", "CIDEr-D", "BLEU-4", "distinct_share", "bad_ending_rate", "step"):
        assert text in texts
    assert "teacher" not in texts


def test_the_same_log_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_log(tmp_path / name, LINES)
        write_training_curves(tmp_path / name)
    assert (tmp_path / "a/curves.svg").read_bytes() == (tmp_path / "b/curves.svg").read_bytes()


def test_drawing_chooses_no_backend_for_the_process(tmp_path: Path) -> None:
    import matplotlib

    before = matplotlib.rcParams._get("backend")
    write_log(tmp_path, LINES)
    write_training_curves(tmp_path)
    assert matplotlib.rcParams._get("backend") == before


def test_a_line_torn_by_a_kill_is_left_out(tmp_path: Path) -> None:
    write_log(tmp_path, LINES, tail='{"step": 30, "lo')
    assert read_metrics(tmp_path) == LINES
    write_training_curves(tmp_path)


@pytest.mark.parametrize("lines", [None, [], [{"step": 1, "learning_rate": 0.1}]])
def test_nothing_to_draw_is_said(tmp_path: Path, lines: list[dict[str, float]] | None) -> None:
    if lines is not None:
        write_log(tmp_path, lines)
    with pytest.raises(CheckpointError) as caught:
        write_training_curves(tmp_path)
    assert str(caught.value) == f"{tmp_path} has logged nothing to draw yet; train for some steps first."
    assert not (tmp_path / "curves.svg").exists()
