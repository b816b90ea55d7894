"""Records and features -> padded batches.

In: captions as token ids, features an image. Out: `CaptionBatch`, in which the captions of an image share
its row of features. It knows neither models nor objectives.
"""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass

import torch

from pixtell.errors import DatasetError
from pixtell.tokenizers import Tokenizer

IGNORED = -100  # a label that the loss leaves out (torch's default ignore_index)


@dataclass(frozen=True)
class CaptionBatch:
    """C captions of B images. Padding is any id for the model and IGNORED for the loss, so that every id
    can be learned."""

    rows: torch.Tensor  # (B,) places of the images in the training set
    token_ids: torch.Tensor  # (C, T)
    labels: torch.Tensor  # (C, T), token_ids with IGNORED behind eos
    image_index: torch.Tensor  # (C,), which of the B images a caption describes


def encode_captions(
    captions: Sequence[Sequence[str]], tokenizer: Tokenizer, *, max_tokens: int
) -> list[list[list[int]]]:
    """Token ids of every caption of every image, each ending in eos, cut to `max_tokens` (then without eos).

    Raises: DatasetError where not one token is left to learn from.
    """
    encoded = [
        [[*tokenizer.encode(caption), tokenizer.eos_id][:max_tokens] for caption in of_image]
        for of_image in captions
    ]
    if not any(len(token_ids) > 1 for of_image in encoded for token_ids in of_image):
        raise DatasetError("The training captions hold no word; give images whose captions are sentences.")
    return encoded


def epoch_batches(images: Sized, batch_size: int, generator: torch.Generator) -> list[torch.Tensor]:
    """The images of one epoch, shuffled, as rows (B,) a batch; the last batch may be smaller."""
    return list(torch.split(torch.randperm(len(images), generator=generator), batch_size))


def make_batch(captions: Sequence[Sequence[Sequence[int]]], rows: torch.Tensor) -> CaptionBatch:
    """All captions of the images at `rows`, padded to the longest of them."""
    chosen = [(place, token_ids) for place, row in enumerate(rows.tolist()) for token_ids in captions[row]]
    longest = max(len(token_ids) for _, token_ids in chosen)
    labels = torch.tensor([[*ids, *[IGNORED] * (longest - len(ids))] for _, ids in chosen])  # (C, T)
    image_index = torch.tensor([place for place, _ in chosen])
    return CaptionBatch(rows, labels.clamp(min=0), labels, image_index)


def split_by_length(batch: CaptionBatch, num_groups: int = 4) -> Iterator[tuple[torch.Tensor, CaptionBatch]]:
    """The captions of a batch in groups of like length, each padded to its own longest: padded to the longest
    of all, more than half of a batch is padding.

    Yields: which captions (c,), and they as a batch of the same images.
    """
    lengths = (batch.labels != IGNORED).sum(1)  # (C,)
    for chosen in torch.tensor_split(lengths.argsort(stable=True), num_groups):
        if len(chosen):
            kept = chosen, slice(int(lengths[chosen].max()))
            yield (
                chosen,
                CaptionBatch(
                    batch.rows, batch.token_ids[kept], batch.labels[kept], batch.image_index[chosen]
                ),
            )
