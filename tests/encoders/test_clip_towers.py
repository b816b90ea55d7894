"""A CLIP that learns on: the function of transformers, and a directory that everything reads again."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pixtell.encoders import EncoderSpec
from pixtell.encoders.clip_towers import load_clip_towers
from pixtell.encoders.towers import pad_text_ids
from pixtell.errors import EncoderError

TEXTS = ["a dog", "the red ball runs", ""]


def spec_of(directory: Path) -> EncoderSpec:
    return EncoderSpec(kind="clip", output="embedding", path=str(directory))


def test_embeddings_are_those_of_transformers(tiny_clip: Path) -> None:
    from transformers import CLIPModel, CLIPTokenizer

    towers = load_clip_towers(spec_of(tiny_clip))
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = torch.randn(2, 3, 32, 32)
    inputs = CLIPTokenizer.from_pretrained(tiny_clip)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(pixel_values=pixels, **inputs)
        images = towers.embed_images(pixels)
        texts = towers.embed_texts(pad_text_ids([towers.encode(text) for text in TEXTS], towers.pad_id))
    torch.testing.assert_close(torch.nn.functional.normalize(images, dim=1), theirs.image_embeds)
    torch.testing.assert_close(torch.nn.functional.normalize(texts, dim=1), theirs.text_embeds)
    torch.testing.assert_close(towers.logit_scale, model.logit_scale)


def test_what_is_saved_is_read_again_by_us_and_by_transformers(tiny_clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPImageProcessor, CLIPModel, CLIPTokenizer

    towers = load_clip_towers(spec_of(tiny_clip))
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.add_(0.01)
    towers.save(tmp_path)
    again = load_clip_towers(spec_of(tmp_path))
    theirs = CLIPModel.from_pretrained(tmp_path)
    for (name, mine), loaded, public in zip(
        towers.model.named_parameters(), again.model.parameters(), theirs.parameters(), strict=True
    ):
        assert torch.equal(mine, loaded), name
        assert torch.equal(mine, public), name
    assert CLIPTokenizer.from_pretrained(tmp_path)("a dog")["input_ids"] == again.encode("a dog")
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    pixels = CLIPImageProcessor.from_pretrained(tmp_path)(Image.fromarray(image), return_tensors="pt")
    mine = again.preprocess(image)
    assert (pixels["pixel_values"] - mine).abs().max() < 0.05  # two grey levels


def test_files_beside_the_weights_travel_along(tiny_clip: Path, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_clip, tmp_path / "source"))
    (source / "preprocessor_config.json").write_text('{"resample": 2}')
    (source / "tokenizer_config.json").write_text('{"model_max_length": 24}')
    target = tmp_path / "target"
    target.mkdir()
    load_clip_towers(spec_of(source)).save(target)
    for name in ("preprocessor_config.json", "tokenizer_config.json", "vocab.json", "merges.txt"):
        assert (target / name).read_bytes() == (source / name).read_bytes()


def test_an_image_tower_alone_is_refused(tiny_clip: Path, tmp_path: Path) -> None:
    from transformers import CLIPVisionModel

    CLIPVisionModel.from_pretrained(tiny_clip).save_pretrained(tmp_path)
    with pytest.raises(EncoderError) as caught:
        load_clip_towers(spec_of(tmp_path))
    assert str(caught.value) == (
        f"{tmp_path} is an image tower alone (model_type 'clip_vision_model') and cannot read texts: give a "
        "whole CLIP."
    )
