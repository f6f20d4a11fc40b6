"""The live figure as a section of a report about the same problem."""

from fanfold.problems import Problem
from fanfold.report.figure.manifest import pack
from fanfold.report.figure.page import figure_head
from fanfold.report.figure.trained import PROBLEMS
from fanfold.report.page import Section

TEXTS = "200x100"


def live_sections(problem: Problem) -> list[Section]:
    """The figure, where the problem is that of the text; else nothing.

    Args:
        problem: What the report is about.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.report.figure.section import live_sections
        >>> live_sections(ff.problems.CompressedSensing(n=40, m=20))
        []
    """
    if problem != PROBLEMS[TEXTS]:
        return []
    text = (
        "The same problem in this page: the exported programs of the algorithms, and of two networks that come with "
        "fanfold, run as you move a slider."
    )
    figure = f'{figure_head(pack([TEXTS]))}<fanfold-figure mode="free"></fanfold-figure>'
    return [Section("Move the sliders", text, [figure])]
