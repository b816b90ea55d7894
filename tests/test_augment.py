"""Views of images: shape, repeatability, and each kind of change by itself."""

import pytest
import torch
import torch.nn.functional as F

from pixtell.augment import ViewOptions, mix, random_views
from pixtell.errors import OptionError

PLAIN = ViewOptions(min_area=1.0, flip=0.0, colour=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """uint8 (6, 3, 48, 48), smooth, so that neighbouring pixels are alike."""
    coarse = torch.rand(6, 3, 5, 5, generator=seeded()) * 255
    return F.interpolate(coarse, (48, 48), mode="bicubic").clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("size", [32, 48, 64])
def test_views_are_bytes_of_the_size_asked_for(images: torch.Tensor, size: int) -> None:
    views = random_views(images, size, ViewOptions(), seeded())
    assert views.shape == (6, 3, size, size)
    assert views.dtype == torch.uint8


def test_the_generator_alone_decides(images: torch.Tensor) -> None:
    torch.manual_seed(1)
    first = random_views(images, 32, ViewOptions(), seeded(3))
    torch.manual_seed(2)
    assert torch.equal(random_views(images, 32, ViewOptions(), seeded(3)), first)
    assert not torch.equal(random_views(images, 32, ViewOptions(), seeded(4)), first)


def test_views_of_one_image_differ(images: torch.Tensor) -> None:
    views = random_views(images[:1].expand(8, -1, -1, -1), 32, ViewOptions(), seeded())
    assert len({view.numpy().tobytes() for view in views}) == 8


def test_no_crop_no_colour_no_mirror_is_the_image(images: torch.Tensor) -> None:
    assert torch.equal(random_views(images, 48, PLAIN, seeded()), images)


@pytest.mark.parametrize("size", [32, 64])
def test_no_crop_no_colour_no_mirror_is_the_plain_resize(images: torch.Tensor, size: int) -> None:
    views = random_views(images, size, PLAIN, seeded())
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", align_corners=False)
    assert (views.float() - resized).abs().max() <= 1


def test_a_mirror_mirrors(images: torch.Tensor) -> None:
    options = ViewOptions(min_area=1.0, flip=1.0, colour=0.0)
    assert torch.equal(random_views(images, 48, options, seeded()), images.flip(-1))


def test_half_of_the_views_are_mirrored(images: torch.Tensor) -> None:
    options = ViewOptions(min_area=1.0, flip=0.5, colour=0.0)
    views = random_views(images[:1].expand(200, -1, -1, -1), 48, options, seeded())
    plain = sum(torch.equal(view, images[0]) for view in views)
    mirrored = sum(torch.equal(view, images[0].flip(-1)) for view in views)
    assert plain + mirrored == 200
    assert 70 <= mirrored <= 130


def test_crops_keep_at_least_the_smallest_area_and_stay_inside() -> None:
    """On an image whose red is x and whose green is y, a view's values tell where its crop was."""
    ramp = torch.linspace(0, 255, 256)
    image = torch.stack([ramp.expand(256, 256), ramp[:, None].expand(256, 256), torch.zeros(256, 256)])
    images = image.to(torch.uint8)[None].expand(64, -1, -1, -1)
    options = ViewOptions(min_area=0.3, flip=0.0, colour=0.0)
    views = random_views(images, 64, options, seeded()).float()
    step = 63 / 64  # from the middle of the first to the middle of the last pixel
    width = (views[:, 0, 32, -1] - views[:, 0, 32, 0]) / 255 / step
    height = (views[:, 1, -1, 32] - views[:, 1, 0, 32]) / 255 / step
    area, shape = width * height, width / height
    assert area.min() > 0.28
    assert area.min() < 0.45
    assert area.max() > 0.85
    assert shape.min() > 0.72
    assert shape.max() < 1.38
    assert shape.std() > 0.05


def test_colours_change_as_far_as_asked(images: torch.Tensor) -> None:
    grey = torch.full((100, 3, 8, 8), 100, dtype=torch.uint8)
    views = random_views(grey, 8, ViewOptions(min_area=1.0, flip=0.0, colour=0.2), seeded())
    assert views.min() >= 80
    assert views.max() <= 120
    assert views.min() < 90
    assert views.max() > 110
    assert torch.equal(views.amin((1, 2, 3)), views.amax((1, 2, 3)))  # an even grey stays even and grey


def test_mixed_precision_moves_nothing(images: torch.Tensor) -> None:
    """In bf16 a place on the image would be up to half a pixel off."""
    plain = random_views(images, 48, ViewOptions(), seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(random_views(images, 48, ViewOptions(), seeded()), plain)


def test_a_mix_lies_between_two_views() -> None:
    views = (torch.arange(8) * 36).to(torch.uint8)[:, None, None, None].expand(8, 3, 4, 4)
    mixed = mix(views, seeded())
    assert mixed.shape == views.shape
    assert mixed.dtype == torch.uint8
    generator = seeded()
    weight = torch.rand(8, generator=generator)
    partner = torch.randperm(8, generator=generator)
    expected = [
        round(float(36 * (i * weight[i] + partner[i] * (1 - weight[i])))) for i in range(8)
    ]  # an image is one value
    assert mixed[:, 0, 0, 0].tolist() == pytest.approx(expected, abs=1)
    assert torch.equal(mixed.amin((1, 2, 3)), mixed.amax((1, 2, 3)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"min_area": 0.0}, "--min-area 0.0 is no share of an image; give a number above 0 and at most 1."),
        ({"min_area": 1.5}, "--min-area 1.5 is no share of an image; give a number above 0 and at most 1."),
        ({"colour": -0.1}, "--colour -0.1 is no share; give a number from 0 to 1."),
        ({"colour": 2.0}, "--colour 2.0 is no share; give a number from 0 to 1."),
    ],
)
def test_shares_that_are_none_are_refused(options: dict[str, float], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        ViewOptions(**options)
    assert str(caught.value) == sentence
