"""Mean squared error as bias² and variance, beside the bound that applies. Kay (1993), sections 2.4 and 3.4.

The Cramér-Rao bound is on the variance of unbiased estimators. Who is below it is biased, and pays elsewhere: what
bounds it is the Cramér-Rao bound for its own bias, and, over the prior, the Bayesian bounds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fanfold.bounds.cramer_rao import cramer_rao
from fanfold.bounds.fisher import model_fisher
from fanfold.core.abilities import offers, require
from fanfold.core.noise import circular
from fanfold.core.table import Table, as_text
from fanfold.observation import Estimator, Observation
from fanfold.problems.protocols import CorrelatedModel, DrawsAll, GaussianModel, KnownNoise, Named, wanted_of

Measure = Callable[[Tensor, torch.Generator], Observation]
WHO = "error_decomposition"  # who asks a problem for its abilities
NORMAL = 1.96  # standard errors in half a 95 % interval
SURE = 3.0  # standard errors from which a mean counts as below a bound: 0.13 % by chance
MANY = 5.0  # the same where many rows are looked at
STEP = 0.1  # of a finite difference, in roots of the Cramér-Rao bound


@dataclass(frozen=True)
class ErrorDecomposition:
    """The parts of an estimator's error, and what follows from them.

    Attributes:
        table: A row for each point and parameter: `bias`, `bias²`, `variance` and `mse` with half their 95 % intervals
            (`±`), the Cramér-Rao bound `crb` there, and, for who is below it, `biased_crb`, the one for its own bias.
        verdict: What follows, in sentences.
        mse: Mean over the points, of each parameter, `(w,)`, float64.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> split = ff.bounds.error_decomposition(problem.posterior, problem, repeats=200)
        >>> split.verdict.split(", which")[0]
        'At 20 of 20 points and parameters the error is below the Cramér-Rao bound'
    """

    table: Table
    verdict: str
    mse: Tensor

    def __str__(self) -> str:
        cells = [[_digits(row[c]) for c in self.table.columns] for row in self.table]
        return f"{as_text(self.table.columns, cells)}\n{self.verdict}"


def error_decomposition(
    estimator: Estimator,
    problem: object,
    at: Tensor | None = None,
    repeats: int = 2000,
    bayesian: Tensor | float | None = None,
    seed: int = 0,
) -> ErrorDecomposition:
    """An estimator's errors over repeated draws of the noise at fixed parameters.

    Args:
        estimator: Observation -> Estimate of the wanted parameters.
        problem: A problem that draws all its parameters (`problems.protocols.DrawsAll`) and is a Gaussian model, white
            or correlated; or a function that measures given parameters, `(x (repeats, n), generator) -> Observation`,
            for which no bound is known.
        at: All parameters at each point, `(points, n)`; 10 draws of the problem's prior if None.
        repeats: Draws of the noise at each point.
        bayesian: A bound on the error averaged over the prior, of each wanted parameter `(w,)` (`van_trees(...).mse`,
            `exact_mmse(...).mse`); the points must then be draws of the prior, hence `at` None.
        seed: Seed of the points and the noise.

    Raises:
        ValueError: If points are missing, or given where a Bayesian bound is, repeats are too few for an interval, or
            the problem lacks one of these abilities.
    """
    if repeats < 20:
        raise ValueError(f"repeats is {repeats}; an interval needs at least 20.")
    if at is not None and bayesian is not None:
        raise ValueError("a Bayesian bound is on the error averaged over the prior; leave out at, or the bound.")
    measured = problem if callable(problem) else require(problem, DrawsAll, WHO)
    if at is None:
        if not offers(measured, DrawsAll):
            raise ValueError("a callable has no prior to draw points from; pass at=(points, n).")
        count = 10 if bayesian is None else 200
        at = measured.sample_all(count, torch.Generator().manual_seed(seed))[0]
    points = [_Point(estimator, measured, x, repeats, seed + 1 + i) for i, x in enumerate(at)]
    rows = [row for i, point in enumerate(points) for row in point.rows(i)]
    errors = torch.stack([point.square for point in points])
    sentences = _below(rows) + _overall(errors, bayesian, rows)
    return ErrorDecomposition(Table(rows), " ".join(sentences), errors.mean(0))


def _digits(value: Any) -> Any:
    return f"{value:.3g}" if isinstance(value, float) else value


class _Point:
    """The estimator's errors at one point, and the bounds there."""

    def __init__(self, estimator: Estimator, problem: DrawsAll | Measure, x: Tensor, repeats: int, seed: int):
        self.estimator, self.problem, self.x, self.repeats, self.seed = estimator, problem, x, repeats, seed
        self.wanted = wanted_of(problem, len(x))
        self.all_names = problem.names if offers(problem, Named) else tuple(f"x{i}" for i in range(len(x)))
        self.names = [self.all_names[i] for i in self.wanted]
        self.errors = self._estimates(x.double()) - x.double()[self.wanted]
        self.bias, self.variance = self.errors.mean(0), self.errors.var(0)
        self.square = self.errors.square().mean(0)
        self.information = model_fisher(problem, x)
        self.crb = self._crb()

    def rows(self, index: int) -> list[dict[str, Any]]:
        """A row for each wanted parameter."""
        n = self.repeats
        error = (self.variance / n).sqrt()
        spread = (self.errors - self.bias).square().std(0) / n**0.5
        whole = self.errors.square().std(0) / n**0.5
        clear = self.bias.square() - self.variance / n  # without the bias of a square
        around = 2 * self.bias.abs() * error + error.square()
        below = None if self.crb is None else self.square + SURE * whole < self.crb
        biased = self._biased_crb() if below is not None and below.any() else None
        rows = []
        for j, name in enumerate(self.names):
            row: dict[str, Any] = {"point": index, "parameter": name, "x": self.x[self.wanted[j]].item()}
            parts = {"bias": (self.bias, error), "bias²": (clear, around)}
            for label, (value, se) in (
                parts | {"variance": (self.variance, spread), "mse": (self.square, whole)}
            ).items():
                row |= {label: value[j].item(), f"{label} ±": NORMAL * se[j].item()}
            row["crb"] = None if self.crb is None else self.crb[j].item()
            row["biased_crb"] = biased[j].item() if biased is not None and below is not None and below[j] else None
            rows.append(row)
        return rows

    def _estimates(self, x: Tensor) -> Tensor:
        """Estimates of the wanted parameters, `(repeats, w)`, with the same noise for every x."""
        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            obs = _measure(self.problem, x.expand(self.repeats, -1), generator)
            return self.estimator(obs).x.double().reshape(self.repeats, -1)

    def _crb(self) -> Tensor | None:
        if self.information is None:
            return None
        return cramer_rao(self.information, self.all_names, self.wanted).diagonal()

    def _biased_crb(self) -> Tensor:
        """`G J⁻¹ Gᵀ + b bᵀ`, `G = ∂E x_hat / ∂x`, by differences in the same noise."""
        assert self.information is not None
        inverse = cramer_rao(self.information, self.all_names)
        steps = STEP * inverse.diagonal().sqrt()
        slopes = []
        for k, step in enumerate(steps):
            move = torch.zeros_like(steps)
            move[k] = step
            x = self.x.double()
            slopes.append((self._estimates(x + move) - self._estimates(x - move)).mean(0) / (2 * step))
        G = torch.stack(slopes, -1)
        return (G @ inverse @ G.mT).diagonal() + self.bias.square()


def _measure(problem: DrawsAll | Measure, x: Tensor, generator: torch.Generator) -> Observation:
    """Observations of the given parameters, of the dtype that those of the problem's draws have."""
    if callable(problem) and not offers(problem, DrawsAll):
        return problem(x, generator)
    model = require(problem, DrawsAll, WHO)
    like = model.sample_all(1, torch.Generator().manual_seed(0))[1]
    mean = require(problem, GaussianModel, WHO).mean(x)
    if offers(problem, CorrelatedModel):
        L = torch.linalg.cholesky(problem.covariance(x[0]))
        unit = circular(tuple(mean.shape), generator, L.dtype, 1.0)
        y = mean + unit @ L.mT
    else:
        noise_var = require(problem, KnownNoise, WHO).noise_var
        y = mean + circular(tuple(mean.shape), generator, mean.dtype, noise_var)
    return Observation(y.to(like.y.dtype), like.A, None if like.noise_var is None else like.noise_var.reshape(-1)[0])


def _below(rows: list[dict[str, Any]]) -> list[str]:
    """Words on the Cramér-Rao bound."""
    known = [row for row in rows if row["crb"] is not None]
    if not known:
        return ["No Cramér-Rao bound is known: the model has no Gaussian mean or covariance to differentiate."]
    low = [row for row in known if row["biased_crb"] is not None]
    if not low:
        return [f"Nowhere is the error below the Cramér-Rao bound, at {len(known)} points and parameters."]
    most = min(low, key=lambda row: row["mse"] / row["crb"])
    bent = most["biased_crb"] / most["crb"]
    biased = abs(most["bias"]) > most["bias ±"] * SURE / NORMAL or bent < 0.98
    words = [
        f"At {len(low)} of {len(known)} points and parameters the error is below the Cramér-Rao bound, which is on the "
        f"variance of unbiased estimators: most at {most['parameter']} = {most['x']:.4g}, {most['mse']:.3g} against "
        f"{most['crb']:.3g}."
    ]
    if biased:
        words.append(
            f"Below the CRB because it is biased: there the bias is {most['bias']:.3g} ± {most['bias ±']:.1g} and "
            f"changes with the parameters; the bound that holds for it is the Cramér-Rao bound for its own bias, "
            f"{most['biased_crb']:.3g}. Over the prior the Bayesian bounds hold for it."
        )
    broken = [row for row in low if row["variance"] + MANY / NORMAL * row["variance ±"] < _own_variance(row)]
    if broken or not biased:
        words.append(
            "No bias explains it: the estimator knows more than the measurements say, or the model of the bound is not "
            "that of the data."
        )
    return words


def _own_variance(row: dict[str, Any]) -> float:
    """The least variance with the bias of a row; a bias that bends within a finite difference blurs it."""
    return 0.95 * (row["biased_crb"] - row["bias"] ** 2)


def _overall(errors: Tensor, bayesian: Any, rows: list[dict[str, Any]]) -> list[str]:
    """Words on the Bayesian bound."""
    if bayesian is None:
        return []
    bound = torch.as_tensor(bayesian, dtype=torch.float64).expand(errors.shape[-1])
    mean, se = errors.mean(0), errors.std(0) / len(errors) ** 0.5
    words = []
    for j, limit in enumerate(bound.tolist()):
        name = rows[j]["parameter"]
        text = f"Over the prior the error of {name} is {mean[j].item():.3g} ± {NORMAL * se[j].item():.1g}, "
        if mean[j] + SURE * se[j] < limit:
            text += f"below the Bayesian bound, {limit:.3g}, which no estimator can be: one of the two is wrong."
        elif mean[j] <= limit:
            text += f"no further below the Bayesian bound, {limit:.3g}, than by chance."
        else:
            excess = 10 * math.log10(mean[j].item() / limit)
            text += f"{excess:.2g} dB above the Bayesian bound, {limit:.3g}, which holds for biased estimators too."
        words.append(text)
    return words
