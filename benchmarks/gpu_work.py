"""How much work captioning and training are, counted by hand: the same numbers on every machine.

In: sizes. Out: floating-point operations (a multiplication and an addition are two) and the bytes that must
come from memory at least. Only matrix products and attention are counted; biases, norms and the search are
not. tests/benchmarks/test_gpu.py holds the operations against torch's own counter.
"""

from collections.abc import Sequence
from dataclasses import dataclass

IMAGE_SIZE = 224


@dataclass(frozen=True)
class ClipSizes:
    """An image tower with a projection to F, its output."""

    width: int  # D
    num_layers: int
    num_heads: int
    patch_size: int  # pixels a side
    feature_dim: int  # F

    @property
    def num_patches(self) -> int:
        return (IMAGE_SIZE // self.patch_size) ** 2  # N

    @property
    def block_weights(self) -> int:
        return self.num_layers * 12 * self.width**2  # 4 D^2 in attention, 8 D^2 in the feed-forward

    @property
    def patch_weights(self) -> int:
        return 3 * self.patch_size**2 * self.width


@dataclass(frozen=True)
class Gpt2Sizes:
    width: int  # D
    num_layers: int
    num_heads: int
    vocab_size: int = 50257  # V
    max_positions: int = 1024

    @property
    def block_weights(self) -> int:
        return self.num_layers * 12 * self.width**2

    @property
    def head_weights(self) -> int:
        return self.vocab_size * self.width

    def attention(self, queries: int, keys: int) -> int:
        """Operations of one row whose `queries` positions look at `keys` each: products with keys and with
        values. What a mask hides, of the future or of another beam, is counted too."""
        return 4 * self.num_layers * self.width * queries * keys

    def spared(self, length: int) -> int:
        """Operations that one row of `length` positions is spared where the last one alone is wanted: the
        others leave keys and values in the last block (3 of its 12 D^2), and nothing else."""
        return (length - 1) * (2 * 9 * self.width**2 + 4 * self.width * length)


@dataclass(frozen=True)
class Work:
    flops: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def encode_work(clip: ClipSizes, batch: int, item_bytes: int) -> Work:
    """uint8 images on the device -> features. item_bytes: of one weight."""
    positions = clip.num_patches + 1  # and the class token
    image = 2 * clip.num_patches * clip.patch_weights + 2 * positions * clip.block_weights
    image += 4 * clip.num_layers * clip.width * positions**2 + 2 * clip.width * clip.feature_dim
    weights = clip.patch_weights + clip.block_weights + clip.width * clip.feature_dim
    return Work(batch * image, item_bytes * weights + batch * 3 * IMAGE_SIZE**2)


def mapping_weights(feature_dim: int, gpt2: Gpt2Sizes, prefix_length: int) -> int:
    """Of ClipCap's MLP: F -> D P / 2 -> D P."""
    hidden = gpt2.width * prefix_length // 2
    return feature_dim * hidden + hidden * gpt2.width * prefix_length


def start_flops(feature_dim: int, gpt2: Gpt2Sizes, prefix_length: int) -> int:
    """One image's features -> prefix -> logits of the first token."""
    mapped = 2 * mapping_weights(feature_dim, gpt2, prefix_length)
    read = 2 * prefix_length * gpt2.block_weights + gpt2.attention(prefix_length, prefix_length)
    return mapped + read - gpt2.spared(prefix_length) + 2 * gpt2.head_weights


@dataclass(frozen=True)
class Decoding:
    """Exactly new_tokens tokens for every image: the first comes from the prefix, each other from a step."""

    batch: int  # B
    beam_size: int  # K
    prefix_length: int  # P
    new_tokens: int


def decode_work(feature_dim: int, gpt2: Gpt2Sizes, decoding: Decoding, item_bytes: int) -> Work:
    """Features -> token ids, with a KV cache in which the beams of an image share its prefix, and look at the
    positions of each other behind a mask. Bytes: all weights once a step, and the keys and values so far."""
    batch, beam_size, prefix_length = decoding.batch, decoding.beam_size, decoding.prefix_length
    weights = gpt2.block_weights + gpt2.head_weights
    flops = batch * start_flops(feature_dim, gpt2, prefix_length)
    read = weights + mapping_weights(feature_dim, gpt2, prefix_length)
    for step in range(1, decoding.new_tokens):
        before = prefix_length + (step - 1) * beam_size  # positions of an image, of all its beams
        flops += batch * (beam_size * 2 * weights + gpt2.attention(beam_size, before + beam_size))
        read += weights + batch * 2 * gpt2.num_layers * gpt2.width * before
    return Work(flops, read * item_bytes)


def training_work(
    feature_dim: int, gpt2: Gpt2Sizes, prefix_length: int, lengths: Sequence[Sequence[int]]
) -> Work:
    """A step: the way back is twice the way there. lengths: tokens of each caption of each image, its end
    token counted; padding is not work. The first token of a caption is predicted by the image's prefix, which
    its captions share; the last one predicts nothing.

    Bytes: AdamW reads a weight, its gradient and two averages and writes three of them, in fp32 (28); bf16
    autocast makes a copy (6).
    """
    forward = len(lengths) * start_flops(feature_dim, gpt2, prefix_length)
    for of_image in lengths:
        for length in of_image:
            read = length - 1
            forward += 2 * read * (gpt2.block_weights + gpt2.head_weights)
            forward += gpt2.attention(read, prefix_length + read)
    weights = gpt2.block_weights + gpt2.head_weights + mapping_weights(feature_dim, gpt2, prefix_length)
    return Work(3 * forward, 34 * weights)
