"""What shifts do to a run, as `evaluate --shifts` measured it and the run keeps it."""

from fanfold.core.settings import check_table
from fanfold.core.table import Table
from fanfold.report.page import Section, filled
from fanfold.runs.directory import Run

KEPT = "shifts"  # under which a run keeps it
SHOWN = ("family", "severity", "network_db", "baseline_db", "guarded_db", "risk", "guarded_risk", "detected")

SPECIALIST = "specialist_db"  # where some were trained


def shift_sections(run: Run) -> list[Section]:
    """The table of shifts of a run for which one was made; else nothing.

    Raises:
        ValueError: If what is kept is no such table.
    """
    data = run.kept(KEPT)
    if data is None:
        return []
    try:
        rows = [check_table(row) for row in data["rows"]]
        trained = (SPECIALIST,) if any(row.get(SPECIALIST) is not None for row in rows) else ()
        table = Table([{name: row[name] for name in SHOWN + trained} for row in rows])
        verdict = str(data["verdict"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{run.file_of(KEPT)} is damaged ({error}); make it anew: evaluate --shifts.") from error
    text = f"{verdict}\nRisks are ratios of summed squared errors to those of the baseline."
    return [Section("If the world changes", text, table=filled(table), details=Table(rows))]
