"""Captions for the tests of metrics, and the reference implementation on equal words."""

import random
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
