"""Weights of several estimators that add to one. Breiman (1996), "Stacked Regressions", section 3."""

import itertools
from collections.abc import Mapping

import torch
from torch import Tensor, nn

GROUPS = (0.5, 0.8, 0.95)  # shares of the draws between groups
LEAST_TO_GROUP = 800  # draws
LITTLE = 0.01  # of the linear estimator's error, that must be gained to be worth a word


class Weighing(nn.Module):
    """Several estimates as one, with shares that minimise the error; before it is fitted the first one alone.

    Where a parameter spans decades there are groups of draws by the variance that is claimed, with shares of their own:
    of all together the largest draws would decide alone which estimate is the best.

    Args:
        count: The number of estimates.
        d: The number of parameters.

    Example:
        >>> import torch
        >>> from fanfold.estimators.posterior.stacking import Weighing
        >>> Weighing(count=3, d=2)(torch.ones(3, 5, 2), var=torch.ones(5, 2)).shape
        torch.Size([5, 2])
    """

    shares: Tensor  # (groups, estimates, d)
    edges: Tensor  # (groups - 1, d) of variances, between groups

    def __init__(self, count: int, d: int):
        super().__init__()
        shares = torch.zeros(len(GROUPS) + 1, count, d)
        shares[:, 0] = 1.0
        self.register_buffer("shares", shares)
        self.register_buffer("edges", torch.full((len(GROUPS), d), torch.inf))

    def fit(self, each: Tensor, x: Tensor, var: Tensor, unit: Tensor, decades: Tensor, among: list[int]) -> None:
        """Take shares and edges from draws.

        Args:
            each: What each estimator says of draws that it has not seen, `(estimates, samples, d)`.
            x: The truth, `(samples, d)`.
            var: The variance that is claimed, `(samples, d)`.
            unit: The largest variance that anybody claims, `(samples, d)`: errors of parameters that span decades count
                in this unit, but for the samples of the largest variance.
            decades: Which parameters span decades, `(d,)`.
            among: Which estimators may have a share.
        """
        places = (torch.tensor(GROUPS, device=var.device) * (len(var) - 1)).long()
        grouped = decades if len(var) >= LEAST_TO_GROUP else torch.zeros_like(decades)
        self.edges.copy_(torch.where(grouped, var.sort(0).values[places], torch.inf))
        precision = self._groups(var)
        # of one group too the few largest would decide alone, and below the last they decide little of all
        precision[:-1] = torch.where(grouped, precision[:-1] / unit, precision[:-1])
        for weights, share in zip(precision, self.shares):
            share.zero_()
            share[among] = partition(each[among], x, weights).to(share)

    def forward(self, each: Tensor, var: Tensor) -> Tensor:
        """`(estimates, batch, d)` and the variance `(batch, d)` -> `(batch, d)`."""
        shares = (self.shares.unsqueeze(2) * self._groups(var).unsqueeze(1)).sum(0)
        return (shares * each).sum(0)

    def _groups(self, var: Tensor) -> Tensor:
        """Which group each variance `(batch, d)` belongs to, as ones and zeros, `(groups, batch, d)`."""
        beyond = (var > self.edges.unsqueeze(1)).to(var.dtype)
        return torch.cat([torch.ones_like(beyond[:1]), beyond]) - torch.cat([beyond, torch.zeros_like(beyond[:1])])


def partition(estimates: Tensor, x: Tensor, precision: Tensor) -> Tensor:
    """The weights, none negative, of sum one, that minimise `Σ p |x - Σ_c w_c x_c|²` for each parameter.

    With so few estimators the minimum is looked for on every face of the simplex: exact, and the same on every machine.

    Args:
        estimates: What each estimator says of draws that it has not seen, `(estimators, samples, d)`.
        x: The truth, `(samples, d)`.
        precision: What each error counts, `(samples, d)`.

    Returns:
        `(estimators, d)`.
    """
    errors = (estimates - x).double()
    count, _, d = errors.shape
    gram = torch.einsum("cnd,end,nd->dce", errors, errors, precision.double()) / errors.shape[1]
    best = torch.full((d,), torch.inf, dtype=torch.float64, device=x.device)
    weights = torch.zeros(d, count, dtype=torch.float64, device=x.device)
    for size in range(1, count + 1):
        for face in itertools.combinations(range(count), size):
            rows = list(face)
            part = gram[:, rows][:, :, rows]
            load = 1e-9 * part.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None] + torch.finfo(torch.float64).tiny
            solved = torch.linalg.solve(
                part + load * torch.eye(size, dtype=part.dtype, device=x.device),
                torch.ones(d, size, 1, dtype=part.dtype, device=x.device),
            )
            w = (solved / solved.sum(-2, keepdim=True)).squeeze(-1)
            risk = torch.einsum("dc,dce,de->d", w, part, w)
            better = (w >= 0).all(-1) & (risk < best * (1 - 1e-4))  # one estimator more has to earn its place
            full = torch.zeros(d, count, dtype=torch.float64, device=x.device)
            full[:, rows] = w
            weights, best = torch.where(better[:, None], full, weights), torch.where(better, risk, best)
    return weights.mT.contiguous()


def verdict(risks: Mapping[str, float], together: float, linear: float, count: int) -> str:
    """What the weighing gave, in a sentence."""
    scores = ", ".join(f"{source} {risk:.3g}" for source, risk in risks.items())
    text = f"Squared errors on draws left out, over the prior's variance: {scores}; weighed together {together:.3g}."
    if together > (1 - LITTLE) * linear:
        return (
            f"The estimate is no better than the best linear one, {linear:.3g}: in {count} draws nothing shows that is "
            f"not linear in y. {text}"
        )
    return text
