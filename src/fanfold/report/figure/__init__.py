"""The live figure, `<fanfold-figure>`: exported programs that run in a page, beside the limit, as sliders move."""

from fanfold.report.figure.page import figure, figure_head

__all__ = ["figure", "figure_head"]
