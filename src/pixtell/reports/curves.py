"""Results and curves -> figures.

In: a run's metrics.jsonl. Out: an SVG that opens in any browser. It knows neither training nor models.
matplotlib is imported only here.
"""

import contextlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pixtell.errors import CheckpointError
from pixtell.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Panels of the figure, in order: title -> the names logged that belong there.
_PANELS = {
    "loss": ("loss",),
    "CIDEr-D and BLEU-4 on the validation split": ("val/CIDEr-D", "val/BLEU-4"),
    "mean recall and R@1 on the validation split": (
        "val/mean_recall",
        "val/text_to_image_R@1",
        "val/image_to_text_R@1",
    ),
    "agreement with the teacher": ("val/pooled_cosine", "val/top_class_agreement"),
    "share of distinct captions, of bad endings": ("val/distinct_share", "val/bad_ending_rate"),
}
_FEW_POINTS = 40  # up to so many, each is marked


def read_metrics(run: Path) -> list[dict[str, float]]:
    """The lines of a run's metrics.jsonl, each with its `step`; a line torn by a kill is left out."""
    path = run / "metrics.jsonl"
    lines = []
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                lines.append(json.loads(line))
    return lines


def write_training_curves(run: Path) -> Path:
    """Draw `run/metrics.jsonl` as `run/curves.svg`, one panel a kind of number, steps along x; returns its
    path.

    Raises: CheckpointError where the run has logged nothing; StorageError.
    """
    curves = points_of(read_metrics(run))
    panels = {title: [name for name in names if name in curves] for title, names in _PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        raise CheckpointError(f"{run} has logged nothing to draw yet; train for some steps first.")
    from matplotlib.figure import Figure  # no pyplot: it would choose a backend for the whole process

    figure = Figure(figsize=(7, 2.6 * len(panels)), layout="tight")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (title, names) in zip(axes, panels.items(), strict=True):
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            marker = "o" if len(steps) < _FEW_POINTS else None
            axis.plot(steps, values, label=name.removeprefix("val/"), marker=marker, markersize=3)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
    axes[-1].set_xlabel("step")
    path = run / "curves.svg"
    save_figure(figure, path)
    return path


def save_figure(figure: "Figure", path: Path) -> None:
    """As SVG; the same figure makes the same file. Raises: StorageError."""
    import matplotlib

    same_ids = matplotlib.rc_context({"svg.hashsalt": "pixtell"})
    with atomic_path(path) as temporary, same_ids:
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def points_of(lines: Sequence[Mapping[str, float]]) -> dict[str, list[tuple[float, float]]]:
    """Every number's (step, value) points."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for numbers in lines:
        for name, value in numbers.items():
            if name != "step":
                curves[name].append((numbers["step"], value))
    return curves
