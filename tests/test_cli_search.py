"""`pixtell search`: what it prints, where, and its exit codes."""

import json
import shutil
from pathlib import Path

import pytest

from pixtell.cli import run
from pixtell.embedder import Embedder
from pixtell.search import PictureIndex

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIXTELL_CACHE", str(tmp_path / "users-cache"))
    folder = tmp_path / "photos"
    folder.mkdir()
    for path in pictures[:4]:
        shutil.copy(path, folder)
    return folder


def search(*arguments: object) -> int:
    return run(["search", *map(str, arguments), "--device", "cpu"])


def test_cosines_and_paths_the_nearest_first(
    tiny_towers: Path, folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    embedder = Embedder.from_pretrained(tiny_towers, device="cpu")
    hits = PictureIndex([folder], embedder, cache_dir=tmp_path / "other").find("a red ball", top=3)
    assert search("a red ball", folder, "--model", tiny_towers, "--top", 3) == 0
    out, err = capsys.readouterr()
    assert out == "".join(f"{hit.score:.4f}\t{hit.path}\n" for hit in hits)
    assert err == ""
    assert [path.suffix for path in (tmp_path / "users-cache" / "search").iterdir()] == [".safetensors"]

    assert search("a red ball", folder, "--model", tiny_towers, "--format", "jsonl", "--top", 9) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines[:3]] == [str(hit.path) for hit in hits]
    assert [line["score"] for line in lines[:3]] == pytest.approx([hit.score for hit in hits], abs=1e-5)
    assert len(lines) == 4


def test_any_clip_can_search(tiny_clip: Path, folder: Path, tmp_path: Path, capsys: Captured) -> None:
    assert search("a dog", folder, "--model", tiny_clip, "--cache", tmp_path / "here") == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert (tmp_path / "here" / "search").is_dir()
    assert not (tmp_path / "users-cache").exists()


def test_bad_pictures_are_named_and_the_exit_code_says_so(
    tiny_towers: Path, folder: Path, capsys: Captured
) -> None:
    (folder / "bad.jpg").write_bytes(b"no picture")
    assert search("a zebra", folder, "--model", tiny_towers) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert err.splitlines() == [
        f"pixtell: left out: {folder / 'bad.jpg'}: it is not an image that Pillow can read; convert it to "
        "JPEG or PNG.",
        f"pixtell: {tiny_towers} does not know: zebra; it looks for the other words.",
        "pixtell: 1 of 5 pictures could not be read.",
    ]


def test_a_path_is_one_line(tiny_towers: Path, pictures: list[Path], folder: Path, capsys: Captured) -> None:
    odd = folder / "odd"
    odd.mkdir()
    shutil.copy(pictures[1], odd / "a\tb\nc.png")
    assert search("a dog", odd, "--model", tiny_towers) == 0
    assert capsys.readouterr().out.split("\t")[1] == f"{odd}/a\\tb\\nc.png\n"


def test_what_cannot_be_searched_is_one_sentence(
    tiny_towers: Path, tiny_models: Path, folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    def sentence_of(*arguments: object) -> str:
        assert search(*arguments) == 2
        out, err = capsys.readouterr()
        assert out == ""
        [line] = err.splitlines()
        return str(line.removeprefix("pixtell: "))

    towers = ("--model", tiny_towers)
    assert sentence_of("", folder, *towers) == (
        'The text is empty; say what to look for, such as "a dog in the snow".'
    )
    assert sentence_of("zebras", folder, *towers) == (
        "The model nano knows no word of 'zebras'; say it in other words."
    )
    assert sentence_of("a dog", folder, "--model", tiny_models / "encoder") == (
        f"The nano encoder {tiny_models / 'encoder'} has no text tower and cannot read texts: give a CLIP, "
        "or train one with pixtell train-encoder --objective contrastive."
    )
    assert sentence_of("a dog", tmp_path / "gone", *towers) == (
        f"{tmp_path / 'gone'} cannot be searched (No such file or directory); name a folder with pictures."
    )
    assert sentence_of("a dog", folder, *towers, "--format", "csv") == (
        "--format 'csv' is unknown; choose one of text, jsonl."
    )
    assert sentence_of("a dog", folder, *towers, "--top", 0) == (
        "--top 0 is not above zero; give a number such as 1 or leave it out."
    )
    assert "Missing argument 'folders'" in sentence_of("a dog")
    assert list(tmp_path.glob("users-cache/search/*")) == []
