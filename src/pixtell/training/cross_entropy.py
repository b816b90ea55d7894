"""Cross-entropy: the model learns to say the next token of people's captions.

In: a model, token ids, and a source of features. Out: the loss of a step, for `loop.train`. The captions of
an image share its image branch.
"""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from pixtell.batching import CaptionBatch, make_batch
from pixtell.models.base import CaptionModel
from pixtell.training.feature_sources import FeatureSource
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import Numbers
from pixtell.training.predictions import predict


class CrossEntropy:
    """The objective. token_ids: for every image its captions, each ending in eos. ignored_ids: tokens
    nobody should learn to say (unknown).

    evaluate: scores of the validation split with the model as it stands, by free decoding; save: writes the
    checkpoint.
    """

    best_metric = "CIDEr-D"

    def __init__(
        self,
        *,
        model: CaptionModel,
        features: FeatureSource,
        token_ids: Sequence[Sequence[Sequence[int]]],
        ignored_ids: Collection[int],
        batches: ImageBatches,
        label_smoothing: float,
        device: torch.device,
        evaluate: Callable[[], dict[str, float]],
        save: Callable[[Path], None],
    ) -> None:
        self.model = model
        self.features = features
        self.token_ids = token_ids
        self.ignored_ids = ignored_ids
        self.num_learned = [sum(map(self._count_learned, captions)) for captions in token_ids]  # tokens
        self.batches = batches
        self.label_smoothing = label_smoothing
        self.device = device
        self.validate = evaluate
        self.save = save
        self.module: nn.Module = nn.ModuleDict(
            {"model": model} if features.module is None else {"model": model, "encoder": features.module}
        )

    def loss(self, call: int) -> tuple[torch.Tensor, Numbers]:
        """The mean over the tokens of an update; of a call that is a part of one, its share of that."""
        images = self.batches[call]
        if len(images.rows) == 0:
            return torch.zeros((), device=self.device, requires_grad=True), {}
        batch = make_batch(self.token_ids, images.rows)
        features = self.features(images.rows, images.epoch)  # (B, F) or (B, N, F)
        total = summed_loss(
            self.model, features, batch, ignored_ids=self.ignored_ids, label_smoothing=self.label_smoothing
        )
        num_learned = sum(self.num_learned[row] for row in images.update_rows.tolist())
        return total / num_learned, {"epoch": images.passes}

    def _count_learned(self, caption: Sequence[int]) -> int:
        return sum(token_id not in self.ignored_ids for token_id in caption)


def summed_loss(
    model: CaptionModel,
    features: torch.Tensor,
    batch: CaptionBatch,
    *,
    ignored_ids: Collection[int],
    label_smoothing: float,
) -> torch.Tensor:
    """The sum of the cross-entropy over all tokens but `ignored_ids`; each image is read once.

    features: (B, F) or (B, N, F).
    """
    first_logits, state = model.start(features)  # (B, V)
    losses = [
        F.cross_entropy(part.logits, part.labels, label_smoothing=label_smoothing, reduction="sum")
        for part in predict(model, first_logits, state, batch, ignored_ids=ignored_ids)
    ]
    return torch.stack(losses).sum()
