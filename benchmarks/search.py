"""How long `pixtell search` takes over pictures whose embeddings are cached: from the folder to the ten
nearest.

    python benchmarks/search.py [--model nano] [--pictures 10000] [--rounds 9] [--threads 1]

The pictures are empty files, and their embeddings, written by the search itself, are random: were one of them
read, it would be an error. What is timed is what follows start-up (imports, the model): the folder is listed,
the cache read, the text embedded, everything ranked. The goal for 10,000 pictures is 50 ms.

That a picture is as it was, only the system can say, one picture at a time: size and time of change. That
alone is timed too, with nothing made of the answers; listing cannot be quicker.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from pixtell.embedder import Embedder, Embeddings
from pixtell.errors import PixtellError
from pixtell.images import ImageSource
from pixtell.search import PictureIndex

TEXT = "a dog in the snow"


class RandomImages(Embedder):
    """Texts as the model has them; the images' embeddings are random, and no image is read."""

    def stream(self, images: Iterable[ImageSource]) -> Iterator[Embeddings]:
        random = np.random.default_rng(0)
        for _ in images:
            yield random.normal(size=self.encoder.feature_shape).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="nano", help="nano towers, or a CLIP")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        embedder = Embedder.from_pretrained(arguments.model, device="cpu")
        random = RandomImages.from_pretrained(arguments.model, device="cpu")
    except PixtellError as error:
        raise SystemExit(str(error)) from error
    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name) / "pictures", Path(name) / "cache"
        write_files(folder, arguments.pictures)
        PictureIndex([folder], random, cache_dir=cache)
        embedder.fingerprint  # noqa: B018  part of start-up: it reads every weight once
        times, asked = [], []
        for _ in range(arguments.rounds):  # in turn: both see the same neighbours on the machine
            times.append(one_search(folder, embedder, cache))
            asked.append(ask_of_every_file(folder))
    opened, found, processor = (statistics.median(part) * 1e3 for part in zip(*times, strict=True))
    total = statistics.median(opening + finding for opening, finding, _ in times) * 1e3
    print(
        f"{arguments.pictures:,} cached pictures: listed and read in {opened:.1f} ms, ranked in {found:.1f} "
        f"ms, {total:.1f} ms in all, {processor:.1f} ms of processor time; to ask the system about every "
        f"file takes {statistics.median(asked) * 1e3:.1f} ms of it (medians of {arguments.rounds})"
    )


def write_files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // 1000:03d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def one_search(folder: Path, embedder: Embedder, cache: Path) -> tuple[float, float, float]:
    """Seconds until the index is there, and of the search in it; of the processor's time, of both."""
    started, worked = time.perf_counter(), time.process_time()
    index = PictureIndex([folder], embedder, cache_dir=cache)
    opened = time.perf_counter()
    hits = index.find(TEXT)
    done = time.perf_counter()
    if index.errors or not hits:
        raise SystemExit("the embeddings were not in the cache, so the time means nothing.")
    return opened - started, done - opened, time.process_time() - worked


def ask_of_every_file(folder: Path) -> float:
    """Seconds until the system has given the size and time of change of every file."""
    started = time.perf_counter()
    for inside in folder.iterdir():
        with os.scandir(inside) as entries:
            for entry in entries:
                entry.stat()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
