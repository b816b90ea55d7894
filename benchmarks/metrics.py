"""How fast captions are scored, against pycocoevalcap, Java and all: two roads of the suite; by itself also
how much memory it takes (Linux only). Equal values are checked first.

    python -m benchmarks.metrics [--data-dir ../shared/flickr8k] [--rounds 5]

1,000 images of Flickr8k's test split, 5 references each; a hypothesis is half an own caption, half another
image's. Medians of A B A B ... rounds. The METEOR rounds start a process each, so that no round finds tables
or caches of the one before. CIDEr-D of samples, as self-critical training asks for it, has no peer: a rate.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

from benchmarks import FLICKR8K
from benchmarks.comparing import Road, Side, aligned, measure
from benchmarks.memory import peak_gb
from pixtell.datasets import load_dataset
from pixtell.metrics.bleu import bleu
from pixtell.metrics.cider import DocumentFrequencies, cider_d
from pixtell.metrics.corpus import Corpus
from pixtell.metrics.rouge import rouge_l

IMAGES = 1000
SAMPLES = 5  # captions drawn an image
if TYPE_CHECKING:  # they import torch, which the children that are timed and weighed do without
    from benchmarks.machine import Machine
    from benchmarks.sizes import Models

Scores = dict[str, tuple[float, list[float]]]  # metric -> of the corpus, of each image


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=FLICKR8K)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of A and B in turn")
    parser.add_argument("--child", nargs=2, metavar=("ROLE", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        role, path = arguments.child
        CHILDREN[role](json.loads(Path(path).read_text(encoding="utf-8")))
        return
    for road in scoring_roads(arguments.data_dir, IMAGES):
        for result in measure(road, arguments.rounds):
            print(aligned(result.cells), flush=True)
    if arguments.data_dir.is_dir():
        rate_samples(*split_captions(arguments.data_dir, IMAGES), arguments.rounds)
        measure_memory(arguments.data_dir)


def roads(models: "Models", machine: "Machine") -> Iterator[Road]:
    yield from scoring_roads(FLICKR8K, models.sizes.scored_images)


def scoring_roads(data_dir: Path, count: int) -> Iterator[Road]:
    missing = what_is_missing(data_dir)
    hypotheses, references = ([], []) if missing else split_captions(data_dir, count)
    for name, make in (
        ("scoring: PTB words, BLEU, ROUGE-L, CIDEr-D", ngram_sides),
        ("scoring: METEOR, from start to end of a process", meteor_sides),
    ):
        ours, theirs, tolerance = make(hypotheses, references)
        yield Road(
            name=name,
            peer_name="pycocoevalcap with Java",
            peer=theirs,
            peer_units=len(hypotheses),
            sides=[Side("", ours, len(hypotheses), problem=partial(differing, tolerance=tolerance))],
            missing=missing,
        )


def what_is_missing(data_dir: Path) -> str | None:
    """Of what the peer needs."""
    if not data_dir.is_dir():
        return f"left out: no Flickr8k in {data_dir}"
    if find_spec("pycocoevalcap") is None:
        return "left out: pycocoevalcap is not installed"
    return None if which("java") else "left out: no Java"


def split_captions(data_dir: Path, count: int) -> tuple[list[str], list[list[str]]]:
    """Hypotheses and references of the first images of the test split."""
    images = load_dataset("flickr8k", data_dir).split("test")[:count]
    captions = [list(image.captions) for image in images]
    halves = [
        mixed(own[0], other[0]) for own, other in zip(captions, captions[1:] + captions[:1], strict=True)
    ]
    return halves, captions


def mixed(own: str, other: str) -> str:
    mine, theirs = own.split(), other.split()
    return " ".join(mine[: len(mine) // 2] + theirs[len(theirs) // 2 :])


Sides = tuple[Callable[[], Scores], Callable[[], Scores], float]  # ours, the peer's, how far they may differ


def ngram_sides(hypotheses: list[str], references: list[list[str]]) -> Sides:
    def ours() -> Scores:
        corpus = corpus_of(hypotheses, references)
        values = bleu(corpus) | rouge_l(corpus) | cider_d(corpus)
        return {name: (found.value, found.per_image) for name, found in values.items()}

    def theirs() -> Scores:
        from pycocoevalcap.bleu.bleu import Bleu
        from pycocoevalcap.cider.cider import Cider
        from pycocoevalcap.rouge.rouge import Rouge

        words = cut_by_java(references), cut_by_java([[text] for text in hypotheses])
        values, per_image = Bleu(4).compute_score(*words, verbose=0)
        scores = {f"BLEU-{n + 1}": (values[n], per_image[n]) for n in range(4)}
        scores["ROUGE-L"] = Rouge().compute_score(*words)
        scores["CIDEr-D"] = Cider().compute_score(*words)
        return scores

    return ours, theirs, 1e-6


def meteor_sides(hypotheses: list[str], references: list[list[str]]) -> Sides:
    """The words are cut before. Either starts a process: no round finds tables or caches of another."""
    corpus = corpus_of(hypotheses, references)
    words = [
        [" ".join(hypothesis), [" ".join(one) for one in of_image]]
        for hypothesis, of_image in zip(corpus.hypotheses, corpus.references, strict=True)
    ]
    return lambda: in_child("meteor", words), lambda: in_child("meteor-jar", words), 1e-4


def differing(ours: Scores, theirs: Scores, *, tolerance: float) -> str | None:
    """Whether a value of the corpus or of an image differs."""
    for name, (value, per_image) in ours.items():
        their_value, theirs_per_image = theirs[name]
        pairs = zip([value, *per_image], [their_value, *theirs_per_image], strict=True)
        if max(abs(mine - other) for mine, other in pairs) > tolerance:
            return f"the values of {name} differ"
    return None


def rate_samples(hypotheses: list[str], references: list[list[str]], rounds: int) -> None:
    """CIDEr-D of 5 samples an image against document frequencies counted before, words given."""
    corpus = corpus_of(hypotheses, references)
    frequencies = DocumentFrequencies(corpus.references)
    count = len(hypotheses)
    samples = [[corpus.hypotheses[(i + k) % count] for k in range(SAMPLES)] for i in range(count)]
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for drawn, of_image in zip(samples, corpus.references, strict=True):
            frequencies.cider_d(drawn, of_image)
        times.append(time.perf_counter() - started)
    rate = SAMPLES * count / statistics.median(times)
    print(f"CIDEr-D of {SAMPLES} samples an image: {rate:,.0f} captions/s", flush=True)


def measure_memory(data_dir: Path) -> None:
    """Peak memory with all metrics above but METEOR, of 1,000 images and of the whole data set."""
    captions = [list(image.captions) for image in load_dataset("flickr8k", data_dir).records]
    for count in (1000, 8000):
        few = captions[:count]
        peak = in_child("memory", [[own[0], own] for own in few])["peak MB"]
        print(f"peak memory, {len(few):,} images x 5 references: {peak:.0f} MB", flush=True)


def corpus_of(hypotheses: list[str], references: list[list[str]]) -> Corpus:
    return Corpus.from_text(
        {str(i): text for i, text in enumerate(hypotheses)}, {str(i): of for i, of in enumerate(references)}
    )


def cut_by_java(captions: list[list[str]]) -> dict[int, list[str]]:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    return PTBTokenizer().tokenize({i: [{"caption": text} for text in of] for i, of in enumerate(captions)})


def in_child(role: str, content: object) -> dict[str, object]:
    """What `role` of CHILDREN prints in a process of its own."""
    with tempfile.NamedTemporaryFile("w", suffix=".json", encoding="utf-8") as stream:
        json.dump(content, stream)
        stream.flush()
        command = [sys.executable, "-m", "benchmarks.metrics", "--child", role, stream.name]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def child_meteor(words: list[tuple[str, list[str]]]) -> None:
    from pixtell.metrics.meteor import meteor

    corpus = Corpus(
        image_ids=tuple(map(str, range(len(words)))),
        hypotheses=[hypothesis.split(" ") for hypothesis, _ in words],
        references=[[one.split(" ") for one in of_image] for _, of_image in words],
    )
    found = meteor()(corpus)["METEOR"]
    print(json.dumps({"METEOR": (found.value, found.per_image)}))


def child_meteor_jar(words: list[tuple[str, list[str]]]) -> None:
    from pycocoevalcap.meteor.meteor import Meteor

    references = {i: of_image for i, (_, of_image) in enumerate(words)}
    print(
        json.dumps(
            {"METEOR": Meteor().compute_score(references, {i: [one] for i, (one, _) in enumerate(words)})}
        )
    )


def child_memory(captions: list[tuple[str, list[str]]]) -> None:
    corpus = corpus_of([hypothesis for hypothesis, _ in captions], [of_image for _, of_image in captions])
    for compute in (bleu, rouge_l, cider_d):
        compute(corpus)
    print(json.dumps({"peak MB": peak_gb() * 1e3}))


CHILDREN = {"meteor": child_meteor, "meteor-jar": child_meteor_jar, "memory": child_memory}


if __name__ == "__main__":
    main()
