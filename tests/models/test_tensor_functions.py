"""A model as functions of tensors alone is the same model, whatever of prefix and tokens is read at once."""

from typing import Any

import pytest
import torch

from pixtell.models import CaptionModel, build_model

V = 23
GPT2 = {"vocab_size": V, "width": 16, "num_layers": 2, "num_heads": 2, "max_positions": 24}
CASES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "clipcap": ("clipcap", {"gpt2": GPT2, "feature_dim": 12, "prefix_length": 3}, (12,)),
    "clipcap patch": (
        "clipcap",
        {"gpt2": GPT2, "feature_dim": 12, "mapping": "patch", "num_patches": 4},
        (4, 12),
    ),
    "lstm": ("lstm", {"feature_dim": 12, "vocab_size": V, "width": 16, "normalise_features": True}, (4, 12)),
}


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> tuple[CaptionModel, torch.Tensor]:
    family, config, shape = request.param
    torch.manual_seed(0)
    model = build_model(family, config).eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model, torch.randn(3, *shape)


@torch.no_grad()
def test_they_equal_start_and_step(case: tuple[CaptionModel, torch.Tensor]) -> None:
    model, features = case
    functions = model.tensor_functions()
    prefix, *state = functions.image(features)
    logits, *state = functions.language(prefix, torch.zeros((3, 0), dtype=torch.long), *state)
    expected, expected_state = model.start(features)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    for token_ids in torch.randint(V, (4, 3)):
        logits, *state = functions.language(prefix[:, :0], token_ids[:, None], *state)
        expected, expected_state = model.step(token_ids, expected_state)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        assert all(len(part) == 3 for part in state)  # rows first


@torch.no_grad()
def test_prefix_and_tokens_may_come_together(case: tuple[CaptionModel, torch.Tensor]) -> None:
    model, features = case
    functions, token_ids = model.tensor_functions(), torch.randint(V, (3, 4))
    prefix, *state = functions.image(features)
    logits, *_ = functions.language(prefix, token_ids, *state)
    expected = model(features, torch.cat((token_ids, token_ids[:, :1]), 1))[:, -1]
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
