"""A problem whose draws are changed after they are made, as the world changes and not the receiver's beliefs."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.abilities import offers, require
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems.base import Nested, Problem
from fanfold.problems.kinds import Kind
from fanfold.problems.protocols import DrawsAt, ErringModel, kind_of, likelihood_of


@dataclass(frozen=True)
class Altered(Nested, ABC):
    """Draws of a problem, changed; observations keep the A, and unless it says so the noise variance, of before.

    Nothing is known of the changed law, so that there are no limits. Where the change is nil, draws are those of the
    problem bit for bit.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> louder = ff.guard.Amplified(problem, factor=3.0).shifted(snr_db=20.0)
        >>> louder.problem.snr_db, louder.A is problem.A
        (20.0, True)
    """

    @property
    def A(self) -> LinearOperator | None:  # noqa: N802
        """The operator that estimators are given."""
        return self.nominal.A

    @property
    def nominal(self) -> Problem:
        """The problem as it was."""
        return require(self.problem, Problem, type(self).__name__)

    @property
    def kind(self) -> Kind:
        """What one observation is."""
        return kind_of(self.problem)

    @property
    @abstractmethod
    def nil(self) -> bool:
        """Whether nothing is changed."""

    @abstractmethod
    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The changed draws; `nil` is false."""

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` signals and their observation, changed."""
        x, obs = self.nominal.sample(n, generator)
        return (x, obs) if self.nil else self.altered(x, obs, generator)


@dataclass(frozen=True)
class OtherSignals(Altered, ABC):
    """Draws with other signals, measured as before: `y + B (x' - x)`, with the noise of the nominal draw.

    B is the operator that measures. Where measurements come through a likelihood they are drawn afresh.

    Raises:
        ValueError: If the problem has no operator, and does not draw at given signals.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=float("inf"))
        >>> x, obs = ff.guard.HeavyTailed(problem, degrees=2).sample(3, torch.Generator().manual_seed(0))
        >>> torch.allclose(obs.y, problem.A @ x, atol=1e-4)
        True
    """

    @abstractmethod
    def signals(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """The other signals, of the shape of x."""

    def altered(self, x: Tensor, obs: Observation, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The other signals and what is measured of them."""
        other = self.signals(x, generator)
        likelihood, B = likelihood_of(self.problem), measuring(self.nominal)
        if B is not None and (likelihood is None or likelihood.linear):
            return other, Observation(obs.y + B @ (other - x), obs.A, obs.noise_var)
        at = require(
            self.nominal, DrawsAt, type(self).__name__, "Pass a problem with an operator A, or one that has it."
        )
        return at.sample_at(other, generator)


def measuring(problem: Problem) -> LinearOperator | None:
    """The operator that measures: the true one, where the one that estimators are given is not; None if unknown."""
    return problem.true_A if offers(problem, ErringModel) else problem.A
