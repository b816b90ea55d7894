"""Contrastive training whose encoder goes on learning from a teacher.

In: both objectives, over one encoder. Out: their weighted sum, for `loop.train`. Captions name a few things
of a picture; the teacher keeps the rest of what the encoder sees from being forgotten.
"""

from pathlib import Path

import torch
from torch import nn

from pixtell.training.contrastive import Contrastive
from pixtell.training.distillation import Distillation
from pixtell.training.loop import Numbers


class Regularised:
    """The objective: contrastive loss + weight * distillation loss, each on a batch of its own."""

    best_metric = Contrastive.best_metric

    def __init__(self, *, contrastive: Contrastive, distillation: Distillation, weight: float) -> None:
        self.contrastive = contrastive
        self.distillation = distillation
        self.weight = weight
        # The encoder stands in the towers, and so not a second time with the student, of which the
        # projections alone are new: its statistics of the teacher never change, and a resumed run finds them.
        student = distillation.module
        self.module = nn.ModuleDict({"towers": contrastive.module, "projection": student.projection})
        if student.pooled_projection is not None:
            self.module["pooled_projection"] = student.pooled_projection

    def loss(self, step: int) -> tuple[torch.Tensor, Numbers]:
        loss, numbers = self.contrastive.loss(step)
        distilled, more = self.distillation.loss(step)
        parts = {"contrastive_loss": loss.detach(), "distillation_loss": distilled.detach()}
        return loss + self.weight * distilled, {**numbers, **more, **parts}

    def validate(self) -> dict[str, float]:
        return {**self.contrastive.validate(), **self.distillation.validate()}

    def save(self, directory: Path) -> None:
        self.contrastive.save(directory)
