"""Where METEOR's tables are, and reading them.

In: a folder, or nothing and then that of the installed pycocoevalcap, which is never imported. Out:
`Tables`, or one sentence on what is missing or damaged. It does not know captions.

The folder holds `meteor-1.5.jar`, a zip file with the lists, and `data/paraphrase-en.gz`. Nothing is run.
"""

import importlib.util
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixtell.errors import ScoringError
from pixtell.files import hash_file
from pixtell.metrics.meteor.paraphrases import ParaphraseTable

_JAR = "meteor-1.5.jar"
_PARAPHRASES = Path("data", "paraphrase-en.gz")
_LISTS = (
    "function/english.words",
    "nonbreaking/english.prefixes",
    "synonym/english.exceptions",
    "synonym/english.synsets",
)
_HINT = "run `pip install pycocoevalcap`, or name the folder of its meteor-1.5.jar with --meteor-dir"

# Endings of an inflected word and what its base has there instead: WordNet's, in the order they are tried.
_INFLECTIONS = [
    *[("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man")],
    *[("ies", "y"), ("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", "")],
    *[("ing", "e"), ("ing", ""), ("er", ""), ("est", ""), ("er", "e"), ("est", "e")],
]
_NO_SENSES: frozenset[str] = frozenset()


class SynonymTable:
    """Word -> its WordNet synsets. Two words with one in common are synonyms."""

    def __init__(self, exceptions: Sequence[str], synsets: Sequence[str]) -> None:
        """Two lines an entry. exceptions: a base, and its irregular forms; synsets: a word, and its
        synsets' numbers."""
        self._synsets = dict(zip(synsets[::2], synsets[1::2], strict=True))
        self._bases: dict[str, list[str]] = {}
        for base, forms in zip(exceptions[::2], exceptions[1::2], strict=True):
            for form in forms.split():
                self._bases.setdefault(form, []).append(base)

    def senses(self, word: str) -> frozenset[str]:
        """The synsets of a word and of its base forms."""
        bases = self._bases.get(word)
        if bases is None:
            bases = [self._regular_base(word)]
        return _NO_SENSES.union(*map(self._senses_of_form, [word, *bases]))

    def _senses_of_form(self, form: str) -> frozenset[str]:
        return frozenset(self._synsets.get(form, "").split())

    def _regular_base(self, word: str) -> str:
        """The first base that is a word, '' if none is."""
        if len(word) <= 2 or word.endswith("ss"):
            return word
        for ending, of_base in _INFLECTIONS:
            if word.endswith(ending):
                base = word.removesuffix(ending) + of_base
                if base in self._synsets:
                    return base
        return ""


@dataclass(frozen=True)
class Tables:
    """function_words: words that count less. prefixes: words that keep their full stop; True: only before a
    number. synonyms, paraphrases: what else matches. version: with a hash of the files, for signatures."""

    function_words: frozenset[str]
    prefixes: Mapping[str, bool]
    synonyms: SynonymTable
    paraphrases: ParaphraseTable
    version: str

    @classmethod
    def read(cls, directory: Path | None = None) -> "Tables":
        """Raises: ScoringError where the folder, a file or a part of it is missing or damaged."""
        directory = _installed_directory() if directory is None else directory
        paths = [directory / _JAR, directory / _PARAPHRASES]
        if missing := [str(path) for path in paths if not _is_file(path)]:
            raise ScoringError(f"METEOR's tables cannot be found ({' and '.join(missing)}): {_HINT}.")
        functions, prefixes, exceptions, synsets = _read_lists(paths[0])
        try:
            synonyms = SynonymTable(exceptions, synsets)
        except ValueError as cause:
            raise ScoringError(f"{paths[0]} is damaged (a line is missing in a list): {_HINT}.") from cause
        return cls(
            function_words=frozenset(functions),
            prefixes=_parse_prefixes(prefixes),
            synonyms=synonyms,
            paraphrases=ParaphraseTable.read(paths[1]),
            version=f"1.5@{'-'.join(hash_file(path)[:6] for path in paths)}",
        )


def _installed_directory() -> Path:
    """The folder `meteor` of pycocoevalcap, found without importing it."""
    found = importlib.util.find_spec("pycocoevalcap")
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        raise ScoringError(f"METEOR's tables come with pycocoevalcap, which is not installed: {_HINT}.")
    return Path(places[0], "meteor")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder above it is closed to us
        return False


def _read_lists(jar: Path) -> list[list[str]]:
    """The lines of each of `_LISTS`."""
    try:
        with zipfile.ZipFile(jar) as archive:
            texts = [archive.read(name).decode("utf-8") for name in _LISTS]
    except KeyError as cause:
        raise ScoringError(f"{jar} is not Meteor 1.5 ({cause.args[0]}): {_HINT}.") from cause
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, UnicodeDecodeError, RuntimeError) as cause:
        raise ScoringError(f"{jar} cannot be read ({cause}): {_HINT}.") from cause
    return [text.removesuffix("\n").split("\n") for text in texts]


def _parse_prefixes(lines: Sequence[str]) -> dict[str, bool]:
    entries = [words for line in lines if (words := line.split()) and not words[0].startswith("#")]
    return {word: mark[:1] == ["#NUMERIC_ONLY#"] for word, *mark in entries}
