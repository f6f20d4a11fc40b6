"""Calibration of a Kronecker operator from pairs of scenes and what the true array measured of them.

Least squares, one axis at a time while the others stay: Kolda & Bader (2009), section 3.4.
"""

import math

import torch
from torch import Tensor

from fanfold.linops import Kronecker

SWEEPS = 20


def fit_responses(A: Kronecker, x: Tensor, y: Tensor) -> Kronecker:
    """The operator whose elements have the complex responses that fit the pairs best: `diag(g_k) A_k` on every axis.

    Only the product of the axes' responses shows in data; all but the last axis get unit mean power and a first
    element of phase zero, which changes nothing else.

    Args:
        A: The nominal operator.
        x: Scenes, `(pairs, n)`.
        y: What was measured of them, `(pairs, m)`.

    Raises:
        ValueError: If there are no pairs, their shapes do not fit, an entry is not finite, or an element measured
            nothing of any scene.
    """
    _check(A, x, y)
    rows = [f.shape[0] for f in A.factors]
    nominal, measured = ((A @ x).reshape(-1, *rows), y.reshape(-1, *rows))
    responses = [torch.ones(m, dtype=y.dtype, device=y.device) for m in rows]
    for _ in range(SWEEPS):
        for k in range(len(rows)):
            others = nominal
            for j, response in enumerate(responses):
                if j != k:
                    others = others * response.reshape([-1 if axis == j + 1 else 1 for axis in range(nominal.ndim)])
            axes = [axis for axis in range(nominal.ndim) if axis != k + 1]
            seen = others.abs().square().sum(axes)
            if (seen == 0).any():
                raise ValueError(
                    f"element {int((seen == 0).nonzero()[0])} of axis {k + 1} sees none of the {len(x)} scenes; "
                    "calibrate with scenes that reach every element."
                )
            responses[k] = (others.conj() * measured).sum(axes) / seen
        for k in range(len(rows) - 1):
            scale = responses[k].abs().square().mean().sqrt() * torch.exp(1j * responses[k][0].angle())
            scale = scale if y.is_complex() else scale.real
            responses[k], responses[-1] = responses[k] / scale, responses[-1] * scale
    return Kronecker(*(g[:, None] * f for g, f in zip(responses, A.factors, strict=True)))


def fit_factors(A: Kronecker, x: Tensor, y: Tensor, ridge: float = 1e-3) -> Kronecker:
    """The operator whose factors fit the pairs best, whatever is wrong with them: coupling, places, responses.

    Args:
        A: The nominal operator, where the fit starts and what the ridge pulls to.
        x: Scenes, `(pairs, n)`.
        y: What was measured of them, `(pairs, m)`.
        ridge: Weight of the distance to the nominal factors, against the mean energy of what a factor sees.

    Raises:
        ValueError: If there are no pairs, their shapes do not fit, an entry is not finite, the ridge is negative, or
            the scenes are too few or too alike to tell a factor without one.
    """
    _check(A, x, y)
    if not 0 <= ridge < math.inf:
        raise ValueError(f"ridge is {ridge}; pass zero or a positive number.")
    factors = list(A.factors)
    rows, columns = [f.shape[0] for f in factors], [f.shape[1] for f in factors]
    for _ in range(SWEEPS):
        for k, nominal in enumerate(A.factors):
            seen = x.reshape(-1, *columns)
            for j, factor in enumerate(factors):
                if j != k:
                    seen = torch.tensordot(seen, factor, ([j + 1], [1])).movedim(-1, j + 1)
            Z = seen.movedim(k + 1, 0).flatten(1)  # (n_k, pairs and all other rows)
            Y = y.reshape(-1, *rows).movedim(k + 1, 0).flatten(1)
            gram = Z @ Z.mH
            energy = gram.diagonal().real.mean()
            if ridge == 0 and torch.linalg.matrix_rank(gram, hermitian=True) < columns[k]:
                raise ValueError(
                    f"{len(x)} pairs show factor {k + 1} in fewer than its {columns[k]} directions; measure more "
                    "scenes or pass a ridge."
                )
            loaded = gram + ridge * energy * torch.eye(columns[k], dtype=gram.dtype, device=gram.device)
            factors[k] = torch.linalg.solve(loaded, (Y @ Z.mH + ridge * energy * nominal).mH).mH.resolve_conj()
    return Kronecker(*(f.contiguous() for f in factors))


def _check(A: Kronecker, x: Tensor, y: Tensor) -> None:
    if len(x) == 0 or len(y) == 0:
        raise ValueError("there are no calibration pairs; pass at least one scene and what was measured of it.")
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != A.n or y.shape[1] != A.m or len(x) != len(y):
        raise ValueError(
            f"x is {tuple(x.shape)} and y is {tuple(y.shape)}; pairs for {A} are (pairs, {A.n}) and (pairs, {A.m})."
        )
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        raise ValueError("a calibration pair holds NaN or Inf; leave it out.")
