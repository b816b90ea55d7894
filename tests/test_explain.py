"""Where a model looked: maps that are known beforehand, an independent computation, words and their tokens.

That maps of trained models fall on what a word names is tested where models are trained:
tests/training/test_learning.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pixtell.captioner import Caption, Captioner
from pixtell.checkpoints import load_checkpoint
from pixtell.decoding import DecodingOptions
from pixtell.devices import Placement
from pixtell.errors import ModelError, OptionError
from pixtell.explain import (
    Explanation,
    SheetFolder,
    draw_explanation,
    explain,
    explain_caption,
    split_tokens,
)
from pixtell.images import Preprocess, load_image
from pixtell.tokenizers import Gpt2Tokenizer, WordTokenizer

WORDS = WordTokenizer(["<eos>", "<unk>", "red", "green", "blue"])


class ColourEncoder:
    """A grid of the colours that are there: (B, 9, 3), 0 to 1. The image is cropped as CLIP does."""

    name, output, fingerprint = "colours", "patches", "0"

    def __init__(self, feature_shape: tuple[int, ...] = (9, 3), side: int = 3) -> None:
        self.feature_shape = feature_shape
        self.preprocess = Preprocess(size=side, resize="shortest_side", mean=(0, 0, 0), std=(1, 1, 1))

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(2).transpose(1, 2)  # (B, 9, 3)


class ColourModel:
    """Names the colours by how much of each there is, at every step; eos and unk never."""

    def __init__(self, scale: float = 9.0) -> None:
        self.scale = scale

    def start(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.full((features.shape[0], WORDS.vocab_size), -9.0)  # (B, V)
        logits[:, 2:] = features.sum(dim=1) * self.scale
        return logits, logits

    def step(self, token_ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert token_ids.shape == (state.shape[0],)
        return state, state

    def reorder(self, state: torch.Tensor, beam_index: torch.Tensor) -> torch.Tensor:
        return state[beam_index]


def make_captioner(encoder: ColourEncoder | None = None, scale: float = 9.0) -> Captioner:
    return Captioner(
        name="colours",
        encoder=encoder or ColourEncoder(),  # type: ignore[arg-type]
        model=ColourModel(scale),
        tokenizer=WORDS,
        decoding=DecodingOptions(max_new_tokens=2),
        placement=Placement(torch.device("cpu"), torch.float32, "as the test asks"),
    )


def make_picture() -> NDArray[np.uint8]:
    """A red, a green and a blue cell on black."""
    image = np.zeros((3, 3, 3), np.uint8)
    image[0, 2, 0] = image[1, 0, 1] = image[2, 1, 2] = 255
    return image


def say(text: str) -> Caption:
    return Caption(text, tuple(WORDS.encode(text)), 0.0, 0.0)


def distance(place: tuple[int, ...]) -> NDArray[np.int64]:
    """How many cells away the cells of a grid of 6 x 6 are, along the axis where it is more."""
    rows, columns = np.indices((6, 6))
    return np.maximum(abs(rows - place[0]), abs(columns - place[1]))


def one_cell(row: int, column: int) -> NDArray[np.float32]:
    grid = np.zeros((3, 3), np.float32)
    grid[row, column] = 1
    return grid


# --- the maps


def test_each_word_is_found_in_the_one_cell_that_says_it() -> None:
    found = explain_caption(make_captioner(), make_picture(), say("Green blue red."))
    assert [word.word for word in found.words] == ["green", "blue", "red"]
    for word, cell in zip(found.words, [(1, 0), (2, 1), (0, 2)], strict=True):
        np.testing.assert_array_equal(word.evidence, one_cell(*cell))
        # The logit falls from 9 to 1 and the two others' rise from 9 to 10, of the same odds each.
        assert word.strength == pytest.approx(8 + 1, abs=1e-4)


def test_the_peak_is_on_a_thing_of_one_cell_wherever_it_is() -> None:
    """In a grid of 6 x 6, whose windows are of 2 x 2 cells."""
    captioner = make_captioner(ColourEncoder((36, 3), side=6), scale=1.0)
    for place in np.ndindex(6, 6):
        picture = np.zeros((6, 6, 3), np.uint8)
        picture[place][0] = 255
        [word] = explain_caption(captioner, picture, say("Red.")).words
        assert np.unravel_index(word.evidence.argmax(), (6, 6)) == place
        assert np.sort(word.evidence.ravel())[-2] < 0.6  # half of a neighbour's windows hold the thing
        assert word.evidence[distance(place) > 1].max() == 0


def test_a_word_without_evidence_has_an_empty_map() -> None:
    picture = np.full((3, 3, 3), 200, np.uint8)
    [word] = explain_caption(make_captioner(), picture, say("Red.")).words
    assert word.strength == 0
    np.testing.assert_array_equal(word.evidence, np.zeros((3, 3)))
    assert draw_explanation(picture, explain_caption(make_captioner(), picture, say("Red."))).size


def test_the_maps_lie_on_what_the_encoder_saw() -> None:
    wide = np.zeros((30, 50, 3), np.uint8)
    wide[:10, 30:40, 0] = 255  # the right upper corner of the middle square
    wide[:, :8] = wide[:, 42:] = 255  # cropped
    found = explain_caption(make_captioner(), wide, say("Red."))
    assert found.box == (0.2, 0, 0.8, 1)
    assert np.unravel_index(found.words[0].evidence.argmax(), (3, 3)) == (0, 2)


@pytest.mark.parametrize("family", ["clipcap", "lstm"])
def test_evidence_is_the_log_odds_lost_with_a_cell(
    tiny_models: Path, pictures: list[Path], family: str
) -> None:
    """Against `forward`, a softmax in double precision, one cell at a time."""
    captioner = Captioner.from_pretrained(tiny_models / family, device="cpu")
    model = load_checkpoint(tiny_models / family).model
    image = load_image(pictures[0])
    caption = captioner.caption(image)
    found = explain_caption(captioner, image, caption)
    features = captioner.encode(captioner.encoder.preprocess.resize_image(image)[None]).clone()  # (1, 4, F)
    token_ids = torch.tensor([caption.token_ids])  # (1, T)

    def log_odds(values: torch.Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            p = model(values, token_ids).double().softmax(-1)  # (1, T, V)
        of_token = p[0].gather(-1, token_ids.T)[:, 0]  # (T,)
        return (of_token / (1 - of_token)).log().numpy()

    assert len(found.words) == len(caption.token_ids)
    for cell in range(4):
        blanked = features.clone()
        blanked[0, cell] = features[0].mean(dim=0)
        lost = np.maximum(log_odds(features) - log_odds(blanked), 0)
        of_words = [word.evidence.flat[cell] * word.strength for word in found.words]
        np.testing.assert_allclose(of_words, lost, rtol=1e-2, atol=2e-3)
    assert max(word.strength for word in found.words) > 0.1, "the test needs words that cells speak for"


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        explain_caption(make_captioner(scale=float("nan")), make_picture(), say("Red."))
    assert str(caught.value) == ("The model colours gives numbers that are not finite; check its weights.")


# --- one or many, and which caption


def test_one_gives_one_and_many_give_many(tiny_models: Path, pictures: list[Path]) -> None:
    captioner = Captioner.from_pretrained(tiny_models / "clipcap", device="cpu")
    one = explain(captioner, pictures[0])
    assert isinstance(one, Explanation)
    assert one.caption == captioner.caption(pictures[0])
    assert " ".join(word.word for word in one.words) == one.caption.text.rstrip(".").lower()
    many = explain(captioner, pictures[:3], beam_size=3, num_captions=2)
    assert isinstance(many, list)
    best = [captions[0] for captions in captioner.caption(pictures[:3], beam_size=3, num_captions=2)]
    assert [found.caption.text for found in many] == [caption.text for caption in best]
    for word in (word for found in many for word in found.words):
        assert (word.evidence.shape, word.evidence.dtype) == ((2, 2), np.float32)
        assert word.evidence.min() >= 0
        assert word.evidence.max() == pytest.approx(1 if word.strength else 0)
    assert explain(captioner, []) == []


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (
            (512,),
            "The model colours reads one vector an image and cannot say where it looked; explain one that "
            "was trained on patches, such as nano.",
        ),
        (
            (12, 3),
            "The model colours reads 12 patches, which make no square grid; explain another, such as nano.",
        ),
    ],
)
def test_a_model_without_a_grid_is_refused(shape: tuple[int, ...], sentence: str) -> None:
    with pytest.raises(OptionError, match=re.escape(sentence)):
        explain(make_captioner(ColourEncoder(shape)), "absent.jpg")


def test_a_misspelt_option_is_refused(tiny_models: Path, pictures: list[Path]) -> None:
    captioner = Captioner.from_pretrained(tiny_models / "lstm", device="cpu")
    with pytest.raises(OptionError, match="no decoding option 'beamsize'"):
        explain(captioner, pictures[0], beamsize=3)


# --- words and their tokens


def letter_tokenizer() -> Gpt2Tokenizer:
    """GPT-2's byte-pair encoding without a merge: every byte is a token."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Bpe

    letters = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    bpe = Bpe(models.BPE(letters, []))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    bpe.add_special_tokens([AddedToken("<|endoftext|>", special=True)])
    return Gpt2Tokenizer(bpe)


@pytest.mark.parametrize(
    "text", ["", " a dog runs", "a dog, a cat .", "  two  spaces", "ein süßer Hund", "日本 の 犬", "man's"]
)
def test_byte_pairs_come_together_as_words(text: str) -> None:
    tokenizer = letter_tokenizer()
    token_ids = tokenizer.encode(text)
    found = split_tokens(tokenizer, token_ids)
    assert [word for word, _ in found] == text.split()
    assert tokens_of(token_ids, found) == list(token_ids)


def test_a_word_is_a_token_and_a_contraction_belongs_to_its_word() -> None:
    tokenizer = WordTokenizer(["<eos>", "<unk>", "a", "man", "'s", "t-shirt"])
    token_ids = tokenizer.encode("A man's t-shirt")
    found = split_tokens(tokenizer, token_ids)
    assert found == [("a", slice(0, 1)), ("man's", slice(1, 3)), ("t-shirt", slice(3, 4))]


def tokens_of(token_ids: Sequence[int], found: list[tuple[str, slice]]) -> list[int]:
    return [token_id for _, span in found for token_id in token_ids[span]]


# --- the folder of sheets


def test_every_picture_has_a_sheet_of_its_own(tmp_path: Path) -> None:
    images = [
        Path(name) for name in ("a/x.jpg", "b/x.png", "b/X.jpg", "x-2.jpg", "y.jpg", "ä" * 120 + ".jpg")
    ]
    folder = SheetFolder(tmp_path / "out", [Path("a")], images)
    names = [path.name for path in folder.paths]
    assert len({name.lower() for name in names}) == len(names)
    assert (names[0], names[1], names[4]) == ("x.png", "x-2.png", "y.png")
    assert all(len(name.encode("utf-8", "surrogateescape")) <= 204 for name in names)
    assert {path.parent for path in folder.paths} == {tmp_path / "out"}


def test_sheets_do_not_go_among_the_pictures(pictures: list[Path], tmp_path: Path) -> None:
    photos, links = tmp_path / "photos", tmp_path / "links"
    (photos / "inside").mkdir(parents=True)
    links.mkdir()
    (photos / "inside" / "a.jpg").write_bytes(pictures[0].read_bytes())
    (links / "b.jpg").symlink_to(photos / "inside" / "a.jpg")

    image, link = photos / "inside" / "a.jpg", links / "b.jpg"
    for directory, named, found in (
        (photos, photos, image),
        (photos / "new", photos, image),
        (photos / "inside", image, image),
        (links, link, link),
        (photos / "inside", link, link),
    ):
        with pytest.raises(OptionError) as caught:
            SheetFolder(directory, [named], [found])
        assert str(caught.value) == (
            f"--explain {directory} is among the pictures; name a folder that is not, such as explained."
        )
    SheetFolder(tmp_path / "out", [photos], [image])
    SheetFolder(photos, [image], [image])  # above the folder of a picture that was named itself
