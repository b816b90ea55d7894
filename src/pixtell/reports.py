"""Results and curves -> figures.

In: a run's metrics.jsonl. Out: an SVG that opens in any browser. It knows neither training nor models.
matplotlib is imported only here.
"""

import json
from collections import defaultdict
from pathlib import Path

from pixtell.errors import CheckpointError
from pixtell.files import atomic_path

# Panels of the figure, in order: title -> the names logged that belong there.
_PANELS = {
    "loss": ("loss",),
    "CIDEr-D and BLEU-4 on the validation split": ("val/CIDEr-D", "val/BLEU-4"),
    "agreement with the teacher": ("val/pooled_cosine", "val/top_class_agreement"),
    "share of distinct captions, of bad endings": ("val/distinct_share", "val/bad_ending_rate"),
}


def write_training_curves(run: Path) -> Path:
    """Draw `run/metrics.jsonl` as `run/curves.svg`, one panel a kind of number, steps along x; returns its
    path.

    Raises: CheckpointError where the run has logged nothing.
    """
    curves = _read_curves(run / "metrics.jsonl")
    panels = {title: [name for name in names if name in curves] for title, names in _PANELS.items()}
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        raise CheckpointError(f"{run} has logged nothing to draw yet; train for some steps first.")
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(panels), 1, figsize=(7, 2.6 * len(panels)), sharex=True, squeeze=False)
    for axis, (title, names) in zip(axes[:, 0], panels.items(), strict=True):
        for name in names:
            steps, values = zip(*curves[name], strict=True)
            axis.plot(
                steps,
                values,
                label=name.removeprefix("val/"),
                marker="o" if len(steps) < 40 else None,
                markersize=3,
            )
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend(fontsize=8)
    axes[-1, 0].set_xlabel("step")
    figure.tight_layout()
    path = run / "curves.svg"
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    pyplot.close(figure)
    return path


def _read_curves(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Every number's (step, value) points."""
    curves: dict[str, list[tuple[float, float]]] = defaultdict(list)
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            numbers = json.loads(line)
            for name, value in numbers.items():
                if name != "step":
                    curves[name].append((numbers["step"], value))
    return curves
