"""The merge network equals its formulas, written here a second time, one word after the other."""

import pytest
import torch
from torch import Tensor

from pixtell.errors import ModelError
from pixtell.models import LstmCaptioner, LstmConfig

CONFIG = LstmConfig(feature_dim=6, vocab_size=11, width=8)


@pytest.fixture
def model() -> LstmCaptioner:
    torch.manual_seed(0)
    return LstmCaptioner(CONFIG).eval()


def restated(state: dict[str, Tensor], feature: Tensor, token_ids: list[int]) -> Tensor:
    """logits (T, V) of one caption: i, f, g, o gates as torch stacks them."""
    image = (state["image.weight"] @ feature + state["image.bias"]).relu()
    hidden, cell = torch.zeros(8), torch.zeros(8)
    logits = []
    for embedding in [state["bos"], *(state["embedding.weight"][token_id] for token_id in token_ids[:-1])]:
        gates = state["lstm.weight_ih_l0"] @ embedding + state["lstm.bias_ih_l0"]
        gates = gates + state["lstm.weight_hh_l0"] @ hidden + state["lstm.bias_hh_l0"]
        into, forget, candidate, out = gates.split(8)
        cell = forget.sigmoid() * cell + into.sigmoid() * candidate.tanh()
        hidden = out.sigmoid() * cell.tanh()
        merged = (state["merge.weight"] @ (image + hidden) + state["merge.bias"]).relu()
        logits.append(state["output.weight"] @ merged + state["output.bias"])
    return torch.stack(logits)


def test_the_merge_network(model: LstmCaptioner) -> None:
    features, token_ids = torch.randn(3, 6), torch.randint(11, (3, 5))
    expected = [
        restated(model.state_dict(), feature, ids.tolist())
        for feature, ids in zip(features, token_ids, strict=True)
    ]
    assert torch.allclose(model(features, token_ids), torch.stack(expected), atol=1e-5)


def test_a_grid_counts_as_its_mean_and_is_then_normalised() -> None:
    grid, token_ids = torch.randn(2, 4, 6), torch.randint(11, (2, 5))
    for normalise in (False, True):
        torch.manual_seed(0)
        model = LstmCaptioner(LstmConfig(6, 11, width=8, normalise_features=normalise)).eval()
        logits = model(grid, token_ids)
        assert torch.allclose(logits, model(grid.mean(dim=1), token_ids), atol=1e-6)
        assert torch.allclose(logits, model(3 * grid, token_ids), atol=1e-6) == normalise


def test_the_conventional_sizes_are_the_defaults() -> None:
    shapes = {
        name: tuple(value.shape) for name, value in LstmCaptioner(LstmConfig(4096, 50)).state_dict().items()
    }
    assert shapes["image.weight"] == (256, 4096)
    assert shapes["embedding.weight"] == (50, 256)
    assert shapes["lstm.weight_hh_l0"] == (4 * 256, 256)
    assert shapes["merge.weight"] == (256, 256)
    assert shapes["output.weight"] == (50, 256)
    assert LstmConfig(4096, 50).dropout == 0.5


def test_the_first_word_is_learned_too(model: LstmCaptioner) -> None:
    model(torch.randn(2, 6), torch.randint(11, (2, 5)))[:, 0].sum().backward()
    assert model.bos.grad is not None
    assert model.bos.grad.abs().min() > 0


@pytest.mark.parametrize("shape", [(2, 7), (2, 4, 7), (2, 4, 4, 6), (6,)])
def test_other_features_are_refused(model: LstmCaptioner, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"do not fit: this model takes \(6,\) or \(N, 6\)"):
        model.start(torch.randn(shape))
