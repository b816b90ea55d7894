"""How fast the models in the box are: training of both heads from cached features, and captions from JPEG
files.

    python benchmarks/nano.py [--threads 2] [--pictures 512] [--steps 35] [--rounds 5] [--images DIR]

It goes the road that `pixtell train --init-from nano` goes, on generated JPEG files of Flickr8k's size with
five captions each of words that nano knows, as long as Flickr8k's: speed does not depend on what they say.
A training step is 64 images with all their captions; the median leaves out validations and checkpoints.
Captions are found with beam 3 in batches of 32, from the file to the text; --images takes real pictures.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

BATCH_SIZE = 64  # images a training step
CAPTIONS = 5  # an image
GOALS = {"nano": 120, "nano-lstm": 800}  # captions a second in training
CAPTIONING_GOAL = 40  # images a second


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pictures", type=int, default=512, help="training images, at least 64")
    parser.add_argument("--steps", type=int, default=35, help="training steps that are timed")
    parser.add_argument("--rounds", type=int, default=5, help="passes over 128 pictures that are captioned")
    parser.add_argument(
        "--images", type=Path, help="folder of JPEG files to caption, in place of generated ones"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        pictures = Path(name) / "pictures"
        write_pictures(pictures, arguments.pictures)
        for model, goal in GOALS.items():
            rate = training_rate(model, pictures, Path(name), arguments.steps)
            print(f"{model}: {rate:7.1f} captions a second in training (goal {goal})", flush=True)
        sources = sorted((arguments.images or pictures).glob("*.jpg"))[:128]
        rate = captioning_rate(sources, arguments.rounds)
        print(f"nano: {rate:7.1f} images a second, JPEG to caption, beam 3 (goal {CAPTIONING_GOAL})")


def write_pictures(directory: Path, count: int) -> None:
    """JPEG files of 500 x 375, about 60 kB each, and their captions; one in nine is for validation."""
    from PIL import Image

    from pixtell.checkpoints import load_checkpoint

    words = load_checkpoint("nano").tokenizer.words  # type: ignore[attr-defined]
    directory.mkdir()
    random = np.random.default_rng(0)
    lines = []
    for number in range(count + count // 8):
        coarse = random.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        noisy = np.clip(smooth + random.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(directory / f"{number:05d}.jpg", quality=80)
        lengths = np.clip(random.normal(10.9, 3.8, CAPTIONS).round().astype(int), 3, 30)
        captions = [" ".join(random.choice(words, length)) for length in lengths]
        split = "train" if number < count else "val"
        lines.append(json.dumps({"image": f"{number:05d}.jpg", "captions": captions, "split": split}))
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def training_rate(model: str, pictures: Path, directory: Path, steps: int) -> float:
    """Captions a second; features are extracted before the first step."""
    from pixtell.training.captioner_job import train_captioner
    from pixtell.training.captioner_options import CaptionerOptions
    from pixtell.training.run_options import DataOptions, RunOptions

    ends: list[float] = []
    train_captioner(
        DataOptions(data_dir=pictures),
        CaptionerOptions(init_from=model, features=directory / "features", epochs=1_000_000, patience=None),
        RunOptions(
            output=directory / f"run-{model}", batch_size=BATCH_SIZE, max_steps=steps + 1, learning_rate=1e-9
        ),
        validate=lambda *inputs: {"CIDEr-D": 0.0},
        on_progress=lambda progress: ends.append(time.perf_counter()),
    )
    seconds = statistics.median(after - before for before, after in itertools.pairwise(ends))
    return BATCH_SIZE * CAPTIONS / seconds


def captioning_rate(sources: list[Path], rounds: int) -> float:
    """Images a second, the model loaded and warm."""
    from pixtell import Captioner

    captioner = Captioner.from_pretrained("nano", device="cpu")
    captioner.caption(sources[:32], batch_size=32, beam_size=3)
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        captioner.caption(sources, batch_size=32, beam_size=3)
        times.append(time.perf_counter() - started)
    return len(sources) / statistics.median(times)


if __name__ == "__main__":
    main()
