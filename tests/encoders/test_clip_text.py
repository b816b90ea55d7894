"""CLIP's text tower equals transformers' CLIP on equal texts; parts that do not fit are one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pixtell.encoders import parse_encoder
from pixtell.encoders.base import EncoderSpec, TextEncoder
from pixtell.encoders.clip import load_clip
from pixtell.encoders.clip_text import load_clip_text
from pixtell.errors import EncoderError
from pixtell.files import read_json, write_json

TEXTS = ["a dog", "", "A man's dog runs on the red grass, twice", "dog", "🐕 CAFÉ"]
SIZES = {"intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}


def write_tokenizer(directory: Path) -> int:
    """CLIP's vocabulary in small; gives its size. eos is the last id, as in CLIP's."""
    from tokenizers.pre_tokenizers import ByteLevel

    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "do", "dog</w>"]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    write_json(directory / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    (directory / "merges.txt").write_text("#version: 0.2\nd o\ndo g</w>\n")
    return len(pieces)


@pytest.fixture(scope="module", params=["as saved today", "as saved before 2023"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The directory of a whole small CLIP with its tokenizer, and the model."""
    from transformers import CLIPConfig, CLIPModel

    directory = tmp_path_factory.mktemp("clip")
    vocab_size = write_tokenizer(directory)
    eos_id = vocab_size - 1 if request.param == "as saved today" else 2
    text_config = {"vocab_size": vocab_size, "max_position_embeddings": 12, "eos_token_id": eos_id}
    config = CLIPConfig(
        vision_config={"hidden_size": 32, "image_size": 32, "patch_size": 16, **SIZES},
        text_config={"hidden_size": 16, **text_config, **SIZES},
        projection_dim=24,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory)
    return directory, model


@pytest.fixture
def broken(clip: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the directory, to damage."""
    for path in clip[0].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def spec_of(path: Path) -> EncoderSpec:
    return EncoderSpec(kind="clip", output="embedding", path=str(path))


def embed(encoder: Any, texts: list[str]) -> torch.Tensor:
    return encoder(torch.tensor(encoder.tokenizer.encode_batch(texts)))  # type: ignore[no-any-return]


def test_embeddings_equal_those_of_transformers(clip: tuple[Path, Any]) -> None:
    from transformers import CLIPTokenizer

    directory, model = clip
    inputs = CLIPTokenizer.from_pretrained(directory)(
        TEXTS, padding="max_length", truncation=True, max_length=12, return_tensors="pt"
    )
    with torch.no_grad():
        expected = model.get_text_features(**inputs).pooler_output
    encoder = load_clip_text(parse_encoder(str(directory)))
    as_text_encoder: TextEncoder = encoder
    assert as_text_encoder is encoder
    embeddings = embed(encoder, TEXTS)
    assert embeddings.shape == (5, 24)
    torch.testing.assert_close(embeddings, expected, rtol=1e-5, atol=1e-5)
    for text, embedding in zip(TEXTS, embeddings, strict=True):  # padding changes nothing
        torch.testing.assert_close(embed(encoder, [text])[0], embedding, rtol=1e-5, atol=1e-5)
    assert len({tuple(embedding.tolist()) for embedding in embeddings}) == 5
    assert encoder.name == directory.name


def test_texts_and_images_share_a_space_and_the_tower_is_frozen(clip: tuple[Path, Any]) -> None:
    encoder = load_clip_text(spec_of(clip[0]))
    assert load_clip(spec_of(clip[0])).feature_shape == tuple(embed(encoder, ["a dog"]).shape[1:])
    assert not encoder.training
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_it_runs_in_bf16(clip: tuple[Path, Any]) -> None:
    encoder = load_clip_text(spec_of(clip[0]))
    exact = embed(encoder, TEXTS)
    halved = embed(encoder.to(dtype=torch.bfloat16), TEXTS)
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), exact, rtol=0.1, atol=0.15)


def test_an_image_tower_alone_and_no_clip_are_one_sentence(
    clip: tuple[Path, Any], save_mobilenet: Callable[..., tuple[Path, Any]], tmp_path: Path
) -> None:
    clip[1].vision_model.save_pretrained(tmp_path)
    with pytest.raises(EncoderError) as error:
        load_clip_text(spec_of(tmp_path))
    assert str(error.value) == (
        f"{tmp_path} is an image tower alone (model_type 'clip_vision_model') and cannot read texts: give a "
        "whole CLIP."
    )
    mobilenet, _ = save_mobilenet()
    with pytest.raises(EncoderError, match=r"is no CLIP \(model_type 'mobilenet_v2'\) and cannot read texts"):
        load_clip_text(spec_of(mobilenet))


def test_a_clip_without_tokenizer_is_one_sentence(broken: Path) -> None:
    (broken / "vocab.json").unlink()
    with pytest.raises(EncoderError) as error:
        load_clip_text(spec_of(broken))
    assert str(error.value) == (
        f"{broken} holds no CLIP tokenizer: put tokenizer.json there, or vocab.json and merges.txt."
    )


def test_weights_without_a_text_tower_are_one_sentence(broken: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(broken / "model.safetensors")
    kept = {key: value for key, value in weights.items() if not key.startswith("text_")}
    save_file(kept, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(EncoderError) as error:
        load_clip_text(spec_of(broken))
    assert str(error.value).startswith(f"the weights in {broken} lack text_model.")
    assert str(error.value).endswith(" more of the text tower: save the whole CLIP again.")


def test_a_tokenizer_of_another_clip_is_one_sentence(broken: Path) -> None:
    vocabulary = json.loads((broken / "vocab.json").read_text())
    write_json(broken / "vocab.json", {**vocabulary, "one": 516, "more": 517})
    with pytest.raises(EncoderError) as error:
        load_clip_text(spec_of(broken))
    assert str(error.value) == (
        f"the tokenizer in {broken} has 518 tokens and the text tower 516: take the tokenizer's files that "
        "came with the model."
    )


def test_an_eos_that_the_tower_would_not_find_is_one_sentence(broken: Path) -> None:
    """transformers would read all texts at their first place, and give them one embedding."""
    config = read_json(broken / "config.json")
    config["text_config"]["eos_token_id"] = 49407
    write_json(broken / "config.json", config)
    with pytest.raises(EncoderError) as error:
        load_clip_text(spec_of(broken))
    assert str(error.value) == (
        f"the config.json in {broken} says eos_token_id 49407 and its tokenizer has 515: correct it, else "
        "all texts are alike to the tower."
    )
