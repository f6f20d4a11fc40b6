"""A convergence certificate: what every layer reaches, what it claims, and what state evolution says it can reach."""

from dataclasses import dataclass
from typing import Any

import torch

from fanfold.bounds.state_evolution import vamp
from fanfold.core.abilities import offers
from fanfold.core.table import Table
from fanfold.core.units import db, power
from fanfold.observation import Estimate
from fanfold.problems.protocols import LinearModel, likelihood_of


@dataclass(frozen=True)
class Certificate:
    """Whether an estimator with layers does on draws of one problem what state evolution says.

    Attributes:
        table: For each layer the mean error variance of an unknown against its power, in dB: by state evolution, by the
            variances that the layer claims (None where it claims none), and as it is.
        holds: Whether the last layer is where evolution ends and its claim is right, both to `tolerance_db`.
        verdict: The same in words, with the numbers.
        limit_db: Where state evolution settles, NMSE in dB.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(snr_db=20.0)
        >>> x, obs = problem.sample(20, torch.Generator().manual_seed(0))
        >>> oamp = ff.iterate(ff.algorithms.OAMP(problem.prior), 12)
        >>> ff.bounds.certify(oamp.trajectory(obs), x, problem).holds
        True
    """

    table: Table
    holds: bool
    verdict: str
    limit_db: float


def has_evolution(problem: object) -> bool:
    """Whether state evolution can be run: a prior, one operator for all samples, and Gaussian noise."""
    if not offers(problem, LinearModel) or likelihood_of(problem) or problem.prior is None:
        return False
    if problem.A is None or problem.A.varies or problem.noise_var is None:
        return False
    return bool(problem.noise_var > 0)


def certify(estimates: list[Estimate], x: torch.Tensor, problem: object, tolerance_db: float = 1.0) -> Certificate:
    """Hold the layers of a network, or the iterations of an algorithm, against state evolution of VAMP.

    State evolution is what the best message passing reaches on a large random operator with these singular values
    (Rangan, Schniter & Fletcher, 2019, eqs. 50-53). Structured operators of finite size, such as Kronecker products,
    need not follow it: this says whether an estimator does.

    Args:
        estimates: The estimates of every layer, as `trajectory` gives them.
        x: The true signals, `(samples, n)`.
        problem: A `LinearModel` with a prior, an operator and a positive noise variance.
        tolerance_db: How far the end may be above evolution, and the claim from the truth.

    Raises:
        ValueError: If the problem has no state evolution, or there are no layers.
    """
    if not has_evolution(problem) or not offers(problem, LinearModel):
        raise ValueError("state evolution needs a known prior, one operator and Gaussian noise; this problem lacks it.")
    if not estimates:
        raise ValueError("there are no layers to certify; pass the estimates of a trajectory.")
    prior, A = problem.prior, problem.A
    assert prior is not None
    assert A is not None
    s = A.svd().s
    s = s[s > s.max() * A.m * torch.finfo(s.dtype).eps]
    predicted = vamp(prior, s, A.n, problem.noise_var, max(30, len(estimates)), is_complex=A.dtype.is_complex)
    rows: list[dict[str, Any]] = []
    for layer, (estimate, evolved) in enumerate(zip(estimates, predicted, strict=False), start=1):
        claimed = None if estimate.var is None else db(max(estimate.var.mean().item() / prior.power, 1e-30))
        measured = db((power(estimate.x - x).sum() / power(x).sum()).item())
        rows.append({"layer": layer, "state evolution": db(evolved / prior.power), "claimed": claimed, "is": measured})
    end, limit = rows[-1], db(predicted[-1] / prior.power)
    short = end["is"] - limit
    misled = None if end["claimed"] is None else end["is"] - end["claimed"]
    holds = bool(short <= tolerance_db and (misled is None or abs(misled) <= tolerance_db))
    claim = "no variance is claimed" if misled is None else f"claims {end['claimed']:.1f} dB"
    verdict = (
        f"{'Converged' if holds else 'Not certified'}: layer {len(rows)} is at {end['is']:.1f} dB, {short:.1f} dB from "
        f"where state evolution settles ({limit:.1f} dB), and {claim}."
    )
    return Certificate(Table(rows), holds, verdict, limit)
