"""The nano towers: what padding, order and batches change, how they are stored, what bad directories say."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixtell.encoders import EncoderSpec, load_encoder, parse_encoder
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder
from pixtell.encoders.nano_text import (
    NanoTextConfig,
    NanoTowers,
    has_text_tower,
    load_nano_towers,
)
from pixtell.encoders.towers import pad_text_ids
from pixtell.errors import EncoderError
from pixtell.tokenizers import WordTokenizer


def spec_of(directory: Path) -> EncoderSpec:
    return EncoderSpec(kind="nano", output="patches", path=str(directory))


@pytest.fixture
def towers(tiny_towers: Path) -> NanoTowers:
    return load_nano_towers(spec_of(tiny_towers))


@pytest.fixture
def copied(tiny_towers: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_towers, tmp_path / "copied"))


TEXTS = ["a dog", "dog a", "the red ball runs", "zebra", "", "a dog!"]


def test_padding_and_batches_change_nothing(towers: NanoTowers) -> None:
    rows = [towers.encode(text) for text in TEXTS]
    together = towers.embed_texts(pad_text_ids(rows, towers.pad_id))
    for row, embedding in zip(rows, together, strict=True):
        torch.testing.assert_close(towers.embed_texts(torch.tensor([row]))[0], embedding)
        padded = torch.tensor([[*row, *[towers.pad_id] * (9 - len(row))]])
        torch.testing.assert_close(towers.embed_texts(padded)[0], embedding)
    assert torch.isfinite(together).all()


def test_words_and_their_order_count_and_punctuation_does_not(towers: NanoTowers) -> None:
    dog, turned, ball, zebra, empty, shouted = towers.embed_texts(
        pad_text_ids([towers.encode(text) for text in TEXTS], towers.pad_id)
    )
    torch.testing.assert_close(dog, shouted)
    for other in (turned, ball, zebra, empty):
        assert (dog - other).abs().max() > 0.01


def test_a_text_is_cut_to_the_positions_and_keeps_its_end(towers: NanoTowers) -> None:
    row = towers.encode("a dog " * 50)
    assert len(row) == 10
    assert row[-1] == towers.pad_id
    assert torch.isfinite(towers.embed_texts(torch.tensor([row]))).all()


def test_unknown_words_are_named(towers: NanoTowers) -> None:
    assert towers.text.unknown_words("The zebra, the dog's ball") == ["zebra", "'s"]
    assert towers.text.unknown_words("a dog") == []
    assert towers.knows("a zebra")
    for text in ("zebra", "Zebras, giraffes!", "?!", ""):
        assert not towers.knows(text)


def test_the_embedding_of_an_image_is_its_projected_mean_feature(
    towers: NanoTowers, tiny_towers: Path
) -> None:
    pixels = torch.randn(3, 3, 64, 64)
    pooled = load_encoder(parse_encoder(str(tiny_towers), "pooled"))(pixels)
    torch.testing.assert_close(towers.embed_images(pixels), towers.image.projection(pooled))
    assert towers.image.feature_shape == (8,)
    assert towers.embed_images(pixels).shape == (3, 8)


def test_saved_again_they_are_the_same_to_the_bit(towers: NanoTowers, tmp_path: Path) -> None:
    towers.save(tmp_path)
    again = load_nano_towers(spec_of(tmp_path))
    assert again.image.fingerprint == towers.image.fingerprint
    assert again.text.fingerprint == towers.text.fingerprint
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert {value.dtype for value in load_file(tmp_path / "text" / "model.safetensors").values()} == {
        torch.float16
    }


def test_the_word_list_is_part_of_the_fingerprint(towers: NanoTowers) -> None:
    words = list(towers.text.tokenizer.words)
    before = towers.text.fingerprint
    towers.text.tokenizer = WordTokenizer([*words[:-2], words[-1], words[-2]])
    assert towers.text.fingerprint != before


def test_the_image_tower_alone_does_not_read_the_text_tower(tiny_towers: Path, copied: Path) -> None:
    (copied / "text" / "model.safetensors").write_bytes(b"torn")
    whole = load_encoder(parse_encoder(str(tiny_towers)))
    assert load_encoder(parse_encoder(str(copied))).fingerprint == whole.fingerprint
    shutil.rmtree(copied / "text")
    assert load_encoder(parse_encoder(str(copied))).fingerprint == whole.fingerprint
    assert not has_text_tower(spec_of(copied))
    assert has_text_tower(spec_of(tiny_towers))


def test_statistics_of_a_trained_encoder_stay_and_a_new_one_learns_its_own(tiny_towers: Path) -> None:
    for learn in (False, True):
        loaded = load_nano_towers(spec_of(tiny_towers))
        towers = NanoTowers(
            encoder=loaded.image.encoder,
            config=loaded.config,
            tokenizer=loaded.text.tokenizer,
            learn_statistics=learn,
        )
        before = {name: buffer.clone() for name, buffer in towers.named_buffers()}
        towers.train()
        assert towers.text.training
        towers.embed_images(torch.randn(4, 3, 64, 64))
        moved = any(not torch.equal(buffer, before[name]) for name, buffer in towers.named_buffers())
        assert moved is learn


def test_the_planned_size() -> None:
    """1.6 million parameters in the recipe's budget, beside an encoder of width 48."""
    tokenizer = WordTokenizer(["<eos>", "<unk>", *(f"w{i}" for i in range(2900))])
    encoder = NanoEncoder(config=NanoEncoderConfig())
    towers = NanoTowers(encoder=encoder, config=NanoTextConfig(), tokenizer=tokenizer)
    new = sum(p.numel() for p in towers.parameters()) - sum(p.numel() for p in encoder.parameters())
    assert 1.4e6 < new < 1.65e6


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"width": 100}, "--text-width 100 is not a multiple of 32; choose for example 160."),
        ({"num_layers": 0}, "numbers above zero"),
        ({"dropout": 1.0}, "numbers above zero"),
    ],
)
def test_sizes_that_make_no_tower_are_refused(config: dict[str, float], sentence: str) -> None:
    with pytest.raises(EncoderError, match=sentence):
        NanoTextConfig(**config)  # type: ignore[arg-type]


def test_bad_directories_are_named(copied: Path, tmp_path: Path) -> None:
    def sentence_of(directory: Path = copied) -> str:
        with pytest.raises(EncoderError) as caught:
            load_nano_towers(spec_of(directory))
        return str(caught.value)

    save_nano_encoder(NanoEncoder(config=NanoEncoderConfig(width=2, blocks=(1,))), tmp_path)
    assert sentence_of(tmp_path) == (
        f"The nano encoder {tmp_path} has no text tower and cannot read texts: give a CLIP, or train one "
        "with pixtell train-encoder --objective contrastive."
    )
    weights, config = copied / "text" / "model.safetensors", copied / "text" / "config.json"
    whole, stored = weights.read_bytes(), json.loads(config.read_text())
    weights.write_bytes(whole[:-50])
    assert sentence_of().startswith(f"{weights} cannot be loaded (")
    weights.write_bytes(whole)
    config.write_text(json.dumps({**stored, "width": 24}))
    assert "size mismatch" in sentence_of()
    config.write_text(json.dumps({**stored, "num_layers": 1}))
    assert sentence_of().startswith(f"{weights} cannot be loaded (")
    config.write_text(json.dumps({**stored, "num_layers": None}))
    assert sentence_of().startswith(f"{config} lacks or garbles a size (")
    config.write_text(json.dumps({**stored, "kind": "dog"}))
    assert sentence_of() == f"{config} describes no text tower of nano; copy the whole directory again."
    config.write_text(json.dumps(stored))
    (copied / "text" / "vocabulary.json").write_text("{}")
    assert "is no vocabulary" in sentence_of()
