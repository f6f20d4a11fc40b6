"""What every prior says of x: draws, densities, and the posterior after Gaussian noise of variance v."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.core.domain import Domain
from fanfold.core.units import power

Signal = Inexact[Tensor, "*batch"]
Variance = float | Float[Tensor, "..."]


def gaussian_log_prob(x: Tensor, var: Variance) -> Tensor:
    """Log density of a zero-mean Gaussian: real `N(0, var)`, or circular complex `CN(0, var)`."""
    var = torch.as_tensor(var, dtype=x.real.dtype, device=x.device)
    if x.is_complex():
        return -power(x) / var - torch.log(math.pi * var)
    return -0.5 * power(x) / var - 0.5 * torch.log(2 * math.pi * var)


class Prior(ABC):
    """A distribution of independent entries, and its posterior after Gaussian noise.

    Attributes:
        learnable: The settings that an algorithm may learn, and where each lives.
        circular: Whether a complex entry is as likely after any turn.
        symmetric: Whether a real entry is as likely with the other sign.
        heavy_tailed: Whether large entries are far more likely than those of a Gaussian of the same power.
    """

    learnable: ClassVar[Mapping[str, Domain]] = {}
    circular: ClassVar[bool] = True
    symmetric: ClassVar[bool] = True
    heavy_tailed: ClassVar[bool] = False

    @property
    @abstractmethod
    def power(self) -> float:
        """`E|x|²`."""

    @abstractmethod
    def sample(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32) -> Tensor:
        """Draw independent entries on the generator's device."""

    @abstractmethod
    def log_prob(self, x: Signal) -> Float[Tensor, "*batch"]:
        """Log density of each entry (for an atom, the log of its probability)."""

    @abstractmethod
    def log_evidence(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """Log density of `r = x + w` with `E|w|² = v`, for each entry."""

    @abstractmethod
    def posterior(self, r: Signal, v: Variance, given: Any = None) -> tuple[Signal, Float[Tensor, "*batch"]]:
        """Mean and variance of x given `r = x + w` with `E|w|² = v`, for each entry.

        Args:
            r: Noisy signal.
            v: Variance of the noise, broadcasting against `r`.
            given: Whatever has the `learnable` settings as attributes, numbers or tensors that learn; this prior
                itself if None.
        """

    def refit(self, r: Signal, v: Variance, given: Any, nominal: Any, trust: Variance) -> dict[str, Tensor]:
        """The learnable settings that each sample makes likely: a step of expectation maximisation.

        Args:
            r: Noisy signals `(..., n)`.
            v: Variance of their noise, `(..., 1)`.
            given: The settings so far, as for `posterior`.
            nominal: The settings that are expected, likewise.
            trust: Weight of `nominal` against the sample's own entries: 1 counts as much as all of them.

        Returns:
            Each setting by name, `(..., 1)`.

        Raises:
            ValueError: If settings of this prior cannot be estimated.
        """
        raise ValueError(f"settings of {type(self).__name__} cannot be estimated from a sample; give them.")

    def posterior_mean(self, r: Signal, v: Variance) -> Signal:
        """`E[x | r]`, for each entry."""
        return self.posterior(r, v)[0]

    def posterior_var(self, r: Signal, v: Variance) -> Float[Tensor, "*batch"]:
        """`E[|x - E[x|r]|² | r]`; divided by `v` it is the derivative of `posterior_mean`."""
        return self.posterior(r, v)[1]
