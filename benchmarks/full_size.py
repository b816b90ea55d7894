"""The full-size road with random weights of the real shapes: CLIP ViT-B/32 + GPT-2 small, and VGG16 + LSTM;
time and peak memory.

    python benchmarks/full_size.py clipcap
    python benchmarks/full_size.py lstm

Each makes pictures, writes encoder and language model in the layout of the public weights, extracts
features, trains for a few steps, loads the checkpoint and captions with beam search: the same code a user
runs after a download. Captions are noise.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

STEPS = 4
IMAGES = 64


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=["clipcap", "lstm"])
    family = parser.parse_args().family
    with tempfile.TemporaryDirectory() as name:
        run_road(family, Path(name))


def run_road(family: str, directory: Path) -> None:
    from pixtell import Captioner
    from pixtell.evaluation import validation_scores
    from pixtell.training.captioner_job import train_captioner
    from pixtell.training.captioner_options import CaptionerOptions
    from pixtell.training.run_options import DataOptions, RunOptions

    write_pictures(directory / "pictures")
    clock = Clock()
    if family == "clipcap":
        write_clip_b32(directory / "clip")
        write_gpt2_small(directory / "gpt2")
        what = CaptionerOptions(
            family="clipcap",
            encoder=str(directory / "clip"),
            language_model=str(directory / "gpt2"),
            epochs=1,
        )
    else:
        write_vgg16(directory / "vgg16.pth")
        what = CaptionerOptions(family="lstm", encoder=str(directory / "vgg16.pth"), min_count=1, epochs=1)
    clock.tick("weights of the real shapes written")
    train_captioner(
        DataOptions(dataset="folder", data_dir=directory / "pictures"),
        what,
        RunOptions(output=directory / "run", max_steps=STEPS, batch_size=16),
        validate=validation_scores,
        report=print,
    )
    clock.tick(f"features of {IMAGES} images extracted, {STEPS} steps of 16 images trained, validated, saved")
    captioner = Captioner.from_pretrained(directory / "run")
    clock.tick("checkpoint loaded")
    pictures = sorted((directory / "pictures").glob("*.png"))[:16]
    captions = captioner.caption(pictures, beam_size=5, max_new_tokens=20)
    clock.tick(f"{len(captions)} pictures captioned, beam 5, 20 tokens")


class Clock:
    """Prints the seconds since the last tick and the peak memory of the process."""

    def __init__(self) -> None:
        self.last = time.perf_counter()

    def tick(self, what: str) -> None:
        now = time.perf_counter()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
        print(f"{now - self.last:7.1f} s, peak {peak:4.1f} GiB: {what}", flush=True)
        self.last = now


def write_pictures(directory: Path) -> None:
    from PIL import Image

    directory.mkdir()
    generator = np.random.default_rng(0)
    lines = []
    for number in range(IMAGES):
        name = f"{number:03}.png"
        Image.fromarray(generator.integers(0, 256, (240, 320, 3), dtype=np.uint8)).save(directory / name)
        split = "val" if number % 8 == 0 else "train"
        captions = ["A dog runs through the grass.", f"Picture number {number} shows noise."]
        lines.append(json.dumps({"image": name, "captions": captions, "split": split}))
    (directory / "captions.jsonl").write_text("\n".join(lines) + "\n")


def write_clip_b32(directory: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig()  # the defaults are ViT-B/32
    CLIPModel(config).save_pretrained(directory)
    mean, std = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
    settings = {
        "size": {"shortest_edge": 224},
        "crop_size": 224,
        "image_mean": mean,
        "image_std": std,
        "resample": 3,
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))


def write_gpt2_small(directory: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel

    GPT2LMHeadModel(GPT2Config()).save_pretrained(directory)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fillers = [f"<filler-{number}>" for number in range(50256 - 256)]  # up to the public vocabulary's size
    trainer = trainers.BpeTrainer(
        vocab_size=50257,
        special_tokens=["<|endoftext|>", *fillers],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator([], trainer)
    assert tokenizer.get_vocab_size() == 50257, tokenizer.get_vocab_size()
    tokenizer.save(str(directory / "tokenizer.json"))


def write_vgg16(path: Path) -> None:
    from pixtell.encoders.vgg16 import random_vgg16

    torch.save(random_vgg16(0).state_dict(), path)


if __name__ == "__main__":
    main()
