"""logit_filters.py against its definitions, row by row in plain Python."""

import itertools
import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pixtell.logit_filters import (
    apply_filters,
    ban_early_eos,
    ban_repeated_ngrams,
    ban_token_ids,
    keep_top_k,
    keep_top_p,
    penalise_repetition,
    scale_by_temperature,
)

V = 6
NO_IDS = torch.empty(1, 0, dtype=torch.long)

logit_rows = st.lists(st.floats(-8, 8, width=32), min_size=V, max_size=V)
id_rows = st.lists(st.integers(0, V - 1), max_size=12)


def kept(logits: Tensor) -> list[set[int]]:
    return [{token for token, logit in enumerate(row) if logit > -math.inf} for row in logits.tolist()]


@given(st.lists(logit_rows, min_size=1, max_size=4), st.floats(0.01, 1))
@settings(max_examples=150, deadline=None)
def test_top_p_keeps_the_smallest_set_with_the_mass(rows: list[list[float]], top_p: float) -> None:
    logits = torch.tensor(rows)
    filtered = keep_top_p(logits, NO_IDS, top_p=top_p)
    for row, result, tokens in zip(logits, filtered, kept(filtered), strict=True):
        probabilities = row.double().softmax(-1).tolist()
        mass = sum(probabilities[token] for token in tokens)
        assert tokens, "at least one token stays"
        assert mass >= top_p - 1e-5
        if top_p < 1:
            assert mass - min(probabilities[token] for token in tokens) < top_p + 1e-5
        assert all(
            probabilities[token] <= min(probabilities[one] for one in tokens)
            for token in set(range(V)) - tokens
        )
        assert all(result[token] == row[token] for token in tokens)


@pytest.mark.parametrize(("top_p", "size"), [(0.4, 1), (0.5, 1), (0.6, 2), (0.9, 3), (1.0, 3), (1e-12, 1)])
def test_top_p_on_the_numbers_of_its_docstring(top_p: float, size: int) -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    assert len(kept(keep_top_p(logits, NO_IDS, top_p=top_p))[0]) == size


@given(logit_rows, st.integers(1, V + 3))
@settings(max_examples=100, deadline=None)
def test_top_k_keeps_k_of_the_largest(row: list[float], top_k: int) -> None:
    (tokens,) = kept(keep_top_k(torch.tensor([row]), NO_IDS, top_k=top_k))
    assert len(tokens) == min(top_k, V)
    assert sorted(row[token] for token in tokens) == sorted(row)[-len(tokens) :]


@pytest.mark.parametrize("temperature", [1e-300, 1e-3, 0.5, 1.0, 3.0, 100.0])
def test_temperature_divides_logits(temperature: float) -> None:
    logits = torch.tensor([[1000.0, 999.0, -math.inf], [0.5, -2.0, 0.25]])
    result = scale_by_temperature(logits, NO_IDS, temperature=temperature).softmax(-1)
    expected = (logits.double() / max(temperature, 1e-6)).softmax(-1)
    torch.testing.assert_close(result.double(), expected, atol=1e-6, rtol=1e-5)


@given(st.lists(st.tuples(logit_rows, id_rows), min_size=1, max_size=4), st.floats(0.5, 3))
@settings(max_examples=100, deadline=None)
def test_repetition_penalty_weakens_each_used_token_once(
    rows: list[tuple[list[float], list[int]]], penalty: float
) -> None:
    length = min(len(ids) for _, ids in rows)
    ids = torch.tensor([ids[:length] for _, ids in rows]).long().view(len(rows), length)
    logits = torch.tensor([row for row, _ in rows])
    expected = logits.clone()
    for row, used in zip(expected, ids.tolist(), strict=True):
        for token in set(used):
            row[token] = row[token] * penalty if row[token] < 0 else row[token] / penalty
    torch.testing.assert_close(penalise_repetition(logits, ids, penalty=penalty), expected)


@given(st.lists(id_rows, min_size=1, max_size=4), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_no_repeat_bans_just_what_would_complete_a_seen_ngram(rows: list[list[int]], size: int) -> None:
    length = min(map(len, rows))
    rows = [row[:length] for row in rows]
    ids = torch.tensor(rows).long().view(len(rows), length)
    filtered = ban_repeated_ngrams(torch.zeros(len(rows), V), ids, size=size)
    for row, tokens in zip(rows, kept(filtered), strict=True):
        seen = {tuple(row[start : start + size]) for start in range(length - size + 1)}
        assert tokens == {token for token in range(V) if tuple([*row, token][-size:]) not in seen}


def test_eos_is_banned_until_the_minimum_length() -> None:
    logits = torch.zeros(2, V)
    for length in range(5):
        ids = torch.ones(2, length, dtype=torch.long)
        banned = kept(ban_early_eos(logits, ids, min_length=3, eos_id=4)) == [set(range(V)) - {4}] * 2
        assert banned == (length < 3)


def test_ids_are_banned_as_a_list_and_as_a_tensor() -> None:
    for banned_ids in ([5, 1], torch.tensor([5, 1])):
        assert kept(ban_token_ids(torch.zeros(2, V), NO_IDS, banned_ids=banned_ids)) == [{0, 2, 3, 4}] * 2


def test_a_row_with_everything_banned_may_end_and_the_others_stay() -> None:
    logits = torch.arange(2.0 * V).view(2, V)
    ids = torch.tensor([[1, 2, 3, 4, 5], [1, 1, 1, 1, 1]])
    filters = [partial(ban_repeated_ngrams, size=1), partial(ban_early_eos, min_length=9, eos_id=0)]
    filtered = apply_filters(logits, ids, filters=filters, eos_id=0)
    assert kept(filtered) == [{0}, {2, 3, 4, 5}]
    assert filtered[0, 0] == logits[0, 0]


EVERY_FILTER: list[Callable[[Tensor, Tensor], Tensor]] = [
    partial(scale_by_temperature, temperature=0.7),
    partial(keep_top_k, top_k=2),
    partial(keep_top_p, top_p=0.6),
    partial(penalise_repetition, penalty=1.3),
    partial(ban_repeated_ngrams, size=2),
    partial(ban_early_eos, min_length=9, eos_id=0),
    partial(ban_token_ids, banned_ids=[1]),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("logit_filter", EVERY_FILTER)
def test_filters_change_nothing_in_place_and_treat_rows_apart(
    logit_filter: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, V, generator=generator).to(dtype)
    ids = torch.randint(V, (5, 7), generator=generator)
    before = logits.clone()
    result = logit_filter(logits, ids)
    assert torch.equal(logits, before)
    assert result.shape == logits.shape
    assert result.dtype == dtype
    alone = torch.cat([logit_filter(logits[i : i + 1], ids[i : i + 1]) for i in range(5)])
    assert torch.equal(result, alone)


def test_filters_without_anything_to_do_return_their_input() -> None:
    logits, ids = torch.zeros(1, V), torch.ones(1, 3, dtype=torch.long)
    assert keep_top_p(logits, ids, top_p=1.0) is logits
    assert penalise_repetition(logits, ids, penalty=1.0) is logits
    assert penalise_repetition(logits, NO_IDS, penalty=2.0) is logits
    assert ban_repeated_ngrams(logits, ids, size=4) is logits
    assert ban_early_eos(logits, ids, min_length=3, eos_id=0) is logits
    assert apply_filters(logits, ids, filters=[], eos_id=0) is logits
    assert list(itertools.chain.from_iterable(kept(logits))) == list(range(V))
