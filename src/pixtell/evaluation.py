"""A model and a data set in, scores out.

In: a captioner, the records of a split. Out: `Evaluation`: captions, references, scores; and its results
file. It is also what training calls after every epoch, on features it has already.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pixtell.captioner import Caption, Captioner, as_sentence
from pixtell.datasets.records import CaptionedImage
from pixtell.decoding import DecodingOptions, decode
from pixtell.errors import DatasetError, ImageError
from pixtell.files import write_json
from pixtell.metrics import Score, Scorer, results_json, score_captions
from pixtell.metrics.diversity import bad_ending_rate, distinct_share
from pixtell.models.base import CaptionModel
from pixtell.tokenizers import Tokenizer


@dataclass(frozen=True)
class Evaluation:
    """How a model captions a split, and how well.

    yardstick: what each image's first reference scores against its others. captions, references, errors: by
    image_id; errors: the images that could not be read, left out of the scores.
    """

    model: str
    dataset: str
    split: str
    decoding: DecodingOptions
    scores: dict[str, Score]
    yardstick: dict[str, Score]
    captions: dict[str, str]
    references: dict[str, tuple[str, ...]]
    errors: dict[str, ImageError]

    @property
    def distinct_share(self) -> float:
        """The share of different captions, 0 to 1."""
        return distinct_share(list(self.captions.values()))

    @property
    def bad_ending_rate(self) -> float:
        """The share of captions that end in mid-sentence, 0 to 1."""
        return bad_ending_rate(list(self.captions.values()))

    def to_json(self) -> dict[str, Any]:
        """The results file: scores as `pixtell score` writes them, then what they were made from."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "decoding": asdict(self.decoding),
            **results_json(self.scores, num_images=len(self.captions), yardstick=self.yardstick),
            "distinct_share": self.distinct_share,
            "bad_ending_rate": self.bad_ending_rate,
            "left_out": {image_id: error.reason for image_id, error in self.errors.items()},
            "captions": [
                {"image_id": image_id, "caption": caption, "references": list(self.references[image_id])}
                for image_id, caption in self.captions.items()
            ],
        }

    def save(self, path: Path) -> None:
        """Raises: StorageError."""
        write_json(path, self.to_json())


def evaluate(
    captioner: Captioner,
    records: Sequence[CaptionedImage],
    *,
    dataset: str,
    split: str,
    options: DecodingOptions | None = None,
    scorer: Scorer | None = None,
    batch_size: int = 32,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Caption every record and score the captions against its own.

    scorer: the metrics; None: all that need nothing but captions.
    Raises: DatasetError where no image can be read.
    """
    scorer = scorer or Scorer()
    options = options or captioner.decoding
    captions: dict[str, str] = {}
    errors: dict[str, ImageError] = {}
    results = captioner.stream(
        (record.image for record in records), options=options, batch_size=batch_size, on_error="return"
    )
    for done, (record, result) in enumerate(zip(records, results, strict=True), start=1):
        if isinstance(result, ImageError):
            errors[record.image_id] = result
        else:
            captions[record.image_id] = (result if isinstance(result, Caption) else result[0]).text
        on_progress(done, len(records))
    if not captions:
        first = f"; the first: {next(iter(errors.values()))}" if errors else "; choose another split."
        raise DatasetError(f"None of the {len(records):,} images of {dataset} {split} can be read{first}")
    references = {record.image_id: record.captions for record in records if record.image_id in captions}
    return Evaluation(
        model=captioner.name,
        dataset=dataset,
        split=split,
        decoding=options,
        scores=scorer.score(captions, references),
        yardstick=scorer.human_scores(references),
        captions=captions,
        references=references,
        errors=errors,
    )


def validation_scores(
    model: CaptionModel,
    tokenizer: Tokenizer,
    feature_batches: Iterable[torch.Tensor],
    references: Mapping[str, Sequence[str]],
    options: DecodingOptions,
) -> dict[str, float]:
    """The numbers of one validation while training: CIDEr-D, BLEU-4, share of distinct captions, bad-ending
    rate, mean length in tokens.

    feature_batches: features (B, ...) in the order of `references`. Captions are decoded freely, never
    under teacher forcing.
    """
    decoded = [
        of_image[0]
        for features in feature_batches
        for of_image in decode(
            model, features, options, eos_id=tokenizer.eos_id, forbidden_ids=tokenizer.forbidden_ids
        )
    ]
    texts = [as_sentence(tokenizer.decode(caption.token_ids)) for caption in decoded]
    captions = dict(zip(references, texts, strict=True))
    scores = score_captions(captions, references, ["CIDEr-D", "BLEU-4"])
    return {
        "CIDEr-D": scores["CIDEr-D"].value,
        "BLEU-4": scores["BLEU-4"].value,
        "distinct_share": distinct_share(texts),
        "bad_ending_rate": bad_ending_rate(texts),
        "mean_tokens": sum(caption.num_tokens for caption in decoded) / len(decoded),
    }
