"""Cross-entropy: which labels count, how often an image is looked at, what moves and what does not."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pixtell.augment import ViewOptions
from pixtell.datasets import load_dataset
from pixtell.devices import Placement
from pixtell.encoders import load_encoder, parse_encoder
from pixtell.encoders.nano import NanoEncoder
from pixtell.features import FeatureCache
from pixtell.models import CaptionModel, build_model
from pixtell.models.base import TensorFunctions
from pixtell.training.cross_entropy import CrossEntropy
from pixtell.training.feature_sources import CachedFeatures, FeatureSource, PixelFeatures
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import LoopOptions, train
from pixtell.training.split_features import extract_split

CPU = torch.device("cpu")
UNKNOWN = 1
# three images with one to five captions; 0 ends a caption and stands inside one too, 1 is unknown
TOKEN_IDS = [
    [[2, 3, 0], [4, 0], [2, 1, 5, 0], [3, 0], [2, 0]],
    [[0, 6, 0]],
    [[7, 1, 0], [5, 4, 3, 2, 0]],
]


class TableModel(CaptionModel):
    """Logits that are a table of what was said last, plus what the image says; notes what it is given."""

    vocab_size = 8
    feature_dim = 2

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(9, 8)  # row 8: nothing said yet
        self.image = nn.Linear(2, 8)
        self.rows_seen: list[int] = []
        self.captions_seen: list[int] = []
        self.projected = 0  # positions

    @property
    def image_branch(self) -> nn.Module:
        return self.image

    def start(self, features: Tensor) -> tuple[Tensor, Tensor]:
        self.rows_seen.append(len(features))
        image = self.image(features)  # (B, V)
        return self.table.weight[8] + image, image

    def read(self, state: Tensor, token_ids: Tensor, image_index: Tensor | None = None) -> Tensor:
        assert image_index is not None
        self.captions_seen.append(len(token_ids))
        further: Tensor = self.table(token_ids[:, :-1]) + state[image_index][:, None]  # (C, T - 1, V)
        return further

    def project(self, hidden: Tensor) -> Tensor:
        self.projected += hidden.numel() // hidden.shape[-1]
        return hidden

    def step(self, token_ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        raise NotImplementedError

    def reorder(self, state: Any, beam_index: Tensor) -> Any:
        raise NotImplementedError

    def tensor_functions(self) -> TensorFunctions:
        raise NotImplementedError


class NumberedFeatures:
    """The features of image r are (r, epoch)."""

    module = None

    def __call__(self, rows: Tensor, epoch: int) -> Tensor:
        return torch.stack((rows.float(), torch.full((len(rows),), float(epoch))), 1)


def make_objective(
    model: CaptionModel,
    features: FeatureSource,
    token_ids: Sequence[Sequence[Sequence[int]]] = TOKEN_IDS,
    *,
    batch_size: int = 3,
    accumulate: int = 1,
    label_smoothing: float = 0.0,
    seed: int = 0,
) -> CrossEntropy:
    return CrossEntropy(
        model=model,
        features=features,
        token_ids=token_ids,
        ignored_ids=[UNKNOWN],
        batches=ImageBatches(
            num_images=len(token_ids), batch_size=batch_size, accumulate=accumulate, seed=seed
        ),
        label_smoothing=label_smoothing,
        device=CPU,
        evaluate=lambda: {"CIDEr-D": 0.0},
        save=lambda directory: None,
    )


def loss_by_hand(model: TableModel, label_smoothing: float) -> float:
    """The definition, token by token: every id but the unknown one counts, the end of a caption too."""
    terms = []
    for row, captions in enumerate(TOKEN_IDS):
        for caption in captions:
            for place, token_id in enumerate(caption):
                before = caption[place - 1] if place else 8
                logits = model.table.weight[before] + model.image(torch.tensor([float(row), 0.0]))
                log_probs = logits.log_softmax(-1)
                smooth = -log_probs.mean() * label_smoothing
                if token_id != UNKNOWN:
                    terms.append(-log_probs[token_id] * (1 - label_smoothing) + smooth)
    return torch.stack(terms).mean().item()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_every_id_is_learned_but_padding_and_unknown_words(label_smoothing: float) -> None:
    model = TableModel()
    objective = make_objective(model, NumberedFeatures(), label_smoothing=label_smoothing)
    loss, _ = objective.loss(0)
    assert loss.item() == pytest.approx(loss_by_hand(model, label_smoothing), rel=1e-5)


def test_neither_padding_nor_unknown_words_are_projected() -> None:
    model = TableModel()
    make_objective(model, NumberedFeatures()).loss(0)
    further = [token_id for captions in TOKEN_IDS for caption in captions for token_id in caption[1:]]
    assert model.projected == sum(token_id != UNKNOWN for token_id in further)


@pytest.mark.parametrize("accumulate", [2, 3, 4])
def test_parts_of_a_batch_add_up_to_it(accumulate: int) -> None:
    """By tokens, not by parts: the images have 12, 3 and 7 learned ones; a fourth part is empty."""
    gradients = []
    for size, parts in ((3, 1), (-(-3 // accumulate), accumulate)):
        model = TableModel()
        objective = make_objective(model, NumberedFeatures(), batch_size=size, accumulate=parts)
        for call in range(parts):
            objective.loss(call)[0].backward()  # type: ignore[no-untyped-call]
        gradients.append([parameter.grad for parameter in model.parameters()])
    for whole, added in zip(*gradients, strict=True):
        torch.testing.assert_close(added, whole, rtol=1e-6, atol=1e-6)


def test_captions_share_the_branch_of_their_image() -> None:
    model = TableModel()
    make_objective(model, NumberedFeatures()).loss(0)
    assert model.rows_seen == [3]
    assert sum(model.captions_seen) == 8


def test_the_mapping_network_runs_once_an_image() -> None:
    """On the real model: five captions an image, one row of the mapping."""
    gpt2 = {"vocab_size": 8, "width": 8, "num_layers": 1, "num_heads": 1, "max_positions": 20}
    model = build_model("clipcap", {"feature_dim": 2, "gpt2": gpt2, "prefix_length": 2})
    rows: list[int] = []
    model.mapping.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))  # type: ignore[union-attr, operator]
    make_objective(model, NumberedFeatures(), [[[2, 3, 0]] * 5] * 4, batch_size=4).loss(0)
    assert rows == [4]


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order() -> None:
    seen: list[list[int]] = []

    class NotedFeatures(NumberedFeatures):
        def __call__(self, rows: Tensor, epoch: int) -> Tensor:
            seen.append(rows.tolist())
            return super().__call__(rows, epoch)

    objective = make_objective(TableModel(), NotedFeatures(), [[[2, 0]]] * 10, batch_size=4)
    assert objective.batches.steps_per_epoch == 3
    epochs = [objective.loss(step)[1]["epoch"] for step in range(6)]
    assert epochs == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])
    first, second = ([*a, *b, *c] for a, b, c in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    seen.clear()
    objective.loss(4)  # any step by itself is the step it was
    assert seen[0] == second[4:8]


class TestFromPictures:
    @pytest.fixture
    def encoder(self, encoder_dir: Path) -> NanoEncoder:
        encoder = load_encoder(parse_encoder(str(encoder_dir)))
        assert isinstance(encoder, NanoEncoder)
        return encoder

    @pytest.fixture
    def cache(self, photos: Path, encoder: NanoEncoder, tmp_path: Path, placement: Placement) -> FeatureCache:
        records = load_dataset("folder", photos).split("train")
        return extract_split(encoder, records, tmp_path / "features", placement, views=2)

    @staticmethod
    def go(objective: CrossEntropy, run: Path, placement: Placement) -> None:
        train(objective, LoopOptions(max_steps=4, learning_rate=1e-2), run, placement)

    def test_each_epoch_takes_the_next_view(self, cache: FeatureCache) -> None:
        ids = list(cache)
        source = CachedFeatures(cache=cache, image_ids=ids, device=CPU)
        rows = torch.tensor([3, 0, 2])
        for epoch in range(3):
            features = source(rows, epoch)
            assert features.dtype == torch.float32
            for row, of_image in zip(rows.tolist(), features, strict=True):
                assert torch.equal(of_image, cache.rows([ids[row]], (row + epoch) % 2)[0].float())

    def test_a_frozen_encoder_neither_moves_nor_holds_a_gradient(
        self, encoder: NanoEncoder, cache: FeatureCache, tmp_path: Path, placement: Placement
    ) -> None:
        before = {name: value.clone() for name, value in encoder.state_dict().items()}
        model = build_model("lstm", {"feature_dim": 16, "vocab_size": 8, "width": 8})
        source = CachedFeatures(cache=cache, image_ids=list(cache), device=CPU)
        objective = make_objective(model, source, [[[2, 3, 0]]] * len(cache), batch_size=4)
        self.go(objective, tmp_path / "run", placement)
        assert set(objective.module.state_dict()) == {f"model.{name}" for name in model.state_dict()}
        assert all(parameter.grad is None for parameter in encoder.parameters())
        assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())

    @pytest.mark.parametrize("language_model", ["frozen", "ends"])
    def test_what_is_frozen_of_gpt2_stays(
        self, cache: FeatureCache, tmp_path: Path, placement: Placement, language_model: str
    ) -> None:
        gpt2 = {"vocab_size": 8, "width": 8, "num_layers": 3, "num_heads": 1, "max_positions": 20}
        model = build_model(
            "clipcap",
            {
                "feature_dim": 16,
                "num_patches": 4,
                "mapping": "patch",
                "gpt2": gpt2,
                "language_model": language_model,
            },
        )
        before = {name: value.clone() for name, value in model.state_dict().items()}
        source = CachedFeatures(cache=cache, image_ids=list(cache), device=CPU)
        self.go(
            make_objective(model, source, [[[2, 3, 0]]] * len(cache), batch_size=4),
            tmp_path / "run",
            placement,
        )
        moving = ["mapping."] + (["gpt2.h.0.", "gpt2.h.2."] if language_model == "ends" else [])
        for name, parameter in model.named_parameters():
            moves = name.startswith(tuple(moving))
            assert (not torch.equal(parameter, before[name])) == moves, name
            assert (parameter.grad is not None) == moves, name

    def test_end_to_end_the_encoder_learns_too(
        self, encoder: NanoEncoder, tmp_path: Path, placement: Placement
    ) -> None:
        images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)
        encoder.requires_grad_(True)
        source = PixelFeatures(encoder=encoder, images=images, views=ViewOptions(), seed=0, device=CPU)
        model = build_model("lstm", {"feature_dim": 16, "vocab_size": 8, "width": 8})
        before = {name: value.clone() for name, value in encoder.named_parameters()}
        objective = make_objective(model, source, [[[2, 3, 0]]] * 6, batch_size=3)
        self.go(objective, tmp_path, placement)
        moved = [name for name, value in encoder.named_parameters() if not torch.equal(value, before[name])]
        assert len(moved) == len(before)

    def test_views_depend_on_seed_epoch_and_batch_alone(self, encoder: NanoEncoder) -> None:
        images = torch.randint(0, 256, (6, 3, 64, 64), dtype=torch.uint8)

        def look(seed: int, epoch: int, rows: list[int]) -> bytes:
            views = ViewOptions(min_area=0.5)
            source = PixelFeatures(encoder=encoder, images=images, views=views, seed=seed, device=CPU)
            return source(torch.tensor(rows), epoch).detach().numpy().tobytes()

        looks: list[Callable[[], bytes]] = [
            lambda: look(0, 0, [1, 2]),
            lambda: look(1, 0, [1, 2]),
            lambda: look(0, 1, [1, 2]),
        ]
        assert len({each() for each in looks}) == 3
        assert looks[0]() == looks[0]()
