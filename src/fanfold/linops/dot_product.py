"""Whether `A.H` is the adjoint of `A`. Claerbout (2014), the dot-product test."""

import torch

from fanfold.linops.base import LinearOperator


def dot_test(A: LinearOperator, generator: torch.Generator | None = None, tolerance: float | None = None) -> float:
    """Check that `A.H` is the adjoint of `A`: `⟨A x, y⟩ = ⟨x, Aᴴ y⟩` for random x and y.

    Args:
        A: The operator under test.
        generator: The source of the random signals; seed 0 if None.
        tolerance: The relative gap that is allowed; `8 eps sqrt(m + n)`, the rounding of two inner products, if None.

    Returns:
        The relative gap `|⟨Ax, y⟩ - ⟨x, Aᴴy⟩| / (‖Ax‖‖y‖ + ‖x‖‖Aᴴy‖)`.

    Raises:
        ValueError: If the gap exceeds the tolerance.
    """
    gap = dot_gap(A, generator)
    allowed = allowed_gap(A) if tolerance is None else tolerance
    if not gap <= allowed:
        raise ValueError(
            f"A.H is not the adjoint of {A}: the relative gap between <Ax, y> and <x, A.H y> is {gap:.2e}, "
            f"allowed {allowed:.2e}; check conjugation and scaling in _adjoint."
        )
    return gap


def dot_gap(A: LinearOperator, generator: torch.Generator | None = None) -> float:
    """The relative gap `|⟨Ax, y⟩ - ⟨x, Aᴴy⟩| / (‖Ax‖‖y‖ + ‖x‖‖Aᴴy‖)` for random x and y."""
    generator = generator or torch.Generator().manual_seed(0)
    x = torch.randn(A.n, generator=generator, dtype=A.dtype).to(A.device)
    y = torch.randn(A.m, generator=generator, dtype=A.dtype).to(A.device)
    Ax, Aty = A @ x, A.H @ y
    scale = Ax.norm() * y.norm() + x.norm() * Aty.norm()
    return ((torch.vdot(y, Ax) - torch.vdot(Aty, x)).abs() / scale.clamp_min(torch.finfo(A.dtype).tiny)).item()


def allowed_gap(A: LinearOperator) -> float:
    """The rounding of two inner products, `8 eps sqrt(m + n)`."""
    return 8 * torch.finfo(A.dtype).eps * (A.m + A.n) ** 0.5
