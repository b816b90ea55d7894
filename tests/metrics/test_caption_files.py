"""Caption files: every form, ids as strings, every sentence (`pixtell.metrics.files`)."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pixtell.bulk import FORMATS
from pixtell.captioner import Caption
from pixtell.errors import ImageError, ScoringError
from pixtell.metrics.files import read_captions

RESULTS = [{"image_id": 1, "caption": "A dog."}, {"image_id": "b.jpg", "caption": "A cat, red."}]
AS_MAPPING = {"b.jpg": ["The cat.", 'A "cat", red'], "1": ["The dog."]}
AS_COCO = {
    "images": [{"id": 1}, {"id": "b.jpg"}, {"id": 7}],
    "annotations": [
        {"id": 10, "image_id": "b.jpg", "caption": "The cat."},
        {"id": 11, "image_id": "1", "caption": "The dog."},
        {"id": 12, "image_id": "b.jpg", "caption": 'A "cat", red'},
    ],
}
OWN_RESULTS = {
    "scores": {},
    "captions": [{**one, "references": AS_MAPPING[str(one["image_id"])]} for one in RESULTS],
}

# Both sides of one set of captions, in every form: (name of the file, content).
HYPOTHESES = [
    ("h.json", json.dumps(RESULTS)),
    ("h.json", json.dumps(RESULTS, indent=2)),
    ("h.txt", "\ufeff" + json.dumps(RESULTS)),
    ("h.json", json.dumps(OWN_RESULTS)),
    ("h.json", '{"1": "A dog.", "b.jpg": ["A cat, red."]}'),
    ("h.csv", 'image_id,caption\n1,A dog.\nb.jpg,"A cat, red."\n'),
    ("h.csv", '\ufeffCaption,Image,split\r\nA dog.,1,test\r\n\r\n"A cat, red.",b.jpg,test\r\n'),
    ("h.txt", 'path,caption\n1,A dog.\nb.jpg, "A cat, red."'),
    ("h.jsonl", '{"image_id": 1, "caption": "A dog."}\n\n{"image": "b.jpg", "captions": ["A cat, red."]}\n'),
    ("h.json", '{"path": "1", "caption": "A dog."}\r\n{"path": "b.jpg", "caption": "A cat, red."}\r\n'),
    ("h.token", "1#0\tA dog.\nb.jpg#3\tA cat, red.\n"),
]
REFERENCES = [
    ("r.json", json.dumps(AS_MAPPING)),
    ("r.json", json.dumps(AS_COCO)),
    ("r.json", json.dumps(OWN_RESULTS)),
    ("r.json", json.dumps(AS_COCO["annotations"])),
    ("r.csv", 'image,caption\nb.jpg,The cat.\nb.jpg,"A ""cat"", red"\n1,The dog.\n'),
    (
        "r.jsonl",
        "".join(json.dumps({"image": i, "captions": texts}) + "\n" for i, texts in AS_MAPPING.items()),
    ),
    ("r.ndjson", "".join(json.dumps(one) + "\n" for one in AS_COCO["annotations"])),
    ("r.txt", 'b.jpg#0\tThe cat.\n1#0\tThe dog.\nb.jpg#1\tA "cat", red\n'),
]


def write(folder: Path, name: str, content: Any) -> Path:
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def made_caption(text: str) -> Caption:
    return Caption(text, token_ids=(), logprob=-1.0, mean_logprob=-0.5)


def message(
    folder: Path, hypotheses: Any, references: Any = AS_MAPPING, names: Sequence[str] = ("h.json", "r.json")
) -> str:
    paths = [write(folder, *file) for file in zip(names, (hypotheses, references), strict=True)]
    with pytest.raises(ScoringError) as caught:
        read_captions(*paths)
    text = str(caught.value)
    assert text.endswith(".")
    assert text.isprintable()
    return text.replace(f"{folder}/", "")


@pytest.mark.parametrize("hypotheses", HYPOTHESES)
def test_hypotheses_of_every_form_give_text_by_id_in_their_order(tmp_path, hypotheses):
    found, by_id = read_captions(write(tmp_path, *hypotheses), write(tmp_path, "r.json", AS_COCO))
    assert list(found.items()) == [("1", "A dog."), ("b.jpg", "A cat, red.")]
    assert list(by_id.items()) == [("1", ["The dog."]), ("b.jpg", AS_MAPPING["b.jpg"])]


@pytest.mark.parametrize("references", REFERENCES)
def test_references_of_every_form_give_lists_by_id(tmp_path, references):
    _, by_id = read_captions(write(tmp_path, "h.json", RESULTS), write(tmp_path, *references))
    assert list(by_id.items()) == [("1", ["The dog."]), ("b.jpg", AS_MAPPING["b.jpg"])]


def test_one_results_file_is_both(tmp_path):
    path = write(tmp_path, "results.json", OWN_RESULTS)
    assert read_captions(path, path) == ({"1": "A dog.", "b.jpg": "A cat, red."}, AS_MAPPING)


@pytest.mark.parametrize("name", ["jsonl", "csv"])
def test_what_pixtell_caption_writes_is_read(tmp_path, name):
    first_line, lines = FORMATS[name]
    made = {path: made_caption("A dog, red.") for path in ("a.jpg", "b c.jpg")}
    text = first_line + "".join(lines(Path(path), caption) for path, caption in made.items())
    references = write(tmp_path, "r.json", {path: ["A dog."] for path in made})
    hypotheses, _ = read_captions(write(tmp_path, f"h.{name}", text), references)
    assert hypotheses == dict.fromkeys(made, "A dog, red.")


def test_an_image_that_could_not_be_captioned_is_reported(tmp_path):
    _, lines = FORMATS["jsonl"]
    text = lines(Path("a.jpg"), made_caption("A dog.")) + lines(Path("b.jpg"), ImageError("b.jpg", "no"))
    assert message(tmp_path, text, {"a.jpg": ["A dog."], "b.jpg": ["A cat."]}, ("h.jsonl", "r.json")) == (
        "Hypotheses and references do not match: 1 image with an empty hypothesis (b.jpg); give exactly one "
        "caption for each image that has references."
    )


def test_several_captions_of_an_image_are_not_one_hypothesis(tmp_path):
    _, lines = FORMATS["jsonl"]
    text = lines(Path("a.jpg"), [made_caption("A dog."), made_caption("A cat.")])
    sentence = message(tmp_path, text, {"a.jpg": ["A dog."]}, ("h.jsonl", "r.json"))
    assert "1 image with more than one hypothesis (a.jpg)" in sentence


def test_plain_text_is_joined_by_line(tmp_path):
    """Only LF and CRLF end a line: the form feed and the line separator are inside captions."""
    hypotheses = write(tmp_path, "h.txt", "A dog\x0cruns.\r\n{A} cat\u2028sits.\r\n")
    tabs = write(tmp_path, "r.txt", "The dog.\tA dog.\t\nThe cat.")
    others = write(tmp_path, "r2.txt", "Dogs.\n\n")
    assert read_captions(hypotheses, tabs) == (
        {"1": "A dog\x0cruns.", "2": "{A} cat\u2028sits."},
        {"1": ["The dog.", "A dog."], "2": ["The cat."]},
    )
    _, references = read_captions(hypotheses, [tabs, others])
    assert references == {"1": ["The dog.", "A dog.", "Dogs."], "2": ["The cat."]}


def test_several_files_of_references_are_joined_by_id(tmp_path):
    hypotheses = write(tmp_path, "h.json", RESULTS)
    paths = [write(tmp_path, "r.json", AS_MAPPING), write(tmp_path, "r.csv", "image,caption\n1,A pup.\n")]
    assert read_captions(hypotheses, paths)[1] == {**AS_MAPPING, "1": ["The dog.", "A pup."]}


@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        (
            "a\nb\nc\n",
            "a\nb\n",
            "The numbers of lines differ: h.txt has 3, r.txt has 2; in plain text line 1 of each file is of "
            "the first image, line 2 of the second, and so on.",
        ),
        (
            "a\n\n \nd",
            "a\nb\nc\n\t \n",
            "Hypotheses and references do not match: 1 image without references (4), 2 images with an empty "
            "hypothesis (2, 3); give exactly one caption for each image that has references.",
        ),
        (
            "A dog.\nb.jpg\tA dog.\n",
            "a\nb\n",
            "h.txt: 1 of 2 lines, the first line 2, hold a tab, but plain hypotheses are one caption a line; "
            "for captions with image names give CSV or JSON lines, which pixtell caption writes with "
            "--format.",
        ),
        (
            "a\nb\n",
            '{"1": ["a"], "2": ["b"]}',
            "h.txt is plain text, in which an image is a line, but r.txt names its images; give both as "
            "plain text, or both with names, such as CSV with the columns image_id,caption.",
        ),
    ],
)
def test_plain_text_that_does_not_match_is_one_sentence(tmp_path, hypotheses, references, sentence):
    assert message(tmp_path, hypotheses, references, ("h.txt", "r.txt")) == sentence


def test_everything_that_does_not_match_is_one_sentence(tmp_path):
    hypotheses = [
        {"image_id": "twice", "caption": "A dog."},
        {"image_id": "twice", "caption": "A cat."},
        {"image_id": "unknown", "caption": "A cow."},
        {"image_id": "empty", "caption": " \n"},
        *({"image_id": i, "caption": "A pig."} for i in range(4)),
    ]
    references = {name: ["A dog."] for name in ("twice", "empty", "absent")} | {"3": ["", " "]}
    assert message(tmp_path, hypotheses, references) == (
        "Hypotheses and references do not match: 1 image without a hypothesis (absent), 5 images without "
        "references (unknown, 0, 1, ...), 1 image with more than one hypothesis (twice), 1 image with an "
        "empty hypothesis (empty); give exactly one caption for each image that has references."
    )


def test_ids_that_would_match_by_file_name_are_not_guessed_but_named(tmp_path):
    hypotheses = [{"path": f"out/{i}.jpg", "caption": "A dog."} for i in range(3)]
    references = {f"{i}.jpg": ["A dog."] for i in range(3)}
    assert message(tmp_path, hypotheses, references).endswith(
        "; give exactly one caption for each image that has references; 3 would match by file name, as "
        "'out/0.jpg' and '0.jpg': write the ids the same in both files."
    )
    twice = [*hypotheses, {"path": "in\\0.jpg", "caption": "A cat."}]
    assert "; 2 would match by file name, as 'out/1.jpg'" in message(tmp_path, twice, references)
    assert "file name" not in message(tmp_path, hypotheses, {"x.jpg": ["A dog."]})


@pytest.mark.parametrize(
    ("hypotheses", "references", "sentence"),
    [
        ([], AS_MAPPING, "There are no hypotheses to score; give one caption for each image."),
        (
            [*RESULTS, {"image_id": 3}, {"caption": "x"}, 5, {"image_id": 4, "caption": None}],
            AS_MAPPING,
            "h.json: 4 of 6 entries, the first at index 2, lack an image_id or a caption that is text; "
            "correct them.",
        ),
        (
            '[{"image_id": NaN, "caption": "x"}, {"image_id": true, "caption": "x"}, {"image": 1, "caption": '
            "NaN}]",
            AS_MAPPING,
            "h.json: 3 of 3 entries, the first at index 0, lack an image_id or a caption that is text; "
            "correct them.",
        ),
        (
            RESULTS,
            {"captions": [{**RESULTS[0], "references": ["x"]}, *RESULTS]},
            "r.json: 2 of 3 entries, the first at index 1, lack an image_id or references that are text; "
            "correct them.",
        ),
        (
            '{"image": "a", "caption": "x"}\n\n{"image": "b"}\n',
            AS_MAPPING,
            "h.json: 1 of 2 lines, the first line 3, lack an image_id or a caption that is text; correct "
            "them.",
        ),
        (
            '{"a": ["x"], "b": ["x"], "a": ["y"]}',
            AS_MAPPING,
            "h.json holds 'a' twice in one object; give each id once.",
        ),
        (
            '[{"image_id": "a", "caption": "half \\ud83d"}]',
            AS_MAPPING,
            "h.json holds captions with half a character, a lone surrogate (1, the first of image 'a'); "
            "correct them.",
        ),
        (
            [{"image_id": "a", "caption": "x" * 1_000_001}],
            AS_MAPPING,
            "h.json holds captions of over 1,000,000 characters (1, the first of image 'a'); give one "
            "caption an image.",
        ),
        *(
            (
                RESULTS,
                wrong,
                'r.json holds no captions; give COCO results ([{"image_id": ..., "caption": ...}, ...]), '
                'COCO annotations, lists by id ({"image_id": ["...", ...]}), or what pixtell evaluate '
                "--output wrote.",
            )
            for wrong in ({"annotations": None}, {"scores": {"BLEU-1": 0.5}}, {"1": [5]}, "null", "5")
        ),
    ],
)
def test_json_of_another_form_is_one_sentence(tmp_path, hypotheses, references, sentence):
    assert message(tmp_path, hypotheses, references) == sentence


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        (
            "h.csv",
            "name,text\na,b\n",
            "h.csv begins with 'name,text'; its first line must name the columns image_id (or image, or "
            "path) and caption.",
        ),
        (
            "h.csv",
            "image,caption\na,b\n\nc, d, e\n,f\n",
            "h.csv: 2 of 3 rows, the first in line 4, have no image or not 2 fields; put a caption with "
            "commas into quotes.",
        ),
        (
            "h.csv",
            'image,caption\na,b\nc,"d\ne,f\n',
            "h.csv, line 3, is not CSV (unexpected end of data); put a caption with commas or quotes into "
            "quotes, and double the quotes inside.",
        ),
        (
            "h.txt",
            "a.jpg#0\tx\nb.jpg\ty\na.jpg#0\tz\n",
            "h.txt: 2 of 3 lines, the first line 2, are not image#number<TAB>caption as the first one is, or "
            "repeat a number; correct them.",
        ),
        ("h.json", "", "h.json is empty; write a caption for each image into it."),
        ("h.txt", "\n \n", "h.txt is empty; write a caption for each image into it."),
        ("h.txt", b"a\nb\xe9\n", "h.txt, line 2: the byte 0xe9 is not UTF-8; save the file as UTF-8."),
        (
            "h.csv",
            "image,caption".encode("utf-16"),
            "h.csv, line 1: the byte 0xff is not UTF-8; save the file as UTF-8.",
        ),
        ("h.txt", "a\nb\x00\n", "h.txt, line 2: a NUL is no text; save the file as UTF-8 text."),
    ],
)
def test_a_file_of_another_form_is_one_sentence(tmp_path, name, content, sentence):
    assert message(tmp_path, content, names=(name, "r.json")) == sentence


@pytest.mark.parametrize(
    ("name", "content", "start"),
    [
        ("h.json", "[{", "h.json is not JSON ("),
        ("h.json", "[" * 100_000, "h.json is not JSON ("),
        ("h.json", "9" * 5_000, "h.json is not JSON ("),
        ("h.json", "A dog.\nA cat.\n", "h.json is not JSON ("),
        ("h.txt", '{"image_id": 1, ', "h.txt is not JSON ("),
        ("h.jsonl", '{"image": "a", "caption": "x"}\n{"image"', "h.jsonl, line 2, is not JSON ("),
        ("h.csv", f"image,caption\na,{'x' * 200_000}\n", "h.csv, line 2, is not CSV (field larger"),
        (
            "h.txt",
            "x" * 1_000_001,
            "h.txt holds captions of over 1,000,000 characters (1",
        ),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, name, content, start):
    assert message(tmp_path, content, names=(name, "r.json")).startswith(start)


def test_a_file_that_cannot_be_read_is_one_sentence(tmp_path):
    path = write(tmp_path, "h.json", RESULTS)
    with pytest.raises(ScoringError, match=r"none\.json cannot be read \(No such file .*\); check"):
        read_captions(tmp_path / "none.json", path)
    with pytest.raises(ScoringError, match=r" cannot be read \(Is a directory\); check the path\.$"):
        read_captions(path, tmp_path)
