"""The paraphrase table: phrase -> phrases that may stand for it.

In: the table as Meteor carries it, gzipped, three lines an entry: a probability (not used), a phrase, its
paraphrase. Out: a `ParaphraseTable` that says which phrases of some captions paraphrase which. It does not
know alignment.

The table has five million entries. It is kept as hashes alone, 64 bits a phrase and a paraphrase, in the
order of the file: 50 MB, read in seconds. That a phrase of the captions has the hash of another in the table
is one chance in ten million for captions with a million phrases.
"""

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixtell.errors import ScoringError

Bytes = npt.NDArray[np.uint8]
Hashes = npt.NDArray[np.uint64]
Places = npt.NDArray[np.int64]

MAX_PHRASE = 7  # words in the longest phrase of the table

_LINES = 3  # an entry
_CHUNK_BYTES = 1 << 23
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_SHIFT = np.uint64(29)
_MASKS = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # keep the first 0 to 8 bytes


@dataclass(frozen=True)
class ParaphraseTable:
    """Entries of one phrase that follow each other are a run. Ascending by the hash of their phrase,
    phrases (R,); those of run i begin at entry starts[i] and are lengths[i] many. paraphrases (E,): the hash
    of each entry's paraphrase, in the order of the file."""

    phrases: Hashes
    starts: Places
    lengths: Places
    paraphrases: Hashes

    @classmethod
    def read(cls, path: Path) -> "ParaphraseTable":
        """Raises: ScoringError where the file cannot be read, is cut short or is something else."""
        phrases: list[Hashes] = []
        paraphrases: list[Hashes] = []
        num_lines = 0
        for data, starts, ends in _lines(path):
            if not num_lines:
                _check_first_line(path, bytes(data[starts[0] : ends[0]]))
            for line, hashes in ((1, phrases), (2, paraphrases)):
                which = slice((line - num_lines) % _LINES, None, _LINES)
                hashes.append(_hash_spans(data, starts[which], ends[which]))
            num_lines += len(ends)
        if not num_lines or num_lines % _LINES:
            raise ScoringError(_damaged(path, f"its {num_lines:,} lines are not three an entry"))
        return cls._of_pairs(np.concatenate(phrases), np.concatenate(paraphrases))

    @classmethod
    def _of_pairs(cls, phrases: Hashes, paraphrases: Hashes) -> "ParaphraseTable":
        starts = np.flatnonzero(np.concatenate([[True], phrases[1:] != phrases[:-1]]))
        lengths = np.diff(np.append(starts, len(phrases)))
        order = np.argsort(phrases[starts], kind="stable")
        return cls(phrases[starts][order], starts[order], lengths[order], paraphrases)

    def among(self, phrases: Sequence[str]) -> dict[int, dict[int, int]]:
        """Which of these (different) phrases are paraphrases of which of them, by index: phrase -> its
        paraphrases, each with its rank in the file."""
        if not phrases:
            return {}
        hashes = _hash_lines(phrases)
        first, end = (np.searchsorted(self.phrases, hashes, side) for side in ("left", "right"))
        runs = _ranges(first, end - first)
        entries = _ranges(self.starts[runs], self.lengths[runs])
        sources = np.repeat(np.repeat(np.arange(len(hashes)), end - first), self.lengths[runs])
        targets = self.paraphrases[entries]
        order = np.argsort(hashes)
        places = order[np.searchsorted(hashes, targets, sorter=order) % len(hashes)]
        here = np.flatnonzero(hashes[places] == targets)
        related: dict[int, dict[int, int]] = {}
        for source, target in zip(sources[here].tolist(), places[here].tolist(), strict=True):
            ranks = related.setdefault(source, {})
            ranks[target] = len(ranks)
        return related


def _ranges(starts: Places, lengths: Places) -> Places:
    """[5, 9], [2, 3] -> [5, 6, 9, 10, 11]."""
    skipped = np.cumsum(lengths) - lengths
    return np.repeat(starts - skipped, lengths) + np.arange(lengths.sum())


def _hash_lines(lines: Sequence[str]) -> Hashes:
    text = ("\n".join(lines) + "\n").encode("utf-8", "surrogatepass")
    return _hash_spans(*_spans(text))


def _spans(text: bytes) -> tuple[Bytes, Places, Places]:
    """Where each line of a text begins and ends; the text itself with eight bytes more."""
    data = np.frombuffer(text + bytes(8), np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    return data, np.concatenate([[0], ends[:-1] + 1]), ends


def _hash_spans(data: Bytes, starts: Places, ends: Places) -> Hashes:
    """64 bits for each span, of eight bytes at a time; spans of one length up to eight never share
    them."""
    eights = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # the eight bytes from each place on
    left = ends - starts
    hashes = left.astype(np.uint64) * _FACTOR
    spans, places = np.arange(len(ends)), starts
    while len(spans):
        mixed = (hashes[spans] ^ (eights[places] & _MASKS[np.minimum(left, 8)])) * _FACTOR
        hashes[spans] = (mixed ^ (mixed >> _SHIFT)) * _FACTOR
        longer = np.flatnonzero(left > 8)
        spans, places, left = spans[longer], places[longer] + 8, left[longer] - 8
    return hashes


def _lines(path: Path) -> Iterator[tuple[Bytes, Places, Places]]:
    """The lines of a gzipped file, a few megabytes at a time, as `_spans` gives them."""
    rest = b""
    try:
        with gzip.open(path) as stream:
            while piece := stream.read(_CHUNK_BYTES):
                whole = piece.rfind(b"\n") + 1
                if whole:
                    yield _spans(rest + piece[:whole])
                    rest = b""
                rest += piece[whole:]
    except (OSError, EOFError, zlib.error) as cause:
        raise ScoringError(_damaged(path, str(cause))) from cause
    if rest:
        yield _spans(rest + b"\n")


def _check_first_line(path: Path, line: bytes) -> None:
    """Raises: ScoringError where it is no probability, and so the file is something else."""
    try:
        float(line)
    except ValueError as cause:
        raise ScoringError(_damaged(path, "its first line is no probability")) from cause


def _damaged(path: Path, reason: str) -> str:
    return f"{path} is no table of paraphrases ({reason}); install it again: pip install pycocoevalcap."
