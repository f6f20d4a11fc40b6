"""Fisher information, from a Gaussian model's derivatives or from the score. Kay (1993), sections 3.9 and 15.7.

Everything is computed in double precision.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from fanfold.core.abilities import offers
from fanfold.observation import Observation
from fanfold.problems.protocols import CorrelatedModel, WhiteModel

Model = Callable[[Tensor], Tensor]
POINTS_AT_ONCE = 64  # for the memory of a covariance's derivatives


def gaussian_fisher(
    x: Tensor, mean: Model | None = None, covariance: Model | None = None, noise_var: float | Tensor | None = None
) -> Tensor:
    """Information on real x in `y ~ N(mean(x), R(x))`, or circular `CN`: the formula of Slepian and Bangs.

    `J_ij = ∂_i μᵀ R⁻¹ ∂_j μ + ½ tr(R⁻¹ ∂_i R R⁻¹ ∂_j R)` if y is real, and if it is complex
    `2 Re(∂_i μᴴ R⁻¹ ∂_j μ) + tr(R⁻¹ ∂_i R R⁻¹ ∂_j R)`. Kay (1993), eqs. 3.31 and 15.52.

    Args:
        x: Parameters `(..., n)`.
        mean: `(n,)` -> `(m,)`, differentiable; None is a mean that does not depend on x.
        covariance: `(n,)` -> `(m, m)`, `E w wᴴ`; None is white noise.
        noise_var: `E|w|²` of white noise, where there is no covariance.

    Returns:
        `(..., n, n)`, float64.

    Raises:
        ValueError: If neither a mean nor a covariance depends on x, or white noise has no positive variance.
    """
    if mean is None and covariance is None:
        raise ValueError("neither a mean nor a covariance is given; pass one that depends on x.")
    if covariance is None and (noise_var is None or torch.as_tensor(noise_var).numel() != 1 or not noise_var > 0):
        raise ValueError(f"noise_var is {noise_var}; pass one positive variance, or a covariance.")
    point = x.double().reshape(-1, x.shape[-1])[0]
    is_complex = any(model is not None and model(point).is_complex() for model in (mean, covariance))  # y is, then

    def as_kind(value: Tensor) -> Tensor:
        return value.to(torch.complex128) if is_complex else value

    def information(point: Tensor) -> Tensor:
        R = None if covariance is None else as_kind(covariance(point))
        J = point.new_zeros(len(point), len(point))
        if mean is not None:
            D = as_kind(_jacobian(mean, point))
            var = 1.0 if noise_var is None else torch.as_tensor(noise_var, dtype=point.dtype).reshape(())
            seen = D / var if R is None else torch.linalg.solve(R, D)
            J = J + (2 if is_complex else 1) * (D.mH @ seen).real
        if R is not None and covariance is not None:
            dR = as_kind(_jacobian(covariance, point))
            solved = torch.linalg.solve(R, dR.movedim(-1, 0))  # (n, m, m)
            J = J + (1 if is_complex else 0.5) * torch.einsum("iab,jba->ij", solved, solved).real
        return J

    flat = x.double().reshape(-1, x.shape[-1])
    return vmap(information, chunk_size=POINTS_AT_ONCE)(flat).reshape(*x.shape[:-1], x.shape[-1], x.shape[-1])


def model_fisher(problem: object, x: Tensor) -> Tensor | None:
    """Information on all parameters at x, `(..., n)` -> `(..., n, n)`; None where the problem is no Gaussian model.

    Args:
        problem: Any; the information is known of a `WhiteModel` and of a `CorrelatedModel`.
        x: All parameters, real.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.bounds.model_fisher(ff.problems.Tone(), torch.zeros(5, 2)).shape
        torch.Size([5, 2, 2])
    """
    if offers(problem, CorrelatedModel):
        return gaussian_fisher(x, problem.mean, problem.covariance)
    if offers(problem, WhiteModel):
        return gaussian_fisher(x, problem.mean, noise_var=problem.noise_var)
    return None


def score_fisher(x: Tensor, log_likelihood: Callable[[Tensor, Observation], Tensor], obs: Observation) -> Tensor:
    """Information as the mean of `s sᵀ`, the score `s = ∇_x log p(y|x)` by autograd, over draws of `p(y|x)`.

    A Monte Carlo estimate from M draws; of a Gaussian model's mean, an entry `J_ii` errs by `√(2 / M)` of itself.

    Args:
        x: The parameters `(n,)` that the draws were made with.
        log_likelihood: `(M, n)` and M observations -> `(M,)`.
        obs: M draws of `p(y|x)`.

    Returns:
        `(n, n)`, float64.
    """
    scores = score(x.double().expand(len(obs.y), -1), log_likelihood, obs)
    return scores.mT @ scores / len(scores)


def score(x: Tensor, log_density: Callable[..., Tensor], *given: Observation) -> Tensor:
    """The gradient `∇_x` of a log density at each row of x, `(M, n)`, in double precision."""
    points = x.double().detach().clone().requires_grad_()
    total = log_density(points, *given).sum()
    if not total.requires_grad:  # a density that is flat
        return torch.zeros_like(points)
    return torch.autograd.grad(total, points)[0]


def _jacobian(function: Model, point: Tensor) -> Tensor:
    """The derivatives of a function at a point, along a new last axis."""

    def real(p: Tensor) -> Tensor:
        value = function(p)
        return torch.view_as_real(value) if value.is_complex() else value

    is_complex = function(point).is_complex()
    D = jacfwd(real)(point)
    assert isinstance(D, Tensor)
    return torch.complex(D[..., 0, :], D[..., 1, :]) if is_complex else D
