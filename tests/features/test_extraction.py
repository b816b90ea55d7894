"""The feature cache: equal to the encoder, keyed by all that changes a value, whole after a kill."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from pixtell.encoders.base import fingerprint_of
from pixtell.errors import FeatureCacheError, ImageError, StorageError
from pixtell.features import FeatureCache, Views, extract_features
from pixtell.images import Preprocess, load_images


class SmallEncoder(nn.Module):
    """A convolution through the Encoder seam, which counts the images it has seen."""

    name = "small/encoder"

    def __init__(self, *, seed: int = 0, output: str = "patches", size: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, kernel_size=8, stride=8, bias=False)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            self.conv.weight.normal_(generator=generator)
        self.output = output
        self.size = size
        self.seen = 0
        self.eval().requires_grad_(False)

    @property
    def feature_shape(self) -> tuple[int, ...]:
        return (5,) if self.output == "pooled" else ((self.size // 8) ** 2, 5)

    @property
    def preprocess(self) -> Preprocess:
        half = (0.5, 0.5, 0.5)
        return Preprocess(size=self.size, resize="square", mean=half, std=half)

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self, {"size": self.size}, self.output)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.seen += len(pixels)
        grid = self.conv(pixels).flatten(2).transpose(1, 2)  # (B, N, F)
        return grid.mean(1) if self.output == "pooled" else grid


def make_array(number: int) -> NDArray[np.uint8]:
    return np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """Seven pictures on disk."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(make_array(number)).save(folder / f"{number}.png")
    return {f"{number}.png": folder / f"{number}.png" for number in range(7)}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "features"


def encode_directly(encoder: SmallEncoder, sources: list[Path], batch_size: int) -> torch.Tensor:
    """Features (B, N, F) without any cache, in batches of the same size."""
    images = torch.stack(list(load_images(sources, encoder.preprocess)))  # (B, 3, S, S)
    return torch.cat([encoder(encoder.preprocess.normalise(part)) for part in images.split(batch_size)])


def brighten(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A view maker: a random patch of half the side, plus a random grey."""
    size = images.shape[-1] // 2
    top, left = torch.randint(0, size, (2,), generator=generator).tolist()
    grey = torch.randint(0, 50, (len(images), 1, 1, 1), generator=generator)
    return (images[:, :, top : top + size, left : left + size].int() + grey).clamp(max=255).to(torch.uint8)


def views_of(count: int = 3, seed: int = 0, description: str = "brighten") -> Views:
    return Views(count=count, make=brighten, description=description, source_size=32, seed=seed)


# ---- values


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("output", ["pooled", "patches"])
def test_cached_equals_uncached_bit_for_bit(
    pictures: dict[str, Path], directory: Path, output: str, dtype: torch.dtype
) -> None:
    encoder = SmallEncoder(output=output)
    expected = encode_directly(encoder, list(pictures.values()), 3).to(dtype)
    for _ in range(2):  # extracted, then read again
        cache = extract_features(encoder, pictures, directory, dtype=dtype, batch_size=3)
        assert torch.equal(cache.rows(list(pictures)), expected)
        assert cache.dtype == dtype
        assert cache.feature_shape == encoder.feature_shape
        assert cache.views == 1
    assert encoder.seen == 14  # once directly, once for the cache


def test_rows_come_in_the_order_asked_for(pictures: dict[str, Path], directory: Path) -> None:
    cache = extract_features(SmallEncoder(), pictures, directory)
    ids = ["4.png", "0.png", "4.png"]
    assert torch.equal(cache.rows(ids), torch.stack([cache[image_id] for image_id in ids]))
    assert not torch.equal(cache["4.png"], cache["0.png"])
    assert list(cache) == list(pictures)
    assert len(cache) == 7
    assert "4.png" in cache
    assert "9.png" not in cache


def test_no_images_make_an_empty_cache(directory: Path) -> None:
    cache = extract_features(SmallEncoder(), {}, directory)
    assert len(cache) == 0
    assert cache.rows([]).shape == (0, 4, 5)
    assert not directory.exists()


def test_equal_pictures_are_encoded_once(directory: Path) -> None:
    encoder = SmallEncoder()
    cache = extract_features(encoder, {"a": make_array(1), "b": make_array(2), "c": make_array(1)}, directory)
    assert encoder.seen == 2
    assert torch.equal(cache["a"], cache["c"])
    extract_features(encoder, {"a": make_array(1).reshape(24, 20, 3)}, directory)
    assert encoder.seen == 3  # the same bytes in another shape are another picture


def test_progress_counts_every_image(pictures: dict[str, Path], directory: Path) -> None:
    calls: list[tuple[int, int]] = []
    for _ in range(2):
        extract_features(SmallEncoder(), pictures, directory, on_progress=lambda *call: calls.append(call))
    assert calls == [(number, 7) for number in range(1, 8)] * 2


# ---- the key


def cache_path(encoder: SmallEncoder, directory: Path, **options: object) -> Path:
    return extract_features(encoder, {"a": make_array(1)}, directory, **options).path  # type: ignore[arg-type]


def test_everything_that_changes_a_value_has_its_own_cache(directory: Path) -> None:
    class Renormalised(SmallEncoder):
        @property
        def preprocess(self) -> Preprocess:
            return Preprocess(size=16, resize="square", mean=(0.4, 0.5, 0.5), std=(0.5, 0.5, 0.5))

    paths = [
        cache_path(SmallEncoder(), directory),
        cache_path(SmallEncoder(seed=1), directory),
        cache_path(SmallEncoder(output="pooled"), directory),
        cache_path(SmallEncoder(size=24), directory),
        cache_path(Renormalised(), directory),
        cache_path(SmallEncoder(), directory, dtype=torch.float32),
        cache_path(SmallEncoder(), directory, views=views_of(2)),
        cache_path(SmallEncoder(), directory, views=views_of(3)),
        cache_path(SmallEncoder(), directory, views=views_of(2, seed=1)),
        cache_path(SmallEncoder(), directory, views=views_of(2, description="brighten more")),
    ]
    assert len(set(paths)) == len(paths)
    assert {path.parent for path in paths} == {directory}
    assert re.fullmatch(r"small-encoder-patches-[0-9a-f]{12}", paths[0].name)
    assert cache_path(SmallEncoder(), directory) == paths[0]
    assert cache_path(SmallEncoder(), directory, views=views_of(1)) == paths[0]
    settings = json.loads((paths[0] / "cache.json").read_text())
    assert settings["fingerprint"] == SmallEncoder().fingerprint
    assert settings["dtype"] == "float16"


def test_a_changed_picture_is_extracted_again(pictures: dict[str, Path], directory: Path) -> None:
    encoder = SmallEncoder()
    before = extract_features(encoder, pictures, directory)
    Image.fromarray(make_array(99)).save(pictures["3.png"])
    after = extract_features(encoder, pictures, directory)
    assert encoder.seen == 8
    assert not torch.equal(before["3.png"], after["3.png"])
    assert torch.equal(before["4.png"], after["4.png"])


# ---- views


def test_view_0_is_plain_and_the_others_are_made_by_the_caller(
    pictures: dict[str, Path], directory: Path
) -> None:
    encoder = SmallEncoder()
    ids = list(pictures)
    plain = extract_features(encoder, pictures, directory, batch_size=4)
    cache = extract_features(encoder, pictures, directory, batch_size=4, views=views_of(3))
    assert cache.views == 3
    assert torch.equal(cache.rows(ids), plain.rows(ids))
    first, second = cache.rows(ids, view=1), cache.rows(ids, view=2)
    assert not torch.equal(first, second)
    assert not torch.equal(first, plain.rows(ids))
    mixed = cache.rows(ids[:3], view=[0, 1, 2])
    assert torch.equal(mixed, torch.stack([plain[ids[0]], first[1], second[2]]))


def test_views_do_not_depend_on_batches_or_company(pictures: dict[str, Path], tmp_path: Path) -> None:
    ids = list(pictures)
    whole = extract_features(
        SmallEncoder(), pictures, tmp_path / "a", batch_size=7, views=views_of(), dtype=torch.float32
    )
    backwards = {image_id: pictures[image_id] for image_id in reversed(ids)}
    parts = extract_features(
        SmallEncoder(), backwards, tmp_path / "b", batch_size=2, views=views_of(), dtype=torch.float32
    )
    for view in range(3):
        torch.testing.assert_close(whole.rows(ids, view=view), parts.rows(ids, view=view))


# ---- what is bad


def test_a_bad_image_is_an_error_in_the_result_not_the_end(
    pictures: dict[str, Path], directory: Path
) -> None:
    pictures["2.png"].write_bytes(b"no picture at all, only words")
    pictures["6.png"].unlink()
    images = {**pictures, "array": np.zeros((4, 4, 3), dtype=np.float32)}
    cache = extract_features(SmallEncoder(), images, directory, batch_size=2)
    assert list(cache.errors) == ["2.png", "6.png", "array"]
    assert all(isinstance(error, ImageError) for error in cache.errors.values())
    assert str(cache.errors["2.png"]).startswith(f"{pictures['2.png']}: it is not an image")
    assert cache.errors["array"].name == "array"
    assert list(cache) == ["0.png", "1.png", "3.png", "4.png", "5.png"]
    with pytest.raises(FeatureCacheError, match=r"no features of '2\.png' \(.*not an image.*\)"):
        cache.rows(["0.png", "2.png"])
    with pytest.raises(FeatureCacheError, match=r"no features of 'unheard of'; extract them"):
        cache["unheard of"]


def test_a_view_that_is_not_there(pictures: dict[str, Path], directory: Path) -> None:
    cache = extract_features(SmallEncoder(), pictures, directory)
    for view in (1, -1, [0, 3]):
        with pytest.raises(FeatureCacheError, match=r"views 0 to 0, not"):
            cache.rows(["0.png", "1.png"], view=view)


def test_values_that_do_not_fit_the_dtype_are_refused(directory: Path) -> None:
    encoder = SmallEncoder()
    encoder.conv.weight *= 1e5
    with pytest.raises(FeatureCacheError, match=r"not finite in float16; store float32"):
        extract_features(encoder, {"a": make_array(1)}, directory)
    assert len(extract_features(encoder, {"a": make_array(1)}, directory, dtype=torch.float32)) == 1


def test_an_unknown_dtype_is_refused(directory: Path) -> None:
    with pytest.raises(FeatureCacheError, match=r"cannot be stored as torch\.int64; choose one of float16"):
        extract_features(SmallEncoder(), {}, directory, dtype=torch.int64)


# ---- killed, damaged, shared


class Killed(BaseException):
    """As sudden as a signal: nothing in the package may catch it."""


def kill_after(images: int) -> Callable[[int, int], None]:
    def on_progress(done: int, of: int) -> None:
        if done == images:
            raise Killed

    return on_progress


@pytest.mark.parametrize("done", [1, 2, 3, 5, 7])
def test_an_extraction_goes_on_where_it_stopped(
    pictures: dict[str, Path], directory: Path, done: int
) -> None:
    encoder = SmallEncoder()
    with pytest.raises(Killed):
        extract_features(encoder, pictures, directory, batch_size=2, on_progress=kill_after(done))
    written = encoder.seen
    assert written == (done if done == 7 else done // 2 * 2)
    cache = extract_features(encoder, pictures, directory, batch_size=2)
    assert encoder.seen == 7
    expected = encode_directly(encoder, list(pictures.values()), 2).half()
    torch.testing.assert_close(cache.rows(list(pictures)), expected)


@pytest.mark.parametrize("torn", ["data", "index", "both"])
def test_what_a_crash_tore_is_cut_off(pictures: dict[str, Path], directory: Path, torn: str) -> None:
    encoder = SmallEncoder()
    first = {image_id: pictures[image_id] for image_id in list(pictures)[:4]}
    cache = extract_features(encoder, first, directory)
    expected = cache.rows(list(first)).clone()
    if torn in ("data", "both"):
        with (cache.path / "features.bin").open("ab") as data:
            data.write(b"\x7f" * 17)
    if torn in ("index", "both"):
        with (cache.path / "index.jsonl").open("ab") as index:
            index.write(b'{"sha256": "0123')
    assert torch.equal(extract_features(encoder, first, directory).rows(list(first)), expected)
    assert encoder.seen == 4
    cache = extract_features(encoder, pictures, directory)
    assert encoder.seen == 7
    assert torch.equal(cache.rows(list(first)), expected)
    reference = encode_directly(SmallEncoder(), list(pictures.values()), 7).half()
    torch.testing.assert_close(cache.rows(list(pictures)), reference)
    assert (cache.path / "features.bin").stat().st_size == 7 * 4 * 5 * 2
    assert (cache.path / "index.jsonl").read_bytes().count(b"\n") == 7


def damage_index_line(path: Path) -> None:
    lines = (path / "index.jsonl").read_bytes().split(b"\n")
    (path / "index.jsonl").write_bytes(b"\n".join([lines[0][:20], *lines[1:]]))


def repeat_index_line(path: Path) -> None:
    lines = (path / "index.jsonl").read_bytes().splitlines(keepends=True)
    (path / "index.jsonl").write_bytes(b"".join([lines[1], *lines[1:]]))


def cut_data(path: Path) -> None:
    os.truncate(path / "features.bin", 100)


def break_settings(path: Path) -> None:
    (path / "cache.json").write_text("{")


def change_settings(path: Path) -> None:
    settings = json.loads((path / "cache.json").read_text())
    (path / "cache.json").write_text(json.dumps({**settings, "fingerprint": "0" * 64}))


def make_index_a_folder(path: Path) -> None:
    (path / "index.jsonl").unlink()
    (path / "index.jsonl").mkdir()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_index_line, r"index\.jsonl is damaged; delete .* to extract again"),
        (repeat_index_line, r"index\.jsonl is damaged; delete .* to extract again"),
        (cut_data, r"features\.bin is cut short: 100 bytes for 7 images; delete .* to extract again"),
        (break_settings, r"cache\.json is not JSON"),
        (change_settings, r"is the cache of another encoder; use another directory"),
        (make_index_a_folder, r"cannot be read \(Is a directory\)"),
    ],
)
def test_damage_gives_one_sentence(
    pictures: dict[str, Path], directory: Path, damage: Callable[[Path], None], words: str
) -> None:
    damage(extract_features(SmallEncoder(), pictures, directory).path)
    with pytest.raises(FeatureCacheError, match=words) as caught:
        extract_features(SmallEncoder(), pictures, directory)
    assert "\n" not in str(caught.value)


def test_features_without_their_data_are_made_again(pictures: dict[str, Path], directory: Path) -> None:
    encoder = SmallEncoder()
    (extract_features(encoder, pictures, directory).path / "features.bin").unlink()
    extract_features(encoder, pictures, directory)
    assert encoder.seen == 14


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be written \(Not a directory\)"):
        extract_features(SmallEncoder(), {"a": make_array(1)}, tmp_path / "file" / "features")


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int], None]]:
    """Files may grow to so many bytes: what a full disk is like."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_keeps_what_is_whole(
    pictures: dict[str, Path], directory: Path, file_size_limit: Callable[[int], None]
) -> None:
    encoder = SmallEncoder(size=256)  # 10,240 bytes a row
    file_size_limit(50_000)
    with pytest.raises(StorageError, match=r"cannot be written \(File too large\); what is whole stays"):
        extract_features(encoder, pictures, directory, batch_size=2)
    assert encoder.seen == 6
    file_size_limit(resource.RLIM_INFINITY)
    cache = extract_features(encoder, pictures, directory, batch_size=2)
    assert encoder.seen == 6 + 3  # four rows were whole
    assert len(cache) == 7


def test_two_writers_at_once_are_refused_readers_are_not(pictures: dict[str, Path], directory: Path) -> None:
    encoder = SmallEncoder()
    first = {"0.png": pictures["0.png"]}
    done = extract_features(encoder, first, directory)
    refusals: list[str] = []
    read: list[FeatureCache] = []

    def meanwhile(done: int, of: int) -> None:
        if done == 4:  # this extraction holds the lock now
            with pytest.raises(FeatureCacheError) as caught:
                extract_features(SmallEncoder(), {"x": make_array(50)}, directory)
            refusals.append(str(caught.value))
            read.append(extract_features(SmallEncoder(), first, directory))

    extract_features(encoder, pictures, directory, batch_size=2, on_progress=meanwhile)
    assert refusals == [
        f"{done.path} is being written by process {os.getpid()}; "
        "wait until it is done, or use another directory."
    ]
    assert torch.equal(read[0]["0.png"], done["0.png"])
    assert len(extract_features(encoder, {"x": make_array(50)}, directory)) == 1  # the lock is free again


def test_a_writer_that_was_killed_leaves_no_lock(pictures: dict[str, Path], directory: Path) -> None:
    """A process of its own is killed by the system in the middle of its work."""
    code = (
        "import importlib.util, pathlib, sys, time\n"
        "spec = importlib.util.spec_from_file_location('extraction_test', sys.argv[1])\n"
        "module = importlib.util.module_from_spec(spec); spec.loader.exec_module(module)\n"
        "images = {path.name: path for path in sorted(pathlib.Path(sys.argv[2]).iterdir())}\n"
        "pause = lambda done, of: time.sleep(60 if done == 5 else 0)\n"
        "module.extract_features(\n"
        "    module.SmallEncoder(), images, pathlib.Path(sys.argv[3]), batch_size=2, on_progress=pause)\n"
    )
    pictures_dir = pictures["0.png"].parent
    arguments = [sys.executable, "-c", code, __file__, str(pictures_dir), str(directory)]
    process = subprocess.Popen(arguments)
    try:
        deadline = time.monotonic() + 60
        while sum(path.read_bytes().count(b"\n") for path in directory.glob("*/index.jsonl")) < 4:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        encoder = SmallEncoder()
        with pytest.raises(FeatureCacheError, match=f"being written by process {process.pid}"):
            extract_features(encoder, pictures, directory)
    finally:
        process.kill()
        process.wait()
    encoder = SmallEncoder()
    cache = extract_features(encoder, pictures, directory)
    assert encoder.seen == 3
    expected = encode_directly(encoder, list(pictures.values()), 2).half()
    torch.testing.assert_close(cache.rows(list(pictures)), expected)
