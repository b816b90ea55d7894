"""The text tower of the nano encoder, and the projection of its features: a small CLIP.

In: ids of WordTokenizer; pixels. Out: embeddings (B, E) in one space. A transformer that reads all words at
once, as nothing is to be continued here; its embedding is the mean over the words and the end token.

It is stored beside the encoder, in the folder `text/` of its directory: config.json, model.safetensors and
the word list. An encoder without that folder is whole: captioning reads the image tower alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.encoders.base import EncoderSpec, freeze, weights_sha256
from pixtell.encoders.nano import NanoEncoder, load_nano_encoder, nano_directory, save_nano_encoder
from pixtell.encoders.towers import Towers, pad_text_ids
from pixtell.errors import CheckpointError, EncoderError
from pixtell.files import read_json, write_json
from pixtell.images import Preprocess
from pixtell.tokenizers import WordTokenizer, split_words

KIND = "nano-text"  # what text/config.json says of itself
TEXT_FOLDER = "text"
_FIRST_SCALE = 1 / 0.07  # where the temperature begins (Radford et al. 2021, section 2.5)


@dataclass(frozen=True)
class NanoTextConfig:
    """Sizes of the text tower and of the joint space. Raises: EncoderError for sizes that make no tower.

    1.5 million parameters with the defaults and 2,900 words, the projection of the image included.
    """

    width: int = 160
    num_layers: int = 3
    head_dim: int = 32
    embedding_dim: int = 256  # E
    max_length: int = 40  # tokens, the end token included; the rest of a text is cut
    dropout: float = 0.1  # of what each layer adds, in training

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % self.head_dim:
            raise EncoderError(
                f"--text-width {self.width} is not a multiple of {self.head_dim}; choose for example 160."
            )
        if min(self.num_layers, self.embedding_dim, self.max_length) < 1 or not 0 <= self.dropout < 1:
            raise EncoderError(f"A text tower of sizes {asdict(self)} is none; give numbers above zero.")


class _Block(nn.Module):
    """A layer of the transformer, norms first."""

    def __init__(self, config: NanoTextConfig) -> None:
        super().__init__()
        width = config.width
        self.num_heads = width // config.head_dim
        self.norm1 = nn.LayerNorm(width)
        self.queries_keys_values = nn.Linear(width, 3 * width)
        self.attended = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, hidden: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """hidden (B, T, D), present (B, T), False at padding -> (B, T, D)."""
        projected = self.queries_keys_values(self.norm1(hidden))  # (B, T, 3 * D)
        heads = projected.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, H, T, D / H)
        queries, keys, values = heads.unbind()  # each (B, H, T, D / H)
        mixed = F.scaled_dot_product_attention(queries, keys, values, attn_mask=present[:, None, None, :])
        hidden = hidden + self.dropout(self.attended(mixed.transpose(1, 2).flatten(2)))
        return hidden + self.dropout(self.mlp(self.norm2(hidden)))  # type: ignore[no-any-return]


class NanoTextEncoder(nn.Module):
    """The text tower as a TextEncoder."""

    name = "nano"

    def __init__(self, *, config: NanoTextConfig, tokenizer: WordTokenizer) -> None:
        super().__init__()
        self.config = config
        self.tokenizer = tokenizer
        self.words = nn.Embedding(tokenizer.vocab_size, config.width)
        self.positions = nn.Parameter(torch.empty(config.max_length, config.width))
        self.dropout = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(_Block(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.width)
        self.projection = nn.Linear(config.width, config.embedding_dim, bias=False)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)

    @property
    def fingerprint(self) -> str:
        settings = json.dumps({**asdict(self.config), "words": self.tokenizer.words})
        return hashlib.sha256(f"{weights_sha256(self)} {settings}".encode()).hexdigest()

    def encode(self, text: str) -> list[int]:
        """The words of a text and the end token."""
        return [*self.tokenizer.encode(text)[: self.config.max_length - 1], self.tokenizer.eos_id]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """As `encode`, padded on the right to the longest with the end token."""
        rows: list[list[int]] = pad_text_ids(
            [self.encode(text) for text in texts], self.tokenizer.eos_id
        ).tolist()
        return rows

    def unknown_words(self, text: str) -> list[str]:
        """The words of a text that are not in the word list: they are all alike to the tower."""
        return [word for word in split_words(text) if self.tokenizer.encode(word) == [self.tokenizer.unk_id]]

    def knows(self, text: str) -> bool:
        """Whether the word list has a word of a text."""
        return any(token_id != self.tokenizer.unk_id for token_id in self.tokenizer.encode(text))

    def forward(self, text_ids: torch.Tensor) -> torch.Tensor:
        """Text ids (B, T), padded with the end token -> (B, E), unnormalised."""
        is_end = text_ids == self.tokenizer.eos_id  # (B, T)
        present = (is_end.cumsum(1) - is_end.long()) == 0  # (B, T), up to the first end token
        hidden = self.dropout(self.words(text_ids) + self.positions[: text_ids.shape[1]])  # (B, T, D)
        for block in self.blocks:
            hidden = block(hidden, present)
        weight = present[..., None].to(hidden.dtype)  # (B, T, 1)
        mean = (self.norm(hidden) * weight).sum(1) / weight.sum(1)  # (B, D)
        return self.projection(mean)  # type: ignore[no-any-return]


class NanoImageTower(nn.Module):
    """The nano encoder, its mean-pooled grid projected into the joint space: an Encoder, "embedding"."""

    name = "nano"
    output = "embedding"

    def __init__(self, *, encoder: NanoEncoder, embedding_dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        feature_dim = encoder.config.feature_dim
        self.projection = nn.Sequential(nn.LayerNorm(feature_dim), nn.Linear(feature_dim, embedding_dim))

    @property
    def preprocess(self) -> Preprocess:
        return self.encoder.preprocess

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (self.projection[1].out_features,)  # type: ignore[return-value]

    @property
    def fingerprint(self) -> str:
        config = json.dumps(asdict(self.encoder.config), sort_keys=True)
        return hashlib.sha256(f"{weights_sha256(self)} {config} embedding".encode()).hexdigest()

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """pixels (B, 3, H, W) -> (B, E), unnormalised."""
        return self.projection(self.encoder.grid(pixels).mean(dim=(2, 3)))  # type: ignore[no-any-return]


class NanoTowers(Towers):
    """The nano encoder as a CLIP.

    learn_statistics: whether the encoder's norms take those of each pass in training, as a new encoder must
    that has none. Those of an encoder that was trained stay: what trains is then what is used, and an image's
    embedding depends on no other image, so that it is the same in a batch and in a chunk of it.
    """

    name = "nano"

    def __init__(
        self,
        *,
        encoder: NanoEncoder,
        config: NanoTextConfig,
        tokenizer: WordTokenizer,
        learn_statistics: bool = False,
    ) -> None:
        super().__init__()
        self.learn_statistics = learn_statistics
        self.config = config
        self.image = NanoImageTower(encoder=encoder, embedding_dim=config.embedding_dim)
        self.text = NanoTextEncoder(config=config, tokenizer=tokenizer)
        self.logit_scale = nn.Parameter(torch.tensor(_FIRST_SCALE).log())
        self.pad_id = tokenizer.eos_id

    @property
    def preprocess(self) -> Preprocess:
        return self.image.preprocess

    def train(self, mode: bool = True) -> "NanoTowers":
        super().train(mode)
        self.image.encoder.train(mode and self.learn_statistics)  # it has norms and no dropout
        return self

    @property
    def image_backbone(self) -> nn.Module:
        return self.image.encoder

    def embed_images(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.image(pixels)  # type: ignore[no-any-return]

    def embed_texts(self, text_ids: torch.Tensor) -> torch.Tensor:
        return self.text(text_ids)  # type: ignore[no-any-return]

    def encode(self, text: str) -> list[int]:
        return self.text.encode(text)

    def knows(self, text: str) -> bool:
        return self.text.knows(text)

    def save(self, directory: Path) -> None:
        save_nano_encoder(self.image.encoder, directory)
        folder = directory / TEXT_FOLDER
        folder.mkdir()
        self.text.tokenizer.save(folder)
        write_json(folder / "config.json", {"kind": KIND, **asdict(self.config)})
        from safetensors.torch import save_file

        save_file(
            {name: value.half().contiguous() for name, value in self._text_state().items()},
            folder / "model.safetensors",
        )

    def load_text_state(self, weights: dict[str, torch.Tensor]) -> None:
        """Put in place what `save` wrote to text/model.safetensors. Raises: KeyError, RuntimeError."""
        held = self._text_state()
        if missing := sorted(held.keys() ^ weights.keys()):
            raise KeyError(", ".join(missing[:3]))
        self.load_state_dict(weights, strict=False)

    def _text_state(self) -> dict[str, torch.Tensor]:
        """All that is not the encoder's."""
        return {name: v for name, v in self.state_dict().items() if not name.startswith("image.encoder.")}


def has_text_tower(spec: EncoderSpec, *, base_dir: Path | None = None) -> bool:
    """Whether a text tower is stored beside the nano encoder of `spec`."""
    return (nano_directory(spec, base_dir) / TEXT_FOLDER).is_dir()


def load_nano_towers(spec: EncoderSpec, *, base_dir: Path | None = None) -> NanoTowers:
    """Both towers in a directory that `NanoTowers.save` wrote, or the shipped ones; fp32, frozen, in eval
    mode.

    Raises: EncoderError where the directory is absent, has no text tower, or is cut short.
    """
    directory = nano_directory(spec, base_dir)
    encoder = load_nano_encoder(spec, base_dir=base_dir)
    folder = directory / TEXT_FOLDER
    if not folder.is_dir():
        raise EncoderError(
            f"The nano encoder {spec.source} has no text tower and cannot read texts: give a CLIP, or train "
            "one with pixtell train-encoder --objective contrastive."
        )
    config = _read_config(folder)
    from safetensors.torch import load_file

    try:
        towers = NanoTowers(encoder=encoder, config=config, tokenizer=WordTokenizer.load(folder))
        towers.load_text_state(load_file(folder / "model.safetensors"))  # copies fp16 into fp32
    except CheckpointError as cause:
        raise EncoderError(str(cause)) from cause
    except Exception as cause:  # safetensors and torch have types of their own for files cut short
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[-1].strip()
        raise EncoderError(
            f"{folder / 'model.safetensors'} cannot be loaded ({reason}); copy it again."
        ) from cause
    return freeze(towers)


def _read_config(folder: Path) -> NanoTextConfig:
    path = folder / "config.json"
    stored: Any = read_json(path, EncoderError)
    if not isinstance(stored, dict) or stored.get("kind") != KIND:
        raise EncoderError(f"{path} describes no text tower of nano; copy the whole directory again.")
    try:
        return NanoTextConfig(**{f.name: f.type(stored[f.name]) for f in fields(NanoTextConfig)})  # type: ignore[operator]
    except (KeyError, TypeError, ValueError) as cause:
        raise EncoderError(f"{path} lacks or garbles a size ({cause}); copy it again.") from cause
