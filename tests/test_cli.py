"""What people type: what goes to stdout and stderr, the exit code, and one sentence for each bad input."""

import importlib.metadata
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from pixtell import cli_options
from pixtell.captioner import Captioner
from pixtell.cli import COMMANDS, run

STORAGE_ADVICE = "what was there before is unchanged: free space or name another place."


@pytest.fixture
def model(tiny_models: Path) -> str:
    return str(tiny_models / "clipcap")


@pytest.fixture
def texts(model: str, pictures: list[Path]) -> list[str]:
    """What the tiny model says of the pictures."""
    return [caption.text for caption in Captioner.from_pretrained(model).caption(pictures)]


@pytest.fixture
def photos(pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`photos/` with two pictures, one of them deeper, in the working directory, which has a broken.jpg."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "inside").mkdir(parents=True)
    shutil.copy(pictures[0], tmp_path / "photos" / "b.jpg")
    shutil.copy(pictures[1], tmp_path / "photos" / "inside" / "a.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    return tmp_path / "photos"


@pytest.fixture
def captioned_folder(pictures: list[Path], tmp_path: Path) -> Path:
    """A data set of one's own, all of it in the split `test`."""
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for path in pictures:
        shutil.copy(path, folder)
        line = {"image": path.name, "captions": ["A dog runs.", "The dog runs on grass."], "split": "test"}
        lines.append(json.dumps(line))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder


Captured = pytest.CaptureFixture[str]


def said(capsys: Captured) -> list[str]:
    """The lines on stderr, each without the program's name; nothing was on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    return strip_name(err)


def strip_name(err: str) -> list[str]:
    lines = err.splitlines()
    assert all(line.startswith("pixtell: ") for line in lines), err
    return [line.removeprefix("pixtell: ") for line in lines]


def start(*arguments: str, **options: object) -> "subprocess.Popen[bytes]":
    """The command line in a process of its own.

    An interrupt reaches it even where this process ignores them, as a shell's background job does.
    """

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    command = [sys.executable, "-m", "pixtell", *arguments]
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        command, stderr=subprocess.PIPE, preexec_fn=heed_interrupts, **options
    )


# --- pixtell caption: what comes out


def test_captions_are_lines_of_path_and_text(
    model: str, pictures: list[Path], texts: list[str], capsys: Captured
) -> None:
    assert run(["caption", *map(str, pictures), "--model", model, "--batch-size", "4"]) == 0
    out, err = capsys.readouterr()
    assert out == "".join(f"{path}\t{text}\n" for path, text in zip(pictures, texts, strict=True))
    assert err == ""


def test_a_folder_and_a_bad_picture(model: str, photos: Path, texts: list[str], capsys: Captured) -> None:
    assert run(["caption", "broken.jpg", "photos", "--model", model]) == 1
    out, err = capsys.readouterr()
    assert out == f"photos/b.jpg\t{texts[0]}\nphotos/inside/a.png\t{texts[1]}\n"
    assert strip_name(err) == [
        "broken.jpg: it is not an image that Pillow can read; convert it to JPEG or PNG.",
        "1 of 3 pictures could not be read.",
    ]


def test_jsonl_has_the_error_in_its_place(
    model: str, photos: Path, texts: list[str], capsys: Captured
) -> None:
    arguments = ["caption", "photos", "broken.jpg", "absent.jpg", "--model", model, "--format", "jsonl"]
    assert run(arguments) == 1
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["path"] for one in found] == [
        "photos/b.jpg",
        "photos/inside/a.png",
        "broken.jpg",
        "absent.jpg",
    ]
    assert [one["caption"] for one in found[:2]] == texts[:2]
    assert all(set(one) == {"path", "caption", "logprob"} for one in found[:2])
    assert found[3] == {"path": "absent.jpg", "error": "there is no such file; check the path."}


def test_several_captions_of_a_picture(model: str, photos: Path, capsys: Captured) -> None:
    flags = ["--model", model, "--beam-size", "3", "--num-captions", "3", "--format", "jsonl"]
    assert run(["caption", "photos/b.jpg", *flags]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert len(json.loads(line)["captions"]) == 3


def test_output_goes_to_a_file_as_a_whole(
    model: str, photos: Path, texts: list[str], capsys: Captured
) -> None:
    flags = ["--model", model, "--format", "csv", "--output", "new/captions.csv"]
    assert run(["caption", "photos", *flags]) == 0
    assert capsys.readouterr() == ("", "")
    expected = f"path,caption\nphotos/b.jpg,{texts[0]}\nphotos/inside/a.png,{texts[1]}\n"
    assert Path("new/captions.csv").read_text() == expected
    assert [path.name for path in Path("new").iterdir()] == ["captions.csv"]


def test_what_a_model_is_unsure_of(tiny_models: Path, photos: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(tiny_models, tmp_path / "m")
    config = tmp_path / "m" / "clipcap" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "unsure_below": 0.0}))
    flags = ["--model", str(tmp_path / "m" / "clipcap"), "--format", "jsonl"]
    assert run(["caption", "photos/b.jpg", *flags]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["unsure"] is True
    [line] = strip_name(err)
    assert re.fullmatch(
        r"photos/b\.jpg: unsure \(mean log-probability -\d+\.\d\d a token\); it may be unlike the pictures "
        r"the model knows\.",
        line,
    )
    assert run(["caption", "photos/b.jpg", *flags, "--beam-size", "2", "--num-captions", "2"]) == 0
    assert len(strip_name(capsys.readouterr().err)) == 1


def test_the_lstm_family_through_the_same_door(tiny_models: Path, photos: Path, capsys: Captured) -> None:
    assert run(["caption", "photos", "--model", str(tiny_models / "lstm")]) == 0
    assert capsys.readouterr().out.count("\n") == 2


# --- pixtell caption: what cannot be


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            "--model nanno",
            "There is no model 'nanno'; choose one of nano, nano-lstm, a directory that pixtell train wrote, "
            "or a hub id (owner/name).",
        ),
        ("--format xml", "--format 'xml' is unknown; choose one of text, jsonl, csv."),
        ("--device tpu", "--device 'tpu' is unknown; choose one of auto, cpu, cuda, mps."),
        ("--dtype int3", "--dtype 'int3' is unknown; choose one of auto, fp32, bf16, fp16."),
        ("--batch-size 0", "--batch-size 0 is not above zero; give a number such as 16."),
        ("--beam-size 0", "--beam-size 0 is outside [1, inf); give a number such as 3."),
        (
            "--output photos",
            f"photos cannot be written (Is a directory); {STORAGE_ADVICE}",
        ),
        (
            "--output broken.jpg/captions.txt",
            f"broken.jpg/captions.txt cannot be written (Not a directory); {STORAGE_ADVICE}",
        ),
        (
            "--output /dev/full",
            f"/dev/full cannot be written (No space left on device); {STORAGE_ADVICE}",
        ),
    ],
)
def test_a_value_that_cannot_be(
    model: str, photos: Path, capsys: Captured, flags: str, sentence: str
) -> None:
    given = flags.split() if "--model" in flags else [*flags.split(), "--model", model]
    assert run(["caption", "photos", *given]) == 2
    assert said(capsys) == [sentence]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ("caption", r"Missing argument .*; see pixtell caption --help\."),
        (
            "caption x.jpg --beam-sise 3",
            r"No such option: --beam-sise .*--beam-size.* pixtell caption --help\.",
        ),
        (
            "caption x.jpg --beam-size three",
            r"Invalid value for '--beam-size': .*; see pixtell caption --help\.",
        ),
        ("captoin x.jpg", r"No such command 'captoin'.* pixtell --help\."),
        ("--beam-size 3", r"No such option: --beam-size.* pixtell --help\."),
        ("score --hypotheses x", r"Missing option '--references'; see pixtell score --help\."),
        ("datasets lost", r"pixtell datasets 'lost' is unknown; choose list or check\."),
        ("models lost", r"pixtell models 'lost' is unknown; choose list or export\."),
    ],
)
def test_what_cannot_be_read_is_one_line(capsys: Captured, arguments: str, pattern: str) -> None:
    assert run(arguments.split()) == 2
    [line] = said(capsys)
    assert re.fullmatch(pattern, line), line


def test_a_folder_without_pictures(model: str, tmp_path: Path, capsys: Captured) -> None:
    (tmp_path / "notes.txt").touch()
    assert run(["caption", str(tmp_path), "--model", model]) == 2
    [line] = said(capsys)
    assert line.startswith(f"The folder {tmp_path} holds no picture (")


def test_a_checkpoint_cut_short(tiny_models: Path, photos: Path, tmp_path: Path, capsys: Captured) -> None:
    shutil.copytree(tiny_models, tmp_path / "m")
    weights = tmp_path / "m" / "lstm" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert run(["caption", "photos", "--model", str(weights.parent)]) == 2
    [line] = said(capsys)
    assert line.startswith(f"{weights} cannot be read (")


def test_all_pictures_bad_is_done_with_failures(model: str, photos: Path, capsys: Captured) -> None:
    assert run(["caption", "broken.jpg", "--model", model]) == 1
    assert said(capsys)[1] == "1 of 1 pictures could not be read."


# --- processes: pipes, signals, terminals, threads, imports


def test_a_reader_that_leaves_is_no_error(model: str, pictures: list[Path]) -> None:
    paths = [str(path) for path in pictures * 20]
    process = start("caption", *paths, "--model", model, "--batch-size", "1", stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    _, err = process.communicate(timeout=120)
    assert err == b""
    assert process.returncode == 141


def test_a_full_disk_behind_stdout() -> None:
    with Path("/dev/full").open("wb") as full:
        process = start("datasets", "list", stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.decode() == (
        "pixtell: Standard output cannot be written (No space left on device); free space or write "
        "elsewhere.\n"
    )


def test_an_interrupt_ends_in_one_line_and_leaves_the_old_file(
    model: str, pictures: list[Path], tmp_path: Path
) -> None:
    output = tmp_path / "out" / "captions.txt"
    output.parent.mkdir()
    output.write_text("old")
    paths = [str(path) for path in pictures * 2000]
    process = start("caption", *paths, "--model", model, "--output", str(output), stdout=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while len(list(output.parent.iterdir())) < 2:  # until the work has begun
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert (out, err, process.returncode) == (b"", b"pixtell: stopped.\n", 130)
    assert output.read_text() == "old"
    assert [path.name for path in output.parent.iterdir()] == ["captions.txt"]


def test_a_terminal_that_knows_few_letters(model: str, pictures: list[Path], tmp_path: Path) -> None:
    names = ["Größe.jpg", "日本.jpg", os.fsdecode(b"\xff.jpg")]
    for name in names:
        shutil.copy(pictures[0], tmp_path / name)
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    process = start(
        "caption", *names, "--model", model, cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    out, err = process.communicate(timeout=120)
    assert (err, process.returncode) == (b"", 0)
    shown = [line.split("\t")[0] for line in out.decode("latin-1").splitlines()]
    assert shown == ["Größe.jpg", r"\u65e5\u672c.jpg", r"\udcff.jpg"]


def test_one_picture_takes_one_thread_and_few_imports(model: str, pictures: list[Path]) -> None:
    """What the cold start is made of: beside torch, nothing that takes long to import."""
    code = """
import sys
import torch
before = set(sys.modules)
torch.set_num_threads(3)
from pixtell.cli import run
for paths in (sys.argv[2:3], sys.argv[2:]):
    assert run(["caption", *paths, "--model", sys.argv[1]]) == 0
    print(torch.get_num_threads(), file=sys.stderr)
    torch.set_num_threads(3)
print(*sorted(set(sys.modules) - before), file=sys.stderr)
"""
    paths = [str(path) for path in pictures[:1] * 2]  # JPEG
    done = subprocess.run(
        [sys.executable, "-c", code, model, *paths], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    one, many, names = done.stderr.splitlines()
    assert (one, many) == ("1", "3")
    imported = set(names.split())
    heavy = {
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "matplotlib",
        "sympy",
        "rich",
        "PIL",
        "requests",
    }
    assert imported & heavy == set()
    assert {name for name in imported if name.startswith("torch.")} == set()
    assert not any(name.startswith("pixtell.training") for name in imported)


@pytest.mark.parametrize(
    ("flag", "lines"),
    [("--help", [rf"^  {name} " for name in COMMANDS]), ("--version", [r"^pixtell \d+\.\d+\.\d+"])],
)
def test_help_and_version_are_quick_and_complete(flag: str, lines: list[str]) -> None:
    started = os.times()
    done = subprocess.run([sys.executable, "-m", "pixtell", flag], capture_output=True, text=True, check=True)
    ended = os.times()
    for line in lines:
        assert re.search(line, done.stdout, re.MULTILINE)
    seconds = ended.children_user - started.children_user + ended.children_system - started.children_system
    assert seconds < 0.35


def test_the_version(capsys: Captured) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"pixtell {importlib.metadata.version('pixtell')}\n"


def test_nothing_typed_shows_the_help(capsys: Captured) -> None:
    assert run([]) == 0
    shown = capsys.readouterr().out
    assert run(["--help"]) == 0
    assert capsys.readouterr().out == shown


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_its_flags(name: str, capsys: Captured) -> None:
    assert run([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"Usage: pixtell {name} ")
    assert "--help" in shown


# --- the other commands


def test_evaluate_prints_and_writes_scores(
    model: str, captioned_folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    (captioned_folder / "2.jpg").write_bytes(b"no picture")
    results = tmp_path / "results.json"
    data = ["--dataset", "folder", "--data-dir", str(captioned_folder), "--split", "test"]
    assert run(["evaluate", "--model", model, *data, "--output", str(results), "--beam-size", "2"]) == 1
    out, err = capsys.readouterr()
    header, *lines = out.splitlines()
    assert header.split() == ["value", "95", "%", "interval", "one", "person"]
    printed = {line.split()[0]: line.split()[1:] for line in lines}
    stored = json.loads(results.read_text())
    assert list(printed) == list(stored["scores"])
    bleu = stored["scores"]["BLEU-1"]
    low, high = bleu["interval"]
    person = stored["yardstick"]["BLEU-1"]["value"]
    assert printed["BLEU-1"] == [f"{bleu['value']:.4f}", f"{low:.4f}", "to", f"{high:.4f}", f"{person:.4f}"]
    assert stored["num_images"] == 5
    assert stored["decoding"]["beam_size"] == 2
    assert any(line.startswith("left out: ") and "2.jpg" in line for line in strip_name(err))
    assert strip_name(err)[-1] == "1 of 6 pictures could not be read."


def test_evaluate_warns_of_a_single_image(model: str, captioned_folder: Path, capsys: Captured) -> None:
    data = ["--data-dir", str(captioned_folder), "--limit"]
    assert run(["evaluate", "--model", model, *data, "1", "--metrics", "cider-d,bleu"]) == 0
    out, err = capsys.readouterr()
    assert re.search(r"^CIDEr-D +0\.0000", out, re.MULTILINE)
    assert "CIDEr-D of one image is 0 by construction; score several images together." in strip_name(err)
    assert run(["evaluate", "--model", model, *data, "2", "--metrics", "bleu"]) == 0
    assert "0 by construction" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("--dataset coco", "There is no data set 'coco'; choose one of: flickr8k, folder, shapes."),
        ("--dataset shapes --split dev2", "no split named 'dev2'"),
        ("--dataset shapes --limit 0", "--limit 0 is not above zero"),
        ("--dataset shapes --limit -5", "--limit -5 is not above zero"),
        ("--dataset shapes --metrics bleu,meteo", "Unknown metric 'meteo'; choose from bleu"),
        ("--dataset shapes --output /", "/ cannot be written (Is a directory)"),
        ("--dataset shapes --model nanno", "There is no model 'nanno'"),
        ("--dataset folder", "--data-dir"),
    ],
)
def test_evaluate_refuses_before_it_begins(model: str, capsys: Captured, flags: str, sentence: str) -> None:
    given = flags.split() if "--model" in flags else [*flags.split(), "--model", model]
    assert run(["evaluate", *given]) == 2
    [line] = said(capsys)
    assert sentence in line


def test_the_usual_data_set_is_a_folder_for_every_command() -> None:
    from pixtell.training.run_options import DataOptions

    of_commands = [cli_options.SplitFlags, cli_options.FeatureFlags, cli_options.DatasetFlags, DataOptions]
    assert {group().dataset for group in of_commands} == {"folder"}


def test_evaluate_says_what_a_folder_lacks(model: str, photos: Path, capsys: Captured) -> None:
    assert run(["evaluate", "--model", model, "--data-dir", str(photos)]) == 2
    [line] = said(capsys)
    assert re.fullmatch(
        rf"{photos} holds \d+ images but no captions: neither captions.jsonl nor captions.csv nor a file "
        r"like \S+\.txt; write one of them, or name another --dataset\.",
        line,
    )


def test_a_caption_file_that_names_absent_images(captioned_folder: Path, capsys: Captured) -> None:
    (captioned_folder / "0.jpg").unlink()
    assert run(["datasets", "check", "--data-dir", str(captioned_folder)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^warning: .*: 1 \(.*0\.jpg.*\)\.$", out, re.MULTILINE)
    assert out.splitlines()[-1] == "will be used: test 5 images with 10 captions"


def test_datasets_are_listed_and_checked(tmp_path: Path, capsys: Captured) -> None:
    assert run(["datasets", "list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "flickr8k",
        "folder",
        "shapes",
    ]
    assert run(["datasets", "check", "--data-dir", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("problem: No images were found in ")
    assert out.endswith("will be used: nothing\n")
    assert run(["datasets", "check", "--dataset", "coco"]) == 2
    assert said(capsys) == ["There is no data set 'coco'; choose one of: flickr8k, folder, shapes."]


def test_anyones_captions_are_scored(tmp_path: Path, capsys: Captured) -> None:
    hypotheses, references = tmp_path / "h.json", tmp_path / "r.json"
    hypotheses.write_text(json.dumps([{"image_id": 1, "caption": "a dog runs on the grass"}]))
    references.write_text(json.dumps({"1": ["A dog runs on the grass."]}))
    files = ["--hypotheses", str(hypotheses), "--references", str(references)]
    assert run(["score", *files, "--metrics", " BLEU ", "--output", str(tmp_path / "s.json")]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[1:] == [f"BLEU-{n}    1.0000" for n in (1, 2, 3, 4)]
    assert err == ""
    stored = json.loads((tmp_path / "s.json").read_text())
    assert stored["num_images"] == 1
    assert stored["scores"]["BLEU-4"]["per_image"]["1"] == pytest.approx(1)
    assert run(["score", *files]) == 0
    assert "0 by construction" in capsys.readouterr().err
    assert run(["score", *files, "--metrics", "meteo"]) == 2
    assert said(capsys)[0].startswith("Unknown metric 'meteo'; choose from bleu")
    assert run(["score", *files, "--output", str(tmp_path)]) == 2
    assert said(capsys) == [f"{tmp_path} cannot be written (Is a directory); {STORAGE_ADVICE}"]


def test_systems_are_compared_in_one_page(
    tiny_models: Path, captioned_folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    page = tmp_path / "report.html"
    models = [f"--model={tiny_models / name}" for name in ("clipcap", "lstm")]
    (captioned_folder / "2.jpg").write_bytes(b"no picture")
    data = ["--dataset", "folder", "--data-dir", str(captioned_folder)]
    assert run(["compare", *models, *data, "--metrics", "bleu,length", "--output", str(page)]) == 1
    html = page.read_text(encoding="utf-8")
    assert html.count("<article") == 5
    assert str(tiny_models / "lstm") in html
    assert "BLEU-4|words:ptb|refs:2|images:5" in html
    lines = said(capsys)
    assert any("2.jpg" in line for line in lines)
    assert lines[-1] == "1 of 6 pictures could not be read."


def test_systems_are_compared_on_pictures_alone(model: str, photos: Path, capsys: Captured) -> None:
    theirs = photos.parent / "theirs.csv"
    paths = sorted(map(str, (photos / "b.jpg", photos / "inside" / "a.png")))
    theirs.write_text("path,caption\n" + "".join(f"{path},Two dogs.\n" for path in paths))
    page = photos.parent / "report.html"
    flags = ["--model", model, "--captions", str(theirs), "--title", "<both> & more"]
    assert run(["compare", *flags, str(photos), "--output", str(page)]) == 0
    html = page.read_text(encoding="utf-8")
    assert "&lt;both&gt; &amp; more" in html
    assert "BLEU" not in html
    assert html.count("Two dogs.") >= 2
    assert said(capsys) == [f"2 images are in {page}; open it in a browser."]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ("photo.jpg", "No system is named; give --model nano --model nano-lstm, or --captions FILE."),
        ("--model nanno photo.jpg", "There is no model 'nanno'"),
        ("--model nano", "Nothing to caption is named; give pictures or a folder, or --dataset NAME."),
        (
            "--model nano --data-dir mine",
            "--data-dir mine names no data set alone; add --dataset folder, or another name.",
        ),
        ("--model nano photo.jpg --dataset shapes", "Both pictures and --dataset shapes are named; give one"),
        ("--model nano --model nano photo.jpg", "'nano' is named more than once; name each system once."),
        ("--model nano photo.jpg --metrics meteo", "Unknown metric 'meteo'; choose from bleu"),
        ("--model nano photo.jpg --metrics spice", "SPICE runs from jars of your own; say with --spice-dir"),
        (
            "--model nano photo.jpg --metrics clipscore",
            "CLIPScore needs the pictures and a CLIP; give --clip",
        ),
        ("--model nano photo.jpg --spice-dir absent", "absent"),
        ("--model nano photo.jpg --limit 0", "--limit 0 is not above zero"),
        ("--captions absent.json photo.jpg", "absent.json"),
    ],
)
def test_compare_refuses_before_it_begins(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, flags: str, sentence: str
) -> None:
    assert run(["compare", *flags.split(), "--output", "report.html"]) == 2
    [line] = said(capsys)
    assert sentence in line
    assert not Path("report.html").exists()


def test_results_are_written_before_anything_is_shown(tmp_path: Path) -> None:
    """Whoever reads the table may be gone, or its disk full, after an hour of captioning."""
    hypotheses = tmp_path / "h.csv"
    hypotheses.write_text("image_id,caption\n1,A dog.\n")
    output = tmp_path / "s.json"
    files = ["--hypotheses", str(hypotheses), "--references", str(hypotheses), "--output", str(output)]
    with Path("/dev/full").open("w") as full:
        process = start("score", *files, stdout=full)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert err.startswith(b"pixtell: Standard output cannot be written")
    assert json.loads(output.read_text())["num_images"] == 1


def test_a_closed_stdout_is_one_sentence(tmp_path: Path) -> None:
    hypotheses = tmp_path / "h.csv"
    hypotheses.write_text("image_id,caption\n1,A dog.\n")
    files = ["--hypotheses", str(hypotheses), "--references", str(hypotheses)]
    command = shlex.join([sys.executable, "-m", "pixtell", "score", *files])

    def shell(redirected: str) -> "subprocess.CompletedProcess[str]":
        line = f"{command} {redirected}"
        return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=120)

    done = shell(">&-")
    assert done.returncode == 2
    assert done.stderr == "pixtell: Standard output is closed; write elsewhere, for example with --output.\n"
    for nobody in ("2>/dev/full", "2>&-"):
        done = shell(nobody)
        assert done.returncode == 0
        assert "BLEU-1" in done.stdout
        assert "pixtell:" not in done.stdout


def test_pictures_of_ids(tmp_path: Path, pictures: list[Path], capsys: Captured) -> None:
    hypotheses, folder = tmp_path / "h.csv", tmp_path / "photos"
    folder.mkdir()
    hypotheses.write_text("image_id,caption\na,A dog.\nb.png,A cat.\n")
    files = ["--hypotheses", str(hypotheses), "--references", str(hypotheses)]
    flags = [*files, "--clip", str(tmp_path), "--images", str(folder)]
    shutil.copy(pictures[0], folder / "a.jpg")
    assert run(["score", *flags]) == 2
    assert said(capsys) == [f"--images {folder} lacks 1 image (b.png); name another."]
    shutil.copy(pictures[0], folder / "b.png")
    shutil.copy(pictures[0], folder / "a.png")
    assert run(["score", *flags]) == 2
    assert said(capsys) == [f"--images {folder} has a.jpg and a.png for the id 'a'; give ids with suffixes."]
    (folder / "a.png").unlink()
    assert run(["score", *flags]) == 2  # all are there; now the CLIP
    assert str(tmp_path) in said(capsys)[0]
    assert run(["score", *flags, "--metrics", "bleu"]) == 0  # which needs none


def test_score_refuses_before_it_begins(tmp_path: Path, capsys: Captured) -> None:
    hypotheses = tmp_path / "h.csv"
    hypotheses.write_text("image_id,caption\n1,A dog.\n")
    files = ["--hypotheses", str(hypotheses), "--references", str(hypotheses)]
    assert run(["score", *files, "--clip", "any"]) == 2
    assert said(capsys) == ["--clip any needs the pictures; say with --images DIR where they are."]
    assert run(["score", *files, "--clip", "any", "--images", str(hypotheses)]) == 2
    assert said(capsys) == [f"--images {hypotheses} is no folder; give the folder that holds the pictures."]
    assert run(["score", *files, "--metrics", "novel"]) == 2
    assert said(capsys)[0].endswith("was given none; give --train-captions FILE.")
    assert run(["score", *files, "--metrics", "novel", "--train-captions", str(hypotheses)]) == 0
    assert capsys.readouterr().out.splitlines()[1].split() == ["novel", "0.0000"]


def test_features_are_extracted_split_by_split(
    tiny_models: Path, captioned_folder: Path, tmp_path: Path, capsys: Captured
) -> None:
    data = ["--dataset", "folder", "--data-dir", str(captioned_folder), "--output", str(tmp_path / "f")]
    encoder = ["--encoder", str(tiny_models / "encoder")]
    assert run(["features", *data, *encoder, "--limit", "4"]) == 0
    [line] = [line for line in said(capsys) if line.startswith("test: ")]
    assert line.startswith(f"test: 4 images in {tmp_path / 'f'}")
    (captioned_folder / "2.jpg").write_bytes(b"no picture")
    assert run(["features", *data, *encoder]) == 1
    assert said(capsys)[-1] == "1 of 6 pictures could not be read."
    assert run(["features", *data, "--encoder", "vgg61"]) == 2
    assert run(["features", *data, *encoder, "--views", "0"]) == 2


@pytest.mark.parametrize("family", ["lstm", "clipcap"])
def test_a_model_is_trained_and_then_captions(
    tiny_models: Path, tmp_path: Path, capsys: Captured, family: str
) -> None:
    pictures = tmp_path / "a.png"
    Image.new("RGB", (80, 80), "red").save(pictures)
    flags = ["--dataset", "shapes", "--limit", "12", "--max-steps", "2"]
    flags += ["--batch-size", "6", "--width", "16", "--min-count", "1"]
    if family == "clipcap":
        flags += ["--num-layers", "1"]
    run_dir, encoder = str(tmp_path / "run"), str(tiny_models / "encoder")
    arguments = ["train", "--family", family, "--encoder", encoder, "--output", run_dir, *flags]
    assert run(arguments) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert strip_name(err)[-1].endswith(f"the run is in {run_dir}.")
    assert run(["caption", str(pictures), "--model", run_dir]) == 0
    assert re.fullmatch(r".*a\.png\t\S.*\.\n", capsys.readouterr().out)
    assert run(arguments) == 2
    assert said(capsys) == [f"{run_dir} holds a run already; go on with --resume or name another --output."]


def test_training_refuses_in_one_sentence(capsys: Captured, tmp_path: Path) -> None:
    output = ["--output", str(tmp_path / "run")]
    assert run(["train", "--family", "rnn", "--encoder", "nano", *output]) == 2
    assert said(capsys) == [
        "--family rnn is unknown; choose one of clipcap, lstm, or start with --init-from."
    ]
    assert run(["train-encoder", "--max-steps", "2", *output]) == 2
    assert said(capsys) == [
        "--teacher is missing; name the directory of a vision model that transformers loads."
    ]


def test_the_shipped_models_are_listed_and_caption(pictures: list[Path], capsys: Captured) -> None:
    assert run(["models", "list"]) == 0
    found = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [[*line[:2], line[-1]] for line in found] == [
        ["nano", "clipcap", "nano-encoder"],
        ["nano-lstm", "lstm", "nano-encoder"],
    ]
    for name in ("nano", "nano-lstm"):
        assert run(["caption", str(pictures[0]), "--model", name]) == 0
        assert re.fullmatch(r".*\t[A-Z].*\.\n", capsys.readouterr().out)
