"""Whether few samples decide a mean over samples: it then says little of the others, and the median is named too."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fanfold.core.table import Table

FEW = 0.01  # of the samples, the worst ones; at least one
MOST = 0.5  # of the squared error that these may have before it is said
FEWEST = 10  # samples of which anything is said
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
    decided: dict[str, dict[str, Any]] = {}
    for row in table.last_layers() if len(table) else ():
        before = decided.get(row["estimator"], {"top_share": MOST})
        if row["samples"] >= FEWEST and row["top_share"] > before["top_share"]:
            decided[row["estimator"]] = row
    if not decided:
        return []
    worst = sorted(decided.values(), key=lambda row: -row["top_share"])[:NAMED]
    said = [f"{row['estimator']} ({100 * row['top_share']:.0f} %; {_levels(row)})" for row in worst]
    more = f" and {len(decided) - NAMED} more" if len(decided) > NAMED else ""
    who = "the worst 1 % have" if min(row["samples"] for row in decided.values()) >= 1 / FEW else "the worst one has"
    return [
        f"Few samples decide: {who} more than half of the squared error of {', '.join(said)}{more}. "
        "Look at these samples, and take the median for what is usual."
    ]


def _levels(row: Mapping[str, Any]) -> str:
    mean = f"{row['nmse_db']:.1f} dB" if math.isfinite(row["nmse_db"]) else "no finite"
    return f"{mean} over all, median {row['median_db']:.1f} dB"
