"""A stored configuration is read whole, or every problem of it is named."""

from typing import Any

import pytest

from pixtell.errors import ModelError
from pixtell.models import ClipCapConfig, Gpt2Config, LstmConfig
from pixtell.models.configs import read_config

GPT2 = {"vocab_size": 9, "width": 8, "num_layers": 1, "num_heads": 2}


def test_nested_configurations_and_defaults() -> None:
    config = read_config(
        ClipCapConfig,
        {"feature_dim": 4, "gpt2": GPT2, "clip_length": None, "feature_dropout": 0},
        name="clipcap",
    )
    assert config == ClipCapConfig(
        feature_dim=4, gpt2=Gpt2Config(vocab_size=9, width=8, num_layers=1, num_heads=2), feature_dropout=0.0
    )


@pytest.mark.parametrize(
    ("config", "problems"),
    [
        ({}, "the configuration lacks feature_dim; the configuration lacks gpt2"),
        ({"feature_dim": 4, "gpt2": GPT2, "beams": 3}, "the configuration has an unknown beams"),
        (
            {"feature_dim": 4, "gpt2": {"width": 8, "wide": 1}},
            "gpt2 lacks vocab_size; gpt2 has an unknown wide",
        ),
        ({"feature_dim": "4", "gpt2": 3}, "feature_dim is '4', not int; gpt2 is 3, not an object"),
        ({"feature_dim": True, "gpt2": GPT2}, "feature_dim is True, not int"),
        ({"feature_dim": 4.0, "gpt2": GPT2}, "feature_dim is 4.0, not int"),
        ({"feature_dim": 4, "gpt2": GPT2, "num_patches": "9"}, "num_patches is '9', not int or null"),
        ({"feature_dim": 4, "gpt2": GPT2, "normalise_features": 1}, "normalise_features is 1, not bool"),
        (
            {"feature_dim": 4, "gpt2": GPT2, "language_model": "none"},
            "language_model is 'none', not one of 'all', 'frozen', 'ends'",
        ),
        ([4], "the configuration is [4], not an object"),
    ],
)
def test_every_problem_is_named(config: Any, problems: str) -> None:
    with pytest.raises(ModelError) as error:
        read_config(ClipCapConfig, config, name="clipcap")
    assert (
        str(error.value) == f"This makes no clipcap model: {problems}; use the configuration saved with it."
    )


def test_values_that_no_type_excludes_are_refused_by_the_configuration() -> None:
    with pytest.raises(ModelError, match=r"the lstm has width 0; the lstm has dropout 1\.0, which is not in"):
        read_config(LstmConfig, {"feature_dim": 4, "vocab_size": 9, "width": 0, "dropout": 1.0}, name="lstm")
