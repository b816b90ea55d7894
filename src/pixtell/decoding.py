"""Logits -> token ids: greedy decoding, sampling and beam search over any CaptionDecoder.

Features go in; token ids come out, each caption with its log-probability. This file sees a model through
`start`, `step` and `reorder` alone and knows neither text, images nor families. The images of a batch advance
together: a step is one call of `step` with one new token a row (nothing is read twice), and waits for the
device once, to learn how many rows go on.

Letters: B images, N captions and K beams an image, R rows in the model's batch, T tokens, V vocabulary;
b images that are left, k beams that there are (fewer than K at first).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields, replace
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pixtell import logit_filters
from pixtell.errors import ModelError, OptionError
from pixtell.logit_filters import LogitFilter
from pixtell.models.base import CaptionDecoder
from pixtell.options import flag_name, option

Filters = list[LogitFilter]

_NEVER = float("-inf")
_LEAVING_SHARE = 0.25  # rows leave once so many of them have ended: leaving copies the state of the others


@dataclass(frozen=True, kw_only=True)
class DecodingOptions:
    """How captions are chosen. `decode` calls `validate` first, which reads the limits and examples."""

    beam_size: int = option(1, "Live sequences an image in beam search; 1: greedy, or draws.", example=3)
    max_new_tokens: int = option(30, "Limit of a caption in tokens, the end token counted.", example=30)
    length_penalty: float = option(
        0.7, "Captions rank by logprob / length**A; more: longer ones.", limits="[-5, 5]", example=0.7
    )
    temperature: float = option(
        0.0, "0 takes the likeliest; above 0 draws (beam size 1).", limits="[0, 100]", example=0.7
    )
    top_k: int | None = option(None, "Draw among the K likeliest tokens; left out: all.", example=50)
    top_p: float | None = option(
        None, "Draw among the fewest tokens of mass P; left out: all.", limits="(0, 1]", example=0.9
    )
    num_captions: int = option(1, "Captions an image; at most the beam size, unless drawn.", example=1)
    seed: int = option(0, "Seed of the draws: same batch, same captions.", limits="[0, 1e18]", example=0)
    min_length: int = option(1, "Least tokens before the end token; 0: none.", limits="[0, inf)", example=5)
    repetition_penalty: float = option(
        1.0, "Above 1, tokens that were used become less likely.", limits="[0.01, 100]", example=1.2
    )
    no_repeat_ngram_size: int | None = option(
        None, "No run of so many tokens comes twice; left out: it may.", example=3
    )
    early_stopping: bool = option(
        False, "Beam search ends where no sequence would win as it stands: quicker, not exact.", example=True
    )

    def validate(self) -> None:
        """Raises: OptionError with a sentence for each problem; rules across fields come last."""
        problems = [text for field in fields(self) for text in _field_problems(self, field)]
        if problems := problems or list(_conflicts(self)):
            raise OptionError(" ".join(problems))

    def changed(self, given: Mapping[str, Any]) -> "DecodingOptions":
        """These, a model's own, with the fields that a person gave. Who asks for a temperature and no beam
        size draws, whatever beams the model brings.

        Raises: OptionError for a field that does not exist, and for one that was given and changes nothing.
        """
        names = {field.name for field in fields(self)}
        if unknown := sorted(set(given) - names):
            raise OptionError(
                f"There is no decoding option {unknown[0]!r}; choose from {', '.join(sorted(names))}."
            )
        draws = {"beam_size": 1} if given.get("temperature") else {}
        options = replace(self, **(draws | dict(given)))
        if problems := list(_idle(options, given)):
            raise OptionError(" ".join(problems))
        return options


def _idle(options: DecodingOptions, given: Mapping[str, Any]) -> Iterator[str]:
    """Of a model's own options these are no fault: they wait for a beam size."""
    if options.beam_size != 1:
        return
    or_beams = "leave it out" if options.temperature else "add --beam-size 3 or leave it out"
    if given.get("early_stopping") is True:
        yield f"--early-stopping changes nothing at --beam-size 1; {or_beams}."
    if "length_penalty" in given and options.num_captions == 1:
        yield f"--length-penalty {given['length_penalty']} changes nothing at --beam-size 1; {or_beams}."


def _field_problems(options: DecodingOptions, field: Field[Any]) -> Iterator[str]:
    value, example = getattr(options, field.name), field.metadata["example"]
    if isinstance(example, bool):
        if not isinstance(value, bool):
            yield f"{flag_name(field.name)} {value} is neither true nor false; give one of them."
        return
    limits, whole = field.metadata.get("limits", "[1, inf)"), isinstance(example, int)
    low, high = (float(limit) for limit in limits[1:-1].split(","))
    if value is None and field.default is None:
        return
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        wrong = f"is not a {'whole ' * whole}number"
    elif not low <= value <= high or (value == low and limits[0] == "("):
        wrong = f"is outside {limits}"
    else:
        return
    yield f"{flag_name(field.name)} {value} {wrong}; give a number such as {example}."


def _conflicts(options: DecodingOptions) -> Iterator[str]:
    temperature, beam_size = options.temperature, options.beam_size
    if temperature > 0 and beam_size > 1:
        yield f"--temperature {temperature} draws, which --beam-size {beam_size} cannot do; leave one out."
    for flag, value in (("--top-k", options.top_k), ("--top-p", options.top_p)):
        if temperature == 0 and value is not None:
            yield f"{flag} {value} changes nothing at --temperature 0; add --temperature 1 or leave it out."
    if temperature == 0 and options.num_captions > beam_size:
        yield (
            f"--num-captions {options.num_captions} is more than --beam-size {beam_size} can find; "
            f"give --beam-size {options.num_captions}, or --temperature 1 to draw them."
        )
    if options.min_length > options.max_new_tokens:
        excess = f"--min-length {options.min_length} is more than --max-new-tokens {options.max_new_tokens}"
        yield f"{excess}; lower the one or raise the other."


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
            "The model's logits are not numbers (NaN), its weights are damaged or its training ran "
            "away: take an "
            "earlier checkpoint, or train with a lower --learning-rate."
        )
    return captions


def generate(
    model: CaptionDecoder,
    features: Tensor,
    options: DecodingOptions,
    *,
    eos_id: int,
    forbidden_ids: Collection[int] = (),
) -> "Iterator[Search]":
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
def _steps(model: CaptionDecoder, features: Tensor, search: "Search") -> "Iterator[Search]":
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
        ranks = (filtered.view(b, k, -1) + self.live.rank[..., None]).flatten(1)  # (b, k * V)
        rank, index = ranks.topk(min(2 * beam_size, k * vocab_size))  # (b, c): the candidates, best first
        parents, chosen = index // vocab_size, index % vocab_size  # (b, c)
        grown = self.live.pick(parents)
        logprob = grown.logprob + log_probs.view(b, -1).gather(1, index)  # (b, c)
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
