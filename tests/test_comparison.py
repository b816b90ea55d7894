"""Systems side by side: the same images for all, differences to the first, what is left out."""

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from pixtell.captioner import Captioner
from pixtell.comparison import System, compare, file_systems, model_system
from pixtell.datasets.records import CaptionedImage
from pixtell.errors import CheckpointError, DatasetError, ImageError, OptionError, ScoringError
from pixtell.metrics import Scorer, score_captions, score_differences
from pixtell.metrics.significance import holm

TEXTS = ("A dog runs on grass.", "The man sits in water.")


@pytest.fixture
def records(pictures: list[Path]) -> list[CaptionedImage]:
    return [CaptionedImage(path.name, path, TEXTS, "test") for path in pictures]


def saying(name: str, *captions: str) -> System:
    """A system that says these, again and again."""
    return System(
        name,
        lambda records: (captions[i % len(captions)] for i, _ in enumerate(records)),
        f"detail of {name}",
    )


def test_decoding_that_cannot_be_is_said_before_any_weights_are_read(tiny_models: Path) -> None:
    for decoding, sentence in (
        ({"early_stopping": True}, "--early-stopping changes nothing at --beam-size 1"),
        ({"num_captions": 4, "beam_size": 2}, "--num-captions 4 is more than --beam-size 2 can find"),
    ):
        with pytest.raises(OptionError, match=sentence):
            model_system(str(tiny_models / "lstm"), decoding=decoding)


def test_who_draws_is_not_said_to_use_the_models_beams() -> None:
    assert "beam_size 3" in model_system("nano", decoding={}).detail
    detail = model_system("nano", decoding={"temperature": 0.7}).detail
    assert "beam_size 1" in detail
    assert "temperature 0.7" in detail


def test_models_are_captioned_and_scored_on_the_same_images(
    tiny_models: Path, records: list[CaptionedImage]
) -> None:
    names = [str(tiny_models / "clipcap"), str(tiny_models / "lstm")]
    progress: list[tuple[str, int, int]] = []
    comparison = compare(
        [model_system(name, decoding={"max_new_tokens": 6}, batch_size=4) for name in names],
        records,
        title="both",
        on_progress=lambda what, done, total: progress.append((what, done, total)),
    )
    references = {record.image_id: record.captions for record in records}
    for system, name in zip(comparison.systems, names, strict=True):
        captioner = Captioner.from_pretrained(name)
        captions = captioner.caption([record.image for record in records], max_new_tokens=6)
        assert list(system.captions.values()) == [caption.text for caption in captions]
        assert dict(system.scores) == score_captions(system.captions, references)
        assert system.detail.startswith(f"{Path(name).name} over ")
        assert "max_new_tokens 6" in system.detail
    assert comparison.yardstick == Scorer().human_scores(references)
    assert [image.references for image in comparison.images] == [TEXTS] * len(records)
    assert progress[0] == (f"captioning with {names[0]}", 1, len(records))
    assert progress[-1] == ("making small pictures", len(records), len(records))
    thumbnail = comparison.images[0].thumbnail
    assert thumbnail is not None
    assert Image.open(io.BytesIO(thumbnail.data)).size == (thumbnail.width, thumbnail.height)


def test_every_system_is_tested_against_the_first_and_corrected_for_their_number(
    records: list[CaptionedImage],
) -> None:
    records = [replace(record, image_id=f"{i} {record.image_id}") for i in range(2) for record in records]
    systems = [saying("a", "A dog."), saying("b", "A dog runs.", "A dog."), saying("c", TEXTS[0])]
    comparison = compare(systems, records, title="three")
    scores = [system.scores for system in comparison.systems]
    alone = [score_differences(scores[0], other)["ROUGE-L"] for other in scores[1:]]
    corrected = holm([difference.p_value for difference in alone])
    for name, difference, p_value in zip("bc", alone, corrected, strict=True):
        found = comparison.differences[name, "ROUGE-L"]
        assert (found.value, found.interval) == (difference.value, difference.interval)
        assert found.p_value == p_value
    assert not any(name == "a" for name, _ in comparison.differences)


def test_an_image_that_cannot_be_read_is_left_out_for_all(
    tiny_models: Path, records: list[CaptionedImage], tmp_path: Path
) -> None:
    bad = CaptionedImage("bad.jpg", tmp_path / "bad.jpg", TEXTS, "test")
    systems = [model_system(str(tiny_models / "lstm"), decoding={}), saying("constant", "A dog.")]
    comparison = compare(systems, [records[0], bad, *records[1:]], title="t")
    kept = [record.image_id for record in records]
    assert [image.image_id for image in comparison.images] == kept
    assert all(list(system.captions) == kept for system in comparison.systems)
    assert any(
        line.startswith("Left out: ") and "bad.jpg: there is no such file" in line
        for line in comparison.warnings
    )
    with pytest.raises(DatasetError, match=r"No image of 1 can be compared; the first: .*bad\.jpg"):
        compare(systems, [bad], title="t")


def test_many_bad_images_are_counted_not_listed() -> None:
    class Failing:
        def __call__(self, records):
            return iter([ImageError(str(i), "bad; mend it.") for i in range(9)] + ["A dog."])

    picture = Image.new("RGB", (8, 8))
    records = [CaptionedImage(str(i), picture, TEXTS, "test") for i in range(10)]
    comparison = compare([System("failing", Failing())], records, title="t")
    assert comparison.warnings[-1] == "Left out: 4 more images that cannot be read."
    assert len([line for line in comparison.warnings if line.startswith("Left out: ")]) == 6


def test_without_references_captions_are_described(records: list[CaptionedImage]) -> None:
    alone = [
        CaptionedImage(f"{i} {record.image_id}", record.image, (), "test")
        for i in range(2)
        for record in records
    ]
    comparison = compare([saying("a", "A dog."), saying("b", "Two dogs run.")], alone, title="t")
    assert comparison.systems[1].scores["length"].value == 3
    assert "BLEU-1" not in comparison.systems[0].scores
    assert comparison.yardstick == {}
    assert comparison.differences["b", "length"].value == 1
    with pytest.raises(ScoringError, match=r"^There are no references for BLEU-1; give a data"):
        compare([saying("a", "A dog.")], alone, title="t", scorer=Scorer(["bleu-1"]))


def test_anybodys_captions_take_part(records: list[CaptionedImage], tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    entries = [{"image_id": record.image_id, "caption": f"dog {i}"} for i, record in enumerate(records)]
    path.write_text(json.dumps(entries[::-1]))
    comparison = compare([saying("a", "A dog."), *file_systems([path], records)], records, title="t")
    assert comparison.systems[1].name == "theirs"
    assert list(comparison.systems[1].captions.values()) == [f"dog {i}" for i in range(len(records))]
    again = tmp_path / "again" / "theirs.json"
    again.parent.mkdir()
    shutil.copy(path, again)
    assert [system.name for system in file_systems([path, again], records)] == [str(path), str(again)]
    assert len(file_systems([path], records[:2])) == 1  # captions of other images are left out


def test_a_file_of_captions_that_does_not_fit(records: list[CaptionedImage], tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    names = [record.image_id for record in records]
    entries = [{"image_id": name, "caption": "A dog."} for name in names[1:]]
    entries += [{"image_id": names[1], "caption": " "}]
    path.write_text(json.dumps(entries))
    with pytest.raises(ScoringError) as error:
        file_systems([path], records)
    assert str(error.value) == (
        f"{path} does not fit the pictures: 1 image without a caption ({names[0]}), 1 image with more than "
        f"one ({names[1]}), 1 image with an empty one ({names[1]}); give one caption for each."
    )
    path.write_text(json.dumps([{"image_id": f"folder/{name}", "caption": "A dog."} for name in names]))
    with pytest.raises(ScoringError, match="would match by file name"):
        file_systems([path], records)
    plain = tmp_path / "theirs.txt"
    plain.write_text("A dog.\n")
    with pytest.raises(
        ScoringError, match=r"theirs\.txt is plain text, which names no images; give captions"
    ):
        file_systems([plain], records)


def test_the_curves_of_a_run_are_known(tiny_models: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_models / "lstm", run / "step-3")
    (run / "last").write_text("step-3\n")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.5}\n{"step": 3, "lo')
    assert model_system(str(run), decoding={}).curves == [{"step": 1, "loss": 2.5}]
    assert model_system(str(run / "step-3"), decoding={}).curves == [{"step": 1, "loss": 2.5}]
    assert model_system(str(tiny_models / "lstm"), decoding={}).curves == ()


def test_what_cannot_be_compared(records: list[CaptionedImage]) -> None:
    with pytest.raises(OptionError, match=r"^'a' is named more than once; name each system once\.$"):
        compare([saying("a", "A dog."), saying("a", "A cat.")], records, title="t")
    with pytest.raises(CheckpointError, match="There is no model 'nanno'"):
        model_system("nanno", decoding={})
