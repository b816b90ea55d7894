"""Packed weights: the same products, each weight laid out once, and nothing left to train or to save."""

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

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


class Calls(TorchDispatchMode):
    """Counts the operators of oneDNN and all other products of matrices."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_reorder_linear_weight", "_linear_pointwise", "addmm", "mm", "linear"):
            self.names[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_lays_no_weight_out(model: CaptionModel) -> None:
    """4 products a block of GPT-2 and the head; of the lstm the merged layer and the head."""
    model.pack()
    with torch.inference_mode():
        _, state = model.start(torch.randn(2, 16))
        with Calls() as calls:
            model.step(torch.tensor([1, 2]), state)
    assert calls.names == {"_linear_pointwise": 4 * 2 + 1 if hasattr(model, "gpt2") else 2}


def test_but_the_tables_of_embeddings_no_weight_of_decoding_is_held_twice(model: CaptionModel) -> None:
    model.pack()
    left = {name for name, value in model.named_parameters() if value.dim() == 2}
    language = {name for name in left if not name.startswith(("mapping.", "lstm."))}
    assert language == (
        {"gpt2.wte.weight", "gpt2.wpe.weight"} if hasattr(model, "gpt2") else {"embedding.weight"}
    )


def test_a_packed_model_can_be_copied(model: CaptionModel) -> None:
    """Through the two functions that pickle calls as well."""
    model.pack()
    features = torch.randn(2, 16)
    with torch.inference_mode():
        assert torch.equal(copy.deepcopy(model).start(features)[0], model.start(features)[0])


def test_what_a_packed_model_cannot_is_a_sentence(model: CaptionModel) -> None:
    model.pack()
    with pytest.raises(ModelError, match="packed for decoding and cannot be saved: load it anew, with load_"):
        model.state_dict()
    with pytest.raises(ModelError, match="packed for decoding and cannot be moved: load it anew, with load_"):
        model.to(torch.bfloat16)


def test_a_gradient_is_refused() -> None:
    packed = PackedLinear(torch.randn(3, 4))
    with pytest.raises(ModelError, match="packed for decoding and passes no gradients: load it anew"):
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
        pack_linears(nn.Sequential(block))
        assert torch.equal(block(inputs), expected)
        pack_linears(block.self_attn)
        assert torch.equal(block(inputs), expected)
