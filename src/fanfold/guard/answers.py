"""What calibrations have in common: draws that nothing was trained on, and the answers of an estimator to them."""

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.precision import at_least_single
from fanfold.core.streams import Stream
from fanfold.core.units import power
from fanfold.observation import Estimate, Estimator, Observation, check_finite
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import DrawnInGroups

Pairs = tuple[Tensor, Observation]


def calibration_draws(draws: Problem | Pairs, samples: int, seed: int) -> Pairs:
    """Pairs as they are, or fresh ones of a problem, on which nothing was trained, tuned or tested.

    Raises:
        ValueError: If there are none, their numbers differ, or an entry of x is not finite.
    """
    if not isinstance(draws, tuple) and samples < 1:
        raise ValueError(f"there are {samples} draws to calibrate on; pass samples, such as 2000.")
    x, obs = draws if isinstance(draws, tuple) else independent_draws(draws, samples, seed, 0)
    if x.ndim < 2 or len(x) != len(obs.y):
        raise ValueError(f"x is {tuple(x.shape)} for {len(obs.y)} observations; pass (samples, ...) for as many.")
    if not len(x):
        raise ValueError(f"there are 0 draws to calibrate on, x is {tuple(x.shape)}; pass pairs of some samples.")
    check_finite("x", x)
    return x, obs


def independent_draws(problem: Problem, count: int, seed: int, index: int) -> Pairs:
    """Draws that neither training nor tests saw, each with conditions of its own; fewer where fewer are stored.

    Draws that share conditions with others are not exchangeable with those to come, on which what is calibrated rests:
    a problem that draws in groups is asked for one of each group at a time.

    Args:
        problem: The problem.
        count: How many.
        seed: Their seed.
        index: Which draw of the seed.
    """
    held_out = problem.held_out()
    shared = ability(held_out, DrawnInGroups)
    if shared is None or shared.groups is None:
        return draw(held_out, count, seed, Stream.CALIBRATION, index)
    first = index * (1 + count)  # as many draws at most, of numbers that no other index has
    parts = [
        draw(held_out, min(shared.groups, count - made), seed, Stream.CALIBRATION, first + number)
        for number, made in enumerate(range(0, count, shared.groups))
    ]
    x, obs = torch.cat([x for x, _ in parts]), parts[0][1]
    y = torch.cat([part.y for _, part in parts])
    each = [part.noise_var.expand(*part.y.shape[:-1], 1) for _, part in parts if part.noise_var is not None]
    return x, Observation.unchecked(y, obs.A, torch.cat(each) if each else None)


@torch.no_grad()
def answers(estimator: Estimator, obs: Observation, batch: int = 4096) -> Estimate:
    """The estimates of many observations, so many at a time, on the device of the observations."""
    home = obs.y.device
    if isinstance(estimator, nn.Module):
        obs = obs.to(next(estimator.parameters(), obs.y).device)
    parts = [estimator(obs[i : i + batch]) for i in range(0, len(obs.y), batch)]
    var = None if parts[0].var is None else torch.cat([e.var.expand(e.x.shape) for e in parts if e.var is not None])
    return Estimate(torch.cat([e.x for e in parts]), var).to(home)


def checked_answers(estimator: Estimator, x: Tensor, obs: Observation, batch: int) -> tuple[Tensor, Estimate]:
    """The truths and the estimates of calibration draws, in single precision at least.

    Raises:
        ValueError: If their shapes differ, or an estimate is not finite.
    """
    x, estimate = widened(x), widened_estimate(answers(estimator, obs, batch))
    if estimate.x.shape != x.shape:
        raise ValueError(f"the estimator says {tuple(estimate.x.shape)} where x is {tuple(x.shape)}.")
    check_finite("the estimator's x", estimate.x)
    return x, estimate


def part(estimate: Estimate, rows: slice | Tensor) -> Estimate:
    """The estimates of these rows of a batch."""
    return Estimate(estimate.x[rows], None if estimate.var is None else estimate.var[rows])


def widened(a: Tensor) -> Tensor:
    """Half precision in single precision, which quantiles and sums need; anything else as it is."""
    return a.to(at_least_single(a.dtype))


def widened_estimate(estimate: Estimate) -> Estimate:
    """An estimate of half precision in single precision; anything else as it is."""
    return Estimate(widened(estimate.x), None if estimate.var is None else widened(estimate.var))


def deviation(estimate: Estimate) -> Tensor:
    """The root of an estimate's variance, of which rounding below zero counts as zero.

    Raises:
        ValueError: If a variance is not finite, or negative by more than rounding.
    """
    return checked_var(estimate).sqrt()


def checked_var(estimate: Estimate) -> Tensor:
    """The variance of an estimate, of which rounding below zero counts as zero; raises as `deviation` does."""
    var = estimate.var
    assert var is not None
    check_finite("the estimator's var", var)
    eps = torch.finfo(var.dtype).eps
    if var.numel() and (var < -(eps**0.5) * var.abs().amax() - 100 * eps * power(estimate.x).amax()).any():
        first = tuple((var == var.min()).nonzero()[0].tolist())
        raise ValueError(
            f"the estimator's var is {var.min().item():g} at index {first}, and a variance is not negative: mend the "
            "estimator, or pass scale='magnitude' or 'constant', which do not use it."
        )
    return var.clamp_min(0)
