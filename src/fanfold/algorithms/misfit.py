"""The proximal map of the misfit `½‖y - A x‖²`, exact for every weight from one decomposition of A."""

from torch import Tensor

from fanfold.observation import Observation


def prox_misfit(q: Tensor, obs: Observation, rho: Tensor) -> Tensor:
    """The x that minimises `½‖y - A x‖² + rho/2 ‖x - q‖²`: `(AᴴA + rho I)⁻¹ (Aᴴy + rho q)`.

    With `A = U diag(d) Vᴴ` this is `q + V d / (d² + rho) (Uᴴy - d Vᴴq)`: the factors are computed once and kept with A,
    and rho may move from step to step, or learn, at no cost.

    Args:
        q: The signal to stay near, `(..., n)`.
        obs: The measurements and the operator.
        rho: The weight of the distance to q, positive, a scalar or `(..., 1)`.
    """
    assert obs.A is not None
    U, d, V = obs.A.svd()
    return q + V @ (d / (d * d + rho) * (U.H @ obs.y - d * (V.H @ q)))
