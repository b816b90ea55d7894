"""Text alone: the language model learns sentences before it sees a picture.

In: a model, and captions as token ids. Out: the loss of a step, for `loop.train`.

What stands for "no picture" are features of zeros: what a mapping network or an image branch makes of them is
nothing but its own constants, so that the language model meets a prefix of the usual length, in its usual
places, that says nothing. The image branch itself does not move: zeros teach it nothing about pictures.
"""

from collections.abc import Collection, Sequence
from pathlib import Path

import torch
from torch import nn

from pixtell.batching import make_batch
from pixtell.models.base import CaptionModel
from pixtell.training.cross_entropy import summed_loss
from pixtell.training.image_batches import ImageBatches
from pixtell.training.loop import Numbers

WEIGHTS_FILE = "weights.safetensors"
_VALIDATION_BATCH = 512  # captions


class TextPretraining:
    """The objective.

    feature_shape: (F,) or (N, F), what the model takes. token_ids, validation_ids: of every caption to learn
    from, and to validate on. batches: of captions, as others have them of images.
    """

    best_metric = "mean_logprob"

    def __init__(
        self,
        *,
        model: CaptionModel,
        feature_shape: Sequence[int],
        token_ids: Sequence[Sequence[int]],
        validation_ids: Sequence[Sequence[int]],
        ignored_ids: Collection[int],
        batches: ImageBatches,
        label_smoothing: float,
        device: torch.device,
    ) -> None:
        self.module: nn.Module = model
        self.model = model
        self.no_image = torch.zeros(1, *feature_shape, device=device)  # (1, F) or (1, N, F)
        self.token_ids = token_ids
        self.validation_ids = validation_ids
        self.ignored_ids = ignored_ids
        self.batches = batches
        self.label_smoothing = label_smoothing

    def loss(self, call: int) -> tuple[torch.Tensor, Numbers]:
        """The mean over the tokens of an update; of a call that is a part of one, its share of that."""
        lines = self.batches[call]
        if len(lines.rows) == 0:
            return torch.zeros((), device=self.no_image.device, requires_grad=True), {}
        chosen = [self.token_ids[row] for row in lines.rows.tolist()]
        in_update = [self.token_ids[row] for row in lines.update_rows.tolist()]
        total = self._summed_loss(chosen, self.label_smoothing)
        return total / self._count_learned(in_update), {"epoch": lines.passes}

    def validate(self) -> dict[str, float]:
        """mean_logprob: of a token of the validation captions, without their images."""
        total = sum(
            self._summed_loss(self.validation_ids[start : start + _VALIDATION_BATCH], 0.0).item()
            for start in range(0, len(self.validation_ids), _VALIDATION_BATCH)
        )
        return {"mean_logprob": -total / self._count_learned(self.validation_ids)}

    def save(self, directory: Path) -> None:
        """The model's weights, as `load_pretrained` takes them: not yet a captioner."""
        from safetensors.torch import save_file

        save_file(
            {name: value.detach().contiguous() for name, value in self.model.state_dict().items()},
            str(directory / WEIGHTS_FILE),
        )

    def _summed_loss(self, captions: Sequence[Sequence[int]], label_smoothing: float) -> torch.Tensor:
        batch = make_batch([captions], torch.tensor([0]))  # all of them describe the one image there is not
        return summed_loss(
            self.model, self.no_image, batch, ignored_ids=self.ignored_ids, label_smoothing=label_smoothing
        )

    def _count_learned(self, captions: Sequence[Sequence[int]]) -> int:
        return max(1, sum(token_id not in self.ignored_ids for caption in captions for token_id in caption))
