"""A comparison -> one HTML file that needs nothing but itself.

In: a `Comparison`. Out: the page as a string, or written whole. Its looks and behaviour stand in
comparison.html, .css and .js beside this file. Nothing on the page may ask the network for anything: a
Content-Security-Policy allows this style sheet, this script and pictures inside the file, and no more.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from pixtell.files import write_text
from pixtell.reports.charts import NUM_COLOURS, legend_mark
from pixtell.reports.comparison import Comparison
from pixtell.reports.figures import curve_figures, length_figures, score_figures
from pixtell.reports.metric_notes import format_value, label_for, note_for
from pixtell.reports.pictures import CaptionWords, per_image_metrics, picture_views, sort_data
from pixtell.reports.tables import (
    explanations,
    findings,
    headline_of,
    letter_of,
    metrics_of,
    reading,
    score_tables,
)

_FOLDER = Path(__file__).parent
# C0 without tab and line ends, C1, halves of surrogate pairs: HTML and UTF-8 cannot hold them
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_REPLACEMENT = "\ufffd"


def write_comparison(path: Path, comparison: Comparison) -> None:
    """Write the page of a comparison, whole or not at all. Raises: StorageError."""
    write_text(path, comparison_page(comparison))


def comparison_page(comparison: Comparison) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else _printable(value),
    )
    environment.filters["markup"] = Markup  # for what this package has made itself
    return environment.get_template("comparison.html").render(_view(comparison))


def _view(comparison: Comparison) -> dict[str, Any]:
    """What the template reads."""
    words = CaptionWords.of(comparison)
    css = _read("comparison.css") + _rules(comparison)
    script = _read("comparison.js")
    view = {
        "title": comparison.title,
        "subtitle": _subtitle(comparison),
        "warnings": comparison.warnings,
        "notes": comparison.notes,
        "css": css,
        "script": script,
        "policy": _policy(css, script),
        "has_references": any(image.references for image in comparison.images),
        **_score_view(comparison),
        **_figure_view(comparison, words),
        **_picture_view(comparison, words),
    }
    sections = (
        ("scores", view["scores_heading"], view["tables"]),
        ("distributions", "Distributions", view["length_figures"] or view["score_figures"]),
        ("training", "Training", view["curve_figures"]),
        ("notes", "How this page was made", view["notes"]),
        ("pictures", "The pictures", True),
    )
    return {**view, "contents": [(anchor, heading) for anchor, heading, is_there in sections if is_there]}


def _score_view(comparison: Comparison) -> dict[str, Any]:
    leading = headline_of(metrics_of(system.scores for system in comparison.systems))
    tables = score_tables(comparison)
    return {
        "systems": [
            {
                "letter": letter_of(index),
                "colour": index % NUM_COLOURS,
                "name": system.name,
                "detail": system.detail,
                "headline": format_value(leading, system.scores[leading].value)
                if leading is not None and leading in system.scores
                else "",
                "legend": legend_mark(index),
                "has_curves": bool(system.curves),
            }
            for index, system in enumerate(comparison.systems)
        ],
        "headline_label": label_for(leading) if leading is not None else "",
        "findings": findings(comparison),
        "tables": tables,
        "scores_heading": "Scores" if any(table.id == "quality" for table in tables) else "In numbers",
        "has_differences": bool(comparison.differences),
        "reading": reading(comparison),
        "metrics": explanations(comparison),
    }


def _figure_view(comparison: Comparison, words: CaptionWords) -> dict[str, Any]:
    lengths = [[len(caption) for caption in captions if caption] for captions in words.systems]
    return {
        "length_figures": length_figures(lengths, words.references),
        "score_figures": score_figures(comparison, _judging(comparison)),
        "score_figure_metric": _sort_leading(comparison),
        "curve_figures": curve_figures(comparison),
    }


def _picture_view(comparison: Comparison, words: CaptionWords) -> dict[str, Any]:
    metrics, leading = per_image_metrics(comparison), _sort_leading(comparison)
    return {
        "pictures": picture_views(comparison, words),
        "data": _json(sort_data(comparison, words)),
        "sort_noun": "Score" if _judging(comparison) else "Number",
        "sort_metrics": [(metric, label_for(metric)) for metric in metrics],
        "sort_metric": leading,
        "sort_metric_place": metrics.index(leading),
    }


def _judging(comparison: Comparison) -> list[str]:
    """The metrics of single pictures that say how good a caption is."""
    return [metric for metric in per_image_metrics(comparison) if not note_for(metric).describes]


def _sort_leading(comparison: Comparison) -> str:
    """The metric of single pictures that is chosen at first."""
    return headline_of(_judging(comparison)) or per_image_metrics(comparison)[0]


def _subtitle(comparison: Comparison) -> str:
    """'60 pictures, 5 references each'."""
    counts = {len(image.references) for image in comparison.images}
    pictures = f"{len(comparison.images):,} picture{'' if len(comparison.images) == 1 else 's'}"
    if counts <= {0}:
        return f"{pictures}, no references: captions side by side"
    low, high = min(counts), max(counts)
    each = (
        f"{low} to {high} references each" if low < high else f"{low} reference{'' if low == 1 else 's'} each"
    )
    return f"{pictures}, {each}"


def _rules(comparison: Comparison) -> str:
    """The style rules that hang on how much there is to show: tables of equal columns, wide enough for a
    difference with its interval, and the score standing out that the pictures are sorted by."""
    num_columns = len(comparison.systems) + bool(comparison.yardstick)
    rules = [
        f"table {{ min-width: {8 + 12 * num_columns}rem; }}",
        # on a phone two systems and the yardstick stand side by side
        f"@media (max-width: 40rem) {{ table {{ min-width: {5.2 + 5 * num_columns}rem; }} }}",
    ]
    rules += [
        f'[data-metric="{place}"] [data-m="{place}"] {{ color: var(--text); }}'
        for place in range(len(per_image_metrics(comparison)))
    ]
    return "\n".join(rules)


def _policy(css: str, script: str) -> str:
    """A Content-Security-Policy that allows this style sheet and this script, by their hashes."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, script)
    )
    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{style_hash}'; script-src "
        f"'sha256-{script_hash}'; base-uri 'none'; form-action 'none'"
    )


def _json(value: object) -> str:
    """JSON that no HTML parser can leave early: only ASCII, and no character of markup."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _printable(value: object) -> object:
    return _UNPRINTABLE.sub(_REPLACEMENT, value) if isinstance(value, str) else value


def _read(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
