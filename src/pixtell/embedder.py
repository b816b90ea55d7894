"""Images and texts -> embeddings in the joint space of a CLIP, or of the nano towers.

In: paths, bytes, arrays or Pillow images, and sentences. Out: arrays (n, F), unnormalised, on the CPU. It
knows the whole order, as `captioner.py` does for captions, and not what embeddings are for: CLIPScore, search
and rewards stand above it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from pixtell.devices import Placement, choose_placement
from pixtell.encoders import Encoder, EncoderSpec, TextEncoder, load_encoder, parse_encoder
from pixtell.encoders.clip_text import load_clip_text
from pixtell.encoders.nano_text import load_nano_towers
from pixtell.errors import EncoderError, ImageError, OptionError, ScoringError
from pixtell.images import ImageSource, load_images

Embeddings: TypeAlias = npt.NDArray[np.float32]


class Embedder:
    """Both towers, ready to embed. batch_size: images or texts that go through a tower at once."""

    def __init__(
        self,
        *,
        encoder: Encoder,
        text_encoder: TextEncoder,
        placement: Placement,
        batch_size: int = 32,
    ) -> None:
        if batch_size < 1:
            raise OptionError(f"--batch-size {batch_size} is not above zero; give a number such as 32.")
        self.encoder = encoder
        self.text_encoder = text_encoder
        self.placement = placement
        self.batch_size = batch_size

    @classmethod
    def from_pretrained(
        cls, source: str | Path, *, device: str = "auto", dtype: str = "auto", batch_size: int = 32
    ) -> "Embedder":
        """Whatever `parse_encoder` takes for a whole CLIP: its directory or hub id, or a checkpoint over it;
        or for a nano encoder that has a text tower.

        device, dtype: as `devices.choose_placement` takes them; "auto" is fp32, as CLIPScore wants it.
        Raises: EncoderError where that has no text tower or is damaged; DownloadError; OptionError for a
        device or dtype that this machine lacks.
        """
        placement = choose_placement(device, dtype)
        spec = parse_encoder(str(source))
        if spec.kind not in TOWERS:
            raise EncoderError(
                f"the encoder {str(source)!r} is of kind {spec.kind!r} and cannot read texts: give the "
                "directory or hub id of a CLIP, like openai/clip-vit-base-patch32."
            )
        encoder, text_encoder = TOWERS[spec.kind](spec)
        return cls(
            encoder=encoder.to(placement.device, placement.dtype),
            text_encoder=text_encoder.to(placement.device, placement.dtype),
            placement=placement,
            batch_size=batch_size,
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that changes an embedding: both towers as they are held, and the preprocess."""
        parts = [
            self.encoder.fingerprint,
            self.text_encoder.fingerprint,
            json.dumps(self.encoder.preprocess.to_json(), sort_keys=True),
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()

    @property
    def name(self) -> str:
        """For people and signatures, such as "openai/clip-vit-base-patch32@1f0c9a3e"; other weights, another
        name."""
        return f"{self.encoder.name}@{self.fingerprint[:8]}"

    def images(self, images: Sequence[ImageSource]) -> Embeddings:
        """Embeddings (n, F), in order. Raises: ImageError for the first image that cannot be read."""
        embeddings = [self._empty()]
        for embedded in self.stream(images):
            if isinstance(embedded, ImageError):
                raise embedded
            embeddings.append(embedded[None])
        return np.concatenate(embeddings)

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Embeddings | ImageError]:
        """One by one, in order: an embedding (F,), or what is wrong with the image."""
        loaded = load_images(images, self.encoder.preprocess, ahead=self.batch_size, on_error="return")
        for batch in iter(lambda: list(islice(loaded, self.batch_size)), []):
            good = [image for image in batch if not isinstance(image, ImageError)]  # each uint8 (3, S, S)
            embeddings = iter(self._embed(torch.stack(good)) if good else ())
            for image in batch:
                yield image if isinstance(image, ImageError) else next(embeddings)

    @torch.inference_mode()
    def _embed(self, batch: torch.Tensor) -> Embeddings:
        """uint8 (B, 3, S, S) -> (B, F)."""
        pixels = self.encoder.preprocess.normalise(batch.to(self.placement.device))
        return _to_numpy(self.encoder(pixels.to(self.placement.dtype)))

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings (n, F), in order. What goes past the text tower's positions, mostly 77, is cut."""
        embeddings = np.empty((len(texts), self._empty().shape[1]), np.float32)
        # Texts of like length together: a batch is as long as its longest.
        for rows in self._batches(sorted(range(len(texts)), key=lambda row: len(texts[row]))):
            text_ids = self.text_encoder.encode_batch([texts[row] for row in rows])
            embedded = self.text_encoder(torch.tensor(text_ids, device=self.placement.device))  # (B, F)
            embeddings[rows] = _to_numpy(embedded)
        return embeddings

    def _batches(self, rows: list[int]) -> Iterator[list[int]]:
        return (rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size))

    def _empty(self) -> Embeddings:
        return np.empty((0, *self.encoder.feature_shape), np.float32)  # (0, F)


def _load_clip_towers(spec: EncoderSpec) -> tuple[Encoder, TextEncoder]:
    if spec.output != "embedding":  # a checkpoint's; its hash is that of the tower without projection
        spec = replace(spec, output="embedding", sha256=None)
    text_encoder = load_clip_text(spec)  # first: it says more of what is no whole CLIP
    return load_encoder(spec), text_encoder


def _load_nano_towers(spec: EncoderSpec) -> tuple[Encoder, TextEncoder]:
    towers = load_nano_towers(spec)
    return towers.image, towers.text


# kind of encoder -> what loads its two towers; other kinds have no text tower
TOWERS: dict[str, Callable[[EncoderSpec], tuple[Encoder, TextEncoder]]] = {
    "clip": _load_clip_towers,
    "nano": _load_nano_towers,
}


class EmbedderById:
    """An Embedder whose images have ids, as metrics ask for them.

    It remembers every embedding, 2 kB each, for systems are compared on the same images and references.
    """

    def __init__(self, embedder: Embedder, images: Mapping[str, ImageSource]) -> None:
        self.embedder = embedder
        self.sources = images
        self._known_images: dict[str, Embeddings] = {}
        self._known_texts: dict[str, Embeddings] = {}

    @property
    def name(self) -> str:
        return self.embedder.name

    def images(self, image_ids: Sequence[str]) -> Embeddings:
        """Embeddings (n, F), in order. Raises: ScoringError for ids without an image; ImageError."""
        if missing := [image_id for image_id in image_ids if image_id not in self.sources]:
            raise ScoringError(
                f"{len(missing):,} of {len(image_ids):,} ids have no image ({', '.join(missing[:3])}"
                f"{', ...' if len(missing) > 3 else ''}): give the folder that has the image of each caption."
            )
        new = [image_id for image_id in dict.fromkeys(image_ids) if image_id not in self._known_images]
        embeddings = self.embedder.images([self.sources[image_id] for image_id in new])
        self._known_images.update(zip(new, embeddings, strict=True))
        return np.array([self._known_images[image_id] for image_id in image_ids])

    def texts(self, texts: Sequence[str]) -> Embeddings:
        """Embeddings (n, F), in order."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known_texts]
        self._known_texts.update(zip(new, self.embedder.texts(new), strict=True))
        return np.array([self._known_texts[text] for text in texts])


def _to_numpy(embeddings: torch.Tensor) -> Embeddings:
    array: Embeddings = embeddings.float().cpu().numpy()
    return array
