"""A directory holds all that a captioner needs, loads without flags, and says in a sentence what is amiss."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pixtell.checkpoints import (
    SHIPPED,
    WEIGHTS,
    find_checkpoint,
    load_checkpoint,
    model_config_json,
    read_config,
    save_checkpoint,
)
from pixtell.errors import CheckpointError, EncoderError, ModelError
from pixtell.files import atomic_directory
from pixtell.models import LstmConfig
from pixtell.tokenizers import WordTokenizer

FEATURES = torch.rand(2, 4, 32, generator=torch.Generator().manual_seed(0))  # (B, N, F)
TOKEN_IDS = torch.tensor([[2, 4, 11, 0], [3, 5, 12, 0]])  # (B, T)


@pytest.fixture
def models(tiny_models: Path, tmp_path: Path) -> Path:
    """A copy of the tiny models that a test may damage."""
    return Path(shutil.copytree(tiny_models, tmp_path / "models"))


def change_config(checkpoint: Path, **changes: object) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(FEATURES, TOKEN_IDS)
    return found


@pytest.mark.parametrize("family", ["clipcap", "lstm"])
@pytest.mark.parametrize("half", [False, True])
def test_what_is_saved_is_loaded(tiny_models: Path, tmp_path: Path, family: str, half: bool) -> None:
    first = load_checkpoint(tiny_models / family)
    config = replace(first.config, encoder=first.config.encoder.located(first.directory))
    with atomic_directory(tmp_path / "copy") as directory:
        save_checkpoint(directory, config=config, model=first.model, tokenizer=first.tokenizer, half=half)
    second = load_checkpoint(tmp_path / "copy")
    assert second.config.family == family
    assert second.config.model == first.config.model
    assert second.config.decoding == {"max_new_tokens": 8}
    assert second.tokenizer.encode("a dog runs") == first.tokenizer.encode("a dog runs")
    assert second.encoder.fingerprint == first.encoder.fingerprint
    assert not second.model.training
    assert {parameter.dtype for parameter in second.model.parameters()} == {torch.float32}
    if half:
        for name, value in first.model.state_dict().items():
            assert torch.equal(second.model.state_dict()[name], value.half().float())
    else:
        assert torch.equal(logits(second.model), logits(first.model))


def test_models_and_encoder_travel_together(models: Path, tmp_path: Path) -> None:
    assert json.loads((models / "lstm" / "config.json").read_text())["encoder"]["path"] == "../encoder"
    models.rename(tmp_path / "elsewhere")
    load_checkpoint(tmp_path / "elsewhere" / "lstm")


def test_a_checkpoint_behind_a_link_finds_its_encoder(tiny_models: Path, tmp_path: Path) -> None:
    (tmp_path / "deep" / "down").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "down")
    first = load_checkpoint(tiny_models / "lstm")
    config = replace(first.config, encoder=first.config.encoder.located(first.directory))
    with atomic_directory(tmp_path / "link" / "lstm") as directory:
        save_checkpoint(directory, config=config, model=first.model, tokenizer=first.tokenizer)
    load_checkpoint(tmp_path / "link" / "lstm")
    load_checkpoint(tmp_path / "deep" / "down" / "lstm")


def test_an_encoder_that_the_run_moved_is_used(models: Path) -> None:
    first = load_checkpoint(models / "lstm")
    moved = first.encoder
    assert isinstance(moved, torch.nn.Module)
    for parameter in moved.parameters():
        parameter.add_(1)
    config = replace(first.config, encoder=first.config.encoder.located(first.directory))
    with atomic_directory(models / "moved") as directory:
        save_checkpoint(
            directory, config=config, model=first.model, tokenizer=first.tokenizer, moved_encoder=moved
        )
    assert load_checkpoint(models / "moved").encoder.fingerprint == moved.fingerprint
    assert load_checkpoint(models / "lstm").encoder.fingerprint != moved.fingerprint


def test_a_run_stands_for_its_best_step_else_its_last(models: Path) -> None:
    run = models / "run"
    run.mkdir()
    for name, family in (("step-1", "lstm"), ("step-2", "clipcap")):
        (models / family).rename(run / name)
    for path in run.glob("*/config.json"):
        path.write_text(path.read_text().replace("../encoder", "../../encoder"))
    (run / "last").write_text("step-2\n")
    assert load_checkpoint(run).config.family == "clipcap"
    (run / "best").write_text("step-1\n")
    assert load_checkpoint(str(run)).config.family == "lstm"
    assert load_checkpoint(run / "step-2").config.family == "clipcap"


def test_a_run_whose_step_is_gone_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "best").write_text("step-9\n")
    with pytest.raises(CheckpointError, match="best or last step, step-9, is not there"):
        find_checkpoint(tmp_path)


def test_shipped_names_come_before_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    assert [find_checkpoint(name) for name in SHIPPED] == [WEIGHTS / name for name in SHIPPED]
    with pytest.raises(CheckpointError, match=r"^nano is no checkpoint"):
        find_checkpoint("./nano")


def test_configs_become_json() -> None:
    config = LstmConfig(feature_dim=3, vocab_size=5)
    assert LstmConfig(**json.loads(json.dumps(model_config_json(config)))) == config


def fail(source: Path | str, error: type[Exception] = CheckpointError) -> str:
    with pytest.raises(error) as caught:
        load_checkpoint(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_no_such_model_lists_the_ones_there_are() -> None:
    assert fail("nanno") == (
        "There is no model 'nanno'; choose one of nano, nano-lstm, a directory that pixtell train wrote, or "
        "a hub id (owner/name)."
    )


def test_a_directory_without_a_checkpoint(tmp_path: Path, tiny_models: Path) -> None:
    assert fail(tmp_path) == (
        f"{tmp_path} is no checkpoint: it has no config.json; name a run's or a checkpoint's directory."
    )
    assert fail(tiny_models / "encoder") == (
        f"{tiny_models / 'encoder' / 'config.json'} describes no captioning model; name a directory that "
        "pixtell train wrote."
    )


def test_a_family_that_is_not_known(models: Path) -> None:
    change_config(models / "lstm", family="rwkv")
    assert fail(models / "lstm") == (
        f"{models / 'lstm'} is of the family 'rwkv'; this pixtell knows clipcap, lstm: take a newer one."
    )


def test_the_wrong_family(models: Path) -> None:
    change_config(models / "clipcap", family="lstm")
    sentence = fail(models / "clipcap", ModelError)
    assert sentence.startswith("This makes no lstm model: the configuration lacks vocab_size; ")


def test_weights_of_another_model(models: Path) -> None:
    shutil.copy(models / "clipcap" / "model.safetensors", models / "lstm")
    sentence = fail(models / "lstm")
    assert sentence.startswith(
        f"{models / 'lstm' / 'model.safetensors'} holds the weights of another model than config.json "
        "describes ("
    )
    assert "instead of" in sentence
    assert sentence.endswith("; copy both from one run.")


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_weights_cut_short(models: Path, kept: int) -> None:
    path = models / "lstm" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    sentence = fail(models / "lstm")
    assert sentence.startswith(f"{path} cannot be read (")
    assert sentence.endswith("); it is cut short: copy it again.")


def test_an_encoder_cut_short(models: Path) -> None:
    path = models / "encoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    sentence = fail(models / "lstm", EncoderError)
    assert "encoder/model.safetensors cannot be loaded (" in sentence
    assert sentence.endswith("); copy it again.")


def test_a_missing_file_is_named(models: Path) -> None:
    (models / "lstm" / "model.safetensors").unlink()
    assert fail(models / "lstm") == (
        f"{models / 'lstm' / 'model.safetensors'} is missing; the checkpoint is not whole: copy or train it "
        "again."
    )
    (models / "clipcap" / "vocabulary.json").unlink()
    assert str(models / "clipcap" / "vocabulary.json") in fail(models / "clipcap")


def test_a_missing_encoder_is_named(models: Path) -> None:
    shutil.rmtree(models / "encoder")
    assert "encoder" in fail(models / "lstm", EncoderError)


def test_a_tokenizer_of_another_model(models: Path) -> None:
    WordTokenizer(["<eos>", "<unk>", "dog"]).save(models / "lstm")
    assert fail(models / "lstm") == (
        f"{models / 'lstm'} has a tokenizer of 3 tokens and a model of 20; copy both from one run."
    )


def test_an_encoder_of_another_model(models: Path) -> None:
    from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, save_nano_encoder

    other = NanoEncoder(config=NanoEncoderConfig(width=2, blocks=(1, 1, 1, 1), image_size=64))
    with atomic_directory(models / "encoder") as directory:
        save_nano_encoder(other, directory)
    assert fail(models / "lstm") == (
        f"{models / 'lstm'} has a model of 32 features, and its encoder ../encoder gives 16; use the encoder "
        "it was trained on."
    )


@pytest.mark.parametrize(
    "changes",
    [{"model": [1]}, {"model": 3}, {"decoding": 3}, {"unsure_below": "low"}],
)
def test_a_garbled_config(models: Path, changes: dict[str, object]) -> None:
    change_config(models / "lstm", **changes)
    sentence = fail(models / "lstm")
    assert sentence.startswith(f"{models / 'lstm' / 'config.json'} lacks or garbles a field (")
    assert sentence.endswith("); copy the checkpoint again.")


@pytest.mark.parametrize("field", ["model", "encoder", "tokenizer"])
def test_a_config_that_lacks_a_field(models: Path, field: str) -> None:
    path = models / "lstm" / "config.json"
    stored = json.loads(path.read_text())
    del stored[field]
    path.write_text(json.dumps(stored))
    assert fail(models / "lstm") == f"{path} lacks or garbles a field ({field!r}); copy the checkpoint again."


def test_a_config_cut_short(models: Path) -> None:
    path = models / "lstm" / "config.json"
    path.write_text(path.read_text()[:40])
    assert fail(models / "lstm").startswith(f"{path} is not JSON (")


def test_an_unknown_tokenizer(models: Path) -> None:
    change_config(models / "lstm", tokenizer="sentencepiece")
    assert "There is no tokenizer 'sentencepiece'" in fail(models / "lstm")


def test_a_disk_that_fills_up_keeps_the_old_checkpoint(models: Path) -> None:
    code = """
import resource, sys
from dataclasses import replace
from pathlib import Path
from pixtell.checkpoints import load_checkpoint, save_checkpoint
from pixtell.errors import StorageError
from pixtell.files import atomic_directory
directory = Path(sys.argv[1])
old = load_checkpoint(directory)
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    config = replace(old.config, encoder=old.config.encoder.located(directory))
    with atomic_directory(directory) as temporary:
        save_checkpoint(temporary, config=config, model=old.model, tokenizer=old.tokenizer)
except StorageError as error:
    print(error)
"""
    directory = models / "clipcap"
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(
        "model.safetensors cannot be written (File too large); what was there before is unchanged: free "
        "space or name another place.\n"
    )
    load_checkpoint(directory)
    assert sorted(path.name for path in models.iterdir()) == ["clipcap", "encoder", "lstm"]


COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubStandIn(http.server.BaseHTTPRequestHandler):
    """The part of the hub's protocol that a download uses; it has the one model some/captioner."""

    server: "HubServer"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        hub_id, _, rest = self.path.strip("/").partition("/resolve/")
        file = self.server.directory / rest.partition("/")[2]
        if hub_id != "some/captioner":
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"})
        elif not file.is_file():
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            content = file.read_bytes()
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self._send(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Silence."""


class HubServer(http.server.ThreadingHTTPServer):
    def __init__(self, directory: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubStandIn)
        self.directory = directory


@pytest.fixture
def hub(models: Path) -> Iterator[str]:
    """The address of a hub whose model some/captioner is the tiny clipcap."""
    change_config(
        models / "clipcap",
        encoder={"kind": "nano", "output": "patches", "path": str(models / "encoder")},
    )
    with HubServer(models / "clipcap") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_hub_id_is_fetched_and_then_needs_no_hub(
    hub: str, models: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    def caption(hub_id: str, *, offline: bool) -> str:
        code = """
import sys
from pixtell import Captioner, PixtellError
try:
    print(Captioner.from_pretrained(sys.argv[1]).caption(sys.argv[2]).text)
except PixtellError as error:
    print(error)
"""
        environment = {
            "HF_ENDPOINT": hub,
            "HF_HOME": str(tmp_path / "hf"),
            "HF_HUB_OFFLINE": str(int(offline)),
        }
        done = subprocess.run(
            [sys.executable, "-c", code, hub_id, str(pictures[0])],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    from pixtell.captioner import Captioner

    expected = Captioner.from_pretrained(models / "clipcap").caption(pictures[0]).text
    assert caption("some/captioner", offline=False) == expected
    assert caption("some/captioner", offline=True) == expected
    said = caption("some/absent", offline=False)
    assert said.startswith("There is no model 'some/absent' on this disk, and none from the hub (no model ")
    assert said.endswith("); choose one of nano, nano-lstm or a directory.")


def test_read_config_needs_no_weights(models: Path) -> None:
    (models / "lstm" / "model.safetensors").unlink()
    assert read_config(models / "lstm").family == "lstm"
