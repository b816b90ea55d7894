"""Put trained runs into src/pixtell/weights as the models that ship: fp16, one shared encoder, scores.

    python scripts/pack_nano.py encoder --encoder RUN --data-dir ../shared/flickr8k
    python scripts/pack_nano.py heads --clipcap RUN --lstm RUN --data-dir ../shared/flickr8k
        [--clipcap-tuned RUN --clipcap-share 0.15] [--lstm-tuned RUN --lstm-share 0.3]
    python scripts/pack_nano.py test --data-dir ../shared/flickr8k

`encoder` comes first: `--encoder nano` then means what ships, for the heads that are trained on it. Where it
has a text tower, that is packed too, and how well texts and pictures of dev find each other is stored.
`heads` blends the weights of each model with those of a run that went on from it, by a share, writes the
models, captions the dev split with them as they ship, and stores the dev scores and the mark under which a
caption is unsure: the lowest tenth of the dev captions, by mean log-probability a token. `test` is for the
end: it scores the test split once and stores that too.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pixtell.captioner import Caption, Captioner
from pixtell.checkpoints import SHIPPED, WEIGHTS, find_checkpoint, load_checkpoint, save_checkpoint
from pixtell.datasets import load_dataset
from pixtell.embedder import Embedder
from pixtell.encoders import parse_encoder
from pixtell.encoders.base import EncoderSpec
from pixtell.encoders.nano import load_nano_encoder, save_nano_encoder
from pixtell.encoders.nano_text import has_text_tower, load_nano_towers
from pixtell.files import atomic_directory, read_json, write_json
from pixtell.metrics import score_captions
from pixtell.search import retrieval_of

ENCODER = WEIGHTS / "nano-encoder"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["encoder", "heads", "test"])
    parser.add_argument("--encoder", type=Path, help="a nano encoder, or the run that moved one")
    parser.add_argument("--clipcap", type=Path, help="the run that becomes nano")
    parser.add_argument("--lstm", type=Path, help="the run that becomes nano-lstm")
    for family in ("clipcap", "lstm"):
        parser.add_argument(f"--{family}-tuned", type=Path, help="a run that went on from it")
        parser.add_argument(f"--{family}-share", type=float, default=1.0, help="of the tuned weights, 0 to 1")
        parser.add_argument(f"--{family}-beam-size", type=int, default=3)
        parser.add_argument(f"--{family}-length-penalty", type=float, default=0.7)
    parser.add_argument("--data-dir", type=Path, help="Flickr8k")
    parser.add_argument("--early-stopping", action="store_true")
    arguments = parser.parse_args()
    if arguments.action == "encoder":
        pack_encoder(arguments.encoder)
        add_retrieval("val", arguments.data_dir)
    elif arguments.action == "heads":
        given = vars(arguments)
        for name, family in zip(SHIPPED, ("clipcap", "lstm"), strict=True):
            decoding = {
                "beam_size": given[f"{family}_beam_size"],
                "length_penalty": given[f"{family}_length_penalty"],
                "early_stopping": arguments.early_stopping,
            }
            pack_model(name, given[family], given[f"{family}_tuned"], given[f"{family}_share"], decoding)
            add_scores(name, "val", arguments.data_dir)
    else:
        for name in SHIPPED:
            add_scores(name, "test", arguments.data_dir)
        add_retrieval("test", arguments.data_dir)
    total = sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file())
    print(f"{total / 1e6:.1f} MB of weights")


def pack_encoder(source: Path) -> None:
    directory = find_checkpoint(source)
    with atomic_directory(ENCODER) as temporary:
        if "family" in read_json(directory / "config.json"):  # a run that moved its encoder
            save_nano_encoder(load_checkpoint(directory).encoder, temporary)
            return
        spec = parse_encoder(str(directory), "patches")
        if has_text_tower(spec):
            load_nano_towers(spec).save(temporary)
        else:
            save_nano_encoder(load_nano_encoder(spec), temporary)


def add_retrieval(split: str, data_dir: Path) -> None:
    """Score both towers as they ship, where there are two, and write the encoder's scores.json."""
    if not has_text_tower(parse_encoder("nano")):
        return
    records = load_dataset("flickr8k", data_dir).split(split)
    numbers = retrieval_of(Embedder.from_pretrained("nano"), records).numbers()
    path = ENCODER / "scores.json"
    stored = read_json(path) if path.exists() else {}
    stored[split] = {
        "dataset": "flickr8k",
        "num_images": len(records),
        **{name: round(value, 4) for name, value in numbers.items()},
    }
    write_json(path, stored)
    print("nano-encoder", split, stored[split])


def pack_model(name: str, run: Path, tuned: Path | None, share: float, decoding: dict[str, Any]) -> None:
    """Self-critical training gains precision and loses variety; between its weights and those that it began
    with there is more of both (Wortsman et al. 2022, Robust fine-tuning of zero-shot models)."""
    checkpoint = load_checkpoint(run)
    if tuned is not None:
        weights = checkpoint.model.state_dict()
        after = load_checkpoint(tuned).model.state_dict()
        blended = {key: torch.lerp(value, after[key], share) for key, value in weights.items()}
        checkpoint.model.load_state_dict(blended)
    encoder = EncoderSpec(kind="nano", output=checkpoint.config.encoder.output, path=str(ENCODER))
    config = replace(checkpoint.config, encoder=encoder, decoding=decoding)
    with atomic_directory(WEIGHTS / name) as temporary:
        save_checkpoint(
            temporary, config=config, model=checkpoint.model, tokenizer=checkpoint.tokenizer, half=True
        )


def add_scores(name: str, split: str, data_dir: Path) -> None:
    """Caption a split with the shipped model; write scores.json, and for val the mark of unsure captions."""
    records = load_dataset("flickr8k", data_dir).split(split)
    captioner = Captioner.from_pretrained(name)
    results = list(captioner.stream((record.image for record in records), batch_size=32))
    captions = [caption for caption in results if isinstance(caption, Caption)]
    texts = {record.image_id: caption.text for record, caption in zip(records, captions, strict=True)}
    references = {record.image_id: record.captions for record in records}
    path = WEIGHTS / name / "scores.json"
    stored = read_json(path) if path.exists() else {}
    stored[split] = numbers_of(name, split, texts, references)
    write_json(path, stored)
    print(name, split, stored[split])
    if split == "val":
        means = sorted(caption.mean_logprob for caption in captions)
        config = read_json(WEIGHTS / name / "config.json")
        config["unsure_below"] = round(means[len(means) // 10], 4)
        write_json(WEIGHTS / name / "config.json", config)


def numbers_of(
    name: str, split: str, captions: Mapping[str, str], references: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """What scores.json holds of a split: each metric once, under its name."""
    scores = score_captions(captions, references)
    return {
        "dataset": "flickr8k",
        "num_images": len(captions),
        "command": f"pixtell evaluate --model {name} --dataset flickr8k --split {split}",
        **{metric: round(score.value, 4) for metric, score in scores.items()},
    }


if __name__ == "__main__":
    main()
