"""The searches: logits of a step -> the next token of every row, until the captions are found.

A search sees logits alone, never the model; what `advance` returns says how the model's rows go on.

Letters: B images, N captions and K beams an image, R rows in the model's batch, T tokens, V vocabulary;
b images that are left, k beams that there are (fewer than K at first).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixtell import logit_filters
from pixtell.decoding.options import DecodingOptions
from pixtell.logit_filters import LogitFilter

Filters = list[LogitFilter]

_NEVER = float("-inf")
_LEAVING_SHARE = 0.25  # rows leave once so many of them have ended: leaving copies the state of the others


@dataclass(frozen=True)
class DecodedCaption:
    """One caption in token ids.

    token_ids: without the end token. num_tokens: new tokens, the end token counted. finished: whether it came
    to the end token. logprob: sum of the natural logs of the new tokens' probabilities, before any filter.
    """

    token_ids: tuple[int, ...]
    logprob: float
    num_tokens: int
    finished: bool


class Search(ABC):
    """A search under way: takes logits, says how the batch goes on."""

    def __init__(self, options: DecodingOptions, filters: Filters, eos_id: int, features: Tensor) -> None:
        self.options, self.eos_id, self.num_images = options, eos_id, len(features)
        self.is_over = False
        self.filter = partial(logit_filters.apply_filters, filters=filters, eos_id=eos_id)

    @abstractmethod
    def advance(self, logits: Tensor) -> tuple[Tensor | None, Tensor]:
        """Choose the next token of every row.

        logits: (R, V); the first time (B, V), one row an image.
        Returns: the row that each row to come continues (R',), or None if all stay, and its token (R',).
        """

    @abstractmethod
    def _found(self) -> Iterable[tuple[int, list[int], float]]:
        """Captions so far: image, token ids (what follows an eos means nothing), logprob."""

    def captions(self) -> list[list[DecodedCaption]]:
        """The best captions so far, one list an image, best first. Waits for the device."""
        captions: list[list[DecodedCaption]] = [[] for _ in range(self.num_images)]
        for image, token_ids, logprob in self._found():
            finished = self.eos_id in token_ids
            length = token_ids.index(self.eos_id) if finished else len(token_ids)
            caption = DecodedCaption(tuple(token_ids[:length]), logprob, length + finished, finished)
            captions[image].append(caption)
        penalty, count = self.options.length_penalty, self.options.num_captions
        return [
            sorted(found, key=lambda one: one.logprob / one.num_tokens**penalty, reverse=True)[:count]
            for found in captions
        ]


class Sampling(Search):
    """One row a caption: the likeliest token at temperature 0 (greedy decoding), a draw above it."""

    def __init__(self, options: DecodingOptions, filters: Filters, eos_id: int, features: Tensor) -> None:
        super().__init__(options, filters, eos_id, features)
        device, num_rows = features.device, len(features) * options.num_captions
        self.token_ids = torch.zeros(num_rows, 0, dtype=torch.long, device=device)  # (B * N, T)
        self.logprob = torch.zeros(num_rows, device=device)  # (B * N,)
        self.rows = torch.arange(num_rows, device=device)  # (R,): the captions that are in the batch
        self.ended = torch.zeros(num_rows, dtype=torch.bool, device=device)  # (R,)
        self.generator = torch.Generator(device).manual_seed(options.seed)

    def advance(self, logits: Tensor) -> tuple[Tensor | None, Tensor]:
        parents = None
        if len(logits) < len(self.rows):  # the first time, with several captions an image
            images = torch.arange(len(logits), device=logits.device)
            parents = images.repeat_interleave(self.options.num_captions)  # (B * N,)
            logits = logits[parents]
        logits = logits.float()  # (R, V)
        chosen = self._choose(self.filter(logits, self.token_ids[self.rows]))  # (R,)
        log_probs = -F.cross_entropy(logits, chosen, reduction="none")  # (R,)
        self.logprob = self.logprob.index_add(0, self.rows, log_probs.masked_fill(self.ended, 0))
        column = torch.full_like(self.logprob, self.eos_id, dtype=torch.long).index_copy(0, self.rows, chosen)
        self.token_ids = torch.cat([self.token_ids, column[:, None]], 1)  # (B * N, T)

        self.ended = self.ended | (chosen == self.eos_id)
        at_limit = self.token_ids.shape[1] == self.options.max_new_tokens
        num_left = 0 if at_limit else int((~self.ended).sum())  # the step's one wait
        self.is_over = num_left == 0
        if num_left > (1 - _LEAVING_SHARE) * len(chosen):
            return parents, chosen
        left = self.ended.int().argsort(stable=True)[:num_left]  # (R',)
        self.rows, self.ended = self.rows[left], self.ended[left]
        return left if parents is None else parents[left], chosen[left]

    def _choose(self, logits: Tensor) -> Tensor:
        """logits (R, V) -> token_ids (R,)."""
        options = self.options
        if options.temperature == 0:
            return logits.argmax(-1)
        so_far = self.token_ids[self.rows]
        logits = logit_filters.scale_by_temperature(logits, so_far, temperature=options.temperature)
        if options.top_k is not None:
            logits = logit_filters.keep_top_k(logits, so_far, top_k=options.top_k)
        if options.top_p is not None:
            logits = logit_filters.keep_top_p(logits, so_far, top_p=options.top_p)
        # The largest of probability / Exp(1) falls on a token as often as its probability says; unlike
        # torch.multinomial this never waits for the device.
        noise = torch.empty_like(logits).exponential_(generator=self.generator)
        return (logits.softmax(-1) / noise.clamp(min=torch.finfo(noise.dtype).tiny)).argmax(-1)

    def _found(self) -> Iterable[tuple[int, list[int], float]]:
        images = [row // self.options.num_captions for row in range(len(self.token_ids))]
        return zip(images, self.token_ids.tolist(), self.logprob.tolist(), strict=True)


class _Beams(NamedTuple):
    """k sequences for each of b images."""

    rank: Tensor  # (b, k): larger is better, -inf: no sequence
    logprob: Tensor  # (b, k)
    token_ids: Tensor  # (b, k, T), eos after the end

    def pick(self, index: Tensor) -> "_Beams":
        """index: (b, j), which of an image's k sequences."""
        ids_index = index[..., None].expand(-1, -1, self.token_ids.shape[-1])  # (b, j, T)
        return _Beams(
            self.rank.gather(1, index), self.logprob.gather(1, index), self.token_ids.gather(1, ids_index)
        )


class BeamSearch(Search):
    """K live sequences an image, and the best N that have ended (as in transformers' `generate`).

    A step takes the best 2 K continuations: those that end among the first K join the ended ones, the best K
    that do not end live on. Live ones rank by the sum of their filtered log_probs, ended ones by that sum /
    length**length_penalty. An image leaves when its live ones can no longer beat the worst it keeps; with
    early_stopping, when they would not at their present length.
    """

    def __init__(self, options: DecodingOptions, filters: Filters, eos_id: int, features: Tensor) -> None:
        super().__init__(options, filters, eos_id, features)
        zeros = torch.zeros(len(features), options.num_captions, device=features.device)
        no_ids = zeros[..., None].long()[..., :0]
        self.images = torch.arange(len(features), device=features.device)  # (b,): the images in the batch
        self.live = _Beams(zeros[:, :1], zeros[:, :1], no_ids[:, :1])  # b images, k sequences
        self.ended = _Beams(zeros + _NEVER, zeros, no_ids)  # B images, N sequences

    def advance(self, logits: Tensor) -> tuple[Tensor | None, Tensor]:
        beam_size, penalty = self.options.beam_size, self.options.length_penalty
        b, k, length = self.live.token_ids.shape
        length, vocab_size = length + 1, logits.shape[-1]
        log_probs = logits.float().log_softmax(-1)  # (b * k, V)
        filtered = self.filter(log_probs, self.live.token_ids.flatten(0, 1))  # (b * k, V)
        # The candidates of each sequence first, then of the image: no sum over all of k * V is
        # written. V' = min(2 K, V).
        best = filtered.view(b, k, -1).topk(min(2 * beam_size, vocab_size))  # (b, k, V') each
        ranks = (best.values + self.live.rank[..., None]).flatten(1)  # (b, k * V')
        rank, places = ranks.topk(min(2 * beam_size, ranks.shape[1]))  # (b, c): the candidates, best first
        chosen = best.indices.flatten(1).gather(1, places)  # (b, c)
        parents = places // best.indices.shape[2]  # (b, c)
        grown = self.live.pick(parents)
        logprob = grown.logprob + log_probs.view(b, -1).gather(1, parents * vocab_size + chosen)  # (b, c)
        token_ids = torch.cat([grown.token_ids, chosen[..., None]], -1)  # (b, c, T)

        at_limit = length == self.options.max_new_tokens
        ends = chosen == self.eos_id  # (b, c)
        ended_rank = (rank if at_limit else rank.masked_fill(~ends, _NEVER)) / length**penalty  # (b, c)
        ended = _Beams(*(part[:, :beam_size] for part in (ended_rank, logprob, token_ids)))
        worst = self._keep_ended(ended)  # (b,)

        # A small vocabulary has fewer than beam_size ways to go on.
        width = max(1, min(beam_size, k * (vocab_size - 1)))
        alive = _Beams(rank.masked_fill(ends, _NEVER), logprob, token_ids)  # (b, c)
        going_on = alive.rank.topk(width).indices  # (b, width), best first
        alive = alive.pick(going_on)  # (b, width)
        # A sum of log_probs can only fall, so that the best a live sequence can reach is today's sum at the
        # kindest length: the longest where the penalty is above 0.
        kindest = self.options.max_new_tokens if penalty > 0 else length + 1
        if self.options.early_stopping:
            kindest = length
        hopeless = alive.rank[:, 0] / kindest**penalty <= worst  # (b,)
        num_left = 0 if at_limit else int((~hopeless).sum())  # the step's one wait
        self.is_over = num_left == 0
        left = hopeless.int().argsort(stable=True)[:num_left]  # (b',)
        rows = parents.gather(1, going_on) + k * torch.arange(b, device=logits.device)[:, None]  # (b, width)
        self.images = self.images[left]
        self.live = _Beams(*(part[left] for part in alive))
        return rows[left].flatten(), self.live.token_ids[..., -1].flatten()  # (b' * width,)

    def _keep_ended(self, found: _Beams) -> Tensor:
        """Merge the newly ended (b, j) into the ended (B, N); returns the worst rank that is kept (b,)."""
        padded_ids = F.pad(self.ended.token_ids, (0, 1), value=self.eos_id)  # (B, N, T)
        ended = self.ended._replace(token_ids=padded_ids)
        pairs = zip(ended, found, strict=True)
        merged = _Beams(*(torch.cat([old[self.images], new], 1) for old, new in pairs))  # (b, N + j)
        best = merged.pick(merged.rank.topk(self.options.num_captions).indices)  # (b, N)
        pairs = zip(ended, best, strict=True)
        self.ended = _Beams(*(old.index_copy(0, self.images, new) for old, new in pairs))
        return best.rank[:, -1]

    def _found(self) -> Iterable[tuple[int, list[int], float]]:
        for images, beams in ((range(self.num_images), self.ended), (self.images.tolist(), self.live)):
            for image, *rows in zip(images, *(part.tolist() for part in beams), strict=True):
                for rank, logprob, token_ids in zip(*rows, strict=True):
                    if rank > _NEVER:
                        yield image, token_ids, logprob
