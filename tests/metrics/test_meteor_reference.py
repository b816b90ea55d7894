"""METEOR against Meteor 1.5's jar itself, as pycocoevalcap drives it, and its parts against the jar's."""

import importlib.util
import random
import subprocess
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

import pytest

from pixtell.metrics.corpus import Corpus
from pixtell.metrics.meteor import meteor
from pixtell.metrics.meteor.stemming import stem
from pixtell.metrics.ptb import ptb_words

pytestmark = [pytest.mark.java, pytest.mark.flickr8k, pytest.mark.long]

NUM_IMAGES = 1000
# Put into captions so that the words are not all plain; as text, and so cut by nothing but the jar.
PLAIN_HARD = """
    don't U.S. 3.5 1,000 x-ray 1980's ... -- 'n' e.g. i.e. Dr. No. 5 p.m. (paren) a/b $5 50% end. ..dots..
    a....b 'tis children's men's ''q'' ``q`` co-op-er-ate -5 a,b , ' a'1 1's x.y.z. mice ran went children"""
WIDE_HARD = """
    \u201cquoted\u201d \u2018so\u2019 you\u2019re \u2013 na\xefve \xdcn\xef \ufb01sh \xdf \u65e5\u672c\u8a9e
    \U0001f600 2\xa01/2 \u03a3\u0391\u03a3 \u0130x \x01 \x1b \u2028 \t"""
HARD = [word for line in (PLAIN_HARD + WIDE_HARD).split("\n") for word in line.split(" ") if word]


class Jar:
    """The jar's answers; stopped after five minutes, its messages thrown away, nothing left behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def score(self, corpora: Sequence[Corpus]) -> list[list[float]]:
        """For each corpus the values of its images, then its own."""
        command = ["java", "-Xmx2G", "-jar", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        stop = threading.Timer(300, process.kill)
        stop.start()
        values = []
        try:
            for corpus in corpora:
                lines = [
                    " ||| ".join(["SCORE", *map(" ".join, references), f"{' '.join(hypothesis)}\n"])
                    for hypothesis, references in zip(corpus.hypotheses, corpus.references, strict=True)
                ]
                counts = _ask(process, lines, len(lines))
                answers = _ask(process, [" ||| ".join(["EVAL", *counts]) + "\n"], len(lines) + 1)
                values.append([float(answer) for answer in answers])
        finally:
            process.kill()
            process.communicate()
            stop.cancel()
        return values

    def filter(self, lines: Sequence[str], *arguments: str) -> list[str]:
        """What a program in the jar makes of lines of text."""
        done = subprocess.run(
            ["java", "-cp", "meteor-1.5.jar", *arguments],
            cwd=self.folder,
            input="".join(f"{line}\n" for line in lines),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=120,
            check=True,
        )
        return done.stdout.split("\n")[:-1]


def _ask(process: subprocess.Popen[str], lines: Sequence[str], num_answers: int) -> list[str]:
    """Write lines while reading answers: neither side waits for the other."""
    assert process.stdin is not None
    assert process.stdout is not None
    with ThreadPoolExecutor(1) as writer:
        written = writer.submit(_write, process.stdin, lines)
        answers = [process.stdout.readline().strip() for _ in range(num_answers)]
        written.result()
    return answers


def _write(stream: IO[str], lines: Sequence[str]) -> None:
    stream.writelines(lines)
    stream.flush()


@pytest.fixture(scope="module")
def jar() -> Jar:
    package = importlib.util.find_spec("pycocoevalcap")
    if package is None or not package.submodule_search_locations:
        pytest.skip("pycocoevalcap is not installed: pip install pycocoevalcap")
    return Jar(Path(next(iter(package.submodule_search_locations)), "meteor"))


@pytest.fixture(scope="module")
def captions(flickr8k_dir: Path) -> list[list[str]]:
    """Five captions of each image of the test split."""
    folder = flickr8k_dir / "Flickr8k_text"
    names = (folder / "Flickr_8k.testImages.txt").read_text(encoding="utf-8").split()[:NUM_IMAGES]
    by_name: dict[str, list[str]] = {name: [] for name in names}
    for line in (folder / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines():
        name, caption = line.split("\t", 1)
        by_name.get(name.split("#")[0], []).append(caption)
    return list(by_name.values())


def corpus_of(pairs: Sequence[tuple[str, Sequence[str]]], words: Callable[[str], list[str]]) -> Corpus:
    return Corpus(
        image_ids=tuple(map(str, range(len(pairs)))),
        hypotheses=[words(hypothesis) for hypothesis, _ in pairs],
        references=[[words(text) for text in references] for _, references in pairs],
    )


def like_a_machine(choose: random.Random, own: str, other: str) -> str:
    """A caption, or one of another image, with words dropped, repeated, moved or taken from the other."""
    words, others = own.split(), other.split()
    match choose.randrange(6):
        case 0:
            words = others
        case 1:
            words = [word for word in words if choose.random() > 0.3]
        case 2:
            choose.shuffle(words)
        case 3:
            words += words[-3:] * choose.randrange(1, 4)
        case 4:
            words = words[: len(words) // 2] + others[len(others) // 2 :]
        case 5:
            words = [word if choose.random() > 0.3 else choose.choice(others) for word in words]
    return " ".join(words)


def with_hard_words(choose: random.Random, caption: str) -> str:
    words = caption.split(" ")
    for _ in range(choose.randrange(4)):
        words.insert(choose.randrange(len(words) + 1), choose.choice(HARD))
    return " ".join(words)


def test_every_value_equals_the_jars(jar: Jar, captions: list[list[str]]) -> None:
    choose = random.Random(0)
    human = [(texts[0], texts[1:]) for texts in captions]
    machine = [
        (like_a_machine(choose, choose.choice(texts), choose.choice(captions)[0]), texts)
        for texts in captions
    ]
    hard = [
        (with_hard_words(choose, hypothesis), [with_hard_words(choose, text) for text in texts])
        for hypothesis, texts in machine[:200]
    ]
    few = [
        w for texts in captions[:3] for w in texts[0].split()
    ]  # long captions, the same words again and again
    hard += [
        (" ".join(choose.choices(few, k=choose.randrange(80))), [" ".join(choose.choices(few, k=50))])
        for _ in range(20)
    ]
    hard += [
        ("", ["a dog", ""]),
        ("dog", [""]),
        ("", [""]),
        ("a dog", ["a dog"]),
        ("a a a", ["a b a", "a a"]),
    ]
    corpora = [
        corpus_of(human, ptb_words),
        corpus_of(machine, ptb_words),
        corpus_of(hard, lambda text: text.split(" ")),
    ]
    score = meteor(jar.folder)
    for corpus, expected in zip(corpora, jar.score(corpora), strict=True):
        values = score(corpus)["METEOR"]
        assert [*values.per_image, values.value] == pytest.approx(expected, rel=0, abs=1e-12)


def test_every_stem_equals_the_jars(jar: Jar, captions: list[list[str]]) -> None:
    words = {word for texts in captions for text in texts for word in ptb_words(text)}
    words |= {
        word + ending for word in list(words)[:500] for ending in ("ly", "'s", "ation", "ies", "yed", "ness")
    }
    ordered = sorted(words)
    assert [stem(word) for word in ordered] == jar.filter(ordered, "Stemmer", "en")
