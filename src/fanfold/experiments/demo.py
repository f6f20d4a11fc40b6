"""What `fanfold demo` shows in under a minute: the figure of unfolding, and a photograph."""

import time

from fanfold.experiments.base import CAVEAT, Goal, Study
from fanfold.experiments.sparse import photographs, unfolding_figure
from fanfold.experiments.sparse.unfolding_figure import Watcher
from fanfold.report.figure.section import live_sections


def study(*, seed: int, watch: Watcher) -> Study:
    """One matrix and one picture, trained for seconds."""
    began = time.perf_counter()
    curves = unfolding_figure.measure(seed, 400, 400, watch)
    recovery = photographs.recover(0.5, 350, seed, watch)
    goals: list[Goal] = [*unfolding_figure.goals([curves], ista_needs=90), *photographs.goals(recovery)]
    live = live_sections(unfolding_figure.problem(seed))
    return Study(
        "demo",
        "A network is an algorithm plus deviations.",
        f"On sparse signals {unfolding_figure.verdict(curves)}, and on a photograph {photographs.verdict(recovery)}; "
        f"{CAVEAT}, nor on other kinds of picture.",
        time.perf_counter() - began,
        goals,
        [unfolding_figure.section(curves), *live, photographs.section(recovery)],
        {"seed": seed, "operators": f"{curves.operator[:12]}, {recovery.operator[:12]}"},
    )
