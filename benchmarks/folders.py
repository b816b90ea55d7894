"""A whole folder: JPEG files -> captions, CLIP ViT-B/32 and GPT-2 small."""

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.captioning import TokenIds, decoding_limit, generated
from benchmarks.comparing import Comparison, mostly_equal, unjudged
from benchmarks.encoding import encoder_flops
from benchmarks.machine import Machine
from benchmarks.sizes import Models
from pixtell import Captioner


def roads(models: Models, machine: Machine) -> Iterator[Comparison]:
    paths, batch_size = models.pictures, models.sizes.batch_size

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

    engines = {
        "torch": ("torch", models.checkpoint, 1.0),
        "fp32": ("ONNX Runtime, fp32", models.exported("fp32"), 1.4),
        "int8": ("ONNX Runtime, int8", models.exported("int8"), 3.0),
    }
    for engine, (name, directory, at_least) in engines.items():
        captioner = Captioner.from_pretrained(directory, device="cpu")
        is_int8 = engine == "int8"
        rate = machine.int8_ops if is_int8 else machine.flops
        words = 1 / decoding_limit(models, machine, batch_size, 1, int8=is_int8)
        yield Comparison(
            road=f"folder of JPEGs -> captions, greedy, {name}",
            peer_name="a loop over transformers, batch 16",
            ours=lambda captioner=captioner: _captions(captioner, paths, batch_size),
            peer=peer,
            units=len(paths),
            at_least=at_least,
            limit=1 / (encoder_flops(models) / rate + words),
            problem=unjudged if is_int8 else mostly_equal,
        )


def _captions(captioner: Captioner, paths: list[Path], batch_size: int) -> TokenIds:
    return [list(found.token_ids) for found in captioner.stream(paths, batch_size=batch_size)]
