"""A directory <-> a model that can be used: config, weights, tokenizer, and where the encoder is.

In: the parts of a captioner. Out: `config.json`, `model.safetensors`, the tokenizer's files,
`encoder.safetensors` if the run moved the encoder; and back, without flags: the config says how to build
everything. It does not know how a model was trained.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pixtell.encoders import load_encoder
from pixtell.encoders.base import Encoder, EncoderSpec
from pixtell.errors import CheckpointError, DownloadError
from pixtell.files import atomic_path, follow_run, read_json, write_json
from pixtell.models import FAMILIES, CaptionModel, build_model
from pixtell.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
ENGINES = ("onnx",)  # beside torch
SHIPPED = ("nano", "nano-lstm")  # models in the package, by directory name


@dataclass(frozen=True)
class CheckpointConfig:
    """What `config.json` holds.

    model: the fields of the family's config. decoding: fields of DecodingOptions that suit this model,
    found on a validation split. unsure_below: mean log-probability a token under which a caption is marked
    unsure; None: never. engine: of an exported model, its `name`, one of ENGINES, and what `exports.py`
    reads; None: torch.
    """

    family: str
    model: dict[str, Any]
    encoder: EncoderSpec
    tokenizer: str
    decoding: dict[str, Any] = field(default_factory=dict)
    unsure_below: float | None = None
    engine: dict[str, Any] | None = None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: everything a Captioner is made of, fp32 on the CPU, in eval mode."""

    directory: Path
    config: CheckpointConfig
    model: CaptionModel
    tokenizer: Tokenizer
    encoder: Encoder


def save_checkpoint(
    directory: Path,
    *,
    config: CheckpointConfig,
    model: torch.nn.Module,
    tokenizer: Tokenizer,
    moved_encoder: torch.nn.Module | None = None,
    half: bool = False,
) -> None:
    """Write a checkpoint into `directory`, which the caller makes atomic (`files.atomic_directory`).

    moved_encoder: the encoder where training changed it. half: weights as fp16, half the size (for models
    that ship).
    """
    _save_weights(directory / "model.safetensors", model, half=half)
    if moved_encoder is not None:
        _save_weights(directory / "encoder.safetensors", moved_encoder, half=half)
    tokenizer.save(directory)
    write_config(directory, config)


def write_config(directory: Path, config: CheckpointConfig) -> None:
    """Write `config.json` into the directory of a checkpoint."""
    encoder = config.encoder.relative_to(directory.resolve())  # ".." of a linked folder is not its name's
    stored = {**asdict(config), "encoder": encoder.to_json(), "pixtell_version": version("pixtell")}
    if config.engine is None:
        del stored["engine"]
    write_json(directory / "config.json", stored)


def load_checkpoint(source: str | Path) -> Checkpoint:
    """The model `source`: a shipped name, a checkpoint's directory, a run's directory (its best step), or a
    hub id.

    Raises: CheckpointError for what is no model, is cut short, does not fit its config or was exported;
    EncoderError for its encoder.
    """
    directory = find_checkpoint(source)
    config = read_config(directory)
    model, tokenizer = load_head(directory, config)
    encoder = load_checkpoint_encoder(directory, config)
    if encoder.feature_shape[-1] != model.feature_dim:
        raise CheckpointError(
            f"{directory} has a model of {model.feature_dim:,} features, and its encoder "
            f"{config.encoder.source} gives {encoder.feature_shape[-1]:,}; use the encoder it was trained on."
        )
    return Checkpoint(directory, config, model, tokenizer, encoder)


def load_head(directory: Path, config: CheckpointConfig) -> tuple[CaptionModel, Tokenizer]:
    """What of a checkpoint is no encoder: the model, fp32 on the CPU, in eval mode, and its tokenizer."""
    if config.engine is not None:
        raise CheckpointError(
            f"{directory} was exported to {config.engine['name']} and holds no weights for torch; name the "
            "model it was exported from."
        )
    model = build_model(config.family, config.model)
    _load_weights(directory / "model.safetensors", model)
    tokenizer = load_tokenizer(directory, config.tokenizer)
    if tokenizer.vocab_size != model.vocab_size:
        raise CheckpointError(
            f"{directory} has a tokenizer of {tokenizer.vocab_size:,} tokens and a model of "
            f"{model.vocab_size:,}; copy both from one run."
        )
    return model.eval(), tokenizer


def load_checkpoint_encoder(directory: Path, config: CheckpointConfig) -> Encoder:
    """The encoder that a checkpoint was trained on, with the run's own weights where it moved them."""
    encoder = load_encoder(config.encoder, base_dir=directory)
    moved = directory / "encoder.safetensors"
    if moved.exists():
        assert isinstance(encoder, torch.nn.Module)
        _load_weights(moved, encoder)
    return encoder


def find_checkpoint(source: str | Path) -> Path:
    """The directory of a checkpoint; what `load_checkpoint` takes. Files of a hub id are fetched.

    Raises: CheckpointError that lists what there is.
    """
    if str(source) in SHIPPED:
        return WEIGHTS / str(source)
    directory = follow_run(Path(source).expanduser())
    if Path(source).is_dir() and not directory.exists():
        raise CheckpointError(
            f"{source} is a run whose best or last step, {directory.name}, is not there; copy it again "
            "or train anew."
        )
    if (directory / "config.json").is_file():
        return directory
    if directory.exists():
        raise CheckpointError(
            f"{directory} is no checkpoint: it has no config.json; name a run's or a checkpoint's directory."
        )
    if str(source).count("/") == 1 and not str(source).startswith((".", "/", "~")):
        return _fetch_checkpoint(str(source))
    raise CheckpointError(
        f"There is no model {str(source)!r}; choose one of {', '.join(SHIPPED)}, a directory that "
        "pixtell train wrote, or a hub id (owner/name)."
    )


def read_config(directory: Path) -> CheckpointConfig:
    """Raises: CheckpointError where config.json is missing, damaged or of something else."""
    stored = read_json(directory / "config.json", CheckpointError)
    if not isinstance(stored, Mapping) or "family" not in stored:
        raise CheckpointError(
            f"{directory / 'config.json'} describes no captioning model; name a directory that pixtell "
            "train wrote."
        )
    if stored["family"] not in FAMILIES:
        raise CheckpointError(
            f"{directory} is of the family {stored['family']!r}; this pixtell knows "
            f"{', '.join(FAMILIES)}: take a newer one."
        )
    engine = stored.get("engine")
    if engine is not None and (not isinstance(engine, Mapping) or engine.get("name") not in ENGINES):
        raise CheckpointError(
            f"{directory} is for the engine {engine!r}; this pixtell knows {', '.join(ENGINES)}: take a "
            "newer one, or export the model again."
        )
    try:
        unsure_below = stored.get("unsure_below")
        return CheckpointConfig(
            family=str(stored["family"]),
            model=dict(stored["model"]),
            encoder=EncoderSpec.from_json(stored["encoder"]),
            tokenizer=str(stored["tokenizer"]),
            decoding=dict(stored.get("decoding", {})),
            unsure_below=None if unsure_below is None else float(unsure_below),
            engine=None if engine is None else dict(engine),
        )
    except (KeyError, TypeError, ValueError) as cause:
        raise CheckpointError(
            f"{directory / 'config.json'} lacks or garbles a field ({cause}); copy the checkpoint again."
        ) from cause


def model_config_json(config: Any) -> dict[str, Any]:
    """A family's config dataclass as the JSON that `CheckpointConfig.model` holds."""
    assert is_dataclass(config)
    assert not isinstance(config, type)
    return asdict(config)


def _fetch_checkpoint(hub_id: str) -> Path:
    from pixtell.downloads import fetch_hub_files

    try:
        directory = fetch_hub_files(hub_id, ["config.json"])
        config = read_config(directory)
        files = ["model.safetensors"] if config.engine is None else list(config.engine.get("files", []))
        tokenizer = TOKENIZERS.get(config.tokenizer)  # an unknown one: `load_tokenizer` says so
        files += [] if tokenizer is None else [tokenizer.file_name]
        return fetch_hub_files(hub_id, files, optional=["encoder.safetensors"], revision=directory.name)
    except DownloadError as cause:
        raise CheckpointError(
            f"There is no model {hub_id!r} on this disk, and none from the hub ({str(cause).rstrip('.')}); "
            f"choose one of {', '.join(SHIPPED)} or a directory."
        ) from cause


def _save_weights(path: Path, module: torch.nn.Module, *, half: bool) -> None:
    from safetensors.torch import save_file

    tensors = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    if half:
        tensors = {
            name: value.half() if value.is_floating_point() else value for name, value in tensors.items()
        }
    with atomic_path(path) as temporary:
        save_file(tensors, str(temporary))


def _load_weights(path: Path, module: torch.nn.Module) -> None:
    """Put a safetensors file's weights into `module`, in the module's dtype. Raises: CheckpointError."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        raise CheckpointError(f"{path} is missing; the checkpoint is not whole: copy or train it again.")
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as cause:
        raise CheckpointError(f"{path} cannot be read ({cause}); it is cut short: copy it again.") from cause
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in stored.items()}
    different = [
        f"{name} is {found.get(name, 'absent')} instead of {expected.get(name, 'absent')}"
        for name in {**expected, **found}
        if found.get(name) != expected.get(name)
    ]
    if different:
        raise CheckpointError(
            f"{path} holds the weights of another model than config.json describes ({len(different)} differ, "
            f"the first: {different[0]}); copy both from one run."
        )
    module.load_state_dict(stored)  # copies into the module's own dtype
