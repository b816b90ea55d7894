"""Backbones of transformers as encoders, against the plain models."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.base import EncoderSpec
from pixtell.encoders.hub import load_hub_encoder
from pixtell.errors import EncoderError
from pixtell.files import write_json

SaveModel = Callable[..., tuple[Path, Any]]


@pytest.fixture(scope="module")
def mobilenet(save_mobilenet: SaveModel) -> tuple[Path, Any]:
    return save_mobilenet()


def spec_of(path: Path, output: str = "patches") -> EncoderSpec:
    return EncoderSpec(kind="hub", output=output, path=str(path))


def test_a_grid_becomes_patches_row_by_row(mobilenet: tuple[Path, Any]) -> None:
    directory, model = mobilenet
    pixels = torch.randn(2, 3, 64, 64)
    outputs = model.mobilenet_v2(pixels)
    encoder = load_encoder(parse_encoder(str(directory)))
    patches = encoder(pixels)
    assert encoder.feature_shape == tuple(patches.shape[1:]) == (4, outputs.pooler_output.shape[1])
    assert not torch.allclose(patches[:, 1], patches[:, 2])
    torch.testing.assert_close(patches[:, 2 * 1 + 0], outputs.last_hidden_state[:, :, 1, 0])
    pooled = load_encoder(parse_encoder(str(directory), "pooled"))
    assert pooled.feature_shape == (outputs.pooler_output.shape[1],)
    torch.testing.assert_close(pooled(pixels), outputs.pooler_output)
    assert pooled.fingerprint != encoder.fingerprint
    preprocess = encoder.preprocess
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == (64, "square", "bilinear")
    assert preprocess.mean == preprocess.std == (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
    ("model_type", "num_extra"),
    [("vit", 1), ("deit", 2), ("dinov2_with_registers", 5), ("siglip", 0)],
)
def test_tokens_before_the_grid_are_dropped(
    model_type: str, num_extra: int, save_small: Callable[..., Any], tmp_path: Path
) -> None:
    model = save_small(model_type, tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    tower = getattr(model, "vision_model", model)
    outputs = tower(pixel_values=pixels)
    encoder = load_hub_encoder(spec_of(tmp_path))
    assert encoder.feature_shape == (16, 16)
    assert outputs.last_hidden_state.shape[1] == 16 + num_extra
    torch.testing.assert_close(encoder(pixels), outputs.last_hidden_state[:, num_extra:])
    torch.testing.assert_close(load_hub_encoder(spec_of(tmp_path, "pooled"))(pixels), outputs.pooler_output)


def test_a_pooled_output_without_weights_is_the_mean_of_the_patches(tmp_path: Path) -> None:
    """transformers would make up a pooler from random numbers: other features each time it is loaded."""
    import transformers

    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    pixels = torch.randn(2, 3, 32, 32)
    patches = load_hub_encoder(spec_of(tmp_path))
    pooled = load_hub_encoder(spec_of(tmp_path, "pooled"))
    torch.testing.assert_close(pooled(pixels), patches(pixels).mean(1))
    assert pooled.fingerprint == load_hub_encoder(spec_of(tmp_path, "pooled")).fingerprint


def test_a_hub_encoder_is_frozen_and_runs_in_bf16(save_small: Callable[..., Any], tmp_path: Path) -> None:
    save_small("resnet", tmp_path)
    encoder = load_hub_encoder(spec_of(tmp_path))
    pixels = torch.randn(2, 3, 224, 224, requires_grad=True)
    features = encoder(pixels)
    features.sum().backward()
    assert pixels.grad is not None
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encoder.to(dtype=torch.bfloat16)(pixels).dtype == torch.bfloat16
    assert encoder.preprocess.mean == (0.485, 0.456, 0.406)


def test_the_preprocess_is_read_from_the_models_file(mobilenet: tuple[Path, Any], tmp_path: Path) -> None:
    mobilenet[1].save_pretrained(tmp_path)
    write_json(
        tmp_path / "preprocessor_config.json",
        {
            "size": {"shortest_edge": 72},
            "do_center_crop": True,
            "crop_size": {"height": 64, "width": 64},
            "image_mean": [0.4, 0.4, 0.4],
            "resample": 3,
        },
    )
    preprocess = load_hub_encoder(spec_of(tmp_path)).preprocess
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == (64, "shortest_side", "bicubic")
    assert (preprocess.mean, preprocess.std) == ((0.4, 0.4, 0.4), (0.5, 0.5, 0.5))


def test_what_is_no_vision_encoder_is_one_sentence(
    mobilenet: tuple[Path, Any], save_small: Callable[..., Any], tmp_path: Path
) -> None:
    save_small("bert", tmp_path)
    with pytest.raises(EncoderError) as error:
        load_hub_encoder(spec_of(tmp_path))
    assert str(error.value) == f"{tmp_path} holds a BertModel, which is not a vision model: give another."
    with pytest.raises(EncoderError, match=r"has no output 'embedding': choose one of patches, pooled\."):
        load_hub_encoder(spec_of(mobilenet[0], "embedding"))
    write_json(tmp_path / "config.json", {"model_type": "crystal-ball"})
    with pytest.raises(EncoderError) as error:
        load_hub_encoder(spec_of(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} is not a vision model that transformers knows (model_type 'crystal-ball'): give the "
        "directory of one, such as MobileNetV2 or ViT."
    )
    save_small("vit", tmp_path / "vit")
    write_json(tmp_path / "vit" / "preprocessor_config.json", {"size": 48})
    with pytest.raises(EncoderError) as error:
        load_hub_encoder(spec_of(tmp_path / "vit"))
    assert str(error.value) == (
        f"{tmp_path / 'vit'} holds a ViTModel, which gives no patches of an image of 48 pixels a side: "
        "correct its preprocessor_config.json, or choose another."
    )
    (tmp_path / "config.json").write_text('{"model_type": ')
    with pytest.raises(EncoderError, match=r"config\.json is not JSON"):
        load_hub_encoder(spec_of(tmp_path))
