"""Scores of one observation, larger where it is stranger: what each reads, and what it learns of usual observations.

Energy and residual are those of a goodness-of-fit test, made two-sided; the variance that the estimator carries and its
course over the layers is state evolution seen in one sample (Rangan, Schniter & Fletcher, 2019); the loss on
measurements that the estimator was not given is that of the coupled bootstrap (Oliveira, Lei & Tibshirani, 2021); the
distance of early features is that of Lee, Lee, Lee & Shin (2018).
"""

import itertools
from collections.abc import Mapping
from functools import cache
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.guard.monitoring import distance as mahalanobis
from fanfold.guard.monitoring.answered import Answered, powers
from fanfold.guard.monitoring.distance import Learned
from fanfold.observation import Observation

PROBE = 0.5  # deviation of the probe over that of the noise: what is held out has 1 + 1 / 0.25 times its variance


class Strangeness(Protocol):
    """A score, without state: what it learned of usual observations is kept beside it as named tensors.

    Attributes:
        sees: What it can see, in words.

    Example:
        >>> from fanfold.guard.monitoring import SCORES
        >>> SCORES["energy"].sees
        'another gain, other signals, much more noise'
    """

    sees: ClassVar[str]

    def offered(self, seen: Answered) -> bool:
        """Whether the estimator and its observations give what the score reads."""
        ...

    def read(self, seen: Answered) -> Tensor:
        """The numbers that the score is made of, `(count, d)`."""
        ...

    def learn(self, numbers: Tensor) -> dict[str, Tensor]:
        """What there is to know of the numbers of usual draws, `(draws, d)`."""
        ...

    def of(self, numbers: Tensor, learned: Learned) -> Tensor:
        """The score, `(count,)`."""
        ...


class Distance:
    """A score that is the distance of its numbers from those of calibration, in standard deviations."""

    def learn(self, numbers: Tensor) -> dict[str, Tensor]:
        """The centre and the covariance of the numbers."""
        return mahalanobis.learn_distance(numbers)

    def of(self, numbers: Tensor, learned: Learned) -> Tensor:
        """The distance, `(count,)`."""
        return mahalanobis.distance(numbers, learned)


class Energy(Distance):
    """`log ‖y‖²`, on both sides of its median; not of estimators that know no scale.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, Energy
        >>> seen = Answered(lambda obs: ff.Estimate(obs.y), ff.Observation(torch.ones(2, 3)))
        >>> Energy().read(seen).exp().flatten().round().tolist()
        [3.0, 3.0]
    """

    sees: ClassVar[str] = "another gain, other signals, much more noise"

    def offered(self, seen: Answered) -> bool:
        """Wherever scale means something."""
        return not seen.scale_free

    def read(self, seen: Answered) -> Tensor:
        """`(count, 1)`."""
        return _log(seen.energy)[:, None]


class Residual(Distance):
    """`log ‖y - A x_hat‖² / noise_var`, on both sides: a residual that is too small is as strange as one too large.

    Of a sample without noise, or of unknown noise, it is the residual itself.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, Residual
        >>> A = ff.linops.Dense(torch.eye(3))
        >>> seen = Answered(lambda obs: ff.Estimate(0 * obs.y), ff.Observation(torch.ones(2, 3), A))
        >>> Residual().read(seen).exp().flatten().round().tolist()
        [3.0, 3.0]
    """

    sees: ClassVar[str] = "other noise, another operator, interference"

    def offered(self, seen: Answered) -> bool:
        """Where an operator says what measurements should have been."""
        return seen.residual is not None

    def read(self, seen: Answered) -> Tensor:
        """`(count, 1)`."""
        assert seen.residual is not None
        unit = seen.unit
        if (var := seen.noise_var) is not None:
            unit = torch.where(var[:, 0] > 0, var[:, 0], unit)
        return _log(powers(seen.residual).sum(-1) / _positive(unit))[:, None]


class CarriedVariance(Distance):
    """`log mean var`: the error variance that the estimator itself says, on both sides.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, CarriedVariance
        >>> sure = lambda obs: ff.Estimate(obs.y, var=torch.full_like(obs.y, 4.0))
        >>> CarriedVariance().read(Answered(sure, ff.Observation(torch.ones(1, 3)))).exp().round().item()
        4.0
    """

    sees: ClassVar[str] = (
        "observations harder or easier than usual: other noise, more or fewer unknowns that are not zero"
    )

    def offered(self, seen: Answered) -> bool:
        """Where the estimate has a variance."""
        return seen.estimate.var is not None

    def read(self, seen: Answered) -> Tensor:
        """`(count, 1)`."""
        assert seen.estimate.var is not None
        return _log(seen.estimate.var.double().mean(-1) / _positive(seen.unit))[:, None]


class Course(Distance):
    """The logarithm of the variance after every layer, or of how far every layer moved where there is none.

    In distribution it follows state evolution; what is unlike leaves that course in early layers already.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, Course
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.OAMP(), problem, 3, {"damping": "tied"})
        >>> Course().read(Answered(net, problem.sample(5, torch.Generator().manual_seed(0))[1])).shape
        torch.Size([5, 3])
    """

    sees: ClassVar[str] = "what makes layers converge otherwise: other signals, noise or operators"

    def offered(self, seen: Answered) -> bool:
        """Where there are several layers or iterations."""
        return len(seen.trajectory) > 1

    def read(self, seen: Answered) -> Tensor:
        """`(count, layers)`."""
        carried = [estimate.var for estimate in seen.trajectory if estimate.var is not None]
        if len(carried) < len(seen.trajectory):
            x = [torch.zeros_like(seen.trajectory[0].x), *(estimate.x for estimate in seen.trajectory)]
            carried = [powers(after - before) for before, after in itertools.pairwise(x)]
        sizes = torch.stack([var.double().mean(-1) for var in carried], -1)
        return _log(sizes / _positive(seen.unit)[:, None])


class Disagreement(Distance):
    """The logarithm of how far members of an ensemble are apart, `log mean var_members(x_hat)`, on both sides.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, Disagreement
        >>> net = ff.neural(ff.problems.LinearGaussian(n=2, m=3), "squared-error", members=3)
        >>> Disagreement().offered(Answered(net, ff.problems.LinearGaussian(n=2, m=3).sample(5, torch.Generator())[1]))
        True
    """

    sees: ClassVar[str] = "where networks that learned from the same draws no longer agree"

    def offered(self, seen: Answered) -> bool:
        """Where there are several members."""
        return seen.members is not None and len(seen.members) > 1

    def read(self, seen: Answered) -> Tensor:
        """`(count, 1)`."""
        assert seen.members is not None
        deviations = seen.members - seen.members.mean(0)
        return _log(powers(deviations).mean((0, 2)) / _positive(seen.unit))[:, None]


class HeldOutLoss(Distance):
    """The logarithm of the loss on measurements that the estimator was not given, which costs a second estimate.

    With a fixed probe `q ~ N(0, noise_var)`, the estimator sees `y + q / 2`, and `y - 2 q` is held out: their errors
    are independent where the noise is Gaussian with the variance that it is said to have. One probe serves all
    observations, so that scores stay exchangeable and calls can be repeated.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, HeldOutLoss
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> seen = Answered(ff.iterate(ff.algorithms.OAMP(), 5), problem.sample(5, torch.Generator().manual_seed(0))[1])
        >>> HeldOutLoss().read(seen).shape
        torch.Size([5, 1])
    """

    sees: ClassVar[str] = "other noise or another operator, also where estimates fit whatever is measured"

    def offered(self, seen: Answered) -> bool:
        """Where the operator is known, and the variance of a noise that there is."""
        return seen.noise_var is not None and bool((seen.noise_var > 0).all()) and seen.residual is not None

    def read(self, seen: Answered) -> Tensor:
        """`(count, 1)`."""
        obs, var = seen.obs, seen.noise_var
        assert var is not None
        assert obs.noise_var is not None
        assert obs.A is not None
        q = _probe(obs.y.shape[-1], obs.y.dtype).to(obs.y.device) * obs.noise_var.sqrt().to(obs.y.real.dtype)
        given = Observation.unchecked(obs.y + PROBE * q, obs.A, obs.noise_var * (1 + PROBE**2))
        x = seen.estimator(given).x.to(obs.A.dtype)
        error = powers(obs.y - q / PROBE - obs.A @ x).reshape(seen.count, -1).sum(-1)
        return (_log(error) - _log(var[:, 0]))[:, None]


class Summary(Distance):
    """The distance of what sums y up: the features that the estimator computes first, else y itself.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, Summary
        >>> seen = Answered(lambda obs: ff.Estimate(obs.y), ff.Observation(torch.ones(2, 3)))
        >>> Summary().read(seen).shape
        torch.Size([2, 3])
    """

    sees: ClassVar[str] = "measurements outside the cloud of those of the training"

    def offered(self, seen: Answered) -> bool:
        """Always."""
        return True

    def read(self, seen: Answered) -> Tensor:
        """`(count, d)`."""
        return seen.features


@cache
def _probe(m: int, dtype: torch.dtype) -> Tensor:
    """Standard noise `(m,)`, kept since no trace holds a generator: what is exported was asked once before."""
    return circular((m,), torch.Generator().manual_seed(0), dtype, 1.0)


def _positive(values: Tensor) -> Tensor:
    return values.clamp_min(torch.finfo(values.dtype).tiny)


def _log(values: Tensor) -> Tensor:
    return _positive(values).log()


LearnedOf = Mapping[str, Learned]  # by the name of the score
