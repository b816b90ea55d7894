"""Weights in transformers' format become a GPT-2 of ours that computes the same."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pixtell.converters import convert_gpt2_config, convert_gpt2_state, find_gpt2, load_gpt2
from pixtell.errors import CheckpointError, DownloadError, ModelError
from pixtell.models.gpt2 import Gpt2, Gpt2Config

CONFIG = {"vocab_size": 57, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 40, "resid_pdrop": 0.2}


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' GPT-2 with random weights, large enough that a wrong term shows."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**CONFIG, bos_token_id=56, eos_token_id=56)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.fixture
def directory(reference: Any, tmp_path: Path) -> Path:
    reference.save_pretrained(tmp_path)
    return tmp_path


def build(config: Gpt2Config, state: dict[str, torch.Tensor]) -> Gpt2:
    model = Gpt2(config).eval()
    model.load_state_dict(state)
    return model


def greedy(model: Gpt2, prompt: torch.Tensor, num_tokens: int) -> list[int]:
    hidden, cache = model(model.embed(prompt))
    chosen = []
    for _ in range(num_tokens):
        token = model.project(hidden[:, -1]).argmax(dim=-1, keepdim=True)
        chosen.append(int(token))
        hidden, cache = model(model.embed(token), cache)
    return chosen


def test_gpt2_equals_transformers_through_its_saved_files(reference: Any, directory: Path) -> None:
    config, state = load_gpt2(directory)
    assert config == Gpt2Config(57, width=24, num_layers=3, num_heads=4, max_positions=40, dropout=0.2)
    model = build(config, state)
    token_ids = torch.randint(0, 57, (3, 20))
    with torch.no_grad():
        ours = model.project(model(model.embed(token_ids))[0])
        theirs = reference(token_ids).logits
        assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
        prompt = token_ids[:1, :5]
        expected = reference.generate(
            prompt, max_new_tokens=25, do_sample=False, eos_token_id=None, pad_token_id=0
        )
        assert greedy(model, prompt, 25) == expected[0, 5:].tolist()


def test_every_layout_of_the_hub_gives_the_same_state(reference: Any, directory: Path) -> None:
    """Official files have no `transformer.` but causal masks; older ones are pickles with the tied head."""
    config, expected = load_gpt2(directory)
    weights = load_file(directory / "model.safetensors")
    bare = {name.removeprefix("transformer."): value.half().contiguous() for name, value in weights.items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 40, 40)
    bare["h.0.attn.masked_bias"] = torch.tensor(-1e4)
    halved = convert_gpt2_state(bare, config)
    assert halved.keys() == expected.keys()
    assert all(value.dtype == torch.float32 for value in halved.values())
    assert all(torch.equal(halved[name], expected[name].half().float()) for name in expected)

    (directory / "model.safetensors").unlink()
    torch.save(reference.state_dict(), directory / "pytorch_model.bin")
    _, state = load_gpt2(str(directory))
    assert state.keys() == Gpt2(config).state_dict().keys()
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_safetensors_are_preferred_to_a_pickle(directory: Path) -> None:
    (directory / "pytorch_model.bin").write_bytes(b"not read")
    assert load_gpt2(directory)[0].vocab_size == 57


def rename(state: dict[str, torch.Tensor]) -> None:
    state["transformer.h.1.ln_3.bias"] = state.pop("transformer.h.1.ln_1.bias")


def cut(state: dict[str, torch.Tensor]) -> None:
    state["transformer.wpe.weight"] = state["transformer.wpe.weight"][:39].contiguous()


def untie(state: dict[str, torch.Tensor]) -> None:
    state["lm_head.weight"] = state["transformer.wte.weight"] + 1


def empty(state: dict[str, torch.Tensor]) -> None:
    state.clear()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (rename, r"\(h\.1\.ln_1\.bias is missing; h\.1\.ln_3\.bias is unexpected\)"),
        (cut, r"\(wpe\.weight has shape \(39, 24\), not \(40, 24\)\)"),
        (untie, r"\(lm_head\.weight differs from wte\.weight\)"),
        (empty, r"\(wte\.weight is missing; .*; and 37 more\)"),
    ],
)
def test_weights_of_another_model_are_refused(
    directory: Path, change: Callable[[dict[str, torch.Tensor]], None], problem: str
) -> None:
    state = load_file(directory / "model.safetensors")
    change(state)
    save_file(state, directory / "model.safetensors")
    with pytest.raises(ModelError, match=rf"^These weights do not fit .* {problem}: fetch both anew\.$"):
        load_gpt2(directory)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"model_type": "llama"}, "This GPT-2 has model_type 'llama', which .* choose another"),
        (
            {"activation_function": "relu", "n_inner": 7, "n_embd": 24},
            "has activation_function 'relu', n_inner 7, which pixtell's cannot run",
        ),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"n_embd": "wide"}, "width is 'wide', not int"),
        ({"n_embd": 24, "n_head": 5}, "num_heads 5 do not divide its width 24"),
    ],
)
def test_a_configuration_we_cannot_run_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelError, match=problem):
        convert_gpt2_config(settings)


def test_a_configuration_that_is_no_object_is_refused() -> None:
    with pytest.raises(ModelError, match=r"^This config\.json is not an object"):
        convert_gpt2_config(["gpt2"])


def test_defaults_are_those_of_gpt2_small() -> None:
    assert convert_gpt2_config({}) == Gpt2Config(50257)
    assert convert_gpt2_config({"n_embd": 1024, "n_inner": 4096, "n_head": 16}).width == 1024


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x02K\x01."], ids=["empty", "text", "number"])
def test_damaged_weights_are_named(directory: Path, name: str, content: bytes) -> None:
    (directory / "model.safetensors").unlink()
    (directory / name).write_bytes(content)
    with pytest.raises(
        CheckpointError, match=rf"{name} cannot be read as weights \(\w+\): fetch the file again"
    ):
        load_gpt2(directory)


def test_a_directory_without_gpt2_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no GPT-2: put config\.json and model\.safetensors or"):
        find_gpt2(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(CheckpointError, match="holds no GPT-2"):
        load_gpt2(tmp_path)


@pytest.mark.parametrize("weights", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize(
    "tokenizer", [("tokenizer.json",), ("merges.txt", "vocab.json")], ids=["json", "merges"]
)
def test_a_hub_id_is_found_with_its_tokenizer(
    weights: str,
    tokenizer: tuple[str, ...],
    reference: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From the hub's own cache, which also remembers what a model does not have."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = 40 * "a"
    model_dir = tmp_path / "models--some--gpt2"
    snapshot, absent = model_dir / "snapshots" / commit, model_dir / ".no_exist" / commit
    for folder in (snapshot, absent, model_dir / "refs"):
        folder.mkdir(parents=True)
    (model_dir / "refs" / "main").write_text(commit)
    reference.save_pretrained(snapshot)
    if weights == "pytorch_model.bin":
        (snapshot / "model.safetensors").unlink()
        torch.save(reference.state_dict(), snapshot / weights)
    for name in tokenizer:
        (snapshot / name).touch()
    for name in {"model.safetensors", "tokenizer.json"} - {weights, *tokenizer}:
        (absent / name).touch()

    assert find_gpt2("some/gpt2", revision=commit) == snapshot
    config, state = load_gpt2("some/gpt2", revision=commit)
    assert state.keys() == Gpt2(config).state_dict().keys()


def test_a_hub_id_without_network_is_one_sentence() -> None:
    with pytest.raises(DownloadError, match="nobody/no-such-gpt2"):
        load_gpt2("nobody/no-such-gpt2")
