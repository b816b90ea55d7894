"""`pixtell models export`: a directory of its own, whole or not at all; one sentence for what cannot be."""

import json
import re
import shutil
from pathlib import Path

import pytest

from pixtell.cli import run
from pixtell.errors import CheckpointError
from pixtell.exports import export_checkpoint

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def exported(tiny_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny lstm in int8. Not to be changed."""
    directory = tmp_path_factory.mktemp("exports") / "lstm-int8"
    export_checkpoint(tiny_models / "lstm", directory, dtype="int8")
    return directory


def said(capsys: Captured) -> str:
    out, err = capsys.readouterr()
    assert out == ""
    return err.removeprefix("pixtell: ").rstrip("\n")


def test_exported_and_then_captioned_with(
    tiny_models: Path, tmp_path: Path, pictures: list[Path], capsys: Captured
) -> None:
    model, output = tiny_models / "clipcap", tmp_path / "onnx"
    assert run(["models", "export", str(model), "--output", str(output)]) == 0
    last = said(capsys).splitlines()[-1]
    assert re.fullmatch(rf"pixtell: {output} holds {model} as fp32, 0\.\d MB; it is a --model\.", last)
    lines = []
    for source in (model, output):
        assert run(["caption", str(pictures[0]), str(pictures[1]), "--model", str(source)]) == 0
        lines.append(capsys.readouterr().out)
    assert lines[0] == lines[1]
    stored = json.loads((output / "config.json").read_text())
    assert stored["engine"]["name"] == "onnx"
    assert set(stored["engine"]["files"]) == {path.name for path in output.iterdir() if "onnx" in path.name}
    assert run(["models", "export", str(model), "--output", str(output)]) == 0  # an older export may go


def test_the_dtype_is_the_models(exported: Path, pictures: list[Path], capsys: Captured) -> None:
    for dtype in ("auto", "int8"):
        assert run(["caption", str(pictures[0]), "--model", str(exported), "--dtype", dtype]) == 0
        capsys.readouterr()


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            "--dtype bf16",
            "--dtype bf16 is not for this model, which was exported as int8; leave it out, or name the model "
            "it was exported from.",
        ),
        (
            "--device cuda",
            "--device cuda is not for a model exported to ONNX, which runs on the CPU; leave it out, or name "
            "the model it was exported from.",
        ),
    ],
)
def test_where_it_cannot_run(
    exported: Path, pictures: list[Path], capsys: Captured, flags: str, sentence: str
) -> None:
    assert run(["caption", str(pictures[0]), "--model", str(exported), *flags.split()]) == 2
    assert said(capsys) == sentence


def test_int8_without_an_export(tiny_models: Path, pictures: list[Path], capsys: Captured) -> None:
    model = str(tiny_models / "lstm")
    assert run(["caption", str(pictures[0]), "--model", model, "--dtype", "int8"]) == 2
    assert said(capsys) == (
        "--dtype int8 is for exported models: run pixtell models export MODEL --format onnx --dtype int8 "
        "--output DIR, then name DIR."
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", "The model is missing; write pixtell models export nano --output nano-onnx."),
        ("nano", "--output is missing; write pixtell models export nano --output nano-onnx."),
        ("nano --output x --format gguf", "--format 'gguf' is unknown; choose onnx."),
        ("nano --output x --dtype fp16", "--dtype 'fp16' is unknown to ONNX; choose one of fp32, int8."),
        ("nano --output mine", "--output mine is there and is no exported model; name a new directory."),
        ("nano --output mine/a", "--output mine/a is there and is no exported model; name a new directory."),
    ],
)
def test_what_cannot_be_exported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, arguments: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/a").write_text("somebody's")
    assert run(["models", "export", *arguments.split()]) == 2
    assert said(capsys) == sentence
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "a"]


def test_an_exported_model_is_not_exported_again(exported: Path, tmp_path: Path, capsys: Captured) -> None:
    assert run(["models", "export", str(exported), "--output", str(tmp_path / "again")]) == 2
    assert said(capsys) == (
        f"{exported} was exported to onnx and holds no weights for torch; name the model it was exported "
        "from."
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        ({"name": "tpu"}, r"is for the engine \{'name': 'tpu'\}; this pixtell knows onnx: take a newer one"),
        ("onnx", r"is for the engine 'onnx'; this pixtell knows onnx"),
        (
            {"name": "onnx", "dtype": "int8"},
            r"lacks or garbles a field of its engine \('encoder'\); export it",
        ),
    ],
)
def test_a_garbled_engine(exported: Path, tmp_path: Path, engine: object, sentence: str) -> None:
    from pixtell import Captioner

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    stored = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**stored, "engine": engine}))
    with pytest.raises(CheckpointError, match=sentence):
        Captioner.from_pretrained(copy)


@pytest.mark.flickr8k
@pytest.mark.long
@pytest.mark.parametrize("model", ["nano", "nano-lstm"])
def test_the_shipped_models_caption_alike(model: str, flickr8k_dir: Path, tmp_path: Path) -> None:
    """fp32: the same words, greedy and with beams. int8: nearly the same, and never nonsense."""
    from pixtell import Captioner
    from pixtell.datasets import load_dataset

    records = load_dataset("flickr8k", flickr8k_dir).split("val")[:24]
    images = [record.image for record in records]
    captions = {}
    for dtype in ("torch", "fp32", "int8"):
        if dtype != "torch":
            export_checkpoint(model, tmp_path / dtype, dtype=dtype)
        captioner = Captioner.from_pretrained(model if dtype == "torch" else tmp_path / dtype)
        for beam_size in (1, 3):
            captions[dtype, beam_size] = captioner.caption(images, beam_size=beam_size)
    for beam_size in (1, 3):
        expected, exact, near = (captions[dtype, beam_size] for dtype in ("torch", "fp32", "int8"))
        assert [caption.text for caption in exact] == [caption.text for caption in expected]
        equal = sum(one.text == other.text for one, other in zip(near, expected, strict=True))
        assert equal >= len(images) // 2
        means = [sum(one.mean_logprob for one in found) / len(found) for found in (near, expected)]
        assert abs(means[0] - means[1]) < 0.1
