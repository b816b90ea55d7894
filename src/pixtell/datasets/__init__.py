"""Data sets by name: disk -> `CaptionedImage` records.

No torch, no Pillow: an image is a path, or an array where it is generated.
"""

from collections.abc import Callable
from pathlib import Path

from pixtell.datasets.flickr import read_flickr8k
from pixtell.datasets.folder import read_folder
from pixtell.datasets.records import CaptionedImage, Dataset, DatasetReport
from pixtell.datasets.shapes import read_shapes
from pixtell.errors import DatasetError

__all__ = ["DATASETS", "CaptionedImage", "Dataset", "DatasetReport", "check_dataset", "load_dataset"]

# A reader's docstring begins with the line that `pixtell datasets list` shows.
DATASETS: dict[str, Callable[[Path | None], DatasetReport]] = {
    "flickr8k": read_flickr8k,
    "folder": read_folder,
    "shapes": read_shapes,
}


def check_dataset(name: str, data_dir: Path | None) -> DatasetReport:
    """Read a data set and report everything wrong with it at once, and what will be used.

    Raises DatasetError for an unknown `name` only.
    """
    if name not in DATASETS:
        raise DatasetError(f"There is no data set {name!r}; choose one of: {', '.join(sorted(DATASETS))}.")
    try:
        return DATASETS[name](data_dir)
    except DatasetError as error:
        return DatasetReport(name, sources=(), problems=(str(error),), warnings=(), records=())


def load_dataset(name: str, data_dir: Path | None) -> Dataset:
    """The usable records of a data set; what was left out or guessed stands in its `warnings`.

    Raises DatasetError, with all problems at once, where nothing can be used.
    """
    report = check_dataset(name, data_dir)
    if report.problems:
        raise DatasetError(" ".join((*report.problems, *report.warnings)))
    return Dataset(name, report.records, report.warnings)
