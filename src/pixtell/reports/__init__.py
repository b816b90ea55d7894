"""Results -> figures and pages that anybody can open: a run's training curves, systems side by side.

In: ready numbers, captions and bytes. Out: an SVG, an HTML file. It knows neither training nor models.
"""

from pixtell.reports.curves import read_metrics, write_training_curves

__all__ = ["read_metrics", "write_training_curves"]
