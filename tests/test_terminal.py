"""The screen of a command: progress on stderr, lines where it is no terminal, a bar where it is one."""

import io
import re
import sys
import time
from pathlib import Path

import pytest

from pixtell.terminal import counter, open_output, training_progress
from pixtell.training.loop import Progress


class Screen(io.StringIO):
    """A stderr that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_now_and_then_where_there_is_no_terminal() -> None:
    said: list[str] = []
    with counter("captioning", said.append, line_seconds=0) as count:
        count(0, 8)
        count(4, 8, "loss 1.5")
    assert said == [
        "captioning: 0 of 8, about 0 minutes left",
        "captioning: 4 of 8, about 0 minutes left loss 1.5",
    ]


def test_the_time_left_of_a_resumed_job_counts_from_where_it_went_on() -> None:
    said: list[str] = []
    with counter("training", said.append, line_seconds=0) as count:
        count(1_000_000, 1_000_600)
        time.sleep(0.2)
        count(1_000_001, 1_000_600)  # 0.2 seconds a step, 599 steps to go: two minutes
    assert re.fullmatch(r"training: 1,000,001 of 1,000,600, about [2-9] minutes left", said[-1])


def test_quick_jobs_say_nothing() -> None:
    said: list[str] = []
    with counter("captioning", said.append) as count:
        for done in range(100):
            count(done, 100)
    assert said == []


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with counter("captioning", lambda line: None) as count:
        count(3, 8, "loss 1.5")
    shown = screen.getvalue()
    assert "captioning" in shown
    assert "3/8" in shown
    assert "loss 1.5" in shown
    assert capsys.readouterr().out == ""


def test_a_validation_is_a_line_that_stays() -> None:
    said: list[str] = []
    with training_progress(said.append) as show:
        show(Progress(step=10, max_steps=40, loss=2.0, seconds_left=9.0))
        numbers = {"CIDEr-D": 0.5, "BLEU-4": 0.125}
        show(Progress(step=20, max_steps=40, loss=1.25, seconds_left=8.0, validation=numbers))
    assert said == ["step 20: loss 1.250, CIDEr-D 0.5000, BLEU-4 0.1250"]


def test_output_is_stdout_or_a_whole_utf8_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open_output(None) as stream:
        stream.write("a\n")
    assert capsys.readouterr().out == "a\n"
    path = tmp_path / "new" / "a.csv"
    with open_output(path) as stream:
        stream.write("日本 \udcff\n")
        assert not path.exists()
    assert path.read_bytes() == "日本 \\udcff\n".encode()
