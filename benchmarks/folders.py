"""A whole folder: JPEG files -> captions, CLIP ViT-B/32 and GPT-2 small."""

from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from benchmarks.captioning import ENGINES, TokenIds, decoding_limit, generated
from benchmarks.comparing import Limit, Road, Side, mostly_equal, unjudged
from benchmarks.encoding import encoder_flops
from benchmarks.machine import BF16_PRODUCTS, INT8_PRODUCTS, PRODUCTS, Machine
from benchmarks.sizes import Models
from pixtell import Captioner


def roads(models: Models, machine: Machine) -> Iterator[Road]:
    sizes = models.sizes
    paths, batch_size = models.pictures[: sizes.folder_images], sizes.batch_size

    @torch.inference_mode()
    def peer() -> TokenIds:
        """A loop over transformers: a batch of files through processor, model and `generate`."""
        from PIL import Image

        token_ids: TokenIds = []
        for first in range(0, len(paths), batch_size):
            images = [Image.open(path).convert("RGB") for path in paths[first : first + batch_size]]
            pixels = models.processor(images=images, return_tensors="pt")["pixel_values"]
            token_ids += generated(models, models.encoder(pixels), 1)()
        return token_ids

    sides = [
        Side(
            name,
            _captions(models.checkpoint if engine == "torch" else models.exported(engine), paths, batch_size),
            len(paths),
            at_least={"torch": None, "fp32": 1.4, "int8": 3.0}[engine],
            limit=_limit(models, machine, int8=engine == "int8"),
            problem=unjudged if engine == "int8" else mostly_equal,
        )
        for engine, name in ENGINES.items()
    ]
    if machine.bf16_flops is not None:
        bf16 = _captions(models.checkpoint, paths, batch_size, "bf16")
        words = 1 / decoding_limit(models, machine, batch_size, 1, int8=False).rate
        seconds = encoder_flops(models) / machine.bf16_flops + words * machine.flops / machine.bf16_flops
        limit = Limit(1 / seconds, BF16_PRODUCTS)
        sides.append(Side("torch, bf16", bf16, len(paths), at_least=3.0, limit=limit, problem=unjudged))
    yield Road(
        name="folder of JPEGs -> captions, greedy",
        peer_name=f"a loop over transformers, batch {batch_size}",
        peer=peer,
        peer_units=len(paths),
        sides=sides,
    )


def _limit(models: Models, machine: Machine, *, int8: bool) -> Limit:
    """Encoder and decoding share the cores; files are decoded in nobody's time."""
    rate = machine.int8_ops if int8 else machine.flops
    words = 1 / decoding_limit(models, machine, models.sizes.batch_size, 1, int8=int8).rate
    return Limit(1 / (encoder_flops(models) / rate + words), INT8_PRODUCTS if int8 else PRODUCTS)


def _captions(
    directory: Path, paths: list[Path], batch_size: int, dtype: str = "auto"
) -> Callable[[], TokenIds]:
    captioner = Captioner.from_pretrained(directory, device="cpu", dtype=dtype)
    return lambda: [list(found.token_ids) for found in captioner.stream(paths, batch_size=batch_size)]
