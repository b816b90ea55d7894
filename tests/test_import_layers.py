"""Who may import whom: the layers of docs/architecture.md, read from the sources with `ast`.

A *unit* is a file or a folder directly under src/pixtell. A file imports only from units in rows above its
own; inside one folder imports are free but acyclic. Where a unit may do more or less than its row says, that
stands beside it in UNITS. A new file inside a folder needs no line here; a new unit does.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "pixtell"
PACKAGE = "pixtell"


@dataclass(frozen=True)
class Unit:
    """One line of the table.

    row: 0 is the ground; imports go to smaller numbers only.
    same_row: units of its own row it may import all the same.
    only: if given, the units it may import beside row 0, and no others.
    never: units in rows above that it must not know.
    """

    row: int
    same_row: frozenset[str] = frozenset()
    only: frozenset[str] | None = None
    never: frozenset[str] = frozenset()


def names(text: str = "") -> frozenset[str]:
    return frozenset(text.split())


UNITS: dict[str, Unit] = {
    # the ground
    "errors": Unit(0),
    "files": Unit(0, same_row=names("errors")),
    "devices": Unit(0, same_row=names("errors")),
    "options": Unit(0, same_row=names("errors")),
    "downloads": Unit(0, same_row=names("errors files")),
    # stages without weights: they do not know each other
    "images": Unit(1),
    "augment": Unit(1),
    "tokenizers": Unit(1),
    "logit_filters": Unit(1),
    "datasets": Unit(1),
    "metrics": Unit(1),
    # stages with weights
    "encoders": Unit(2, never=names("datasets")),
    "models": Unit(3, only=names()),
    "engines": Unit(3, never=names("images tokenizers datasets")),
    "features": Unit(3, never=names("tokenizers datasets")),
    # loops and storage
    "decoding": Unit(4),
    "batching": Unit(4),
    "checkpoints": Unit(4),
    "exports": Unit(4, same_row=names("checkpoints")),
    "converters": Unit(4),
    # composer one, and pictures of results
    "captioner": Unit(5),
    "embedder": Unit(5, only=names("encoders images tokenizers")),
    "reports": Unit(5, only=names("metrics")),
    # jobs: training takes `evaluate` as a callable
    "training": Unit(6),
    "evaluation": Unit(6),
    "explain": Unit(6),
    "search": Unit(6),
    "bulk": Unit(6),
    "comparison": Unit(6),
    # doors
    "serving": Unit(7, same_row=names("__init__")),
    "cli": Unit(7, same_row=names("__init__ cli_options cli_scoring cli_search terminal serving")),
    "cli_scoring": Unit(7, same_row=names("cli_options terminal")),
    "cli_search": Unit(7, same_row=names("cli_options terminal")),
    "cli_options": Unit(7),
    "terminal": Unit(7),
    "__main__": Unit(7, same_row=names("__init__ cli")),
    "__init__": Unit(7),
}

# The road of `pixtell --help`, `pixtell score` and `pixtell datasets check`: no torch on it, however late.
WITHOUT_TORCH = names("errors files options downloads datasets metrics tokenizers")
# (importing unit, imported unit): modules through which alone the one may see the other
ONLY_THROUGH = {("decoding", "models"): "pixtell.models.base"}
# (importing unit, imported unit): imported only inside functions, when it is called for
ONLY_INSIDE_FUNCTIONS = {("cli", "serving")}
CALLS_OF_CLI = {"sys.exit", "os._exit", "exit", "quit", "logging.basicConfig", "logging.config.dictConfig"}


@dataclass(frozen=True)
class Import:
    """One imported module, absolute (`pixtell.models.base`, `torch.nn`), and where the line stands."""

    target: str
    line: int
    at_import: bool  # runs when the file is imported: not in a function, not under TYPE_CHECKING


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name (`pixtell.models.base`), path and what it imports."""

    name: str
    path: Path
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def unit(self) -> str:
        return unit_of(self.name)


def unit_of(name: str) -> str:
    """The unit of a module of ours: `pixtell.models.base` -> `models`; the package itself is `__init__`."""
    _, _, rest = name.partition(".")
    return rest.split(".")[0] or "__init__"


def is_ours(name: str) -> bool:
    return name.split(".")[0] == PACKAGE


def read_package(source: Path) -> dict[str, Module]:
    """Every source file under `source`, by dotted name; a folder's __init__ has the name of the folder."""
    paths: dict[str, Path] = {}
    for path in sorted(source.rglob("*.py")):
        parts = [PACKAGE, *path.relative_to(source).with_suffix("").parts]
        paths[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules: dict[str, Module] = {}
    for name, path in paths.items():
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = (
            *find_imports(tree.body, package, frozenset(paths), True),
            *find_modules_named(tree, frozenset(paths)),
        )
        modules[name] = Module(name, path, tree, found)
    return modules


def find_imports(
    statements: list[ast.stmt], package: str, known: frozenset[str], at_import: bool
) -> Iterator[Import]:
    """The imports in `statements` and below; relative ones are resolved against `package`."""
    for statement in statements:
        match statement:
            case ast.Import():
                for alias in statement.names:
                    yield Import(alias.name, statement.lineno, at_import)
            case ast.ImportFrom():
                parents = package.split(".")[: len(package.split(".")) + 1 - statement.level]
                base = ".".join([*(parents if statement.level else []), *filter(None, [statement.module])])
                for alias in statement.names:
                    module = f"{base}.{alias.name}"  # `from pixtell import images` names a module
                    is_module = module in known or (base == PACKAGE and alias.name in UNITS)
                    yield Import(module if is_module else base, statement.lineno, at_import)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from find_imports(statement.body, package, known, False)
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from find_imports(statement.body, package, known, False)
                yield from find_imports(statement.orelse, package, known, at_import)
            case _:
                for field in ("body", "orelse", "finalbody"):
                    yield from find_imports(getattr(statement, field, []), package, known, at_import)
                for branch in [*getattr(statement, "handlers", []), *getattr(statement, "cases", [])]:
                    yield from find_imports(branch.body, package, known, at_import)


def find_modules_named(tree: ast.Module, known: frozenset[str]) -> Iterator[Import]:
    """Strings that are the name of a module of ours: registries hold them, to import them when called for."""
    for node in ast.walk(tree):
        match node:
            case ast.Constant(value=str() as target) if target in known and target != PACKAGE:
                yield Import(target, node.lineno, False)


def at(module: Module, line: int) -> str:
    return f"{module.name} ({module.path.name}:{line})"


def check_places(modules: dict[str, Module]) -> Iterator[str]:
    """Every file has a row."""
    for unit in sorted({module.unit for module in modules.values()} - UNITS.keys()):
        yield (
            f"src/pixtell/{unit} has no place in the layers: add it to UNITS in tests/test_import_layers.py, "
            "in the row of what it does, and to the table in docs/architecture.md."
        )


def check_rows(modules: dict[str, Module]) -> Iterator[str]:
    """Imports between units go to rows above, with the exceptions the table names."""
    for module in modules.values():
        for found in module.imports:
            target = unit_of(found.target)
            if not is_ours(found.target) or target == module.unit or module.unit not in UNITS:
                continue
            reason = refuse(module.unit, found, target)
            if reason:
                yield f"{at(module, found.line)} imports {found.target}, but {reason}."


def refuse(importer: str, found: Import, target: str) -> str | None:
    """Why `importer` may not import `target` this way, or None."""
    rules = UNITS[importer]
    if target not in UNITS:
        return f"{target} has no place in the layers"
    row = UNITS[target].row
    if row > rules.row:
        return f"{target} stands in row {row}, below {importer} in row {rules.row}"
    if row == rules.row and target not in rules.same_row:
        return f"{target} stands in the same row as {importer}: move what both need above, or pass it in"
    if target in rules.never:
        return f"{importer} must not know {target}"
    if rules.only is not None and row > 0 and target not in rules.only:
        return f"{importer} may import only row 0{''.join(f' and {name}' for name in sorted(rules.only))}"
    through = ONLY_THROUGH.get((importer, target))
    if through and found.target != through:
        return f"{importer} sees {target} only through {through}"
    if (importer, target) in ONLY_INSIDE_FUNCTIONS and found.at_import:
        return f"{importer} imports {target} inside the function that starts it"
    return None


def check_cycles(modules: dict[str, Module]) -> Iterator[str]:
    """Inside one folder, imports run in no circle (a folder's __init__ is one of its files)."""
    edges = {
        module.name: sorted(
            {
                found.target
                for found in module.imports
                if unit_of(found.target) == module.unit and is_ours(found.target)
            }
            & modules.keys()
        )
        for module in modules.values()
        if module.unit != "__init__"
    }
    done: set[str] = set()

    def walk(name: str, road: list[str]) -> Iterator[str]:
        if name in road:
            yield f"imports run in a circle: {' -> '.join([*road[road.index(name) :], name])}."
        elif name not in done:
            for target in edges[name]:
                yield from walk(target, [*road, name])
            done.add(name)

    for name in edges:
        yield from walk(name, [])


def check_libraries(modules: dict[str, Module]) -> Iterator[str]:
    """Libraries stay in their rooms: PIL in images, transformers in functions, torch off the light road."""
    for module in modules.values():
        for found in module.imports:
            library = found.target.split(".")[0]
            where = f"{at(module, found.line)} imports {found.target}, but"
            if library == "PIL" and module.unit != "images":
                yield f"{where} only images.py reads pictures with PIL."
            if library == "transformers" and found.at_import:
                yield f"{where} transformers is imported inside functions only: it costs seconds at start."
            if module.unit in WITHOUT_TORCH:
                if library == "torch":
                    yield f"{where} {module.unit} works without torch."
                elif is_ours(found.target) and unit_of(found.target) not in WITHOUT_TORCH:
                    yield f"{where} {module.unit} works without torch, and that file may bring it."


def check_voices(modules: dict[str, Module]) -> Iterator[str]:
    """Only terminal.py prints, only cli.py exits or configures logging."""
    for module in modules.values():
        for node in ast.walk(module.tree):
            match node:
                case ast.Name(id="print") if module.unit != "terminal":
                    yield f"{at(module, node.lineno)} uses print: only terminal.py does."
                case ast.Name(id="SystemExit") if module.unit != "cli":
                    yield f"{at(module, node.lineno)} uses SystemExit: only cli.py does."
                case ast.Call(func=func) if module.unit != "cli" and ast.unparse(func) in CALLS_OF_CLI:
                    yield f"{at(module, node.lineno)} uses {ast.unparse(func)}: only cli.py does."


CHECKS: tuple[Callable[[dict[str, Module]], Iterator[str]], ...] = (
    check_places,
    check_rows,
    check_cycles,
    check_libraries,
    check_voices,
)


@pytest.fixture(scope="module")
def package() -> dict[str, Module]:
    return read_package(SOURCE)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_package_keeps_its_layers(
    check: Callable[[dict[str, Module]], Iterator[str]], package: dict[str, Module]
) -> None:
    problems = list(check(package))
    assert not problems, "\n" + "\n".join(problems)


# Each break of a rule: {file: source}, the words the sentence must hold.
BREAKS = {
    "unknown file": ({"helpers.py": ""}, "src/pixtell/helpers has no place in the layers: add it to UNITS"),
    "unknown folder": ({"zoo/cat.py": ""}, "src/pixtell/zoo has no place"),
    "downwards": (
        {"images.py": "\nfrom pixtell.captioner import Captioner"},
        "pixtell.images (images.py:2) imports pixtell.captioner, but captioner stands in row 5, below images",
    ),
    "same row": ({"images.py": "import pixtell.tokenizers"}, "tokenizers stands in the same row as images"),
    "stage to stage, module as a name": (
        {"augment.py": "from pixtell import images"},
        "the same row as augment",
    ),
    "relative": ({"models/lstm.py": "from ..images import x"}, "models may import only row 0."),
    "relative to the root": ({"models/lstm.py": "from .. import encoders"}, "models may import only row 0."),
    "inside a function": ({"models/lstm.py": "def f():\n  import pixtell.datasets.coco"}, "lstm.py:2"),
    "inside a method": (
        {"models/lstm.py": "class A:\n def f(self):\n  import pixtell.encoders"},
        "lstm.py:3",
    ),
    "in a try": (
        {"encoders/vgg16.py": "try:\n pass\nexcept E:\n import pixtell.datasets"},
        "must not know datasets",
    ),
    "under a with": ({"engines/onnx.py": "with a:\n import pixtell.images"}, "engines must not know images"),
    "for types only": (
        {"training/loop.py": "if TYPE_CHECKING:\n from pixtell.evaluation import evaluate"},
        "evaluation stands in the same row as training",
    ),
    "by name": ({"bulk.py": "\nLATER = {'find': 'pixtell.search'}", "search.py": ""}, "bulk (bulk.py:2)"),
    "a model beside its protocols": (
        {"decoding.py": "from pixtell.models import build_model"},
        "decoding sees models only through pixtell.models.base",
    ),
    "reports": ({"reports.py": "import pixtell.decoding"}, "reports may import only row 0 and metrics."),
    "features and data sets": ({"features.py": "import pixtell.datasets"}, "features must not know datasets"),
    "a door from within": ({"training/loop.py": "from pixtell.cli import main"}, "cli stands in row 7"),
    "the public names from within": (
        {"checkpoints.py": "from pixtell import __version__"},
        "__init__ stands in row 7",
    ),
    "cli from serving": ({"serving/app.py": "import pixtell.cli"}, "cli stands in the same row as serving"),
    "serving at the start": ({"cli.py": "import pixtell.serving"}, "inside the function that starts it"),
    "an import of a stranger": ({"cli.py": "import pixtell.helpers"}, "helpers has no place in the layers"),
    "a circle": (
        {
            "metrics/__init__.py": "from . import bleu",
            "metrics/bleu.py": "def f():\n  from pixtell.metrics import x",
        },
        "imports run in a circle: pixtell.metrics -> pixtell.metrics.bleu -> pixtell.metrics.",
    ),
    "PIL": (
        {"captioner.py": "if TYPE_CHECKING:\n import PIL.Image"},
        "only images.py reads pictures with PIL",
    ),
    "transformers": ({"encoders/clip.py": "from transformers import CLIPModel"}, "inside functions only"),
    "torch among data sets": (
        {"datasets/coco.py": "def f():\n  import torch.nn"},
        "datasets works without torch",
    ),
    "torch through another": ({"metrics/bleu.py": "import pixtell.devices"}, "that file may bring it"),
    "print": ({"features.py": "print(1)"}, "uses print: only terminal.py does"),
    "print, handed on": ({"features.py": "def f(log=print): ..."}, "uses print"),
    "exit": ({"search.py": "import sys\nsys.exit(1)"}, "uses sys.exit: only cli.py"),
    "raised exit": ({"__main__.py": "raise SystemExit(2)"}, "uses SystemExit"),
    "logging": ({"bulk.py": "import logging\nlogging.basicConfig()"}, "uses logging.basicConfig"),
}


def write_package(folder: Path, files: dict[str, str]) -> dict[str, Module]:
    for name, source in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return read_package(folder)


@pytest.mark.parametrize(("files", "sentence"), BREAKS.values(), ids=BREAKS.keys())
def test_a_break_is_found_and_named(tmp_path: Path, files: dict[str, str], sentence: str) -> None:
    modules = write_package(tmp_path, files)
    problems = [problem for check in CHECKS for problem in check(modules)]
    assert len(problems) == 1, problems
    assert sentence in problems[0]


def test_what_the_plan_allows_is_allowed(tmp_path: Path) -> None:
    modules = write_package(
        tmp_path,
        {
            "__init__.py": "def __getattr__(name):\n  from pixtell.captioner import Captioner",
            "__main__.py": "from pixtell.cli import main\nmain()",
            "errors.py": "",
            "downloads.py": "from pixtell.files import hash_file\nfrom .errors import DownloadError",
            "images.py": "import torch\nfrom PIL import Image",
            "datasets/__init__.py": "from pixtell.datasets.flickr import read_flickr8k",
            "datasets/flickr.py": "from pixtell.datasets.records import Dataset\nfrom .. import errors",
            "datasets/records.py": "import numpy",
            "encoders/clip.py": "from pixtell.images import Preprocess\ndef f():\n  import transformers",
            "models/base.py": "import torch",
            "decoding.py": "from pixtell.models.base import CaptionDecoder\nimport pixtell.logit_filters",
            "captioner.py": "from pixtell import errors, images\nif TYPE_CHECKING:\n  import transformers",
            "evaluation.py": "from pixtell.captioner import Captioner\nfrom pixtell.metrics import METRICS",
            "cli.py": "def serve():\n  from pixtell.serving import app\n  sys.exit(0)",
            "terminal.py": "print(1)",
        },
    )
    assert [problem for check in CHECKS for problem in check(modules)] == []
