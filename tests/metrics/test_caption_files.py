"""Caption files: both formats, ids as strings, every sentence (`pixtell.metrics.files`)."""

import json
from pathlib import Path
from typing import Any

import pytest

from pixtell.errors import ScoringError
from pixtell.metrics.files import read_captions

RESULTS = [{"image_id": 1, "caption": "A dog."}, {"image_id": "b.jpg", "caption": "A cat."}]
AS_MAPPING = {"b.jpg": ["The cat.", "A cat"], "1": ["The dog."]}
AS_COCO = {
    "images": [{"id": 1}, {"id": "b.jpg"}, {"id": 7}],
    "annotations": [
        {"id": 10, "image_id": "b.jpg", "caption": "The cat."},
        {"id": 11, "image_id": "1", "caption": "The dog."},
        {"id": 12, "image_id": "b.jpg", "caption": "A cat"},
    ],
}


def read(folder: Path, hypotheses: Any, references: Any) -> tuple[dict[str, str], dict[str, list[str]]]:
    paths = folder / "hypotheses.json", folder / "references.json"
    for path, content in zip(paths, (hypotheses, references), strict=True):
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_captions(*paths)


def message(folder: Path, hypotheses: Any, references: Any) -> str:
    with pytest.raises(ScoringError) as caught:
        read(folder, hypotheses, references)
    return str(caught.value).replace(f"{folder}/", "")


@pytest.mark.parametrize("references", [AS_MAPPING, AS_COCO])
def test_both_formats_give_text_by_id_in_the_order_of_the_hypotheses(tmp_path, references):
    hypotheses, by_id = read(tmp_path, RESULTS, references)
    assert list(hypotheses.items()) == [("1", "A dog."), ("b.jpg", "A cat.")]
    assert list(by_id.items()) == [("1", ["The dog."]), ("b.jpg", ["The cat.", "A cat"])]


def test_everything_that_does_not_match_is_one_sentence(tmp_path):
    hypotheses = [
        {"image_id": "twice", "caption": "A dog."},
        {"image_id": "twice", "caption": "A cat."},
        {"image_id": "unknown", "caption": "A cow."},
        {"image_id": "empty", "caption": " \n"},
        *({"image_id": i, "caption": "A pig."} for i in range(4)),
    ]
    references = {name: ["A dog."] for name in ("twice", "empty", "absent")}
    assert message(tmp_path, hypotheses, references) == (
        "Hypotheses and references do not match: 1 image without a hypothesis (absent), 5 images without "
        "references (unknown, 0, 1, ...), 1 image with more than one hypothesis (twice), 1 image with an "
        "empty hypothesis (empty); give exactly one caption for each image that has references."
    )


@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        ([], AS_MAPPING, "There are no hypotheses to score; give one caption for each image."),
        (
            {"1": "A dog."},
            AS_MAPPING,
            'hypotheses.json holds no list of captions; give [{"image_id": ..., "caption": ...}].',
        ),
        (
            [*RESULTS, {"image_id": 3}, {"caption": "x"}, 5, {"image_id": 4, "caption": None}],
            AS_MAPPING,
            "hypotheses.json: 4 of 6 entries, the first at index 2, lack an image_id or a caption that is "
            "text; correct them.",
        ),
        (
            RESULTS,
            {"annotations": [{"image_id": 1}]},
            "references.json: 1 of 1 entries, the first at index 0, lack an image_id or a caption that is "
            "text; correct them.",
        ),
        (
            RESULTS,
            {"annotations": None},
            'references.json holds no list of captions; give [{"image_id": ..., "caption": ...}].',
        ),
        *(
            (
                RESULTS,
                wrong,
                "references.json holds no references; give COCO annotations, or an object of image ids with "
                "lists of captions.",
            )
            for wrong in ([], {"1": "The dog."}, {"1": [5]}, "null")
        ),
    ],
)
def test_another_format_is_one_sentence(tmp_path, hypotheses, references, sentence):
    assert message(tmp_path, hypotheses, references) == sentence


def test_a_file_that_is_absent_or_no_json_is_one_sentence(tmp_path):
    assert message(tmp_path, "[{", AS_MAPPING).startswith("hypotheses.json is not JSON (")
    with pytest.raises(ScoringError, match=r"none\.json cannot be read \(No such file"):
        read_captions(tmp_path / "none.json", tmp_path / "references.json")
