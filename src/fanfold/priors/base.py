"""What every prior says of x: draws, densities, and the posterior after Gaussian noise of variance v."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.core.domain import Domain
from fanfold.core.precision import at_least_single
from fanfold.core.settings import Checked
from fanfold.core.units import power

Signal = Inexact[Tensor, "*batch"]
Variance = float | Float[Tensor, "..."]
Method = TypeVar("Method", bound=Callable[..., Any])

SATURATED = 1e4  # of an exponent: it decides between two components for good, in every precision


def raised(v: Tensor) -> Tensor:
    """The variance, nowhere so small that its reciprocal, or a gradient through that, overflows."""
    return v.clamp_min(torch.finfo(v.dtype).tiny * 1e5)


def capped_power(r: Tensor, var: Tensor, v: Tensor) -> Tensor:
    """The power `|r|²`, cut where it decides for a signal of variance `var` against noise of variance v alone."""
    v = raised(v)
    most = SATURATED * v * ((var + v) / var)
    return torch.minimum(power(r), most.clamp_max(torch.finfo(v.dtype).max / SATURATED**2))


def log_odds(r: Tensor, var: Tensor, v: Tensor) -> Tensor:
    """The log ratio of `N(r; 0, var + v)` and `N(r; 0, v)`: what r says for a non-zero against a zero."""
    degrees, energy, v = 1 if r.is_complex() else 2, capped_power(r, var, v), raised(v)
    share = (v / (var + v)).clamp_min(torch.finfo(v.dtype).tiny)
    return (energy * (var / (var + v)) / v + torch.log(share)) / degrees


def gaussian_log_prob(x: Tensor, var: Variance) -> Tensor:
    """The log density of a zero-mean Gaussian: real `N(0, var)`, or circular complex `CN(0, var)`."""
    var = torch.as_tensor(var, dtype=x.real.dtype, device=x.device)
    if x.is_complex():
        return -power(x) / var - torch.log(math.pi * var)
    return -0.5 * power(x) / var - 0.5 * torch.log(2 * math.pi * var)


def over_entries(values: Tensor) -> Tensor:
    """The mean over all entries, `(..., 1)`."""
    return values.mean(-1, keepdim=True)


def in_single(method: Method) -> Method:
    """A method of r and v that computes half precision in single, and returns what came."""

    @wraps(method)
    def wide(self: "Prior", r: Tensor, v: Variance, *given: Any, **more: Any) -> Any:
        single = at_least_single(r.dtype)
        if r.dtype == single:
            return method(self, r, v, *given, **more)
        answer = method(self, r.to(single), v.float() if isinstance(v, Tensor) else v, *given, **more)
        parts = answer if isinstance(answer, tuple) else (answer,)
        parts = tuple(a.to(r.dtype if a.is_complex() else r.real.dtype) for a in parts)
        return parts if isinstance(answer, tuple) else parts[0]

    return cast(Method, wide)


class Prior(Checked, ABC):
    """A distribution of independent entries, and its posterior after Gaussian noise.

    A subclass gives the abstract methods, `log_evidence` and `posterior` with `in_single`, and `learnable`,
    `landmarks`, `circular`, `symmetric`, `independent` and `heavy_tailed` where they differ, as plain class attributes
    if no setting changes them.

    Example:
        >>> import fanfold as ff, torch
        >>> prior = ff.priors.BernoulliGaussian(p=0.1)
        >>> x_hat, var = prior.posterior(torch.tensor([3.0, 0.01]), 0.01)
        >>> x_hat.round(decimals=1).tolist()
        [3.0, 0.0]
    """

    @property
    def learnable(self) -> Mapping[str, Domain]:
        """The settings that an algorithm may learn, and where each lives."""
        return {}

    @property
    def circular(self) -> bool:
        """Whether a complex entry is as likely after any turn."""
        return True

    @property
    def symmetric(self) -> bool:
        """Whether a real entry is as likely with the other sign."""
        return True

    @property
    def heavy_tailed(self) -> bool:
        """Whether large entries are far more likely than those of a Gaussian of the same power."""
        return False

    @property
    def independent(self) -> bool:
        """Whether entries are independent and alike."""
        return True

    @property
    @abstractmethod
    def power(self) -> float:
        """The power `E|x|²` of an entry."""

    @property
    def landmarks(self) -> Sequence[tuple[float, float]]:
        """Where the density of an entry lies: centre and spread of each part; an atom, an edge, a kink has none.

        Quadratures begin from these. A part that is rare, and far wider or narrower than the rest, must be among them.
        """
        return (0.0, 0.0), (0.0, self.power**0.5)

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw independent entries on the generator's device."""

    @abstractmethod
    def log_prob(self, x: Signal) -> Float[Tensor, "*batch"]:
        """The log density of each entry (for an atom, the log of its probability)."""

    @abstractmethod
    def log_evidence(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """The log density of `r = x + w` with `E|w|² = v`, for each entry; `log_prob(r)` where v is zero."""

    @abstractmethod
    def posterior(self, r: Signal, v: Variance, given: Any = None) -> tuple[Signal, Float[Tensor, "*batch"]]:
        """The mean and the variance of x given `r = x + w` with `E|w|² = v`, for each entry.

        Both are finite, with finite gradients, for every finite r and every `v >= 0`; without noise x is r, or what
        the prior allows next to it.

        Args:
            r: The noisy signal.
            v: The variance of the noise, broadcasting against `r`.
            given: Whatever has the `learnable` settings as attributes, numbers or tensors that learn; this prior
                itself if None.
        """

    def refit(
        self,
        r: Signal,
        v: Variance,
        given: Any,
        nominal: Any,
        trust: Variance,
        mean: Callable[[Tensor], Tensor] = over_entries,
    ) -> dict[str, Tensor]:
        """The learnable settings that each sample makes likely: a step of expectation maximisation.

        Args:
            r: The noisy signals `(..., n)`.
            v: The variance of their noise, `(..., 1)`.
            given: The settings so far, as for `posterior`.
            nominal: The settings that are expected, likewise.
            trust: The weight of `nominal` against the sample's own entries: 1 counts as much as all of them.
            mean: The mean over the entries that tell something, `(..., n)` -> `(..., 1)`; over all if not given.

        Returns:
            The settings by name, `(..., 1)` each.

        Raises:
            ValueError: If settings of this prior cannot be estimated.
        """
        raise ValueError(f"settings of {type(self).__name__} cannot be estimated from a sample; give them.")

    def posterior_mean(self, r: Signal, v: Variance) -> Signal:
        """The posterior mean `E[x | r]` of each entry."""
        return self.posterior(r, v)[0]

    def posterior_var(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """The posterior variance `E[|x - E[x|r]|² | r]`; divided by `v` it is the derivative of `posterior_mean`."""
        return self.posterior(r, v)[1]
