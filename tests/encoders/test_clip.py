"""CLIP's image tower equals transformers' CLIP on equal pixels, and its preprocess their processor's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.base import EncoderSpec
from pixtell.encoders.clip import CLIP_MEAN, CLIP_STD, load_clip
from pixtell.errors import EncoderError
from pixtell.files import read_json, write_json
from pixtell.images import load_image

SaveClip = Callable[..., tuple[Path, Any]]


@pytest.fixture(scope="module")
def clip(save_clip: SaveClip) -> tuple[Path, Any]:
    return save_clip()


def spec_of(path: Path, output: str = "embedding") -> EncoderSpec:
    return EncoderSpec(kind="clip", output=output, path=str(path))


@torch.no_grad()
def expected_features(model: Any, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """From the whole CLIP of transformers."""
    tower = model.vision_model(pixel_values=pixels)
    return {
        "embedding": model.get_image_features(pixel_values=pixels).pooler_output,
        "pooled": tower.pooler_output,
        "patches": tower.last_hidden_state[:, 1:],
    }


@pytest.mark.parametrize("patch_size", [8, 16])
@pytest.mark.parametrize("output", ["embedding", "pooled", "patches"])
def test_features_equal_those_of_transformers(save_clip: SaveClip, patch_size: int, output: str) -> None:
    directory, model = save_clip(patch_size=patch_size)
    encoder = load_encoder(parse_encoder(str(directory), output))
    pixels = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        features = encoder(pixels)
    num_patches = (32 // patch_size) ** 2
    shape = {"embedding": (24,), "pooled": (32,), "patches": (num_patches, 32)}[output]
    assert encoder.feature_shape == shape == tuple(features.shape[1:])
    torch.testing.assert_close(features, expected_features(model, pixels)[output], rtol=1e-5, atol=1e-5)
    assert encoder.output == output
    assert encoder.name == directory.name


def test_a_vision_tower_alone_gives_the_same(clip: tuple[Path, Any], tmp_path: Path) -> None:
    from transformers import CLIPVisionModel, CLIPVisionModelWithProjection

    directory, model = clip
    pixels = torch.randn(2, 3, 32, 32)
    expected = expected_features(model, pixels)
    config = model.config.vision_config
    config.projection_dim = 24
    for tower_class in (CLIPVisionModel, CLIPVisionModelWithProjection):
        alone = tmp_path / tower_class.__name__
        tower_class.from_pretrained(directory, config=config).save_pretrained(alone)
        assert parse_encoder(str(alone)).kind == "clip"
        for output in ("pooled", "patches"):
            torch.testing.assert_close(load_clip(spec_of(alone, output))(pixels), expected[output])
    torch.testing.assert_close(load_clip(spec_of(alone))(pixels), expected["embedding"])
    with pytest.raises(EncoderError) as error:
        load_clip(spec_of(tmp_path / "CLIPVisionModel"))
    assert str(error.value) == (
        f"{tmp_path / 'CLIPVisionModel'}, a tower without projection, has no output 'embedding': choose one "
        "of pooled, patches."
    )


def test_the_encoder_is_frozen_and_differentiable_and_runs_in_bf16(clip: tuple[Path, Any]) -> None:
    encoder = load_clip(spec_of(clip[0], "patches"))
    pixels = torch.randn(2, 3, 32, 32, requires_grad=True)
    features = encoder(pixels)
    features.sum().backward()
    assert pixels.grad is not None
    assert not encoder.training
    assert all(parameter.grad is None for parameter in encoder.parameters())
    halved = encoder.to(dtype=torch.bfloat16)(pixels)
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), features, rtol=0.1, atol=0.1)


def test_fingerprints_tell_outputs_and_weights_apart_but_not_places(
    clip: tuple[Path, Any], save_clip: SaveClip
) -> None:
    directory, _ = clip
    copy, _ = save_clip()
    assert copy != directory
    fingerprints = {
        output: load_clip(spec_of(directory, output)).fingerprint for output in ("pooled", "patches")
    }
    assert fingerprints["pooled"] != fingerprints["patches"]
    assert load_clip(spec_of(copy, "pooled")).fingerprint == fingerprints["pooled"]
    other, _ = save_clip(patch_size=16)
    assert load_clip(spec_of(other, "pooled")).fingerprint != fingerprints["pooled"]


def test_without_a_preprocessor_file_the_preprocess_is_clips(clip: tuple[Path, Any]) -> None:
    preprocess = load_clip(spec_of(clip[0])).preprocess
    assert (preprocess.size, preprocess.resize, preprocess.interpolation) == (32, "shortest_side", "bicubic")
    assert (preprocess.mean, preprocess.std) == (CLIP_MEAN, CLIP_STD)


PROCESSORS: list[dict[str, Any]] = [
    {"size": {"shortest_edge": 32}, "crop_size": 32},
    {"size": 32, "crop_size": {"height": 32, "width": 32}, "resample": 2, "image_mean": [0.5, 0.4, 0.3]},
    {"size": {"height": 32, "width": 32}, "do_center_crop": False, "image_std": [0.2, 0.3, 0.4]},
]


@pytest.mark.parametrize("settings", PROCESSORS)
def test_preprocess_is_within_two_grey_levels_of_their_processor(
    clip: tuple[Path, Any], tmp_path: Path, settings: dict[str, Any]
) -> None:
    import skimage
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(**settings)
    directory = tmp_path / "clip"
    clip[1].save_pretrained(directory)
    processor.save_pretrained(directory)
    encoder = load_clip(spec_of(directory))
    std = torch.tensor(encoder.preprocess.std).view(3, 1, 1)
    folder = Path(skimage.__file__).parent / "data"
    photos = [
        path for name in ("chelsea.png", "coffee.png", "astronaut.png") if (path := folder / name).is_file()
    ]
    assert photos
    for path in photos:
        theirs = processor(Image.open(path).convert("RGB"), return_tensors="pt")["pixel_values"]
        ours = encoder.preprocess(load_image(path))
        assert ours.shape == theirs.shape == (1, 3, 32, 32)
        assert float(((ours - theirs) * std).abs().max()) * 255 <= 2.01


def test_processors_of_transformers_5_lie_in_processor_config(clip: tuple[Path, Any], tmp_path: Path) -> None:
    clip[1].save_pretrained(tmp_path)
    write_json(
        tmp_path / "processor_config.json",
        {"image_processor": {"size": {"shortest_edge": 32}, "resample": 2, "image_mean": [0.1, 0.2, 0.3]}},
    )
    preprocess = load_clip(spec_of(tmp_path)).preprocess
    assert (preprocess.mean, preprocess.interpolation) == ((0.1, 0.2, 0.3), "bilinear")


def test_other_scales_of_grey_are_the_same_pixels(clip: tuple[Path, Any], tmp_path: Path) -> None:
    """(RGB / 127.5 - 1) written as rescale_factor 1/127.5 and mean 1, and without any rescaling."""
    clip[1].save_pretrained(tmp_path)
    image = np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)
    for settings in (
        {"rescale_factor": 1 / 127.5, "image_mean": [1, 1, 1], "image_std": [1, 1, 1]},
        {"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [127.5] * 3},
        {"image_mean": [0.5] * 3, "image_std": [0.5] * 3},
    ):
        write_json(tmp_path / "preprocessor_config.json", settings)
        pixels = load_clip(spec_of(tmp_path)).preprocess(image)
        expected = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
        torch.testing.assert_close(pixels, expected)
    write_json(tmp_path / "preprocessor_config.json", {"do_normalize": False})
    pixels = load_clip(spec_of(tmp_path)).preprocess(image)
    torch.testing.assert_close(pixels, torch.from_numpy(image).permute(2, 0, 1)[None] / 255)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"resample": 1}, "resample 1 is neither 2, bilinear, nor 3, bicubic"),
        ({"size": {"height": 32, "width": 48}}, "size 32 x 48 is not square"),
        ({"size": "large"}, "invalid literal for int() with base 10: 'large'"),
        ({"image_mean": [0.5]}, "not enough values to unpack (expected 3, got 1)"),
    ],
)
def test_an_unusable_preprocessor_file_is_named(
    clip: tuple[Path, Any], tmp_path: Path, settings: dict[str, Any], reason: str
) -> None:
    clip[1].save_pretrained(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", settings)
    with pytest.raises(EncoderError) as error:
        load_clip(spec_of(tmp_path))
    path = tmp_path / "preprocessor_config.json"
    assert str(error.value) == f"{path} has an unusable value ({reason}): correct it."


def test_pixels_of_another_size_than_the_towers_are_refused(clip: tuple[Path, Any], tmp_path: Path) -> None:
    clip[1].save_pretrained(tmp_path)
    write_json(tmp_path / "preprocessor_config.json", {"size": 48})
    with pytest.raises(EncoderError) as error:
        load_clip(spec_of(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} preprocesses to 48 pixels a side and its tower takes 32: correct its "
        "preprocessor_config.json."
    )


def test_damaged_directories_are_one_sentence(
    clip: tuple[Path, Any], save_mobilenet: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    with pytest.raises(EncoderError) as error:
        load_clip(spec_of(tmp_path / "absent"))
    assert str(error.value) == (
        f"no directory {tmp_path / 'absent'}: give one with a model of transformers, or a hub id."
    )
    mobilenet, _ = save_mobilenet()
    with pytest.raises(EncoderError) as error:
        load_clip(spec_of(mobilenet))
    assert str(error.value) == f"{mobilenet} is no CLIP (model_type 'mobilenet_v2'): give one that is."

    clip[1].save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    write_json(tmp_path / "config.json", {**config, "projection_dim": 25})
    with pytest.raises(EncoderError) as error:
        load_clip(spec_of(tmp_path))
    assert str(error.value) == (
        f"the weights in {tmp_path} have another shape than its config.json says (visual_projection.weight): "
        "save the model again."
    )
    config["vision_config"]["num_hidden_layers"] = 3
    write_json(tmp_path / "config.json", config)
    with pytest.raises(
        EncoderError, match=r"the weights in .* lack .*layers\.2\..* and 13 more: save the model"
    ):
        load_clip(spec_of(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(EncoderError, match=r"cannot be loaded .*: save or download the model again") as error:
        load_clip(spec_of(tmp_path))
    assert "\n" not in str(error.value)
    weights.unlink()
    with pytest.raises(EncoderError, match=r"\(Error no file named model.safetensors, or pytorch_model.bin"):
        load_clip(spec_of(tmp_path))
