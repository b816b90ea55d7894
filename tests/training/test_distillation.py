"""Distillation: what the teacher is asked, what the losses are, that agreement rises."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixtell.augment import ViewOptions
from pixtell.devices import Placement
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig
from pixtell.encoders.teacher import Teacher, TeacherOutput, load_teacher
from pixtell.errors import OptionError
from pixtell.training.distillation import Distillation, DistillationOptions, class_divergence, resample_grid
from pixtell.training.loop import LoopOptions, train

CPU = torch.device("cpu")
OPTIONS = DistillationOptions(view_size=64, batch_size=8, pool_views=16, reuse=3, min_area=0.5)


class CountingTeacher(Teacher):
    """Counts the views it is asked about."""

    seen = 0

    def forward(self, pixels: torch.Tensor) -> TeacherOutput:
        self.seen += len(pixels)
        return super().forward(pixels)


@pytest.fixture
def teacher(teacher_dir: Path) -> CountingTeacher:
    loaded = load_teacher(teacher_dir)
    return CountingTeacher(
        backbone=loaded.backbone, classifier=loaded.classifier, mean=loaded.mean, std=loaded.std
    )


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """uint8 (20, 3, 80, 80): each smooth, and unlike the others."""
    coarse = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0)) * 255
    return F.interpolate(coarse, (80, 80), mode="bicubic").clamp(0, 255).to(torch.uint8)


def make(
    teacher: Teacher, images: torch.Tensor, options: DistillationOptions = OPTIONS, *, width: int = 4
) -> Distillation:
    torch.manual_seed(1)
    encoder = NanoEncoder(config=NanoEncoderConfig(width=width, blocks=(1, 1, 1, 1), image_size=64))
    return Distillation(
        encoder=encoder,
        teacher=teacher,
        train_images=images,
        val_images=images[:6],
        options=options,
        device=CPU,
    )


def test_agreement_with_the_teacher_rises(
    teacher: CountingTeacher, images: torch.Tensor, tmp_path: Path, placement: Placement
) -> None:
    options = DistillationOptions(view_size=64, batch_size=16, pool_views=64, reuse=4, min_area=0.7)
    objective = make(teacher, images, options, width=8)
    objective.module.eval()
    with torch.no_grad():
        before = objective.validate()
    result = train(
        objective,
        LoopOptions(max_steps=60, learning_rate=5e-3, ema_decay=0.9, validate_every=60),
        tmp_path,
        placement,
    )
    assert result.best_value is not None
    assert set(before) == {"pooled_cosine", "top_class_agreement"}
    assert before["pooled_cosine"] < 0.3
    assert result.best_value > 0.6


def test_the_teacher_is_asked_once_a_view_and_once_a_validation_image(
    teacher: CountingTeacher, images: torch.Tensor
) -> None:
    objective = make(teacher, images)
    assert objective.steps_per_pool == 6
    teacher.seen = 0
    for step in range(6):
        objective.loss(step)
    assert teacher.seen == 16
    objective.loss(6)
    assert teacher.seen == 32
    objective.module.eval()
    with torch.no_grad():
        for _ in range(2):
            objective.validate()
    assert teacher.seen == 32 + 6


def test_every_pass_over_a_pool_shows_every_view_once(teacher: CountingTeacher, images: torch.Tensor) -> None:
    objective = make(teacher, images)
    objective.loss(0)
    assert objective.pool is not None
    passes = objective.pool.order.view(3, 16)
    assert all(sorted(order.tolist()) == list(range(16)) for order in passes)
    assert len({tuple(order.tolist()) for order in passes}) == 3


def test_a_step_is_the_same_wherever_the_run_comes_from(
    teacher: CountingTeacher, images: torch.Tensor
) -> None:
    """Step 7 lies in the second pool: reached by itself, or after the first pool."""
    alone = make(teacher, images)
    after = make(teacher, images)
    for step in (0, 5, 6):
        after.loss(step)
    alone.module.load_state_dict(after.module.state_dict())
    assert torch.equal(alone.loss(7)[0], after.loss(7)[0])


def test_targets_are_standardised_by_the_teachers_own_spread(
    teacher: CountingTeacher, images: torch.Tensor
) -> None:
    objective = make(teacher, images)
    objective.loss(0)
    assert objective.pool is not None
    targets = (objective.pool.seen.patches - objective.module.patch_mean) / objective.module.patch_std
    lively = objective.module.patch_std > 2e-3  # a channel that never fires has no spread
    assert targets.shape[1:] == (4, objective.module.patch_mean.shape[0])
    assert targets[..., lively].mean().abs() < 0.3
    assert 0.6 < targets[..., lively].std() < 1.6


def test_a_perfect_student_has_no_loss(teacher: CountingTeacher, images: torch.Tensor) -> None:
    """A student that answers what the teacher saw: all three losses are zero, agreement is whole."""
    objective = make(teacher, images)
    objective.loss(0)
    pool = objective.pool
    assert pool is not None

    class Parrot(nn.Module):
        """Knows the rows that will be asked for."""

        def __init__(self, student: nn.Module) -> None:
            super().__init__()
            self.standardise = student.standardise
            self.pooled_statistics = student.pooled_statistics
            self.rows = pool.order[8:16]

        def forward(self, pixels: torch.Tensor) -> object:
            return self.standardise(pool.seen.at(self.rows))

    objective.module = Parrot(objective.module)  # type: ignore[assignment]
    loss, numbers = objective.loss(1)
    assert loss.item() == pytest.approx(0, abs=1e-4)
    assert float(numbers["cosine"]) == pytest.approx(1, abs=1e-4)
    assert float(numbers["patch_loss"]) == 0


def test_the_class_loss_is_the_divergence_at_the_temperature() -> None:
    student, wanted = torch.randn(5, 7), torch.randn(5, 7)
    of_teacher = torch.distributions.Categorical(logits=wanted / 2)
    of_student = torch.distributions.Categorical(logits=student / 2)
    divergence = torch.distributions.kl_divergence(of_teacher, of_student).mean() * 4
    torch.testing.assert_close(class_divergence(student, wanted, 2.0), divergence)


def test_a_backbone_without_classes_teaches_its_patches(
    teacher: CountingTeacher, images: torch.Tensor
) -> None:
    plain = Teacher(backbone=teacher.backbone, classifier=None, mean=teacher.mean, std=teacher.std)
    objective = make(plain, images)
    loss, numbers = objective.loss(0)
    expected = 3 * numbers["patch_loss"] + 1 - numbers["cosine"]
    assert loss.item() == pytest.approx(float(expected))
    objective.module.eval()
    with torch.no_grad():
        assert set(objective.validate()) == {"pooled_cosine"}


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_blends_are_a_share_of_the_batches(teacher: CountingTeacher, share: float) -> None:
    """On images of one colour each, plain views have few colours and blends have many."""
    flat = (torch.arange(4) * 60).to(torch.uint8)[:, None, None, None].expand(4, 3, 40, 40)
    options = DistillationOptions(view_size=32, batch_size=8, pool_views=512, reuse=1, mixup_share=share)
    objective = make(teacher, flat, options)
    objective.view_options = ViewOptions(colour=0.0)
    objective.loss(0)
    assert objective.pool is not None
    colours = objective.pool.views[:, 0, 0, 0].view(4, 128)
    blended = [not set(batch.tolist()) <= {0, 60, 120, 180} for batch in colours]
    assert blended == {0.0: [False] * 4, 0.5: [False, True] * 2, 1.0: [True] * 4}[share]


@pytest.mark.parametrize(("own", "side"), [(4, 2), (7, 3), (3, 3), (2, 3), (1, 2)])
def test_a_grid_is_resampled_in_place(own: int, side: int) -> None:
    """A ramp from left to right stays one, row for row; its mean stays; equal grids stay as they are."""
    ramp = torch.linspace(0, 1, own) if own > 1 else torch.tensor([0.5])
    columns = ramp.expand(own, own)  # (n, n): the column alone counts
    patches = torch.stack((columns, columns.T), dim=-1).reshape(1, own**2, 2)
    found = resample_grid(patches, side).view(side, side, 2)
    assert found.mean() == pytest.approx(0.5, abs=1e-6)
    for channel, axis in ((0, 1), (1, 0)):
        one = found[..., channel]
        torch.testing.assert_close(one, one.select(1 - axis, 0).unsqueeze(1 - axis).expand_as(one))
        if own > 1:
            assert (one.diff(dim=axis) > 0).all()
    if own == side:
        assert resample_grid(patches, side) is patches


def test_means_of_cells_by_hand() -> None:
    """A grid of 4 x 4 to 2 x 2: 0, 1, 4 and 5 are the first cell's."""
    found = resample_grid(torch.arange(16.0).view(1, 16, 1), 2)
    assert found.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]


@pytest.mark.parametrize(("model_type", "head"), [("vit", ""), ("convnext", "ForImageClassification")])
def test_a_teacher_of_any_kind_is_followed(
    model_type: str,
    head: str,
    save_small: Callable[..., Any],
    images: torch.Tensor,
    tmp_path: Path,
    placement: Placement,
) -> None:
    """Another size, another grid, pooled features of its own: the student comes to see them."""
    save_small(model_type, tmp_path / "teacher", head)
    options = DistillationOptions(view_size=64, batch_size=16, pool_views=64, reuse=4, min_area=0.7)
    objective = make(load_teacher(tmp_path / "teacher", (64, 64)), images, options, width=8)
    objective.module.eval()
    with torch.no_grad():
        before = objective.validate()
    assert ("top_class_agreement" in before) == bool(head)
    result = train(
        objective,
        LoopOptions(max_steps=60, learning_rate=5e-3, ema_decay=0.9, validate_every=60),
        tmp_path / "run",
        placement,
    )
    assert result.best_value is not None
    assert before["pooled_cosine"] < 0.3
    assert result.best_value > 0.6


def test_student_and_teacher_see_one_view(images: torch.Tensor) -> None:
    """A teacher that shows what it is shown, at twice the size: its patches are the student's own view."""

    class Mirror(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(()))

        def forward(self, pixels: torch.Tensor) -> Any:
            return SimpleNamespace(last_hidden_state=F.adaptive_avg_pool2d(pixels, 4), pooler_output=None)

    teacher = Teacher(backbone=Mirror(), classifier=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), size=128)
    objective = make(teacher, images)
    objective.loss(0)
    pool = objective.pool
    assert pool is not None
    cells = F.adaptive_avg_pool2d(pool.views.float() / 255, 2).flatten(2).transpose(1, 2)  # (V, 4, 3)
    torch.testing.assert_close(pool.seen.patches, cells, atol=0.02, rtol=0)
    assert (cells.std(dim=0) > 0.03).all()  # views are not all alike


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"view_size": 100}, "--view-size 100 is not a multiple of 32; choose for example 128."),
        (
            {"pool_views": 100, "reuse": 1},
            "--pool-views 100 times --reuse 1 is not a multiple of --batch-size 64; choose powers of two.",
        ),
    ],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, int], sentence: str) -> None:
    with pytest.raises(OptionError) as caught:
        DistillationOptions(**options)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
