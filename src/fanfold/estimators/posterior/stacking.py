"""Weights of several estimators that add to one. Breiman (1996), "Stacked Regressions", section 3."""

import itertools

import torch
from torch import Tensor

LITTLE = 0.01  # of the linear estimator's error, that must be gained to be worth a word


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


def verdict(sources: tuple[str, ...], risks: list[float], together: float, linear: float, count: int) -> str:
    """What the weighing gave, in a sentence."""
    scores = ", ".join(f"{source} {risk:.3g}" for source, risk in zip(sources, risks))
    text = f"Squared errors on draws left out, over the prior's variance: {scores}; weighed together {together:.3g}."
    if together > (1 - LITTLE) * linear:
        return (
            f"The estimate is no better than the best linear one, {linear:.3g}: in {count} draws nothing shows that is "
            f"not linear in y. {text}"
        )
    return text
