"""How much more there is to learn: trainings at several budgets, and the curve through their risks."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import torch
from scipy.special import digamma
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream
from fanfold.core.units import power
from fanfold.estimators.base import Settings, device_of
from fanfold.observation import Observation
from fanfold.problems import Pairs, Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import Distinct, Stored, kind_of
from fanfold.training.fit import fit
from fanfold.training.risk_curve import LearningCurve, curve_of
from fanfold.training.settings import TrainingOptions

PARTS = (8, 4, 2, 1)  # of all pairs that budgets are: an eighth, ... and all
LEAST = 20  # pairs of the smallest budget
LEAST_NOISE = 0.05  # of the excess, from one training to the next

Make = Callable[[Problem], nn.Module]


@dataclass(frozen=True)
class BudgetTrained:
    """A network was trained at a budget of a learning curve.

    Attributes:
        count: The number of pairs that it had.
        risk: Its mean squared error on held-out draws, over the variance of the parameters.
        done: How many networks were trained by now.
        total: How many there will be.

    Example:
        >>> from fanfold.training.learning_curve import BudgetTrained
        >>> BudgetTrained(count=500, risk=0.31, done=2, total=7).total
        7
    """

    count: int
    risk: float
    done: int
    total: int


@checks_arguments
def learning_curve(
    make: Make | Settings,
    problem: Problem,
    counts: Sequence[int] | None = None,
    *,
    judged: int = 2000,
    repeats: int = 4,
    on_event: Callable[[BudgetTrained], None] | None = None,
    **options: Unpack[TrainingOptions],
) -> LearningCurve:
    """Train afresh at several budgets, all of one pool of pairs, and say how much further simulations would gain.

    Args:
        make: What makes an untrained network for a problem, such as `ff.neural`, or its settings.
        problem: Where the pairs come from, simulated once; of stored ones those to train on.
        counts: The numbers of pairs to train with, at least three; an eighth, a quarter, half and all if not given.
        judged: Held-out draws, the same at every budget; of stored pairs those that are kept for tests.
        repeats: How many trainings, on pairs of their own, a budget has at most, as far as the pool goes.
        on_event: Called after each training.
        **options: How to train, as in `fit`, the same at each budget; `simulations` is how many pairs there are, of
            stored ones all if not given.

    Raises:
        ValueError: If there are fewer than three budgets, one is below 20 or above the pool, or the number of
            simulations is not known.
    """
    simulations, seed = options.get("simulations") or (max(counts) if counts else None), options.get("seed") or 0
    (x, obs), (x_test, obs_test) = _pairs(problem, simulations, judged, seed)
    counts = sorted(counts) if counts else [len(x) // part for part in PARTS]
    if len({*counts}) < 3 or counts[0] < LEAST or counts[-1] > len(x) or repeats < 1:
        raise ValueError(
            f"the budgets are {', '.join(map(str, counts))} of {len(x)} pairs, repeats {repeats}; pass at least three "
            f"different ones, from {LEAST} to all, and repeats from 1."
        )
    build = make.build if isinstance(make, Settings) else make
    plan = [(n, part) for n in counts for part in range(min(repeats, len(x) // n))]
    errors: dict[int, list[Tensor]] = {n: [] for n in counts}
    for done, (n, part) in enumerate(plan, start=1):
        rows = slice(part * n, (part + 1) * n)
        pairs = _budget(problem, (x[rows], obs[rows]), (x_test, obs_test))
        of_budget = options.copy()
        of_budget["simulations"] = n
        net = fit(build(problem), pairs, on_event=lambda event: None, **of_budget)
        errors[n].append(_squared_errors(net, x_test, obs_test, x))
        if on_event is not None:
            on_event(BudgetTrained(n, errors[n][-1].mean().item(), done, len(plan)))
    return _judged(counts, errors)


def _pairs(problem: Problem, simulations: int | None, judged: int, seed: int) -> tuple[Any, Any]:
    """The pairs to train on, in random order, and those to judge with."""
    stored = ability(problem, Stored)
    if stored is not None:
        x, obs = stored.every()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:simulations]
        tests = ability(problem.held_out(), Stored)
        test = draw(problem.held_out(), judged, seed, Stream.TESTING, 0) if tests is None else tests.every()
        return (x[order], obs[order]), test
    if simulations is None:
        raise ValueError("learning_curve needs to know how many pairs there are to be: pass simulations=, or counts=.")
    distinct = ability(problem, Distinct)
    drawn = draw(problem, simulations, seed, Stream.TRAINING, 0)
    if distinct is not None:
        drawn = distinct.distinct(simulations, torch.Generator().manual_seed(seed))
    return drawn, draw(problem.held_out(), judged, seed, Stream.TESTING, 0)


def _budget(problem: Problem, train: tuple[Tensor, Observation], test: tuple[Tensor, Observation]) -> Pairs:
    """The pairs of one budget as a problem, whose test part is what all are judged with."""
    (x, obs), (x_test, obs_test) = train, test
    var = obs.noise_var
    if var is not None and var.ndim and obs_test.noise_var is not None:
        var = torch.cat([var.expand(*obs.y.shape[:-1], 1), obs_test.noise_var.expand(*obs_test.y.shape[:-1], 1)])
    together = {"x": torch.cat([x, x_test]), "y": torch.cat([obs.y, obs_test.y]), "A": obs.A, "noise_var": var}
    share = len(x_test) / (len(x) + len(x_test))
    return Pairs(**together, kind=kind_of(problem), held_out_share=share)


@torch.no_grad()
def _squared_errors(net: nn.Module, x: Tensor, obs: Observation, every: Tensor) -> Tensor:
    """The squared error of each held-out draw, of each parameter over its variance, `(samples,)`."""
    home = device_of(net)
    x_hat = torch.cat([net(obs[i : i + 1000].to(home)).x.cpu() for i in range(0, len(x), 1000)])
    var = power(every - every.mean(0)).double().mean(0)
    return (power(x_hat - x).double() / torch.where(var > 0, var, 1.0)).flatten(1).mean(-1)


def _judged(counts: Sequence[int], errors: Mapping[int, Sequence[Tensor]]) -> LearningCurve:
    """The curve through the mean risks: draws are shared by all budgets, trainings are not."""
    last = counts[-1]
    of_draws = torch.stack([torch.stack(list(errors[n])).mean(0) for n in counts])
    risks, C = of_draws.mean(-1), torch.cov(of_draws) / of_draws.shape[-1]
    # Trainings at one budget differ, by an amount that is taken to fall as 1 / N. One that went astray must not decide:
    # the logarithms of the variances are averaged, less what few degrees of freedom take off them
    spreads = [(len(errors[n]) - 1, torch.stack([e.mean() for e in errors[n]]), n / last) for n in counts]
    logs = [
        (freedom, math.log(max(means.var().item() * share**2, 1e-300)) - digamma(freedom / 2) + math.log(freedom / 2))
        for freedom, means, share in spreads
        if freedom
    ]
    gain = (risks[0] - risks.min()).clamp_min(1e-3 * risks[-1]).item() * counts[0] / last
    noise = (LEAST_NOISE * gain) ** 2
    if logs:
        noise = max(noise, math.exp(sum(f * log for f, log in logs) / sum(f for f, _ in logs)))
    of_training = [noise * (last / n) ** 2 / len(errors[n]) for n in counts]
    return curve_of(counts, risks.tolist(), [v**0.5 for v in of_training], C)
