"""Results -> figures and pages that anybody can open: a run's training curves, systems side by side.

In: ready numbers, captions and bytes. Out: an SVG, an HTML file. It knows neither training nor models.

    curves.py         a run's metrics.jsonl -> its curves as SVG
    comparison.py     what a comparison of systems is made of
    page.py           a comparison -> one HTML file; comparison.html, .css and .js are its looks
    tables.py, figures.py, pictures.py   the parts of the page
    charts.py, metric_notes.py           numbers as drawings, numbers as text
"""

from pixtell.reports.comparison import ComparedImage, ComparedSystem, Comparison, Thumbnail
from pixtell.reports.curves import read_metrics, write_training_curves
from pixtell.reports.page import comparison_page, write_comparison

__all__ = [
    "ComparedImage",
    "ComparedSystem",
    "Comparison",
    "Thumbnail",
    "comparison_page",
    "read_metrics",
    "write_comparison",
    "write_training_curves",
]
