"""The numbers of curves -> docs/scaling.md and its drawings.

Every number on the page comes from the JSON file. Two panels a drawing: images a second, and peak memory.
Where a curve bends is looked for in its numbers; why it does is said here, once.
"""

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Point = Mapping[str, float]  # value, rate, peak_gb

TITLE = """# How do rate and memory go with sizes?

On {machine}.

`python -m benchmarks.curves --output docs/scaling.md` measures and writes this page, `--curves NAMES` some
of it again. JPEG files of 500 x 375 to captions; batch 16, 1 beam, 20 tokens and all cores but for what is on
the axis; every caption has all of its tokens. Each point is a process of its own; its start is not in the
rate, all it holds is in the memory, torch included ({least:.2f} GB at the least). CLIP ViT-B/32 + GPT-2 small
has random weights. All on torch in fp32; the ONNX engine is in [benchmarks](benchmarks.md).
"""

# axis -> heading, what stands on the axis, why it bends
WHY = {
    "batch_size": (
        "Batch size",
        "images a batch",
        "A batch of one reads all weights from memory for one new token; a larger one shares that among its "
        "images, until the products themselves take longest. From there the rate stays, or falls where a "
        "batch no longer fits the caches. Memory grows by a batch's activations in the encoder.",
    ),
    "beam_size": (
        "Beams",
        "beams an image",
        "Each beam is a row for the language model; the beams of an image share its prefix, and none is "
        "copied when beams change places. The encoder's part stays. So the rate falls more slowly than 1 "
        "over the beams while the encoder is most of the work, and like it when the language model is.",
    ),
    "new_tokens": (
        "Caption length",
        "new tokens a caption",
        "A token is a step of the same work: the time of an image is the encoder's plus so much a token. "
        "What attention reads grows with length, too, and is small beside the weights. There is no bend but "
        "at the short end, where captioning hides behind the encoding of the next batch.",
    ),
    "threads": (
        "Threads",
        "threads of torch",
        "Encoding, captioning and reading are on threads of their own, and each of the first two starts as "
        "many for its products: with one each, two cores are busy already. More bring something only where "
        "there are more cores than that.",
    ),
    "workers": (
        "Loader threads: reading and resizing alone",
        "threads that read",
        "JPEGs are decoded outside of Python's lock, so that readers share the cores and no more: beyond as "
        "many as there are cores nothing is won.",
    ),
    "images": (
        "Number of images",
        "images so far",
        "Files are read and encoded a batch ahead and captions given out as they come, so that nothing is "
        "kept: rate and memory do not change with the number. These are files of 160 x 120 with captions of "
        "5 tokens, in one process.",
    ),
}
LOGARITHMIC = {"batch_size", "images", "workers"}
NEARLY = 0.9  # of the best rate: from there a curve counts as flat


def write_page(output: Path) -> None:
    """output: the page; its numbers lie beside it with the suffix .json, its drawings go into images/."""
    from pixtell.files import write_text

    stored = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    curves = stored["curves"]
    least = min(point["peak_gb"] for curve in curves.values() for point in curve["points"])
    parts = [TITLE.format(machine=stored["machine"], least=least)]
    for axis, (heading, label, why) in WHY.items():
        along = [curve for curve in curves.values() if curve["axis"] == axis]
        if along:
            drawing = output.parent / "images" / f"scaling-{axis.replace('_', '-')}.svg"
            drawing.parent.mkdir(exist_ok=True)
            draw(drawing, along, label, logarithmic=axis in LOGARITHMIC)
            sentences = [sentence(curve["model"], curve["points"], label) for curve in along]
            picture = f"![Images a second and peak memory against {label}](images/{drawing.name})"
            tables = [table(curve["model"], curve["points"], label) for curve in along]
            text = textwrap.fill(" ".join([*sentences, why]), 118)
            parts.append("\n\n".join([f"## {heading}", picture, text, *tables]) + "\n")
    write_text(output, "\n".join(parts))


def sentence(model: str, points: Sequence[Point], label: str) -> str:
    """Where the curve of a model bends, in numbers."""
    first, last = points[0], points[-1]
    best = max(points, key=lambda point: point["rate"])
    flat = next(point for point in points if point["rate"] >= NEARLY * best["rate"])
    memory = f"memory {first['peak_gb']:.2f} to {last['peak_gb']:.2f} GB"
    ends = f"{first['value']:,} to {last['value']:,} {label}"
    change = last["rate"] / first["rate"]
    if flat is first:
        return f"`{model}`: from {ends} the rate becomes {change:.2f} times as high; {memory}."
    return (
        f"`{model}`: from {ends} the rate becomes {change:.1f} times as high, and {flat['value']:,} give "
        f"{flat['rate'] / best['rate']:.0%} of the best; {memory}."
    )


def table(model: str, points: Sequence[Point], label: str) -> str:
    """The numbers, a line a point."""
    lines = [f"| {label}, `{model}` | images a second | peak memory, GB |", "|---|---|---|"]
    lines += [f"| {p['value']:,} | {p['rate']:.3g} | {p['peak_gb']:.2f} |" for p in points]
    return "\n".join(lines)


def draw(path: Path, curves: Sequence[Mapping[str, Any]], label: str, *, logarithmic: bool) -> None:
    """Two panels from 0 up, a line a model."""
    from matplotlib.figure import Figure

    from pixtell.reports.curves import save_figure

    figure = Figure(figsize=(8, 2.8), layout="tight")
    panels = (("rate", "images a second"), ("peak_gb", "peak memory, GB"))
    for axes, (key, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for curve, marker in zip(curves, "osD^", strict=False):
            values = [point["value"] for point in curve["points"]]
            numbers = [point[key] for point in curve["points"]]
            axes.plot(values, numbers, label=curve["model"], marker=marker, markersize=4)
        if logarithmic:
            axes.set_xscale("log", base=2 if max(values) < 1000 else 10)
        axes.set_xticks(values, [f"{value:,}" for value in values], minor=False)
        axes.set_ylim(bottom=0)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    save_figure(figure, path)
