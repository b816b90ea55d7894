"""A model and a data set in, scores out: what was scored, what was left out, and nothing in vain."""

import json
from pathlib import Path

import pytest
import torch

from pixtell.captioner import Captioner
from pixtell.datasets.records import CaptionedImage
from pixtell.decoding import DecodingOptions
from pixtell.errors import DatasetError
from pixtell.evaluation import evaluate, validation_scores
from pixtell.metrics import Scorer, score_captions


@pytest.fixture(scope="module")
def captioner(tiny_models: Path) -> Captioner:
    return Captioner.from_pretrained(tiny_models / "lstm")


@pytest.fixture
def records(pictures: list[Path]) -> list[CaptionedImage]:
    texts = ("A dog runs on grass.", "The man sits in water.")
    return [CaptionedImage(f"picture {path.name}", path, texts, "test") for path in pictures]


def test_scores_are_those_of_the_captions_by_image(
    captioner: Captioner, records: list[CaptionedImage], tmp_path: Path
) -> None:
    progress: list[tuple[int, int]] = []
    evaluation = evaluate(
        captioner,
        records,
        dataset="folder",
        split="test",
        batch_size=4,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    texts = [caption.text for caption in captioner.caption([record.image for record in records])]
    assert evaluation.captions == dict(zip((record.image_id for record in records), texts, strict=True))
    references = {record.image_id: record.captions for record in records}
    assert evaluation.scores == score_captions(evaluation.captions, references)
    assert evaluation.distinct_share == len(set(texts)) / len(texts)
    assert 0 <= evaluation.bad_ending_rate <= 1
    assert progress == [(done, 6) for done in range(1, 7)]

    evaluation.save(tmp_path / "results.json")
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["model"].endswith("lstm")
    assert (stored["dataset"], stored["split"], stored["num_images"]) == ("folder", "test", 6)
    assert stored["decoding"]["max_new_tokens"] == 8
    assert stored["left_out"] == {}
    bleu = stored["scores"]["BLEU-1"]
    assert bleu["value"] == evaluation.scores["BLEU-1"].value
    assert set(bleu["per_image"]) == set(references)
    assert "BLEU-1" in bleu["signature"]
    assert stored["captions"][0] == {
        "image_id": "picture 0.jpg",
        "caption": texts[0],
        "references": ["A dog runs on grass.", "The man sits in water."],
    }
    assert len(stored["captions"]) == 6


def test_an_image_that_cannot_be_read_is_left_out_and_named(
    captioner: Captioner, records: list[CaptionedImage], tmp_path: Path
) -> None:
    bad = CaptionedImage("bad one", tmp_path / "absent.jpg", ("A cat.",), "test")
    whole = evaluate(captioner, records, dataset="folder", split="test", scorer=Scorer(["cider-d"]))
    lacking = evaluate(
        captioner,
        [*records[:2], bad, *records[2:]],
        dataset="folder",
        split="test",
        scorer=Scorer(["cider-d"]),
    )
    assert lacking.scores == whole.scores
    assert lacking.captions == whole.captions
    assert list(lacking.errors) == ["bad one"]
    stored = lacking.to_json()
    assert stored["num_images"] == 6
    assert stored["left_out"] == {"bad one": "there is no such file; check the path."}


def test_of_several_captions_the_best_is_scored(captioner: Captioner, records: list[CaptionedImage]) -> None:
    several = DecodingOptions(max_new_tokens=8, beam_size=3, num_captions=3)
    single = DecodingOptions(max_new_tokens=8, beam_size=3)
    best = evaluate(captioner, records, dataset="d", split="test", options=several).captions
    assert best == evaluate(captioner, records, dataset="d", split="test", options=single).captions


def test_a_split_of_which_nothing_can_be_read(captioner: Captioner, tmp_path: Path) -> None:
    path = tmp_path / "absent.jpg"
    bad = [CaptionedImage(name, path, ("A cat.",), "test") for name in "ab"]
    with pytest.raises(DatasetError) as error:
        evaluate(captioner, bad, dataset="folder", split="test")
    assert str(error.value) == (
        f"None of the 2 images of folder test can be read; the first: {path}: there is no such file; check "
        "the path."
    )
    with pytest.raises(DatasetError) as error:
        evaluate(captioner, [], dataset="folder", split="test")
    assert str(error.value) == "None of the 0 images of folder test can be read; choose another split."


def test_validation_in_training_is_the_evaluation_of_the_same_captions(
    captioner: Captioner, records: list[CaptionedImage]
) -> None:
    images = [record.image for record in records]
    preprocess = captioner.encoder.preprocess
    from pixtell.images import load_images

    features = captioner.encode(torch.stack(list(load_images(images, preprocess))))
    references = {record.image_id: record.captions for record in records}
    numbers = validation_scores(
        captioner.model,  # type: ignore[arg-type]
        captioner.tokenizer,
        features.split(4),
        references,
        captioner.decoding,
    )
    evaluation = evaluate(captioner, records, dataset="folder", split="val")
    assert numbers["CIDEr-D"] == evaluation.scores["CIDEr-D"].value
    assert numbers["BLEU-4"] == evaluation.scores["BLEU-4"].value
    assert numbers["distinct_share"] == evaluation.distinct_share
    assert numbers["bad_ending_rate"] == evaluation.bad_ending_rate
    assert 1 <= numbers["mean_tokens"] <= 8
