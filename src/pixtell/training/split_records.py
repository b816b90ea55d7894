"""What a training reads of a data set: the records of `train` and `val`; of the others, what to avoid."""

from collections.abc import Callable

from pixtell.datasets import load_dataset
from pixtell.datasets.records import CaptionedImage, Dataset
from pixtell.errors import DatasetError
from pixtell.training.run_options import DataOptions

Splits = tuple[tuple[CaptionedImage, ...], tuple[CaptionedImage, ...]]  # train, val
Report = Callable[[str], None]  # takes one line about what a job is doing


def read_splits(data: DataOptions, report: Report) -> Splits:
    """Records to train and to validate on, split by image; the data set's warnings are reported.

    Raises: DatasetError.
    """
    return choose_records(read_dataset(data, report), data)


def choose_records(dataset: Dataset, data: DataOptions) -> Splits:
    """Records to train and to validate on, as many as asked for."""
    return dataset.split("train")[: data.limit], dataset.split("val")[: data.limit]


def held_out_captions(dataset: Dataset) -> list[str]:
    """The captions that nothing may be learned from: those of all images outside `train`."""
    return [caption for record in dataset.records if record.split != "train" for caption in record.captions]


def read_dataset(data: DataOptions, report: Report) -> Dataset:
    """The data set, which has images to validate on; its warnings are reported.

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
    return dataset
