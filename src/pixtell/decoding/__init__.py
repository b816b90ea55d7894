"""Logits -> token ids: greedy decoding, sampling and beam search over any CaptionDecoder.

    options.py    how captions are chosen
    searches.py   logits -> the next token of every row, and the captions that were found

Features go in; token ids come out, each caption with its log-probability. The loop is here; it sees a model
through `start`, `step` and `reorder` alone and knows neither text, images nor families. The images of a batch
advance together: a step is one call of `step` with one new token a row (nothing is read twice), and the
search waits for the device once, to learn how many rows go on; a model's `reorder` may wait as well.
"""

import math
from collections.abc import Collection, Iterator
from functools import partial

import torch
from torch import Tensor

from pixtell import logit_filters
from pixtell.decoding.options import DecodingOptions
from pixtell.decoding.searches import BeamSearch, DecodedCaption, Filters, Sampling, Search
from pixtell.errors import ModelError
from pixtell.models.base import CaptionDecoder

__all__ = ["DecodedCaption", "DecodingOptions", "Search", "decode", "generate"]


def decode(
    model: CaptionDecoder,
    features: Tensor,
    options: DecodingOptions,
    *,
    eos_id: int,
    forbidden_ids: Collection[int] = (),
) -> list[list[DecodedCaption]]:
    """Caption a batch of images, without gradients; the model's mode (train or eval) is the caller's.

    features: (B, F) or (B, N, F), on the model's device. eos_id: the token that ends a caption.
    forbidden_ids: tokens that no caption may contain.
    Returns: one list an image of num_captions captions, fewer only where a beam search finds no more; best
    first by logprob / num_tokens**length_penalty. Raises: OptionError; ModelError where logits are NaN.
    """
    captions: list[list[DecodedCaption]] = []
    for search in generate(model, features, options, eos_id=eos_id, forbidden_ids=forbidden_ids):
        if search.is_over:
            captions = search.captions()
    if any(not found or math.isnan(found[0].logprob) for found in captions):
        raise ModelError(
            "The model's logits are not numbers (NaN), its weights are damaged or its training ran away: "
            "take an earlier checkpoint, or train with a lower --learning-rate."
        )
    return captions


def generate(
    model: CaptionDecoder,
    features: Tensor,
    options: DecodingOptions,
    *,
    eos_id: int,
    forbidden_ids: Collection[int] = (),
) -> Iterator[Search]:
    """The core of `decode`, a step at a time: yields one and the same search, each time a token further.

    Its `captions()` are the best so far. Raises: OptionError, at once.
    """
    options.validate()
    filters: Filters = [partial(logit_filters.ban_early_eos, min_length=options.min_length, eos_id=eos_id)]
    if options.repetition_penalty != 1:
        filters.append(partial(logit_filters.penalise_repetition, penalty=options.repetition_penalty))
    if options.no_repeat_ngram_size is not None:
        filters.append(partial(logit_filters.ban_repeated_ngrams, size=options.no_repeat_ngram_size))
    if forbidden_ids:
        banned_ids = torch.tensor(sorted(forbidden_ids), device=features.device)
        filters.append(partial(logit_filters.ban_token_ids, banned_ids=banned_ids))
    kind = BeamSearch if options.beam_size > 1 else Sampling
    return _steps(model, features, kind(options, filters, eos_id, features))


@torch.no_grad()
def _steps(model: CaptionDecoder, features: Tensor, search: Search) -> Iterator[Search]:
    if len(features) == 0:
        return
    logits, state = model.start(features)  # (B, V)
    while True:
        rows, token_ids = search.advance(logits)  # (R,), (R,)
        yield search
        if search.is_over:
            return
        if rows is not None:
            state = model.reorder(state, rows)
        logits, state = model.step(token_ids, state)  # (R, V)
