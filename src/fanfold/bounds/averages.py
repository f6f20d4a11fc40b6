"""Averages over r = x + noise of one unknown, by Gauss-Legendre quadrature on cells that halve until nothing changes.

Cells begin at the scale of each part of the prior's density, seen through the noise, and not at that of the whole
prior: spikes that are rare lie many of its standard deviations out.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from fanfold.bounds.panels import panels
from fanfold.priors import Prior

EDGES = (0.0, 1.0, 2.0, 3.0, 4.5, 6.0, 8.0, 11.0, 15.0, 20.0, 28.0, 40.0)  # of first cells, in standard deviations
HEAVY = (100.0, 1e3, 1e4)  # further ones, where a guest's tails fall slowly
TOLERANCE = 1e-8  # of the result: what halving a cell changes, whose error is then 1e-4 of that or less
HALVINGS = 60  # at most; where a step is left, cells are then below rounding
MASS_TOLERANCE = 1e-6


def average(
    prior: Prior,
    v: float,
    function: Callable[[Tensor], Tensor],
    *,
    is_complex: bool = False,
    kinks: tuple[float, ...] = (),
) -> float:
    """The mean of `function(r)` for `r = x + w`, `E|w|² = v`.

    Args:
        prior: Prior of x, with independent entries; a circular one if x is complex.
        v: Variance of the noise, positive.
        function: Real values of r, `(...)` -> `(...)`; they depend on its magnitude alone if x is complex, and are
            even if the prior is.
        is_complex: Whether x is circular complex.
        kinks: Magnitudes of r where the function bends.

    Raises:
        ValueError: If the density does not integrate to one.
    """
    halved = is_complex or prior.symmetric
    low, high = _first_cells(prior, v, kinks, halved=halved)

    def integrals(low: Tensor, high: Tensor) -> Tensor:
        """The integrals of the density and of the function over each cell, `(2, cells)`."""
        r, weights = panels(torch.stack([low, high], -1))
        seen = r.to(torch.complex128) if is_complex else r
        density = torch.exp(prior.log_evidence(seen, v)) * weights
        density = density * (2 * math.pi * r if is_complex else 2.0 if halved else 1.0)
        return torch.stack([density.sum(-1), (density * function(seen)).sum(-1)])

    coarse, settled = integrals(low, high), torch.zeros(2, 1, dtype=torch.float64)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = torch.cat([low, middle]), torch.cat([middle, high])
        fine = integrals(low, high)
        pairs = fine.unflatten(-1, (2, -1)).sum(-2)
        total = settled + pairs.sum(-1, keepdim=True)
        moves = ((pairs - coarse).abs() > TOLERANCE * total.abs()).any(0)
        settled = settled + pairs[:, ~moves].sum(-1, keepdim=True)
        again = moves.repeat(2)
        low, high, coarse = low[again], high[again], fine[:, again]
        if not moves.any():
            break
    mass, value = (settled + coarse.sum(-1, keepdim=True)).flatten().tolist()
    if not abs(mass - 1) <= MASS_TOLERANCE:
        raise ValueError(
            f"the density of {prior} seen through noise of variance {v:g} integrates to {mass:.6g} and not to 1: "
            "its `landmarks` miss a part of it, or its `log_evidence` is no density; mend these."
        )
    return value


def _first_cells(prior: Prior, v: float, kinks: tuple[float, ...], *, halved: bool) -> tuple[Tensor, Tensor]:
    """The lower and upper ends of cells about each landmark; over positive r alone if `halved`."""
    multiples = torch.tensor((*EDGES, *(HEAVY if prior.heavy_tailed else ())), dtype=torch.float64)
    multiples = torch.cat([-multiples, multiples])
    edges = torch.cat([centre + math.hypot(spread, math.sqrt(v)) * multiples for centre, spread in prior.landmarks])
    edges = torch.cat([edges, edges.new_tensor([0.0, *kinks, *(-k for k in kinks)])])
    edges = edges[edges >= 0] if halved else edges
    edges = edges.sort().values
    # several edges within a fraction of the noise's deviation say nothing more, but for kinks, which halving meets
    apart = torch.cat([edges.new_ones(1, dtype=torch.bool), edges.diff() > math.sqrt(v) / 4])
    edges = edges[apart]
    return edges[:-1], edges[1:]
