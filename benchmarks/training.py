"""One step of training on cached features: loss, gradients, update, with Flickr8k's caption lengths."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F

from benchmarks import FLICKR8K
from benchmarks.comparing import Limit, Road, Side
from benchmarks.machine import PRODUCTS, Machine
from benchmarks.sizes import Models

# Words and punctuation marks of 80 captions, where the data set is not at hand: as Flickr8k has them.
LENGTHS = [6, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 14, 15, 18] * 5


def roads(models: Models, machine: Machine) -> Iterator[Road]:
    from pixtell.batching import make_batch
    from pixtell.training.cross_entropy import summed_loss

    sizes, model, peer_gpt2 = models.sizes, models.clipcap, models.peer_gpt2
    captions, longest = _captions(sizes.batch_size, models.eos_id)
    batch = make_batch(captions, torch.arange(len(captions)))
    num_tokens = sum(len(ids) for of_image in captions for ids in of_image)
    features = torch.randn(len(captions), *models.encoder.feature_shape)

    def our_loss() -> torch.Tensor:
        return summed_loss(model, features, batch, ignored_ids=(), label_smoothing=0.0) / num_tokens

    padded = F.pad(batch.labels, (0, longest - batch.labels.shape[1]), value=-100)  # (C, longest)

    def peer_loss() -> torch.Tensor:
        """As the script that came with ClipCap: the prefix once a caption, every caption as long as the
        longest of the data set."""
        prefix = model.map_features(features[batch.image_index])  # (C, P, D)
        embedded = torch.cat((prefix, peer_gpt2.transformer.wte(padded.clamp(min=0))), 1)
        logits = peer_gpt2(inputs_embeds=embedded, use_cache=False).logits[:, prefix.shape[1] - 1 : -1]
        return F.cross_entropy(logits.flatten(0, 1), padded.flatten(), ignore_index=-100)

    def problem(one: float, other: float) -> str | None:
        return None if abs(one - other) < 1e-3 else f"the losses are {one:.4f} and {other:.4f}"

    peer_parameters = [*model.mapping.parameters(), *peer_gpt2.parameters()]
    num_captions = len(batch.token_ids)
    flops = training_flops(models, num_images=len(captions), num_captions=num_captions, num_tokens=num_tokens)
    limit = Limit(machine.flops * num_captions / flops, PRODUCTS)
    ours = _step(our_loss, list(model.parameters()), fused=True)  # as training/loop.py has it
    yield Road(
        name="training step, GPT-2 small, cached features",
        peer_name="all captions padded, prefix once a caption",
        peer=_step(peer_loss, peer_parameters),
        peer_units=num_captions,
        sides=[Side("", ours, num_captions, at_least=2, limit=limit, problem=problem)],
    )


def training_flops(models: Models, *, num_images: int, num_captions: int, num_tokens: int) -> float:
    """Of a step that computes nothing twice and nothing for padding: forth, and twice as much back. A prefix
    is read once an image, and the last token of a caption not at all; attention, norms and the optimizer are
    left out."""
    model, gpt2 = models.clipcap, models.clipcap.gpt2
    blocks, mapping = (
        sum(weight.numel() for weight in part.parameters()) for part in (gpt2.h, model.mapping)
    )
    positions = num_tokens - num_captions + num_images * models.sizes.prefix_length
    return 6.0 * (blocks * positions + gpt2.wte.weight.numel() * num_tokens + mapping * num_images)


def _step(
    loss_of: Callable[[], torch.Tensor],
    parameters: list[torch.nn.Parameter],
    *,
    fused: bool | None = None,
) -> Callable[[], float]:
    """A step at a learning rate of zero: all of the work, and the same loss again."""
    optimizer = torch.optim.AdamW(parameters, lr=0.0, weight_decay=0.0, fused=fused)

    def step() -> float:
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _captions(count: int, eos_id: int) -> tuple[list[list[list[int]]], int]:
    """Token ids of five captions of `count` images, any ids but of real lengths, and the longest length there
    is in the data set."""
    lengths = LENGTHS
    if FLICKR8K.is_dir():
        from pixtell.datasets import load_dataset

        records = load_dataset("flickr8k", FLICKR8K).split("train")
        lengths = [len(caption.split()) for record in records for caption in record.captions]
    random = torch.Generator().manual_seed(0)
    captions = [
        [
            [*torch.randint(eos_id, (length,), generator=random).tolist(), eos_id]
            for length in lengths[5 * number : 5 * number + 5]
        ]
        for number in range(count)
    ]
    return captions, max(lengths) + 1
