"""VGG16 against its published layout and a plain loop over it; loading against files of every kind."""

import io
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.base import EncoderSpec
from pixtell.encoders.vgg16 import Vgg16Encoder, load_vgg16, random_vgg16
from pixtell.errors import EncoderError

# torchvision/models/vgg.py, configuration D: index in `features`: channels in and out.
CONVOLUTIONS = {
    0: (3, 64),
    2: (64, 64),
    5: (64, 128),
    7: (128, 128),
    10: (128, 256),
    12: (256, 256),
    14: (256, 256),
    17: (256, 512),
    19: (512, 512),
    21: (512, 512),
    24: (512, 512),
    26: (512, 512),
    28: (512, 512),
}
POOLED_AFTER = {2, 7, 14, 21, 28}
DENSE = {0: (25088, 4096), 3: (4096, 4096), 6: (4096, 1000)}


@pytest.fixture(scope="module")
def convolutions() -> Vgg16Encoder:
    return random_vgg16(0, output="patches")


def spec_of(path: Path, output: str = "patches") -> EncoderSpec:
    return EncoderSpec(kind="vgg16", output=output, path=str(path))


def test_weights_have_torchvisions_names_and_shapes() -> None:
    expected = {f"features.{i}.weight": (o, c, 3, 3) for i, (c, o) in CONVOLUTIONS.items()}
    expected |= {f"features.{i}.bias": (o,) for i, (_, o) in CONVOLUTIONS.items()}
    expected |= {f"classifier.{i}.weight": (o, c) for i, (c, o) in DENSE.items() if i < 6}
    expected |= {f"classifier.{i}.bias": (o,) for i, (_, o) in DENSE.items() if i < 6}
    with torch.device("meta"):
        encoder = Vgg16Encoder(output="pooled")
    assert {key: tuple(value.shape) for key, value in encoder.state_dict().items()} == expected


@torch.no_grad()
def test_both_outputs_equal_a_plain_loop_over_the_layout() -> None:
    encoder = random_vgg16(1)
    weights = encoder.state_dict()
    pixels = torch.randn(1, 3, 224, 224)
    hidden = pixels
    for index in CONVOLUTIONS:
        hidden = F.relu(
            F.conv2d(
                hidden, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1
            )
        )
        if index in POOLED_AFTER:
            hidden = F.max_pool2d(hidden, 2)
    fc6 = F.relu(hidden.flatten(1) @ weights["classifier.0.weight"].T + weights["classifier.0.bias"])
    fc7 = F.relu(fc6 @ weights["classifier.3.weight"].T + weights["classifier.3.bias"])
    pooled = encoder(pixels)
    assert pooled.shape == (1, *encoder.feature_shape) == (1, 4096)
    assert pooled.std() > 0.1  # the random weights let something through
    torch.testing.assert_close(pooled, fc7, rtol=1e-4, atol=1e-5)

    patches_encoder = Vgg16Encoder(output="patches")
    patches_encoder.load_state_dict({key: weights[key] for key in patches_encoder.state_dict()}, assign=True)
    patches = patches_encoder(pixels)
    assert patches.shape == (1, *patches_encoder.feature_shape) == (1, 49, 512)
    torch.testing.assert_close(patches[0, 7 * 2 + 3], hidden[0, :, 2, 3], rtol=1e-4, atol=1e-5)
    assert patches_encoder.fingerprint != encoder.fingerprint


def test_random_weights_repeat(convolutions: Vgg16Encoder) -> None:
    assert random_vgg16(0, output="patches").fingerprint == convolutions.fingerprint
    assert random_vgg16(1, output="patches").fingerprint != convolutions.fingerprint
    assert not any(parameter.requires_grad for parameter in convolutions.parameters())
    assert not convolutions.training


@pytest.mark.parametrize("kind", ["new.pth", "legacy.pth", "half.safetensors"])
def test_weights_load_from_every_kind_of_file(convolutions: Vgg16Encoder, tmp_path: Path, kind: str) -> None:
    weights = dict(convolutions.state_dict())
    path = tmp_path / kind
    if path.suffix == ".safetensors":
        weights = {key: value.half() for key, value in weights.items()}
        save_file(weights, path)
    else:  # torchvision's own file is of 2017, in the legacy format
        torch.save(weights, path, _use_new_zipfile_serialization=kind == "new.pth")
    spec = parse_encoder(str(path), "patches")
    assert spec == spec_of(path)
    encoder = load_encoder(spec)
    assert isinstance(encoder, Vgg16Encoder)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    for key, value in encoder.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, weights[key].float())


def test_the_whole_picture_is_seen_with_imagenets_statistics(convolutions: Vgg16Encoder) -> None:
    preprocess = convolutions.preprocess
    assert (preprocess.size, preprocess.resize) == (224, "square")
    assert (preprocess.mean, preprocess.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def small_weights(encoder: Vgg16Encoder) -> dict[str, torch.Tensor]:
    """The right names; all weights one number repeated, which a file holds once."""
    return {key: torch.zeros(()).expand(value.shape) for key, value in encoder.state_dict().items()}


def test_wrong_names_and_shapes_are_named(convolutions: Vgg16Encoder, tmp_path: Path) -> None:
    path = tmp_path / "vgg.pth"
    weights = small_weights(convolutions)
    torch.save({"model": {}, **weights}, path)
    with pytest.raises(EncoderError) as error:
        load_vgg16(spec_of(path))
    assert str(error.value) == f"{path} holds more than weights by name: give torchvision's VGG16 weights."

    weights["features.1.running_mean"] = torch.zeros(64)  # of VGG16 with batch norm
    weights["features.28.bias"] = torch.zeros(256)
    for index in (0, 2, 5, 7):
        del weights[f"features.{index}.weight"]
    torch.save(weights, path)
    with pytest.raises(EncoderError) as error:
        load_vgg16(spec_of(path))
    assert str(error.value) == (
        f"{path} lacks features.0.weight, features.2.weight, features.5.weight and 1 more, has unknown "
        "features.1.running_mean, has other shapes: features.28.bias (256,) for (512,): give VGG16 weights "
        "with torchvision's names."
    )


class Runs:
    """What a pickle can do: call anything when it is loaded."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


@pytest.mark.parametrize("content", ["cut", "text", "code"])
def test_a_file_that_is_no_weights_is_refused(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "vgg.pth"
    if content == "code":
        torch.save({"features.0.weight": Runs()}, path)
    else:
        buffer = io.BytesIO()
        torch.save({"features.0.weight": torch.zeros(100)}, buffer)
        path.write_bytes(buffer.getvalue()[:200] if content == "cut" else b"<html>not found</html>")
    with pytest.raises(EncoderError) as error:
        load_vgg16(spec_of(path))
    assert str(error.value) == (
        f"{path} is damaged or holds more than weights: give torchvision's VGG16 weights."
    )
    assert capsys.readouterr().out == ""
    path.rename(path.with_suffix(".safetensors"))
    with pytest.raises(EncoderError, match="is damaged or holds more than weights"):
        load_vgg16(spec_of(path.with_suffix(".safetensors")))


def test_what_cannot_be_loaded_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EncoderError) as error:
        load_vgg16(spec_of(tmp_path / "absent.pth"))
    assert str(error.value) == (
        f"no file {tmp_path / 'absent.pth'} with VGG16 weights: give a .pth or .safetensors file."
    )
    url = "https://localhost/vgg16.pth"
    with pytest.raises(EncoderError) as error:
        load_vgg16(EncoderSpec(kind="vgg16", output="pooled", url=url))
    assert str(error.value) == (
        f"{url} does not carry its hash like vgg16-397923af.pth: download it and give the file."
    )
    with pytest.raises(EncoderError, match="vgg16 has no output 'embedding': choose one of pooled, patches"):
        Vgg16Encoder(output="embedding")


def test_imagenet_weights_come_from_the_cache_when_they_are_there(
    convolutions: Vgg16Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pixtell.files import hash_file

    torch.save(dict(convolutions.state_dict()), tmp_path / "new.pth")
    name = f"vgg16-{hash_file(tmp_path / 'new.pth')[:8]}.pth"
    (tmp_path / "new.pth").rename(tmp_path / name)
    monkeypatch.setenv("PIXTELL_CACHE", str(tmp_path))
    spec = EncoderSpec(kind="vgg16", output="patches", url=f"https://localhost/models/{name}")
    assert load_vgg16(spec).fingerprint == convolutions.fingerprint
