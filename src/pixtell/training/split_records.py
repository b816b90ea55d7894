"""What a training reads of a data set: the records of `train` and `val`."""

from collections.abc import Callable

from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage
from pixtell.errors import DatasetError
from pixtell.training.run_options import DataOptions

Report = Callable[[str], None]  # takes one line about what a job is doing


def read_splits(
    data: DataOptions, report: Report
) -> tuple[tuple[CaptionedImage, ...], tuple[CaptionedImage, ...]]:
    """Records to train and to validate on, split by image; the data set's warnings are reported.

    Raises: DatasetError.
    """
    dataset = load_dataset(data.dataset, data.data_dir)
    for warning in dataset.warnings:
        report(warning)
    if dataset.records and not any(record.split == "val" for record in dataset.records):
        raise DatasetError(
            f"The data set {dataset.name} has no picture to validate on, all {len(dataset.records)} "
            "are in other "
            'splits; give "split": "val" to some.'
        )
    return dataset.split("train")[: data.limit], dataset.split("val")[: data.limit]
