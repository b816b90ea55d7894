import subprocess
import sys
from pathlib import Path

import pytest

from pixtell.datasets import DATASETS, check_dataset, load_dataset
from pixtell.errors import DatasetError

ON_DISK = {
    "flickr8k": "a folder with Flicker8k_Dataset and Flickr8k_text, or Images and captions.txt",
    "folder": "a folder with images and captions.jsonl, or captions.csv, or a .txt beside each image",
}


@pytest.mark.parametrize("function", [check_dataset, load_dataset])
def test_an_unknown_name_lists_the_valid_ones(function: object) -> None:
    with pytest.raises(DatasetError) as error:
        function("fickr8k", None)  # type: ignore[operator]
    assert str(error.value) == "There is no data set 'fickr8k'; choose one of: flickr8k, folder, shapes."


def test_every_data_set_has_a_line_of_help() -> None:
    for read in DATASETS.values():
        assert read.__doc__
        assert read.__doc__.splitlines()[0].endswith(".")


@pytest.mark.parametrize("name", ON_DISK)
def test_a_data_dir_that_is_none_is_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    report = check_dataset(name, path)
    assert report.problems == (f"There is no folder {path}; give --data-dir of {name}, {ON_DISK[name]}.",)
    assert report.records == report.warnings == ()
    with pytest.raises(DatasetError) as error:
        load_dataset(name, path)
    assert str(error.value) == report.problems[0]

    path.touch()
    sentence = f"{path} is no folder; give --data-dir of {name}, {ON_DISK[name]}."
    assert check_dataset(name, path).problems == (sentence,)
    sentence = f"The data set {name} is read from disk; give --data-dir, {ON_DISK[name]}."
    assert check_dataset(name, None).problems == (sentence,)


def test_what_a_check_says_is_what_a_load_gives() -> None:
    report, data = check_dataset("shapes", None), load_dataset("shapes", None)
    assert (data.name, data.records, data.warnings) == ("shapes", report.records, report.warnings)
    assert report.lines == (
        "images and captions: generated, 64x64 pixels, seed 0",
        "will be used: train 2,000 images with 2,000 captions; val 200 images with 200 captions; "
        "test 200 images with 200 captions",
    )


def test_reading_data_sets_needs_neither_torch_nor_pillow() -> None:
    code = "import sys, pixtell.datasets; print(*{'torch', 'PIL', 'transformers'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == ""
