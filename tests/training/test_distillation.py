"""Distillation: what the teacher is asked, what the losses are, that agreement rises."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixtell.augment import ViewOptions
from pixtell.devices import Placement
from pixtell.encoders.hub import Teacher, TeacherOutput, load_teacher
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig
from pixtell.errors import EncoderError, OptionError
from pixtell.training.distillation import Distillation, DistillationOptions, class_divergence
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
    targets = (objective.pool.patches - objective.module.patch_mean) / objective.module.patch_std
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
            self.encoder = student.encoder
            self.patch_mean, self.patch_std = student.patch_mean, student.patch_std
            self.rows = pool.order[8:16]

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return (pool.patches[self.rows] - self.patch_mean) / self.patch_std

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


def test_a_teacher_with_another_grid_is_refused(images: torch.Tensor) -> None:
    class Coarse(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 64, stride=64)

        def forward(self, pixels: torch.Tensor) -> TeacherOutput:
            grid = self.conv(pixels)

            class Outputs:
                last_hidden_state = grid
                pooler_output = grid.mean((2, 3))

            return Outputs()  # type: ignore[return-value]

    half = (0.5, 0.5, 0.5)
    with pytest.raises(EncoderError) as caught:
        make(Teacher(backbone=Coarse(), classifier=None, mean=half, std=half), images)
    assert str(caught.value) == (
        "The teacher's grid has 1 cells at 64 pixels where the student's has 4; choose a teacher whose "
        "stride is 32."
    )


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
