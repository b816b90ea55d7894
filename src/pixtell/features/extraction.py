"""Encoder and images -> a `FeatureCache`: reading, hashing, encoding, and the key of it all."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from pixtell.encoders.base import Encoder
from pixtell.errors import FeatureCacheError, ImageError
from pixtell.features.cache import FeatureCache
from pixtell.features.store import FeatureStore
from pixtell.images import ImageSource, Preprocess, load_image, map_in_order, read_image_bytes

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
FORMAT = 1  # of the files; part of the key


@dataclass(frozen=True, kw_only=True)
class Views:
    """Further views of every image beside the plain one: who makes them, and all that changes them.

    The views of an image depend on it and on these fields alone, never on the batch they were made in.
    """

    count: int  # V, the plain view included; 1: no further views
    make: Callable[[torch.Tensor, torch.Generator], torch.Tensor]  # (B, 3, S0, S0) to (B, 3, S, S), uint8
    description: str  # `make` with all its options; part of the key
    source_size: int  # S0, pixels a side of the images that `make` is given
    seed: int


def extract_features(
    encoder: Encoder,
    images: Mapping[str, ImageSource],
    directory: Path,
    *,
    dtype: torch.dtype = torch.float16,
    batch_size: int = 64,
    views: Views | None = None,
    device: torch.device | None = None,
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> FeatureCache:
    """Features of `images` (image_id -> source); those that `directory` holds already are not made again.

    Every image's bytes are read and hashed, so a changed picture is never served old features, and a picture
    that occurs twice is encoded once. A bad one ends in `FeatureCache.errors`. The encoder stands on `device`
    (None: the CPU). dtype: of what is stored. threads: as in `load_images`. on_progress(done, of) an image.

    Raises: FeatureCacheError for a damaged cache, one that another process writes, and features that are not
    finite in `dtype`; StorageError where the disk is full or may not be written.
    """
    if views is not None and views.count < 2:
        views = None
    preprocess = encoder.preprocess
    sizes = [preprocess] if views is None else [preprocess, replace(preprocess, size=views.source_size)]
    settings = _settings(encoder, dtype, views)
    store = FeatureStore(
        directory / _folder_name(settings),
        settings=settings,
        row_shape=(views.count if views else 1, *encoder.feature_shape),
        dtype=dtype,
    )
    digests: dict[str, str] = {}
    errors: dict[str, ImageError] = {}
    batch: dict[str, _Loaded] = {}
    with store:
        loaded_images = map_in_order(
            lambda item: _load(*item, sizes, store.rows), images.items(), threads=threads, ahead=batch_size
        )
        for done, (image_id, loaded) in enumerate(zip(images, loaded_images, strict=True), start=1):
            if isinstance(loaded, ImageError):
                errors[image_id] = loaded
            else:
                digests[image_id] = loaded.digest
                if loaded.images:
                    store.begin_writing()
                    if loaded.digest not in store.rows:
                        batch[loaded.digest] = loaded
            if len(batch) == batch_size or (batch and done == len(images)):
                features = _encode(encoder, list(batch.values()), views, device or torch.device("cpu"))
                store.append(list(batch), features)
                batch.clear()
            if on_progress is not None:
                on_progress(done, len(images))
    rows = {image_id: store.rows[digest] for image_id, digest in digests.items()}
    return FeatureCache(path=store.path, features=store.map_features(), rows=rows, errors=errors)


# ---- what a cache is of


def _settings(encoder: Encoder, dtype: torch.dtype, views: Views | None) -> dict[str, Any]:
    """Everything that changes a value, as JSON; its hash is the key."""
    if dtype not in DTYPES.values():
        raise FeatureCacheError(f"features cannot be stored as {dtype}; choose one of {', '.join(DTYPES)}.")
    settings = {
        "format": FORMAT,
        "encoder": encoder.name,
        "output": encoder.output,
        "fingerprint": encoder.fingerprint,
        "preprocess": encoder.preprocess.to_json(),
        "feature_shape": list(encoder.feature_shape),
        "dtype": str(dtype).removeprefix("torch."),
        "views": 1,
    }
    if views is not None:
        settings |= {"views": views.count, "view": views.description}
        settings |= {"view_source_size": views.source_size, "view_seed": views.seed}
    return settings


def _folder_name(settings: Mapping[str, Any]) -> str:
    key = {name: value for name, value in settings.items() if name != "encoder"}  # the name changes no value
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", settings["encoder"]).strip("-.")[:40]
    return f"{name}-{settings['output']}-{digest[:12]}"


# ---- images -> features


@dataclass(frozen=True)
class _Loaded:
    digest: str  # of the image's bytes
    images: list[torch.Tensor]  # uint8 (3, S, S), for views also (3, S0, S0); empty: in the cache already


def _load(
    image_id: str, source: ImageSource, sizes: Sequence[Preprocess], known: Mapping[str, int]
) -> _Loaded | ImageError:
    """Hash a source and, if it is not known, decode and resize it: one reading for both."""
    name = str(source) if isinstance(source, str | Path) else image_id
    try:
        if isinstance(source, str | Path):
            source = read_image_bytes(Path(source))
        if isinstance(source, bytes):
            digest = hashlib.sha256(source).hexdigest()
        else:
            source = load_image(source)  # (H, W, 3)
            digest = hashlib.sha256(f"array {source.shape} ".encode() + source.tobytes()).hexdigest()
        if digest in known:
            return _Loaded(digest, [])
        image = load_image(source)  # (H, W, 3)
        return _Loaded(digest, [size.resize_image(image) for size in sizes])
    except ImageError as error:
        return ImageError(name, error.reason)


@torch.no_grad()
def _encode(
    encoder: Encoder, batch: Sequence[_Loaded], views: Views | None, device: torch.device
) -> torch.Tensor:
    """Features of a batch, (B, V, F) or (B, V, N, F), in the encoder's dtype, one view at a time."""
    plain = torch.stack([loaded.images[0] for loaded in batch]).to(device)  # (B, 3, S, S)
    view_images = [plain]
    if views is not None:
        made = []
        for loaded in batch:
            generator = torch.Generator().manual_seed(_seed_of(views.seed, loaded.digest))
            source = loaded.images[1].to(device).expand(views.count - 1, -1, -1, -1)  # (V - 1, 3, S0, S0)
            made.append(views.make(source, generator))  # (V - 1, 3, S, S)
        view_images += torch.stack(made).unbind(1)  # V - 1 times (B, 3, S, S)
    encoded = [encoder(encoder.preprocess.normalise(images)) for images in view_images]
    return torch.stack(encoded, dim=1).cpu()


def _seed_of(seed: int, digest: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {digest}".encode()).digest()[:7], "big")
