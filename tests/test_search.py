"""Search: the nearest pictures first, and a cache on disk that never lies."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pixtell.bulk import find_images
from pixtell.datasets.records import CaptionedImage
from pixtell.embedder import Embedder
from pixtell.encoders import EncoderSpec
from pixtell.encoders.nano_text import load_nano_towers
from pixtell.errors import ImageError, OptionError, StorageError
from pixtell.metrics.retrieval import unit_vectors
from pixtell.search import PictureIndex, list_pictures, retrieval_of


class CountingEmbedder(Embedder):
    """Notes the pictures that it embeds."""

    def __init__(self, *, encoder, text_encoder, placement, batch_size=32):  # type: ignore[no-untyped-def]
        super().__init__(
            encoder=encoder, text_encoder=text_encoder, placement=placement, batch_size=batch_size
        )
        self.seen: list[str] = []

    def stream(self, images):  # type: ignore[no-untyped-def]
        images = list(images)
        self.seen += [Path(image).name for image in images]
        return super().stream(images)


@pytest.fixture(scope="module", params=["nano", "clip"])
def embedder(request: pytest.FixtureRequest, tiny_towers: Path, tiny_clip: Path) -> CountingEmbedder:
    source = {"nano": tiny_towers, "clip": tiny_clip}[request.param]
    return CountingEmbedder.from_pretrained(source, device="cpu", batch_size=4)  # type: ignore[return-value]


@pytest.fixture
def folder(pictures: list[Path], tmp_path: Path) -> Path:
    """Five pictures, one of them deeper; a sixth is hidden, and there are files of other kinds."""
    folder = tmp_path / "photos"
    (folder / "inside" / "deeper").mkdir(parents=True)
    for path in pictures[:4]:
        shutil.copy(path, folder)
    shutil.copy(pictures[4], folder / "inside" / "deeper")
    shutil.copy(pictures[5], folder / f".{pictures[5].name}")
    (folder / "notes.txt").write_text("a dog")
    (folder / "album.jpg").mkdir()
    (folder / "nowhere.jpg").symlink_to(folder / "gone")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def index_of(embedder: CountingEmbedder, *folders: Path, cache: Path) -> tuple[PictureIndex, list[str]]:
    """The index, and the names of the pictures that were embedded for it."""
    embedder.seen.clear()
    index = PictureIndex(folders, embedder, cache_dir=cache)
    return index, sorted(embedder.seen)


def names_of(index: PictureIndex, text: str = "a dog", top: int = 100) -> list[str]:
    return [hit.path.name for hit in index.find(text, top=top)]


@pytest.mark.parametrize("top", [1, 3, 5, 50])
def test_the_nearest_come_first_with_their_cosine(
    embedder: CountingEmbedder, folder: Path, cache: Path, pictures: list[Path], top: int
) -> None:
    index, _ = index_of(embedder, folder, cache=cache)
    for text in ("a dog", "the red ball"):
        found = index.find(text, top=top)
        cosines = unit_vectors(embedder.images(pictures[:5])) @ unit_vectors(embedder.texts([text]))[0]
        expected = sorted(zip(-cosines, [path.name for path in pictures[:5]], strict=True))[:top]
        assert [hit.path.name for hit in found] == [name for _, name in expected]
        np.testing.assert_allclose([hit.score for hit in found], [-score for score, _ in expected], atol=1e-5)
        assert all(hit.path.is_file() for hit in found)


def test_equal_pictures_come_in_the_order_of_their_names(
    embedder: CountingEmbedder, pictures: list[Path], tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for name in "dbac":  # one batch: in two, the last bits may differ
        shutil.copy(pictures[1], folder / f"{name}.png")
    index, _ = index_of(embedder, folder, cache=cache)
    assert names_of(index) == [f"{name}.png" for name in "abcd"]
    assert names_of(index, top=2) == ["a.png", "b.png"]


# ---- what is kept on disk


def test_only_new_and_changed_pictures_are_embedded(
    embedder: CountingEmbedder, folder: Path, cache: Path, pictures: list[Path]
) -> None:
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == sorted(path.name for path in pictures[:5])
    first = index.find("a dog")
    again, seen = index_of(embedder, folder, cache=cache)
    assert seen == []
    assert again.find("a dog") == first

    shutil.copy(pictures[5], folder / "new.png")
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == ["new.png"]
    (folder / pictures[0].name).unlink()
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == []
    assert pictures[0].name not in names_of(index)
    shutil.copy(pictures[0], folder)  # forgotten, so that it is embedded anew
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == [pictures[0].name]


def test_a_picture_that_takes_the_place_of_another_is_embedded_anew(
    embedder: CountingEmbedder, folder: Path, cache: Path
) -> None:
    """Two names change places: as many pictures, the same names, sizes and times as before."""
    index, _ = index_of(embedder, folder, cache=cache)
    before = {hit.path.name: hit.score for hit in index.find("a dog")}
    (folder / "0.jpg").rename(folder / "swap")
    (folder / "2.jpg").rename(folder / "0.jpg")
    (folder / "swap").rename(folder / "2.jpg")
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == ["0.jpg", "2.jpg"]
    after = {hit.path.name: hit.score for hit in index.find("a dog")}
    assert (after["0.jpg"], after["2.jpg"]) == pytest.approx((before["2.jpg"], before["0.jpg"]), abs=1e-5)


@pytest.mark.parametrize("change", ["bytes", "time"])
def test_a_changed_picture_is_embedded_anew(
    embedder: CountingEmbedder, folder: Path, cache: Path, pictures: list[Path], change: str
) -> None:
    index_of(embedder, folder, cache=cache)
    path = folder / pictures[1].name
    before = path.stat()
    path.write_bytes(pictures[3].read_bytes())
    if change == "bytes":  # of another size, with the old time
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == [path.name]
    scores = {hit.path.name: hit.score for hit in index.find("a dog")}
    assert scores[path.name] == pytest.approx(scores[pictures[3].name], abs=1e-6)


def test_another_embedder_has_embeddings_of_its_own(
    tiny_towers: Path, folder: Path, cache: Path, tmp_path: Path
) -> None:
    one = CountingEmbedder.from_pretrained(tiny_towers, device="cpu")
    towers = load_nano_towers(EncoderSpec(kind="nano", output="patches", path=str(tiny_towers)))
    towers.image.projection[1].bias.data.add_(1)
    (tmp_path / "other").mkdir()
    towers.save(tmp_path / "other")
    other = CountingEmbedder.from_pretrained(tmp_path / "other", device="cpu")
    for embedder, count in ((one, 5), (other, 5), (one, 0), (other, 0)):
        index, seen = index_of(embedder, folder, cache=cache)  # type: ignore[arg-type]
        assert len(seen) == count
        fresh, _ = index_of(embedder, folder, cache=tmp_path / f"{count}{id(embedder)}")  # type: ignore[arg-type]
        assert index.find("a dog") == fresh.find("a dog")


def test_a_damaged_cache_is_made_anew(embedder: CountingEmbedder, folder: Path, cache: Path) -> None:
    index, _ = index_of(embedder, folder, cache=cache)
    expected = index.find("a dog")
    [file] = (cache / "search").iterdir()
    whole = file.read_bytes()
    for damage in (whole[:-7], b"", b"no tensors at all", whole.replace(b'"format":"1"', b'"format":"0"')):
        file.write_bytes(damage)
        index, seen = index_of(embedder, folder, cache=cache)
        assert len(seen) == 5
        assert index.find("a dog") == expected
        assert index_of(embedder, folder, cache=cache)[1] == []


def test_a_killed_search_leaves_no_lie(tiny_towers: Path, folder: Path, cache: Path) -> None:
    """Killed while it writes, again and again: what it left is nothing or the truth."""
    code = """
import sys
from pathlib import Path
from pixtell.embedder import Embedder
from pixtell import search
search._SAVE_SECONDS = 0.0
embedder = Embedder.from_pretrained(sys.argv[1], device="cpu", batch_size=1)
print("ready", flush=True)
while True:
    search.PictureIndex([Path(sys.argv[2])], embedder, cache_dir=Path(sys.argv[3]))
    for file in (Path(sys.argv[3]) / "search").glob("*.safetensors"):
        file.unlink()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, tiny_towers, folder, cache], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.4)
    process.send_signal(signal.SIGKILL)
    process.wait()
    embedder = CountingEmbedder.from_pretrained(tiny_towers, device="cpu")
    fresh, _ = index_of(embedder, folder, cache=cache / "fresh")  # type: ignore[arg-type]
    index, _ = index_of(embedder, folder, cache=cache)  # type: ignore[arg-type]
    assert names_of(index) == names_of(fresh)
    scores, expected = ([hit.score for hit in found.find("a dog")] for found in (index, fresh))
    assert scores == pytest.approx(expected, abs=1e-5)  # embedded one by one, and in fours


def test_two_searches_at_once_leave_the_truth(
    embedder: CountingEmbedder, folder: Path, cache: Path, pictures: list[Path]
) -> None:
    """The second one begins and ends, and a picture is added, while the first one embeds."""

    def search_meanwhile(done: int, total: int) -> None:
        if done == 2:
            shutil.copy(pictures[5], folder / "new.png")
            assert len(PictureIndex([folder], embedder, cache_dir=cache)) == 6

    assert len(PictureIndex([folder], embedder, cache_dir=cache, on_progress=search_meanwhile)) == 5
    index, seen = index_of(embedder, folder, cache=cache)
    assert seen == ["new.png"]  # the first one wrote last, of what it had listed
    fresh, _ = index_of(embedder, folder, cache=cache / "fresh")
    expected = {hit.path: hit.score for hit in fresh.find("a dog")}
    assert {hit.path: hit.score for hit in index.find("a dog")} == pytest.approx(expected, abs=1e-5)


def test_a_cache_that_cannot_be_written_is_said_before_the_work(
    embedder: CountingEmbedder, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    embedder.seen.clear()
    with pytest.raises(StorageError, match="cannot be written"):
        PictureIndex([folder], embedder, cache_dir=tmp_path / "file")
    assert embedder.seen == []


def test_an_interrupted_search_keeps_what_it_has_saved(
    embedder: CountingEmbedder, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixtell.search._SAVE_SECONDS", 0.0)

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        PictureIndex([folder], embedder, cache_dir=cache, on_progress=stop)
    index, seen = index_of(embedder, folder, cache=cache)
    assert len(seen) == 3  # two were on disk
    assert len(index) == 5


# ---- folders


def test_hidden_files_folders_and_links_are_left_out(folder: Path, tmp_path: Path) -> None:
    (folder / ".hidden").mkdir()
    shutil.copy(folder / "0.jpg", folder / ".hidden")
    (folder / "loop").symlink_to(folder)
    (folder / "linked.JPG").symlink_to(folder / "0.jpg")
    errors: list[ImageError] = []
    names = [name for name, _, _ in list_pictures(folder, errors)]
    assert names == ["0.jpg", "1.png", "2.jpg", "3.png", "inside/deeper/4.jpg", "linked.JPG"]
    assert errors == []


def test_a_folder_that_is_named_like_a_picture_is_searched(folder: Path) -> None:
    shutil.copy(folder / "0.jpg", folder / "album.jpg" / "inside.JPEG")
    assert [name for name, _, _ in list_pictures(folder, [])][2:5] == [
        "2.jpg",
        "3.png",
        "album.jpg/inside.JPEG",
    ]


def test_a_folder_named_twice_or_inside_another_comes_once(
    embedder: CountingEmbedder, folder: Path, cache: Path
) -> None:
    index, _ = index_of(embedder, folder / "inside", folder, folder, cache=cache)
    assert sorted(names_of(index)) == ["0.jpg", "1.png", "2.jpg", "3.png", "4.jpg"]


def test_several_folders_are_ranked_together(
    embedder: CountingEmbedder, folder: Path, cache: Path, pictures: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(pictures[5], other)
    index, _ = index_of(embedder, folder, other, cache=cache)
    scores = [hit.score for hit in index.find("a dog")]
    assert scores == sorted(scores, reverse=True)
    assert len(index) == len(scores) == 6
    assert other / pictures[5].name in [hit.path for hit in index.find("a dog")]


def test_names_that_are_no_text_are_found_again(
    embedder: CountingEmbedder, pictures: list[Path], tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "odd"
    folder.mkdir()
    odd = [folder / "line\nbreak.png", folder / os.fsdecode(b"byte\xff.png"), folder / "tab\t\u00e9.png"]
    for path in odd:
        shutil.copy(pictures[1], path)
    for expected in (3, 0):
        index, seen = index_of(embedder, folder, cache=cache)
        assert len(seen) == expected
        assert {hit.path for hit in index.find("a dog")} == set(odd)


def test_bad_pictures_are_named_and_the_others_found(
    embedder: CountingEmbedder, folder: Path, cache: Path
) -> None:
    (folder / "bad.jpg").write_bytes(b"no picture")
    for _ in range(2):
        index, _ = index_of(embedder, folder, cache=cache)
        assert [error.name for error in index.errors] == [str(folder / "bad.jpg")]
        assert len(index) == 5
    for path in folder.glob("*.*g"):
        if path.is_file():
            path.write_bytes(b"no picture")
    shutil.rmtree(folder / "inside")
    index, _ = index_of(embedder, folder, cache=cache)
    assert len(index.errors) == 5
    assert index.find("a dog") == []


def test_what_cannot_be_searched_is_one_sentence(
    embedder: CountingEmbedder, folder: Path, cache: Path, tmp_path: Path
) -> None:
    index, _ = index_of(embedder, folder, cache=cache)

    def sentence_of(*folders: Path) -> str:
        with pytest.raises(OptionError) as caught:
            index_of(embedder, *folders, cache=cache)
        return str(caught.value)

    empty, bare = tmp_path / "empty", tmp_path / "bare"
    for path in (empty, bare):
        path.mkdir()
    assert re.fullmatch(
        rf"The folders {empty} and {bare} hold no picture \(\.avif, .*\); name another\.",
        sentence_of(empty, bare),
    )
    with pytest.raises(OptionError) as caught:
        find_images([empty])
    assert sentence_of(empty) == str(caught.value)  # as `caption` says it
    assert sentence_of(tmp_path / "gone") == (
        f"{tmp_path / 'gone'} cannot be searched (No such file or directory); name a folder with pictures."
    )
    assert sentence_of(folder / "0.jpg") == (
        f"{folder / '0.jpg'} cannot be searched (Not a directory); name a folder with pictures."
    )
    with pytest.raises(OptionError, match="The text is empty; say what to look for"):
        index.find(" \n")


def test_a_text_without_a_known_word_is_refused(tiny_towers: Path, folder: Path, cache: Path) -> None:
    embedder = CountingEmbedder.from_pretrained(tiny_towers, device="cpu")
    index, _ = index_of(embedder, folder, cache=cache)  # type: ignore[arg-type]
    for text in ("zebra", "Zebras, giraffes!", "?!"):
        with pytest.raises(OptionError) as caught:
            index.find(text)
        assert str(caught.value) == f"The model nano knows no word of {text!r}; say it in other words."
    assert len(index.find("a zebra")) == 5


def test_retrieval_of_a_split(tiny_towers: Path, pictures: list[Path]) -> None:
    """Against the ranks counted by hand."""
    embedder = Embedder.from_pretrained(tiny_towers, device="cpu")
    captions = [("a dog", "the cat"), ("a red ball",), ("the man runs", "a woman"), ("a dog",)]
    records = [CaptionedImage(str(row), pictures[row], texts, "val") for row, texts in enumerate(captions)]
    found = retrieval_of(embedder, records)
    queries = [(text, row) for row, texts in enumerate(captions) for text in texts]
    images = unit_vectors(embedder.images(pictures[:4]))
    texts = unit_vectors(embedder.texts([text for text, _ in queries]))
    right = [
        captions[int(np.argmax(images @ texts[place]))].count(text) > 0
        for place, (text, _) in enumerate(queries)
    ]
    assert found.text_to_image[1] == pytest.approx(np.mean(right))
    assert found.text_to_image[5] == found.image_to_text[5] == 1


@pytest.fixture
def many(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "many"
    for number in range(10_000):
        place = folder / f"{number // 1000}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:05d}.jpg").touch()
    yield folder
    shutil.rmtree(folder)


def test_ten_thousand_cached_pictures_are_ranked_unread(
    tiny_towers: Path, many: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one is opened or embedded. How fast that is: benchmarks/search.py."""
    from pixtell.search import _Cache

    embedder = Embedder.from_pretrained(tiny_towers, device="cpu")
    rng = np.random.default_rng(0)
    _Cache(cache, many, embedder.fingerprint).write(
        list_pictures(many, []), unit_vectors(rng.normal(size=(10_000, 8)).astype(np.float32))
    )
    monkeypatch.setattr(Embedder, "images", lambda *sources: pytest.fail("a picture was embedded"))
    index = PictureIndex([many], embedder, cache_dir=cache)
    assert len(index.find("a dog")) == 10
    assert index.errors == []
