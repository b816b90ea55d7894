"""Self-critical training: its arithmetic by hand, its gradient against the exact one, and that it helps."""

import itertools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixtell.batching import encode_captions
from pixtell.decoding import DecodingOptions
from pixtell.devices import Placement
from pixtell.errors import TrainingError
from pixtell.evaluation import validation_scores
from pixtell.models import CaptionModel, build_model
from pixtell.tokenizers import WordTokenizer
from pixtell.training.cross_entropy import CrossEntropy
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import LoopOptions, train
from pixtell.training.rewards import CiderDReward, Drawn, Reward
from pixtell.training.scst import SelfCritical, advantages

CPU = torch.device("cpu")
WORDS = WordTokenizer(["<eos>", "<unk>", "a", "b"])


class TensorFeatures:
    """Features of all images, in memory; `module` learns along."""

    def __init__(self, features: Tensor, module: nn.Module | None = None) -> None:
        self.features = features
        self.module = module

    def __call__(self, rows: Tensor, epoch: int) -> Tensor:
        found = self.features[rows]
        return found if self.module is None else self.module(found)


class ByText:
    """A reward that is a table: text and whether it is finished -> number."""

    def __init__(self, value: Callable[[str, bool], float]) -> None:
        self.value = value

    def __call__(self, rows: Sequence[int], drawn: Drawn) -> list[list[float]]:
        return [[self.value(one.text, one.finished) for one in captions] for captions in drawn]


def make_objective(
    model: CaptionModel,
    features: Tensor,
    reward: Reward,
    *,
    module: nn.Module | None = None,
    tokenizer: WordTokenizer = WORDS,
    num_samples: int = 5,
    max_tokens: int = 2,
    **batches: int,
) -> SelfCritical:
    sizes = {"num_images": len(features), "batch_size": len(features), "accumulate": 1, "seed": 0, **batches}
    return SelfCritical(
        model=model,
        features=TensorFeatures(features, module),
        tokenizer=tokenizer,
        reward=reward,
        batches=ImageBatches(**sizes),
        num_samples=num_samples,
        max_tokens=max_tokens,
        device=CPU,
        evaluate=lambda: {"CIDEr-D": 0.0},
        save=lambda directory: None,
    )


def make_lstm(**sizes: Any) -> CaptionModel:
    torch.manual_seed(0)
    return build_model("lstm", {"feature_dim": 3, "vocab_size": 4, "width": 4, **sizes})


def test_advantages_by_hand() -> None:
    rewards = torch.tensor([[1.0, 2.0, 6.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    expected = [[1 - 4, 2 - 3.5, 6 - 1.5], [0, 0, 0]]
    assert torch.allclose(advantages(rewards), torch.tensor(expected, dtype=torch.float64))


# every caption over eos (0) and the words a (2), b (3), of two tokens at most
CAPTIONS = [(0,), *((word, last) for word in (2, 3) for last in (0, 2, 3))]


def earned(text: str, finished: bool) -> float:
    return {"": 0.3, "a": 1.0, "b": -2.0}.get(text, 0.5) + (0.7 if finished else len(text) * 0.1)


def exact_gradient(model: CaptionModel, features: Tensor) -> list[Tensor]:
    """Of - E[reward], every caption enumerated; the unknown word is never said."""
    expected = torch.zeros(())
    for caption in CAPTIONS:
        logits = model(features[:1], torch.tensor([caption]))[0]  # (T, V)
        logits = torch.cat((logits[:, :1], torch.full_like(logits[:, 1:2], -math.inf), logits[:, 2:]), 1)
        log_prob = logits.log_softmax(-1)[range(len(caption)), list(caption)].sum()
        text = WORDS.decode([token for token in caption if token])
        expected = expected - log_prob.exp() * earned(text, caption[-1] == 0)
    return list(torch.autograd.grad(expected, list(model.parameters())))


@pytest.mark.parametrize("family", ["lstm", "clipcap"])
def test_the_gradient_is_that_of_the_expected_reward(family: str) -> None:
    """REINFORCE with the others as a baseline has no bias: over 40,000 draws it comes near the exact one."""
    model = make_lstm(dropout=0.5)
    if family == "clipcap":
        gpt2 = {"vocab_size": 4, "width": 4, "num_layers": 1, "num_heads": 1, "max_positions": 8}
        model = build_model("clipcap", {"feature_dim": 3, "gpt2": gpt2, "prefix_length": 2})
        for parameter in model.parameters():
            parameter.data.mul_(10)
    features = torch.tensor([[1.0, -0.5, 2.0]])
    objective = make_objective(model, features.expand(4000, -1), ByText(earned))
    objective.module.train()
    sums = [torch.zeros_like(parameter) for parameter in model.parameters()]
    calls = 2
    for call in range(calls):
        model.zero_grad()
        objective.loss(call)[0].backward()  # type: ignore[no-untyped-call]
        for total, parameter in zip(sums, model.parameters(), strict=True):
            if parameter.grad is not None:
                total += parameter.grad / calls
    found = torch.cat([total.flatten() for total in sums])
    expected = torch.cat([part.flatten() for part in exact_gradient(model, features)])
    assert (found - expected).norm() < 0.05 * expected.norm()


def test_a_constant_reward_teaches_nothing() -> None:
    model = make_lstm()
    loss, _ = make_objective(model, torch.randn(6, 3), ByText(lambda text, finished: 3.0)).loss(0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_drawing_and_gradient_see_one_model_without_dropout() -> None:
    """The log-probabilities that carry the gradient are those with which the captions were drawn."""
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    objective = make_objective(
        make_lstm(dropout=0.5), torch.randn(6, 3), ByText(earned), module=module, max_tokens=4
    )
    objective.module.train()
    first = objective.loss(0)[0]
    objective.module.train()
    assert torch.equal(first, objective.loss(0)[0])
    assert not torch.equal(first, objective.loss(1)[0])
    first.backward()  # type: ignore[no-untyped-call]
    assert module[0].weight.grad is not None
    assert module[0].weight.grad.any()  # end to end


def test_it_says_what_was_drawn() -> None:
    model = make_lstm()
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([-9.0, 99.0, 9.0, -9.0]))  # type: ignore[union-attr, operator]
    _, numbers = make_objective(model, torch.randn(3, 3), ByText(lambda text, finished: len(text))).loss(0)
    assert numbers == {
        "epoch": 1.0,
        "samples/reward": 3.0,  # "a a"
        "samples/distinct_share": pytest.approx(1 / 15),
        "samples/bad_ending_rate": 1.0,
        "samples/mean_tokens": 2.0,
    }


def test_parts_of_an_update_are_shares_of_its_mean() -> None:
    """A third of what each image would give alone; the fourth part has no image left."""
    model, features = make_lstm(), torch.randn(3, 3)
    objective = make_objective(model, features, ByText(earned), batch_size=1, accumulate=4)
    parts = [objective.loss(call)[0] for call in range(4)]
    assert [bool(part) for part in parts] == [True, True, True, False]
    alone = [
        make_objective(model, features[row : row + 1], ByText(earned), seed=0).loss(call)[0] / 3
        for call, row in enumerate(objective.batches[0].update_rows.tolist())
    ]
    assert torch.allclose(torch.stack(parts[:3]), torch.stack(alone))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_reward_that_is_no_number_ends_the_training(value: float) -> None:
    objective = make_objective(make_lstm(), torch.randn(2, 3), ByText(lambda text, finished: value))
    with pytest.raises(TrainingError) as caught:
        objective.loss(7)
    assert str(caught.value) == (
        f"A reward of step 8 is {value}, no number to learn from; leave the part of --reward out that gives "
        "it and start again from the last checkpoint."
    )


def test_it_scores_better_than_cross_entropy_alone(
    tmp_path: Path, placement: Placement, shapes_facts: Any
) -> None:
    """Both on features that hold what the shapes' captions say; cross-entropy is stopped early."""
    features, captions = shapes_facts
    words = WordTokenizer.train(itertools.chain.from_iterable(captions["train"]))
    torch.manual_seed(0)
    model = build_model(
        "lstm", {"feature_dim": 20, "vocab_size": words.vocab_size, "width": 64, "dropout": 0.0}
    )

    def scores() -> dict[str, float]:
        return validation_scores(model, words, [features["val"]], shapes_facts.references, DecodingOptions())

    shared: dict[str, Any] = {
        "model": model,
        "features": TensorFeatures(features["train"]),
        "batches": ImageBatches(num_images=800, batch_size=32, accumulate=1, seed=0),
        "device": CPU,
        "evaluate": scores,
        "save": lambda directory: None,
    }
    cross_entropy = CrossEntropy(
        token_ids=encode_captions(captions["train"], words, max_tokens=30),
        ignored_ids=words.forbidden_ids,
        label_smoothing=0.0,
        **shared,
    )
    self_critical = SelfCritical(
        tokenizer=words,
        reward=CiderDReward(captions["train"]),
        num_samples=5,
        max_tokens=30,
        **shared,
    )
    train(cross_entropy, LoopOptions(max_steps=100, learning_rate=5e-3), tmp_path / "first", placement)
    before = scores()
    train(self_critical, LoopOptions(max_steps=150, learning_rate=2e-3), tmp_path / "second", placement)
    after = scores()
    assert after["CIDEr-D"] > before["CIDEr-D"] + 0.4
    assert after["bad_ending_rate"] == 0
