"""What people type after --encoder, and what comes of it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pixtell.encoders import (
    ENCODERS,
    NAMED_ENCODERS,
    EncoderSpec,
    load_encoder,
    parse_encoder,
    weights_sha256,
)
from pixtell.errors import EncoderError
from pixtell.files import write_json

SaveModel = Callable[..., tuple[Path, Any]]
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def clip_dir(save_clip: SaveModel) -> Path:
    return save_clip()[0]


@pytest.fixture(scope="module")
def mobilenet_dir(save_mobilenet: SaveModel) -> Path:
    return save_mobilenet()[0]


def test_names_come_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    write_json(tmp_path / "nano" / "config.json", {"kind": "nano-encoder"})
    monkeypatch.chdir(tmp_path)
    assert parse_encoder("nano") == EncoderSpec(kind="nano", output="patches", name="nano")
    vgg16 = parse_encoder("vgg16")
    assert (vgg16.kind, vgg16.output) == ("vgg16", "pooled")
    assert vgg16.url is not None
    assert vgg16.url.endswith("/vgg16-397923af.pth")
    here = parse_encoder("./nano")
    assert here == EncoderSpec(kind="nano", output="patches", path=str(tmp_path.resolve() / "nano"))


def test_directories_are_told_apart_by_their_config(
    clip_dir: Path, mobilenet_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = parse_encoder(str(clip_dir))
    assert clip == EncoderSpec(kind="clip", output="embedding", path=str(clip_dir))
    hub = parse_encoder(str(mobilenet_dir), "pooled")
    assert hub == EncoderSpec(kind="hub", output="pooled", path=str(mobilenet_dir))
    monkeypatch.chdir(clip_dir.parent)
    assert parse_encoder(clip_dir.name) == clip  # absolute, so that it means the same from anywhere


def test_a_checkpoint_stands_for_its_encoder(clip_dir: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "step-9"
    relative = EncoderSpec(kind="clip", output="pooled", path=str(clip_dir)).relative_to(checkpoint)
    checkpoint.mkdir(parents=True)
    write_json(checkpoint / "config.json", {"family": "clipcap", "encoder": relative.to_json()})
    spec = parse_encoder(str(checkpoint))
    assert spec == EncoderSpec(kind="clip", output="pooled", path=str(clip_dir))
    assert parse_encoder(str(checkpoint), "patches").output == "patches"
    assert load_encoder(relative, base_dir=checkpoint).fingerprint == load_encoder(spec).fingerprint


def test_a_run_stands_for_its_best_step(tmp_path: Path) -> None:
    for step in ("step-1", "step-2"):
        write_json(tmp_path / step / "config.json", {"kind": "nano-encoder"})
    (tmp_path / "last").write_text("step-2\n")
    assert parse_encoder(str(tmp_path)).path == str(tmp_path / "step-2")
    (tmp_path / "best").write_text("step-1\n")
    assert parse_encoder(str(tmp_path)).path == str(tmp_path / "step-1")


def test_an_encoder_that_moved_with_its_model_is_not_mistaken_for_the_old_one(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"encoder": {"kind": "nano", "output": "patches", "name": "nano"}})
    (tmp_path / "encoder.safetensors").touch()
    with pytest.raises(EncoderError, match="--init-from takes both"):
        parse_encoder(str(tmp_path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_weights_file_is_vgg16(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"weights{suffix}"
    path.touch()
    assert parse_encoder(str(path)) == EncoderSpec(kind="vgg16", output="pooled", path=str(path))


def test_what_is_nothing_is_one_sentence(
    clip_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    write_json(tmp_path / "odd" / "config.json", {"family": "clipcap"})
    (tmp_path / "weights.onnx").touch()
    here = tmp_path.resolve()
    names = "neither a name (nano, vgg16), nor a directory or file"
    hub_ids = "nor a hub id like openai/clip-vit-base-patch32."
    scenes = {
        "nan": f"no encoder 'nan': {names} (looked for {here}/nan), {hub_ids}",
        "a/b/c": f"no encoder 'a/b/c': {names} (looked for {here}/a/b/c), {hub_ids}",
        "empty": f"{here}/empty holds no encoder (no config.json in it): give the directory of a nano "
        "encoder, of a model of transformers, or of a checkpoint.",
        "odd": f"{here}/odd holds no encoder (its config.json has no model_type): give a nano encoder, a "
        "model of transformers, or a checkpoint.",
        "weights.onnx": f"{here}/weights.onnx is no file of encoder weights: give VGG16 weights as .pth or "
        ".safetensors, or the directory of another encoder.",
    }
    for text, sentence in scenes.items():
        with pytest.raises(EncoderError) as error:
            parse_encoder(text)
        assert str(error.value) == sentence
    for text, outputs in {"vgg16": "pooled, patches", str(clip_dir): "embedding, pooled, patches"}.items():
        with pytest.raises(EncoderError) as error:
            parse_encoder(text, "grid")
        assert str(error.value) == f"encoder {text!r} has no output 'grid': choose one of {outputs}."
    with pytest.raises(EncoderError) as error:
        load_encoder(EncoderSpec(kind="resnet", output="pooled", name="resnet"))
    assert str(error.value) == "no kind of encoder 'resnet': choose one of nano, vgg16, clip, hub."


def test_every_kind_names_a_loader_that_is_there() -> None:
    for kind in ENCODERS.values():
        module = __import__(kind.module, fromlist=[kind.loader])
        assert callable(getattr(module, kind.loader))
    assert {fields["kind"] for fields in NAMED_ENCODERS.values()} <= ENCODERS.keys()


def test_the_hash_of_a_spec_is_checked(mobilenet_dir: Path) -> None:
    spec = parse_encoder(str(mobilenet_dir))
    encoder = load_encoder(spec)
    assert isinstance(encoder, torch.nn.Module)
    found = weights_sha256(encoder)
    pinned = EncoderSpec(kind="hub", output="patches", path=spec.path, sha256=found)
    assert load_encoder(pinned).fingerprint == encoder.fingerprint
    with pytest.raises(EncoderError) as error:
        load_encoder(EncoderSpec(kind="hub", output="patches", path=spec.path, sha256="0" * 64))
    assert str(error.value) == (
        f"the weights of the encoder {spec.path} changed since the model was trained on them "
        f"(hash {found[:8]}, expected 00000000): put the old ones back, or train again."
    )


def test_parsing_needs_no_transformers() -> None:
    code = """
import sys
from pixtell.encoders import parse_encoder
parse_encoder("nano"), parse_encoder("vgg16")
sys.exit("transformers" in sys.modules or "huggingface_hub" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---- hub ids, without network: the hub's cache as a download leaves it


def put_in_hub_cache(hub_home: Path, hub_id: str, directory: Path, *, absent: tuple[str, ...]) -> None:
    """The files of `directory` as the cached main branch of `hub_id`, which is known to lack `absent`."""
    model = hub_home / "hub" / f"models--{hub_id.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    (model / "snapshots").mkdir()
    (model / "snapshots" / COMMIT).symlink_to(directory)
    (model / ".no_exist" / COMMIT).mkdir(parents=True)
    for name in absent:
        (model / ".no_exist" / COMMIT / name).touch()


LOAD_HUB_IDS = """
import json, sys, torch
from pixtell.encoders import load_encoder, parse_encoder
from pixtell.errors import PixtellError
answers = []
for hub_id in json.loads(sys.argv[1]):
    try:
        spec = parse_encoder(hub_id)
        encoder = load_encoder(spec)
        answers.append([spec.to_json(), encoder.name, encoder.fingerprint])
    except PixtellError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def test_hub_ids_load_from_the_cache_pinned_to_their_commit(
    save_clip: SaveModel, mobilenet_dir: Path, tmp_path: Path
) -> None:
    clip_dir, clip = save_clip()
    sharded = tmp_path / "sharded"
    clip.save_pretrained(sharded, max_shard_size="20KB")
    assert len(list(sharded.glob("model-*.safetensors"))) > 1
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((clip_dir / "config.json").read_bytes())
    preprocessors = ("preprocessor_config.json", "processor_config.json")
    put_in_hub_cache(tmp_path, "some/clip", clip_dir, absent=preprocessors)
    put_in_hub_cache(tmp_path, "some/mobilenet", mobilenet_dir, absent=preprocessors)
    more = (*preprocessors, "model.safetensors", "pytorch_model.bin")
    put_in_hub_cache(tmp_path, "some/sharded", sharded, absent=more)
    put_in_hub_cache(tmp_path, "some/bare", bare, absent=(*more, "model.safetensors.index.json"))
    put_in_hub_cache(tmp_path, "some/partly", clip_dir, absent=())
    hub_ids = ["some/clip", "some/mobilenet", "some/sharded", "some/bare", "some/partly", "some/uncached"]
    done = subprocess.run(
        [sys.executable, "-c", LOAD_HUB_IDS, json.dumps(hub_ids)],
        env={**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    clip_answer, mobilenet_answer, sharded_answer, bare_answer, partly, uncached = json.loads(done.stdout)
    pinned = {"hub_id": "some/clip", "revision": COMMIT}
    fingerprint = load_encoder(parse_encoder(str(clip_dir))).fingerprint
    assert clip_answer == [{"kind": "clip", "output": "embedding", **pinned}, "some/clip", fingerprint]
    assert mobilenet_answer[0]["kind"] == "hub"
    assert mobilenet_answer[2] == load_encoder(parse_encoder(str(mobilenet_dir))).fingerprint
    assert sharded_answer[1:] == ["some/sharded", fingerprint]
    assert bare_answer == "the hub model some/bare has no weights for PyTorch: choose another."
    advice = (
        "is not cached and HF_HUB_OFFLINE is set: connect to the network, or give a local directory with the"
    )
    assert partly == f"preprocessor_config.json of the hub model some/partly {advice} model."
    assert uncached == f"config.json of the hub model some/uncached {advice} model."
    assert done.stderr == ""
