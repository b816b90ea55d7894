"""What `import pixtell` offers: few names, sorted, each where it says, and each only when asked for."""

import inspect
import subprocess
import sys

import pytest

import pixtell
from pixtell.errors import PixtellError


def test_every_public_name_is_there_and_documented() -> None:
    assert pixtell.__all__ == sorted(pixtell.__all__)
    for name in pixtell.__all__:
        assert inspect.getdoc(getattr(pixtell, name)), f"{name} has no docstring"


def test_star_import_gives_exactly_the_public_names() -> None:
    names: dict[str, object] = {}
    exec("from pixtell import *", names)  # noqa: S102
    assert sorted(set(names) - {"__builtins__"}) == pixtell.__all__


def test_an_unknown_name_is_refused_as_python_does() -> None:
    with pytest.raises(AttributeError, match="module 'pixtell' has no attribute 'Caption3r'"):
        pixtell.Caption3r  # noqa: B018
    with pytest.raises(ImportError):
        from pixtell import nothing  # noqa: F401


def test_dir_shows_what_can_be_asked_for() -> None:
    assert set(pixtell.__all__) <= set(dir(pixtell))


def test_scores_need_no_torch() -> None:
    code = "import sys, pixtell; pixtell.score_captions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_every_error_is_a_pixtell_error_with_one_message() -> None:
    import pixtell.errors as errors

    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    assert all(issubclass(kind, PixtellError) for kind in kinds)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in kinds), "the tree in the docstring"
    error = errors.ImageError("a.jpg", "it is empty.")
    assert (str(error), error.name, error.reason) == ("a.jpg: it is empty.", "a.jpg", "it is empty.")
