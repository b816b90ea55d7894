"""Features of images with five captions each, from JPEG files to a file of features."""

import shutil
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks.comparing import Limit, Road, Side
from benchmarks.machine import PRODUCTS, Machine
from benchmarks.sizes import Models

CAPTIONS = 5  # an image


def encoder_flops(models: Models) -> float:
    """Multiplications and additions of one image: two a weight and position, but for norms and attention."""
    weights = sum(weight.numel() for weight in models.encoder.parameters() if weight.ndim > 1)
    vision = models.encoder.tower.config
    return 2.0 * weights * ((vision.image_size // vision.patch_size) ** 2 + 1)


def roads(models: Models, machine: Machine) -> Iterator[Road]:
    from pixtell.features import extract_features

    paths, encoder = models.pictures, models.encoder
    images = {path.name: path for path in paths}
    few = paths[: models.sizes.slow_images]  # one at a time costs the same however many there are

    def ours() -> Tensor:
        directory = models.directory / "features"
        shutil.rmtree(directory, ignore_errors=True)
        cache = extract_features(encoder, images, directory, dtype=torch.float32)
        return cache.rows(list(images))  # (B, F)

    @torch.no_grad()
    def peer() -> Tensor:
        """As the script that came with ClipCap: for every caption its image is read, prepared and encoded."""
        from PIL import Image

        found = []
        for path in few:
            for _ in range(CAPTIONS):
                with Image.open(path) as image:
                    prepared = models.processor(images=image.convert("RGB"), return_tensors="pt")
                found.append(encoder(prepared["pixel_values"]))
        torch.save(torch.cat(found), models.directory / "peer-features.pt")
        return torch.cat(found[::CAPTIONS])

    def problem(one: Tensor, other: Tensor) -> str | None:
        cosine = float(torch.cosine_similarity(one[: len(other)], other).min())
        return None if cosine > 0.999 else f"an image's features have a cosine of {cosine:.4f}"

    limit = Limit(machine.flops / encoder_flops(models), PRODUCTS)
    yield Road(
        name="features, five captions an image, CLIP ViT-B/32",
        peer_name="one at a time, once a caption",
        peer=peer,
        peer_units=len(few),
        sides=[Side("", ours, len(paths), at_least=6, limit=limit, problem=problem)],
    )
