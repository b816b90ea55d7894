"""The language model alone: its loss is the captions' own, and nothing that sees pictures moves."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pixtell.models import CaptionModel, build_model
from pixtell.training.image_batches import ImageBatches
from pixtell.training.text import WEIGHTS_FILE, TextPretraining

CPU = torch.device("cpu")
GPT2 = {"vocab_size": 8, "width": 8, "num_layers": 1, "num_heads": 2, "max_positions": 20, "dropout": 0.0}
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "lstm": ("lstm", {"feature_dim": 4, "vocab_size": 8, "width": 8, "dropout": 0.0}, (4,)),
    "patch": (
        "clipcap",
        {"feature_dim": 4, "num_patches": 3, "mapping": "patch", "gpt2": GPT2},
        (3, 4),
    ),
    "mlp": (
        "clipcap",
        {"feature_dim": 4, "prefix_length": 2, "normalise_features": True, "gpt2": GPT2},
        (4,),
    ),
}
CAPTIONS = [[2, 3, 0], [4, 1, 5, 6, 0], [7, 0], [2, 2, 0], [3, 0]]


def make_objective(family: str, **batches: int) -> TextPretraining:
    name, sizes, feature_shape = FAMILIES[family]
    torch.manual_seed(0)
    return TextPretraining(
        model=build_model(name, sizes),
        feature_shape=feature_shape,
        token_ids=CAPTIONS,
        validation_ids=CAPTIONS[:2],
        ignored_ids=(1,),
        batches=ImageBatches(**{"num_images": 5, "batch_size": 5, "accumulate": 1, "seed": 0, **batches}),
        label_smoothing=0.0,
        device=CPU,
    )


def mean_logprob(model: CaptionModel, feature_shape: tuple[int, ...], captions: list[list[int]]) -> float:
    """By the definition: each caption alone, after features of zeros; the unknown word does not count."""
    terms = []
    for caption in captions:
        log_probs = model(torch.zeros(1, *feature_shape), torch.tensor([caption])).log_softmax(-1)
        terms += [log_probs[0, place, token].item() for place, token in enumerate(caption) if token != 1]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_the_loss_is_the_mean_over_the_tokens(family: str) -> None:
    objective = make_objective(family)
    shape = FAMILIES[family][2]
    loss, numbers = objective.loss(0)
    assert loss.item() == pytest.approx(-mean_logprob(objective.model, shape, CAPTIONS), rel=1e-5)
    assert numbers == {"epoch": 1.0}
    expected = mean_logprob(objective.model, shape, CAPTIONS[:2])
    assert objective.validate() == {"mean_logprob": pytest.approx(expected, rel=1e-5)}


def test_parts_add_up() -> None:
    whole = make_objective("lstm").loss(0)[0]
    parts = make_objective("lstm", batch_size=1, accumulate=6)
    assert sum(parts.loss(call)[0].item() for call in range(6)) == pytest.approx(whole.item(), rel=1e-6)


@pytest.mark.parametrize("family", list(FAMILIES))
def test_only_the_image_branch_reads_features(family: str) -> None:
    """With it frozen, as pretraining has it, everything else holds a gradient."""
    objective = make_objective(family)
    objective.model.image_branch.requires_grad_(False)
    objective.loss(0)[0].backward()  # type: ignore[no-untyped-call]
    without = {name for name, value in objective.model.named_parameters() if value.grad is None}
    branch = {id(parameter) for parameter in objective.model.image_branch.parameters()}
    assert without == {name for name, value in objective.model.named_parameters() if id(value) in branch}


def test_what_is_saved_is_the_model(tmp_path: Path) -> None:
    objective = make_objective("patch")
    objective.save(tmp_path)
    stored = load_file(tmp_path / WEIGHTS_FILE)
    for name, value in objective.model.state_dict().items():
        assert torch.equal(stored[name], value)
