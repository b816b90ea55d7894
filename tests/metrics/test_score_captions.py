"""Text -> scores: names, signatures, every sentence, results; the whole road against pycocoevalcap's."""

import importlib.metadata
import json
import math
from pathlib import Path

import pytest

from pixtell.errors import ScoringError
from pixtell.metrics import METRICS, Score, metric_names, results_json, score_captions, warnings_for

HYPOTHESES = {"dog": "A dog runs.", "cat": "A cat sleeps on a sofa.", "men": "Two men play."}
REFERENCES = {
    "men": ["Two men play football.", "Men outside"],
    "dog": ["A dog runs on grass.", "The brown dog runs."],
    "cat": ["A cat sleeps.", "A cat on a red sofa."],
}
BLEU = ["BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4"]


def test_all_that_need_no_java_and_no_weights_are_the_default():
    names = [*BLEU, "ROUGE-L", "CIDEr-D", "CIDEr", "noun-recall", "length", "bad-endings"]
    names += ["distinct", "distinct-1", "distinct-2", "vocabulary"]
    assert list(score_captions(HYPOTHESES, REFERENCES)) == names == list(METRICS)


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["bleu"], BLEU),
        (["BLEU-4"], ["BLEU-4"]),
        (["cider"], ["CIDEr"]),
        (["CIDER-D", "rouge-l", " bleu-1"], ["BLEU-1", "ROUGE-L", "CIDEr-D"]),
        (["bleu", "bleu-2", "Bleu"], BLEU),
        (None, list(METRICS)),
    ],
)
def test_names_in_any_case_give_metrics_in_one_order(names, meant):
    assert metric_names(names) == meant
    assert list(score_captions(HYPOTHESES, REFERENCES, names)) == meant


def test_an_unknown_metric_lists_those_there_are():
    with pytest.raises(ScoringError) as caught:
        score_captions(HYPOTHESES, REFERENCES, ["bleu-5", "rogue", "cider"])
    assert str(caught.value) == (
        "Unknown metric 'bleu-5', 'rogue'; choose from bleu, BLEU-1, BLEU-2, BLEU-3, BLEU-4, ROUGE-L, "
        "CIDEr-D, CIDEr, noun-recall, length, bad-endings, distinct, distinct-1, distinct-2, vocabulary, "
        "METEOR, SPICE, CLIPScore, RefCLIPScore, novel."
    )
    with pytest.raises(ScoringError, match=r"No metric is named; choose from bleu, BLEU-1, .*novel\."):
        score_captions(HYPOTHESES, REFERENCES, [])


def test_a_score_carries_its_settings():
    score = score_captions(HYPOTHESES, REFERENCES, ["cider-d"])["CIDEr-D"]
    version = importlib.metadata.version("pixtell")
    assert score.signature == f"CIDEr-D|words:ptb|refs:2|images:3|pixtell:{version}"
    uneven = score_captions({"a": "x", "b": "y"}, {"a": ["x"] * 4, "b": ["y"] * 5})
    assert uneven["BLEU-4"].signature == f"BLEU-4|words:ptb|refs:4-5|images:2|pixtell:{version}"


def test_values_are_joined_by_id_whatever_the_order():
    one = score_captions(HYPOTHESES, REFERENCES)
    other = score_captions(dict(sorted(HYPOTHESES.items())), dict(sorted(REFERENCES.items())))
    for name, score in one.items():
        assert score.per_image == pytest.approx(other[name].per_image)
        assert score.value == pytest.approx(other[name].value)


def test_case_and_punctuation_do_not_count():
    bare = {image_id: caption.lower().rstrip(".") for image_id, caption in HYPOTHESES.items()}
    assert score_captions(bare, REFERENCES) == score_captions(HYPOTHESES, REFERENCES)


def test_line_separators_shift_nothing():
    """pycocoevalcap's CIDEr falls here, because the captions after it go to other images."""
    torn = HYPOTHESES | {"dog": "A dog\u2028runs.\r"}
    assert score_captions(torn, REFERENCES) == score_captions(HYPOTHESES, REFERENCES)


def test_all_that_does_not_match_is_one_sentence():
    with pytest.raises(ScoringError) as caught:
        score_captions(
            {"dog": "A dog.", "x1": "a", "x2": "b", "x3": "c", "x4": "d", "none": "e"},
            REFERENCES | {"none": []},
        )
    assert str(caught.value) == (
        "Hypotheses and references do not match: 2 images without a hypothesis (men, cat), 5 images without "
        "references (x1, x2, x3, ...); give exactly one caption for each image that has references."
    )


def test_nothing_to_score_is_one_sentence():
    with pytest.raises(
        ScoringError, match=r"^There are no hypotheses to score; give one caption for each image\.$"
    ):
        score_captions({}, REFERENCES)


def test_a_caption_without_words_scores_next_to_nothing_and_breaks_nothing():
    """A model at the start of its training may end at once."""
    scores = score_captions(HYPOTHESES | {"dog": "...", "cat": ""}, REFERENCES)
    for name, score in scores.items():
        assert math.isfinite(score.value)
        if score.per_image and name != "bad-endings":
            assert score.per_image["dog"] == score.per_image["cat"] == 0


def test_captions_in_other_scripts_and_very_long_ones():
    texts = {
        "ja": "犬が走る、草の上。",
        "ru": "Собака бежит.",
        "hi": "कुत्ता दौड़ता है",
        "long": "a dog runs " * 4000,
        "🐶": "🐶 dog",
    }
    scores = score_captions(texts, {image_id: [text] for image_id, text in texts.items()})
    assert all(scores["BLEU-1"].per_image[i] == pytest.approx(1, abs=1e-6) for i in texts)
    assert all(scores["ROUGE-L"].per_image[i] == pytest.approx(1) for i in texts)
    assert scores["CIDEr"].per_image["long"] == pytest.approx(10)


def test_results_are_what_the_file_holds():
    results = results_json(
        {
            "BLEU-1": Score(0.5, {"a": 0.5}, "BLEU-1|...", (0.4, 0.6)),
            "noun-recall": Score(math.nan, {}, "..."),
        },
        num_images=1,
    )
    bleu = {"value": 0.5, "per_image": {"a": 0.5}, "interval": [0.4, 0.6], "signature": "BLEU-1|..."}
    nouns = {"value": None, "per_image": {}, "interval": None, "signature": "..."}
    assert results == {"scores": {"BLEU-1": bleu, "noun-recall": nouns}, "num_images": 1}
    no_nan = json.dumps(results_json(score_captions(HYPOTHESES, REFERENCES), num_images=3), allow_nan=False)
    assert json.loads(no_nan)["num_images"] == 3


def test_tiny_sets_are_warned_of():
    one = score_captions({"dog": "A dog"}, {"dog": ["A dog"]})
    assert warnings_for(one) == [
        "CIDEr-D and CIDEr of one image are 0 by construction; score several images together."
    ]
    few = score_captions(HYPOTHESES, REFERENCES, ["cider-d", "bleu"])
    assert warnings_for(few) == [
        "CIDEr-D over 3 images says little, for a word weighs by how few images have it; score 50 or more "
        "together."
    ]
    assert warnings_for(score_captions(HYPOTHESES, REFERENCES, ["bleu"])) == []
    many = {str(i): "A dog" for i in range(50)}
    assert warnings_for(score_captions(many, {i: ["A dog"] for i in many})) == []


@pytest.mark.java
@pytest.mark.flickr8k
def test_the_whole_road_equals_pycocoevalcap(flickr8k_dir: Path):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    captions: dict[str, list[str]] = {}
    lines = (flickr8k_dir / "Flickr8k_text" / "Flickr8k.token.txt").read_text(encoding="utf-8").splitlines()
    for line in lines[:2500]:
        name, caption = line.split("\t", 1)
        captions.setdefault(name.split("#")[0], []).append(caption)
    hypotheses = {name: of_image[0] + " 2 1/2" for name, of_image in captions.items()}
    references = {name: of_image[1:] for name, of_image in captions.items()}

    def cut(texts: dict[str, list[str]]) -> dict[str, list[str]]:
        return PTBTokenizer().tokenize({i: [{"caption": text} for text in of] for i, of in texts.items()})

    ours = score_captions(hypotheses, references)
    theirs = cut(references), cut({name: [caption] for name, caption in hypotheses.items()})
    expected: dict[str, tuple[float, list[float]]] = {
        "ROUGE-L": Rouge().compute_score(*theirs),
        "CIDEr-D": Cider().compute_score(*theirs),
    }
    bleu, bleu_per_image = Bleu(4).compute_score(*theirs, verbose=0)
    expected |= {name: (bleu[n], bleu_per_image[n]) for n, name in enumerate(BLEU)}
    for name, (value, per_image) in expected.items():
        assert ours[name].value == pytest.approx(value, abs=1e-6)
        assert list(ours[name].per_image.values()) == pytest.approx(list(per_image), abs=1e-6)
