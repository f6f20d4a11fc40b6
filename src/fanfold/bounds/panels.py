"""Gauss-Legendre quadrature on cells. Golub & Welsch (1969)."""

import torch
from torch import Tensor

NODES = 8  # of each cell


def panels(edges: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on the cells between rising edges: `(..., cells + 1)` -> `(..., 8 cells)` each, float64."""
    k = torch.arange(1, NODES, dtype=torch.float64)
    beta = k / (4 * k.square() - 1).sqrt()
    at, V = torch.linalg.eigh(torch.diag(beta, 1) + torch.diag(beta, -1))
    edges = edges.double()
    width = edges.diff(dim=-1).unsqueeze(-1)
    nodes = edges[..., :-1, None] + width * (at + 1) / 2
    return nodes.flatten(-2), (width * V[0].square()).flatten(-2)
