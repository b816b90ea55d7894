"""GPT-2 reads in pieces what it reads at once, and its cache is a value.

That it equals transformers' is in test_converters.py, through saved files.
"""

import math
from dataclasses import replace

import pytest
import torch

from pixtell.errors import ModelError
from pixtell.models.gpt2 import Gpt2, Gpt2Config
from pixtell.models.kv_cache import KVCache

CONFIG = Gpt2Config(vocab_size=31, width=24, num_layers=3, num_heads=4, max_positions=20)


@pytest.fixture
def model() -> Gpt2:
    """Random weights, large enough that position and attention matter."""
    torch.manual_seed(0)
    model = Gpt2(CONFIG).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def read(model: Gpt2, embeddings: torch.Tensor, lengths: list[int]) -> torch.Tensor:
    """The hidden states (B, T, D) of embeddings read in pieces of these lengths."""
    cache: KVCache | None = None
    pieces = []
    for piece in embeddings.split(lengths, dim=1):
        hidden, cache = model(piece, cache)
        pieces.append(hidden)
    assert cache is not None
    assert cache.length == embeddings.shape[1]
    return torch.cat(pieces, dim=1)


@pytest.mark.parametrize("lengths", [[12], [1] * 12, [5, 7], [4, 1, 1, 5, 1]])
@pytest.mark.parametrize("with_gradients", [False, True])
def test_pieces_equal_the_whole(model: Gpt2, lengths: list[int], with_gradients: bool) -> None:
    embeddings = torch.randn(2, 12, 24)
    with torch.set_grad_enabled(with_gradients):
        pieces = read(model, embeddings, lengths)
        whole = model(embeddings)[0]
    assert torch.allclose(pieces, whole, atol=1e-5)


def test_no_position_looks_ahead(model: Gpt2) -> None:
    embeddings = torch.randn(1, 9, 24)
    changed = embeddings.clone()
    changed[:, 6:] = torch.randn(1, 3, 24)
    before, after = model(embeddings)[0], model(changed)[0]
    assert torch.allclose(before[:, :6], after[:, :6], atol=1e-6)
    assert not torch.allclose(before[:, 6:], after[:, 6:], atol=1e-2)


def test_the_last_position_alone_is_that_of_all(model: Gpt2) -> None:
    """What follows may look at all positions all the same."""
    embeddings, following = torch.randn(2, 6, 24), torch.randn(2, 2, 24)
    positions = []  # that the last block's feed-forward saw
    model.h[-1].mlp.register_forward_hook(lambda _, __, output: positions.append(output.shape[1]))
    every, cache_of_all = model(embeddings)
    last, cache_of_last = model(embeddings, last_only=True)
    assert positions == [6, 1]
    assert torch.allclose(last, every[:, -1:], atol=1e-5)
    assert torch.allclose(model(following, cache_of_last)[0], model(following, cache_of_all)[0], atol=1e-5)


def test_gradients_go_through_the_cache(model: Gpt2) -> None:
    gradients = []
    for lengths in ([10], [4, 6]):
        embeddings = torch.randn(2, 10, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
        model.zero_grad()
        read(model, embeddings, lengths)[:, -1].square().sum().backward()
        assert embeddings.grad is not None
        gradients.append([embeddings.grad, *(parameter.grad for parameter in model.h.parameters())])
    for whole, pieces in zip(*gradients, strict=True):
        assert torch.allclose(whole, pieces, atol=1e-4 * float(whole.abs().max()))


@pytest.mark.parametrize("with_gradients", [False, True])
def test_a_cache_is_not_changed_by_those_that_grow_from_it(model: Gpt2, with_gradients: bool) -> None:
    """Two continuations of one cache do not write over each other, nor over it."""
    start, first, second, last = torch.randn(2, 16, 24).split([5, 3, 3, 5], dim=1)
    with torch.set_grad_enabled(with_gradients):
        _, root = model(start)
        _, root = model(first[:, :1], root)  # its buffer has room now
        _, left = model(first[:, 1:], root)
        _, right = model(second[:, 1:], root)
        after_left = model(last, left)[0]
        after_right = model(last, right)[0]
        expected_left = model(torch.cat((start, first, last), dim=1))[0][:, 8:]
        expected_right = model(torch.cat((start, first[:, :1], second[:, 1:], last), dim=1))[0][:, 8:]
    assert torch.allclose(after_left, expected_left, atol=1e-5)
    assert torch.allclose(after_right, expected_right, atol=1e-5)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_selected_rows_go_on_as_rows_of_their_own(model: Gpt2, with_gradients: bool) -> None:
    rows = torch.tensor([2, 0, 0, 1, 2])
    embeddings, following = torch.randn(3, 6, 24), torch.randn(5, 4, 24)
    with torch.set_grad_enabled(with_gradients):
        _, cache = model(embeddings)
        continued = model(following, cache.select(rows))[0]
        expected = model(torch.cat((embeddings[rows], following), dim=1))[0][:, 6:]
    assert torch.allclose(continued, expected, atol=1e-5)


@torch.no_grad()
def test_decoding_copies_a_cache_only_where_its_buffer_is_full() -> None:
    """From 4 positions to 60 the memory changes twice: 4 -> room for a caption, 37 -> room for 76."""
    model = Gpt2(replace(CONFIG, max_positions=60))
    _, cache = model(torch.randn(1, 4, 24))
    buffers = []
    for _ in range(56):
        _, cache = model(torch.randn(1, 1, 24), cache)
        buffers.append(cache.layers[0].buffer.keys_values)
    assert len({buffer.data_ptr() for buffer in buffers}) == 2
    assert [buffer.shape[3] for buffer in buffers] == 33 * [37] + 23 * [76]


@torch.no_grad()
def test_reordering_keeps_the_room_to_grow(model: Gpt2) -> None:
    _, cache = model(torch.randn(2, 4, 24))
    _, cache = model(torch.randn(2, 1, 24), cache)
    cache = cache.select(torch.tensor([1, 0]))
    before = cache.layers[0].buffer.keys_values.data_ptr()
    _, cache = model(torch.randn(2, 1, 24), cache)
    assert cache.layers[0].buffer.keys_values.data_ptr() == before


BRANCHES = {
    "beams": [[0, 0, 0, 1, 1, 1, 2, 2, 2], [1, 1, 0, 5, 3, 4, 8, 8, 8], [2, 0, 1, 6, 7, 7]],
    "images change places": [[2, 2, 0, 0], [3, 2, 0, 0]],
    "fewer beams, then more": [[0, 0, 0, 0, 2, 2, 2, 2], [3, 1, 4, 6], [1, 0, 1, 0, 3, 3, 3, 3]],
    "beams, then no order": [[0, 0, 1, 1, 2, 2], [4, 0, 1, 2, 5], [4, 1, 1, 3]],
    "one root twice over": [[1, 1, 1, 1], [0, 2, 2, 3]],
    "one each": [[0, 1, 2], [2, 1], [1]],
}


@pytest.mark.parametrize("orders", BRANCHES.values(), ids=BRANCHES.keys())
@pytest.mark.parametrize("with_gradients", [False, True])
def test_branches_go_on_as_sequences_of_their_own(
    model: Gpt2, orders: list[list[int]], with_gradients: bool
) -> None:
    """Whatever sequences go on: after one new position, and after pieces of two."""
    whole = torch.randn(3, 5, 24)  # what each sequence has read so far, the oracle's
    with torch.set_grad_enabled(with_gradients):
        _, cache = model(whole)
        for length, order in zip((1, 2, 1), orders, strict=False):
            rows = torch.tensor(order)
            following = torch.randn(len(order), length, 24)
            whole = torch.cat((whole[rows], following), dim=1)
            hidden, cache = model(following, cache.branch(rows))
            assert cache.length == whole.shape[1]
            assert torch.allclose(hidden, model(whole)[0][:, -length:], atol=1e-5)
        rows = torch.tensor([len(whole) - 1, 0])
        following = torch.randn(2, 1, 24)
        hidden, _ = model(following, cache.select(rows))
        expected = model(torch.cat((whole[rows], following), dim=1))[0][:, -1:]
        assert torch.allclose(hidden, expected, atol=1e-5)


@torch.no_grad()
def test_branches_do_not_disturb_each_other(model: Gpt2) -> None:
    """Two orders of the same beams share memory, not what they write."""
    _, root = model(torch.randn(2, 5, 24))
    _, root = model(torch.randn(4, 1, 24), root.branch(torch.tensor([0, 0, 1, 1])))
    orders = [root.branch(torch.tensor(order)) for order in ([0, 0, 3, 2], [1, 0, 2, 2])]
    first, second, last = torch.randn(3, 4, 1, 24)
    fresh = [model(last, model(first, orders[0])[1])[0], model(last, model(second, orders[1])[1])[0]]
    left, right = model(first, orders[0])[1], model(second, orders[1])[1]
    for cache, expected in zip((left, right), fresh, strict=True):
        assert torch.equal(model(last, cache)[0], expected)


@torch.no_grad()
def test_beams_share_their_beginning_and_changing_them_copies_no_key(model: Gpt2) -> None:
    """Three beams of two images: 4 positions of the prefix and 3 a step, in two rows all along."""
    _, cache = model(torch.randn(2, 4, 24))
    cache = cache.branch(torch.tensor([0, 0, 0, 1, 1, 1]))
    pointers = set()
    for _ in range(3):
        _, cache = model(torch.randn(6, 1, 24), cache)
        pointers.add(cache.layers[0].keys_values.data_ptr())
        cache = cache.branch(torch.tensor([2, 0, 0, 4, 4, 3]))
    assert len(pointers) == 1
    assert cache.layers[0].keys_values.shape == (2, 2, 4, 4 + 3 * 3, 6)
    cache = cache.branch(torch.tensor([3, 3, 5]))  # the first image is done
    assert cache.layers[0].keys_values.shape == (2, 1, 4, 4 + 3 * 3, 6)


def test_too_many_positions_are_one_sentence(model: Gpt2) -> None:
    _, cache = model(torch.randn(1, 20, 24))
    with pytest.raises(
        ModelError, match=r"^GPT-2 has 20 positions .* 21 are needed: .*lower --max-new-tokens"
    ):
        model(torch.randn(1, 1, 24), cache)


def test_weights_begin_as_gpt2s() -> None:
    torch.manual_seed(0)
    model = Gpt2(Gpt2Config(vocab_size=200, width=96, num_layers=8, num_heads=4, max_positions=50))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones_like(parameter)), name
        else:
            expected = 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.05), name


def test_the_output_head_is_the_token_embedding(model: Gpt2) -> None:
    assert not any("lm_head" in name for name in model.state_dict())
    hidden = torch.randn(2, 3, 24)
    assert torch.allclose(model.project(hidden), hidden @ model.wte.weight.T, atol=1e-5)


def test_dropout_is_for_training_only(model: Gpt2) -> None:
    embeddings = torch.randn(1, 6, 24)
    assert torch.equal(model(embeddings)[0], model(embeddings)[0])
    model.train()
    assert not torch.equal(model(embeddings)[0], model(embeddings)[0])


def test_all_problems_of_a_configuration_are_named_at_once() -> None:
    with pytest.raises(ModelError) as error:
        Gpt2Config(vocab_size=0, width=10, num_layers=-1, num_heads=3, dropout=1.0)
    assert str(error.value) == (
        "This makes no model: GPT-2 has vocab_size 0; GPT-2 has num_layers -1; GPT-2's "
        "num_heads 3 do not divide its width 10; GPT-2's dropout 1.0 is not in 0 <= dropout < 1; "
        "change the model's configuration."
    )


def test_computing_activations_again_gives_the_same_gradients() -> None:
    """Dropout included, over a prefix and what follows it; each block runs once more on the way back."""
    config = Gpt2Config(vocab_size=7, width=8, num_layers=2, num_heads=2, max_positions=9, dropout=0.3)
    torch.manual_seed(0)
    gpt2 = Gpt2(config).train()
    runs: list[int] = []
    gpt2.h[0].register_forward_pre_hook(lambda module, inputs: runs.append(1))
    embeddings = torch.randn(2, 7, 8)
    gradients = []
    for gpt2.checkpoint_activations in (False, True):
        runs.clear()
        gpt2.zero_grad()
        torch.manual_seed(1)
        _, cache = gpt2(embeddings[:, :3])
        hidden, _ = gpt2(embeddings[:, 3:], cache)
        hidden.square().mean().backward()
        gradients.append([parameter.grad for parameter in gpt2.parameters()])
        assert len(runs) == (4 if gpt2.checkpoint_activations else 2)
    for plain, again in zip(*gradients, strict=True):
        assert (plain is None and again is None) or torch.equal(plain, again)
    runs.clear()
    with torch.no_grad():
        gpt2(embeddings)
    assert runs == [1]
