"""Problems whose model is known: what the bounds, the likelihood's estimators and the exact posteriors build on."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from fanfold.observation import Estimate, Observation


@runtime_checkable
class KnownModel(Protocol):
    """A problem that knows `p(x)` and `p(y|x)`, each up to nothing: densities, not merely shapes of them.

    `x` holds all parameters, real, `(..., n)`; `wanted` says which of them are to be estimated, and the others are
    nuisance: `sample` gives the wanted ones, `sample_all` all of them.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """What each entry of all the parameters is called."""
        ...

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of all parameters, `(..., n)` -> `(...)`; -inf outside the support."""
        ...

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)` of all parameters, `(..., n)` with `(..., m)` -> `(...)`; differentiable in x."""
        ...


@runtime_checkable
class KnownPosterior(Protocol):
    """A problem whose posterior mean and variance are known, in closed form or by quadrature."""

    def posterior(self, obs: Observation) -> Estimate:
        """`E[x|y]` and `Var[x|y]` of the wanted parameters, exact to rounding or to the quadrature's tolerance."""
        ...
