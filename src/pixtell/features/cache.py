"""image_ids -> features (B, F) or (B, N, F), from a memory map. `extraction.py` makes what is read here."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

from pixtell.errors import FeatureCacheError, ImageError


class FeatureCache:
    """The features of a set of images, on disk. `extract_features` makes it.

    path: its folder; errors: what was wrong, by image_id, with the images that are not in it; views: V;
    feature_shape: (F,) or (N, F).
    """

    def __init__(
        self, *, path: Path, features: torch.Tensor, rows: Mapping[str, int], errors: Mapping[str, ImageError]
    ) -> None:
        self.path = path
        self.errors = errors
        self.views = int(features.shape[1])
        self.feature_shape = tuple(features.shape[2:])
        self.dtype = features.dtype
        self._features = features  # (rows, V, F) or (rows, V, N, F), memory-mapped
        self._rows = rows

    def __len__(self) -> int:
        """The number of image_ids that have features."""
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._rows

    def __getitem__(self, image_id: str) -> torch.Tensor:
        """The plain view of one image, (F,) or (N, F). Raises: FeatureCacheError."""
        return self.rows([image_id])[0]

    def rows(self, image_ids: Sequence[str], view: int | Sequence[int] = 0) -> torch.Tensor:
        """Features of images, (B, F) or (B, N, F), in the cache's dtype, read into memory.

        view: 0..V-1, one for all or one for each image.

        Raises: FeatureCacheError for an image or a view that is not there.
        """
        views = [view] * len(image_ids) if isinstance(view, int) else list(view)
        if wrong := [number for number in views if not 0 <= number < self.views]:
            raise FeatureCacheError(
                f"{self.path} has views 0 to {self.views - 1}, not {wrong[0]}; extract more."
            )
        try:
            rows = [self._rows[image_id] for image_id in image_ids]
        except KeyError as cause:
            image_id = str(cause.args[0])
            reason = f" ({self.errors[image_id]})" if image_id in self.errors else ""
            raise FeatureCacheError(
                f"{self.path} has no features of {image_id!r}{reason}; extract them."
            ) from cause
        return self._features[torch.tensor(rows, dtype=torch.long), torch.tensor(views, dtype=torch.long)]
