"""Specs and fingerprints: what is stored comes back, and what changes a feature changes the fingerprint."""

from pathlib import Path

import pytest
import torch
from torch import nn

from pixtell.encoders.base import EncoderSpec, check_output, fingerprint_of, freeze, weights_sha256
from pixtell.errors import EncoderError


def test_a_spec_comes_back_from_json() -> None:
    spec = EncoderSpec(kind="clip", output="pooled", hub_id="org/name", revision="v1", sha256="00")
    stored = {
        "kind": "clip",
        "output": "pooled",
        "hub_id": "org/name",
        "revision": "v1",
        "sha256": "00",
    }
    assert spec.to_json() == stored
    assert EncoderSpec.from_json(stored) == spec
    assert spec.source == "org/name"


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ("nano", "an encoder is stored as a JSON object, not 'nano': write its kind and output."),
        (
            {"kind": "nano", "path": 3, "colour": "red"},
            "the stored encoder is unusable (unknown field 'colour'; path is 3, not a string; output is "
            "missing): save it again.",
        ),
        (
            {"kind": "nano", "output": "patches"},
            "an encoder needs one of name, path, hub_id and url, and this one has none of them: keep one.",
        ),
        (
            {"kind": "nano", "output": "patches", "name": "nano", "url": "u"},
            "an encoder needs one of name, path, hub_id and url, and this one has name and url: keep one.",
        ),
        (
            {"kind": "nano", "output": "grid", "name": "nano"},
            "no encoder output 'grid': choose one of embedding, pooled, patches.",
        ),
    ],
)
def test_an_unusable_spec_is_one_sentence(stored: object, sentence: str) -> None:
    with pytest.raises(EncoderError) as error:
        EncoderSpec.from_json(stored)
    assert str(error.value) == sentence


def test_a_relative_path_travels_with_the_directory_it_is_stored_in(tmp_path: Path) -> None:
    spec = EncoderSpec(kind="nano", output="patches", path="../nano-encoder")
    located = spec.located(tmp_path / "nano")
    assert located.path == str(tmp_path.resolve() / "nano-encoder")
    assert located.relative_to(tmp_path.resolve() / "nano") == spec
    assert located.located(tmp_path / "elsewhere") == located
    assert spec.located(None).path == str(Path.cwd().parent / "nano-encoder")
    named = EncoderSpec(kind="nano", output="patches", name="nano")
    assert named.located(tmp_path) == named == named.relative_to(tmp_path)


def test_freeze_leaves_nothing_to_train_but_lets_gradients_through() -> None:
    module = freeze(nn.Sequential(nn.Linear(3, 4), nn.Dropout(), nn.BatchNorm1d(4)))
    pixels = torch.randn(2, 3, requires_grad=True)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module(pixels).sum().backward()
    assert pixels.grad is not None
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))


def test_the_fingerprint_holds_weights_config_and_output() -> None:
    reference = fingerprint_of(network(), {"width": 4}, "patches")
    assert reference == fingerprint_of(network(), {"width": 4}, "patches")
    moved = network()
    moved[1].running_mean[0] += 1e-6  # type: ignore[index]
    others = [
        fingerprint_of(network(1), {"width": 4}, "patches"),
        fingerprint_of(network(), {"width": 5}, "patches"),
        fingerprint_of(network(), {"width": 4}, "pooled"),
        fingerprint_of(moved, {"width": 4}, "patches"),
    ]
    assert len({reference, *others}) == 5


def test_the_hash_of_weights_ignores_layout_and_order_but_not_names_shapes_and_dtypes() -> None:
    reference = weights_sha256(network())
    assert weights_sha256(network().to(memory_format=torch.channels_last)) == reference
    assert weights_sha256(network().to(torch.bfloat16)) != reference
    ahead, behind = nn.Module(), nn.Module()
    for name in ("a", "b"):
        ahead.register_parameter(name, nn.Parameter(torch.tensor([1.0, 2.0])))
    for name in ("b", "a"):
        behind.register_parameter(name, nn.Parameter(torch.tensor([1.0, 2.0])))
    assert weights_sha256(ahead) == weights_sha256(behind)
    behind.a = nn.Parameter(torch.tensor([[1.0, 2.0]]))
    assert weights_sha256(ahead) != weights_sha256(behind)


def test_check_output_names_what_there_is() -> None:
    check_output("pooled", ("pooled", "patches"), "vgg16")
    with pytest.raises(EncoderError) as error:
        check_output("embedding", ("pooled", "patches"), "vgg16")
    assert str(error.value) == "vgg16 has no output 'embedding': choose one of pooled, patches."
