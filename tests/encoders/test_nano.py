"""The nano encoder: what it computes, how it is stored, and what is said of directories that hold none."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pixtell.encoders import EncoderSpec, load_encoder, parse_encoder
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig, load_nano_encoder, save_nano_encoder
from pixtell.errors import EncoderError

CONFIG = NanoEncoderConfig(width=4, blocks=(1, 2, 1, 1), image_size=64)


def make_encoder(output: str = "patches", seed: int = 0) -> NanoEncoder:
    """With statistics as training leaves them, no zeros and ones."""
    torch.manual_seed(seed)
    encoder = NanoEncoder(config=CONFIG, output=output)
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            torch.nn.init.normal_(buffer, std=0.1)
        elif name.endswith("running_var"):
            torch.nn.init.uniform_(buffer, 0.05, 0.2)
    return encoder.eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    save_nano_encoder(make_encoder(), tmp_path)
    return tmp_path


def spec_of(directory: Path, output: str = "patches") -> EncoderSpec:
    return EncoderSpec(kind="nano", output=output, path=str(directory))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (32, 96), (128, 64)])
def test_features_are_a_grid_row_by_row_and_their_mean(height: int, width: int) -> None:
    pixels = torch.randn(2, 3, height, width)
    encoder = make_encoder()
    with torch.no_grad():
        patches, grid = encoder(pixels), encoder.grid(pixels)
        pooled = make_encoder("pooled")(pixels)
    rows, columns = height // 32, width // 32
    assert patches.shape == (2, rows * columns, CONFIG.feature_dim) == (2, rows * columns, 32)
    for row in range(rows):
        for column in range(columns):
            assert torch.equal(patches[:, row * columns + column], grid[:, :, row, column])
    torch.testing.assert_close(pooled, patches.mean(1))
    assert patches.std() > 0


@pytest.mark.parametrize(("output", "shape"), [("patches", (4, 32)), ("pooled", (32,))])
def test_the_shape_it_promises_is_the_shape_it_gives(output: str, shape: tuple[int, ...]) -> None:
    encoder = make_encoder(output)
    size = encoder.preprocess.size
    assert encoder.feature_shape == shape == tuple(encoder(torch.zeros(1, 3, size, size)).shape[1:])


def test_a_picture_is_resized_to_a_square_and_never_cropped() -> None:
    preprocess = make_encoder().preprocess
    assert (preprocess.size, preprocess.resize) == (64, "square")
    assert preprocess.normalise(torch.tensor([[[[0]], [[255]], [[51]]]])).flatten().tolist() == pytest.approx(
        [-1.0, 1.0, -0.6]
    )


def test_an_image_does_not_depend_on_its_batch() -> None:
    pixels = torch.randn(3, 3, 64, 64)
    encoder = make_encoder()
    alone = torch.cat([encoder(one[None]) for one in pixels])
    # Kernels differ with the number of images: in the last bits on a CPU with AVX2.
    torch.testing.assert_close(encoder(pixels), alone, rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_pixels() -> None:
    pixels = torch.randn(1, 3, 64, 64, requires_grad=True)
    make_encoder()(pixels).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_saved_and_loaded_it_is_the_same_to_fp16(saved: Path) -> None:
    loaded = load_nano_encoder(spec_of(saved))
    pixels = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(loaded(pixels), make_encoder()(pixels), atol=2e-2, rtol=1e-2)
    assert all(
        value.dtype in (torch.float16, torch.int64)
        for value in load_file(saved / "model.safetensors").values()
    )
    assert not loaded.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in loaded.parameters())


def test_saved_again_it_is_the_same_to_the_bit(saved: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    again.mkdir()
    save_nano_encoder(load_nano_encoder(spec_of(saved)), again)
    assert load_nano_encoder(spec_of(again)).fingerprint == load_nano_encoder(spec_of(saved)).fingerprint


def test_the_names_of_its_weights_stay(saved: Path) -> None:
    """Checkpoints of earlier versions must load: these names are a format."""
    names = set(load_file(saved / "model.safetensors"))
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"stem.0.weight", *(f"stem.1.{part}" for part in norm)}
    for block in range(5):
        expected |= {f"blocks.{block}.conv{n}.weight" for n in (1, 2)}
        expected |= {f"blocks.{block}.norm{n}.{part}" for n in (1, 2) for part in norm}
    for block in (1, 3, 4):  # the first of a later stage
        expected |= {f"blocks.{block}.shortcut.1.weight"}
        expected |= {f"blocks.{block}.shortcut.2.{part}" for part in norm}
    assert names == expected
    assert json.loads((saved / "config.json").read_text()) == {
        "kind": "nano-encoder",
        "width": 4,
        "blocks": [1, 2, 1, 1],
        "image_size": 64,
    }


def test_everything_that_changes_a_value_changes_the_fingerprint() -> None:
    prints = {make_encoder(output, seed).fingerprint for output in ("patches", "pooled") for seed in (0, 1)}
    assert len(prints) == 4
    assert make_encoder().fingerprint in prints


def test_a_directory_is_found_from_what_a_person_types(saved: Path) -> None:
    spec = parse_encoder(str(saved), "pooled")
    assert spec.kind == "nano"
    assert load_encoder(spec).feature_shape == (32,)


def test_a_relative_path_starts_at_the_base(saved: Path) -> None:
    (saved / "model").mkdir()
    spec = EncoderSpec(kind="nano", output="patches", path="..")
    assert load_nano_encoder(spec, base_dir=saved / "model").config == CONFIG


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"image_size": 100}, "--image-size 100 is not a multiple of 32; choose for example 192."),
        ({"image_size": 0}, "--image-size 0 is not a multiple of 32; choose for example 192."),
        (
            {"width": 0},
            "A nano encoder of width 0 with (1, 2, 4, 1) blocks a stage is no network; give numbers above "
            "zero.",
        ),
        (
            {"blocks": (1, 0)},
            "A nano encoder of width 48 with (1, 0) blocks a stage is no network; give numbers above zero.",
        ),
    ],
)
def test_sizes_that_make_no_network_are_refused(config: dict[str, int], sentence: str) -> None:
    with pytest.raises(EncoderError) as caught:
        NanoEncoderConfig(**config)  # type: ignore[arg-type]
    assert str(caught.value) == sentence


def test_an_output_it_lacks_is_refused() -> None:
    with pytest.raises(
        EncoderError, match="the nano encoder has no output 'embedding': choose one of patches, pooled"
    ):
        NanoEncoder(config=CONFIG, output="embedding")


def test_bad_directories_are_named(saved: Path, tmp_path: Path) -> None:
    def sentence_of(spec: EncoderSpec) -> str:
        with pytest.raises(EncoderError) as caught:
            load_nano_encoder(spec)
        return str(caught.value)

    assert "config.json cannot be read" in sentence_of(spec_of(tmp_path / "nowhere"))
    hub = EncoderSpec(kind="nano", output="patches", hub_id="some/one")
    assert sentence_of(hub) == "There is no nano encoder 'some/one'; name nano or a directory."
    weights, config = saved / "model.safetensors", saved / "config.json"
    whole, stored = weights.read_bytes(), json.loads(config.read_text())

    weights.write_bytes(whole[:-100])
    assert sentence_of(spec_of(saved)).startswith(f"{weights} cannot be loaded (")
    weights.write_bytes(whole)
    config.write_text(json.dumps({**stored, "width": 8}))
    assert "size mismatch" in sentence_of(spec_of(saved))
    config.write_text(json.dumps({key: value for key, value in stored.items() if key != "blocks"}))
    assert sentence_of(spec_of(saved)) == f"{config} lacks or garbles a size ('blocks'); copy it again."
    config.write_text(json.dumps({**stored, "kind": "dog"}))
    assert sentence_of(spec_of(saved)) == (
        f"{saved} holds no nano encoder; name a directory that pixtell train-encoder wrote."
    )
