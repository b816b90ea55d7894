"""A CLIP's two towers together: equal to transformers, in order, in any batches, from any source."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pixtell.embedder import Embedder, EmbedderById
from pixtell.errors import EncoderError, ImageError, OptionError, ScoringError
from pixtell.files import write_json
from pixtell.metrics.clipscore import PROMPT, clip_score
from pixtell.metrics.corpus import Corpus

TEXTS = ["a man's dog runs on the red grass", "a dog", "", "dog", "🐕 CAFÉ", "a dog"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """The directory of a whole small CLIP with its tokenizer, and the model."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPConfig, CLIPModel

    directory = tmp_path_factory.mktemp("models") / "tiny-clip"
    letters = sorted(ByteLevel.alphabet())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    sizes = {"intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    positions = {"max_position_embeddings": 16, "eos_token_id": len(pieces) - 1}
    config = CLIPConfig(
        vision_config={"hidden_size": 32, "image_size": 32, "patch_size": 16, **sizes},
        text_config={"hidden_size": 16, "vocab_size": len(pieces), **positions, **sizes},
        projection_dim=24,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(directory)
    write_json(directory / "vocab.json", {piece: index for index, piece in enumerate(pieces)})
    (directory / "merges.txt").write_text("#version: 0.2\n")
    return directory, model


@pytest.fixture(scope="module")
def embedder(clip: tuple[Path, Any]) -> Embedder:
    return Embedder.from_pretrained(clip[0], device="cpu", batch_size=4)


def test_embeddings_equal_those_of_transformers(
    clip: tuple[Path, Any], embedder: Embedder, pictures: list[Path]
) -> None:
    from transformers import CLIPTokenizer

    directory, model = clip
    pixels = torch.cat(
        [embedder.encoder.preprocess(np.asarray(Image.open(path).convert("RGB"))) for path in pictures[1::2]]
    )
    inputs = CLIPTokenizer.from_pretrained(directory)(
        TEXTS, padding=True, truncation=True, max_length=16, return_tensors="pt"
    )
    with torch.no_grad():
        images = model.get_image_features(pixel_values=pixels).pooler_output.numpy()
        texts = model.get_text_features(**inputs).pooler_output.numpy()
    np.testing.assert_allclose(embedder.images(pictures[1::2]), images, atol=1e-5)  # the PNGs
    np.testing.assert_allclose(embedder.texts(TEXTS), texts, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_change_nothing(
    embedder: Embedder, pictures: list[Path], batch_size: int, clip: tuple[Path, Any]
) -> None:
    other = Embedder.from_pretrained(clip[0], device="cpu", batch_size=batch_size)
    np.testing.assert_allclose(other.images(pictures), embedder.images(pictures), atol=1e-5)
    np.testing.assert_allclose(other.texts(TEXTS), embedder.texts(TEXTS), atol=1e-5)


def test_nothing_gives_no_rows(embedder: Embedder) -> None:
    for embeddings in (embedder.images([]), embedder.texts([])):
        assert embeddings.shape == (0, 24)
        assert embeddings.dtype == np.float32


def test_any_kind_of_image_gives_the_same(embedder: Embedder, pictures: list[Path]) -> None:
    image = Image.open(pictures[1])
    embeddings = embedder.images([pictures[1], pictures[1].read_bytes(), image, np.asarray(image)])
    assert (embeddings == embeddings[0]).all()


def test_a_name_tells_weights_and_precision_apart(
    clip: tuple[Path, Any], embedder: Embedder, tmp_path: Path
) -> None:
    assert embedder.name == f"tiny-clip@{embedder.fingerprint[:8]}"
    again = Embedder.from_pretrained(str(clip[0]), device="cpu")
    assert again.name == embedder.name
    halved = Embedder.from_pretrained(clip[0], device="cpu", dtype="bf16")
    assert halved.name != embedder.name
    np.testing.assert_allclose(halved.texts(TEXTS), embedder.texts(TEXTS), atol=0.2)
    other = tmp_path / "tiny-clip"
    other.mkdir()
    for path in clip[0].iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    assert Embedder.from_pretrained(other).name == embedder.name
    write_json(other / "preprocessor_config.json", {"resample": 2})
    assert Embedder.from_pretrained(other).name != embedder.name


def test_a_checkpoint_over_a_clip_stands_for_the_clip(
    clip: tuple[Path, Any], embedder: Embedder, tmp_path: Path
) -> None:
    spec = {"kind": "clip", "output": "patches", "path": str(clip[0]), "sha256": "0" * 64}
    write_json(tmp_path / "config.json", {"family": "clipcap", "encoder": spec})
    assert Embedder.from_pretrained(tmp_path).name == embedder.name


def test_a_hub_id_brings_its_tokenizer(clip: tuple[Path, Any], embedder: Embedder, tmp_path: Path) -> None:
    """Offline, from the hub's cache as a download leaves it; one whose tokenizer never came says so."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    absent = {"some/clip": ["tokenizer.json"], "some/mute": ["tokenizer.json", "vocab.json"]}
    for hub_id, names in absent.items():
        model = tmp_path / "hub" / f"models--{hub_id.replace('/', '--')}"
        for folder in ("refs", f"snapshots/{commit}", f".no_exist/{commit}"):
            (model / folder).mkdir(parents=True)
        (model / "refs" / "main").write_text(commit)
        for path in clip[0].iterdir():
            if path.name not in names:
                (model / "snapshots" / commit / path.name).symlink_to(path)
        for name in [*names, "preprocessor_config.json", "processor_config.json"]:
            (model / ".no_exist" / commit / name).touch()
    code = """
import sys
from pixtell.embedder import Embedder
from pixtell.errors import PixtellError
for hub_id in sys.argv[1:]:
    try:
        print(Embedder.from_pretrained(hub_id).name)
    except PixtellError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *absent],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    name, sentence = done.stdout.splitlines()
    assert name == embedder.name.replace("tiny-clip", "some/clip")
    assert (
        sentence == "the hub model some/mute has no file vocab.json: check the id, or choose another model."
    )


def test_what_cannot_embed_is_one_sentence(
    embedder: Embedder, pictures: list[Path], tmp_path: Path, clip: tuple[Path, Any]
) -> None:
    with pytest.raises(EncoderError) as error:
        Embedder.from_pretrained("vgg16")
    assert str(error.value) == (
        "the encoder 'vgg16' is of kind 'vgg16' and cannot read texts: give the directory or hub id of a "
        "CLIP, like openai/clip-vit-base-patch32."
    )
    with pytest.raises(EncoderError, match=r"^no encoder 'clap': "):
        Embedder.from_pretrained("clap")
    with pytest.raises(OptionError, match="--batch-size 0 is not above zero"):
        Embedder.from_pretrained(clip[0], batch_size=0)
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"bad\.jpg: it is not an image"):
        embedder.images([pictures[0], tmp_path / "bad.jpg", pictures[1]])


def test_clipscore_of_images_by_id(embedder: Embedder, pictures: list[Path]) -> None:
    by_id = EmbedderById(embedder, {path.name: path for path in pictures})
    names = [path.name for path in pictures[::-1]]
    captions = dict(zip(names, TEXTS, strict=True))
    corpus = Corpus.from_text(captions, {name: ["a dog", "a cat"] for name in names})
    scores = clip_score(by_id)(corpus)["CLIPScore"].per_image
    for name, score in zip(names, scores, strict=True):
        [image] = embedder.images([path for path in pictures if path.name == name])
        [text] = embedder.texts([PROMPT + captions[name]])
        cosine = float(image @ text / np.linalg.norm(image) / np.linalg.norm(text))
        assert score == pytest.approx(2.5 * max(0, cosine), abs=1e-5)
    assert by_id.name == embedder.name


def test_ids_without_an_image_are_named(embedder: Embedder, pictures: list[Path]) -> None:
    by_id = EmbedderById(embedder, {"0": pictures[0]})
    with pytest.raises(ScoringError) as error:
        by_id.images(["0", "a", "b", "c", "d"])
    assert str(error.value) == (
        "4 of 5 ids have no image (a, b, c, ...): give the folder that has the image of each caption."
    )


def test_what_was_embedded_is_remembered(embedder: Embedder, pictures: list[Path], tmp_path: Path) -> None:
    """Two systems are compared on the same images and references; here the picture is gone by then."""
    picture = tmp_path / "1.png"
    picture.write_bytes(pictures[1].read_bytes())
    by_id = EmbedderById(embedder, {"0": pictures[0], "1": picture})
    first = by_id.images(["1"])
    picture.unlink()
    np.testing.assert_allclose(
        by_id.images(["0", "1", "0"]), embedder.images([pictures[0], pictures[1], pictures[0]]), atol=1e-5
    )
    assert (by_id.images(["1"]) == first).all()
    for texts in (["a dog", "a cat"], ["a cat", "a man", "a cat"]):
        np.testing.assert_allclose(by_id.texts(texts), embedder.texts(texts), atol=1e-5)
