"""The live figure as a section of a report about the same problem."""

from fanfold.core.abilities import ability
from fanfold.problems import Problem
from fanfold.report.figure.manifest import pack, program_of_run
from fanfold.report.figure.page import figure_head
from fanfold.report.figure.trained import PROBLEMS
from fanfold.report.learned import Deviating
from fanfold.report.page import Section

TEXTS = "200x100"


def live_sections(problem: Problem, net: object = None) -> list[Section]:
    """The figure, where the problem is that of the text; else nothing.

    Args:
        problem: What the report is about.
        net: Its network, which is a curve too where the figure has a program for it.

    Example:
        >>> import fanfold as ff
        >>> from fanfold.report.figure.section import live_sections
        >>> live_sections(ff.problems.CompressedSensing(n=40, m=20))
        []
    """
    if problem != PROBLEMS[TEXTS]:
        return []
    run = ability(net, Deviating)
    run = None if run is None or program_of_run(run) is None else run
    text = (
        "The same problem in this page: exported programs of the algorithms, of two networks that come with fanfold"
        f"{'' if run is None else ', and of this run'}, run as you move a slider."
    )
    figure = f'{figure_head(pack([TEXTS], run))}<fanfold-figure mode="free" look="light"></fanfold-figure>'
    return [Section("Move the sliders", text, [figure])]
