"""Preprocess against Pillow and against transformers' CLIP processor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pixtell.errors import EncoderError
from pixtell.images import Preprocess, load_image

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def make_preprocess(size: int, resize: str, interpolation: str = "bicubic") -> Preprocess:
    return Preprocess(size=size, resize=resize, mean=CLIP_MEAN, std=CLIP_STD, interpolation=interpolation)  # type: ignore[arg-type]


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pillow_centre(image: NDArray[np.uint8], size: int, interpolation: str) -> NDArray[np.uint8]:
    """The whole picture resized by Pillow, then cropped: what "shortest_side" must equal. (3, S, S)."""
    height, width = image.shape[:2]
    short = min(height, width)
    shape = (int(size * width / short), int(size * height / short))
    resized = np.array(Image.fromarray(image).resize(shape, RESAMPLE[interpolation]))
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    return resized[top : top + size, left : left + size].transpose(2, 0, 1)


def largest_difference(tensor: torch.Tensor, array: NDArray[np.uint8]) -> int:
    assert tensor.dtype == torch.uint8
    assert tensor.is_contiguous()
    assert tuple(tensor.shape) == array.shape
    return int(np.abs(tensor.numpy().astype(int) - array.astype(int)).max())


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    "shape",
    [
        (64, 64),
        (63, 97),
        (97, 63),
        (7, 9),
        (300, 200),
        (33, 32),
        (32, 32),
        (10, 500),
        (500, 10),
        (9, 37),
        (1, 1),
    ],
)
def test_shortest_side_equals_pillow_then_crop(shape: tuple[int, int], interpolation: str) -> None:
    """Up and down, on both sides of the aspect ratio where the crop comes first."""
    image = noise(*shape)
    resized = make_preprocess(32, "shortest_side", interpolation).resize_image(image)
    assert largest_difference(resized, pillow_centre(image, 32, interpolation)) <= 1


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(64, 64), (63, 97), (7, 9), (2, 1000), (1, 1)])
def test_square_equals_pillow(shape: tuple[int, int], interpolation: str) -> None:
    image = noise(*shape)
    expected = np.array(Image.fromarray(image).resize((32, 32), RESAMPLE[interpolation])).transpose(2, 0, 1)
    assert largest_difference(make_preprocess(32, "square", interpolation).resize_image(image), expected) <= 1


def test_arrays_torch_does_not_take_are_resized_all_the_same() -> None:
    image = noise(20, 30)
    preprocess = make_preprocess(8, "square")
    expected = preprocess.resize_image(image)
    mirrored = np.ascontiguousarray(image[:, ::-1])[:, ::-1]  # the same picture, with a negative stride
    frozen = image.copy()
    frozen.flags.writeable = False
    transposed = np.ascontiguousarray(image.swapaxes(0, 1)).swapaxes(0, 1)
    for same in (mirrored, frozen, transposed):
        assert torch.equal(preprocess.resize_image(same), expected)


@pytest.mark.parametrize("shape", [(2, 400_000), (400_000, 2), (1, 3_000_000)])
def test_an_extreme_aspect_ratio_costs_nothing(shape: tuple[int, int]) -> None:
    """Resized before the crop, these would take 30 GB and more."""
    image = np.zeros((*shape, 3), dtype=np.uint8)
    long_axis = int(shape[1] > shape[0])
    middle = [slice(None), slice(None)]
    middle[long_axis] = slice(max(shape) // 2 - 20, max(shape) // 2 + 20)
    image[tuple(middle)] = (10, 20, 30)
    resized = make_preprocess(224, "shortest_side").resize_image(image)
    assert tuple(resized.shape) == (3, 224, 224)
    assert torch.equal(
        resized, torch.tensor([10, 20, 30], dtype=torch.uint8).view(3, 1, 1).expand(3, 224, 224)
    )


@pytest.mark.parametrize(
    "name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "camera.png", "moon.png"]
)
def test_equals_the_clip_processor_of_transformers(name: str) -> None:
    import skimage
    from transformers import CLIPImageProcessorPil

    image = load_image(Path(skimage.__file__).parent / "data" / name)
    pixels = make_preprocess(224, "shortest_side")(image)  # (1, 3, S, S)
    expected = CLIPImageProcessorPil()(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    assert pixels.shape == expected.shape == (1, 3, 224, 224)
    grey_levels = (pixels - expected).abs() * torch.tensor(CLIP_STD).view(3, 1, 1) * 255
    assert grey_levels.max() <= 2.001


def test_normalise_is_the_plain_formula_and_leaves_its_input_alone() -> None:
    batch = torch.randint(0, 256, (2, 3, 5, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    preprocess = make_preprocess(5, "square")
    expected = (batch.double() / 255 - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(
        3, 1, 1
    )
    torch.testing.assert_close(preprocess.normalise(batch), expected.float())
    augmented = batch.float()
    torch.testing.assert_close(preprocess.normalise(augmented), expected.float())
    assert torch.equal(augmented, batch.float())


def test_json_and_back() -> None:
    preprocess = make_preprocess(48, "square", "bilinear")
    assert Preprocess.from_json(preprocess.to_json()) == preprocess
    without_default = {key: value for key, value in preprocess.to_json().items() if key != "interpolation"}
    assert Preprocess.from_json(without_default).interpolation == "bicubic"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 0}, "size 0 is outside 1..4096"),
        ({"size": "large"}, "needs size, resize, mean and std"),
        ({"resize": "squash"}, "'squash' is unknown; use one of: square, shortest_side"),
        ({"interpolation": "nearest"}, "'nearest' is unknown; use one of: bicubic, bilinear"),
        ({"mean": [0.5]}, "three numbers each"),
        ({"std": [0.5, 0.5, 0.0]}, "std above 0"),
        ({"std": None}, "needs size, resize, mean and std"),
        ({"crop": True}, "crop"),
    ],
)
def test_a_wrong_value_gives_one_sentence(change: dict[str, object], words: str) -> None:
    value = {**make_preprocess(8, "square").to_json(), **change}
    with pytest.raises(EncoderError) as caught:
        Preprocess.from_json(value)
    assert words in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_missing_value_gives_one_sentence() -> None:
    with pytest.raises(EncoderError, match=r"'mean'.*needs size, resize, mean and std"):
        Preprocess.from_json({"size": 8, "resize": "square", "std": [1, 1, 1]})


@pytest.mark.parametrize("resize", ["square", "shortest_side"])
@pytest.mark.parametrize(
    ("height", "width"), [(60, 60), (60, 90), (90, 60), (61, 200), (40, 400), (400, 40), (7, 5)]
)
def test_the_seen_box_is_what_is_not_cropped(resize: str, height: int, width: int) -> None:
    """White outside the box is not seen; the box is no smaller than it could be."""
    preprocess = make_preprocess(32, resize, "bilinear")
    left, top, right, bottom = preprocess.seen_box(height, width)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if resize == "square":
        assert (left, top, right, bottom) == (0, 0, width, height)
    else:
        assert right - left == pytest.approx(bottom - top, rel=0.1)
        assert min(right - left, bottom - top) == pytest.approx(min(height, width), rel=0.05)
    gradient = np.linspace(0, 255, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    seen = preprocess.resize_image(np.rint(gradient).astype(np.uint8))[0].float()  # (32, 32)
    step = 255 / width * max(1, (right - left) / 32)  # of one output pixel
    assert float(seen[:, 0].mean()) == pytest.approx(255 * left / width, abs=1.5 * step + 1)
    assert float(seen[:, -1].mean()) == pytest.approx(255 * right / width, abs=1.5 * step + 1)
