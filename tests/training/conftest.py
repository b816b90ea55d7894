"""What the tests of training share: a folder of pictures, a small encoder, a small teacher, a full disk."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pixtell.datasets.shapes import COLOURS, KINDS, RELATIONS, ShapesScene, make_scenes
from pixtell.devices import Placement
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder


@pytest.fixture
def placement() -> Placement:
    return Placement(torch.device("cpu"), torch.float32, "as the test asks")


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set in a folder: 10 training and 3 validation pictures of noise, five captions each."""
    directory = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = []
    for number in range(13):
        pixels = rng.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(directory / f"{number:02d}.png")
        captions = [
            f"A {colour} thing number {number % 4}." for colour in ("red", "old", "big", "new", "odd")
        ]
        split = "train" if number < 10 else "val"
        lines.append(json.dumps({"image": f"{number:02d}.png", "captions": captions, "split": split}))
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def encoder_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A nano encoder with random weights: features (4, 16)."""
    torch.manual_seed(0)
    encoder = NanoEncoder(config=NanoEncoderConfig(width=2, blocks=(1, 1, 1, 1), image_size=64))
    directory = tmp_path_factory.mktemp("encoder")
    save_nano_encoder(encoder.eval(), directory)
    return directory


@pytest.fixture(scope="session")
def teacher_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MobileNetV2 of random weights, as transformers saves one: stride 32, 7 classes."""
    import transformers

    config = transformers.MobileNetV2Config(
        depth_multiplier=0.1, min_depth=8, depth_divisible_by=8, image_size=64, num_labels=7
    )
    torch.manual_seed(0)
    model = transformers.MobileNetV2ForImageClassification(config).eval()
    for name, buffer in model.named_buffers():  # statistics of a network that was trained
        if name.endswith("running_mean"):
            nn.init.normal_(buffer, std=0.1)
        elif name.endswith("running_var"):
            nn.init.uniform_(buffer, 0.02, 0.1)
    directory = tmp_path_factory.mktemp("teacher")
    model.save_pretrained(directory)
    return directory


class ShapesFacts(NamedTuple):
    """The shapes for who need not see: features that hold what the captions say. By split."""

    features: dict[str, torch.Tensor]  # (N, 20)
    captions: dict[str, list[tuple[str, ...]]]  # one an image; none of `val` is in `train`

    @property
    def references(self) -> dict[str, tuple[str, ...]]:
        """Of the validation images, as `validation_scores` takes them."""
        return {str(number): of_image for number, of_image in enumerate(self.captions["val"])}


@pytest.fixture(scope="session")
def shapes_facts() -> ShapesFacts:
    """800 training and 200 validation scenes."""
    scenes = make_scenes(num_images={"train": 800, "val": 200})
    return ShapesFacts(
        {split: torch.tensor(list(map(_facts_of, of))) for split, of in scenes.items()},
        {split: [(scene.caption,) for scene in of] for split, of in scenes.items()},
    )


def _facts_of(scene: ShapesScene) -> list[float]:
    """What a scene shows, one-hot: kinds, colours, relation, kinds, colours."""
    said = (
        (scene.large.kind, KINDS),
        (scene.large.colour, COLOURS),
        (scene.relation, RELATIONS),
        (scene.small.kind, KINDS),
        (scene.small.colour, COLOURS),
    )
    return [float(name == word) for word, names in said for name in names]


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int], None]]:
    """limit_file_size(bytes): from now on a file may grow to so many, as if the disk were full."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def load_training(run: Path) -> dict[str, Any]:
    last = run / (run / "last").read_text(encoding="utf-8").strip()
    state: dict[str, Any] = torch.load(last / "train_state.pt", weights_only=True)
    return state


def check_same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            check_same(value, other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for value, of_other in zip(one, other, strict=True):
            check_same(value, of_other)
    else:
        assert one == other


@pytest.fixture(scope="session")
def assert_same_runs() -> Callable[[Path, Path], None]:
    """assert_same_runs(run, other): weights, average, optimizer and state of the last checkpoints are equal
    to the bit, and so is what can be used: the files of the best checkpoint."""

    def check(run: Path, other: Path) -> None:
        check_same(load_training(run), load_training(other))
        for pointer in ("last", "best"):
            name = (run / pointer).read_text(encoding="utf-8").strip()
            assert name == (other / pointer).read_text(encoding="utf-8").strip()
            for file in (run / name).glob("*.safetensors"):
                assert file.read_bytes() == (other / name / file.name).read_bytes()

    return check
