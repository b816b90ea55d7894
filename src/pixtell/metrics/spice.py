"""SPICE, through the user's own jars: the F value of scene graphs parsed from captions and references.

In: a corpus, and the folder of `spice-1.0.jar` with its libraries. Out: a value an image. Nothing is fetched,
and nothing is written but in a temporary folder. Anderson et al. 2016, "SPICE: semantic propositional image
caption evaluation"; github.com/peteanderson80/SPICE.
"""

import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from pixtell.errors import ScoringError, StorageError
from pixtell.files import write_text
from pixtell.metrics.corpus import Corpus, Values
from pixtell.metrics.java import Java, find_java, run_java

JAR = "spice-1.0.jar"
# Built for Java 8; it writes through a JavaScript engine and reaches into classes that later Javas took away.
JAVA_VERSIONS = range(8, 14)

_CORENLP = "lib/stanford-corenlp-3.6.0"
_WHERE_CORENLP = (
    "copy it from stanford-corenlp-full-2015-12-09.zip, 385 MB, at http://nlp.stanford.edu/software"
)
_WHERE_SPICE = "take the folder spice of the package pycocoevalcap, or SPICE-1.0.zip from panderson.me/spice"
_GB = 1 << 30
_HEAP_BYTES, _LEAST_HEAP_BYTES = 8 * _GB, 2 * _GB  # the first is what its authors ask for


def spice(
    spice_dir: Path, *, java: str = "java", timeout_seconds: float = 3600
) -> Callable[[Corpus], dict[str, Values]]:
    """The metric that these jars make, `SPICE`, 0 to 1.

    Of one image: F1 of the tuples (objects, attributes, relations) in the caption's scene graph and in that
    of all its references together, synonyms counted as equal; 0 where either holds none. Of the corpus: the
    mean over images.

    spice_dir: with spice-1.0.jar and lib/. java: the executable. timeout_seconds: for a whole corpus.
    Raises: ScoringError with all that is missing, before anything starts; the metric, where Java fails.
    """
    runtime, heap_bytes = _check(spice_dir, java)
    jar = (spice_dir / JAR).absolute()  # not resolved: beside a link lie the libraries that were checked

    def score(corpus: Corpus) -> dict[str, Values]:
        with _temporary_folder() as name:
            folder = Path(name)
            _write_captions(corpus, folder / "captions.json")
            # No -cache: every caption is parsed once anyhow, and LMDB's native code fails on some machines.
            arguments = [f"-Xmx{heap_bytes >> 20}m", f"-Djava.io.tmpdir={folder}", "-XX:-UsePerfData"]
            arguments += ["-jar", str(jar), "captions.json", "-out", "scores.json", "-silent"]
            last_word = run_java(
                runtime, arguments, directory=folder, timeout_seconds=timeout_seconds, program="SPICE"
            )
            per_image = _read_scores(folder / "scores.json", corpus.image_ids, last_word)
        return {"SPICE": Values.mean_of(per_image)}

    return score


# ---- before it starts


def _check(spice_dir: Path, java: str) -> tuple[Java, int]:
    """The Java to run and the bytes of its heap, or one sentence with all that is in the way."""
    problems = [_say_missing(spice_dir, *item) for item in find_missing_jars(spice_dir).items()]
    runtime, heap_bytes = None, 0
    try:
        runtime = find_java(java)
        if runtime.version not in JAVA_VERSIONS:
            problems.append(
                f"{runtime.path} is Java {runtime.text} and SPICE runs on Java {JAVA_VERSIONS[0]} to "
                f"{JAVA_VERSIONS[-1]} (name such a one with --java)"
            )
    except ScoringError as error:
        problems.append(str(error).rstrip("."))
    try:
        heap_bytes = choose_heap(_memory_bytes())
    except ScoringError as error:
        problems.append(str(error).rstrip("."))
    if problems or runtime is None:
        raise ScoringError(f"SPICE cannot run: {'; '.join(problems)}.")
    return runtime, heap_bytes


def find_missing_jars(spice_dir: Path) -> dict[str, list[str]]:
    """Where to get them -> the jars that SPICE's own manifest asks for, and that are absent or cut short."""
    jars = [JAR, f"{_CORENLP}.jar", f"{_CORENLP}-models.jar"]
    if zipfile.is_zipfile(spice_dir / JAR):
        jars = list(dict.fromkeys([*jars, *_class_path(spice_dir / JAR)]))
    missing: dict[str, list[str]] = {}
    for jar in jars:
        if not zipfile.is_zipfile(spice_dir / jar):
            missing.setdefault(_WHERE_CORENLP if jar.startswith(_CORENLP) else _WHERE_SPICE, []).append(jar)
    return missing


def _class_path(jar: Path) -> list[str]:
    """What a jar's manifest says it needs beside it; its lines are folded at 72 bytes, with a space."""
    try:
        with zipfile.ZipFile(jar) as archive:
            manifest = archive.read("META-INF/MANIFEST.MF").decode("utf-8", "replace")
    except (OSError, KeyError, zipfile.BadZipFile, RuntimeError):
        return []
    lines = manifest.replace("\r\n", "\n").replace("\n ", "").splitlines()
    return [path for line in lines if line.startswith("Class-Path:") for path in line.split()[1:]]


def _say_missing(spice_dir: Path, where: str, jars: Sequence[str]) -> str:
    more = f" and {len(jars) - 3} more" if len(jars) > 3 else ""
    damaged = " that is whole" if any((spice_dir / jar).exists() for jar in jars) else ""
    return f"{spice_dir} has no {', no '.join(jars[:3])}{more}{damaged} ({where})"


def choose_heap(memory_bytes: int) -> int:
    """Bytes for Java's heap: 8 GB as SPICE's authors ask, or three quarters of the memory where that is less.

    Raises: ScoringError where that leaves under 2 GB.
    """
    heap_bytes = min(_HEAP_BYTES, memory_bytes * 3 // 4)
    if heap_bytes < _LEAST_HEAP_BYTES:
        raise ScoringError(
            f"{memory_bytes / _GB:.1f} GB of memory leave Java {heap_bytes / _GB:.1f} GB and SPICE needs "
            f"{_LEAST_HEAP_BYTES // _GB} GB at least: take a larger machine."
        )
    return heap_bytes


def _memory_bytes() -> int:
    """Memory of the machine, or of the container; a large number where the system doesn't say."""
    sizes = [64 * _GB]
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            sizes.append(int(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such file, or "max"
            continue
    return min(sizes)


# ---- what it reads and writes


def _temporary_folder() -> "tempfile.TemporaryDirectory[str]":
    try:
        return tempfile.TemporaryDirectory(prefix="pixtell-spice-")
    except OSError as cause:
        raise StorageError(f"no temporary folder can be made ({cause}): set TMPDIR to a place.") from cause


def _write_captions(corpus: Corpus, path: Path) -> None:
    """SPICE's input, in ASCII, for its reader takes the system's encoding. An image is its place in the
    corpus, for its writer would spoil ids in other scripts."""
    items = [
        {
            "image_id": str(place),
            "test": " ".join(hypothesis),
            "refs": [" ".join(words) for words in references],
        }
        for place, (hypothesis, references) in enumerate(
            zip(corpus.hypotheses, corpus.references, strict=True)
        )
    ]
    write_text(path, json.dumps(items))


def _read_scores(path: Path, image_ids: Sequence[str], last_word: str) -> list[float]:
    """The F value of every image, joined by place; raises ScoringError for anything else than that."""
    advice = f"run it again, or leave SPICE out (the last word of its Java: {last_word})"
    try:
        items = json.loads(path.read_text(encoding="utf-8", errors="replace"))
        scores = {item["image_id"]: item["scores"]["All"]["f"] for item in items}
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as cause:
        reason = "no file" if isinstance(cause, OSError) else f"{type(cause).__name__}: {cause}"
        raise ScoringError(f"SPICE wrote no scores that can be read ({reason}): {advice}.") from cause
    missing = [image_id for place, image_id in enumerate(image_ids) if str(place) not in scores]
    if missing or len(items) != len(image_ids):
        without = f", and none for {', '.join(missing[:3])}" if missing else ""
        raise ScoringError(
            f"SPICE gives {len(items):,} scores for {len(image_ids):,} images{without}: {advice}."
        )
    per_image = [scores[str(place)] for place in range(len(image_ids))]
    for image_id, value in zip(image_ids, per_image, strict=True):
        if not isinstance(value, int | float) or not 0 <= value <= 1:  # NaN is not, either
            raise ScoringError(
                f"SPICE gives the image {image_id} {value!r} instead of a number from 0 to 1: {advice}."
            )
    return [float(value) for value in per_image]
