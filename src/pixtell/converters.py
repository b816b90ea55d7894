"""Public weights -> our configurations and state dicts.

In: a directory in transformers' format, or a hub id. Out: what builds and fills a model of ours. Nothing of
transformers is imported. Every file is checked whole before a model is touched.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pixtell.errors import CheckpointError, ModelError
from pixtell.files import read_json
from pixtell.models.configs import read_config
from pixtell.models.gpt2 import Gpt2Config

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # in the order of preference


def find_gpt2(source: str | Path, *, revision: str | None = None) -> Path:
    """The directory of a GPT-2: `source` itself, or the files of the hub id `source`, tokenizer included.

    Raises: CheckpointError where the directory holds no configuration or no weights; DownloadError.
    """
    directory = Path(source)
    if not directory.is_dir():
        from pixtell.downloads import fetch_hub_files

        hub_id = str(source)
        optional = ["model.safetensors", "tokenizer.json"]
        directory = fetch_hub_files(hub_id, ["config.json"], optional=optional, revision=revision)
        commit = directory.name
        if not (directory / "model.safetensors").exists():
            fetch_hub_files(hub_id, ["pytorch_model.bin"], revision=commit)
        if not (directory / "tokenizer.json").exists():
            fetch_hub_files(hub_id, ["vocab.json", "merges.txt"], revision=commit)
    if not (directory / "config.json").exists() or not any((directory / name).exists() for name in _WEIGHTS):
        weights = " or ".join(_WEIGHTS)
        raise CheckpointError(
            f"{directory} holds no GPT-2: put config.json and {weights} there, or give a hub id."
        )
    return directory


def load_gpt2(source: str | Path, *, revision: str | None = None) -> tuple[Gpt2Config, dict[str, Tensor]]:
    """The configuration and the state dict, float32, of a GPT-2 in transformers' format.

    source: a directory or a hub id; revision: of the hub id.
    Raises: CheckpointError where files are missing or damaged; DownloadError; ModelError where this is not a
    GPT-2 that our code can run, or the weights do not belong to the configuration.
    """
    directory = find_gpt2(source, revision=revision)
    path = next(directory / name for name in _WEIGHTS if (directory / name).exists())
    config = convert_gpt2_config(read_json(directory / "config.json", CheckpointError))
    return config, convert_gpt2_state(_read_weights(path), config)


def convert_gpt2_config(config: Any) -> Gpt2Config:
    """transformers' config.json -> Gpt2Config. Raises: ModelError naming every setting we cannot run."""
    if not isinstance(config, Mapping):
        raise ModelError("This config.json is not an object: take the config.json of a GPT-2.")
    width = config.get("n_embd", 768)
    allowed = {  # setting -> the values that our GPT-2 computes; the first is transformers' default
        "model_type": ("gpt2",),
        "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
        "n_inner": (None, 4 * width if isinstance(width, int) else None),
        "layer_norm_epsilon": (1e-5,),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
        "tie_word_embeddings": (True,),
    }
    problems = [
        f"{name} {config.get(name)!r}"
        for name, values in allowed.items()
        if config.get(name, values[0]) not in values
    ]
    if problems:
        raise ModelError(f"This GPT-2 has {', '.join(problems)}, which pixtell's cannot run: choose another.")
    sizes = {
        "vocab_size": config.get("vocab_size", 50257),
        "width": width,
        "num_layers": config.get("n_layer", 12),
        "num_heads": config.get("n_head", 12),
        "max_positions": config.get("n_positions", 1024),
        "dropout": config.get("resid_pdrop", 0.1),
    }
    converted: Gpt2Config = read_config(Gpt2Config, sizes, name="GPT-2")
    return converted


def convert_gpt2_state(state: Mapping[str, Tensor], config: Gpt2Config) -> dict[str, Tensor]:
    """The hub's parameters -> those of `Gpt2(config)`, float32.

    state: with or without `transformer.` before the names; projections as Conv1D stores them, (in, out).
    Causal masks among the parameters are dropped, and so is an output head that equals the token embeddings.
    Raises: ModelError where parameters are missing, unexpected or of other shapes, or the head is not tied.
    """
    ours: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.removeprefix("transformer.")
        if not re.fullmatch(r"h\.\d+\.attn\.(bias|masked_bias)", name):
            is_projection = re.fullmatch(r"h\.\d+\.(attn|mlp)\.c_\w+\.weight", name) and value.dim() == 2
            ours[name] = (value.T if is_projection else value).to(torch.float32).contiguous()
    head = ours.pop("lm_head.weight", None)
    shapes = _gpt2_shapes(config)
    problems = [f"{name} is missing" for name in shapes if name not in ours]
    problems += [f"{name} is unexpected" for name in ours if name not in shapes]
    problems += [
        f"{name} has shape {tuple(ours[name].shape)}, not {shape}"
        for name, shape in shapes.items()
        if name in ours and tuple(ours[name].shape) != shape
    ]
    if not problems and head is not None and not torch.equal(head, ours["wte.weight"]):
        problems.append("lm_head.weight differs from wte.weight")
    if problems:
        shown = "; ".join(problems[:3]) + (f"; and {len(problems) - 3} more" if len(problems) > 3 else "")
        raise ModelError(f"These weights do not fit the config.json beside them ({shown}): fetch both anew.")
    return ours


def _gpt2_shapes(config: Gpt2Config) -> dict[str, tuple[int, ...]]:
    """The names and shapes of `Gpt2(config).state_dict()`, without building half a gigabyte to know them."""
    width = config.width
    norms = {f"{norm}.{kind}": (width,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    projections = {
        "attn.c_attn": (3 * width, width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (4 * width, width),
        "mlp.c_proj": (width, 4 * width),
    }
    block: dict[str, tuple[int, ...]] = dict(norms)
    for name, shape in projections.items():
        block |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    return {
        "wte.weight": (config.vocab_size, width),
        "wpe.weight": (config.max_positions, width),
        **{f"h.{layer}.{name}": shape for layer in range(config.num_layers) for name, shape in block.items()},
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            state: dict[str, Tensor] = load_file(path)
        else:
            state = dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as cause:  # both raise half a dozen types for a damaged file
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(cause).__name__}): fetch the file again."
        ) from cause
    return state
