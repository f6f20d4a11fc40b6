"""What every likelihood says of z = A x given a measurement y of it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float, Inexact
from torch import Tensor

from fanfold.core.settings import Checked

Signal = Inexact[Tensor, "*batch"]
Variance = float | Float[Tensor, "..."]


class Likelihood(Checked, ABC):
    """A law `y ~ p(y | z)`, entry by entry, with noise of variance `noise_var` somewhere inside.

    All that message passing asks is the score `(E[z | y] - p) / tau` of `z ~ N(p, tau)` and its negative slope in p,
    the curvature `(1 - Var[z | y] / tau) / tau`: derivatives of the log evidence, the `g_out` of Rangan (2011). In
    this form they keep their digits when y says little (Var near tau) and when tau is small.

    A subclass gives `_sample`, `_score` and `_log_evidence`, and `alphabet` and `_possible` where measurements are not
    any numbers.

    Attributes:
        uses_noise_var: Whether `noise_var` plays a part.
        linear: Whether a measurement is z and Gaussian noise.
        scalar: Whether the axes of a complex signal go through one by one; else `_score` sees complex numbers.

    Example:
        >>> import fanfold as ff, torch
        >>> likelihood = ff.likelihoods.OneBit()
        >>> mean, var = likelihood.posterior(y=torch.tensor([1.0]), p=torch.zeros(1), tau=1.0)
        >>> round(mean.item(), 3), round(var.item(), 3)  # of a Gaussian that is known to be positive
        (0.798, 0.363)
    """

    uses_noise_var: ClassVar[bool] = True
    scalar: ClassVar[bool] = True
    linear: ClassVar[bool] = False

    @property
    def outcomes(self) -> Sequence[float] | None:
        """Every value that a measurement (of each axis) can take; None where they are too many to list."""
        return None

    @property
    def alphabet(self) -> str:
        """The values that a measurement (of each axis) can take, in words."""
        return "any number"

    def _possible(self, y: Tensor) -> Tensor:
        """Whether each real measurement is one of the alphabet."""
        return torch.ones_like(y, dtype=torch.bool)

    @abstractmethod
    def _sample(self, z: Tensor, generator: torch.Generator, noise_var: float) -> Tensor: ...

    @abstractmethod
    def _score(self, y: Tensor, p: Tensor, tau: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor]: ...

    @abstractmethod
    def _log_evidence(self, y: Tensor, p: Tensor, tau: Tensor, noise_var: Tensor) -> Tensor: ...

    def sample(self, z: Signal, generator: torch.Generator, noise_var: float = 0.0) -> Signal:
        """Random measurements of z, of its shape and dtype."""
        if z.is_complex() and self.scalar:
            return torch.view_as_complex(self._sample(torch.view_as_real(z), generator, noise_var / 2))
        return self._sample(z, generator, noise_var)

    def check(self, y: Signal) -> None:
        """Refuse measurements that cannot be; estimators call it once, and not in each step.

        Raises:
            ValueError: If a measurement is none of the alphabet.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():  # values are not there yet
            return
        axes = torch.view_as_real(y.resolve_conj()) if y.is_complex() else y
        impossible = ~(self._possible(axes).all(-1) if y.is_complex() else self._possible(axes))
        if impossible.any():
            first = tuple(impossible.nonzero()[0].tolist())
            raise ValueError(
                f"y is {y[first].item():g} at index {first}, one of {int(impossible.sum())} values that cannot be: "
                f"{type(self).__name__} gives {self.alphabet}."
            )

    def score(
        self, y: Signal, p: Signal, tau: Variance, noise_var: Variance = 0.0
    ) -> tuple[Signal, Float[Tensor, "*batch"]]:
        """The score and the curvature of each entry.

        Args:
            y: The measurements.
            p: The mean of z before they are seen.
            tau: The variance of z before they are seen, positive, broadcasting against `p`.
            noise_var: The noise variance of the likelihood, likewise.
        """
        tau, noise_var = self._tensors(p, tau, noise_var)
        if not (p.is_complex() and self.scalar):
            return self._score(y, p, tau, noise_var)
        score, curvature = self._score(*_axes(y, p, tau, noise_var))
        return torch.view_as_complex(score / 2), curvature.sum(-1) / 4  # each axis has half of tau

    def posterior(
        self, y: Signal, p: Signal, tau: Variance, noise_var: Variance = 0.0
    ) -> tuple[Signal, Float[Tensor, "*batch"]]:
        """The mean and the variance of `z ~ N(p, tau)` given y."""
        score, curvature = self.score(y, p, tau, noise_var)
        return p + tau * score, tau * (1 - tau * curvature)

    def log_evidence(self, y: Signal, p: Signal, tau: Variance, noise_var: Variance = 0.0) -> Float[Tensor, "*batch"]:
        """The log probability (or density) of each measurement where `z ~ N(p, tau)`."""
        tau, noise_var = self._tensors(p, tau, noise_var)
        if not (p.is_complex() and self.scalar):
            return self._log_evidence(y, p, tau, noise_var)
        return self._log_evidence(*_axes(y, p, tau, noise_var)).sum(-1)

    def log_likelihood(self, y: Signal, z: Signal, noise_var: Variance = 0.0) -> Float[Tensor, "*batch"]:
        """The log likelihood `log p(y | z)` of each measurement."""
        return self.log_evidence(y, z, 0.0, noise_var)

    @staticmethod
    def _tensors(p: Tensor, *variances: Variance) -> list[Tensor]:
        return [torch.as_tensor(v, dtype=p.real.dtype, device=p.device) for v in variances]


def _axes(y: Tensor, p: Tensor, tau: Tensor, noise_var: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The real and imaginary parts, with half of each variance."""
    return torch.view_as_real(y), torch.view_as_real(p), tau[..., None] / 2, noise_var[..., None] / 2
