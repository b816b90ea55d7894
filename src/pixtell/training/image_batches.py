"""Which images a step sees: every image once an epoch, each epoch in another order.

In: the number of a call of an objective's `loss`. Out: rows of images, a function of that number and the seed
alone. It knows neither features nor captions.
"""

from dataclasses import dataclass

import torch

from pixtell.batching import epoch_batches


@dataclass(frozen=True)
class ImageBatch:
    """What one call of `loss` looks at.

    rows: (B,), the images of this call. update_rows: (U,), those of all calls that make one update, B of them
    these. passes: epochs done after this update, with a fraction.
    """

    rows: torch.Tensor
    update_rows: torch.Tensor
    epoch: int
    passes: float


class ImageBatches:
    """batch_size: images a call; accumulate: calls that make one update."""

    def __init__(self, *, num_images: int, batch_size: int, accumulate: int, seed: int) -> None:
        self.num_images = num_images
        self.update_size = batch_size * accumulate
        self.accumulate = accumulate
        self.seed = seed
        self.steps_per_epoch = -(-num_images // self.update_size)  # updates
        self._epoch = -1
        self._updates: list[torch.Tensor] = []

    def __getitem__(self, call: int) -> ImageBatch:
        """The images of a call: with accumulate 2, calls 6 and 7 are the halves of the update 3.

        The last update of an epoch may be smaller, and a part of it empty.
        """
        step, part = divmod(call, self.accumulate)
        epoch, place = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 7_368_787 + epoch)
            self._updates, self._epoch = (
                epoch_batches(range(self.num_images), self.update_size, generator),
                epoch,
            )
        update_rows = self._updates[place]
        rows = torch.tensor_split(update_rows, self.accumulate)[part]
        return ImageBatch(rows, update_rows, epoch, epoch + (place + 1) / self.steps_per_epoch)
