"""Logit filters: what may be chosen next, and how likely it is made, before the choice.

Each filter is a pure function (logits (B, V), token_ids so far (B, T), keyword settings) -> logits (B, V). A
token with -inf cannot be chosen. Nothing is changed in place, nothing waits for the device, and a filter that
has nothing to do returns the very tensor it was given. Filters know neither models nor the search.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

LogitFilter = Callable[[Tensor, Tensor], Tensor]  # a filter whose settings are bound

_BANNED = float("-inf")


def scale_by_temperature(logits: Tensor, token_ids: Tensor, *, temperature: float) -> Tensor:
    """Sharpen (temperature < 1) or flatten (> 1) the distribution; below 0.000001 counts as that.

    The largest logit becomes 0 first, which changes no probability and keeps the division from overflowing.
    """
    return (logits - logits.amax(-1, keepdim=True)) / max(temperature, 1e-6)  # (B, V)


def keep_top_k(logits: Tensor, token_ids: Tensor, *, top_k: int) -> Tensor:
    """Ban all but the top_k largest logits of each row: never more of them, even where some are equal."""
    values, indices = logits.topk(min(top_k, logits.shape[-1]))  # (B, top_k)
    return torch.full_like(logits, _BANNED).scatter(-1, indices, values)  # (B, V)


def keep_top_p(logits: Tensor, token_ids: Tensor, *, top_p: float) -> Tensor:
    """Ban all but the nucleus (Holtzman et al. 2020): the smallest set of tokens of mass top_p or more.

    A token stays while the mass of the likelier ones is below top_p, so that at least one stays: of the
    probabilities 0.5, 0.3 and 0.2, top_p 0.6 keeps two and top_p 0.4 keeps one.
    """
    if top_p >= 1:
        return logits
    values, indices = logits.sort(-1, descending=True)  # (B, V)
    mass = values.softmax(-1, dtype=torch.float32).cumsum(-1)  # (B, V)
    mass_before = F.pad(mass[:, :-1], (1, 0))  # (B, V): of the likelier tokens
    return logits.scatter(-1, indices, values.masked_fill(mass_before >= top_p, _BANNED))  # (B, V)


def penalise_repetition(logits: Tensor, token_ids: Tensor, *, penalty: float) -> Tensor:
    """Make the tokens of the row less likely, once each (CTRL, Keskar et al. 2019).

    A logit above 0 is divided by the penalty, one below 0 multiplied by it.
    """
    if penalty == 1 or token_ids.shape[1] == 0:
        return logits
    seen = logits.gather(-1, token_ids)  # (B, T)
    return logits.scatter(-1, token_ids, torch.where(seen < 0, seen * penalty, seen / penalty))  # (B, V)


def ban_repeated_ngrams(logits: Tensor, token_ids: Tensor, *, size: int) -> Tensor:
    """Ban each token that would complete a run of `size` tokens which the row already contains.

    With size 2, after `a dog and a` the token `dog` is banned; with size 1 no token comes twice.
    """
    num_tokens = token_ids.shape[1]
    if num_tokens < size:
        return logits
    ngrams = token_ids.unfold(1, size, 1)  # (B, T - size + 1, size)
    tail = token_ids[:, num_tokens - size + 1 :].unsqueeze(1)  # (B, 1, size - 1)
    completes = (ngrams[..., :-1] == tail).all(-1)  # (B, T - size + 1)
    # A token that completes nothing is sent to a column past the vocabulary, which is cut off again.
    vocab_size = logits.shape[-1]
    columns = torch.where(completes, ngrams[..., -1], vocab_size)  # (B, T - size + 1)
    banned = torch.zeros(len(logits), vocab_size + 1, dtype=torch.bool, device=logits.device)
    return logits.masked_fill(banned.scatter(-1, columns, True)[:, :-1], _BANNED)  # (B, V)


def ban_early_eos(logits: Tensor, token_ids: Tensor, *, min_length: int, eos_id: int) -> Tensor:
    """Ban the end of the caption until min_length tokens stand before it."""
    if token_ids.shape[1] >= min_length:
        return logits
    banned = logits.clone()  # (B, V)
    banned[:, eos_id] = _BANNED
    return banned


def ban_token_ids(logits: Tensor, token_ids: Tensor, *, banned_ids: Sequence[int] | Tensor) -> Tensor:
    """Ban tokens by their ids; a tensor of ids on the device of the logits is not copied."""
    columns = torch.as_tensor(banned_ids, dtype=torch.long, device=logits.device)  # (number of banned ids,)
    return logits.index_fill(-1, columns, _BANNED)  # (B, V)


def apply_filters(
    logits: Tensor, token_ids: Tensor, *, filters: Sequence[LogitFilter], eos_id: int
) -> Tensor:
    """The filters one after another; a row in which they leave nothing to choose may end."""
    filtered = logits
    for logit_filter in filters:
        filtered = logit_filter(filtered, token_ids)
    if filtered is logits:
        return logits
    stuck = filtered.amax(-1) == _BANNED  # (B,)
    eos = torch.where(stuck, logits[:, eos_id], filtered[:, eos_id])  # (B,)
    filtered[:, eos_id] = eos  # into a tensor that is new: no filter changes its input
    return filtered
