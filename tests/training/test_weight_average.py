"""The average of weights: its arithmetic, and that a swap gives back what it took."""

import contextlib

import pytest
import torch
from torch import nn

from pixtell.training.weight_average import WeightAverage


def make_module() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1).requires_grad_(False))


def test_the_mean_follows_with_a_decay_that_rises() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(module.weight)
    average = WeightAverage(module, decay=0.7)
    mean = 0.0
    for step, (weight, decay) in enumerate([(1.0, 1 / 2), (2.0, 2 / 3), (4.0, 0.7), (8.0, 0.7)]):
        nn.init.constant_(module.weight, weight)
        average.update(step)
        mean = decay * mean + (1 - decay) * weight
        with average:
            assert module.weight.item() == pytest.approx(mean)
        assert module.weight.item() == weight


def test_statistics_are_averaged_the_frozen_and_the_counts_are_not() -> None:
    average = WeightAverage(make_module(), decay=0.9)
    assert set(average.mean) == {
        "0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var"
    }  # fmt: skip


def test_an_error_inside_gives_the_weights_back() -> None:
    module = make_module()
    average = WeightAverage(module, decay=0.9)
    nn.init.ones_(module[0].weight)
    with contextlib.suppress(ZeroDivisionError), average:
        assert not torch.equal(module[0].weight, torch.ones(3, 2))
        raise ZeroDivisionError
    assert torch.equal(module[0].weight, torch.ones(3, 2))


def test_an_optimizer_keeps_its_hold_on_the_weights() -> None:
    """The swap copies in place: parameters stay the same objects."""
    module = make_module()
    before = [id(parameter) for parameter in module.parameters()]
    with WeightAverage(module, decay=0.9):
        pass
    assert [id(parameter) for parameter in module.parameters()] == before
