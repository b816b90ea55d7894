"""Packed weights: the same products, each weight laid out once, and nothing left to train or to save."""

import copy

import pytest
import torch
from torch import nn

from pixtell.decoding import DecodingOptions, decode
from pixtell.errors import ModelError
from pixtell.models import CaptionModel, build_model
from pixtell.models import packed as packed_module
from pixtell.models.packed import PackedLinear, can_pack, pack_linears

GPT2 = {"vocab_size": 43, "width": 32, "num_layers": 2, "num_heads": 4, "max_positions": 40}
CONFIGS = {
    "clipcap": {
        "gpt2": GPT2,
        "feature_dim": 16,
        "mapping": "encoder",
        "mapping_layers": 1,
        "mapping_heads": 4,
    },
    "lstm": {"feature_dim": 16, "vocab_size": 43, "width": 24},
}

pytestmark = pytest.mark.skipif(
    not can_pack(torch.zeros(1, 1)), reason="packed weights need torch with oneDNN on an x86-64 CPU"
)


@pytest.fixture(params=CONFIGS)
def model(request: pytest.FixtureRequest) -> CaptionModel:
    torch.manual_seed(0)
    model = build_model(request.param, CONFIGS[request.param]).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("rows", [(), (1,), (5,), (2, 3), (100,)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_layer(rows: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 7, bias=bias)
    hidden = torch.randn(*rows, 12)
    packed = PackedLinear(layer.weight, layer.bias)
    with torch.no_grad():
        assert torch.allclose(packed(hidden), layer(hidden), atol=1e-6)
        assert packed(hidden).shape == (*rows, 7)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_captions_are_those_of_the_model_as_it_was(model: CaptionModel, beam_size: int) -> None:
    packed = copy.deepcopy(model)
    packed.pack()
    features = torch.randn(6, 16)
    options = DecodingOptions(beam_size=beam_size, max_new_tokens=9)
    expected = decode(model, features, options, eos_id=0)
    found = decode(packed, features, options, eos_id=0)
    assert len({one[0].token_ids for one in expected}) > 1, "the test needs captions that differ"
    assert [[one.token_ids for one in image] for image in found] == [
        [one.token_ids for one in image] for image in expected
    ]
    assert found[0][0].logprob == pytest.approx(expected[0][0].logprob, abs=1e-4)


def test_a_weight_is_laid_out_once_and_held_once(
    model: CaptionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step has no product but those of packed weights; but the table of embeddings, no weight stays."""
    model.pack()
    made: list[torch.Size] = []
    of_torch = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *args: made.append(args[1].shape) or of_torch(*args))
    with torch.inference_mode():
        _, state = model.start(torch.randn(2, 16))
        made.clear()
        model.step(torch.tensor([1, 2]), state)
    assert made == []
    weights = {name for name, value in model.named_parameters() if value.dim() == 2}
    language = {name for name in weights if not name.startswith(("mapping.", "image.", "lstm."))}
    assert language <= {"gpt2.wte.weight", "gpt2.wpe.weight", "embedding.weight"}


def test_a_gradient_is_refused() -> None:
    packed = PackedLinear(torch.randn(3, 4))
    with pytest.raises(ModelError, match="packed for decoding and passes no gradients: load it again"):
        packed(torch.randn(2, 4, requires_grad=True))


def test_what_cannot_be_packed_stays(model: CaptionModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not can_pack(torch.zeros(2, 2, dtype=torch.bfloat16))
    assert not can_pack(torch.zeros(2, 2, device="meta"))
    monkeypatch.setattr(packed_module.platform, "machine", lambda: "arm64")
    before = copy.deepcopy(model)
    model.pack()
    assert not any(isinstance(module, PackedLinear) for module in model.modules())
    assert before.state_dict().keys() == model.state_dict().keys()


def test_layers_whose_owners_read_their_weights_stay() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    inputs = torch.randn(1, 3, 8)
    with torch.no_grad():
        expected = block(inputs)
        pack_linears(block.self_attn)
        assert torch.equal(block(inputs), expected)
