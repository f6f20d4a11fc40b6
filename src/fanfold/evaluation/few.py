"""Whether few samples decide a mean over samples: it then says little of the others, and the median is named too."""

import math

from torch import Tensor

from fanfold.core.table import Table

FEW = 0.01  # of the samples, the worst ones; at least one
MOST = 0.5  # of the squared error that these may have before it is said
NAMED = 3  # estimators that a sentence names


def share_of_few(error: Tensor) -> float:
    """The share of all squared error that the worst 1 % of samples have, at least one of them.

    Args:
        error: The squared error of each sample, `(samples,)`.

    Returns:
        The share; 0 where there is no error, and 1 where an error is not finite.

    Example:
        >>> import torch
        >>> from fanfold.evaluation.few import share_of_few
        >>> round(share_of_few(torch.tensor([1.0] * 99 + [297.0])), 6)
        0.75
    """
    error = error.double()
    if not error.isfinite().all():
        return 1.0
    largest = error.max()
    if not largest > 0:
        return 0.0
    error = error / largest  # so that the sum stays a number
    count = max(1, round(FEW * len(error)))
    return (error.topk(count).values.sum() / error.sum()).item()


def remarks_on_few(table: Table) -> list[str]:
    """At most one sentence on a table of `evaluate`: of which estimators few samples decide the NMSE.

    What is said is of the last layers. Of fewer than ten samples nothing is said.
    """
    decided: dict[str, tuple[float, float, float]] = {}
    for row in table.last_layers() if len(table) else ():
        share = row["top_share"]
        if share > MOST and row["samples"] >= 10 and share > decided.get(row["estimator"], (0.0,))[0]:
            decided[row["estimator"]] = (share, row["nmse_db"], row["median_db"])
    if not decided:
        return []
    worst = sorted(decided, key=lambda name: -decided[name][0])[:NAMED]
    said = [f"{name} ({100 * decided[name][0]:.0f} %; {_levels(*decided[name][1:])})" for name in worst]
    more = f" and {len(decided) - NAMED} more" if len(decided) > NAMED else ""
    return [
        f"Few samples decide: the worst 1 % have more than half of the squared error of {', '.join(said)}{more}. "
        "Look at these samples, and take the median for what is usual."
    ]


def _levels(nmse_db: float, median_db: float) -> str:
    mean = f"{nmse_db:.1f} dB" if math.isfinite(nmse_db) else "no finite"
    return f"{mean} over all, median {median_db:.1f} dB"
