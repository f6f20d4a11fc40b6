"""Making a guarded estimator: how far it may go, and how large differences of losses are, from draws of its own."""

import math

import torch

from fanfold.core.settings import checks_arguments
from fanfold.guard.answers import Pairs, answers, calibration_draws
from fanfold.guard.fallback.at_home import Home, suited, truthful
from fanfold.guard.fallback.guarded import Guarded
from fanfold.guard.fallback.hysteresis import Hysteresis
from fanfold.guard.fallback.limits import GuardLimits
from fanfold.guard.fallback.noise_levels import NoiseLevels
from fanfold.guard.fallback.noise_split import NoiseSplit
from fanfold.guard.fallback.samples import distance, saturation, unit
from fanfold.guard.fallback.trust import Trusting
from fanfold.guard.monitoring import Monitor
from fanfold.guard.quantiles import conformal_quantile
from fanfold.observation import Estimator, check_finite
from fanfold.problems import Problem

FURTHER = 4.0  # radii that a call may go which is not loud against the network: so far baselines fail, once in a while
HIDDEN = 0.02  # of the network's error: a guard that costs more at home, at any rate, listens to losses that mislead
MORE_SATURATED = 0.05  # of the entries, by which more may stand at the largest magnitude than on calibration draws


@checks_arguments
def guarded(
    estimator: Estimator,
    baseline: Estimator,
    draws: Problem | Pairs,
    *,
    reach: float = 0.999,
    judge: NoiseSplit | None = NoiseSplit(),  # noqa: B008 - it is frozen
    monitor: Monitor | None = None,
    every: int = 1,
    alarm: float = 1e-3,
    latch: bool = False,
    trusting: Trusting | None = None,
    hysteresis: Hysteresis | None = None,
    samples: int = 1000,
    seed: int = 0,
) -> "Guarded":
    """Put a conservative baseline beside an estimator, and a rule that goes over to it where the estimator errs more.

    Args:
        estimator: The network to guard. It takes each sample by itself.
        baseline: What is known to be safe, such as a classical algorithm with settings for the worst case.
        draws: A problem, or pairs of x `(samples, ...)` and their observation, none of which was trained on: what the
            network is for. They set how far it may be from the baseline, and the size of a difference of losses; one
            in five is answered again in noise of up to 13 levels, unless the claimed noise is believed.
        reach: The share of these draws on which the network's estimate is left as it is, whatever losses say.
        judge: How losses are compared without the truth; None compares none, and leaves the cap and the monitor.
        monitor: What says how strange each observation is, made by `ff.guard.monitor` for this estimator. Once its
            martingale alarms, so does this; where no losses are compared the baseline then answers, until `reset`.
            Where they are, it moves no weight: a world that has changed may be one where the network is the better
            path. Its rate of false alarms adds to that of the losses.
        every: At which calls they are compared: each, or one in so many of those that are fit, as comparing takes two
            more estimates.
        alarm: The chance with which a network ever raises the alarm by its losses whose clipped differences have, given
            the calls before, no mean above zero. With the same chance an alarm ends whose network is no better.
        latch: Whether the alarm of the losses leaves the baseline alone, until `reset`.
        trusting: The rule by which trust moves; None takes the quickest that, on these draws in turn, costs the network
            at most a hundredth of its error, or one by the differences alone where x is not of the estimate's shape.
        hysteresis: Two thresholds and a least stay, for one path at a time; None weighs both.
        samples: The number of calibration draws, of a problem.
        seed: The seed of the draws.

    Raises:
        ValueError: If a number is out of range, estimates differ in shape, from each other or from x where noise is
            measured, or are not finite, there are too few draws for the reach, the baseline claims no error where they
            differ, or the monitor is of another estimator.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
        >>> net, safe = ff.iterate(ff.algorithms.OAMP(), 10), ff.iterate(ff.algorithms.FISTA(lam=0.1), 100)
        >>> guard = ff.guard.guarded(net, safe, problem, reach=0.99, samples=200)
        >>> _, obs = problem.sample(50, torch.Generator().manual_seed(1))
        >>> guard(obs).x.shape, guard.condition, guard.calls.all
        (torch.Size([50, 40]), 'active', 50)
    """
    if every < 1:
        raise ValueError(f"every is {every}; pass 1 to compare at each call, or one in so many.")
    if not 0 < alarm < 1:
        raise ValueError(f"alarm is {alarm}; pass the chance of a false alarm, between 0 and 1.")
    x, obs = calibration_draws(draws, samples, seed)
    network, beside = answers(estimator, obs), answers(baseline, obs)
    if network.x.shape != beside.x.shape:
        raise ValueError(
            f"the estimator says {tuple(network.x.shape)} where the baseline says {tuple(beside.x.shape)}."
        )
    for who, estimate in (("baseline", beside), ("estimator", network)):
        check_finite(f"the {who}'s x", estimate.x)
        if estimate.var is not None:
            check_finite(f"the {who}'s var", estimate.var)
    apart = distance(network.x - beside.x)
    relative = torch.where(apart > 0, apart / unit(beside), 0.0)
    radius = conformal_quantile(relative, reach).item()
    if radius == math.inf:
        raise ValueError(
            "the baseline claims a variance of zero where the estimator says something else, so that no radius holds "
            "its error; pass one that claims none, lambda obs: ff.Estimate(baseline(obs).x)."
        )
    saturated = saturation(obs.y).amax().item() + MORE_SATURATED
    limits = GuardLimits(radius, saturated, every, alarm, latch, obs.y.ndim - 1, hysteresis)
    around = None if monitor is None else monitor.around(estimator, obs.A)
    if judge is None:
        return Guarded(estimator, baseline, None, around, trusting or Trusting(), limits, 0.0)
    halves = judge.halves(obs, range(len(obs.y)))
    copies = answers(estimator, halves.obs), answers(baseline, halves.obs)
    differences = judge.differences(halves, *copies)
    check_finite("the difference of losses, of estimates from a copy of y with more noise,", differences)
    loud = max(0.0, conformal_quantile(differences, reach).item())
    limits, levels = limits._replace(further=FURTHER, loud=loud), None
    if judge.noise == "measured":
        if x.shape != beside.x.shape:
            raise ValueError(
                f"x is {tuple(x.shape)} where the estimator says {tuple(beside.x.shape)}: measured noise needs the "
                'truth; pass x of that shape, or judge=NoiseSplit(noise="claimed").'
            )
        levels = NoiseLevels.of(judge, (x, obs), estimator, baseline)
    scale, costs = differences.abs().mean().item(), None
    if trusting is None:
        trusting = Trusting.of(differences.tolist())
        if x.shape == beside.x.shape:
            held = radius * torch.where(differences <= loud, FURTHER, 1.0)
            keep, claimed = torch.where(relative > held, held / relative, 1.0), judge.claimed(obs)
            of_network, of_baseline = (distance(e.x - x.to(e.x.device)).square() for e in (network, beside))
            home = Home(of_network, of_baseline, apart.square(), keep, differences, claimed)
            if levels is not None:
                left = torch.stack([judge.residuals(obs, estimate) for estimate in (network, beside)], -1)
                home = home._replace(left=levels.ratios(left, claimed), heard=judge.heard(obs))
            by_losses = trusting
            trusting, costs = suited(by_losses, home, scale, limits, levels, judge.memory, seed)
            if levels is not None and home.better and costs > 1 + HIDDEN:
                seen = distance(judge.measured(obs, copies[1].x - x.to(obs.y.device))).square()
                moved = truthful(levels, home, seen)
                rule, less = suited(by_losses, home, scale, limits, moved, judge.memory, seed)
                if less < costs:
                    trusting, costs, levels = rule, less, moved
    return Guarded(estimator, baseline, judge, around, trusting, limits, scale, levels, costs)
