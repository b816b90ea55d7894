"""`pixtell caption --explain`: sheets beside the captions, and one sentence for what cannot be."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from pixtell.cli import run

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def photos(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photos/` with two pictures of one name in the working directory, which has a broken.jpg."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "inside").mkdir(parents=True)
    shutil.copy(pictures[0], tmp_path / "photos" / "a.jpg")
    shutil.copy(pictures[1], tmp_path / "photos" / "inside" / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


def caption(*arguments: object) -> int:
    return run(["caption", *map(str, arguments), "--device", "cpu"])


@pytest.mark.parametrize("family", ["clipcap", "lstm"])
def test_a_sheet_for_every_picture_that_can_be_read(
    tiny_models: Path, photos: Path, capsys: Captured, family: str
) -> None:
    before = {path: path.read_bytes() for path in photos.rglob("*.*")}
    model = ("--model", tiny_models / family)
    assert caption("broken.jpg", "photos", *model) == 1
    plain = capsys.readouterr().out
    assert caption("broken.jpg", "photos", *model, "--explain", "new/maps") == 1
    out, err = capsys.readouterr()
    assert out == plain
    assert err.splitlines() == [
        "pixtell: broken.jpg: it is not an image that Pillow can read; convert it to JPEG or PNG.",
        "pixtell: Pictures explained in new/maps: 2.",
        "pixtell: 1 of 3 pictures could not be read.",
    ]
    assert sorted(path.name for path in Path("new/maps").iterdir()) == ["a-2.png", "a.png"]
    for path in Path("new/maps").iterdir():
        with Image.open(path) as sheet:
            sheet.load()
            assert sheet.format == "PNG"
            assert sheet.width > 300
    assert {path: path.read_bytes() for path in photos.rglob("*.*")} == before


def test_the_best_of_several_captions_is_explained(tiny_models: Path, photos: Path, capsys: Captured) -> None:
    model = ("--model", tiny_models / "clipcap", "--beam-size", 3)
    assert caption("photos/a.jpg", *model, "--explain", "one") == 0
    several = ("--num-captions", 3, "--format", "jsonl", "--output", "captions.jsonl")
    assert caption("photos/a.jpg", *model, *several, "--explain", "several") == 0
    assert len(json.loads(Path("captions.jsonl").read_text())["captions"]) == 3
    assert Path("one/a.png").read_bytes() == Path("several/a.png").read_bytes()


def test_what_cannot_be_explained_is_one_sentence_before_any_work(
    tiny_models: Path, photos: Path, tmp_path: Path, capsys: Captured
) -> None:
    def sentence_of(*arguments: object) -> str:
        assert caption("photos", *arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        [line] = err.splitlines()
        return str(line.removeprefix("pixtell: "))

    shutil.copytree(tiny_models, tmp_path / "models")
    pooled = tmp_path / "models" / "lstm"
    config = json.loads((pooled / "config.json").read_text())
    config["encoder"]["output"] = "pooled"
    (pooled / "config.json").write_text(json.dumps(config))
    assert sentence_of("--model", pooled, "--explain", "maps") == (
        f"The model {pooled} reads one vector an image and cannot say where it looked; explain one that was "
        "trained on patches, such as nano."
    )
    model = ("--model", tiny_models / "lstm")
    assert sentence_of(*model, "--explain", "photos/inside") == (
        "--explain photos/inside is among the pictures; name a folder that is not, such as explained."
    )
    assert sentence_of(*model, "--explain", "broken.jpg") == (
        "--explain broken.jpg is a file; name a folder, such as explained."
    )
    assert sentence_of(*model, "--explain", "broken.jpg/inside").startswith(
        "broken.jpg/inside/a.png cannot be"
    )
    assert Path("broken.jpg").read_bytes() == b"no picture"
    assert not Path("maps").exists()
    assert sorted(path.name for path in photos.rglob("*.*")) == ["a.jpg", "a.png"]
