"""Mapping networks equal their papers' formulas, written here a second time and the slow way."""

import pytest
import torch
from torch import Tensor

from pixtell.errors import ModelError
from pixtell.models.mapping import (
    MAPPINGS,
    EncoderMapping,
    MlpMapping,
    PatchMapping,
    TransformerMapping,
    build_mapping,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def linear(state: dict[str, Tensor], name: str, values: Tensor) -> Tensor:
    return values @ state[f"{name}.weight"].T + state.get(f"{name}.bias", torch.tensor(0.0))


def layer_norm(state: dict[str, Tensor], name: str, values: Tensor) -> Tensor:
    centred = values - values.mean(dim=-1, keepdim=True)
    scaled = centred / (centred.square().mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def shake(module: torch.nn.Module) -> dict[str, Tensor]:
    """Move every parameter off its first value, so that biases and norms count; return them."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return {name: value.double() for name, value in module.state_dict().items()}


def test_mlp_mapping() -> None:
    mapping = MlpMapping(feature_dim=6, width=8, prefix_length=3)
    state = shake(mapping)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "model.0.weight": (12, 6),
        "model.0.bias": (12,),
        "model.2.weight": (24, 12),
        "model.2.bias": (24,),
    }
    features = torch.randn(4, 6)
    flat = linear(state, "model.2", linear(state, "model.0", features.double()).tanh())
    expected = torch.stack([flat[:, 8 * position : 8 * position + 8] for position in range(3)], dim=1)
    assert torch.allclose(mapping(features).double(), expected, atol=1e-5)


def test_the_papers_mlp_has_the_published_sizes() -> None:
    mapping = MlpMapping(feature_dim=512, width=768)
    assert tuple(mapping.state_dict()["model.0.weight"].shape) == (3840, 512)
    assert tuple(mapping.state_dict()["model.2.weight"].shape) == (7680, 3840)


def restated_transformer(state: dict[str, Tensor], feature: Tensor) -> Tensor:
    """One image, head by head, position by position: width 8, 2 heads, 3 CLIP positions, 4 constants."""
    spread = linear(state, "linear", feature).reshape(3, 8)
    hidden = torch.cat((spread, state["prefix_const"]))  # (7, 8)
    for layer in range(2):
        name = f"transformer.layers.{layer}"
        normed = layer_norm(state, f"{name}.norm1", hidden)
        queries = linear(state, f"{name}.attn.to_queries", normed)
        both = linear(state, f"{name}.attn.to_keys_values", normed)
        keys, values = both[:, :8], both[:, 8:]
        heads = []
        for head in (slice(0, 4), slice(4, 8)):
            rows = []
            for query in queries[:, head]:
                weights = torch.stack([query @ key / 2.0 for key in keys[:, head]]).softmax(dim=0)
                rows.append(
                    sum(weight * value for weight, value in zip(weights, values[:, head], strict=True))
                )
            heads.append(torch.stack(rows))  # type: ignore[arg-type]
        hidden = hidden + linear(state, f"{name}.attn.project", torch.cat(heads, dim=1))
        normed = layer_norm(state, f"{name}.norm2", hidden)
        hidden = hidden + linear(state, f"{name}.mlp.fc2", linear(state, f"{name}.mlp.fc1", normed).relu())
    return hidden[3:]


def test_transformer_mapping() -> None:
    mapping = TransformerMapping(
        feature_dim=6, width=8, prefix_length=4, clip_length=3, mapping_layers=2, mapping_heads=2
    )
    state = shake(mapping)
    features = torch.randn(5, 6)
    expected = torch.stack([restated_transformer(state, feature) for feature in features.double()])
    assert torch.allclose(mapping(features).double(), expected, atol=1e-5)


def test_transformer_mapping_has_the_published_names() -> None:
    """ClipCap's released transformer: keys under `clip_project.`, RN50x4 features, mlp ratio 2."""
    mapping = TransformerMapping(feature_dim=640, width=768, prefix_length=40, clip_length=40)
    shapes = {name: tuple(value.shape) for name, value in mapping.state_dict().items()}
    assert shapes["linear.weight"] == (40 * 768, 640)
    assert shapes["prefix_const"] == (40, 768)
    block = {name.removeprefix("transformer.layers.7.") for name in shapes if ".layers.7." in name}
    assert block == {
        *(f"{norm}.{kind}" for norm in ("norm1", "norm2") for kind in ("weight", "bias")),
        "attn.to_queries.weight",
        "attn.to_keys_values.weight",
        *(f"{name}.{kind}" for name in ("attn.project", "mlp.fc1", "mlp.fc2") for kind in ("weight", "bias")),
    }
    assert shapes["transformer.layers.7.mlp.fc1.weight"] == (2 * 768, 768)
    assert not any(".layers.8." in name for name in shapes)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_encoder_mapping_attends_each_image_to_itself_alone(with_gradients: bool) -> None:
    """Over one position attention is its value projection, whatever queries and keys are."""
    mapping = EncoderMapping(
        feature_dim=8, width=5, prefix_length=3, mapping_layers=2, mapping_heads=2
    ).eval()
    state = shake(mapping)
    features = torch.randn(4, 8)
    hidden = features.double()
    for layer in range(2):
        name = f"transformer_encoder.layers.{layer}"
        values = hidden @ state[f"{name}.self_attn.in_proj_weight"][16:].T
        values = values + state[f"{name}.self_attn.in_proj_bias"][16:]
        hidden = layer_norm(
            state, f"{name}.norm1", hidden + linear(state, f"{name}.self_attn.out_proj", values)
        )
        forwarded = linear(state, f"{name}.linear2", linear(state, f"{name}.linear1", hidden).relu())
        hidden = layer_norm(state, f"{name}.norm2", hidden + forwarded)
    expected = linear(state, "mapper", hidden).reshape(4, 3, 5)
    with torch.set_grad_enabled(with_gradients):
        assert torch.allclose(mapping(features).double(), expected, atol=1e-5)


def test_encoder_mapping_has_the_names_and_sizes_of_clip_gpt_captioning() -> None:
    shapes = {
        name: tuple(value.shape)
        for name, value in EncoderMapping(feature_dim=64, width=48).state_dict().items()
    }
    reference = torch.nn.TransformerEncoder(
        torch.nn.TransformerEncoderLayer(64, 16, 256, batch_first=True), 6, enable_nested_tensor=False
    )
    expected = {
        f"transformer_encoder.{name}": tuple(value.shape) for name, value in reference.state_dict().items()
    }
    assert shapes == {**expected, "mapper.weight": (4 * 48, 64), "mapper.bias": (4 * 48,)}


def test_patch_mapping_keeps_the_grids_order_and_ends_in_the_mean() -> None:
    mapping = PatchMapping(feature_dim=6, width=8, num_patches=5)
    shake(mapping)
    features = torch.randn(3, 5, 6)
    prefix = mapping(features)
    assert prefix.shape == (3, 6, 8)
    content = prefix - mapping.positions
    assert torch.allclose(content[:, 5], content[:, :5].mean(dim=1), atol=1e-5)
    order = torch.tensor([3, 1, 4, 0, 2])
    shuffled = mapping(features[:, order]) - mapping.positions
    assert torch.allclose(shuffled[:, :5], content[:, order], atol=1e-5)
    assert torch.allclose(mapping(7 * features + 3), prefix, atol=1e-3)  # the layer norm comes first


@pytest.mark.parametrize("name", sorted(MAPPINGS))
def test_a_mapping_gives_the_prefix_it_promises(name: str) -> None:
    is_grid = name == "patch"
    mapping = build_mapping(name, feature_dim=16, width=32, num_patches=7 if is_grid else None).eval()
    features = torch.randn(2, 7, 16) if is_grid else torch.randn(2, 16)
    batch = mapping(features)
    assert batch.shape == (2, mapping.prefix_length, 32)
    assert torch.allclose(batch, torch.cat([mapping(row[None]) for row in features]), atol=1e-5)
    assert mapping.prefix_length == {"mlp": 10, "transformer": 10, "encoder": 4, "patch": 8}[name]


@pytest.mark.parametrize(
    ("mapping", "sizes", "problems"),
    [
        ("cnn", {}, "there is no mapping 'cnn' (there are mlp, transformer, encoder, patch)"),
        ("mlp", {"clip_length": 3}, "the mapping mlp takes no clip_length"),
        (
            "patch",
            {"prefix_length": 3},
            "the mapping patch takes no prefix_length; the mapping patch needs num_patches",
        ),
        ("mlp", {"prefix_length": 0}, "the mapping mlp has prefix_length 0"),
        (
            "transformer",
            {"mapping_heads": 5},
            "the mapping transformer has 5 mapping_heads, which do not divide width 32",
        ),
        (
            "encoder",
            {"mapping_heads": 3},
            "the mapping encoder has 3 mapping_heads, which do not divide feature_dim 16",
        ),
    ],
)
def test_sizes_that_make_no_mapping_are_named(mapping: str, sizes: dict[str, int], problems: str) -> None:
    with pytest.raises(ModelError) as error:
        build_mapping(mapping, feature_dim=16, width=32, **sizes)
    assert str(error.value) == f"This makes no model: {problems}; change the model's configuration."
