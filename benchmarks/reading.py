"""JPEG files -> pixels, as CLIP wants them."""

import time
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.comparing import Limit, Road, Side
from benchmarks.machine import Machine
from benchmarks.sizes import Models


def roads(models: Models, machine: Machine) -> Iterator[Road]:
    from pixtell.images import load_images

    paths, preprocess, processor = models.pictures, models.encoder.preprocess, models.processor

    def ours() -> Tensor:
        images = torch.stack(list(load_images(paths, preprocess)))  # (B, 3, S, S)
        return torch.cat([preprocess.normalise(batch) for batch in images.split(models.sizes.batch_size)])

    def peer() -> Tensor:
        from PIL import Image

        images = []
        for path in paths:
            with Image.open(path) as image:
                images.append(processor(images=image.convert("RGB"), return_tensors="pt")["pixel_values"])
        return torch.cat(images)

    def problem(one: Tensor, other: Tensor) -> str | None:
        levels = float((one - other).abs().max()) * 255 * min(preprocess.std)
        return None if levels <= 2.5 else f"the pixels differ by {levels:.1f} grey levels"

    limit = Limit(_decode_rate(models) * machine.threads, "JPEGs decoded, nothing else")
    yield Road(
        name="JPEG file -> pixels, CLIP transform",
        peer_name="transformers' processor",
        peer=peer,
        peer_units=len(paths),
        sides=[Side("", ours, len(paths), at_least=2.8, limit=limit, problem=problem)],
    )


def _decode_rate(models: Models) -> float:
    """JPEGs a second that one thread decodes, and nothing else; the best of three."""
    import simplejpeg

    contents = [path.read_bytes() for path in models.pictures]
    times = []
    for _ in range(3):
        started = time.perf_counter()
        for content in contents:
            simplejpeg.decode_jpeg(content)
        times.append(time.perf_counter() - started)
    return len(contents) / min(times)
