"""The support oracle: the posterior mean for someone who is told which unknowns are zero. Candès & Tao (2007)."""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fanfold.core.abilities import offers
from fanfold.core.units import power
from fanfold.observation import Observation
from fanfold.problems.protocols import likelihood_of, prior_of


@runtime_checkable
class SparsePrior(Protocol):
    """A prior of entries that are not zero with probability `p`, and then have the variance `var`."""

    @property
    def p(self) -> float: ...

    @property
    def var(self) -> float: ...


def support_oracle_error(problem: object, x: Tensor, obs: Observation) -> float | None:
    """NMSE on these draws of who is told the supports; None where that is not known.

    It is known of a `KnownPrior` that is a `SparsePrior`, seen through one operator and noise of known, positive
    variance.

    Args:
        problem: Any.
        x: Signals that were drawn, `(samples, n)`.
        obs: What was observed of them.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=100, m=50)
        >>> error = ff.bounds.support_oracle_error(problem, *problem.sample(20, torch.Generator().manual_seed(0)))
        >>> error < 1e-4
        True
    """
    prior = prior_of(problem)
    if not offers(prior, SparsePrior) or likelihood_of(problem) is not None:
        return None
    if obs.A is None or obs.A.varies or obs.noise_var is None or not (obs.noise_var > 0).all():
        return None
    x_hat = support_oracle(x, obs, prior.var)
    return (power(x_hat - x).double().sum() / power(x).double().sum()).item()


def support_oracle(x: Tensor, obs: Observation, var: float = 1.0) -> Tensor:
    """`E[x | y, support]` for non-zeros of variance `var`, real or complex.

    Args:
        x: The true signals `(samples, n)`; only their supports are used.
        obs: What was observed, with a positive noise variance and an operator.
        var: `E|x|²` of a non-zero.

    Returns:
        Estimates `(samples, n)`, in double precision inside.

    Raises:
        ValueError: If the operator or the noise variance is unknown.
    """
    if obs.A is None or obs.noise_var is None:
        raise ValueError("the support oracle needs the operator A and noise_var; pass both in the Observation.")
    precise = torch.complex128 if x.is_complex() else torch.float64
    A, y = obs.A.matrix().to(precise), obs.y.to(precise)
    support = x != 0
    most = max(1, int(support.sum(-1).max()))
    order = support.to(torch.int8).argsort(dim=-1, descending=True, stable=True)[:, :most]
    inside = support.gather(-1, order).to(precise)
    columns = A.mT[order] * inside[..., None]  # (samples, most, m); rows beyond the support are zero
    gram = columns.conj() @ columns.mT
    loading = torch.eye(most, dtype=precise, device=x.device) * (obs.noise_var.double() / var).reshape(-1, 1, 1)
    values = torch.linalg.solve(gram + loading, (columns.conj() @ y[..., None])).squeeze(-1)
    return torch.zeros_like(x, dtype=precise).scatter(-1, order, values * inside).to(x.dtype)
