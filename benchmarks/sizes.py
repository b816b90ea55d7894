"""The public sizes and tiny ones; pictures, and models with random weights, of either.

Speed does not depend on what the weights are; what they make is compared all the same.
"""

import copy
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixtell.models import CaptionModel, build_model


@dataclass(frozen=True)
class Sizes:
    """How much of everything. clip, gpt2: fields of transformers' configurations over their defaults, which
    are ViT-B/32 and GPT-2 small."""

    images: int = 96  # of reading and of features
    folder_images: int = 48
    slow_images: int = 16  # of a peer that takes one at a time; a quarter of them where it is slower still
    scored_images: int = 1000
    batch_size: int = 16
    new_tokens: int = 20
    beam_size: int = 5
    prefix_length: int = 10
    clip: dict[str, Any] = field(default_factory=dict)
    gpt2: dict[str, Any] = field(default_factory=dict)


TINY = Sizes(
    images=12,
    folder_images=12,
    slow_images=8,
    scored_images=20,
    batch_size=4,
    new_tokens=6,
    beam_size=3,
    prefix_length=3,
    clip={
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "patch_size": 32,
        },
        "text_config": {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 64,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
        "projection_dim": 24,
    },
    gpt2={"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
)


class Models:
    """The parts that roads share, made when first asked for; `directory` holds what is a file."""

    def __init__(self, sizes: Sizes, directory: Path) -> None:
        self.sizes = sizes
        self.directory = directory
        torch.manual_seed(0)

    @cached_property
    def pictures(self) -> list[Path]:
        """As many JPEGs as `Sizes.images` says, of Flickr's usual size."""
        return write_pictures(self.directory / "pictures", self.sizes.images, size=(500, 375))

    @cached_property
    def clip_directory(self) -> Path:
        """A CLIP in transformers' layout, with its preprocess."""
        from transformers import CLIPConfig, CLIPModel

        directory = self.directory / "clip"
        CLIPModel(CLIPConfig(**self.sizes.clip)).save_pretrained(directory)
        settings = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": 224},
            "crop_size": {"height": 224, "width": 224},
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "do_resize": True,
            "do_center_crop": True,
            "do_normalize": True,
            "do_convert_rgb": True,
        }
        (directory / "preprocessor_config.json").write_text(json.dumps(settings))
        return directory

    @cached_property
    def encoder(self) -> Any:
        from pixtell.encoders import load_encoder, parse_encoder

        return load_encoder(parse_encoder(str(self.clip_directory)))

    @cached_property
    def processor(self) -> Any:
        """transformers' own preprocess, the one that needs no torchvision."""
        import transformers

        name = "CLIPImageProcessorPil"
        kind = getattr(transformers, name, None) or transformers.CLIPImageProcessor
        return kind.from_pretrained(self.clip_directory)

    @cached_property
    def peer_gpt2(self) -> Any:
        """transformers' GPT-2, whose weights ours has too."""
        from transformers import GPT2Config, GPT2LMHeadModel

        config = GPT2Config(**self.sizes.gpt2)
        config.bos_token_id = config.eos_token_id = config.vocab_size - 1
        with torch.inference_mode(False):  # it is trained too, whoever asks for it first
            peer = GPT2LMHeadModel(config).eval()
            peer.load_state_dict(hub_state(self.clipcap), strict=False)
        return peer

    @cached_property
    def gpt2_sizes(self) -> dict[str, Any]:
        from transformers import GPT2Config

        config = GPT2Config(**self.sizes.gpt2)
        return {
            "vocab_size": config.vocab_size,
            "width": config.n_embd,
            "num_layers": config.n_layer,
            "num_heads": config.n_head,
            "max_positions": config.n_positions,
            "dropout": 0.0,
        }

    @cached_property
    def clipcap_sizes(self) -> dict[str, Any]:
        return {
            "feature_dim": self.encoder.feature_shape[-1],
            "mapping": "mlp",
            "prefix_length": self.sizes.prefix_length,
            "gpt2": self.gpt2_sizes,
        }

    @cached_property
    def clipcap(self) -> CaptionModel:
        return build_model("clipcap", self.clipcap_sizes).eval()

    @cached_property
    def packed(self) -> CaptionModel:
        """The same model as a Captioner decodes with it."""
        model = copy.deepcopy(self.clipcap)
        model.pack()
        return model

    @property
    def eos_id(self) -> int:
        """The last token: never chosen, since every caption has all of its new tokens."""
        return int(self.gpt2_sizes["vocab_size"]) - 1

    @cached_property
    def checkpoint(self) -> Path:
        """Encoder, model and tokenizer as `Captioner.from_pretrained` takes them."""
        from pixtell.checkpoints import CheckpointConfig, save_checkpoint
        from pixtell.encoders import parse_encoder
        from pixtell.files import atomic_directory

        spec = parse_encoder(str(self.clip_directory))
        sizes = self.sizes
        decoding = {"max_new_tokens": sizes.new_tokens, "min_length": sizes.new_tokens}
        config = CheckpointConfig("clipcap", self.clipcap_sizes, spec, "gpt2", decoding)
        with atomic_directory(self.directory / "checkpoint") as directory:
            save_checkpoint(
                directory, config=config, model=self.clipcap, tokenizer=self._make_tokenizer(directory)
            )
        return self.directory / "checkpoint"

    def exported(self, dtype: str) -> Path:
        """The checkpoint as ONNX graphs."""
        from pixtell.exports import export_checkpoint

        directory = self.directory / f"onnx-{dtype}"
        if not directory.exists():
            export_checkpoint(self.checkpoint, directory, dtype=dtype)
        return directory

    def _make_tokenizer(self, directory: Path) -> Any:
        """Bytes, then fillers up to the vocabulary's size, then the end token."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers

        from pixtell.tokenizers import load_tokenizer

        letters = sorted(pre_tokenizers.ByteLevel.alphabet())
        fillers = [f"<filler-{number}>" for number in range(self.eos_id - len(letters))]
        pieces = [*letters, *fillers, "<|endoftext|>"]
        vocabulary = {piece: index for index, piece in enumerate(pieces)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.save(str(directory / "tokenizer.json"))
        return load_tokenizer(directory, "gpt2")


def write_pictures(folder: Path, count: int, *, size: tuple[int, int]) -> list[Path]:
    """JPEGs with structure at every scale: pure noise would decode slower than photos.

    size: width, height.
    """
    from PIL import Image

    folder.mkdir(parents=True)
    width, height = size
    random, paths = np.random.default_rng(0), []
    for number in range(count):
        picture = np.zeros((height, width, 3), np.float32)
        for side in (4, 12, 40, 120):
            noise = random.integers(0, 256, (side, side, 3), dtype=np.uint8)
            picture += np.asarray(Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC))
        path = folder / f"{number:05}.jpg"
        Image.fromarray((picture / 4).astype(np.uint8)).save(path, quality=90)
        paths.append(path)
    return paths


def hub_state(model: CaptionModel) -> dict[str, torch.Tensor]:
    """Our GPT-2's weights under transformers' names; its Conv1D keeps projections transposed."""
    state = {}
    for name, value in model.gpt2.state_dict().items():
        is_projection = ".c_" in name and name.endswith("weight")
        state[f"transformer.{name}"] = value.T.contiguous() if is_projection else value
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return state
