"""What every encoder is: pixels in, features out, with its preprocess and its fingerprint.

Knows nothing of models, data sets or how a spec was typed (`encoders/__init__.py` reads that).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar

import torch

from pixtell.errors import EncoderError
from pixtell.images import Preprocess

OUTPUTS = ("embedding", "pooled", "patches")

ModuleT = TypeVar("ModuleT", bound=torch.nn.Module)


class Encoder(Protocol):
    """A frozen backbone in eval mode. `__call__` is differentiable: the caller chooses `torch.no_grad`."""

    @property
    def name(self) -> str: ...  # for people: "nano", "vgg16", a hub id or a directory's name

    @property
    def output(self) -> str: ...  # one of OUTPUTS

    @property
    def feature_shape(self) -> tuple[int, ...]: ...  # (F,), or (N, F) for "patches"

    @property
    def preprocess(self) -> Preprocess: ...

    @property
    def fingerprint(self) -> str: ...  # `fingerprint_of`: part of every cache key

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Pixels (B, 3, H, W) to features (B, F) or (B, N, F), unnormalised, in the weights' dtype."""
        ...

    def to(self, device: torch.device | None = ..., dtype: torch.dtype | None = ...) -> Self:
        """Move the weights, in place; loaders give fp32 on the CPU."""
        ...


class TextEncoder(Protocol):
    """The text tower of an encoder whose `embedding` space holds images and texts; frozen, in eval mode."""

    @property
    def name(self) -> str: ...  # for people

    @property
    def fingerprint(self) -> str: ...  # hash of all that changes an embedding

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Text ids, a row each, padded on the right to the longest."""
        ...

    def unknown_words(self, text: str) -> list[str]:
        """Words that the tower cannot tell from each other; where texts are cut into byte pairs, none."""
        ...

    def knows(self, text: str) -> bool:
        """Whether the tower knows a word of a text; byte pairs can spell any."""
        ...

    def __call__(self, text_ids: torch.Tensor) -> torch.Tensor:
        """Text ids (B, T), padded on the right, to embeddings (B, F), unnormalised."""
        ...

    def to(self, device: torch.device | None = ..., dtype: torch.dtype | None = ...) -> Self:
        """Move the weights, in place; loaders give fp32 on the CPU."""
        ...


@dataclass(frozen=True)
class EncoderSpec:
    """Which encoder, from where: what a checkpoint's config.json stores under `encoder`.

    Exactly one of name, path, hub_id and url says where the weights are.
    """

    kind: str  # a key of ENCODERS
    output: str  # one of OUTPUTS
    name: str | None = None  # of an encoder that ships in the package
    path: str | None = None  # a directory or file; a relative one starts at the directory it is stored in
    hub_id: str | None = None  # "org/name"
    url: str | None = None  # of a weights file whose name carries its hash
    revision: str | None = None  # commit or tag of hub_id; None: its main branch
    sha256: str | None = None  # `weights_sha256` that `load_encoder` checks; None: any weights

    def __post_init__(self) -> None:
        sources = [field for field in ("name", "path", "hub_id", "url") if getattr(self, field) is not None]
        if len(sources) != 1:
            found = " and ".join(sources) or "none of them"
            raise EncoderError(
                f"an encoder needs one of name, path, hub_id and url, and this one has {found}: keep one."
            )
        if self.output not in OUTPUTS:
            raise EncoderError(f"no encoder output {self.output!r}: choose one of {', '.join(OUTPUTS)}.")

    @property
    def source(self) -> str:
        """The one of name, path, hub_id and url that is set."""
        return self.name or self.path or self.hub_id or self.url or ""

    def located(self, base_dir: Path | None) -> EncoderSpec:
        """The same spec with `path` absolute, taken from `base_dir` (None: the working directory)."""
        if self.path is None:
            return self
        path = Path(base_dir or Path.cwd(), Path(self.path).expanduser())
        return replace(self, path=str(path.resolve()))

    def relative_to(self, directory: Path) -> EncoderSpec:
        """The same spec with `path` relative to `directory`, for two folders that travel together."""
        if self.path is None:
            return self
        return replace(self, path=Path(os.path.relpath(self.path, directory)).as_posix())

    def to_json(self) -> dict[str, str]:
        """The fields that are set."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    @classmethod
    def from_json(cls, value: object) -> EncoderSpec:
        """The inverse of `to_json`.

        Raises:
            EncoderError: not a mapping, unknown or missing fields, values that are no strings.
        """
        if not isinstance(value, Mapping):
            raise EncoderError(
                f"an encoder is stored as a JSON object, not {value!r}: write its kind and output."
            )
        known = {field.name for field in fields(cls)}
        problems = [f"unknown field {key!r}" for key in value if key not in known]
        problems += [
            f"{key} is {item!r}, not a string" for key, item in value.items() if not isinstance(item, str)
        ]
        problems += [f"{key} is missing" for key in ("kind", "output") if key not in value]
        if problems:
            raise EncoderError(f"the stored encoder is unusable ({'; '.join(problems)}): save it again.")
        return cls(**value)


def freeze(module: ModuleT) -> ModuleT:
    """The same module in eval mode, its parameters without gradients."""
    return module.eval().requires_grad_(False)


def weights_sha256(module: torch.nn.Module) -> str:
    """Hash of all weights and buffers, by sorted name, as they are held now: a bf16 copy has another one."""
    digest = hashlib.sha256()
    for key, tensor in sorted(module.state_dict().items()):
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{key} {values.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(values.view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint_of(module: torch.nn.Module, config: Mapping[str, Any], output: str) -> str:
    """Hash of everything that turns pixels into features: weights, config (JSON values) and output."""
    settings = json.dumps({"config": config, "output": output}, sort_keys=True)
    return hashlib.sha256(f"{weights_sha256(module)} {settings}".encode()).hexdigest()


def check_output(output: str, outputs: tuple[str, ...], encoder: str) -> None:
    """Refuse an output that the encoder lacks.

    Raises:
        EncoderError: names the outputs it has.
    """
    if output not in outputs:
        raise EncoderError(f"{encoder} has no output {output!r}: choose one of {', '.join(outputs)}.")
