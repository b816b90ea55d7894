"""How far int8 is from fp32 in what it is for: CIDEr-D of an exported model on Flickr8k's dev split.

    python -m benchmarks.int8 [--model nano] [--limit N] [--dtypes int8] [--data-dir ../shared/flickr8k]

Captions of torch in fp32 first, then of the ONNX graphs, greedily and with three beams, on the same images;
--limit takes the first images of the split. The bound is 1 % of CIDEr-D.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import FLICKR8K
from pixtell import Captioner
from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.errors import PixtellError
from pixtell.exports import export_checkpoint
from pixtell.metrics import score_captions

BEAM_SIZES = (1, 3)
HEADER = "| captions | CIDEr-D, torch in fp32 | CIDEr-D | ratio | equal captions |\n|---|---|---|---|---|"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.int8",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", default="nano", help="as --model of pixtell")
    parser.add_argument("--limit", type=int, help="so many images; not given: the split")
    parser.add_argument("--dtypes", default="int8", help="of the export, with commas: fp32, int8")
    parser.add_argument("--data-dir", type=Path, default=FLICKR8K)
    arguments = parser.parse_args()
    try:
        records = load_dataset("flickr8k", arguments.data_dir).split("val")[: arguments.limit]
        compare(arguments.model, arguments.dtypes.split(","), records)
    except PixtellError as error:
        raise SystemExit(str(error)) from error


def compare(model: str, dtypes: Sequence[str], records: Sequence[CaptionedImage]) -> None:
    print(f"{model}, the first {len(records):,} images of Flickr8k's dev split\n\n{HEADER}", flush=True)
    expected = caption(Captioner.from_pretrained(model, device="cpu", dtype="fp32"), records)
    for dtype in dtypes:
        with tempfile.TemporaryDirectory() as directory:
            export_checkpoint(model, Path(directory) / dtype, dtype=dtype)
            found = caption(Captioner.from_pretrained(Path(directory) / dtype), records)
        for beam_size in BEAM_SIZES:
            exact, near = expected[beam_size], found[beam_size]
            before, after = cider_d(exact, records), cider_d(near, records)
            alike = sum(one == other for one, other in zip(exact, near, strict=True)) / len(records)
            name = "greedy" if beam_size == 1 else f"{beam_size} beams"
            print(
                f"| {dtype}, {name} | {before:.4f} | {after:.4f} | {after / before:.4f} | {alike:.0%} |",
                flush=True,
            )


@torch.inference_mode()
def caption(captioner: Captioner, records: Sequence[CaptionedImage]) -> dict[int, list[str]]:
    """The captions of all images for each number of beams."""
    images = [record.image for record in records]
    return {
        beam_size: [found.text for found in captioner.caption(images, beam_size=beam_size, batch_size=32)]
        for beam_size in BEAM_SIZES
    }


def cider_d(captions: Sequence[str], records: Sequence[CaptionedImage]) -> float:
    ids = [record.image_id for record in records]
    references = {record.image_id: record.captions for record in records}
    return score_captions(dict(zip(ids, captions, strict=True)), references, ["CIDEr-D"])["CIDEr-D"].value


if __name__ == "__main__":
    main()
