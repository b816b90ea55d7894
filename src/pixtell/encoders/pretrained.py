"""Models of transformers on disk or on the hub: their config, their weights, their preprocess.

In: a directory in transformers' layout, or a hub id. Out: what encoders are built from. It does not know
features. transformers is imported inside functions only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from pixtell.encoders.base import EncoderSpec, freeze
from pixtell.errors import EncoderError
from pixtell.files import read_json
from pixtell.images import Preprocess

# What a config says of its file, not of the function that it describes.
_PROVENANCE = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")
_PILLOW_FILTERS: dict[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


def model_directory(spec: EncoderSpec, base_dir: Path | None) -> Path:
    """The directory with the model of `spec`: on this disk, or fetched from the hub.

    Raises:
        EncoderError: no such directory, or a hub model without weights.
        DownloadError: hub files that cannot be had.
    """
    if spec.hub_id is not None:
        return _fetch_model(spec.hub_id, spec.revision)
    directory = Path(spec.located(base_dir).path or "")
    if spec.path is None or not directory.is_dir():
        raise EncoderError(f"no directory {directory}: give one with a model of transformers, or a hub id.")
    return directory


def _fetch_model(hub_id: str, revision: str | None) -> Path:
    from pixtell.downloads import fetch_hub_files

    def fetch(*filenames: str, optional: tuple[str, ...] = ()) -> Path:
        return fetch_hub_files(hub_id, ["config.json", *filenames], optional=optional, revision=commit)

    commit = revision
    directory = fetch(optional=(*_PREPROCESSOR_FILES, "model.safetensors"))
    commit = directory.name
    if (directory / "model.safetensors").exists():
        return directory
    fetch(optional=("model.safetensors.index.json", "pytorch_model.bin"))
    index = directory / "model.safetensors.index.json"
    if index.exists():
        return fetch(*sorted(set(read_json(index, EncoderError)["weight_map"].values())))
    if not (directory / "pytorch_model.bin").exists():
        raise EncoderError(f"the hub model {hub_id} has no weights for PyTorch: choose another.")
    return directory


def read_config(directory: Path) -> Any:
    """The transformers config of the vision model in `directory`.

    Raises:
        EncoderError: no such directory, no config.json, a model that transformers does not know.
    """
    from transformers import AutoConfig

    if not directory.is_dir():
        raise EncoderError(f"no directory {directory}: give one with a model of transformers.")
    stored = read_json(directory / "config.json", EncoderError)
    model_type = stored.get("model_type") if isinstance(stored, dict) else None
    try:
        with _quiet():
            return AutoConfig.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise EncoderError(
            f"{directory} is not a vision model that transformers knows (model_type {model_type!r}): "
            "give the directory of one, such as MobileNetV2 or ViT."
        ) from cause


def load_model(
    directory: Path, class_name: str, config: Any, *, main_input: str = "pixel_values"
) -> tuple[Any, list[str]]:
    """The frozen model that this class of transformers makes of `directory`, and the keys without weights.

    main_input: what the model reads; "input_ids" for a text tower.

    Raises:
        EncoderError: no vision model, no weights, weights that are cut short or of other shapes.
    """
    import transformers
    from safetensors import SafetensorError

    try:
        with _quiet():
            model, info = getattr(transformers, class_name).from_pretrained(
                directory,
                config=config,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # they are named below
                local_files_only=True,
                output_loading_info=True,
            )
    except ValueError as cause:  # a config that this class has no model for
        raise EncoderError(
            f"{directory} is not a vision model that transformers can load: give another."
        ) from cause
    except (OSError, RuntimeError, SafetensorError, EOFError) as cause:
        reason = str(cause).strip().splitlines()[0].rstrip(".")
        raise EncoderError(
            f"the weights in {directory} cannot be loaded ({reason}): save or download the model again."
        ) from cause
    if model.main_input_name != main_input:
        raise EncoderError(
            f"{directory} holds a {type(model).__name__}, which is not a vision model: give another."
        )
    if info["mismatched_keys"]:
        keys = sorted(key if isinstance(key, str) else key[0] for key in info["mismatched_keys"])
        raise EncoderError(
            f"the weights in {directory} have another shape than its config.json says ({name_some(keys)}): "
            "save the model again."
        )
    return freeze(model), sorted(info["missing_keys"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from listing every weight of the text tower on stderr; missing ones are our error."""
    from transformers.utils import logging

    verbosity, progress_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if progress_bar:
            logging.enable_progress_bar()


def architecture_of(config: Any) -> dict[str, Any]:
    """What a config of transformers says of the function that a model computes, as JSON values."""
    return {key: value for key, value in config.to_dict().items() if key not in _PROVENANCE}


def image_size_of(config: Any) -> int:
    """Pixels a side that a model was trained on; 224 where its config doesn't say."""
    size = getattr(config, "image_size", None)
    size = size[0] if isinstance(size, list | tuple) and size else size
    return size if isinstance(size, int) else 224


def read_preprocess(directory: Path, default: Preprocess) -> Preprocess:
    """The Preprocess that a model was saved with; what it doesn't say is the `default`'s.

    A resize to 256 with a crop of 224 becomes one to 224: the border stays in sight; captions speak of it.

    Raises:
        EncoderError: values that make no Preprocess; names the file and the value.
    """
    for filename in _PREPROCESSOR_FILES:
        path = directory / filename
        if path.exists():
            stored = read_json(path, EncoderError)
            try:
                return _preprocess_from(stored.get("image_processor", stored), default)
            except (AttributeError, KeyError, TypeError, ValueError) as cause:
                raise EncoderError(f"{path} has an unusable value ({cause}): correct it.") from cause
    return default


def _preprocess_from(stored: Mapping[str, Any], default: Preprocess) -> Preprocess:
    """Fields of transformers' image processors to ours; raises KeyError, TypeError, ValueError."""
    size, resize = stored.get("size", default.size), default.resize
    if isinstance(size, dict):
        resize = "shortest_side" if "shortest_edge" in size else "square"
        size = size["shortest_edge"] if "shortest_edge" in size else _side(size)
    if stored.get("do_center_crop", False):
        size = _side(stored.get("crop_size", size))
    interpolation = default.interpolation
    if "resample" in stored:
        if stored["resample"] not in _PILLOW_FILTERS:
            raise ValueError(f"resample {stored['resample']!r} is neither 2, bilinear, nor 3, bicubic")
        interpolation = _PILLOW_FILTERS[stored["resample"]]
    mean, std = stored.get("image_mean", default.mean), stored.get("image_std", default.std)
    if not stored.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    # Theirs is (RGB * factor - mean) / std, ours (RGB / 255 - mean) / std.
    scale = 255 * stored.get("rescale_factor", 1 / 255) if stored.get("do_rescale", True) else 255.0
    return replace(
        default,
        size=int(size),
        resize=resize,
        interpolation=interpolation,
        mean=_statistics(mean, scale),
        std=_statistics(std, scale),
    )


def _side(size: Any) -> int:
    if isinstance(size, dict):
        if size["height"] != size["width"]:
            raise ValueError(f"size {size['height']} x {size['width']} is not square")
        return int(size["height"])
    return int(size)


def _statistics(values: Any, scale: float) -> tuple[float, float, float]:
    red, green, blue = (float(value) / scale for value in values)
    return red, green, blue


def name_some(keys: list[str]) -> str:
    """The first three of many names, for an error."""
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more
