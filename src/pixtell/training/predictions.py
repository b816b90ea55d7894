"""The predictions of a batch of captions: logits of those tokens that somebody learns from, no others.

In: a model that has read its images, captions. Out: logits and labels, part by part. Padding is never
projected onto the vocabulary, which is the largest product of a training step.
"""

from collections.abc import Collection, Iterator
from typing import NamedTuple

import torch

from pixtell.batching import IGNORED, CaptionBatch, split_by_length
from pixtell.models.base import CaptionModel, DecodingState


class Predictions(NamedTuple):
    """M tokens of some captions."""

    logits: torch.Tensor  # fp32 (M, V)
    labels: torch.Tensor  # (M,), what was said
    captions: torch.Tensor  # (M,), by whom: places in the batch


def predict(
    model: CaptionModel,
    first_logits: torch.Tensor,
    state: DecodingState,
    batch: CaptionBatch,
    *,
    ignored_ids: Collection[int] = (),
) -> Iterator[Predictions]:
    """All labels of a batch but padding and `ignored_ids`, in parts: captions of like length, of these first
    the first tokens, then the further ones.

    first_logits (B, V), state: what the model's `start` gave.
    """
    device = first_logits.device
    ignored = torch.tensor([IGNORED, *ignored_ids])
    for captions, group in split_by_length(batch):
        wanted = ~torch.isin(group.labels, ignored)  # (c, T), on the CPU
        first = wanted[:, 0].nonzero()[:, 0]  # (m,)
        logits = first_logits.index_select(0, group.image_index[first].to(device))  # (m, V)
        yield Predictions(logits.float(), group.labels[first, 0].to(device), captions[first].to(device))

        hidden = model.read(state, group.token_ids.to(device), group.image_index.to(device))  # (c, T - 1, W)
        caption, place = wanted[:, 1:].nonzero(as_tuple=True)  # (m,) each
        chosen = hidden.flatten(0, 1)[(caption * hidden.shape[1] + place).to(device)]  # (m, W)
        labels = group.labels[caption, place + 1].to(device)  # (m,)
        yield Predictions(model.project(chosen).float(), labels, captions[caption].to(device))
