"""Generated pictures of two coloured shapes with one exact caption each: for tests and for teaching.

A seed goes in, scenes come out; `draw` turns a scene into a picture with numpy alone. A picture has exactly
one right caption, which can be read off it: "A large red circle is above a small blue square." The subject is
the larger shape, and the two lie beside or above each other, never aslant. No caption of `val` or `test` is
in `train`: a model that answers right has put the words together, not remembered them.
"""

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixtell.datasets.records import CaptionedImage, DatasetReport

COLOURS = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (45, 85, 215),
    "yellow": (235, 195, 30),
    "purple": (140, 50, 170),
}

# The shape drawn in the square -1..1, y downwards: which points (x, y) are inside.
KINDS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.bool_]]] = {
    "circle": lambda x, y: x * x + y * y <= 1,
    "square": lambda x, y: np.maximum(abs(x), abs(y)) <= 1,
    "triangle": lambda x, y: (y <= 1) & (y >= 2 * abs(x) - 1),
}

# Where the subject lies, seen from the other shape: (x, y) of length 1, y downwards.
RELATIONS = {"above": (0, -1), "below": (0, 1), "to the left of": (-1, 0), "to the right of": (1, 0)}

NUM_IMAGES = {"train": 2000, "val": 200, "test": 200}
IMAGE_SIZE = 64  # pixels a side

# Sizes and places, in fractions of the picture's side. Middles are at least 2 * (0.23 - 0.03) = 0.40 apart,
# radii add up to at most 0.37, so that shapes never touch; 0.23 + 0.03 + 0.23 < 0.5 keeps both in the picture
_LARGE_RADIUS = (0.20, 0.23)
_SMALL_RADIUS = (0.12, 0.14)
_HALF_STEP = 0.23  # from the picture's middle to a shape's, along the relation
_JITTER = 0.03  # at most this much off that place, along and across
_SUBSAMPLES = 4  # points a pixel's side at which a shape is tested, for smooth edges


@dataclass(frozen=True)
class Shape:
    """One shape; `x`, `y` (its middle) and `radius` (half its box) are fractions of the picture's side."""

    kind: str  # a key of KINDS
    colour: str  # a key of COLOURS
    x: float
    y: float
    radius: float

    def box(self, image_size: int = IMAGE_SIZE) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in pixels of a picture of `image_size` a side."""
        x, y, radius = (value * image_size for value in (self.x, self.y, self.radius))
        return x - radius, y - radius, x + radius, y + radius


@dataclass(frozen=True)
class ShapesScene:
    """What a picture shows: two shapes that do not touch, on one light grey."""

    large: Shape
    small: Shape
    background: int  # grey level, 0 to 255

    @property
    def relation(self) -> str:
        """Where the large shape lies, seen from the small one: a key of RELATIONS."""
        dx, dy = self.large.x - self.small.x, self.large.y - self.small.y
        if abs(dx) > abs(dy):
            return "to the right of" if dx > 0 else "to the left of"
        return "below" if dy > 0 else "above"

    @property
    def caption(self) -> str:
        """The one caption of the picture."""
        large, small = self.large, self.small
        return f"A large {large.colour} {large.kind} is {self.relation} a small {small.colour} {small.kind}."


def draw(scene: ShapesScene, *, image_size: int = IMAGE_SIZE) -> NDArray[np.uint8]:
    """The picture of a scene: uint8 (image_size, image_size, 3), RGB, edges smoothed."""
    image = np.full((image_size, image_size, 3), scene.background, dtype=np.float64)
    for shape in (scene.large, scene.small):
        left, top, right, bottom = shape.box(image_size)
        x0, y0 = max(int(left), 0), max(int(top), 0)
        x1, y1 = min(int(right) + 1, image_size), min(int(bottom) + 1, image_size)
        x = (_sample(x0, x1) - shape.x * image_size) / (shape.radius * image_size)
        y = (_sample(y0, y1) - shape.y * image_size) / (shape.radius * image_size)
        inside = KINDS[shape.kind](x[None, :], y[:, None])
        cells = inside.reshape(y1 - y0, _SUBSAMPLES, x1 - x0, _SUBSAMPLES)
        coverage = cells.mean(axis=(1, 3))[:, :, None]  # (h, w, 1), 0 to 1
        patch = image[y0:y1, x0:x1]
        patch += coverage * (np.array(COLOURS[shape.colour]) - patch)
    return np.rint(image).astype(np.uint8)


def make_scenes(
    *, seed: int = 0, num_images: Mapping[str, int] = NUM_IMAGES
) -> dict[str, tuple[ShapesScene, ...]]:
    """Scenes by split, the same for the same seed. A ninth of the 900 captions is `val`'s, another `test`'s.

    `make_scenes()["val"][7]` is the scene of the record whose image_id is "val-00007".
    """
    rng = random.Random(seed)
    looks = list(itertools.product(KINDS, COLOURS))
    facts = list(itertools.product(looks, RELATIONS, looks))
    rng.shuffle(facts)
    ninth = len(facts) // 9
    pools = {"val": facts[:ninth], "test": facts[ninth : 2 * ninth], "train": facts[2 * ninth :]}
    return {
        split: tuple(_make_scene(*pools[split][index % len(pools[split])], rng) for index in range(count))
        for split, count in num_images.items()
    }


def make_records(*, seed: int = 0, num_images: Mapping[str, int] = NUM_IMAGES) -> tuple[CaptionedImage, ...]:
    """The scenes of `make_scenes`, drawn, as records sorted by image_id."""
    scenes = make_scenes(seed=seed, num_images=num_images)
    return tuple(
        CaptionedImage(f"{split}-{index:05d}", draw(scene), (scene.caption,), split)
        for split in sorted(scenes)
        for index, scene in enumerate(scenes[split])
    )


def read_shapes(data_dir: Path | None = None) -> DatasetReport:
    """Shapes: 2,400 generated pictures of two coloured shapes, an exact caption each; needs no --data-dir."""
    warnings = () if data_dir is None else (f"Shapes are generated; --data-dir {data_dir} is not read.",)
    sources = (f"images and captions: generated, {IMAGE_SIZE}x{IMAGE_SIZE} pixels, seed 0",)
    return DatasetReport("shapes", sources, problems=(), warnings=warnings, records=make_records())


def _make_scene(
    large: tuple[str, str], relation: str, small: tuple[str, str], rng: random.Random
) -> ShapesScene:
    """A scene with these looks (kind, colour) and this relation; sizes and places are drawn."""
    step_x, step_y = RELATIONS[relation]

    def place(look: tuple[str, str], side: int, radii: tuple[float, float]) -> Shape:
        """A shape on one side of the picture's middle: 1 is the subject's."""
        x, y = (0.5 + side * _HALF_STEP * step + rng.uniform(-_JITTER, _JITTER) for step in (step_x, step_y))
        return Shape(*look, x, y, radius=rng.uniform(*radii))

    return ShapesScene(
        large=place(large, 1, _LARGE_RADIUS),
        small=place(small, -1, _SMALL_RADIUS),
        background=int(rng.uniform(215, 250)),
    )


def _sample(start: int, stop: int) -> NDArray[np.float64]:
    """The coordinates at which pixels start..stop-1 are tested, _SUBSAMPLES each: (n,) in pixels."""
    return start + (np.arange((stop - start) * _SUBSAMPLES) + 0.5) / _SUBSAMPLES
