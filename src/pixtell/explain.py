"""Where a model looked: for each word of a caption, a map of evidence over the picture.

In: a Captioner, an image, its caption. Out: `Explanation`, and a sheet that shows it. It knows no family of
models: whatever decodes from a grid of features can be explained.

A window of neighbouring cells is blanked: their features give way to the mean of the picture's. What a word
loses by it is how far its log-odds, ln p - ln(1 - p) given the words before it, fall; log-odds, because p
itself hardly moves where the model is certain. A cell's evidence for a word is the mean loss over the windows
that hold the cell. Windows, because a thing in a photo fills several cells, and the others still show it when
one is blanked.

Gradient x input would need fewer passes, but a mapping that begins with a layer norm, or normalises features,
makes the same of a vector and of twice the vector, and there gradient x input is zero whatever is in the
picture.
Reference: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014, section 4.2; means
over masks: Petsiuk et al., RISE: Randomized Input Sampling for Explanation of Black-box Models, 2018.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pixtell.captioner import Caption, Captioner
from pixtell.errors import ImageError, ModelError, OptionError
from pixtell.files import atomic_path, check_writable
from pixtell.images import Box, ImageSource, Tile, draw_sheet, encode_png, load_image
from pixtell.tokenizers import Tokenizer

_WINDOW = 1 / 3  # side of a window, as a share of the grid's: nano's 6 x 6 cells have windows of 2 x 2
_ROWS = 64  # windows blanked at a time: rows of decoding that are in memory at once
_FAINT = 0.1  # strength under which a map is drawn fainter
_STEM_BYTES = 200  # of a file's name; file systems allow 255 with what is put around it


@dataclass(frozen=True)
class WordEvidence:
    """One word of a caption, and where the model found it.

    evidence: (h, w) float32 over the encoder's grid, row by row; the part that speaks for the word, the
    largest 1; all 0 where no cell does. strength: what the largest is, in log-odds (natural logs) that the
    word loses where the cell is blanked; 0.7 halves a small probability. A word of several tokens has their
    sum.
    """

    word: str
    evidence: NDArray[np.float32]
    strength: float


@dataclass(frozen=True)
class Explanation:
    """A caption, and where each of its words was found.

    box: left, top, right and bottom of the part of the picture that the encoder saw and the maps lie on, in
    fractions of its sides: all of it, but for encoders that crop.
    """

    caption: Caption
    words: tuple[WordEvidence, ...]
    box: Box


def explain(
    captioner: Captioner, images: "ImageSource | Sequence[ImageSource]", **decoding: Any
) -> "Explanation | list[Explanation]":
    """Caption, and say where each word was found. One image gives one Explanation; a list gives a list, in
    order. Of several captions (num_captions) the best is explained.

    images: as `Captioner.caption` takes them. decoding: fields of DecodingOptions, over the model's defaults.
    Raises: OptionError for a model whose features are no grid, and what `Captioner.caption` raises.
    """
    find_grid(captioner)
    many = isinstance(images, list | tuple)
    sources = cast("Sequence[ImageSource]", images if many else [images])
    captions = captioner.stream(sources, options=captioner.options(**decoding))
    explanations = []
    for source, found in zip(sources, captions, strict=True):
        assert not isinstance(found, ImageError)  # it would have been raised
        best = found[0] if isinstance(found, list) else found
        explanations.append(explain_caption(captioner, load_image(source), best))
    return explanations if many else explanations[0]


@torch.inference_mode()
def explain_caption(captioner: Captioner, image: NDArray[np.uint8], caption: Caption) -> Explanation:
    """Where each word of a caption that the captioner gave an image was found.

    image: (H, W, 3) uint8.
    Raises: OptionError for a model whose features are no grid; ModelError where its numbers are not finite.
    """
    grid = find_grid(captioner)
    preprocess = captioner.encoder.preprocess
    features = captioner.encode(preprocess.resize_image(image).unsqueeze(0))  # (1, N, F)
    evidence = _measure(captioner, features, grid, caption.token_ids)  # (N, T)
    if not np.isfinite(evidence).all():
        raise ModelError(f"The model {captioner.name} gives numbers that are not finite; check its weights.")
    words = []
    for word, tokens in split_tokens(captioner.tokenizer, caption.token_ids):
        of_word = np.maximum(evidence[:, tokens].sum(axis=1), 0).reshape(grid)  # (h, w)
        strength = float(of_word.max())
        words.append(WordEvidence(word, of_word / (strength or 1), strength))
    height, width = image.shape[:2]
    left, top, right, bottom = preprocess.seen_box(height, width)
    return Explanation(caption, tuple(words), (left / width, top / height, right / width, bottom / height))


def find_grid(captioner: Captioner) -> tuple[int, int]:
    """Rows and columns (h, w) of the grid of features that the model reads.

    Raises: OptionError where it reads one vector an image, or patches that make no square.
    """
    shape = captioner.encoder.feature_shape
    if len(shape) != 2:
        raise OptionError(
            f"The model {captioner.name} reads one vector an image and cannot say where it looked; explain "
            "one that was trained on patches, such as nano."
        )
    side = math.isqrt(shape[0])
    if side * side != shape[0]:
        raise OptionError(
            f"The model {captioner.name} reads {shape[0]} patches, which make no square grid; explain "
            "another, such as nano."
        )
    return side, side


def split_tokens(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[tuple[str, slice]]:
    """The words of a caption, each with the slice of its tokens; together they are all tokens, if there is
    a word.

    A token that adds no word to the text belongs to the word before it: a later piece of a byte-pair word, a
    comma, the 's of "man's". What stands before the first word belongs to it.
    """
    starts: list[int] = []
    for number in range(len(token_ids)):
        if len(tokenizer.decode(token_ids[: number + 1]).split()) > len(starts):
            starts.append(number if starts else 0)
    spans = [slice(start, end) for start, end in pairwise([*starts, len(token_ids)])]
    return [(tokenizer.decode(token_ids[span]).strip(), span) for span in spans]


def draw_explanation(image: ImageSource, explanation: Explanation) -> NDArray[np.uint8]:
    """A sheet to look at, uint8 (H, W, 3): the caption, the picture, and a tile for each word with its map
    over the picture and, under the word, its strength. A map of a strength under 0.1 is drawn fainter.

    Raises: ImageError.
    """
    tiles = [
        Tile(word.evidence * np.float32(min(1.0, word.strength / _FAINT)), word.word, f"{word.strength:+.2f}")
        for word in explanation.words
    ]
    return draw_sheet(load_image(image), tiles, title=explanation.caption.text, box=explanation.box)


class SheetFolder:
    """A folder with a sheet, a PNG file, for each of some pictures. num_written: sheets so far."""

    def __init__(self, directory: Path, named: Sequence[Path], images: Sequence[Path]) -> None:
        """named: files and folders that a person named; images: what was found there.

        Raises: OptionError where `directory` is a file, or holds or lies among the pictures: sheets would
        take their place, or be taken for pictures next time.
        """
        if directory.exists() and not directory.is_dir():
            raise OptionError(f"--explain {directory} is a file; name a folder, such as explained.")
        place = directory.resolve()
        folders = {path.resolve() for path in named if path.is_dir()}
        homes = {home for image in images for home in (image.parent.resolve(), image.resolve().parent)}
        if place in homes or folders & {place, *place.parents}:
            raise OptionError(
                f"--explain {directory} is among the pictures; name a folder that is not, such as explained."
            )
        self.directory = directory
        self.images = images
        self.paths = [directory / name for name in _name_sheets(images)]
        self.num_written = 0

    def check(self, captioner: Captioner) -> None:
        """Find out before the work whether it can be done.

        Raises: OptionError for a model whose features are no grid; StorageError.
        """
        find_grid(captioner)
        check_writable(self.paths[0])

    def write(self, number: int, captioner: Captioner, caption: Caption) -> None:
        """The sheet of image `number` and the caption it was given, whole or not at all.

        Raises: StorageError, ImageError where the image is gone, and what `explain_caption` raises.
        """
        image = load_image(self.images[number])
        sheet = encode_png(draw_explanation(image, explain_caption(captioner, image, caption)))
        with atomic_path(self.paths[number]) as temporary:
            temporary.write_bytes(sheet)
        self.num_written += 1


def _name_sheets(images: Sequence[Path]) -> list[str]:
    """The images' names with .png; of equal names the later ones get a number."""
    counts: Counter[str] = Counter()
    taken: set[str] = set()
    names = []
    for image in images:
        stem = name = os.fsdecode(os.fsencode(image.stem)[:_STEM_BYTES])
        while name.lower() in taken:  # some disks do not tell A from a
            counts[stem] += 1
            name = f"{stem}-{counts[stem] + 1}"
        taken.add(name.lower())
        names.append(f"{name}.png")
    return names


def _measure(
    captioner: Captioner, features: torch.Tensor, grid: tuple[int, int], token_ids: Sequence[int]
) -> NDArray[np.float32]:
    """features (1, N, F) -> each cell's evidence for each token, (N, T)."""
    whole = _log_odds(captioner, features, token_ids)  # (1, T)
    mean = features.mean(dim=1, keepdim=True)  # (1, 1, F)
    windows = _windows(*grid).to(features.device)  # (M, N)
    losses = []
    for first in range(0, len(windows), _ROWS):
        blank = windows[first : first + _ROWS].unsqueeze(2)  # (R, N, 1)
        losses.append(whole - _log_odds(captioner, torch.where(blank, mean, features), token_ids))  # (R, T)
    held = windows.float()
    evidence = held.T @ torch.cat(losses) / held.sum(dim=0).unsqueeze(1)  # (N, T)
    return evidence.cpu().numpy()


def _windows(height: int, width: int) -> torch.Tensor:
    """All squares of cells that touch the grid, also those that reach past its edge: bool (M, N). So every
    cell is in equally many, and a thing of one cell has its peak there, in a corner too."""
    side = max(1, round(_WINDOW * min(height, width)))

    def spans(length: int) -> torch.Tensor:
        """bool (length + side - 1, length)."""
        starts, places = torch.arange(1 - side, length).unsqueeze(1), torch.arange(length)
        return (places >= starts) & (places < starts + side)

    rows, columns = spans(height), spans(width)
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(-1, height * width)


def _log_odds(captioner: Captioner, features: torch.Tensor, token_ids: Sequence[int]) -> torch.Tensor:
    """features (R, N, F) -> float32 (R, T): ln p - ln(1 - p) of each token, given those before it."""
    rows = features.shape[0]
    if not token_ids:
        return features.new_zeros((rows, 0), dtype=torch.float32)
    logits, state = captioner.model.start(features)  # (R, V)
    odds = [_odds_of(logits, token_ids[0])]
    for token_id, following in pairwise(token_ids):
        chosen = torch.full((rows,), token_id, device=features.device)  # (R,)
        logits, state = captioner.model.step(chosen, state)
        odds.append(_odds_of(logits, following))
    return torch.stack(odds, dim=1)


def _odds_of(logits: torch.Tensor, token_id: int) -> torch.Tensor:
    """logits (R, V) -> (R,): the token's logit less the log of all others' sum, exact where p is near 1."""
    others = logits.float().clone()  # (R, V)
    others[:, token_id] = -torch.inf
    return logits[:, token_id].float() - others.logsumexp(dim=1)
