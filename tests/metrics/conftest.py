"""Captions for the tests of metrics, and the reference implementation on equal words."""

import random
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pixtell.metrics.corpus import Corpus
from pixtell.metrics.ptb import ptb_words

# Few words, so that random captions share n-grams; 2\xa01/2 is one word with a no-break space inside.
WORDS = ["a", "the", "dog", "cat", "runs", "on", "in", "red", "grass", "man", "'s", "2\xa01/2"]


def random_corpus(seed: int, *, num_images: int = 40) -> Corpus:
    """Hypotheses near one of 1 to 5 references; some captions have no word at all."""
    choose = random.Random(seed)

    def caption() -> list[str]:
        return choose.choices(WORDS, k=choose.choice([0, 1, 2, 4, 6, 8, 10, 12, 20]))

    references = [[caption() for _ in range(choose.randint(1, 5))] for _ in range(num_images)]
    hypotheses = [
        [choose.choice(WORDS) if choose.random() < 0.3 else word for word in choose.choice(of_image)]
        for of_image in references
    ]
    return Corpus(tuple(map(str, range(num_images))), hypotheses, references)


def flickr8k_corpus(folder: Path, *, num_images: int = 300) -> Corpus:
    """The first caption of an image, or of the image before it, against the image's other four."""
    captions: dict[str, list[list[str]]] = {}
    lines = (folder / "Flickr8k_text" / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    for line in lines:
        name, caption = line.split("\t", 1)
        if len(captions) > num_images:
            break
        captions.setdefault(name.split("#")[0], []).append(ptb_words(caption))
    names = list(captions)[:num_images]
    return Corpus(
        image_ids=tuple(names),
        hypotheses=[captions[names[i - i % 2]][0] for i in range(num_images)],
        references=[captions[name][1:] for name in names],
    )


@pytest.fixture(
    params=["random 1", "random 2", "one image", pytest.param("flickr8k", marks=pytest.mark.flickr8k)]
)
def corpus(request: pytest.FixtureRequest) -> Corpus:
    if request.param == "flickr8k":
        return flickr8k_corpus(request.getfixturevalue("flickr8k_dir"))
    if request.param == "one image":
        return random_corpus(3, num_images=1)
    return random_corpus(int(request.param.split()[1]))


@pytest.fixture(scope="session")
def one_person(flickr8k_dir: Path) -> Corpus:
    """Flickr8k's test split: the first person's caption against the other four."""
    folder = flickr8k_dir / "Flickr8k_text"
    names = (folder / "Flickr_8k.testImages.txt").read_text(encoding="utf-8").split()
    captions: dict[str, list[list[str]]] = {name: [] for name in names}
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t", 1)
        if (of_image := captions.get(name.split("#")[0])) is not None:
            of_image.append(ptb_words(caption))
    return Corpus(
        image_ids=tuple(names),
        hypotheses=[of_image[0] for of_image in captions.values()],
        references=[of_image[1:] for of_image in captions.values()],
    )


# Sets that divide by nothing somewhere: (hypotheses, references)
DEGENERATE: dict[str, tuple[list[str], list[list[str]]]] = {
    "all references empty": (["a dog", "a cat"], [["", ""], [""]]),
    "all hypotheses empty": (["", ""], [["a dog"], ["a cat"]]),
    "nothing at all": (["", ""], [[""], [""]]),
    "single words": (["dog", "cat"], [["dog", "cat"], ["cat"]]),
    "one word for all": (["a", "a", "a"], [["a"], ["a", "a"], ["a"]]),
    "one image, nothing in it": ([""], [[""]]),
}


@pytest.fixture(params=DEGENERATE)
def degenerate_corpus(request: pytest.FixtureRequest) -> Corpus:
    hypotheses, references = DEGENERATE[request.param]
    return Corpus(
        image_ids=tuple(map(str, range(len(hypotheses)))),
        hypotheses=[text.split() for text in hypotheses],
        references=[[text.split() for text in of_image] for of_image in references],
    )


SCRIPTS = {
    "Japanese": ("犬が草の上を走る。", "犬が走る、草の上。"),
    "Russian": ("Собака бежит по траве.", "Собака бежит."),
    "Hindi": ("कुत्ता घास पर दौड़ता है।", "कुत्ता दौड़ता है"),
    "Arabic": ("كلب يجري على العشب", "كلب يجري"),
    "Georgian": ("ძაღლი დარბის ბალახზე", "ძაღლი დარბის"),
    "Thai": ("สุนัข วิ่ง บน หญ้า", "สุนัข วิ่ง"),
    "emoji": ("a dog 🐶 runs 👨\u200d👩\u200d👧", "🐶 a dog runs"),
}


@pytest.fixture(scope="session")
def scripts_corpus() -> Corpus:
    """An image a script."""
    return Corpus(
        image_ids=tuple(SCRIPTS),
        hypotheses=[ptb_words(hypothesis) for hypothesis, _ in SCRIPTS.values()],
        references=[[ptb_words(reference), ptb_words("A dog runs.")] for _, reference in SCRIPTS.values()],
    )


ReferenceScores = Callable[[object, Corpus], tuple[list[float], list[list[float]]]]


@pytest.fixture
def reference_scores() -> ReferenceScores:
    """(a scorer of pycocoevalcap, corpus) -> its values of the corpus and of the images, a list a metric."""

    def score(scorer: object, corpus: Corpus) -> tuple[list[float], list[list[float]]]:
        hypotheses = {i: [" ".join(words)] for i, words in enumerate(corpus.hypotheses)}
        references = {i: [" ".join(words) for words in of] for i, of in enumerate(corpus.references)}
        value, per_image = scorer.compute_score(references, hypotheses)  # type: ignore[attr-defined]
        return (value, per_image) if isinstance(value, list) else ([value], [list(per_image)])

    return score


@pytest.fixture
def make_java(tmp_path: Path) -> Callable[..., str]:
    """make_java(what it does, version) -> the path of an executable that says a version, or does that."""

    def make(does: str, version: str = 'openjdk version "11.0.2" 2019-01-15') -> str:
        path = tmp_path / "bin" / "java"
        path.parent.mkdir(exist_ok=True)
        says = (
            f"import sys\nif sys.argv[1:] == ['-version']:\n  sys.exit(print({version!r}, file=sys.stderr))\n"
        )
        path.write_text(f"#!{sys.executable} -IS\n{says}{does}")
        path.chmod(0o755)
        return str(path)

    return make


class Hanging:
    """A program in the place of Java that starts a child, which holds its pipe of stderr.

    code: of the program, to which what it does next is added.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        part = str(file) + ".part"
        self.code = f"""
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
print("Parsing reference captions", file=sys.stderr, flush=True)
with open({part!r}, "w") as file:
    file.write(f"{{os.getpid()}} {{child.pid}}")
os.rename({part!r}, {str(file)!r})
"""

    def begins(self) -> bool:
        """Wait until both run."""
        return _wait_for(self._file.exists)

    def pids(self) -> list[int]:
        """Of the program and of its child."""
        return [int(pid) for pid in self._file.read_text().split()]

    def all_end(self, pids: list[int]) -> bool:
        return _wait_for(lambda: not any(map(_is_running, pids)))


@pytest.fixture
def hanging(tmp_path: Path) -> Hanging:
    return Hanging(tmp_path / "pids")


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _wait_for(condition: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True
