"""How fast captions are decoded, as ratios in one run: `clipcap` against transformers' `generate` on the
same GPT-2 weights, `lstm` against an uncached loop over one image at a time. Equal output is checked first.

    python benchmarks/decoding.py [--rounds 5] [--threads 1]

Weights are random: speed does not depend on them. The end token is forbidden on both sides, so that each
makes the same number of new tokens. Medians of A B A B ... rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from pixtell.decoding import DecodingOptions, decode
from pixtell.models import build_model
from pixtell.models.base import CaptionModel

NEW_TOKENS = 20
GPT2_SMALL = {
    "vocab_size": 50257,
    "width": 768,
    "num_layers": 12,
    "num_heads": 12,
    "max_positions": 1024,
    "dropout": 0.1,
}
PREFIX_LENGTH = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds of A and B in turn")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"{'road':44} {'ours':>9} {'peer':>9} {'ratio':>6}")
    for batch_size in (1, 16):
        for beam_size in (1, 5):
            clipcap_against_generate(batch_size, beam_size, arguments.rounds)
    lstm_against_uncached_loop(16, arguments.rounds)


@torch.inference_mode()
def clipcap_against_generate(batch_size: int, beam_size: int, rounds: int) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = build_model(
        "clipcap", {"feature_dim": 512, "mapping": "mlp", "prefix_length": PREFIX_LENGTH, "gpt2": GPT2_SMALL}
    ).eval()
    peer = GPT2LMHeadModel(GPT2Config()).eval()
    peer.load_state_dict(hub_state(model), strict=False)
    features = torch.randn(batch_size, 512)
    eos_id = peer.config.eos_token_id
    options = DecodingOptions(
        beam_size=beam_size, max_new_tokens=NEW_TOKENS, min_length=NEW_TOKENS, length_penalty=1.0
    )

    def ours() -> list[list[int]]:
        return [list(captions[0].token_ids) for captions in decode(model, features, options, eos_id=eos_id)]

    def theirs() -> list[list[int]]:
        prefix = model.map_features(features)
        ids = peer.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=NEW_TOKENS,
            num_beams=beam_size,
            do_sample=False,
            pad_token_id=eos_id,
        )
        return ids.tolist()

    report(f"clipcap, GPT-2 small, batch {batch_size}, beam {beam_size}", ours, theirs, rounds, batch_size)


def hub_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Our GPT-2's weights under transformers' names; its Conv1D keeps projections transposed."""
    state = {}
    for name, value in model.gpt2.state_dict().items():
        is_projection = ".c_" in name and name.endswith("weight")
        state[f"transformer.{name}"] = value.T.contiguous() if is_projection else value
    state["lm_head.weight"] = state["transformer.wte.weight"]
    return state


@torch.inference_mode()
def lstm_against_uncached_loop(batch_size: int, rounds: int) -> None:
    model = build_model("lstm", {"feature_dim": 4096, "vocab_size": 8000}).eval()
    features = torch.randn(batch_size, 4096)
    options = DecodingOptions(max_new_tokens=NEW_TOKENS, min_length=NEW_TOKENS)

    def ours() -> list[list[int]]:
        return [list(captions[0].token_ids) for captions in decode(model, features, options, eos_id=0)]

    def theirs() -> list[list[int]]:
        return [uncached_greedy(model, row[None]) for row in features]

    report(f"lstm, VGG16 features, batch {batch_size}, greedy", ours, theirs, rounds, batch_size)


def uncached_greedy(model: CaptionModel, features: torch.Tensor) -> list[int]:
    """One image; the whole caption so far is read again for every word, as tutorials of the merge network
    do it."""
    token_ids: list[int] = []
    for _ in range(NEW_TOKENS):
        logits = model(features, torch.tensor([[*token_ids, 0]]))[:, -1]
        logits[:, 0] = float("-inf")  # the end token, as min_length forbids it
        token_ids.append(int(logits.argmax()))
    return token_ids


def report(
    road: str,
    ours: Callable[[], list[list[int]]],
    theirs: Callable[[], list[list[int]]],
    rounds: int,
    images: int,
) -> None:
    if ours() != theirs():
        raise SystemExit(f"{road}: the two give different tokens, so their speed is not compared.")
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for name, function in (("ours", ours), ("theirs", theirs)):
            started = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - started)
    ours_rate, peer_rate = (images / statistics.median(times[name]) for name in ("ours", "theirs"))
    print(f"{road:44} {ours_rate:7.1f}/s {peer_rate:7.1f}/s {ours_rate / peer_rate:6.2f}", flush=True)


if __name__ == "__main__":
    main()
