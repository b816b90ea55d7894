"""The whole road, tested by learning: both families learn to read the shapes, from pixels to captions.

No caption of the validation split is in the training split, so that a right answer was put together, not
remembered. The encoder starts from random weights and learns along.
"""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pixtell import Captioner
from pixtell.datasets import load_dataset
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder
from pixtell.evaluation import validation_scores
from pixtell.training.captioner_job import train_captioner
from pixtell.training.captioner_options import CaptionerOptions
from pixtell.training.run_options import DataOptions, RunOptions

WHAT = CaptionerOptions(
    train_encoder=True, min_area=1.0, colour=0.0, dropout=0.0, label_smoothing=0.0, patience=None
)


@pytest.mark.long
@pytest.mark.parametrize(
    ("what", "learning_rate"),
    [
        (replace(WHAT, family="clipcap", width=64, num_layers=2, epochs=11), 1.5e-3),
        (replace(WHAT, family="lstm", width=128, epochs=11), 3e-3),
    ],
    ids=["clipcap", "lstm"],
)
def test_a_family_learns_the_shapes(what: CaptionerOptions, learning_rate: float, tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    config = NanoEncoderConfig(width=12, blocks=(1, 1, 1, 1), image_size=64)
    save_nano_encoder(NanoEncoder(config=config), encoder)
    run = RunOptions(
        output=tmp_path / "run", batch_size=32, learning_rate=learning_rate, ema_decay=0.99, dtype="fp32"
    )
    result = train_captioner(
        DataOptions(dataset="shapes"), replace(what, encoder=str(encoder)), run, validate=validation_scores
    )
    assert result.best_value is not None
    assert result.best_value > 9.5  # CIDEr-D; 10 is the most there is

    captioner = Captioner.from_pretrained(str(run.output), device="cpu")
    records = load_dataset("shapes", None).split("val")
    captions = captioner.caption([record.image for record in records])
    right = [caption.text == record.captions[0] for caption, record in zip(captions, records, strict=True)]
    assert sum(right) / len(right) >= 0.95
