"""Text becomes ids and comes back; a damaged or missing file is one sentence."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pixtell.errors import CheckpointError, DatasetError, EncoderError
from pixtell.tokenizers import (
    TOKENIZERS,
    ClipTokenizer,
    Gpt2Tokenizer,
    Tokenizer,
    WordTokenizer,
    load_tokenizer,
    split_words,
)

CAPTIONS = ["A man's dog runs .", "the man 's T-shirt, the dog", "a dog at 5 o'clock; don't!"]


def words() -> WordTokenizer:
    return WordTokenizer.train(CAPTIONS, min_count=1)


def byte_level_bpe() -> "tuple[dict[str, int], list[str]]":
    """A vocabulary of the 256 bytes as GPT-2 writes them, three merges and the end token."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merged = ["do", "dog", "Ġdog"]
    vocabulary = {piece: token_id for token_id, piece in enumerate([*letters, *merged, "<|endoftext|>"])}
    return vocabulary, ["d o", "do g", "Ġ dog"]


def write_merges(directory: Path) -> None:
    vocabulary, merges = byte_level_bpe()
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Gpt2Tokenizer:
    directory = tmp_path_factory.mktemp("gpt2")
    write_merges(directory)
    return Gpt2Tokenizer.load(directory)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A dog, running .", ["a", "dog", "running"]),
        ("the man's T-shirt", ["the", "man", "'s", "t-shirt"]),
        ("the man 's T-shirt", ["the", "man", "'s", "t-shirt"]),
        ("the man’s hat", ["the", "man", "'s", "hat"]),  # noqa: RUF001
        ("don't 'slide' at 5 o'clock", ["don", "'t", "slide", "at", "5", "o'clock"]),
        ("the boys' - and girls'- ball", ["the", "boys", "and", "girls", "ball"]),
        ("black-and-white #3", ["black-and-white", "3"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),
        ("a\u2028dog\r🙂\x0bruns", ["a", "dog", "runs"]),
        (" ... \t", []),
        ("", []),
    ],
)
def test_words_are_split_lower_case_without_punctuation(text: str, expected: list[str]) -> None:
    assert split_words(text) == expected


def test_words_are_kept_by_count_and_then_by_spelling() -> None:
    tokenizer = WordTokenizer.train(["b c a", "c b", "c"], min_count=2)
    assert tokenizer.words == ("<eos>", "<unk>", "c", "b")
    assert WordTokenizer.train(["b c a", "c b", "c"], min_count=1).words[2:] == ("c", "b", "a")


def test_words_come_back_as_a_caption_would_be_written() -> None:
    tokenizer = words()
    assert tokenizer.decode(tokenizer.encode("A man 's T-shirt!")) == "a man's t-shirt"
    assert tokenizer.decode(tokenizer.encode("don't")) == "don't"


def test_an_unknown_word_is_encoded_but_never_written() -> None:
    tokenizer = words()
    token_ids = tokenizer.encode("a zebra dog <eos> <unk>")
    assert token_ids[1] == tokenizer.unk_id
    assert token_ids[3:] == [tokenizer.unk_id, tokenizer.unk_id]
    assert tokenizer.decode([*token_ids, tokenizer.eos_id]) == "a dog"
    assert tokenizer.forbidden_ids == (tokenizer.unk_id,)


@given(st.lists(st.text(max_size=30), max_size=5), st.data())
def test_any_decoded_words_are_encoded_to_the_same_ids(captions: list[str], data: st.DataObject) -> None:
    tokenizer = WordTokenizer.train([*captions, "a man's"], min_count=1)
    known = st.integers(2, tokenizer.vocab_size - 1)
    token_ids = data.draw(st.lists(known, max_size=8))
    assert tokenizer.encode(tokenizer.decode(token_ids)) == token_ids


@given(st.text())
def test_gpt2_returns_any_text_byte_for_byte(gpt2: Gpt2Tokenizer, text: str) -> None:
    token_ids = gpt2.encode(text)
    assert gpt2.decode(token_ids) == text
    assert gpt2.eos_id not in token_ids


def test_gpt2_merges_and_keeps_its_end_token_for_itself(gpt2: Gpt2Tokenizer) -> None:
    vocabulary, _ = byte_level_bpe()
    assert gpt2.encode("dog dog") == [vocabulary["dog"], vocabulary["Ġdog"]]
    assert gpt2.eos_id == vocabulary["<|endoftext|>"] == gpt2.vocab_size - 1
    assert len(gpt2.encode("<|endoftext|>")) > 1
    assert gpt2.decode([*gpt2.encode(" dog"), gpt2.eos_id]) == " dog"
    assert gpt2.forbidden_ids == ()


def test_gpt2_equals_transformers_on_its_files(tmp_path: Path, gpt2: Gpt2Tokenizer) -> None:
    from transformers import GPT2Tokenizer

    write_merges(tmp_path)
    reference = GPT2Tokenizer.from_pretrained(tmp_path)
    for text in [*CAPTIONS, "  two  spaces\n\ndogs", "naïve 犬 🐕", "it's 2024's"]:
        assert gpt2.encode(text) == reference(text)["input_ids"]


@pytest.mark.parametrize("kind", sorted(TOKENIZERS))
def test_a_saved_tokenizer_is_the_same_tokenizer(kind: str, gpt2: Gpt2Tokenizer, tmp_path: Path) -> None:
    tokenizer: Tokenizer = words() if kind == "word" else gpt2
    tokenizer.save(tmp_path)
    loaded = load_tokenizer(tmp_path, kind)
    assert loaded.kind == kind
    assert (loaded.vocab_size, loaded.eos_id) == (tokenizer.vocab_size, tokenizer.eos_id)
    assert [loaded.encode(text) for text in CAPTIONS] == [tokenizer.encode(text) for text in CAPTIONS]
    assert 0 <= loaded.eos_id < loaded.vocab_size


def test_no_tokenizer_of_that_kind(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"^There is no tokenizer 'bert': the kinds are gpt2, word\.$"):
        load_tokenizer(tmp_path, "bert")


def test_captions_without_frequent_words() -> None:
    with pytest.raises(
        DatasetError, match=r"^No word occurs 4 times or more .*\(9 different words\): give more"
    ):
        WordTokenizer.train(["a b c d e f g h i"])


@pytest.mark.parametrize(
    "content",
    [{"words": []}, [], ["<unk>", "<eos>", "a"], ["<eos>", "<unk>", "a", "a"], ["<eos>", "<unk>", 3]],
    ids=["object", "empty", "order", "twice", "number"],
)
def test_a_file_that_is_no_vocabulary(tmp_path: Path, content: object) -> None:
    (tmp_path / "vocabulary.json").write_text(json.dumps(content))
    with pytest.raises(
        CheckpointError, match=r"vocabulary\.json is no vocabulary .* saved with the model\.$"
    ):
        WordTokenizer.load(tmp_path)


def test_a_vocabulary_that_is_missing_or_cut(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"vocabulary\.json cannot be read"):
        WordTokenizer.load(tmp_path)
    (tmp_path / "vocabulary.json").write_text('["<eos>", "<un')
    with pytest.raises(CheckpointError, match=r"vocabulary\.json is not JSON"):
        WordTokenizer.load(tmp_path)


def cut_tokenizer_json(directory: Path) -> None:
    (directory / "tokenizer.json").write_text('{"version": "1.0"')


def lose_merges(directory: Path) -> None:
    write_merges(directory)
    (directory / "merges.txt").unlink()


def lose_eos(directory: Path) -> None:
    write_merges(directory)
    vocabulary, _ = byte_level_bpe()
    del vocabulary["<|endoftext|>"]
    (directory / "vocab.json").write_text(json.dumps(vocabulary))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut_tokenizer_json, r"tokenizer\.json is no GPT-2 tokenizer \(.+\): fetch the file again\.$"),
        (lose_merges, r"vocab\.json is no GPT-2 tokenizer \(.+\): fetch the file again\.$"),
        (lose_eos, r"^The tokenizer has no token <\|endoftext\|>: take the files of a GPT-2\.$"),
        (
            lambda _: None,
            r"holds no GPT-2 tokenizer: put tokenizer\.json there, or vocab\.json and merges\.txt\.$",
        ),
    ],
    ids=["cut", "no merges", "no eos", "nothing"],
)
def test_files_that_are_no_gpt2_tokenizer(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=sentence):
        Gpt2Tokenizer.load(tmp_path)


@pytest.mark.flickr8k
def test_flickr8k_has_about_2900_words(flickr8k_dir: Path) -> None:
    """Words seen at least four times in the 30,000 training captions."""
    text_dir = flickr8k_dir / "Flickr8k_text"
    training = set((text_dir / "Flickr_8k.trainImages.txt").read_text().split())
    lines = (text_dir / "Flickr8k.token.txt").read_text().splitlines()
    pairs = (line.split("\t") for line in lines)
    captions = [caption for name, caption in pairs if name.partition("#")[0] in training]
    tokenizer = WordTokenizer.train(captions)
    assert len(captions) == 30_000
    assert 2_800 < tokenizer.vocab_size < 3_000
    token_ids = [token_id for caption in captions for token_id in tokenizer.encode(caption)]
    assert token_ids.count(tokenizer.unk_id) < 0.03 * len(token_ids)


# ---- CLIP's


def write_clip_merges(directory: Path) -> None:
    """CLIP's vocabulary in small: 256 bytes, the same at the end of a word, four merges, bos and eos."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    merged = ["do", "dog</w>", "'s</w>", "un"]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *merged, "<|startoftext|>", "<|endoftext|>"]
    (directory / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (directory / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n' s</w>\nu n\n")


HARD_TEXTS = [
    *CAPTIONS,
    "",
    " \t\n",
    "a  dog\r\n\u2028runs\u00a0on\u3000",
    "CAFÉ cafe\u0301 ÀÉÎ Straße İstanbul",
    "🐕 two 👩‍👩‍👧 犬が走る \u200b हिन्दी",
    "a &lt;b&gt; &amp;amp; &#39;dog&#39;",
    "it's 2024's, WE'LL don't o'clock'll",
    "dog<|endoftext|>dog <|StartOfText|>",
    "un" * 300,
    "the dog runs " * 300,
    "\x00\x07\x0b \ufeff dog",
]


@pytest.fixture(scope="module")
def clip_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clip-tokenizer")
    write_clip_merges(directory)
    return directory


@pytest.mark.parametrize("files", ["vocab.json and merges.txt", "tokenizer.json"])
def test_clip_ids_equal_those_of_transformers(files: str, clip_dir: Path, tmp_path: Path) -> None:
    from transformers import CLIPTokenizer

    reference = CLIPTokenizer.from_pretrained(clip_dir)
    if files == "tokenizer.json":
        reference.save_pretrained(tmp_path)
        assert not (tmp_path / "vocab.json").exists()
        clip_dir = tmp_path
    for max_length in (77, 8):
        tokenizer = ClipTokenizer.load(clip_dir, max_length=max_length)
        assert (tokenizer.bos_id, tokenizer.eos_id) == (reference.bos_token_id, reference.eos_token_id)
        assert tokenizer.vocab_size == len(reference)
        settings = {"truncation": True, "max_length": max_length}
        for text in HARD_TEXTS:
            assert tokenizer.encode(text) == reference(text, **settings)["input_ids"], text
        padded = reference(HARD_TEXTS, padding=True, **settings)["input_ids"]
        assert tokenizer.encode_batch(HARD_TEXTS) == padded


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_has_the_ids_of_transformers(clip_dir: Path, text: str) -> None:
    from transformers import CLIPTokenizer

    expected = CLIPTokenizer.from_pretrained(clip_dir)(text, truncation=True, max_length=77)["input_ids"]
    assert ClipTokenizer.load(clip_dir).encode(text) == expected


def test_clip_keeps_bos_and_eos_whatever_the_length(clip_dir: Path) -> None:
    tokenizer = ClipTokenizer.load(clip_dir)
    for text in HARD_TEXTS:
        token_ids = tokenizer.encode(text)
        assert 2 <= len(token_ids) <= 77
        assert (token_ids[0], token_ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
    assert len(tokenizer.encode("a dog " * 60)) == 77
    assert tokenizer.encode_batch([]) == []
    assert tokenizer.encode("a \ud83d dog") == tokenizer.encode("a ? dog")


def spoil_json(directory: Path) -> None:
    (directory / "tokenizer.json").write_text('{"model": {"type": "Unigram", "vocab": []}}')


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (cut_tokenizer_json, r"tokenizer\.json is not JSON \(.+\); it may be cut short: make it again\.$"),
        (spoil_json, r"tokenizer\.json is no CLIP tokenizer \('merges'\): fetch the file again\.$"),
        (lose_merges, r"vocab\.json is no CLIP tokenizer \(.+\): fetch the file again\.$"),
        (write_merges, r"^The tokenizer has no token <\|startoftext\|>: take the files of a CLIP\.$"),
        (
            lambda _: None,
            r"holds no CLIP tokenizer: put tokenizer\.json there, or vocab\.json and merges\.txt\.$",
        ),
    ],
    ids=["cut", "another model", "no merges", "of GPT-2", "nothing"],
)
def test_files_that_are_no_clip_tokenizer(
    tmp_path: Path, damage: Callable[[Path], None], sentence: str
) -> None:
    damage(tmp_path)
    with pytest.raises(EncoderError, match=sentence) as error:
        ClipTokenizer.load(tmp_path)
    assert "\n" not in str(error.value)
