"""ClipCap: the prefix is read once an image, and what is frozen neither moves nor holds a gradient."""

from typing import Any

import pytest
import torch

from pixtell.errors import ModelError
from pixtell.models import ClipCap, ClipCapConfig, Gpt2Config

GPT2 = Gpt2Config(vocab_size=23, width=16, num_layers=4, num_heads=2, max_positions=20, dropout=0.2)


def build(**changes: Any) -> ClipCap:
    torch.manual_seed(0)
    return ClipCap(ClipCapConfig(feature_dim=6, gpt2=GPT2, prefix_length=5, **changes))


def test_forward_is_gpt2_over_prefix_and_caption() -> None:
    """Without cache, sharing or steps: the plain sentence of the paper."""
    model = build().eval()
    features, token_ids = torch.randn(2, 6), torch.randint(23, (2, 7))
    whole = torch.cat((model.map_features(features), model.gpt2.embed(token_ids)), dim=1)
    expected = model.gpt2.project(model.gpt2(whole)[0])[:, 4:-1]
    assert torch.allclose(model(features, token_ids), expected, atol=1e-5)


def test_five_captions_share_one_pass_of_their_image() -> None:
    """Counted at GPT-2's first layer norm: 2 images x 5 positions + 10 captions x 6 tokens, not 10 x 11."""
    model = build().eval()
    positions = []
    handle = model.gpt2.h[0].ln_1.register_forward_hook(
        lambda _, inputs, __: positions.append(inputs[0][..., 0].numel())
    )
    model(torch.randn(2, 6), torch.randint(23, (10, 7)), torch.arange(2).repeat_interleave(5))
    handle.remove()
    assert positions == [2 * 5, 10 * 6]


@pytest.mark.parametrize(
    ("language_model", "trained"),
    [
        ("all", ["wte", "wpe", "h.0.", "h.1.", "h.2.", "h.3.", "ln_f"]),
        ("ends", ["h.0.", "h.3."]),
        ("frozen", []),
    ],
)
def test_what_is_frozen_neither_moves_nor_holds_a_gradient(language_model: Any, trained: list[str]) -> None:
    model = build(language_model=language_model).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        logits = model(torch.randn(2, 6), torch.randint(23, (4, 7)), torch.tensor([0, 0, 1, 1]))
        logits.logsumexp(dim=-1).sum().backward()
        optimizer.step()
    for name, parameter in model.named_parameters():
        is_trained = name.startswith(("mapping.", *(f"gpt2.{part}" for part in trained)))
        assert parameter.requires_grad == is_trained, name
        assert (parameter.grad is not None) == is_trained, name
        assert torch.equal(parameter, before[name]) != is_trained, name


def test_a_frozen_gpt2_has_no_dropout_in_training() -> None:
    features, token_ids = torch.randn(2, 6), torch.randint(23, (2, 7))
    frozen = build(language_model="frozen").train()
    assert torch.equal(frozen(features, token_ids), frozen(features, token_ids))
    trained = build(language_model="all").train()
    assert not torch.equal(trained(features, token_ids), trained(features, token_ids))


def test_normalised_features_have_no_length() -> None:
    features, token_ids = torch.randn(2, 6), torch.randint(23, (2, 7))
    plain, normalised = build().eval(), build(normalise_features=True).eval()
    assert torch.allclose(normalised(9 * features, token_ids), normalised(features, token_ids), atol=1e-5)
    unit = features / features.norm(dim=-1, keepdim=True)
    assert torch.allclose(normalised(features, token_ids), plain(unit, token_ids), atol=1e-5)


def test_feature_dropout_zeroes_that_share_and_keeps_the_mean() -> None:
    model = build(feature_dropout=0.3, language_model="frozen").train()
    seen = []
    handle = model.mapping.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model.start(torch.ones(2000, 6))
    model.eval()
    model.start(torch.ones(1, 6))
    handle.remove()
    assert float((seen[0] == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
    assert float(seen[0].mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(seen[1], torch.ones(1, 6))


def test_all_problems_of_a_configuration_are_named_at_once() -> None:
    with pytest.raises(ModelError) as error:
        ClipCapConfig(
            feature_dim=0,
            gpt2=GPT2,
            num_patches=4,
            feature_dropout=-0.1,
            language_model="some",  # type: ignore[arg-type]
        )
    assert str(error.value) == (
        "This makes no model: the mapping mlp takes no num_patches; the mapping mlp has feature_dim 0; "
        "feature_dropout -0.1 is not in 0 <= feature_dropout < 1; "
        "language_model 'some' is none of all, frozen, ends; change the model's configuration."
    )


def test_a_prefix_that_fills_gpt2_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"^A prefix of 20 positions leaves no room in GPT-2's 20 max_positions"
    ):
        ClipCap(ClipCapConfig(feature_dim=6, gpt2=GPT2, prefix_length=20))


def test_a_caption_beyond_the_last_position_is_refused() -> None:
    model = build()
    model(
        torch.randn(1, 6), torch.zeros((1, 16), dtype=torch.long)
    )  # 5 + 15 positions: the last id is not read
    with pytest.raises(
        ModelError, match="GPT-2 has 20 positions for prefix and tokens together and 21 are needed"
    ):
        model(torch.randn(1, 6), torch.zeros((1, 17), dtype=torch.long))


def test_a_vector_is_no_grid_and_a_grid_no_vector() -> None:
    with pytest.raises(
        ModelError, match=r"^Features of shape \(4, 6\) do not fit: .* mapping mlp takes \(6,\)"
    ):
        build().start(torch.randn(2, 4, 6))
    patches = ClipCap(ClipCapConfig(feature_dim=6, gpt2=GPT2, mapping="patch", num_patches=4))
    with pytest.raises(
        ModelError, match=r"^Features of shape \(6,\) do not fit: .* mapping patch takes \(4, 6\)"
    ):
        patches.start(torch.randn(2, 6))
