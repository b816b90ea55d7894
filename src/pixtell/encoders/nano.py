"""The `nano` encoder: a residual net of dense 3x3 convolutions, small and quick on a CPU.

In: pixels (B, 3, H, W), any H and W divisible by 32. Out: a grid of features, flattened, (B, N, F), or its
mean, (B, F). Dense convolutions because on CPUs they run nearer to the machine's limit than depthwise ones.
It knows neither how it was trained nor what reads its features.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.encoders.base import EncoderSpec, check_output, fingerprint_of, freeze
from pixtell.errors import EncoderError
from pixtell.files import read_json, write_json
from pixtell.images import Preprocess

STRIDE = 32  # pixels a grid cell
KIND = "nano-encoder"  # what an encoder directory's config.json says of itself


@dataclass(frozen=True)
class NanoEncoderConfig:
    """Sizes of the network.

    width: channels of the first stage; every later stage doubles them. blocks: residual blocks a stage, at
    strides 4, 8, 16, 32.
    image_size: pixels a side that the picture is resized to (a square, never cropped), a multiple of 32.
    Raises: EncoderError for sizes that make no network.
    """

    width: int = 48
    blocks: tuple[int, ...] = (1, 2, 4, 1)
    image_size: int = 192

    def __post_init__(self) -> None:
        if self.width < 1 or not self.blocks or min(self.blocks) < 1:
            raise EncoderError(
                f"A nano encoder of width {self.width} with {self.blocks} blocks a stage is no network; give "
                "numbers above zero."
            )
        if self.image_size % STRIDE or self.image_size < STRIDE:
            raise EncoderError(
                f"--image-size {self.image_size} is not a multiple of {STRIDE}; choose for example 192."
            )

    @property
    def feature_dim(self) -> int:
        """F, the channels of the last stage."""
        return int(self.width * 2 ** (len(self.blocks) - 1))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with batch norm, around a shortcut; (B, C_in, H, W) -> (B, C_out, H /
    stride, W / stride)."""

    def __init__(self, *, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()  # empty: the identity
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, grid: torch.Tensor) -> torch.Tensor:
        # In place: what a norm gave is read by nobody else, and fresh memory costs a CPU more than the sums.
        hidden = F.relu(self.norm1(self.conv1(grid)), inplace=True)
        return F.relu(self.norm2(self.conv2(hidden)).add_(self.shortcut(grid)), inplace=True)


class NanoEncoder(nn.Module):
    """The Encoder protocol over the residual net.

    output: "patches" -> (B, N, F), N = (H / 32) (W / 32), row by row; "pooled" -> (B, F), their mean.
    """

    name = "nano"

    def __init__(self, *, config: NanoEncoderConfig, output: str = "patches") -> None:
        super().__init__()
        check_output(output, ("patches", "pooled"), "the nano encoder")
        self.config = config
        self.output = output
        self.stem = nn.Sequential(
            nn.Conv2d(3, config.width, 4, 4, bias=False), nn.BatchNorm2d(config.width), nn.ReLU(inplace=True)
        )
        channels = config.width
        blocks: list[nn.Module] = []
        for stage, count in enumerate(config.blocks):
            for block in range(count):
                width = config.width * 2**stage
                stride = 2 if stage > 0 and block == 0 else 1
                blocks.append(ResidualBlock(in_channels=channels, out_channels=width, stride=stride))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def preprocess(self) -> Preprocess:
        half = (0.5, 0.5, 0.5)
        return Preprocess(
            size=self.config.image_size, resize="square", mean=half, std=half, interpolation="bicubic"
        )

    @property
    def feature_shape(self) -> tuple[int, ...]:
        side = self.config.image_size // STRIDE
        pooled = (self.config.feature_dim,)
        return pooled if self.output == "pooled" else (side * side, *pooled)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self, asdict(self.config), self.output)

    def grid(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels (B, 3, H, W) -> (B, F, H / 32, W / 32)."""
        dtype = next(self.parameters()).dtype
        pixels = pixels.to(dtype).contiguous(memory_format=torch.channels_last)
        return self.blocks(self.stem(pixels))  # type: ignore[no-any-return]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        grid = self.grid(pixels)  # (B, F, h, w)
        if self.output == "pooled":
            return grid.mean(dim=(2, 3))  # (B, F)
        return grid.flatten(2).transpose(1, 2)  # (B, N, F)


def save_nano_encoder(encoder: NanoEncoder, directory: Path) -> None:
    """Write config.json and model.safetensors (fp16) into `directory`, which the caller makes atomic."""
    from safetensors.torch import save_file

    weights = {
        name: (value.half() if value.is_floating_point() else value).contiguous()
        for name, value in encoder.state_dict().items()
    }
    save_file(weights, directory / "model.safetensors")
    write_json(directory / "config.json", {"kind": KIND, **asdict(encoder.config)})


def load_nano_encoder(spec: EncoderSpec, *, base_dir: Path | None = None) -> NanoEncoder:
    """The encoder in a directory that `save_nano_encoder` wrote, or the shipped one; fp32, frozen, in eval
    mode.

    Raises: EncoderError where the directory is absent, cut short, or another encoder's.
    """
    directory = nano_directory(spec, base_dir)
    config = _read_config(directory)
    encoder = NanoEncoder(config=config, output=spec.output)
    from safetensors.torch import load_file

    try:
        encoder.load_state_dict(load_file(directory / "model.safetensors"))  # copies fp16 into fp32
    except (
        Exception
    ) as cause:  # safetensors and torch have types of their own for files cut short, other shapes
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[-1].strip()
        raise EncoderError(
            f"{directory / 'model.safetensors'} cannot be loaded ({reason}); copy it again."
        ) from cause
    return freeze(encoder)


def nano_directory(spec: EncoderSpec, base_dir: Path | None) -> Path:
    """The directory of a nano encoder. Raises: EncoderError for a hub id or a URL."""
    if spec.path is not None:
        return Path(base_dir or ".", spec.path)
    if spec.name != "nano":
        raise EncoderError(f"There is no nano encoder {spec.source!r}; name nano or a directory.")
    return Path(__file__).parent.parent / "weights" / "nano-encoder"


def _read_config(directory: Path) -> NanoEncoderConfig:
    stored: dict[str, Any] = read_json(directory / "config.json", EncoderError)
    if not isinstance(stored, dict) or stored.get("kind") != KIND:
        raise EncoderError(
            f"{directory} holds no nano encoder; name a directory that pixtell train-encoder wrote."
        )
    try:
        return NanoEncoderConfig(
            width=int(stored["width"]),
            blocks=tuple(int(n) for n in stored["blocks"]),
            image_size=int(stored["image_size"]),
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise EncoderError(
            f"{directory / 'config.json'} lacks or garbles a size ({cause}); copy it again."
        ) from cause
