"""Contrastive training: whose negative is whose, cached gradients, the temperature, what a step sees."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixtell.augment import ViewOptions
from pixtell.encoders import EncoderSpec
from pixtell.encoders.clip_towers import load_clip_towers
from pixtell.encoders.nano import NanoEncoder, NanoEncoderConfig
from pixtell.encoders.nano_text import NanoTextConfig, NanoTowers
from pixtell.encoders.towers import Towers
from pixtell.errors import TrainingError
from pixtell.tokenizers import WordTokenizer
from pixtell.training.contrastive import (
    CaptionedImages,
    Contrastive,
    ContrastiveOptions,
    contrastive_loss,
)
from pixtell.training.loop import step_seed

CPU = torch.device("cpu")
WORDS = "<eos> <unk> a the dog cat man ball red blue left right runs sits on"
OPTIONS = ContrastiveOptions(view_size=32, batch_size=8, views=ViewOptions(min_area=0.7))
CAPTIONS = [
    ("A dog runs.", "The dog.", "A red dog."),
    ("A cat sits.", "A dog runs."),
    ("The man on the left.",),
    ("A blue ball.", "a blue ball"),
    ("A red ball.", "The ball on the right."),
    ("The cat sits.", "A cat.", "The red cat.", "A cat on a ball."),
    ("The man runs.",),
    ("A red cat on the blue man.",),
    ("The blue dog.", "A dog sits."),
]


def make_towers(dropout: float = 0.0) -> NanoTowers:
    torch.manual_seed(0)
    towers = NanoTowers(
        encoder=NanoEncoder(config=NanoEncoderConfig(width=2, blocks=(1, 1, 1, 1), image_size=32)),
        config=NanoTextConfig(width=16, num_layers=1, head_dim=8, embedding_dim=6, dropout=dropout),
        tokenizer=WordTokenizer(WORDS.split()),
    )
    for parameter in towers.image.encoder.parameters():  # no statistics: larger weights instead
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return towers


def make_objective(
    options: ContrastiveOptions = OPTIONS,
    *,
    towers: Towers | None = None,
    captions: Sequence[Sequence[str]] = CAPTIONS,
) -> Contrastive:
    towers = towers or make_towers()
    images = torch.randint(
        0, 256, (len(captions), 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    train = CaptionedImages.make(images, captions, towers.encode)
    val = CaptionedImages.make(images[:5, :, :32, :32], captions[:5], towers.encode)
    return Contrastive(towers=towers, train=train, val=val, options=options, device=CPU)


# ---- the loss


def test_with_one_caption_an_image_it_is_the_loss_of_clip(tiny_clip: Path) -> None:
    """Of transformers' CLIP, on the embeddings that the towers make of the same weights."""
    from transformers import CLIPModel, CLIPTokenizer

    texts = ["a dog", "a cat", "the red ball", "two men"]
    towers = load_clip_towers(EncoderSpec(kind="clip", output="embedding", path=str(tiny_clip)))
    model = CLIPModel.from_pretrained(tiny_clip).eval()
    pixels = torch.randn(4, 3, 32, 32)
    inputs = CLIPTokenizer.from_pretrained(tiny_clip)(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model(pixel_values=pixels, **inputs, return_loss=True).loss
        embedded = towers.embed_texts(inputs["input_ids"])
        loss = contrastive_loss(
            towers.embed_images(pixels), embedded, torch.eye(4, dtype=torch.bool), towers.logit_scale.exp()
        )
    torch.testing.assert_close(loss, theirs)


def loss_by_hand(images: torch.Tensor, texts: torch.Tensor, positive: torch.Tensor, scale: float) -> float:
    """The definition, pair by pair."""
    similarity = [[float(scale * F.cosine_similarity(i, t, dim=0)) for t in texts] for i in images]
    ways = []
    for rows, right in (
        (similarity, positive.tolist()),
        ([list(column) for column in zip(*similarity, strict=True)], positive.T.tolist()),
    ):
        queries = []
        for row, answers in zip(rows, right, strict=True):
            wrong = sum(math.exp(s) for s, answer in zip(row, answers, strict=True) if not answer)
            costs = [
                -math.log(math.exp(s) / (math.exp(s) + wrong))
                for s, answer in zip(row, answers, strict=True)
                if answer
            ]
            queries.append(sum(costs) / len(costs))
        ways.append(sum(queries) / len(queries))
    return sum(ways) / 2


def test_right_answers_are_not_each_others_rivals() -> None:
    images, texts = torch.randn(4, 5), torch.randn(6, 5)
    positive = torch.tensor(
        [[1, 1, 0, 0, 0, 0], [0, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=torch.bool
    )
    loss = contrastive_loss(images, texts, positive, torch.tensor(3.0))
    assert loss.item() == pytest.approx(loss_by_hand(images, texts, positive, 3.0), rel=1e-5)


def test_a_batch_without_a_wrong_pair_costs_nothing() -> None:
    images, texts = torch.randn(3, 5, requires_grad=True), torch.randn(2, 5)
    loss = contrastive_loss(images, texts, torch.ones(3, 2, dtype=torch.bool), torch.tensor(10.0))
    loss.backward()
    assert loss.item() == 0
    assert images.grad is not None
    assert images.grad.abs().max() == 0


def test_logits_are_not_rounded_to_bf16() -> None:
    images, texts = torch.randn(7, 5), torch.randn(7, 5)
    eye, scale = torch.eye(7, dtype=torch.bool), torch.tensor(100.0)
    exact = contrastive_loss(images, texts, eye, scale)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(contrastive_loss(images, texts, eye, scale), exact)


# ---- cached gradients


def gradients_of(objective: Contrastive, step: int = 0) -> tuple[float, dict[str, torch.Tensor]]:
    objective.module.train()
    objective.module.requires_grad_(True)
    objective.module.zero_grad()
    torch.manual_seed(step_seed(0, step))
    loss, _ = objective.loss(step)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.item(), {
        name: parameter.grad.clone()
        for name, parameter in objective.module.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_cached_gradients_are_those_of_the_whole_batch(chunk_size: int) -> None:
    loss, whole = gradients_of(make_objective(towers=make_towers().double()))
    cached_loss, cached = gradients_of(
        make_objective(replace(OPTIONS, chunk_size=chunk_size), towers=make_towers().double())
    )
    assert cached_loss == pytest.approx(loss, abs=1e-10)
    assert whole.keys() == cached.keys() == dict(make_towers().named_parameters()).keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-8, rtol=1e-8, msg=name)


def test_cached_gradients_of_a_clip_too(tiny_clip: Path) -> None:
    spec = EncoderSpec(kind="clip", output="embedding", path=str(tiny_clip))
    loss, whole = gradients_of(make_objective(towers=load_clip_towers(spec).double()))
    cached_loss, cached = gradients_of(
        make_objective(replace(OPTIONS, chunk_size=3), towers=load_clip_towers(spec).double())
    )
    assert cached_loss == pytest.approx(loss, abs=1e-10)
    for name, gradient in whole.items():
        torch.testing.assert_close(cached[name], gradient, atol=1e-8, rtol=1e-8, msg=name)


class _KeptGraphs(Contrastive):
    """Chunks whose graphs are all kept: what caching must equal, draw for draw."""

    def _embed(self, tower, parts):  # type: ignore[no-untyped-def]
        return torch.cat([tower(part) for part in parts])


def test_dropout_is_drawn_again_as_it_was() -> None:
    options = replace(OPTIONS, chunk_size=3)
    cached = make_objective(options, towers=make_towers(dropout=0.4).double())
    kept = _KeptGraphs(
        towers=make_towers(dropout=0.4).double(),
        train=cached.train,
        val=cached.val,
        options=options,
        device=CPU,
    )
    loss, expected = gradients_of(kept)
    cached_loss, found = gradients_of(cached)
    assert cached_loss == pytest.approx(loss, abs=1e-12)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-10, rtol=1e-8, msg=name)
    assert gradients_of(make_objective(options, towers=make_towers().double()))[0] != loss


def test_one_chunk_after_the_other_is_embedded_again_and_done_with() -> None:
    """No chunk holds its activations while another one does: else the batch would not fit."""
    objective = make_objective(replace(OPTIONS, chunk_size=3))
    events: list[str] = []

    def note(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        events.append("embedded")
        output.register_hook(lambda gradient: events.append("done"))

    assert isinstance(objective.towers, NanoTowers)
    objective.towers.image.encoder.stem.register_forward_hook(note)
    gradients_of(objective)
    assert events == ["embedded"] * 3 + ["embedded", "done"] * 3


# ---- the temperature


def test_the_temperature_is_learned_and_cut() -> None:
    objective = make_objective()
    _, gradients = gradients_of(objective)
    assert gradients["logit_scale"] != 0
    with torch.no_grad():
        objective.towers.logit_scale.fill_(math.log(150))
    _, numbers = objective.loss(0)
    assert float(numbers["logit_scale"]) == pytest.approx(100, rel=1e-5)
    assert objective.towers.logit_scale.item() == pytest.approx(math.log(100), rel=1e-6)


@pytest.mark.parametrize(("log_scale", "shown"), [(-0.5, "0.607"), (6.0, "403"), (1e9, "9.89e+42")])
def test_a_temperature_that_runs_away_is_said(log_scale: float, shown: str) -> None:
    objective = make_objective()
    with torch.no_grad():
        objective.towers.logit_scale.fill_(log_scale)
    with pytest.raises(TrainingError) as caught:
        objective.loss(6)
    assert str(caught.value) == (
        f"The temperature ran away: at step 7 cosines would be multiplied with {shown}, outside 1 to 200; go "
        "on from the last checkpoint with --resume, or start again, with a lower --learning-rate."
    )


def test_a_temperature_that_is_no_number_is_said() -> None:
    objective = make_objective()
    with torch.no_grad():
        objective.towers.logit_scale.fill_(math.nan)
    with pytest.raises(TrainingError, match="multiplied with nan"):
        objective.loss(0)


# ---- what a step sees


def test_equal_captions_are_one_text() -> None:
    pairs = make_objective().train
    assert pairs.of_image[0][0] == pairs.of_image[1][1]  # "A dog runs."
    assert len(pairs.of_image[3]) == 1  # twice a blue ball
    assert len({tuple(ids) for ids in pairs.text_ids}) == len(pairs.text_ids)


@pytest.mark.parametrize("captions_per_image", [1, 2, 5])
def test_every_caption_of_an_image_is_its_positive(captions_per_image: int) -> None:
    """Also one that was drawn for another image, and none besides."""
    objective = make_objective(replace(OPTIONS, captions_per_image=captions_per_image))
    rows, generator = objective._rows_of(0)
    texts, positive = objective._draw_texts(rows, generator)
    assert len(set(texts)) == len(texts)
    for place, row in enumerate(rows.tolist()):
        own = set(objective.train.of_image[row])
        assert positive[place].tolist() == [text in own for text in texts]
        assert min(captions_per_image, len(own)) <= positive[place].sum()
    assert positive.any(0).all()


def test_an_epoch_shows_no_image_twice_and_the_next_is_another_order() -> None:
    objective = make_objective(replace(OPTIONS, batch_size=4))
    assert objective.steps_per_epoch == 2
    epochs = [
        [row for step in (epoch * 2, epoch * 2 + 1) for row in objective._rows_of(step)[0].tolist()]
        for epoch in range(3)
    ]
    assert all(len(set(rows)) == 8 for rows in epochs)
    assert epochs[0] != epochs[1]


def test_a_batch_larger_than_the_split_is_the_split() -> None:
    objective = make_objective(replace(OPTIONS, batch_size=1000))
    assert sorted(objective._rows_of(3)[0].tolist()) == list(range(len(CAPTIONS)))


def test_no_mirror_image_where_a_caption_says_left_or_right() -> None:
    """Pictures dark on their left half: only a mirror image is dark on the right."""
    objective = make_objective(replace(OPTIONS, views=ViewOptions(min_area=1.0, flip=1.0, colour=0.0)))
    images = torch.full((len(CAPTIONS), 3, 40, 40), 200, dtype=torch.uint8)
    images[:, :, :, :20] = 0
    objective.train = replace(objective.train, images=images)
    rows = torch.arange(len(CAPTIONS))
    (views,) = objective._views(rows, torch.Generator())
    mirrored = views[:, 0, 16, 4] > 100
    assert mirrored.tolist() == [not any(s in " ".join(c) for s in ("left", "right")) for c in CAPTIONS]


def test_the_size_of_chunks_changes_no_view() -> None:
    rows = torch.tensor([5, 2, 0, 7, 4])
    whole, parts = (
        make_objective(replace(OPTIONS, chunk_size=size))._views(rows, torch.Generator().manual_seed(0))
        for size in (None, 2)
    )
    assert [len(part) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat(list(parts)), whole[0])


def test_validation_is_retrieval_with_equal_captions_right(tmp_path: Path) -> None:
    """Towers that answer perfectly: everything is found, also what two images share."""
    objective = make_objective()
    directions = torch.eye(6)[: len(objective.val.images)]

    def perfect_images(pixels: torch.Tensor) -> torch.Tensor:
        return directions[: len(pixels)]

    def perfect_texts(text_ids: torch.Tensor) -> torch.Tensor:
        known = {tuple(ids): text for text, ids in enumerate(objective.val.text_ids)}
        rows = []
        for ids in text_ids.tolist():
            text = known[(*(i for i in ids if i != 0), 0)]
            rows.append(sum(directions[i] for i, own in enumerate(objective.val.of_image) if text in own))
        return torch.stack(rows)  # type: ignore[arg-type]

    objective.towers.embed_images = perfect_images  # type: ignore[method-assign]
    objective.towers.embed_texts = perfect_texts  # type: ignore[method-assign]
    numbers = objective.validate()
    assert set(numbers.values()) == {1.0}
    assert numbers.keys() == {
        *(f"{way}_R@{k}" for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)),
        "mean_recall",
    }
