"""What more simulations would gain, in pictures: the learning curve that a run keeps."""

from fanfold.report.page import Section
from fanfold.report.plots import Series, line_chart
from fanfold.runs.directory import Run
from fanfold.training.risk_curve import LearningCurve

KEPT = "learning-curve"  # under which a run keeps it


def simulation_sections(run: Run) -> list[Section]:
    """The learning curve of a run for which one was made; else nothing."""
    data = run.kept(KEPT)
    if data is None:
        return []
    curve = LearningCurve.from_dict(data)
    rows = curve.table.rows
    budgets = [row["simulations"] for row in rows]
    series = [
        Series("trained anew", budgets, [row["risk"] for row in rows], "learned"),
        Series("curve", budgets, [row["fitted"] for row in rows]),
        Series("floor", [budgets[0], budgets[-1]], [curve.floor, curve.floor], "limit"),
    ]
    chart = line_chart(series, "simulations", "mean squared error over variance", log_x=True)
    text = (
        f"{curve.sentence}\nNetworks that were trained anew on parts of the pairs, judged on the same held-out draws."
    )
    return [Section("What more simulations would gain", text, [chart], details=curve.table)]
