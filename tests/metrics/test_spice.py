"""SPICE through jars that are not here: everything around them, with executables that stand in for Java."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pixtell.errors import ScoringError
from pixtell.metrics.corpus import Corpus
from pixtell.metrics.spice import choose_heap, find_missing_jars, spice

GB = 1 << 30
CORENLP = ["lib/stanford-corenlp-3.6.0.jar", "lib/stanford-corenlp-3.6.0-models.jar"]
LIBRARIES = [*CORENLP, "lib/a-rather-long-name-of-a-library-1.0.jar", "lib/Meteor-1.5.jar"]
ADVICE = "run it again, or leave SPICE out (the last word of its Java: Parsing test captions)."

# Reads the captions and gives an image 1 / (1 + words of its caption), in an order of its own.
SCORE = """
import json, os, sys
arguments = sys.argv[sys.argv.index("-jar") + 1:]
captions = json.loads(open(arguments[1], encoding="ascii").read())
results = [{"image_id": item["image_id"], "scores": {"All": {"f": 1 / (1 + len(item["test"].split()))}}}
           for item in captions[::-1]]
print("Parsing test captions", file=sys.stderr)
print("stdout is of no interest")
"""
WRITE = "open(arguments[arguments.index('-out') + 1], 'w').write(json.dumps(results))\n"


@pytest.fixture
def spice_dir(tmp_path: Path) -> Path:
    """Jars with a manifest as Maven folds it, and nothing else in them."""
    folder = tmp_path / "spice"
    (folder / "lib").mkdir(parents=True)
    line = f"Class-Path: {' '.join(LIBRARIES)}"
    folded = "\r\n ".join(line[start : start + 69] for start in range(0, len(line), 69))
    for jar in ["spice-1.0.jar", *LIBRARIES]:
        with zipfile.ZipFile(folder / jar, "w") as archive:
            archive.writestr("META-INF/MANIFEST.MF", f"Manifest-Version: 1.0\r\n{folded}\r\nBuilt-By: x\r\n")
    return folder


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made while the test runs."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture
def corpus() -> Corpus:
    return Corpus.from_text(
        {"b.jpg": "a dog runs", "a.jpg": "naïve 犬", "ü.jpg": ""},
        {"b.jpg": ["a dog"], "a.jpg": ["a dog", "dogs"], "ü.jpg": ["a cat"]},
    )


def sentence_of(call: Callable[[], object]) -> str:
    with pytest.raises(ScoringError) as error:
        call()
    sentence = str(error.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


# ---- a run that ends well


def test_values_are_joined_by_image_whatever_the_order(
    spice_dir: Path, make_java: Callable[..., str], corpus: Corpus, temporary: Path
) -> None:
    before = sorted(spice_dir.rglob("*"))
    values = spice(spice_dir, java=make_java(SCORE + WRITE))(corpus)["SPICE"]
    assert values.per_image == [1 / 4, 1 / 3, 1]
    assert values.value == pytest.approx((1 / 4 + 1 / 3 + 1) / 3)
    assert list(temporary.iterdir()) == []
    assert sorted(spice_dir.rglob("*")) == before


def test_java_is_given_the_jar_the_words_and_a_place_of_its_own(
    spice_dir: Path,
    make_java: Callable[..., str],
    corpus: Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    tell = f"json.dump([sys.argv[1:], os.getcwd(), captions], open({str(tmp_path / 'told')!r}, 'w'))\n"
    assert make_java(SCORE + tell + WRITE) == str(tmp_path / "bin" / "java")
    spice(Path("spice"), java="./bin/java")(corpus)
    arguments, directory, captions = json.loads((tmp_path / "told").read_text())
    assert arguments[0].startswith("-Xmx")
    assert f"-Djava.io.tmpdir={directory}" in arguments
    assert arguments[arguments.index("-jar") + 1] == str(spice_dir / "spice-1.0.jar")
    assert not Path(directory).is_relative_to(spice_dir)
    assert captions == [
        {"image_id": "0", "test": "a dog runs", "refs": ["a dog"]},
        {"image_id": "1", "test": "naïve 犬", "refs": ["a dog", "dogs"]},
        {"image_id": "2", "test": "", "refs": ["a cat"]},
    ]


# ---- before it starts


def test_all_that_is_missing_is_said_at_once(tmp_path: Path, make_java: Callable[..., str]) -> None:
    java = make_java("", 'openjdk version "17.0.15" 2025-04-15')
    assert sentence_of(lambda: spice(tmp_path / "no", java=java)) == (
        f"SPICE cannot run: {tmp_path}/no has no spice-1.0.jar (take the folder spice of the package "
        f"pycocoevalcap, or SPICE-1.0.zip from panderson.me/spice); {tmp_path}/no has no {CORENLP[0]}, no "
        f"{CORENLP[1]} (copy it from stanford-corenlp-full-2015-12-09.zip, 385 MB, at "
        f"http://nlp.stanford.edu/software); {java} is Java 17.0.15 and SPICE runs on Java 8 to 13 (name "
        "such a one with --java)."
    )


def test_jars_are_those_of_the_manifest_and_whole(spice_dir: Path, make_java: Callable[..., str]) -> None:
    assert find_missing_jars(spice_dir) == {}
    (spice_dir / LIBRARIES[2]).unlink()
    models = spice_dir / CORENLP[1]
    models.write_bytes(models.read_bytes()[:-30])  # a download that was cut
    assert list(find_missing_jars(spice_dir).values()) == [[CORENLP[1]], [LIBRARIES[2]]]
    sentence = sentence_of(lambda: spice(spice_dir, java=make_java("")))
    assert f"has no {CORENLP[1]} that is whole (copy it from" in sentence
    assert f"has no {LIBRARIES[2]} (take the folder" in sentence
    assert "Java 11" not in sentence


def test_the_heap_is_what_its_authors_ask_or_what_there_is() -> None:
    assert choose_heap(64 * GB) == 8 * GB
    assert choose_heap(4 * GB) == 3 * GB
    assert sentence_of(lambda: choose_heap(2 * GB)) == (
        "2.0 GB of memory leave Java 1.5 GB and SPICE needs 2 GB at least: take a larger machine."
    )


# ---- a Java that fails


FAILURES = {
    "crash": (
        'sys.exit(\'Exception in thread "main" java.lang.NullPointerException\\n\\tat a.B.c(B.java:1)\\n'
        "Caused by: java.lang.Error: no models\\n\\tat d.E.f(E.java:2)\\n\\t... 3 more')",
        "SPICE on Java 11.0.2 ended with code 1 (Caused by: java.lang.Error: no models): check its jars, and "
        "try another Java with --java.",
    ),
    "killed": (
        "os.kill(os.getpid(), 9)",
        "SPICE on Java 11.0.2 was killed by signal 9 (nothing on stderr): check its jars, and try another "
        "Java with --java.",
    ),
    "no file": (SCORE, f"SPICE wrote no scores that can be read (no file): {ADVICE}"),
    "half a file": (
        SCORE + WRITE.replace("(results)", "(results)[:40]"),
        "SPICE wrote no scores that can be read (JSONDecodeError: ",
    ),
    "garbage": (
        SCORE + "results = {'error': 1}\n" + WRITE,
        "SPICE wrote no scores that can be read (TypeError: string indices must be integers",
    ),
    "another shape": (
        SCORE + "results[0]['scores'] = {'Object': {'f': 1}}\n" + WRITE,
        f"SPICE wrote no scores that can be read (KeyError: 'All'): {ADVICE}",
    ),
    "null": (
        SCORE + "results[1]['scores']['All']['f'] = None\n" + WRITE,
        f"SPICE gives the image a.jpg None instead of a number from 0 to 1: {ADVICE}",
    ),
    "NaN": (
        SCORE + "results[2]['scores']['All']['f'] = float('nan')\n" + WRITE,
        f"SPICE gives the image b.jpg nan instead of a number from 0 to 1: {ADVICE}",
    ),
    "above one": (
        SCORE + "results[2]['scores']['All']['f'] = 1.5\n" + WRITE,
        f"SPICE gives the image b.jpg 1.5 instead of a number from 0 to 1: {ADVICE}",
    ),
    "left out": (
        SCORE + "del results[1:]\n" + WRITE,
        f"SPICE gives 1 scores for 3 images, and none for b.jpg, a.jpg: {ADVICE}",
    ),
    "twice": (SCORE + "results *= 2\n" + WRITE, f"SPICE gives 6 scores for 3 images: {ADVICE}"),
}


@pytest.mark.parametrize(("does", "sentence"), FAILURES.values(), ids=FAILURES.keys())
def test_a_java_that_fails_is_one_sentence(
    does: str, sentence: str, spice_dir: Path, make_java: Callable[..., str], corpus: Corpus, temporary: Path
) -> None:
    metric = spice(spice_dir, java=make_java("import os\n" + does))
    assert sentence_of(lambda: metric(corpus)).startswith(sentence)
    assert list(temporary.iterdir()) == []


def test_a_flood_on_both_streams_neither_blocks_nor_is_kept(
    spice_dir: Path, make_java: Callable[..., str], corpus: Corpus
) -> None:
    flood = "for stream in (sys.stdout, sys.stderr):\n    stream.write('x' * 5_000_000 + '\\n')\n"
    assert len(spice(spice_dir, java=make_java(SCORE + flood + WRITE))(corpus)["SPICE"].per_image) == 3
    sentence = sentence_of(lambda: spice(spice_dir, java=make_java(SCORE + flood + "sys.exit(3)"))(corpus))
    assert len(sentence) < 1000


def test_a_java_that_hangs_is_stopped_with_all_it_started(
    spice_dir: Path,
    make_java: Callable[..., str],
    corpus: Corpus,
    temporary: Path,
    hanging: Any,
) -> None:
    metric = spice(spice_dir, java=make_java(hanging.code + "time.sleep(600)"), timeout_seconds=1.5)
    assert sentence_of(lambda: metric(corpus)) == (
        "SPICE on Java 11.0.2 was stopped, for it was not done after 2 seconds (Parsing reference captions): "
        "score fewer images at once."
    )
    assert list(temporary.iterdir()) == []
    assert len(hanging.pids()) == 2
    assert hanging.all_end(hanging.pids())


def test_control_c_leaves_neither_process_nor_folder(
    spice_dir: Path, make_java: Callable[..., str], temporary: Path, hanging: Any
) -> None:
    code = """
import sys
from pathlib import Path
from pixtell.metrics.corpus import Corpus
from pixtell.metrics.spice import spice
spice(Path(sys.argv[1]), java=sys.argv[2])(Corpus.from_text({"a": "a dog"}, {"a": ["dogs"]}))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(spice_dir), make_java(hanging.code + "time.sleep(600)")],
        env={**os.environ, "TMPDIR": str(temporary)},
        stderr=subprocess.PIPE,
        text=True,
        # A shell may have told this session's background jobs to ignore the interrupt.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert hanging.begins()
    assert list(temporary.iterdir()) != []
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert stderr.splitlines()[-1] == "KeyboardInterrupt"
    assert list(temporary.iterdir()) == []
    assert hanging.all_end(hanging.pids())


# ---- the real jars, as far as they are here


def real_spice_dir() -> Path:
    package = importlib.util.find_spec("pycocoevalcap")
    assert package is not None
    return Path(next(iter(package.submodule_search_locations or []))) / "spice"


@pytest.mark.java
def test_the_package_lacks_the_models_and_says_so() -> None:
    folder = real_spice_dir()
    if not (folder / CORENLP[1]).exists():
        assert list(find_missing_jars(folder).values()) == [CORENLP]
        assert f"{folder} has no {CORENLP[0]}, no {CORENLP[1]} (copy" in sentence_of(lambda: spice(folder))


@pytest.mark.java
def test_the_real_jar_without_models_dies_in_one_sentence(
    spice_dir: Path, tmp_path: Path, corpus: Corpus, temporary: Path
) -> None:
    """Past our checks: a Java that calls itself 11, and empty jars in the place of CoreNLP's."""
    folder = real_spice_dir()
    for jar in [path.relative_to(folder) for path in folder.rglob("*.jar")]:
        if str(jar) not in CORENLP:
            (spice_dir / jar).unlink(missing_ok=True)
            (spice_dir / jar).symlink_to(folder / jar)
    java = tmp_path / "java"
    says = '[ "$1" = -version ] && echo \'openjdk version "11.0.2"\' >&2 && exit'
    java.write_text(f'#!/bin/sh\n{says}\nexec {shutil.which("java")} "$@"\n')
    java.chmod(0o755)
    sentence = sentence_of(lambda: spice(spice_dir, java=str(java))(corpus))
    assert sentence.startswith("SPICE on Java 11.0.2 ended with code 1 (Caused by: java.lang.ClassNotFound")
    assert "edu.stanford.nlp" in sentence
    assert list(temporary.iterdir()) == []
