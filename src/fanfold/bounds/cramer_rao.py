"""Cramér–Rao bounds from the Fisher information. Kay (1993), chapter 3."""

from collections.abc import Sequence

import torch
from torch import Tensor


def cramer_rao(
    information: Tensor,
    names: Sequence[str] | None = None,
    wanted: Sequence[int] | None = None,
    constraint: Tensor | None = None,
    jacobian: Tensor | None = None,
) -> Tensor:
    """The least covariance of any unbiased estimator.

    `J⁻¹`; of some parameters, the others being nuisance, `(J_ww - J_wn J_nn⁻¹ J_nw)⁻¹`; on a surface `f(x) = 0`
    `U (Uᵀ J U)⁻¹ Uᵀ`, with U a basis of the null space of `∂f/∂x` (Gorman & Hero, 1990; Stoica & Ng, 1998, eq. 10); of
    parameters `g(x)`, `G J⁻¹ Gᵀ` with `G = ∂g/∂x`.

    Args:
        information: Fisher information `(..., n, n)`.
        names: Names of the n parameters, for errors; numbers if None.
        wanted: Indices of the parameters that are bounded; all if None.
        constraint: `∂f/∂x`, `(k, n)` of k equality constraints.
        jacobian: `∂g/∂x`, `(q, n)`; the bound is then on the q parameters g, in place of `wanted`.

    Returns:
        `(..., w, w)`, float64.

    Raises:
        ValueError: If the information is singular: the error names what cannot be identified.
    """
    J = information.double()
    n = J.shape[-1]
    if J.shape[-2] != n or (names is not None and len(names) != n):
        raise ValueError(f"the information is {tuple(J.shape)} with {names} names; pass (..., n, n) and n names.")
    if wanted is not None and jacobian is not None:
        raise ValueError("pass the wanted parameters or the jacobian of other ones, not both.")
    if not torch.isfinite(J).all():
        raise ValueError("the Fisher information is not finite; look at the model's derivatives at this point.")
    names = [str(name) for name in (names or range(n))]
    if constraint is not None:
        U = _null_space(constraint.double(), n)
        bound = U @ _inverse(U.mT @ J @ U, names, U) @ U.mT
    else:
        bound = _inverse(J, names, None)
    if jacobian is not None:
        G = jacobian.double()
        return G @ bound @ G.mT
    keep = list(range(n) if wanted is None else wanted)
    return bound[..., keep, :][..., keep]


def biased_cramer_rao(information: Tensor, bias: Tensor, bias_slope: Tensor) -> Tensor:
    """The least mean squared error matrix of estimators with this bias: `(I + B) J⁻¹ (I + B)ᵀ + b bᵀ`.

    Kay (1993), problem 3.9 and section 2.4; van Trees (1968), eq. 2.186.

    Args:
        information: `(..., n, n)`.
        bias: `E x_hat - x`, `(..., n)`.
        bias_slope: `B = ∂bias/∂x`, `(..., n, n)`.
    """
    inverse = cramer_rao(information)
    gain = torch.eye(inverse.shape[-1], dtype=inverse.dtype) + bias_slope.double()
    return gain @ inverse @ gain.mT + bias.double().unsqueeze(-1) * bias.double().unsqueeze(-2)


def _null_space(constraint: Tensor, n: int) -> Tensor:
    """An orthonormal basis of what the constraints leave free, `(n, n - rank)`."""
    if constraint.ndim != 2 or constraint.shape[-1] != n:
        raise ValueError(f"the constraint's jacobian is {tuple(constraint.shape)}; pass (constraints, {n}).")
    size = constraint.norm(dim=-1, keepdim=True)  # a constraint says the same in any unit
    _, s, Vh = torch.linalg.svd(constraint / torch.where(size > 0, size, 1.0))
    rank = int((s > n * torch.finfo(s.dtype).eps * s.max()).sum()) if len(s) else 0
    if rank == n:
        raise ValueError("the constraints leave nothing free: the parameters are known.")
    return Vh[rank:].mT


def _inverse(J: Tensor, names: Sequence[str], basis: Tensor | None) -> Tensor:
    """The inverse, where there is one; units do not matter, as every parameter is scaled to unit information.

    A singular value of 1e-13 of scaled information is rounding of products of that many terms.
    """
    scale = J.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    safe = torch.where(scale > 0, scale, 1.0)
    scaled = J / safe.unsqueeze(-1) / safe.unsqueeze(-2)
    values, vectors = torch.linalg.eigh(scaled)
    small = values <= 1e-13 * J.shape[-1]
    if small.any():
        where = tuple(small.any(-1).nonzero()[0].tolist())
        lost = vectors[where][:, small[where]] / safe[where].unsqueeze(-1)
        lost = lost if basis is None else basis @ lost
        # in units of each parameter's own information
        share = (lost * (safe[where].unsqueeze(-1) if basis is None else 1.0)).abs().amax(-1)
        hidden = [name for name, s in zip(names, share) if s > 0.05 * share.max()]
        what = f"{hidden[0]} cannot" if len(hidden) == 1 else f"{', '.join(hidden)} together cannot"
        raise ValueError(
            f"the Fisher information is singular: {what} be identified from these measurements; fix one, add a prior "
            "(Van Trees) or a constraint, or measure more."
        )
    inverse = (vectors / values.unsqueeze(-2)) @ vectors.mT
    return inverse / safe.unsqueeze(-1) / safe.unsqueeze(-2)
