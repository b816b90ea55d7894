"""Words -> METEOR 1.5 (Denkowski and Lavie 2014), with the jar's numbers and without Java.

In: a `Corpus`, and the tables that pycocoevalcap carries. Out: values from 0 to 1, of the corpus and of each
image, equal to `java -jar meteor-1.5.jar - - -stdio -l en -norm`. The corpus's value comes from counts
summed over images; it is not the mean.

normalizing.py makes words, stemming.py and tables.py say what they match, alignment.py which match is taken,
scoring.py what it is worth.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np

from pixtell.metrics.corpus import Corpus, Floats, Values, Words
from pixtell.metrics.meteor.alignment import CHUNKS, Caption, align
from pixtell.metrics.meteor.normalizing import meteor_words
from pixtell.metrics.meteor.paraphrases import MAX_PHRASE
from pixtell.metrics.meteor.scoring import is_perfect, meteor_of
from pixtell.metrics.meteor.stemming import stem
from pixtell.metrics.meteor.tables import Tables

__all__ = ["meteor"]

_WORDS_AT_A_TIME = 20_000  # whose phrases are looked up together; memory stays flat


def meteor(meteor_dir: Path | None = None) -> Callable[[Corpus], dict[str, Values]]:
    """The metric METEOR; reads its tables now, which takes seconds.

    meteor_dir: the folder of meteor-1.5.jar and data/paraphrase-en.gz; None: that of pycocoevalcap.
    Raises: ScoringError where tables are missing or damaged.
    """
    scorer = _Scorer(Tables.read(meteor_dir))
    return lambda corpus: {"METEOR": scorer.score(corpus)}


def _batches(corpus: Corpus) -> Iterator[tuple[list[Words], list[list[Words]]]]:
    """Hypotheses and references of some images at a time."""
    hypotheses: list[Words] = []
    references: list[list[Words]] = []
    num_words = 0
    for hypothesis, of_image in zip(corpus.hypotheses, corpus.references, strict=True):
        hypotheses.append(hypothesis)
        references.append(of_image)
        num_words += len(hypothesis) + sum(map(len, of_image))
        if num_words >= _WORDS_AT_A_TIME:
            yield hypotheses, references
            hypotheses, references, num_words = [], [], 0
    if hypotheses:
        yield hypotheses, references


class _Scorer:
    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._senses = lru_cache(maxsize=1 << 16)(tables.synonyms.senses)

    def score(self, corpus: Corpus) -> Values:
        """METEOR of a corpus; of several references the one with the best value counts, the first of
        equals."""
        counts = np.concatenate([self._best_counts(*batch) for batch in _batches(corpus)])
        per_image = meteor_of(counts)
        counts[is_perfect(counts), CHUNKS] = 0
        value = float(meteor_of(counts.sum(0)[None])[0])
        settings = f"words:ptb|meteor:{self._tables.version}"
        return Values(value, per_image.tolist(), counts, meteor_of, settings)

    def _best_counts(self, hypotheses: Sequence[Words], references: Sequence[Sequence[Words]]) -> Floats:
        """Counts (images, STATISTICS) of each hypothesis with its best reference."""
        texts = [self._words(words) for words in hypotheses]
        reference_texts = [[self._words(words) for words in of_image] for of_image in references]
        phrases, paraphrases = self._paraphrases([*texts, *chain.from_iterable(reference_texts)])
        best = []
        for text, of_image in zip(texts, reference_texts, strict=True):
            hypothesis = self._caption(text, phrases)
            rows = [align(hypothesis, self._caption(words, phrases), paraphrases) for words in of_image]
            counts = np.array(rows, float)
            best.append(counts[np.argmax(meteor_of(counts))])
        return np.array(best)

    def _words(self, words: Words) -> list[str]:
        """METEOR's words. "|||" parts captions in what the jar reads; it counts for nothing, as there."""
        text = " ".join(words).replace("|||", "").replace("  ", " ")
        return meteor_words(text, self._tables.prefixes)

    def _paraphrases(self, texts: Iterable[Words]) -> tuple[dict[str, int], dict[int, dict[int, int]]]:
        """Numbers for the phrases in these texts that paraphrase each other, and which do."""
        different = {
            " ".join(words[start:end])
            for words in texts
            for start in range(len(words))
            for end in range(start + 1, min(start + MAX_PHRASE, len(words)) + 1)
        }
        phrases = list(different)
        related = self._tables.paraphrases.among(phrases)
        used = set(related).union(*related.values())
        return {phrases[index]: index for index in used}, related

    def _caption(self, words: Words, phrases: Mapping[str, int]) -> Caption:
        functions = self._tables.function_words
        found = []
        for start in range(len(words)):
            ends = range(start + 1, min(start + MAX_PHRASE, len(words)) + 1)
            texts = [(end - start, " ".join(words[start:end])) for end in ends]
            found.append([(length, phrases[text]) for length, text in texts if text in phrases])
        return Caption(
            words=words,
            stems=[stem(word) for word in words],
            senses=[self._senses(word) for word in words],
            is_function=[word in functions for word in words],
            phrases=found,
        )
