"""scripts/check_environment.py: what an installation may look like, and the sentence where it may not."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
PINS = {"torch": "2.13.0", "fastapi_offline": "1.7.7", "numpy": "2.4.6"}


@pytest.fixture(scope="module")
def describe_problem() -> Callable[..., str | None]:
    return runpy.run_path(str(SCRIPTS / "check_environment.py"))["describe_problem"]


def test_a_build_label_and_packages_not_installed_are_fine(
    describe_problem: Callable[..., str | None],
) -> None:
    assert describe_problem(PINS, {"torch": "2.13.0+cpu", "numpy": "2.4.6", "other": "1"}) is None


def test_every_moved_pin_is_named_in_one_sentence(describe_problem: Callable[..., str | None]) -> None:
    installed = {"torch": "2.14.0+cu130", "fastapi-offline": "1.8", "numpy": "2.4.6"}
    assert describe_problem(PINS, installed) == (
        "These packages are not what constraints.txt pins: torch 2.14.0+cu130 (pinned: 2.13.0), "
        "fastapi_offline 1.8 (pinned: 1.7.7); remove the virtual environment and run make again."
    )


def test_a_missing_torch_is_named(describe_problem: Callable[..., str | None]) -> None:
    assert "torch (missing)" in str(describe_problem(PINS, {"numpy": "2.4.6"}))


def test_torchvision_is_refused(describe_problem: Callable[..., str | None]) -> None:
    sentence = str(describe_problem(PINS, {"torch": "2.13.0", "torchvision": "0.28.0"}))
    assert sentence.startswith("torchvision 0.28.0 is installed")


def test_pins_are_read_without_comments_and_blank_lines() -> None:
    read_pins = runpy.run_path(str(SCRIPTS / "check_environment.py"))["read_pins"]
    assert read_pins("# set of 2026\n\nnumpy==2.4.6  # ABI 2\ntorch==2.13.0\n") == {
        "numpy": "2.4.6",
        "torch": "2.13.0",
    }
