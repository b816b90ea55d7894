from pathlib import Path

import pytest

from pixtell.datasets.reading import (
    IMAGE_SUFFIXES,
    Findings,
    is_image_name,
    list_files,
    list_folders,
    printable,
    read_lines,
    read_text,
    scan_below,
)
from pixtell.errors import DatasetError


def test_findings_are_grouped_counted_and_shortened() -> None:
    findings = Findings()
    findings.add("Odd line, left out", "a")
    findings.add("Other, left out", "x\ny")
    for number in range(1200):
        findings.add("Odd line, left out", str(number))
    findings.notes.append("A note.")
    assert findings.warnings == (
        "A note.",
        "Odd line, left out: 1,201 (a, 0, 1 and 1,198 more).",
        "Other, left out: 1 ('x\\ny').",
    )


def test_lines_end_only_where_a_text_editor_ends_them(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\r\r\n three\u2028still\x0cthree \n\nsix".encode())
    expected = [(1, "one"), (2, "two"), (4, "three\u2028still\x0cthree"), (6, "six")]
    assert read_lines(path, Findings()) == expected


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    findings = Findings()
    assert read_text(tmp_path, findings) is None
    assert findings.problems == [f"{tmp_path} cannot be read (Is a directory); check its permissions."]


def test_a_folder_that_cannot_be_listed_is_refused_or_left_out(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as error:
        list_files(tmp_path / "gone", Findings(), recursive=True)
    assert str(error.value) == (
        f"The folder {tmp_path / 'gone'} cannot be listed (No such file or directory); check its permissions."
    )
    findings = Findings()
    assert scan_below(tmp_path / "gone", findings) == []
    assert findings.warnings == (f"Folder that cannot be listed, left out: 1 ({tmp_path / 'gone'}).",)


def test_folders_are_listed_nearest_first_and_to_a_depth(tmp_path: Path) -> None:
    for name in ("b/c/d", "a", ".hidden", "__MACOSX"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "file.txt").touch()
    folders = list_folders(tmp_path, Findings(), depth=2)
    assert [path.relative_to(tmp_path).as_posix() for path in folders] == [".", "a", "b", "b/c"]


def test_suffixes_are_found_in_either_case() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
    assert is_image_name("a/b.c.JPG")
    assert not is_image_name("jpg")
    assert not is_image_name("a.jpg.txt")


def test_names_are_shown_as_they_are_unless_they_break_a_sentence() -> None:
    assert printable("été 1.jpg") == "été 1.jpg"
    assert printable("a\nb") == "'a\\nb'"
    assert printable("\udcff") == "'\\udcff'"
