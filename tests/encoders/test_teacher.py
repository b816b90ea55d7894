"""Teachers, against the plain models of transformers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.teacher import load_teacher
from pixtell.errors import EncoderError
from pixtell.files import write_json

SaveModel = Callable[..., tuple[Path, Any]]
SaveSmall = Callable[..., Any]
HEAD = "ForImageClassification"


@pytest.fixture(scope="module")
def mobilenet(save_mobilenet: SaveModel) -> tuple[Path, Any]:
    return save_mobilenet()


@pytest.mark.parametrize("size", [(64, 64), (32, 96), (128, 128)])
def test_the_teacher_equals_the_plain_model(mobilenet: tuple[Path, Any], size: tuple[int, int]) -> None:
    directory, model = mobilenet
    teacher = load_teacher(directory)
    pixels = torch.randn(2, 3, *size)
    outputs = teacher(pixels)
    plain = model.mobilenet_v2(pixels)
    rows, columns = size[0] // 32, size[1] // 32
    assert outputs.patches.shape == (2, rows * columns, plain.last_hidden_state.shape[1])
    torch.testing.assert_close(outputs.patches[:, -1], plain.last_hidden_state[:, :, rows - 1, columns - 1])
    torch.testing.assert_close(outputs.patches.mean(1), outputs.pooled)
    torch.testing.assert_close(outputs.pooled, plain.pooler_output)
    torch.testing.assert_close(outputs.logits, model(pixels).logits)
    assert outputs.logits is not None
    assert outputs.logits.shape == (2, 7)
    assert teacher.mean == teacher.std == (0.5, 0.5, 0.5)


def test_the_teacher_is_frozen_channels_last_and_runs_in_bf16(mobilenet: tuple[Path, Any]) -> None:
    teacher = load_teacher(str(mobilenet[0]))
    assert not teacher.training
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    convolutions = [weight for weight in teacher.parameters() if weight.ndim == 4 and weight.shape[1] > 1]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in convolutions)
    pixels = torch.randn(4, 3, 64, 64)
    expected = teacher(pixels)
    halved = teacher.to(torch.bfloat16)(pixels)
    assert halved.patches.dtype == halved.pooled.dtype == torch.bfloat16
    assert halved.logits is not None
    assert halved.logits.dtype == torch.bfloat16
    cosines = torch.cosine_similarity(halved.pooled.float(), expected.pooled)
    assert float(cosines.min()) > 0.98


def test_a_teacher_without_a_classifier(save_mobilenet: SaveModel, tmp_path: Path) -> None:
    """A bare backbone has no logits; a classifier whose weights are missing is an error."""
    directory, backbone = save_mobilenet("MobileNetV2Model")
    pixels = torch.randn(1, 3, 64, 64)
    outputs = load_teacher(directory)(pixels)
    assert outputs.logits is None
    torch.testing.assert_close(outputs.pooled, backbone(pixels).pooler_output)
    backbone.save_pretrained(tmp_path)
    config = backbone.config.to_dict()
    write_json(tmp_path / "config.json", {**config, "architectures": ["MobileNetV2ForImageClassification"]})
    with pytest.raises(EncoderError) as error:
        load_teacher(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} has no weights for its classifier, which distillation needs: save the whole model."
    )


def test_what_is_no_teacher_is_one_sentence(save_small: SaveSmall, tmp_path: Path) -> None:
    with pytest.raises(EncoderError) as error:
        load_teacher(tmp_path / "absent")
    assert str(error.value) == (f"no directory {tmp_path / 'absent'}: give one with a model of transformers.")
    with pytest.raises(EncoderError, match=r"config\.json cannot be read"):
        load_teacher(tmp_path)
    save_small("bert", tmp_path / "bert")
    with pytest.raises(EncoderError, match="which is not a vision model: give another"):
        load_teacher(tmp_path / "bert")


def test_a_size_that_cannot_be_had_is_one_sentence(save_small: SaveSmall, tmp_path: Path) -> None:
    """It takes images of 32 pixels a side alone, and says that it was made for 48."""
    save_small("vit", tmp_path)
    write_json(tmp_path / "preprocessor_config.json", {"size": 48})
    with pytest.raises(EncoderError) as error:
        load_teacher(tmp_path, (64, 96))
    assert str(error.value) == (
        f"{tmp_path} holds a ViTModel, which gives no patches of an image of 48 pixels a side: correct its "
        "preprocessor_config.json, or choose another."
    )


# model type, saved with a classifier -> the size it sees alone, whether it has pooled features and classes of
# its own that can be taught, cells a side of 64 pixels or of its own size
TEACHERS = [
    ("vit", "", 32, True, False, 4),
    ("vit", HEAD, 32, False, False, 4),  # its classifier reads the class token
    ("clip", "", 32, True, False, 4),
    ("siglip", HEAD, 32, True, False, 4),
    ("resnet", HEAD, None, False, True, 8),
    ("resnet", "", None, False, False, 8),
    ("convnext", HEAD, None, True, True, 2),
    ("dinov2", "", None, True, False, 8),
    ("swin", "", None, False, False, 8),
]


@pytest.mark.parametrize(("model_type", "head", "size", "own_pool", "classes", "side"), TEACHERS)
def test_any_vision_model_teaches(
    model_type: str,
    head: str,
    size: int | None,
    own_pool: bool,
    classes: bool,
    side: int,
    save_small: SaveSmall,
    tmp_path: Path,
) -> None:
    """What it shows is what the plain model makes of the view at the size it takes."""
    model = save_small(model_type, tmp_path, head)
    teacher = load_teacher(tmp_path, (64, 96))
    assert (teacher.size, teacher.own_pool, teacher.classifier is not None) == (size, own_pool, classes)
    pixels = torch.randn(2, 3, 64, 64)
    seen = teacher(pixels)
    assert seen.patches.shape[:2] == (2, side**2)
    assert (seen.logits is not None) == classes
    shown = pixels if size is None else F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    backbone = next(
        getattr(model, name)
        for name in ("vision_model", model.base_model_prefix, "forward")
        if hasattr(model, name)
    )
    outputs = backbone(pixel_values=shown)
    expected = outputs.last_hidden_state
    if expected.ndim == 4:
        torch.testing.assert_close(seen.patches[:, 1], expected[:, :, 0, 1])
    else:
        torch.testing.assert_close(seen.patches, expected[:, -(side**2) :])
    if own_pool:
        torch.testing.assert_close(seen.pooled, outputs.pooler_output)
    else:
        torch.testing.assert_close(seen.pooled, seen.patches.mean(1), rtol=1e-3, atol=1e-4)
    if classes:
        torch.testing.assert_close(seen.logits, model(shown).logits)


def test_a_teacher_whose_weights_lack_a_layer_is_refused(mobilenet: tuple[Path, Any], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    mobilenet[1].save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    lost = "mobilenet_v2.conv_1x1.convolution.weight"
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    for load in (load_teacher, lambda path: load_encoder(parse_encoder(str(path)))):
        with pytest.raises(
            EncoderError, match=r"the weights in .* lack .*conv_1x1\.convolution\.weight: save the"
        ):
            load(tmp_path)
