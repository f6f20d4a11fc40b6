"""The cells of a declared domain: error, gap to the limit and coverage in each, and the errors of every draw."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.bounds import bayes_limit_of
from fanfold.core.units import db
from fanfold.deploy.release.profile import CoverageLimits, ReleaseProfile
from fanfold.deploy.release.results import ReleaseResult
from fanfold.evaluation.evaluate import Z95, cases, energies, ratio_of
from fanfold.evaluation.scores import coverage
from fanfold.guard import Conformal, conformal
from fanfold.observation import Estimator, Observation
from fanfold.problems import Problem

LEAST = 1e-30  # of a ratio in dB: -300 dB, far below the rounding of any number type


class CellErrors(NamedTuple):
    """What was measured of each draw in a cell.

    Attributes:
        cell: The settings of the problem that make it.
        error, signal: Squared error and squared signal of each draw, `(draws,)`, float64.

    Example:
        >>> import torch
        >>> from fanfold.deploy.release import CellErrors
        >>> round(CellErrors({}, torch.full((4,), 0.1), torch.ones(4)).nmse().value, 3)
        -10.0
    """

    cell: Mapping[str, Any]
    error: Tensor
    signal: Tensor

    def nmse(self, limit: float | None = None) -> ReleaseResult:
        """The NMSE in dB, a ratio of sums, with its 95 % interval by the delta method over draws."""
        value, low, high = in_db(*ratio_of(self.error, self.signal))
        note = "" if value is not None else "an error is not finite"
        return ReleaseResult("NMSE", self.cell, "dB", value, low, high, limit, note=note)


class MeasuredDomain(NamedTuple):
    """What a domain was measured to be.

    Example:
        >>> from fanfold.deploy.release.cells import MeasuredDomain
        >>> MeasuredDomain((), ()).results
        ()
    """

    results: tuple[ReleaseResult, ...]
    cells: tuple[CellErrors, ...]


def in_db(ratio: float, spread: float) -> tuple[float | None, float | None, float | None]:
    """A ratio in dB with its 95 % interval; None for all where it is not finite."""
    if not math.isfinite(ratio + spread):
        return None, None, None
    value, low, high = (db(max(r, LEAST)) for r in (ratio, ratio - Z95 * spread, ratio + Z95 * spread))
    return value, low, high


@torch.no_grad()
def measure_cells(estimator: Estimator, problem: Problem, profile: ReleaseProfile) -> MeasuredDomain:
    """Error, gap to the Bayes limit and coverage of intervals in every cell of the declared domain.

    Args:
        estimator: What is released.
        problem: What it was trained on, which is shifted to each cell.
        profile: The domain, its draws and the limits.

    Raises:
        ValueError: If the problem has no such setting, or cannot be changed.
    """
    calibrated = None if profile.coverage is None else _calibrated(estimator, problem, profile.coverage, profile.seed)
    results: list[ReleaseResult] = []
    cells: list[CellErrors] = []
    for cell, variant, x, obs in cases(problem, profile.samples, profile.seed, profile.domain):
        limits = profile.limits_of(cell)
        errors = CellErrors(cell, *energies(estimator(obs).x, x))
        nmse = errors.nmse(limits.nmse_db)
        cells.append(errors)
        results += [nmse, _gap(nmse, bayes_limit_of(variant, x, obs), limits.gap_db)]
        results += _coverage(calibrated, profile.coverage, cell, x, obs)
    return MeasuredDomain(tuple(results), tuple(cells))


def _calibrated(estimator: Estimator, problem: Problem, limits: CoverageLimits, seed: int) -> Conformal:
    return conformal(estimator, problem, limits.promised, samples=limits.draws, seed=seed)


def _gap(nmse: ReleaseResult, bound: float | None, limit: float | None) -> ReleaseResult:
    """How far the NMSE is from the Bayes limit; it is not judged where no bound is known."""
    if bound is None or nmse.value is None:
        note, limit = ("no bound is known here", None) if bound is None else (nmse.note, limit)
        return ReleaseResult("gap to the limit", nmse.cell, "dB", None, limit=limit, note=note)
    at = db(max(bound, LEAST))
    low, high = (None if end is None else end - at for end in (nmse.low, nmse.high))
    return ReleaseResult(
        "gap to the limit", nmse.cell, "dB", nmse.value - at, low, high, limit, note=f"Bayes limit {at:.2f} dB"
    )


def _coverage(
    calibrated: Conformal | None, limits: CoverageLimits | None, cell: Mapping[str, Any], x: Tensor, obs: Observation
) -> Iterator[ReleaseResult]:
    if calibrated is None or limits is None:
        return
    share = coverage(calibrated(obs), x)
    low, high = (share.value + sign * Z95 * share.standard_error for sign in (-1, 1))
    note = f"{100 * limits.promised:g} % are promised"
    yield ReleaseResult("coverage", cell, "share", share.value, low, high, limits.at_least, "at least", note)
