"""Checks after an installation that what constraints.txt pins is what was installed.

In: constraints.txt and the metadata of the installed packages; nothing is imported. Out: silence, or one
sentence and exit code 1. pip may replace torch by another build without a word when a package asks for it;
torchvision's wheel does not import beside a CPU build of torch, and transformers fails with it.
"""

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

CONSTRAINTS = Path(__file__).resolve().parents[1] / "constraints.txt"


def read_pins(text: str) -> dict[str, str]:
    """The `name==version` lines of a constraints file, as name -> version."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {
        name.strip(): version.strip() for name, _, version in (line.partition("==") for line in lines if line)
    }


def installed_versions() -> dict[str, str]:
    """Normalised name -> version of every package that this Python sees."""
    return {normalise(found.name): found.version for found in metadata.distributions()}


def normalise(name: str) -> str:
    """The one spelling of a package's name: `fastapi_offline` and `Fastapi-Offline` are the same."""
    return name.lower().replace("_", "-").replace(".", "-")


def describe_problem(pins: Mapping[str, str], installed: Mapping[str, str]) -> str | None:
    """One sentence about how `installed` departs from `pins`, or None; the build (`+cpu`) does not count."""
    wrong = [
        f"{name} {installed[normalise(name)]} (pinned: {version})"
        for name, version in pins.items()
        if installed.get(normalise(name), version).partition("+")[0] != version
    ]
    wrong += [f"{name} (missing)" for name in ("torch",) if name not in installed]
    if wrong:
        return (
            f"These packages are not what constraints.txt pins: {', '.join(wrong)}; "
            "remove the virtual environment and run make again."
        )
    if "torchvision" in installed:
        return (
            f"torchvision {installed['torchvision']} is installed and breaks transformers beside CPU torch: "
            "run 'python -m pip uninstall torchvision' in the virtual environment; pixtell does without it."
        )
    return None


def main() -> None:
    sys.exit(describe_problem(read_pins(CONSTRAINTS.read_text(encoding="utf-8")), installed_versions()))


if __name__ == "__main__":
    main()
