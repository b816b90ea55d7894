"""Any vision backbone that transformers reads: as a frozen encoder, and as a teacher to distil from.

In: a directory in transformers' layout. transformers is imported inside functions only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from pixtell.encoders.base import freeze
from pixtell.errors import EncoderError
from pixtell.files import read_json

Statistics = tuple[float, float, float]

IMAGENET_MEAN: Statistics = (0.485, 0.456, 0.406)
IMAGENET_STD: Statistics = (0.229, 0.224, 0.225)
# Trained on pixels in -1..1, that is RGB / 127.5 - 1; most others were trained on ImageNet's statistics.
_HALF_MODELS = ("mobilenet_v1", "mobilenet_v2", "vit", "beit")


class TeacherOutput(NamedTuple):
    """What a teacher sees: the grid of its last layer, row by row, its mean, its classes before softmax."""

    patches: torch.Tensor  # (B, N, F)
    pooled: torch.Tensor  # (B, F)
    logits: torch.Tensor | None  # (B, C); None: a backbone that was saved without a classifier


class Teacher(nn.Module):
    """A frozen convolutional network in eval mode, for any size divisible by its stride (MobileNetV2: 32).

    mean and std are those of its pixels: pixels = (RGB / 255 - mean) / std.
    """

    def __init__(
        self, *, backbone: nn.Module, classifier: nn.Module | None, mean: Statistics, std: Statistics
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = classifier
        self.mean = mean
        self.std = std
        freeze(self).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, pixels: torch.Tensor) -> TeacherOutput:
        """Pixels (B, 3, H, W), any float dtype, to features and logits in the teacher's own dtype."""
        dtype = next(self.backbone.parameters()).dtype
        pixels = pixels.to(dtype).contiguous(memory_format=torch.channels_last)  # (B, 3, H, W)
        outputs = self.backbone(pixels)
        patches = outputs.last_hidden_state.flatten(2).transpose(1, 2)  # (B, F, h, w) -> (B, N, F)
        logits = None if self.classifier is None else self.classifier(outputs.pooler_output)  # (B, C)
        return TeacherOutput(patches, outputs.pooler_output.flatten(1), logits)


def load_teacher(source: str | Path) -> Teacher:
    """The network in the directory `source`, with its classifier if it was saved with one, fp32, on the CPU.

    Raises:
        EncoderError: no such directory, no vision model of transformers, no grid of features, weights that
            lack the classifier or anything else.
    """
    directory = Path(source)
    config = read_transformers_config(directory)
    classifies = any("ForImageClassification" in name for name in config.architectures or ())
    auto_class = "AutoModelForImageClassification" if classifies else "AutoModel"
    model, missing = load_transformers(directory, auto_class)
    if any(key.startswith("classifier") for key in missing):
        raise EncoderError(
            f"{directory} has no weights for its classifier, which distillation needs: save the whole model."
        )
    if missing:
        raise EncoderError(f"the weights in {directory} lack {_some(missing)}: save the model again.")
    backbone = model.base_model
    mean, std = pixel_statistics(directory, config.model_type)
    teacher = Teacher(backbone=backbone, classifier=getattr(model, "classifier", None), mean=mean, std=std)
    _check_teacher(model, teacher, directory)
    return teacher


@torch.no_grad()
def _check_teacher(model: Any, teacher: Teacher, directory: Path) -> None:
    pixels = torch.zeros(1, 3, 64, 64)
    outputs = teacher.backbone(pixels)
    if outputs.last_hidden_state.ndim != 4 or getattr(outputs, "pooler_output", None) is None:
        raise EncoderError(f"{directory} gives no grid of features: distil from a convolutional network.")
    logits = teacher(pixels).logits
    if logits is not None and not torch.allclose(logits, model(pixels).logits, atol=1e-4):
        raise EncoderError(
            f"the classifier in {directory} reads more than the pooled output: choose another."
        )


def read_transformers_config(directory: Path) -> Any:
    """The transformers config of the vision model in `directory`.

    Raises:
        EncoderError: no such directory, no config.json, a model that transformers does not know.
    """
    from transformers import AutoConfig

    if not directory.is_dir():
        raise EncoderError(
            f"no directory {directory}: give one with a transformers model (config.json, weights)."
        )
    stored = read_json(directory / "config.json", EncoderError)
    model_type = stored.get("model_type") if isinstance(stored, dict) else None
    try:
        return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise EncoderError(
            f"{directory} is not a vision model that transformers knows (model_type {model_type!r}): "
            "give the directory of one, such as MobileNetV2 or ViT."
        ) from cause


def load_transformers(directory: Path, auto_class: str, config: Any = None) -> tuple[Any, list[str]]:
    """The frozen model that `auto_class` ("AutoModel", ...) makes of `directory`, and keys without weights.

    Raises:
        EncoderError: no vision model, no weights, weights that are cut short or of other shapes.
    """
    import transformers
    from safetensors import SafetensorError

    try:
        model, info = getattr(transformers, auto_class).from_pretrained(
            directory, config=config, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
    except ValueError as cause:  # a config that this auto class has no model for
        raise EncoderError(
            f"{directory} is not a vision model that transformers can load: give another."
        ) from cause
    except (OSError, RuntimeError, SafetensorError, EOFError) as cause:
        reason = str(cause).strip().splitlines()[0].rstrip(".")
        raise EncoderError(
            f"the weights in {directory} cannot be loaded ({reason}): save or download the model again."
        ) from cause
    if getattr(model, "main_input_name", None) != "pixel_values":
        raise EncoderError(
            f"{directory} holds a {type(model).__name__}, which is not a vision model: give another."
        )
    return freeze(model), sorted(info["missing_keys"])


def pixel_statistics(directory: Path, model_type: str) -> tuple[Statistics, Statistics]:
    """Mean and std of a model's pixels: from its preprocessor_config.json, else by its type."""
    path = directory / "preprocessor_config.json"
    stored = read_json(path, EncoderError) if path.exists() else {}
    half: Statistics = (0.5, 0.5, 0.5)
    default = (half, half) if model_type in _HALF_MODELS else (IMAGENET_MEAN, IMAGENET_STD)
    mean, std = stored.get("image_mean", default[0]), stored.get("image_std", default[1])
    return _three_floats(mean, path), _three_floats(std, path)


def _three_floats(value: Any, path: Path) -> Statistics:
    try:
        red, green, blue = (float(item) for item in value)
    except (TypeError, ValueError) as cause:
        raise EncoderError(f"{path} has {value!r} where three numbers belong: correct it.") from cause
    return red, green, blue


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
