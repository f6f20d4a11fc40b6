"""How `crlb-still-holds` judges: errors against three limits, and bias apart from variance."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.bounds import biased_cramer_rao, cramer_rao, gaussian_fisher, van_trees
from fanfold.core.noise import circular
from fanfold.core.streams import Stream, generator_of
from fanfold.core.units import db
from fanfold.evaluation.evaluate import Estimator
from fanfold.observation import Observation
from fanfold.problems import LinearGaussian, Tone
from fanfold.problems.draws import draw

EXACT = "posterior mean"
Model = Tone | LinearGaussian


@dataclass(frozen=True)
class Limits:
    """Mean squared error a parameter: no unbiased estimator is below the first, none at all below the others."""

    cramer_rao: float
    van_trees: float
    mmse: float


@dataclass(frozen=True)
class Score:
    """One estimator at one SNR, on draws of one seed; `below` counts standard errors under each Bayesian limit."""

    model: str
    estimator: str
    snr_db: float
    seed: int
    mse: float
    excess_db: float  # over the MMSE, by the distance to the posterior mean: steadier than the ratio of the errors
    limits: Limits
    below_mmse: float
    below_van_trees: float

    def over(self, limit: str) -> float:
        """In dB above one of the limits."""
        return db(self.mse / vars(self.limits)[limit])


@dataclass(frozen=True)
class Split:
    """Mean squared error as bias² and variance at given frequencies, on average over these, with standard errors."""

    estimator: str
    snr_db: float
    seed: int
    bias: float
    bias_error: float
    variance: float
    variance_error: float

    @property
    def share(self) -> float:
        """The share of bias² in the whole, in per cent."""
        return 100 * self.bias / (self.bias + self.variance)


def fisher(problem: Model) -> Tensor:
    """Fisher information of all parameters: the same at every frequency and phase, and at every x of a linear model."""
    x, _ = problem.sample_all(1, torch.Generator().manual_seed(0))
    return gaussian_fisher(x[0], problem.mean, noise_var=problem.noise_var)


def unbiased_bound(problem: Model) -> float:
    """The Cramér-Rao bound, mean over the wanted parameters."""
    return cramer_rao(fisher(problem), problem.names, problem.wanted).diagonal().mean().item()


@torch.enable_grad()
def limits_of(problem: Model, mmse: float) -> Limits:
    """All limits, means over the wanted parameters; few draws do, as the information is the same at all of them."""
    bayesian = van_trees(problem, samples=100).mse.mean().item()
    return Limits(unbiased_bound(problem), bayesian, mmse)


def shrinkage_bound(problem: LinearGaussian, factor: float, draws: int, seed: int) -> float:
    """The Cramér-Rao bound for a bias of `(factor - 1) x`, that of a shrunk unbiased estimate, mean over test draws."""
    x, _ = draw(problem, draws, seed, Stream.TESTING, 0)
    slope = (factor - 1) * torch.eye(problem.n, dtype=torch.float64)
    square = biased_cramer_rao(fisher(problem), (factor - 1) * x, slope)
    return square.diagonal(dim1=-2, dim2=-1).mean().item()


@torch.no_grad()
def judge(name: str, estimators: Mapping[str, Estimator], problem: Model, draws: int, seed: int) -> list[Score]:
    """Errors on test draws, against the limits; the error that y leaves, `Var[x|y]`, is taken off draw by draw."""
    x, obs = draw(problem, draws, seed, Stream.TESTING, 0)
    exact = problem.posterior(obs)
    assert exact.var is not None
    assert isinstance(problem.snr_db, float)
    least = exact.var.double().mean(-1)
    limits = limits_of(problem, least.mean().item())
    scores = []
    for estimator, estimate in ({EXACT: problem.posterior} | dict(estimators)).items():
        x_hat = estimate(obs).x
        error = (x_hat - x).double().square().mean(-1)
        gain = least - error
        excess = (x_hat - exact.x).double().square().mean().item() / limits.mmse
        below = gain.mean() / gain.std() * draws**0.5
        under = (limits.van_trees - error.mean()) / error.std() * draws**0.5
        measured = (error.mean().item(), db(1 + excess), limits, below.item(), under.item())
        scores.append(Score(name, estimator, problem.snr_db, seed, *measured))
    return scores


@torch.no_grad()
def split(estimators: Mapping[str, Estimator], problem: Tone, points: int, repeats: int, seed: int) -> list[Split]:
    """Bias and variance over repeated noise at frequencies from the prior."""
    assert isinstance(problem.snr_db, float)
    generator = generator_of(seed, Stream.TESTING, 1)
    x, _ = problem.sample_all(points, generator)
    y = problem.mean(x).unsqueeze(1)
    y = y + circular((points, repeats, problem.n), generator, y.dtype, problem.noise_var)
    obs = Observation(y.flatten(0, 1), None, torch.tensor(problem.noise_var))
    splits = []
    for name, estimator in estimators.items():
        error = estimator(obs).x.double().reshape(points, repeats) - x[:, :1]
        variance = error.var(-1)
        bias = error.mean(-1).square() - variance / repeats  # without bias of its own
        parts = [number for part in (bias, variance) for number in (part.mean(), part.std() / points**0.5)]
        splits.append(Split(name, problem.snr_db, seed, *(part.item() for part in parts)))
    return splits
