"""What both families promise, whatever the features: the seams that decoding and training stand on."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pixtell.errors import ModelError
from pixtell.models import FAMILIES, CaptionModel, build_model

V, T = 29, 7
GPT2 = {"vocab_size": V, "width": 32, "num_layers": 2, "num_heads": 4, "max_positions": 24}


@dataclass(frozen=True)
class Case:
    family: str
    config: dict[str, Any]
    feature_shape: tuple[int, ...]

    def build(self) -> CaptionModel:
        """The same model each time, its parameters moved far enough that every one of them matters."""
        torch.manual_seed(0)
        model = build_model(self.family, self.config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    def features(self, rows: int) -> torch.Tensor:
        return torch.randn((rows, *self.feature_shape), generator=torch.Generator().manual_seed(1))


def clipcap(feature_shape: tuple[int, ...], **config: Any) -> Case:
    return Case("clipcap", {"gpt2": GPT2, "feature_dim": feature_shape[-1], **config}, feature_shape)


def lstm(feature_shape: tuple[int, ...], **config: Any) -> Case:
    config = {"feature_dim": feature_shape[-1], "vocab_size": V, "width": 24, **config}
    return Case("lstm", config, feature_shape)


CASES = {
    "clipcap mlp": clipcap((12,), prefix_length=3),
    "clipcap transformer": clipcap((12,), mapping="transformer", prefix_length=4, mapping_layers=2),
    "clipcap encoder": clipcap((16,), mapping="encoder", mapping_layers=2, normalise_features=True),
    "clipcap patch": clipcap((9, 12), mapping="patch", num_patches=9, feature_dropout=0.3),
    "lstm vector": lstm((12,), normalise_features=True),
    "lstm grid": lstm((9, 12)),
}
IMAGE_INDEX = torch.tensor([1, 0, 2, 1, 1, 0])


@pytest.fixture(params=CASES.values(), ids=CASES.keys())
def case(request: pytest.FixtureRequest) -> Case:
    found: Case = request.param
    return found


@pytest.fixture
def model(case: Case) -> CaptionModel:
    return case.build()


def captions(rows: int) -> torch.Tensor:
    return torch.randint(V, (rows, T), generator=torch.Generator().manual_seed(2))


def close(left: torch.Tensor, right: torch.Tensor, tolerance: float = 1e-5) -> bool:
    return left.shape == right.shape and torch.allclose(left, right, atol=tolerance)


@pytest.mark.parametrize("with_gradients", [False, True])
def test_start_and_steps_equal_forward(case: Case, model: CaptionModel, with_gradients: bool) -> None:
    features, token_ids = case.features(3), captions(3)
    with torch.set_grad_enabled(with_gradients):
        expected = model(features, token_ids)
        logits, state = model.start(features)
        steps = [logits]
        for token in token_ids.unbind(dim=1)[:-1]:
            logits, state = model.step(token, state)
            steps.append(logits)
    assert expected.shape == (3, T, V)
    assert close(torch.stack(steps, dim=1), expected)


def test_a_token_changes_what_follows_it_and_nothing_before(case: Case, model: CaptionModel) -> None:
    features, token_ids = case.features(1), captions(1)
    before = model(features, token_ids)
    token_ids[:, 3] = (token_ids[:, 3] + 1) % V
    after = model(features, token_ids)
    assert close(before[:, :4], after[:, :4])
    assert (before[:, 4:] - after[:, 4:]).abs().amax(dim=-1).min() > 1e-4
    token_ids[:, -1] = 0  # the last token predicts nothing
    assert torch.equal(model(features, token_ids), after)


def test_the_image_changes_every_logit(case: Case, model: CaptionModel) -> None:
    token_ids = captions(1).expand(2, T)
    one, other = model(case.features(2), token_ids)
    assert (one - other).abs().amax(dim=-1).min() > 1e-4


def test_captions_that_share_an_image_equal_captions_on_their_own(case: Case, model: CaptionModel) -> None:
    features, token_ids = case.features(3), captions(6)
    shared = model(features, token_ids, IMAGE_INDEX)
    alone = [model(features[row, None], ids[None]) for row, ids in zip(IMAGE_INDEX, token_ids, strict=True)]
    assert close(shared, torch.cat(alone))


def test_gradients_of_a_shared_image_are_those_of_its_captions(case: Case) -> None:
    gradients = []
    for index in (IMAGE_INDEX, None):
        model = case.build()
        features = case.features(3).requires_grad_()
        rows = features if index is not None else features[IMAGE_INDEX]
        logits = model(rows, captions(6), index)
        logits.log_softmax(dim=-1)[..., 3].sum().backward()
        assert features.grad is not None
        gradients.append([features.grad, *(parameter.grad for parameter in model.parameters())])
    for shared, alone in zip(*gradients, strict=True):
        assert shared is not None
        assert close(shared, alone, tolerance=1e-5 * max(1.0, float(alone.abs().max())))


@pytest.mark.parametrize("with_gradients", [False, True])
def test_reordered_rows_go_on_from_where_they_were(
    case: Case, model: CaptionModel, with_gradients: bool
) -> None:
    """As in beam search: rows are dropped, doubled and swapped in the middle of a caption."""
    beams = torch.tensor([2, 0, 2, 2])
    features, token_ids, following = case.features(3), captions(3)[:, :4], captions(4)[:, 4:]
    with torch.set_grad_enabled(with_gradients):
        _, state = model.start(features)
        for token in token_ids.unbind(dim=1):
            logits, state = model.step(token, state)
        state = model.reorder(state, beams)
        steps = [logits[beams]]
        for token in following.unbind(dim=1):
            logits, state = model.step(token, state)
            steps.append(logits)
        whole = torch.cat((token_ids[beams], following, following[:, :1]), dim=1)
        expected = model(features[beams], whole)[:, 4:]
    assert close(torch.stack(steps, dim=1), expected)


@torch.no_grad()
def test_a_state_is_a_value(case: Case, model: CaptionModel) -> None:
    """Two steps from one state do not disturb each other."""
    _, state = model.start(case.features(2))
    _, state = model.step(torch.tensor([1, 2]), state)
    first, first_state = model.step(torch.tensor([3, 4]), state)
    model.step(torch.tensor([5, 6]), state)
    again, _ = model.step(torch.tensor([3, 4]), state)
    assert torch.equal(first, again)
    after_first, _ = model.step(torch.tensor([7, 8]), first_state)
    _, fresh = model.step(torch.tensor([3, 4]), state)
    after_fresh, _ = model.step(torch.tensor([7, 8]), fresh)
    assert torch.equal(after_first, after_fresh)


def test_one_token_captions(case: Case, model: CaptionModel) -> None:
    features = case.features(2)
    logits = model(features, torch.zeros((2, 1), dtype=torch.long))
    assert close(logits[:, 0], model.start(features)[0])


def test_bf16_autocast_trains_and_decodes(case: Case, model: CaptionModel) -> None:
    features, token_ids = case.features(3), captions(6)
    exact = model(features, token_ids, IMAGE_INDEX).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(features, token_ids, IMAGE_INDEX)
        with torch.no_grad():
            first, state = model.start(features)
            second, _ = model.step(token_ids[:3, 0], model.reorder(state, torch.arange(3)))
    assert logits.dtype == torch.bfloat16
    assert close(logits.float(), exact, tolerance=0.1 * float(exact.abs().max()))
    logits.float().logsumexp(dim=-1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    expected = model(features, token_ids[:3])[:, :2].detach()
    decoded = torch.stack((first, second), dim=1).float()
    assert close(decoded, expected, tolerance=0.1 * float(expected.abs().max()))


def test_a_stored_configuration_builds_the_same_model(case: Case, model: CaptionModel) -> None:
    stored = json.loads(json.dumps(dataclasses.asdict(model.config)))  # type: ignore[call-overload]
    rebuilt = build_model(case.family, stored)
    assert rebuilt.config == model.config
    assert (rebuilt.vocab_size, rebuilt.feature_dim) == (V, case.feature_shape[-1])
    rebuilt.load_state_dict(model.state_dict())
    assert torch.equal(rebuilt.eval().start(case.features(1))[0], model.start(case.features(1))[0])


def test_features_of_another_encoder_are_refused(case: Case, model: CaptionModel) -> None:
    wrong = torch.randn(2, *case.feature_shape[:-1], case.feature_shape[-1] + 1)
    for run in (lambda: model.start(wrong), lambda: model(wrong, captions(2))):
        with pytest.raises(
            ModelError, match=r"^Features of shape \(.*\) do not fit: this model.* was made for\.$"
        ):
            run()


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_is_for_training_only(family: str) -> None:
    case = CASES[{"clipcap": "clipcap patch", "lstm": "lstm vector"}[family]]
    model, features = case.build(), case.features(2)
    assert torch.equal(model.start(features)[0], model.start(features)[0])
    model.train()
    assert not torch.equal(model.start(features)[0], model.start(features)[0])


def test_an_unknown_family_lists_those_there_are() -> None:
    with pytest.raises(
        ModelError, match=r"^There is no family 'gru' of models: choose one of clipcap, lstm\.$"
    ):
        build_model("gru", {})
