"""VGG16 as a frozen encoder, with torchvision's names for its weights.

In: torchvision's weights, by URL or from a file. Configuration D of Simonyan and Zisserman 2015, "Very deep
convolutional networks for large-scale image recognition".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from pixtell.encoders.base import EncoderSpec, check_output, fingerprint_of, freeze
from pixtell.encoders.hub import IMAGENET_MEAN, IMAGENET_STD
from pixtell.encoders.pretrained import name_some
from pixtell.errors import EncoderError
from pixtell.images import Preprocess

# Channels of the 3x3 convolutions, each with a ReLU; "pool" halves the grid: 224, 112, 56, 28, 14, 7.
_LAYERS = (64, 64, "pool", 128, 128, "pool", *(256,) * 3, "pool", *(512,) * 3, "pool", *(512,) * 3, "pool")
# ImageNet's 1,000 classes: in the files, read by no output.
_UNUSED = {"classifier.6.weight": (1000, 4096), "classifier.6.bias": (1000,)}


class Vgg16Encoder(nn.Module):
    """The network up to one of two outputs; pixels (B, 3, 224, 224).

    "pooled": fc7, the output of `classifier.3` after its ReLU, (B, 4096). "patches": the grid after the last
    pool, row by row, (B, 49, 512); the two dense layers, nine tenths of the weights, are left out then.
    """

    name = "vgg16"
    # torchvision crops the centre of the picture. A caption may speak of what is at the border, so the whole
    # picture is squeezed into the square instead, as captioners on VGG16 did (Keras' load_img).
    preprocess = Preprocess(
        size=224, resize="square", mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear"
    )

    def __init__(self, *, output: str) -> None:
        super().__init__()
        check_output(output, ("pooled", "patches"), "vgg16")
        self.output = output
        layers: list[nn.Module] = []
        in_channels = 3
        for channels in _LAYERS:
            if isinstance(channels, int):
                layers += [nn.Conv2d(in_channels, channels, 3, padding=1), nn.ReLU()]
                in_channels = channels
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential()
        if output == "pooled":  # dropout, idle in eval mode, keeps torchvision's numbers
            self.classifier = nn.Sequential(
                nn.Linear(7 * 7 * 512, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()
            )
        freeze(self)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (4096,) if self.output == "pooled" else (49, 512)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self, {"architecture": "vgg16"}, self.output)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        grid = self.features(pixels.to(next(self.features.parameters()).dtype))  # (B, 512, 7, 7)
        if self.output == "pooled":
            return self.classifier(grid.flatten(1))  # type: ignore[no-any-return]  # (B, 4096)
        return grid.flatten(2).transpose(1, 2)  # type: ignore[no-any-return]  # (B, 49, 512)


def load_vgg16(spec: EncoderSpec, *, base_dir: Path | None = None) -> Vgg16Encoder:
    """The encoder with the weights at `spec.url`, downloaded once, or in the file `spec.path`, fp32.

    Raises:
        EncoderError: no such file, no file of weights, or weights that are not VGG16's; names the keys.
        DownloadError: weights that cannot be had, or came broken.
    """
    path = _weights_path(spec, base_dir)
    encoder = Vgg16Encoder(output=spec.output)
    weights = _read_weights(path)
    _check_weights(weights, encoder, path)
    encoder.load_state_dict({key: weights[key].float() for key in encoder.state_dict()}, assign=True)
    return encoder


def random_vgg16(seed: int, *, output: str = "pooled") -> Vgg16Encoder:
    """The encoder with random weights of the real shapes (He et al. 2015), for tests and benchmarks."""
    encoder = Vgg16Encoder(output=output)
    generator = torch.Generator().manual_seed(seed)
    for parameter in encoder.parameters():
        if parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
    return encoder


def _weights_path(spec: EncoderSpec, base_dir: Path | None) -> Path:
    if spec.url is not None:
        from pixtell.downloads import cache_directory, fetch_url

        digits = re.search(r"-([0-9a-f]{8,64})\.(?:pth|safetensors)$", spec.url)
        if digits is None:
            raise EncoderError(
                f"{spec.url} does not carry its hash like vgg16-397923af.pth: download it and give the file."
            )
        return fetch_url(spec.url, sha256_prefix=digits[1], destination_dir=cache_directory())
    path = Path(spec.located(base_dir).path or "")
    if spec.path is None or not path.is_file():
        raise EncoderError(f"no file {path} with VGG16 weights: give a .pth or .safetensors file.")
    return path


def _read_weights(path: Path) -> Mapping[str, torch.Tensor]:
    """A state dict; what a .pth file holds besides tensors is refused, never run."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        weights: object = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as cause:  # zip, pickle and safetensors readers raise types of their own
        raise EncoderError(
            f"{path} is damaged or holds more than weights: give torchvision's VGG16 weights."
        ) from cause
    if not isinstance(weights, Mapping) or any(
        not isinstance(value, torch.Tensor) for value in weights.values()
    ):
        raise EncoderError(f"{path} holds more than weights by name: give torchvision's VGG16 weights.")
    return weights


def _check_weights(weights: Mapping[str, torch.Tensor], encoder: Vgg16Encoder, path: Path) -> None:
    held = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    dense = {"classifier.0", "classifier.3"}
    missing = sorted(held.keys() - weights.keys())
    unknown = [key for key in weights if key not in held | _UNUSED and key.rpartition(".")[0] not in dense]
    wrong = [
        f"{key} {tuple(weights[key].shape)} for {shape}"
        for key, shape in held.items()
        if key in weights and tuple(weights[key].shape) != shape
    ]
    problems = [f"lacks {name_some(missing)}"] if missing else []
    problems += [f"has unknown {name_some(unknown)}"] if unknown else []
    problems += [f"has other shapes: {name_some(wrong)}"] if wrong else []
    if problems:
        raise EncoderError(f"{path} {', '.join(problems)}: give VGG16 weights with torchvision's names.")
