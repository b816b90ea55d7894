"""The roads that benchmarks/gpu.py measures: pictures on the device -> captions, and steps of training.

Weights are random, of the public shapes, made on the device. A road is fixed work: every caption has all of
its new tokens. Encoding and decoding are Captioner's own methods; training is the step of training/loop.py.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from benchmarks.gpu_work import (
    IMAGE_SIZE,
    ClipSizes,
    Decoding,
    Gpt2Sizes,
    Work,
    decode_work,
    encode_work,
    training_work,
)
from benchmarks.training import LENGTHS
from pixtell.batching import make_batch
from pixtell.captioner import Captioner
from pixtell.decoding import DecodingOptions
from pixtell.devices import DTYPES, Placement
from pixtell.encoders.clip import CLIP_MEAN, CLIP_STD, ClipEncoder
from pixtell.images import Preprocess
from pixtell.models import CaptionModel, build_model
from pixtell.training.cross_entropy import summed_loss

CAPTIONS = 5  # an image
WARM_UPS, ROUNDS = 2, 5


@dataclass(frozen=True)
class Pair:
    name: str
    clip: ClipSizes
    gpt2: Gpt2Sizes


SMALL = Pair(
    "ViT-B/32 + GPT-2 small",
    ClipSizes(width=768, num_layers=12, num_heads=12, patch_size=32, feature_dim=512),
    Gpt2Sizes(width=768, num_layers=12, num_heads=12),
)
MEDIUM = Pair(
    "ViT-L/14 + GPT-2 medium",
    ClipSizes(width=1024, num_layers=24, num_heads=16, patch_size=14, feature_dim=768),
    Gpt2Sizes(width=1024, num_layers=24, num_heads=16),
)
TINY_SMALL = Pair(
    "tiny ViT + tiny GPT-2",
    ClipSizes(width=32, num_layers=2, num_heads=2, patch_size=32, feature_dim=24),
    Gpt2Sizes(width=32, num_layers=2, num_heads=2, vocab_size=300, max_positions=64),
)
TINY_MEDIUM = replace(TINY_SMALL, name="another tiny ViT + tiny GPT-2")


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    small: Pair = SMALL
    medium: Pair = MEDIUM
    batches: tuple[int, int] = (64, 256)  # images
    training_batch: int = 64  # images
    beam_size: int = 5
    new_tokens: int = 20
    prefix_length: int = 10
    matrix_size: int = 8192  # of the product that measures the limit
    copied_bytes: int = 2**31


TINY = Scale(TINY_SMALL, TINY_MEDIUM, (2, 3), 3, 2, 4, 3, 128, 2**20)


@dataclass(frozen=True)
class Road:
    """One line of the table. stage: "encode", "decode", "caption" (both), "train"; batch: images."""

    pair: Pair
    dtype: str  # a key of DTYPES
    stage: str
    batch: int
    beam_size: int = 1

    @property
    def name(self) -> str:
        search = "greedy" if self.beam_size == 1 else f"beam {self.beam_size}"
        what = {
            "encode": "pixels to features",
            "decode": f"features to captions, {search}",
            "caption": f"pixels to captions, {search}",
            "train": "training step, captions",
        }
        return f"{self.pair.name}, {self.dtype}, batch {self.batch}: {what[self.stage]}"


def roads(scale: Scale) -> list[Road]:
    """The most wanted first: time may be short."""
    few, many = scale.batches
    found = []
    for batch in (many, few):
        for pair in (scale.small, scale.medium):
            for beam_size in (1, scale.beam_size):
                found.append(Road(pair, "bf16", "caption", batch, beam_size))
                found.append(Road(pair, "bf16", "decode", batch, beam_size))
            found.append(Road(pair, "bf16", "encode", batch))
        if batch == many:
            found.append(Road(scale.small, "bf16", "train", scale.training_batch))
        found += [Road(scale.small, "fp32", stage, batch) for stage in ("caption", "decode", "encode")]
    return found


@dataclass(frozen=True)
class Limits:
    """What the device does at best, measured: operations a second in products of large matrices, bytes a
    second in a copy (read and written)."""

    device: str
    bf16_flops: float
    fp32_flops: float
    bandwidth: float


@dataclass(frozen=True)
class Row:
    """One road measured. products, memory, launches: the seconds that it needs at least for its operations,
    its bytes and, as batch 1 shows, for starting its kernels one after another."""

    road: Road
    units: int  # images, in training captions
    seconds: float  # the median
    work: Work
    products: float
    memory: float
    launches: float
    share_of_bf16: float  # of the operations that the device could have done in that time
    steps: int  # of decoding; 0: no decoding
    peak_bytes: int  # of the device's memory; 0: not known

    @property
    def nearer_limit(self) -> str:
        limits = {"products": self.products, "memory": self.memory, "launches": self.launches}
        return max(limits, key=lambda name: limits[name])

    @property
    def share_of_limit(self) -> float:
        return max(self.products, self.memory, self.launches) / self.seconds


class IdTokenizer:
    """Token ids as their own text: pixtell asks for a tokenizer, and vocabularies are not at hand."""

    kind = "ids"
    forbidden_ids: tuple[int, ...] = ()

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.eos_id = vocab_size - 1

    def encode(self, text: str) -> list[int]:
        return [int(word) for word in text.split()]

    def decode(self, token_ids: Sequence[int]) -> str:
        return " ".join(map(str, token_ids))

    def save(self, directory: Any) -> None:
        raise NotImplementedError("a benchmark's tokenizer is not kept")


class Bench:
    """Measures roads on one device. Models are made when first asked for and kept."""

    def __init__(self, scale: Scale, device: torch.device) -> None:
        self.scale = scale
        self.device = device
        self.captioners: dict[tuple[str, str], Captioner] = {}
        self.floors: dict[Road, float] = {}
        torch.manual_seed(0)

    @cached_property
    def limits(self) -> Limits:
        is_cuda, size = self.device.type == "cuda", self.scale.matrix_size
        source = torch.empty(self.scale.copied_bytes, dtype=torch.uint8, device=self.device).random_()
        target = torch.empty_like(source)
        bandwidth = 2 * source.nbytes / self._seconds(lambda: target.copy_(source))
        flops = {}
        for dtype in ("bf16", "fp32"):
            left, right = (torch.randn(size, size, device=self.device).to(DTYPES[dtype]) for _ in range(2))
            flops[dtype] = 2 * size**3 / self._seconds(lambda left=left, right=right: left @ right)
        name = torch.cuda.get_device_name(self.device) if is_cuda else self.device.type
        return Limits(name, flops["bf16"], flops["fp32"], bandwidth)

    def measure(self, road: Road) -> Row:
        limits = self.limits
        floor = replace(road, batch=1)
        if floor not in self.floors:
            self.floors[floor] = self._seconds(self.work_of(floor))
        work = self.work_of(road)
        self._forget_peak()
        seconds, counted = self._seconds(work), self.count(road)
        is_cuda = self.device.type == "cuda"
        return Row(
            road=road,
            units=road.batch * (CAPTIONS if road.stage == "train" else 1),
            seconds=seconds,
            work=counted,
            products=counted.flops / (limits.bf16_flops if road.dtype == "bf16" else limits.fp32_flops),
            memory=counted.bytes / limits.bandwidth,
            launches=self.floors[floor],
            share_of_bf16=counted.flops / seconds / limits.bf16_flops,
            steps=self.scale.new_tokens if road.stage == "decode" else 0,
            peak_bytes=torch.cuda.max_memory_allocated(self.device) if is_cuda else 0,
        )

    def count(self, road: Road) -> Work:
        scale, pair = self.scale, road.pair
        feature_dim, item_bytes = pair.clip.feature_dim, DTYPES[road.dtype].itemsize
        if road.stage == "train":
            return training_work(feature_dim, pair.gpt2, scale.prefix_length, caption_lengths(road.batch))
        decoding = Decoding(road.batch, road.beam_size, scale.prefix_length, scale.new_tokens)
        found = {
            "encode": encode_work(pair.clip, road.batch, item_bytes),
            "decode": decode_work(feature_dim, pair.gpt2, decoding, item_bytes),
        }
        return found["encode"] + found["decode"] if road.stage == "caption" else found[road.stage]

    def work_of(self, road: Road) -> Callable[[], object]:
        """Does all of the work once; returns what it made."""
        if road.stage == "train":
            return self._training_step(road)
        captioner = self.captioner(road.pair, road.dtype)
        shape = (road.batch, 3, IMAGE_SIZE, IMAGE_SIZE)
        images = torch.randint(256, shape, dtype=torch.uint8, device=self.device)
        options = captioner.options(beam_size=road.beam_size)
        features = captioner.encode(images)  # (B, F)
        work: dict[str, Callable[[], object]] = {
            "encode": lambda: captioner.encode(images),
            "decode": lambda: captioner.caption_features(features, options),
            "caption": lambda: captioner.caption_features(captioner.encode(images), options),
        }
        return work[road.stage]

    def captioner(self, pair: Pair, dtype: str) -> Captioner:
        key = pair.name, dtype
        if key not in self.captioners:
            new_tokens = self.scale.new_tokens
            self.captioners[key] = Captioner(
                name=pair.name,
                encoder=self._encoder(pair.clip).to(self.device, DTYPES[dtype]),
                model=self._model(pair, dropout=0.0).eval().to(self.device, DTYPES[dtype]),
                tokenizer=IdTokenizer(pair.gpt2.vocab_size),
                decoding=DecodingOptions(max_new_tokens=new_tokens, min_length=new_tokens),
                placement=Placement(self.device, DTYPES[dtype], "as asked"),
            )
        return self.captioners[key]

    def _encoder(self, sizes: ClipSizes) -> ClipEncoder:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

        config = CLIPVisionConfig(
            hidden_size=sizes.width,
            intermediate_size=4 * sizes.width,
            num_hidden_layers=sizes.num_layers,
            num_attention_heads=sizes.num_heads,
            patch_size=sizes.patch_size,
            image_size=IMAGE_SIZE,
            projection_dim=sizes.feature_dim,
        )
        with torch.device(self.device):
            tower = CLIPVisionModelWithProjection(config)
        preprocess = Preprocess(size=IMAGE_SIZE, resize="shortest_side", mean=CLIP_MEAN, std=CLIP_STD)
        return ClipEncoder(tower=tower, name="random", output="embedding", preprocess=preprocess)

    def _model(self, pair: Pair, dropout: float) -> CaptionModel:
        gpt2 = {
            "vocab_size": pair.gpt2.vocab_size,
            "width": pair.gpt2.width,
            "num_layers": pair.gpt2.num_layers,
            "num_heads": pair.gpt2.num_heads,
            "max_positions": pair.gpt2.max_positions,
            "dropout": dropout,
        }
        sizes = {
            "feature_dim": pair.clip.feature_dim,
            "mapping": "mlp",
            "prefix_length": self.scale.prefix_length,
            "gpt2": gpt2,
        }
        with torch.device(self.device):
            return build_model("clipcap", sizes)

    def _training_step(self, road: Road) -> Callable[[], float]:
        """As training/loop.py takes it: batch, loss, gradients, clipping, update; one wait for the device. A
        learning rate of zero is all of the work, and the same loss again but for dropout."""
        model = self._model(road.pair, dropout=0.1).train()
        eos_id = road.pair.gpt2.vocab_size - 1
        captions = [
            [[*(token % eos_id for token in range(length - 1)), eos_id] for length in of_image]
            for of_image in caption_lengths(road.batch)
        ]
        num_tokens = sum(len(ids) for of_image in captions for ids in of_image)
        features = torch.randn(road.batch, road.pair.clip.feature_dim, device=self.device)
        rows = torch.arange(road.batch)
        parameters = list(model.parameters())
        optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=True)

        def step() -> float:
            batch = make_batch(captions, rows)
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(self.device.type, DTYPES[road.dtype], enabled=road.dtype != "fp32"):
                total = summed_loss(model, features, batch, ignored_ids=(), label_smoothing=0.0)
            loss = total / num_tokens
            loss.backward()
            norm = nn.utils.clip_grad_norm_(parameters, 1.0)
            value, _ = torch.stack((loss.detach().float(), norm.float())).tolist()
            optimizer.step()
            return float(value)

        return step

    def _seconds(self, work: Callable[[], object]) -> float:
        """The median of ROUNDS, after WARM_UPS; the device has done everything at both ends."""
        found = []
        for number in range(WARM_UPS + ROUNDS):
            self._wait()
            started = time.perf_counter()
            work()
            self._wait()
            if number >= WARM_UPS:
                found.append(time.perf_counter() - started)
        return statistics.median(found)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _forget_peak(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)


def caption_lengths(num_images: int) -> list[list[int]]:
    """Tokens of five captions an image, the end token counted: Flickr8k's lengths, drawn with one seed."""
    random = torch.Generator().manual_seed(0)
    drawn = torch.randint(len(LENGTHS), (num_images, CAPTIONS), generator=random).tolist()
    return [[LENGTHS[index] + 1 for index in of_image] for of_image in drawn]
