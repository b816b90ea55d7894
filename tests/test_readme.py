"""Every command in README.md and docs/ runs.

Blocks of `console`, `bash` or `python` are run, page by page, top to bottom, in a project folder that has
what the pages speak of: `photo.jpg`, `my-pictures/` (with `a.jpg` and a captions.jsonl), `hypotheses.json`,
`references.json`, `more-captions.txt`, and, where they are on this machine, `../shared/flickr8k` and
`../shared/teacher`. Marks stand behind the language, as in "```console long flickr8k":

    setup      not run: installs or downloads something
    serve      not run: does not end by itself
    long       run with `--max-steps 2 --limit 20` behind every command that has these flags
    flickr8k   needs the data set; what depends on such a block has the mark too

A pixtell command in any block, run or not, must have flags that exist.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pixtell.cli import COMMANDS, build_app, run

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("console", "bash", "sh")
MARKS = {"setup", "serve", "long", "flickr8k"}
# What makes a long command short, as far as the command has the flag.
TRIAL = {
    "train": "--max-steps 2 --limit 20",
    "train-encoder": "--max-steps 2 --limit 20",
    "features": "--limit 20",
    "evaluate": "--limit 20",
}


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, "page.md:12", its language, its marks and what is in it."""

    page: str
    line: int
    language: str
    marks: frozenset[str]
    text: str

    @property
    def commands(self) -> list[str]:
        """The shell's logical lines; with `$ ` before commands, the other lines are their output."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if any(line.startswith("$ ") for line in lines):
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]

    @property
    def is_run(self) -> bool:
        return self.language in (*SHELLS, "python") and not self.marks & {"setup", "serve"}

    @property
    def to_run(self) -> list[str]:
        """The commands as the test runs them."""
        return [shorten(line) if "long" in self.marks else line for line in self.commands]


def find_blocks(page: str, markdown: str) -> list[Block]:
    """All fenced blocks of a page."""
    fence = re.compile(r"^```[ ]*([^\n`]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
    blocks = []
    for found in fence.finditer(markdown):
        language, *marks = found[1].split() or [""]
        line = markdown.count("\n", 0, found.start()) + 1
        blocks.append(Block(page, line, language, frozenset(marks), found[2]))
    return blocks


def shorten(command: str) -> str:
    """The command with what TRIAL adds, before a pipe, a redirection or a comment."""
    name = re.match(r"\s*(?:\S*/)?pixtell ([\w-]+)", command)
    if name is None or name[1] not in TRIAL:
        return command
    parts = re.split(r"(?=\s+(?:[|>&;#]|2>))", command, maxsplit=1)
    # a minute of the teacher's work less
    pool = " --batch-size 32 --pool-views 64" if "--teacher" in command else ""
    return f"{parts[0]} {TRIAL[name[1]]}{pool}" + "".join(parts[1:])


def pixtell_calls(block: Block) -> list[list[str]]:
    """The arguments of every pixtell command in a block, substitutions as they stand."""
    calls = []
    for line in block.commands if block.language in SHELLS else []:
        words = shlex.split(re.sub(r"\$\([^)]*\)", "photo.jpg", line), comments=True)
        if words and Path(words[0]).name == "pixtell":
            end = next((i for i, word in enumerate(words) if word in ("|", ">", "&&", ";")), len(words))
            calls.append(words[1:end])
    return calls


BLOCKS = [
    block
    for path in PAGES
    for block in find_blocks(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
]
RUN = [block for block in BLOCKS if block.is_run]
CALLS = [(block, call) for block in BLOCKS for call in pixtell_calls(block)]


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Page -> the folder in which its blocks run."""
    return {page: make_project(tmp_path_factory.mktemp("page")) for page in {block.page for block in RUN}}


def make_project(folder: Path) -> Path:
    project, pictures = folder / "project", folder / "project" / "my-pictures"
    pictures.mkdir(parents=True)
    random = np.random.default_rng(0)
    lines = []
    for name in "abcdefghijklmnopqrstuvwx":
        colours = random.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
        Image.fromarray(colours).resize((160, 120)).save(pictures / f"{name}.jpg")
        captions = ["A dog runs on the grass.", f"A dog runs on the {'red' if name < 'm' else 'blue'} grass."]
        lines.append(json.dumps({"image": f"{name}.jpg", "captions": captions}))
    (pictures / "captions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    shutil.copy(pictures / "a.jpg", project / "photo.jpg")
    hypotheses = [{"image_id": n, "caption": "a dog runs on the grass"} for n in (1, 2)]
    (project / "hypotheses.json").write_text(json.dumps(hypotheses))
    references = {"1": ["A dog runs on the grass."], "2": ["A cat sits.", "A cat sleeps."]}
    (project / "references.json").write_text(json.dumps(references))
    (project / "more-captions.txt").write_text("A dog sleeps on the grass.\nA red dog runs.\n" * 20)
    for name in ("benchmarks", "scripts", "docs"):
        if (ROOT / name).is_dir():
            (project / name).symlink_to(ROOT / name)
    return project


def link_shared(project: Path, flickr8k_dir: Path) -> None:
    shared = project.parent / "shared"
    if not shared.exists():
        shared.mkdir()
        (shared / "flickr8k").symlink_to(flickr8k_dir)
        if (flickr8k_dir.parent / "teacher").is_dir():
            (shared / "teacher").symlink_to(flickr8k_dir.parent / "teacher")


@pytest.mark.long
@pytest.mark.parametrize(
    "block",
    [
        pytest.param(
            block,
            marks=[pytest.mark.flickr8k] if "flickr8k" in block.marks else [],
            id=f"{block.page}:{block.line}",
        )
        for block in RUN
    ],
)
def test_a_block_runs(
    block: Block, projects: dict[str, Path], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = projects[block.page]
    if "flickr8k" in block.marks:
        link_shared(project, request.getfixturevalue("flickr8k_dir"))
    monkeypatch.chdir(project)
    if block.language == "python":
        exec(compile(block.text, f"{block.page}:{block.line}", "exec"), {"__name__": "__main__"})  # noqa: S102
    elif all(map(is_plain, block.to_run)):  # the same as in a shell, without starting Python and torch anew
        for line in block.to_run:
            assert run(shlex.split(line, comments=True)[1:]) == 0, line
    else:
        run_in_shell(block.to_run)


def is_plain(command: str) -> bool:
    """Whether a command is pixtell with arguments, and nothing that only a shell understands."""
    return command.startswith("pixtell ") and not re.search(r"[|<>&;$*?~`]", command)


def run_in_shell(commands: list[str]) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -euo pipefail\n" + "\n".join(commands)
    environment = {**os.environ, "PATH": path}
    subprocess.run(["bash", "-c", script], env=environment, check=True, timeout=600)


@pytest.mark.parametrize(
    ("block", "arguments"), CALLS, ids=[f"{block.page}:{block.line}-{call[0]}" for block, call in CALLS]
)
def test_a_command_has_flags_that_exist(block: Block, arguments: list[str]) -> None:
    assert arguments[0] in COMMANDS
    job = build_app(arguments)(arguments, prog_name="pixtell", standalone_mode=False)
    assert callable(job)  # the flags were read; the job is not run here


def test_every_mark_is_known() -> None:
    unknown = [f"{block.page}:{block.line} {mark}" for block in BLOCKS for mark in block.marks - MARKS]
    assert unknown == []


def test_blocks_are_found() -> None:
    shell = "a\n```console long flickr8k\n$ pixtell train \\\n  --x 1\nstep 1\n# no\n$ ls\n```\n"
    text = shell + "```text\nb\n```\n```\nc\n```\n"
    first, second, third = find_blocks("p.md", text)
    assert (first.line, first.language, first.marks) == (2, "console", {"long", "flickr8k"})
    assert first.commands == ["pixtell train    --x 1", "ls"]
    assert first.is_run
    assert first.to_run == ["pixtell train    --x 1 --max-steps 2 --limit 20", "ls"]
    assert pixtell_calls(first) == [["train", "--x", "1"]]
    assert [second.language, third.language] == ["text", ""]
    assert not second.is_run
    assert not third.is_run
    assert [is_plain(command) for command in first.to_run] == [True, False]
    [serve] = find_blocks("p.md", "```bash serve\npixtell serve\n```\n")
    assert not serve.is_run


@pytest.mark.parametrize(
    ("command", "short"),
    [
        ("pixtell train --x 1", "pixtell train --x 1 --max-steps 2 --limit 20"),
        ("pixtell train --x 1  # a word", "pixtell train --x 1 --max-steps 2 --limit 20  # a word"),
        ("pixtell evaluate --x | tee a", "pixtell evaluate --x --limit 20 | tee a"),
        (".venv/bin/pixtell features --x > a", ".venv/bin/pixtell features --x --limit 20 > a"),
        (
            "pixtell train-encoder --teacher t",
            "pixtell train-encoder --teacher t --max-steps 2 --limit 20 --batch-size 32 --pool-views 64",
        ),
        ("pixtell train-encoder --x", "pixtell train-encoder --x --max-steps 2 --limit 20"),
        ("pixtell caption a.jpg", "pixtell caption a.jpg"),
        ("ls", "ls"),
    ],
)
def test_long_commands_are_shortened(command: str, short: str) -> None:
    assert shorten(command) == short
