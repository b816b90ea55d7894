"""Pixels -> features: frozen backbones with their preprocess, by name, directory, file or hub id.

In: what a person typed (`parse_encoder`) or a checkpoint stored (`EncoderSpec`). Out: an Encoder
(`load_encoder`), whose file is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixtell.encoders.base import (
    OUTPUTS,
    Encoder,
    EncoderSpec,
    TextEncoder,
    check_output,
    fingerprint_of,
    weights_sha256,
)
from pixtell.errors import EncoderError
from pixtell.files import follow_run, read_json

__all__ = [
    "ENCODERS",
    "NAMED_ENCODERS",
    "OUTPUTS",
    "Encoder",
    "EncoderKind",
    "EncoderSpec",
    "TextEncoder",
    "fingerprint_of",
    "load_encoder",
    "parse_encoder",
    "weights_sha256",
]


@dataclass(frozen=True)
class EncoderKind:
    """Where a kind of encoder is: `loader(spec, base_dir=Path | None) -> Encoder` in `module`."""

    module: str
    loader: str
    outputs: tuple[str, ...]  # what encoders of this kind can give; the first is the default


ENCODERS: dict[str, EncoderKind] = {
    "nano": EncoderKind("pixtell.encoders.nano", "load_nano_encoder", ("patches", "pooled")),
    "vgg16": EncoderKind("pixtell.encoders.vgg16", "load_vgg16", ("pooled", "patches")),
    "clip": EncoderKind("pixtell.encoders.clip", "load_clip", ("embedding", "pooled", "patches")),
    "hub": EncoderKind("pixtell.encoders.hub", "load_hub_encoder", ("patches", "pooled")),
}

# What needs no directory, file or hub id to be named; the fields of a spec but its output.
NAMED_ENCODERS: dict[str, dict[str, str]] = {
    "nano": {"kind": "nano", "name": "nano"},
    "vgg16": {"kind": "vgg16", "url": "https://download.pytorch.org/models/vgg16-397923af.pth"},
}

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_CLIP_TYPES = ("clip", "clip_vision_model")


def parse_encoder(text: str, output: str | None = None) -> EncoderSpec:
    """What `--encoder` says: a name, a directory, a weights file or a hub id, in this order.

    text: "nano" or "vgg16" (for a directory of that name: "./nano"); the directory of a nano encoder, of a
        model of transformers, or of a checkpoint, whose encoder is meant; a file of VGG16 weights; a hub id
        "org/name", of which config.json is fetched and the commit noted: later loads get the same files.
    output: None takes the kind's default, or what the checkpoint was trained on.

    Raises:
        EncoderError: nothing of that name, or an output that it lacks; lists what there is.
        DownloadError: a hub id whose config.json cannot be had.
    """
    path = Path(text).expanduser()
    if text in NAMED_ENCODERS:
        fields = NAMED_ENCODERS[text]
    elif path.is_dir():
        fields = _inspect_directory(path.resolve())
    elif path.is_file():
        fields = _inspect_file(path.resolve())
    elif _HUB_ID.fullmatch(text):
        fields = _inspect_hub_model(text)
    else:
        raise EncoderError(
            f"no encoder {text!r}: neither a name ({', '.join(NAMED_ENCODERS)}), nor a directory or file "
            f"(looked for {path.absolute()}), nor a hub id like openai/clip-vit-base-patch32."
        )
    outputs = _kind_of(fields["kind"]).outputs
    output = output or fields.get("output") or outputs[0]
    check_output(output, outputs, f"encoder {text!r}")
    return EncoderSpec.from_json({**fields, "output": output})


def load_encoder(spec: EncoderSpec, *, base_dir: Path | None = None) -> Encoder:
    """The encoder that `spec` describes, frozen, in eval mode, fp32, on the CPU.

    base_dir: where a relative path in `spec` starts, the directory it is stored in; None: the working one.

    Raises:
        EncoderError: an unknown kind, no such weights, or weights of another shape or hash than the spec's.
        DownloadError: weights from the network that did not come, or came broken.
    """
    kind = _kind_of(spec.kind)
    encoder: Any = getattr(importlib.import_module(kind.module), kind.loader)(spec, base_dir=base_dir)
    if spec.sha256 is not None and (found := weights_sha256(encoder)) != spec.sha256:
        raise EncoderError(
            f"the weights of the encoder {spec.source} changed since the model was trained on them "
            f"(hash {found[:8]}, expected {spec.sha256[:8]}): put the old ones back, or train again."
        )
    loaded: Encoder = encoder
    return loaded


def _kind_of(kind: str) -> EncoderKind:
    if kind not in ENCODERS:
        raise EncoderError(f"no kind of encoder {kind!r}: choose one of {', '.join(ENCODERS)}.")
    return ENCODERS[kind]


def _inspect_directory(directory: Path) -> dict[str, str]:
    """Fields of the spec of whatever is in a directory, judged by its config.json."""
    directory = follow_run(directory)
    if (directory / "encoder.safetensors").is_file():
        raise EncoderError(
            f"{directory} trained an encoder of its own together with its model: --init-from takes both, "
            "--encoder cannot take the one."
        )
    if not (directory / "config.json").is_file():
        raise EncoderError(
            f"{directory} holds no encoder (no config.json in it): give the directory of a nano encoder, "
            "of a model of transformers, or of a checkpoint."
        )
    config = read_json(directory / "config.json", EncoderError)
    if isinstance(config, dict) and "encoder" in config:
        return EncoderSpec.from_json(config["encoder"]).located(directory).to_json()
    if isinstance(config, dict) and config.get("kind") == "nano-encoder":
        return {"kind": "nano", "path": str(directory)}
    return {"kind": _kind_of_config(config, str(directory)), "path": str(directory)}


def _inspect_file(path: Path) -> dict[str, str]:
    if path.suffix not in (".pth", ".safetensors"):
        raise EncoderError(
            f"{path} is no file of encoder weights: give VGG16 weights as .pth or .safetensors, or the "
            "directory of another encoder."
        )
    return {"kind": "vgg16", "path": str(path)}


def _inspect_hub_model(hub_id: str) -> dict[str, str]:
    from pixtell.downloads import fetch_hub_files

    directory = fetch_hub_files(hub_id, ["config.json"])
    config = read_json(directory / "config.json", EncoderError)
    return {"kind": _kind_of_config(config, hub_id), "hub_id": hub_id, "revision": directory.name}


def _kind_of_config(config: object, source: str) -> str:
    model_type = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(model_type, str):
        raise EncoderError(
            f"{source} holds no encoder (its config.json has no model_type): give a nano encoder, a model of "
            "transformers, or a checkpoint."
        )
    return "clip" if model_type in _CLIP_TYPES else "hub"
