"""The whole road, tested by learning: both families learn to read the shapes, from pixels to captions, and
look at what they name.

No caption of the validation split is in the training split, so that a right answer was put together, not
remembered. The encoder starts from random weights and learns along.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pixtell import Captioner
from pixtell.captioner import Caption
from pixtell.datasets import load_dataset
from pixtell.datasets.shapes import Shape, ShapesScene, make_scenes
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder
from pixtell.evaluation import validation_scores
from pixtell.explain import Explanation, explain_caption
from pixtell.training.captioner_job import train_captioner
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.run_options import DataOptions, RunOptions

WHAT = CaptionerOptions(
    train_encoder=True, min_area=1.0, colour=0.0, dropout=0.0, label_smoothing=0.0, patience=None
)
FAMILIES = {
    "clipcap": (replace(WHAT, family="clipcap", width=64, num_layers=2, epochs=11), 1.5e-3),
    "lstm": (replace(WHAT, family="lstm", width=128, epochs=11), 3e-3),
}


@pytest.fixture(scope="module", params=FAMILIES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned the shapes, of each family."""
    what, learning_rate = FAMILIES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    encoder = folder / "encoder"
    encoder.mkdir()
    config = NanoEncoderConfig(width=12, blocks=(1, 1, 1, 1), image_size=64)
    save_nano_encoder(NanoEncoder(config=config), encoder)
    options = RunOptions(
        output=folder / "run", batch_size=32, learning_rate=learning_rate, ema_decay=0.99, dtype="fp32"
    )
    result = train_captioner(
        DataOptions(dataset="shapes"),
        replace(what, encoder=str(encoder)),
        options,
        validate=validation_scores,
    )
    assert result.best_value is not None
    assert result.best_value > 9.5  # CIDEr-D; 10 is the most there is
    return options.output


@pytest.mark.long
def test_a_family_learns_the_shapes(run: Path) -> None:
    captioner = Captioner.from_pretrained(str(run), device="cpu")
    records = load_dataset("shapes", None).split("val")
    captions = captioner.caption([record.image for record in records])
    right = [caption.text == record.captions[0] for caption, record in zip(captions, records, strict=True)]
    assert sum(right) / len(right) >= 0.95


@pytest.mark.long
def test_a_family_looks_at_the_shape_that_it_names(
    run: Path, record_property: Callable[[str, object], None]
) -> None:
    """A map falls on a shape where its peak, a cell of the grid, touches the shape's box.

    Two shapes in a grid of 2 x 2 cells: a peak at random falls on a shape in 56 % of cases, hence the two
    comparisons: the maps of another picture, and the other shape of the same picture.
    """
    captioner = Captioner.from_pretrained(str(run), device="cpu")
    scenes, records = make_scenes()["val"], load_dataset("shapes", None).split("val")
    captions: list[Caption] = captioner.caption([record.image for record in records])
    found = []
    for scene, record, caption in zip(scenes, records, captions, strict=True):
        assert isinstance(record.image, np.ndarray)
        if caption.text == scene.caption:
            found.append((scene, explain_caption(captioner, record.image, caption)))
    assert len(found) >= 190

    other_pictures = [(found[number - 1][0], maps) for number, (_, maps) in enumerate(found)]
    swapped = [(replace(scene, large=scene.small, small=scene.large), maps) for scene, maps in found]
    named, elsewhere, other = (share_of_hits(pairs) for pairs in (found, other_pictures, swapped))
    record_property(
        "peaks on the named shape, the other shape, of another picture", (named, other, elsewhere)
    )
    assert named >= 0.8
    assert elsewhere <= named - 0.2
    assert other <= named - 0.4


def share_of_hits(pairs: list[tuple[ShapesScene, Explanation]]) -> float:
    """How many of the peaks for a colour or a kind fall on the shape that has it."""
    return float(np.mean([hit for scene, found in pairs for hit in hits(scene, found)]))


def hits(scene: ShapesScene, found: Explanation) -> Iterator[bool]:
    """For the colour and the kind of both shapes: "A large red circle is above a small blue square."."""
    for shape, words in ((scene.large, found.words[2:4]), (scene.small, found.words[-2:])):
        yield from (falls_on(word.evidence, shape) for word in words)


def falls_on(evidence: np.ndarray, shape: Shape) -> bool:
    """Whether the cell of the peak touches the shape's box."""
    rows, columns = evidence.shape
    row, column = np.unravel_index(evidence.argmax(), evidence.shape)
    left, top, right, bottom = shape.box(1)
    across = column / columns < right and (column + 1) / columns > left
    return bool(across and row / rows < bottom and (row + 1) / rows > top)
