"""Which images a step sees: all of them once an epoch, and parts that make up an update."""

import pytest
import torch

from pixtell.training.image_batches import ImageBatches


def test_an_epoch_has_every_image_once() -> None:
    batches = ImageBatches(num_images=10, batch_size=4, accumulate=1, seed=3)
    assert batches.steps_per_epoch == 3
    first, second = (torch.cat([batches[epoch * 3 + step].rows for step in range(3)]) for epoch in (0, 1))
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(10))
    assert first.tolist() != second.tolist()
    assert [batches[step].epoch for step in (0, 2, 3)] == [0, 0, 1]
    assert [batches[step].passes for step in (0, 2, 3)] == pytest.approx([1 / 3, 1, 4 / 3])


def test_a_step_depends_on_its_number_and_the_seed_alone() -> None:
    one, other = (ImageBatches(num_images=9, batch_size=2, accumulate=1, seed=7) for _ in range(2))
    for step in range(12):
        one[step]
    assert torch.equal(one[4].rows, other[4].rows)
    assert not torch.equal(
        ImageBatches(num_images=9, batch_size=9, accumulate=1, seed=8)[0].rows, one[0].rows
    )


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_the_parts_of_an_update_are_one_large_batch(accumulate: int) -> None:
    parts = ImageBatches(num_images=17, batch_size=2, accumulate=accumulate, seed=1)
    whole = ImageBatches(num_images=17, batch_size=2 * accumulate, accumulate=1, seed=1)
    assert parts.steps_per_epoch == whole.steps_per_epoch
    for step in range(2 * whole.steps_per_epoch):
        calls = [parts[step * accumulate + part] for part in range(accumulate)]
        assert torch.equal(torch.cat([call.rows for call in calls]), whole[step].rows)
        for call in calls:
            assert len(call.rows) <= 2
            assert torch.equal(call.update_rows, whole[step].rows)
