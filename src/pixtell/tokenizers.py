"""Text <-> token ids.

In: a caption. Out: a list of ids, and back. A tokenizer knows neither models nor batches: ids carry no bos,
and whoever trains appends `eos_id` and pads.

Two kinds: `word` counts the words of one's own captions, `gpt2` is GPT-2's byte-pair encoding. Apart from
them, `ClipTokenizer` serves text towers, which only read: it adds bos and eos, cuts and pads.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, Self

from pixtell.errors import CheckpointError, DatasetError, EncoderError
from pixtell.files import read_json, write_json, write_text

if TYPE_CHECKING:
    import tokenizers


class Tokenizer(Protocol):
    """What the rest of pixtell asks of a tokenizer. Ids run from 0 to `vocab_size - 1`."""

    @property
    def kind(self) -> str: ...  # a key of TOKENIZERS; stored in the checkpoint
    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def forbidden_ids(self) -> tuple[int, ...]: ...  # ids that decoding must never choose

    def encode(self, text: str) -> list[int]: ...  # no bos, no eos
    def decode(self, token_ids: Sequence[int]) -> str: ...  # eos and forbidden ids are left out
    def save(self, directory: Path) -> None: ...


# A word may hold hyphens and apostrophes ("t-shirt", "o'clock"); the end of a contraction is a word of its
# own, decoded without a space before it: "man's" and Flickr8k's "man 's" are `man` + `'s`.
_LETTER = r"[^\s'-]"
_CONTRACTION = rf"'(?:s|t|re|ve|ll|d|m)(?!{_LETTER})"
_WORD = re.compile(rf"{_CONTRACTION}|{_LETTER}+(?:(?!{_CONTRACTION})['-]{_LETTER}+)*")


class _LetterTable(dict[int, str]):
    """For str.translate: letters, marks, digits, hyphens and apostrophes stay, all else becomes a space.

    Marks belong to the letters they stand on (Hindi vowels, accents without a composed form). Grows with use.
    """

    _SAME: ClassVar[dict[str, str]] = {"’": "'", "ʼ": "'", "'": "'", "‐": "-", "‑": "-", "-": "-"}  # noqa: RUF001

    def __missing__(self, code: int) -> str:
        character = chr(code)
        is_letter = unicodedata.category(character)[0] in "LMN"
        self[code] = self._SAME.get(character, character if is_letter else " ")
        return self[code]


_LETTERS = _LetterTable()


def split_words(text: str) -> list[str]:
    """The lower-case words of a text, no punctuation: "A man's T-shirt!" -> ["a", "man", "'s", "t-shirt"]."""
    return _WORD.findall(unicodedata.normalize("NFC", text.lower()).translate(_LETTERS))


class WordTokenizer:
    """Lower-case words seen often enough in the captions; any other word is `<unk>`, which is never decoded.

    words: the vocabulary in the order of its ids; the first two are `<eos>` and `<unk>`.
    """

    kind = "word"
    file_name = "vocabulary.json"
    eos_id = 0
    unk_id = 1
    forbidden_ids = (unk_id,)
    _special_words = ("<eos>", "<unk>")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        self._ids = {word: token_id for token_id, word in enumerate(self.words)}

    @classmethod
    def train(cls, captions: Iterable[str], *, min_count: int = 4) -> Self:
        """Keep the words that occur at least `min_count` times, the frequent first, equal counts by spelling.

        Raises: DatasetError where no word occurs so often.
        """
        counts = Counter(word for caption in captions for word in split_words(caption))
        kept = sorted(
            (word for word, count in counts.items() if count >= min_count),
            key=lambda word: (-counts[word], word),
        )
        if not kept:
            raise DatasetError(
                f"No word occurs {min_count} times or more in the captions ({len(counts)} different words): "
                "give more captions or lower --min-count."
            )
        return cls((*cls._special_words, *kept))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `vocabulary.json`. Raises: CheckpointError where it is missing or no vocabulary."""
        path = directory / cls.file_name
        words = read_json(path, CheckpointError)
        if not (
            isinstance(words, list)
            and all(isinstance(word, str) for word in words)
            and len(set(words)) == len(words)
            and tuple(words[:2]) == cls._special_words
        ):
            raise CheckpointError(
                f"{path} is no vocabulary (a list of different words that begins with <eos> and <unk>): "
                "take the file that was saved with the model."
            )
        return cls(words)

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        return [self._ids.get(word, self.unk_id) for word in split_words(text)]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Words joined by spaces, contractions by none; lower case, no full stop; <eos>, <unk> left out."""
        words = [self.words[token_id] for token_id in token_ids if token_id not in (self.eos_id, self.unk_id)]
        return "".join(word if word.startswith("'") else f" {word}" for word in words).strip()

    def save(self, directory: Path) -> None:
        write_json(directory / self.file_name, list(self.words))


class Gpt2Tokenizer:
    """GPT-2's byte-pair encoding: any text comes back byte for byte, "<|endoftext|>" as plain text too.

    bpe: a byte-level BPE of the `tokenizers` package that knows the token <|endoftext|>.
    Reference: Radford et al., Language Models are Unsupervised Multitask Learners, 2019, section 2.2.
    """

    kind = "gpt2"
    file_name = "tokenizer.json"
    forbidden_ids = ()
    _eos = "<|endoftext|>"

    def __init__(self, bpe: "tokenizers.Tokenizer") -> None:
        self._bpe = bpe
        self._bpe.encode_special_tokens = True
        self._bpe.no_truncation()
        self._bpe.no_padding()
        self.vocab_size: int = bpe.get_vocab_size(with_added_tokens=True)
        eos_id = bpe.token_to_id(self._eos)
        if eos_id is None:
            raise CheckpointError(f"The tokenizer has no token {self._eos}: take the files of a GPT-2.")
        self.eos_id: int = eos_id

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt` where that is absent.

        Raises: CheckpointError where neither is there or they cannot be read.
        """
        from tokenizers import Tokenizer as Bpe

        path = directory / cls.file_name
        try:
            if path.exists():
                return cls(Bpe.from_file(str(path)))
            path = directory / "vocab.json"
            if path.exists():
                return cls(_bpe_from_merges(path, directory / "merges.txt", cls._eos))
        except CheckpointError:
            raise
        except Exception as cause:  # the package raises bare Exception for whatever it cannot read
            reason = str(cause).splitlines()[0]
            raise CheckpointError(
                f"{path} is no GPT-2 tokenizer ({reason}): fetch the file again."
            ) from cause
        raise CheckpointError(
            f"{directory} holds no GPT-2 tokenizer: put tokenizer.json there, or vocab.json and merges.txt."
        )

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._bpe.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the ids as they stand, a leading space included; <|endoftext|> is left out."""
        kept = [token_id for token_id in token_ids if token_id != self.eos_id]
        text: str = self._bpe.decode(kept, skip_special_tokens=False)
        return text

    def save(self, directory: Path) -> None:
        write_text(directory / self.file_name, self._bpe.to_str())


def _bpe_from_merges(vocab_path: Path, merges_path: Path, eos: str) -> "tokenizers.Tokenizer":
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Bpe

    bpe = Bpe(models.BPE.from_file(str(vocab_path), str(merges_path)))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    if bpe.token_to_id(eos) is not None:  # absent: refused by Gpt2Tokenizer, not added in silence
        bpe.add_special_tokens([AddedToken(eos, normalized=False, special=True)])
    return bpe


TOKENIZERS: dict[str, type[WordTokenizer] | type[Gpt2Tokenizer]] = {
    WordTokenizer.kind: WordTokenizer,
    Gpt2Tokenizer.kind: Gpt2Tokenizer,
}


def load_tokenizer(directory: Path, kind: str) -> Tokenizer:
    """Read the tokenizer of that kind from a checkpoint's directory.

    Raises: CheckpointError where there is no such kind, or its files are missing or damaged.
    """
    if kind not in TOKENIZERS:
        raise CheckpointError(
            f"There is no tokenizer {kind!r}: the kinds are {', '.join(sorted(TOKENIZERS))}."
        )
    return TOKENIZERS[kind].load(directory)


class ClipTokenizer:
    """CLIP's byte-pair encoding of lower-case text, as transformers' CLIPTokenizer has it: NFC, white space
    made one space; no HTML entity is resolved and nothing else repaired, as openai/CLIP's own would.

    vocabulary, merges: of a byte-level BPE whose words end in "</w>". max_length: the tower's positions.
    Reference: Radford et al. 2021, section 2.4; openai/CLIP simple_tokenizer.py.
    """

    _bos = "<|startoftext|>"
    _eos = "<|endoftext|>"
    _word = r"<\|(?:start|end)oftext\|>|'(?:s|t|re|ve|m|ll|d)|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

    def __init__(
        self, *, vocabulary: dict[str, int], merges: list[tuple[str, str]], max_length: int = 77
    ) -> None:
        from tokenizers import AddedToken, Regex, models, normalizers, pre_tokenizers
        from tokenizers import Tokenizer as Bpe

        if missing := [token for token in (self._bos, self._eos) if token not in vocabulary]:
            raise EncoderError(f"The tokenizer has no token {missing[0]}: take the files of a CLIP.")
        bpe = Bpe(models.BPE(vocabulary, merges, unk_token=self._eos, end_of_word_suffix="</w>"))
        bpe.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        bpe.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(self._word), behavior="removed", invert=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
        bpe.add_special_tokens([AddedToken(token, special=True) for token in (self._bos, self._eos)])
        self._bpe = bpe
        self.max_length = max_length
        self.vocab_size: int = bpe.get_vocab_size(with_added_tokens=True)
        self.bos_id = vocabulary[self._bos]
        self.eos_id = vocabulary[self._eos]

    @classmethod
    def load(cls, directory: Path, *, max_length: int = 77) -> Self:
        """Read `tokenizer.json`, or `vocab.json` and `merges.txt` where that is absent.

        Raises: EncoderError where neither is there or they are no CLIP's.
        """
        from tokenizers import models

        path = directory / "tokenizer.json"
        try:
            if path.exists():
                model = read_json(path, EncoderError)["model"]
                pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
                merges = [(first, second) for first, second in pairs]
                return cls(vocabulary=model["vocab"], merges=merges, max_length=max_length)
            path = directory / "vocab.json"
            if path.exists():
                vocabulary, merges = models.BPE.read_file(str(path), str(directory / "merges.txt"))
                return cls(vocabulary=vocabulary, merges=merges, max_length=max_length)
        except EncoderError:
            raise
        except Exception as cause:  # whatever the package or a JSON of another shape raises
            reason = (str(cause) or type(cause).__name__).splitlines()[0]
            raise EncoderError(f"{path} is no CLIP tokenizer ({reason}): fetch the file again.") from cause
        raise EncoderError(
            f"{directory} holds no CLIP tokenizer: put tokenizer.json there, or vocab.json and merges.txt."
        )

    def encode(self, text: str) -> list[int]:
        """bos, the text, eos: `max_length` ids at most, the end of the text cut, eos kept."""
        clean = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate becomes "?"
        token_ids: list[int] = self._bpe.encode(clean, add_special_tokens=False).ids
        return [self.bos_id, *token_ids[: self.max_length - 2], self.eos_id]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, padded on the right to the longest with eos: text towers read at its first place,
        whether they look for the id itself or, as CLIPs saved before 2023 do, for the largest id."""
        rows = [self.encode(text) for text in texts]
        length = max(map(len, rows), default=0)
        return [row + [self.eos_id] * (length - len(row)) for row in rows]
