"""Tiny models of transformers with random weights, saved as people find them on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


@pytest.fixture(scope="session")
def save_clip(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    """save_clip(patch_size=8) -> the directory of a whole CLIP and the model, with sizes that all differ."""

    def save(*, patch_size: int = 8) -> tuple[Path, Any]:
        from transformers import CLIPConfig, CLIPModel

        sizes = {"intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
        config = CLIPConfig(
            vision_config={"hidden_size": 32, "image_size": 32, "patch_size": patch_size, **sizes},
            text_config={"hidden_size": 16, "vocab_size": 50, "max_position_embeddings": 8, **sizes},
            projection_dim=24,
        )
        torch.manual_seed(patch_size)
        model = CLIPModel(config).eval()
        for parameter in model.parameters():  # their initial weights make nearly equal features
            torch.nn.init.normal_(parameter, std=0.2)
        directory = tmp_path_factory.mktemp("tiny-clip")
        model.save_pretrained(directory)
        return directory, model

    return save


@pytest.fixture(scope="session")
def save_mobilenet(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, Any]]:
    """save_mobilenet(class_name) -> the directory of a small MobileNetV2 of that class and the model."""

    def save(class_name: str = "MobileNetV2ForImageClassification") -> tuple[Path, Any]:
        import transformers

        config = transformers.MobileNetV2Config(
            depth_multiplier=0.1, min_depth=8, depth_divisible_by=8, image_size=64, num_labels=7
        )
        torch.manual_seed(0)
        model = getattr(transformers, class_name)(config).eval()
        for name, buffer in model.named_buffers():  # statistics of a network that was trained
            if name.endswith("running_mean"):
                torch.nn.init.normal_(buffer, std=0.1)
            elif name.endswith("running_var"):
                torch.nn.init.uniform_(buffer, 0.02, 0.1)
        directory = tmp_path_factory.mktemp("tiny-mobilenet")
        model.save_pretrained(directory)
        return directory, model

    return save
