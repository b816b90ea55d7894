"""House rules that a machine can see: what is tracked, what is loaded from disk, what a start imports."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "src/pixtell/weights/"
MAX_TRACKED_BYTES = 1_000_000
MAX_WEIGHTS_BYTES = 30_000_000  # what may ship in the wheel, all models together

# Written in pieces so that this file does not hold what it looks for.
REGISTRIES = (
    "pypi" + ".org",
    "python" + "hosted.org",
    "pytorch" + ".org/whl",
    "npm" + "js.org",
    "anaconda" + ".org",
)
MACHINE_PATH = re.compile(
    r"(?<![\w.~/}>-])/(?:" + "|".join(("work", "root", "home", "Users", "opt")) + r")/[\w.~-]"
)

UNPICKLERS = {"load", "loads", "Unpickler"}
PICKLE_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    """Every tracked file that is on disk, relative to the root."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout: nothing is tracked")
    return [Path(name) for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def find_unsafe_loads(source: str) -> Iterator[str]:
    """`line: what` for each place that would run code out of a file."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.ImportFrom(module=str() as module) if module.split(".")[0] in PICKLE_MODULES:
                for alias in node.names:
                    if alias.name in UNPICKLERS | {"open"}:
                        yield f"{node.lineno}: from {module} import {alias.name}"
            case ast.Attribute(value=ast.Name(id=module), attr=name) if module in PICKLE_MODULES and (
                name in UNPICKLERS or module == "shelve"
            ):
                yield f"{node.lineno}: {module}.{name}"
            case ast.Call(func=func, keywords=keywords):
                values = {keyword.arg: ast.unparse(keyword.value) for keyword in keywords}
                if ast.unparse(func) == "torch.load" and values.get("weights_only") != "True":
                    yield f"{node.lineno}: torch.load without weights_only=True"
                if values.get("allow_pickle", "False") != "False":
                    yield f"{node.lineno}: allow_pickle"


def find_places(text: str) -> Iterator[str]:
    """`line: what` for each package registry and each absolute path of somebody's machine."""
    for number, line in enumerate(text.splitlines(), 1):
        yield from (f"{number}: {name}" for name in REGISTRIES if name in line)
        yield from (f"{number}: {found.group()}..." for found in MACHINE_PATH.finditer(line))


def imported_by(*arguments: str) -> set[str]:
    """The top-level names of what a fresh Python imports on the way, by its own account."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr[-400:]
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip().split(".")[0] for line in lines}


def test_no_file_is_loaded_that_could_run_code(tracked: list[Path]) -> None:
    problems = [
        f"{path}:{problem}"
        for path in tracked
        if path.suffix == ".py"
        for problem in find_unsafe_loads((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert not problems, "\n".join(["loads that could run code:", *problems])


def test_no_registry_and_no_path_of_a_machine(tracked: list[Path]) -> None:
    problems = []
    for path in tracked:
        content = (ROOT / path).read_bytes()
        if len(content) <= MAX_TRACKED_BYTES and b"\0" not in content:
            problems += [f"{path}:{problem}" for problem in find_places(content.decode("utf-8", "replace"))]
    assert not problems, "\n".join(["registries or paths of one machine:", *problems])


def test_only_weights_are_large(tracked: list[Path]) -> None:
    sizes = {path.as_posix(): (ROOT / path).stat().st_size for path in tracked}
    large = [
        name for name, size in sizes.items() if size > MAX_TRACKED_BYTES and not name.startswith(WEIGHTS)
    ]
    assert not large, f"tracked files over 1 MB outside {WEIGHTS}: {', '.join(large)}"
    assert sum(size for name, size in sizes.items() if name.startswith(WEIGHTS)) <= MAX_WEIGHTS_BYTES


@pytest.mark.parametrize("arguments", [("-c", "import pixtell"), ("-m", "pixtell", "--help")], ids=" ".join)
def test_a_start_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    heavy = {"torch", "transformers", "numpy", "PIL", "matplotlib", "huggingface_hub", "tensorboard"}
    assert imported_by(*arguments) & heavy == set()


def test_scores_and_data_sets_need_no_torch() -> None:
    roads = "import pixtell.datasets, pixtell.metrics, pixtell.tokenizers, pixtell.downloads"
    assert imported_by("-c", roads) & {"torch", "transformers"} == set()


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import pickle\npickle.load(f)", "2: pickle.load"),
        ("from pickle import loads", "1: from pickle import loads"),
        ("import joblib\nreader = joblib.load", "2: joblib.load"),
        ("torch.load(f)", "1: torch.load without weights_only=True"),
        ("torch.load(f, weights_only=False)", "1: torch.load without weights_only=True"),
        ("torch.load(f, weights_only=True)", None),
        ("np.load(f, allow_pickle=True)", "1: allow_pickle"),
        ("np.load(f, allow_pickle=False)", None),
        ("import pickle\ntry: f()\nexcept pickle.UnpicklingError: g()", None),
    ],
)
def test_unsafe_loads_are_seen(source: str, problem: str | None) -> None:
    assert list(find_unsafe_loads(source)) == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("text", "is_problem"),
    [
        ("pip install -i https://" + "pypi" + ".org/simple x", True),
        ("at '/" + "home/me/data'", True),
        ("/" + "work/main", True),
        ("see ../" + "work/main or docs/" + "work/x", False),
        ("https://example.com/" + "home/x", False),
        ("/usr/bin/chromium", False),
    ],
)
def test_places_are_seen(text: str, is_problem: bool) -> None:
    assert bool(list(find_places(text))) == is_problem
