"""Features -> captions: greedy and beam search, on torch and on ONNX Runtime."""

from collections.abc import Callable, Iterator

import torch

from benchmarks.comparing import Limit, Road, Side, equal, equal_where_both, unjudged
from benchmarks.machine import BANDWIDTH, INT8_PRODUCTS, PRODUCTS, Machine
from benchmarks.sizes import Models
from pixtell.checkpoints import read_config
from pixtell.decoding import DecodingOptions, decode
from pixtell.exports import load_exported
from pixtell.models import build_model
from pixtell.models.base import CaptionDecoder, CaptionModel

TokenIds = list[list[int]]
ENGINES = {"torch": "torch", "fp32": "ONNX Runtime, fp32", "int8": "ONNX Runtime, int8"}


def roads(models: Models, machine: Machine) -> Iterator[Road]:
    sizes = models.sizes
    features = torch.randn(sizes.batch_size, *models.encoder.feature_shape)
    decoders: dict[str, CaptionDecoder] = {"torch": models.packed}
    for dtype in ("fp32", "int8"):
        directory = models.exported(dtype)
        _, decoders[dtype], _ = load_exported(directory, read_config(directory))
    at_least = {"torch": None, "fp32": 1.6, "int8": 3.5}
    for batch_size in dict.fromkeys((1, sizes.batch_size)):
        for beam_size in (1, sizes.beam_size):
            rows, is_goal = features[:batch_size], batch_size > 1 and beam_size == 1
            yield Road(
                name=f"ClipCap, GPT-2 small, batch {batch_size}, {_words(beam_size)}",
                peer_name="transformers' generate, fp32",
                peer=generated(models, rows, beam_size),
                peer_units=batch_size,
                sides=[
                    Side(
                        name,
                        our_captions(models, decoders[engine], rows, beam_size),
                        batch_size,
                        at_least=at_least[engine] if is_goal else None,
                        limit=decoding_limit(models, machine, batch_size, beam_size, int8=engine == "int8"),
                        problem=unjudged if engine == "int8" else equal,
                    )
                    for engine, name in ENGINES.items()
                ],
            )
    yield _uncached_road(models, machine, features, {name: decoders[name] for name in ("torch", "fp32")})
    yield _lstm_road(models)


def _words(beam_size: int) -> str:
    return "greedy" if beam_size == 1 else f"beam {beam_size}"


def _uncached_road(
    models: Models, machine: Machine, features: torch.Tensor, decoders: dict[str, CaptionDecoder]
) -> Road:
    """Beam search as ClipCap's own inference has it, on a few of the images: one at a time costs the same
    however many there are."""
    sizes = models.sizes
    few = features[: sizes.slow_images // 4]
    return Road(
        name=f"ClipCap, GPT-2 small, batch {sizes.batch_size}, {_words(sizes.beam_size)}",
        peer_name="one image at a time, no cache",
        peer=lambda: [uncached_beams(models, row[None]) for row in few],
        peer_units=len(few),
        sides=[
            Side(
                ENGINES[engine],
                our_captions(models, decoder, features, sizes.beam_size),
                len(features),
                at_least=10,
                limit=decoding_limit(models, machine, len(features), sizes.beam_size, int8=False),
                problem=equal_where_both,
            )
            for engine, decoder in decoders.items()
        ],
    )


def our_captions(
    models: Models, decoder: CaptionDecoder, features: torch.Tensor, beam_size: int
) -> Callable[[], TokenIds]:
    new_tokens = models.sizes.new_tokens
    options = DecodingOptions(
        beam_size=beam_size, max_new_tokens=new_tokens, min_length=new_tokens, length_penalty=1.0
    )

    @torch.inference_mode()
    def run() -> TokenIds:
        captions = decode(decoder, features, options, eos_id=models.eos_id)
        return [list(found[0].token_ids) for found in captions]

    return run


def generated(models: Models, features: torch.Tensor, beam_size: int) -> Callable[[], TokenIds]:
    new_tokens = models.sizes.new_tokens

    @torch.inference_mode()
    def run() -> TokenIds:
        prefix = models.clipcap.map_features(features)  # (B, P, D)
        found: TokenIds = models.peer_gpt2.generate(
            inputs_embeds=prefix,
            attention_mask=torch.ones(prefix.shape[:2], dtype=torch.long),
            max_new_tokens=new_tokens,
            min_new_tokens=new_tokens,
            num_beams=beam_size,
            do_sample=False,
            pad_token_id=models.eos_id,
        ).tolist()
        return found

    return run


@torch.inference_mode()
def uncached_beams(models: Models, features: torch.Tensor) -> list[int]:
    """Beam search as ClipCap's inference does it: one image, K rows, and the whole of prefix and tokens is
    read again for every token. features: (1, F)."""
    gpt2, beam_size = models.peer_gpt2, models.sizes.beam_size
    embedded = models.clipcap.map_features(features)  # (1, P, D), then (K, P + T, D)
    token_ids, ranks = torch.zeros(1, 0, dtype=torch.long), torch.zeros(1)  # (K, T), (K,)
    for _ in range(models.sizes.new_tokens):
        logits = gpt2(inputs_embeds=embedded, use_cache=False).logits[:, -1]  # (K, V)
        log_probs = logits.log_softmax(-1)
        log_probs[:, models.eos_id] = float("-inf")
        ranks, index = (ranks[:, None] + log_probs).flatten().topk(beam_size)
        parents, chosen = index // logits.shape[1], index % logits.shape[1]
        token_ids = torch.cat((token_ids[parents], chosen[:, None]), 1)
        embedded = torch.cat((embedded[parents], gpt2.transformer.wte(chosen)[:, None]), 1)
    best: list[int] = token_ids[ranks.argmax()].tolist()
    return best


def decoding_limit(models: Models, machine: Machine, batch_size: int, beam_size: int, *, int8: bool) -> Limit:
    """Images a second if every step took as long as its weights need to come from memory, or its products
    at the machine's best, whichever is longer."""
    gpt2 = models.clipcap.gpt2
    weights = sum(weight.numel() for block in gpt2.h for weight in block.parameters())
    head = gpt2.wte.weight.numel()
    rate = machine.int8_ops if int8 else machine.flops
    loading = (weights + head) * (1 if int8 else 4) / machine.bandwidth  # seconds a step
    prefix = 2 * batch_size * (models.sizes.prefix_length * weights + head) / rate
    step = 2 * batch_size * beam_size * (weights + head) / rate
    seconds = max(loading, prefix) + (models.sizes.new_tokens - 1) * max(loading, step)
    products = INT8_PRODUCTS if int8 else PRODUCTS
    return Limit(batch_size / seconds, BANDWIDTH if loading > step else products)


def _lstm_road(models: Models) -> Road:
    """The conventional system against the way tutorials decode it: one image, no state."""
    sizes, new_tokens = models.sizes, models.sizes.new_tokens
    model = build_model("lstm", {"feature_dim": 4096, "vocab_size": 8000}).eval()
    model.pack()
    features = torch.randn(sizes.batch_size, 4096)
    options = DecodingOptions(max_new_tokens=new_tokens, min_length=new_tokens)

    @torch.inference_mode()
    def ours() -> TokenIds:
        return [list(found[0].token_ids) for found in decode(model, features, options, eos_id=0)]

    @torch.inference_mode()
    def peer() -> TokenIds:
        return [uncached_greedy(model, row[None], new_tokens) for row in features]

    return Road(
        name=f"lstm, VGG16 features, batch {sizes.batch_size}, greedy",
        peer_name="one image at a time, no state",
        peer=peer,
        peer_units=len(features),
        sides=[Side("", ours, len(features))],
    )


def uncached_greedy(model: CaptionModel, features: torch.Tensor, new_tokens: int) -> list[int]:
    """One image; the whole caption so far is read again for every word."""
    token_ids: list[int] = []
    for _ in range(new_tokens):
        logits = model(features, torch.tensor([[*token_ids, 0]]))[:, -1]
        logits[:, 0] = float("-inf")  # the end token, as min_length forbids it
        token_ids.append(int(logits.argmax()))
    return token_ids
