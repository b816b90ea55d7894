"""ONNX Runtime runs what torch runs: the same logits, states and captions, from a directory of its own."""

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixtell import Captioner
from pixtell.checkpoints import load_checkpoint
from pixtell.decoding import DecodingOptions, decode
from pixtell.engines.onnx import OnnxDecoder, OnnxEncoder, load_decoder, open_session
from pixtell.engines.onnx_export import write_decoder, write_encoder
from pixtell.errors import CheckpointError, ModelError
from pixtell.exports import export_checkpoint
from pixtell.models import CaptionModel, build_model

V = 29
GPT2 = {"vocab_size": V, "width": 32, "num_layers": 2, "num_heads": 4, "max_positions": 12}
FAMILIES: dict[str, tuple[str, dict[str, Any], tuple[int, ...]]] = {
    "mlp": ("clipcap", {"gpt2": GPT2, "feature_dim": 12, "prefix_length": 3}, (12,)),
    "encoder": (
        "clipcap",
        {
            "gpt2": GPT2,
            "feature_dim": 16,
            "mapping": "encoder",
            "mapping_layers": 1,
            "normalise_features": True,
        },
        (16,),
    ),
    "patch": ("clipcap", {"gpt2": GPT2, "feature_dim": 12, "mapping": "patch", "num_patches": 4}, (4, 12)),
    "lstm": ("lstm", {"feature_dim": 12, "vocab_size": V, "width": 24, "normalise_features": True}, (4, 12)),
}


def build(name: str) -> tuple[CaptionModel, tuple[int, ...]]:
    family, config, shape = FAMILIES[name]
    torch.manual_seed(0)
    model = build_model(family, config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, shape


def export_model(model: CaptionModel, shape: tuple[int, ...], directory: Path, dtype: str) -> OnnxDecoder:
    functions = model.tensor_functions()
    directory.mkdir(exist_ok=True)
    write_decoder(
        directory,
        image=functions.image,
        language=functions.language,
        features=torch.randn(2, *shape),
        dtype=dtype,
    )
    return load_decoder(directory, max_positions=functions.max_positions)


@pytest.fixture(scope="module", params=FAMILIES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CaptionModel, OnnxDecoder, tuple[int, ...]]:
    """A model in torch, the same as graphs, and the shape of its features."""
    model, shape = build(request.param)
    return model, export_model(model, shape, tmp_path_factory.mktemp("graphs"), "fp32"), shape


@pytest.fixture(scope="module", params=["clipcap", "lstm"])
def exported(
    request: pytest.FixtureRequest, tiny_models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """One of the tiny models, exported; its encoder and weights are not beside it. Not to be changed."""
    directory: Path = tmp_path_factory.mktemp("exported") / request.param
    export_checkpoint(tiny_models / request.param, directory)
    return directory


@torch.inference_mode()
@pytest.mark.parametrize("rows", [1, 5])
def test_start_step_and_reorder_equal_torch(
    pair: tuple[CaptionModel, OnnxDecoder, tuple[int, ...]], rows: int
) -> None:
    model, decoder, shape = pair
    random = torch.Generator().manual_seed(rows)
    features = torch.randn(rows, *shape, generator=random)
    logits, state = model.start(features)
    found, found_state = decoder.start(features)
    assert decoder.vocab_size == model.vocab_size
    for _ in range(5):
        torch.testing.assert_close(found, logits, atol=1e-4, rtol=0)
        beams = torch.randint(len(logits), (len(logits) + 1,), generator=random)  # repeats some, drops some
        state, found_state = model.reorder(state, beams), decoder.reorder(found_state, beams)
        token_ids = torch.randint(V, (len(beams),), generator=random)
        logits, state = model.step(token_ids, state)
        found, found_state = decoder.step(token_ids, found_state)
    torch.testing.assert_close(found, logits, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_a_state_is_a_value(pair: tuple[CaptionModel, OnnxDecoder, tuple[int, ...]]) -> None:
    """Two steps from one state do not disturb each other, nor does what a caller does to its tensors."""
    _, decoder, shape = pair
    features = torch.randn(2, *shape)
    logits, state = decoder.start(features)
    first, _ = decoder.step(torch.tensor([3, 4]), state)
    kept = first.clone()
    decoder.step(torch.tensor([5, 6]), state)
    logits.zero_()
    features.zero_()
    again, _ = decoder.step(torch.tensor([3, 4]), state)
    assert torch.equal(first, kept)
    assert torch.equal(again, kept)


def test_positions_end_in_a_sentence(pair: tuple[CaptionModel, OnnxDecoder, tuple[int, ...]]) -> None:
    model, decoder, shape = pair
    _, state = decoder.start(torch.randn(1, *shape))
    if model.tensor_functions().max_positions is None:
        for _ in range(40):
            _, state = decoder.step(torch.tensor([1]), state)
        return
    while state.length < 12:
        _, state = decoder.step(torch.tensor([1]), state)
    with pytest.raises(ModelError, match=r"^This model has 12 positions .* 13 are needed: .*-new-tokens\.$"):
        decoder.step(torch.tensor([1]), state)


def test_features_of_another_encoder_are_refused(
    pair: tuple[CaptionModel, OnnxDecoder, tuple[int, ...]],
) -> None:
    _, decoder, shape = pair
    with pytest.raises(ModelError, match=r"^Features of shape .* do not fit: this model takes .*\.$"):
        decoder.start(torch.randn(2, *shape[:-1], shape[-1] + 1))


def test_int8_is_smaller_and_near(tmp_path: Path) -> None:
    model, shape = build("mlp")
    whole = export_model(model, shape, tmp_path / "fp32", "fp32")
    small = export_model(model, shape, tmp_path / "int8", "int8")
    features = torch.randn(8, *shape)
    logits, found = whole.start(features)[0], small.start(features)[0]
    assert not torch.equal(found, logits)
    assert (found - logits).abs().max() < 0.1 * logits.abs().max()
    sizes = [(tmp_path / dtype / "language.onnx.data").stat().st_size for dtype in ("int8", "fp32")]
    assert sizes[0] < 0.4 * sizes[1]


def test_captions_and_features_equal_torch(exported: Path, tiny_models: Path, pictures: list[Path]) -> None:
    ours = Captioner.from_pretrained(exported)
    torchs = Captioner.from_pretrained(tiny_models / exported.name)
    assert (ours.decoding, ours.unsure_below) == (torchs.decoding, torchs.unsure_below)
    for name in ("name", "output", "feature_shape", "preprocess"):
        assert getattr(ours.encoder, name) == getattr(torchs.encoder, name)
    assert ours.encoder.fingerprint != torchs.encoder.fingerprint  # no feature cache holds both
    images = torch.randint(256, (3, 3, 64, 64), dtype=torch.uint8)
    torch.testing.assert_close(ours.encode(images), torchs.encode(images), atol=1e-4, rtol=1e-4)
    for beam_size in (1, 3):
        found, expected = (
            [
                (caption.token_ids, pytest.approx(caption.logprob, abs=1e-3))
                for caption in captioner.caption(pictures, beam_size=beam_size, batch_size=4)
            ]
            for captioner in (ours, torchs)
        )
        assert found == expected
        assert len({token_ids for token_ids, _ in found}) > 1  # the picture matters


def test_an_exported_model_needs_nothing_else(
    tiny_models: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    copy = Path(shutil.copytree(tiny_models, tmp_path / "models"))
    expected = Captioner.from_pretrained(copy / "lstm").caption(pictures[0]).text
    export_checkpoint(copy / "lstm", tmp_path / "onnx")
    shutil.rmtree(copy)
    moved = (tmp_path / "onnx").rename(tmp_path / "elsewhere")
    linked = tmp_path / "linked"  # as a hub's cache has it: files that are links to blobs
    linked.mkdir()
    for number, path in enumerate(sorted(moved.iterdir())):
        blob = path.rename(tmp_path / f"blob-{number}")
        (linked / path.name).symlink_to(blob)
    assert Captioner.from_pretrained(linked).caption(pictures[0]).text == expected


def test_an_exported_model_is_not_trained_on(exported: Path) -> None:
    with pytest.raises(CheckpointError, match=r"was exported to onnx and holds no weights for torch; name"):
        load_checkpoint(exported)


def test_threads_are_torchs(exported: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            session = open_session(exported / "encoder.onnx")
            assert session.get_session_options().intra_op_num_threads == threads
    finally:
        torch.set_num_threads(before)


class Counting:
    """A session that counts its runs and notes where its inputs lie in memory."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.get_inputs, self.get_outputs = session.get_inputs, session.get_outputs
        self.runs = 0
        self.pointers: list[int] = []

    def run_with_ort_values(self, names: None, values: dict[str, Any]) -> Any:
        self.runs += 1
        self.pointers = [value.data_ptr() for value in values.values()]
        return self.session.run_with_ort_values(names, values)


def test_a_token_is_one_run_and_nothing_is_copied(tmp_path: Path) -> None:
    model, shape = build("patch")
    export_model(model, shape, tmp_path, "fp32")
    image, language = (Counting(open_session(tmp_path / name)) for name in ("image.onnx", "language.onnx"))
    decoder = OnnxDecoder(image=image, language=language, max_positions=12)  # type: ignore[arg-type]
    options = DecodingOptions(beam_size=3, max_new_tokens=6, min_length=6)
    decode(decoder, torch.randn(4, *shape), options, eos_id=0)
    assert (image.runs, language.runs) == (1, 6)
    features = torch.randn(2, *shape)
    _, state = decoder.start(features)
    assert image.pointers == [features.data_ptr()]
    decoder.step(torch.tensor([1, 2]), state)
    assert language.pointers[2:] == [part.data_ptr() for part in state.tensors]


# --- what is damaged, or cannot be


class Encoder(nn.Module):
    """Not an encoder that a graph can hold: as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, pixels: Tensor) -> Tensor:
        if self.how == "counts":
            return pixels.mean((2, 3)) * float(len(pixels))  # a Python number stays what it was in the trace
        return torch.fft.fft(pixels).real.mean((2, 3))


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            "counts",
            r"^The encoder part of this model computes something else as an ONNX graph than in torch: ",
        ),
        (
            "transforms",
            r"^The encoder part of this model cannot be an ONNX graph \(.*\): use the model as it",
        ),
    ],
)
def test_what_no_graph_can_hold(tmp_path: Path, how: str, sentence: str, capfd: Any) -> None:
    with pytest.raises(CheckpointError, match=sentence) as raised:
        write_encoder(tmp_path, encoder=Encoder(how), pixels=torch.randn(2, 3, 8, 8), dtype="fp32")
    assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def damaged(exported: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(exported, tmp_path / "damaged"))


def load_error(directory: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        Captioner.from_pretrained(directory)
    message = str(raised.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


@pytest.mark.parametrize("name", ["image.onnx", "language.onnx", "encoder.onnx", "encoder.onnx.data"])
def test_a_file_that_is_cut_short_or_missing(damaged: Path, name: str) -> None:
    path = damaged / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    graph = name.removesuffix(".data")
    assert load_error(damaged).startswith(f"{damaged / graph} cannot be read (")
    path.unlink()
    assert str(damaged / graph) in load_error(damaged)


def test_parts_of_two_models(damaged: Path, exported: Path, tiny_models: Path, tmp_path: Path) -> None:
    other = {"clipcap": "lstm", "lstm": "clipcap"}[exported.name]
    export_checkpoint(tiny_models / other, tmp_path / "other")
    for name in ("language.onnx", "language.onnx.data"):
        shutil.copy(tmp_path / "other" / name, damaged / name)
    assert load_error(damaged) == (
        f"image.onnx and language.onnx in {damaged} are of two models; export the model again."
    )


def test_a_tokenizer_of_another_model(damaged: Path) -> None:
    path = damaged / "vocabulary.json"
    path.write_text(path.read_text().replace("]", ', "zebra"]'))
    assert load_error(damaged).startswith(f"{damaged} has a tokenizer of 21 tokens and a model of 20; ")


def test_without_onnxruntime(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # what Python has for "there is none"
    message = load_error(exported)
    assert message.startswith(f"{exported} was exported to ONNX, and onnxruntime is not installed: run pip ")


def test_encoders_are_moved_nowhere(exported: Path) -> None:
    encoder = Captioner.from_pretrained(exported).encoder
    assert isinstance(encoder, OnnxEncoder)
    assert encoder.to(torch.device("cpu"), torch.float32) is encoder
