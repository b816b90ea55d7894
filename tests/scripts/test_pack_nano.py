"""scripts/pack_nano.py: what is stored beside the weights that ship."""

import runpy
from pathlib import Path

from pixtell.metrics import METRICS

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
CAPTIONS = {"a.jpg": "A dog runs.", "b.jpg": "A dog runs.", "c.jpg": "A man with a.", "d.jpg": "Two cats."}
REFERENCES = {image_id: ["A dog runs on grass.", "The dog sits."] for image_id in CAPTIONS}


def test_each_metric_is_stored_once_under_its_name() -> None:
    numbers_of = runpy.run_path(str(SCRIPTS / "pack_nano.py"))["numbers_of"]
    numbers = numbers_of("nano", "val", CAPTIONS, REFERENCES)
    assert list(numbers) == ["dataset", "num_images", "command", *METRICS]
    assert (numbers["num_images"], numbers["distinct"], numbers["bad-endings"]) == (4, 3 / 4, 1 / 4)
    assert numbers["command"] == "pixtell evaluate --model nano --dataset flickr8k --split val"
