"""Every kind of picture to RGB, and every refusal in one sentence."""

import io
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from pixtell.errors import ImageError
from pixtell.images import MAX_IMAGE_PIXELS, load_image

Array = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    """A cat, 97 x 61 pixels: odd sides, so that chroma and blocks do not end on a boundary."""
    import skimage

    path = Path(skimage.__file__).parent / "data" / "chelsea.png"
    with Image.open(path) as image:
        return image.convert("RGB").resize((97, 61))


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pillow_rgb(data: bytes) -> Array:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(ImageOps.exif_transpose(image).convert("RGB"))


def largest_difference(one: Array, other: Array) -> int:
    assert one.shape == other.shape
    assert one.dtype == other.dtype == np.uint8
    return int(np.abs(one.astype(int) - other.astype(int)).max())


def refusal(source: object) -> ImageError:
    with pytest.raises(ImageError) as caught:
        load_image(source)  # type: ignore[arg-type]
    message = str(caught.value)
    assert message == f"{caught.value.name}: {caught.value.reason}"
    assert "\n" not in message
    assert message.endswith(".")
    assert "Traceback" not in message
    return caught.value


# ---- formats and modes


@pytest.mark.parametrize(
    "kind", ["PNG", "GIF", "BMP", "TIFF", "PPM", "TGA", "WEBP", "JPEG", "JPEG2000", "PCX", "SGI", "ICO"]
)
def test_a_format_reads_as_pillow_reads_it(photo: Image.Image, kind: str, tmp_path: Path) -> None:
    data = encode(photo, kind)
    path = tmp_path / "picture"  # no suffix: the bytes say what it is
    path.write_bytes(data)
    expected = pillow_rgb(data)
    for source in (data, path, str(path), Image.open(io.BytesIO(data))):
        assert largest_difference(load_image(source), expected) <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "HSV", "RGBX", "RGB"])
def test_an_opaque_mode_reads_as_pillow_converts_it(photo: Image.Image, mode: str) -> None:
    image = photo.convert(mode)
    assert largest_difference(load_image(image), np.array(image.convert("RGB"))) == 0


def test_sixteen_bits_are_scaled_not_cut(tmp_path: Path) -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(ramp / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        image = load_image(encode(Image.fromarray(ramp), kind))
        assert image.shape == (256, 256, 3)
        assert np.array_equal(image, np.repeat(expected[:, :, None], 3, axis=2))
    portable_greymap = b"P5 256 256 65535\n" + ramp.astype(">u2").tobytes()
    assert np.array_equal(load_image(portable_greymap)[:, :, 0], expected)
    big_endian = Image.frombytes("I;16B", (256, 256), ramp.astype(">u2").tobytes())
    assert np.array_equal(load_image(big_endian)[:, :, 0], expected)


def test_wider_integers_fill_the_range() -> None:
    values = np.array([[0, 1_000_000, 2_550_000]], dtype=np.int32)
    assert load_image(Image.fromarray(values))[0, :, 0].tolist() == [0, 100, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.4, 300.0], [0, 100, 255]),
        ([-1.0, np.nan, 1.0], [0, 0, 255]),
    ],
)
def test_a_float_tiff_is_read_by_its_range(values: list[float], expected: list[int]) -> None:
    data = encode(Image.fromarray(np.array([values], dtype=np.float32)), "TIFF")
    assert load_image(data)[0, :, 0].tolist() == expected


def test_lab_tiff_goes_through_its_profile(photo: Image.Image) -> None:
    lab_profile, srgb_profile = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    lab = ImageCms.profileToProfile(photo, srgb_profile, lab_profile, outputMode="LAB")
    image = load_image(encode(lab, "TIFF"))
    assert np.abs(image.astype(int) - np.array(photo, dtype=int)).mean() < 3  # the road there rounds, too


def test_cmyk_jpeg_and_tiff(photo: Image.Image) -> None:
    cmyk = photo.convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        data = encode(cmyk, kind)
        assert largest_difference(load_image(data), pillow_rgb(data)) == 0


def test_alpha_is_laid_on_white() -> None:
    red = np.zeros((1, 3, 4), dtype=np.uint8)
    red[0, :, 0] = 200
    red[0, :, 3] = (255, 0, 102)  # opaque, clear, 40 %
    expected = [[200, 0, 0], [255, 255, 255], [233, 153, 153]]
    for source in (
        red,
        Image.fromarray(red),
        encode(Image.fromarray(red), "PNG"),
        encode(Image.fromarray(red), "TIFF"),
    ):
        assert load_image(source)[0].tolist() == expected
    grey = Image.fromarray(red).convert("LA")
    assert load_image(encode(grey, "PNG"))[0, 1].tolist() == [255, 255, 255]
    premultiplied = Image.fromarray(red).convert("RGBa")
    assert load_image(premultiplied)[0, 1].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_palette_entry_is_white(kind: str) -> None:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encode(image, kind, transparency=1)
    assert load_image(data)[0].tolist() == [[10, 20, 30], [255, 255, 255], [70, 80, 90]]


def test_a_transparent_grey_or_colour_is_white() -> None:
    assert load_image(encode(Image.new("L", (1, 1), 7), "PNG", transparency=7)).tolist() == [[[255] * 3]]
    assert load_image(encode(Image.new("RGB", (1, 1), (7, 8, 9)), "PNG", transparency=(7, 8, 9))).min() == 255


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert load_image(data)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_undone(photo: Image.Image, kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo, kind, exif=exif)
    assert largest_difference(load_image(data), pillow_rgb(data)) <= 2
    assert load_image(data).shape[:2] == ((61, 97) if orientation < 5 else (97, 61))


def test_orientation_in_big_endian_exif_and_in_xmp(photo: Image.Image) -> None:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    for options in ({"exif": exif}, {"xmp": xmp}):
        data = encode(photo, "JPEG", **options)
        assert load_image(data).shape == (97, 61, 3)
        assert largest_difference(load_image(data), pillow_rgb(data)) <= 2


def test_a_broken_exif_block_costs_only_the_orientation(photo: Image.Image) -> None:
    for exif in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0", b"Exif\0\0XX"):
        assert load_image(encode(photo, "JPEG", exif=exif)).shape == (61, 97, 3)


# ---- two decoders


@pytest.mark.parametrize(
    "options", [{"quality": 30}, {"quality": 95, "subsampling": 0}, {"progressive": True}]
)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_simplejpeg_equals_pillow(photo: Image.Image, mode: str, options: dict[str, int]) -> None:
    pytest.importorskip("simplejpeg")
    data = encode(photo.convert(mode), "JPEG", **options)
    assert largest_difference(load_image(data), load_image(Image.open(io.BytesIO(data)))) <= 2


def test_without_simplejpeg_jpegs_still_open(photo: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(photo, "JPEG")
    fast = load_image(data)
    monkeypatch.setitem(sys.modules, "simplejpeg", None)  # an import of it now fails, as where it is absent
    assert largest_difference(load_image(data), fast) <= 2


def test_one_jpeg_takes_one_thread_and_no_pillow(photo: Image.Image, tmp_path: Path) -> None:
    """What makes a cold start slow: imports, and OpenMP teams for a single image."""
    pytest.importorskip("simplejpeg")
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "a.jpg").write_bytes(encode(photo.resize((900, 600)), "JPEG", exif=exif))
    code = (
        "import sys, pathlib; from pixtell.images import Preprocess, load_image\n"
        "tasks = lambda: len(list(pathlib.Path('/proc/self/task').glob('*')))\n"
        "before = tasks()\n"
        "p = Preprocess(size=224, resize='shortest_side', mean=(0, 0, 0), std=(1, 1, 1))\n"
        "image = p.resize_image(load_image('a.jpg'))\n"
        "print(tuple(image.shape), 'PIL' in sys.modules, tasks() - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "(3, 224, 224) False 0"


# ---- arrays


def test_arrays_are_taken_as_they_are(photo: Image.Image) -> None:
    array = np.array(photo)
    assert load_image(array) is array
    grey = array[:, :, 0]
    assert np.array_equal(load_image(grey), np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), "float32"),
        (np.zeros((4, 4, 3), dtype=np.uint16), "uint16"),
        (np.zeros((4, 4, 2), dtype=np.uint8), "(4, 4, 2)"),
        (np.zeros((3, 4, 4, 3), dtype=np.uint8), "(3, 4, 4, 3)"),
        (np.zeros((0, 4, 3), dtype=np.uint8), "no pixels"),
    ],
)
def test_other_arrays_are_refused(array: NDArray[np.generic], words: str) -> None:
    assert words in refusal(array).reason


def test_what_is_no_image_at_all_is_refused() -> None:
    error = refusal(17)
    assert error.name == "int"
    assert "give a path" in error.reason


# ---- refusals


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it is empty (0 bytes)"),
        (b"just some text, no picture", "not an image"),
        (b"%PDF-1.7 ...", "not an image"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "video"),
        (b"\xff\x0a\x00\x00", "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg">', "SVG"),
        (b"\xff\xd8\xff\xe0\0\x10JF", "truncated"),
    ],
)
def test_what_is_no_readable_image_is_named(data: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "a picture.jpg"
    path.write_bytes(data)
    error = refusal(path)
    assert error.name == str(path)
    assert words in error.reason
    assert refusal(data).name == "image bytes"


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused(photo: Image.Image, kind: str, share: float) -> None:
    data = encode(photo, kind)
    assert "truncated" in refusal(data[: int(len(data) * share)]).reason
    assert "truncated" in refusal(encode(photo.convert("CMYK"), "JPEG")[:700]).reason


def test_missing_folder_pipe_and_null_in_a_path(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.jpg").reason
    assert "folder" in refusal(tmp_path).reason
    assert "cannot be read" in refusal("a\0b.jpg").reason
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe").reason


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux: a file whose reading fails")
def test_a_failing_read_is_told() -> None:
    assert "cannot be read (Input/output error)" in refusal("/proc/self/mem").reason


@pytest.fixture
def ordinary_user() -> Iterator[None]:
    """The superuser may read everything, so a test of permissions steps down for its time."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_no_permission(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\xff\xd8\xff")
    path.chmod(0)
    request.getfixturevalue("ordinary_user")
    assert "permission denied" in refusal(path).reason


# ---- sizes


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bomb(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + png_chunk(b"IEND", b"")
    )


def jpeg_bomb(width: int, height: int) -> bytes:
    data = encode(Image.new("RGB", (8, 8)), "JPEG")
    frame = data.index(b"\xff\xc0")
    return data[: frame + 5] + struct.pack(">HH", height, width) + data[frame + 9 :]


def bmp_bomb(width: int, height: int) -> bytes:
    data = encode(Image.new("RGB", (8, 8)), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


@pytest.mark.parametrize("bomb", [png_bomb, jpeg_bomb, bmp_bomb])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(bomb: Callable[[int, int], bytes]) -> None:
    error = refusal(bomb(60_000, 60_000))  # 10 GB as RGB
    assert f"limit of {MAX_IMAGE_PIXELS:,}" in error.reason
    error = refusal(bomb(MAX_IMAGE_PIXELS // 2 + 1, 2)) if bomb is not jpeg_bomb else error
    assert f"limit of {MAX_IMAGE_PIXELS:,}" in error.reason


def test_a_file_beyond_any_picture_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.tif"
    with path.open("wb") as stream:
        stream.truncate(3 * 1024**3)  # sparse: takes no room
    assert "3,221,225,472 bytes are over the limit" in refusal(path).reason


def test_a_picture_without_pixels_is_refused() -> None:
    assert "0 pixels" in refusal(jpeg_bomb(8, 0)).reason


# ---- whatever comes


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF"])
def test_any_damage_gives_an_image_or_one_sentence(photo: Image.Image, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    whole = encode(photo.resize((24, 16)), kind, **({} if kind == "GIF" else {"exif": exif}))
    generator = np.random.default_rng(5)
    messages = []
    for _ in range(120):
        data = bytearray(whole)
        for position in generator.integers(0, min(len(data), 400), size=generator.integers(1, 6)):
            data[position] = generator.integers(0, 256)
        try:
            image = load_image(bytes(data))
        except ImageError as error:
            messages.append(str(error))
        else:
            assert image.dtype == np.uint8
            assert image.ndim == 3
            assert image.shape[2] == 3
    assert messages
    assert [message for message in messages if not re.fullmatch(r"image bytes: [^\n]+\.", message)] == []
