"""Calibrates a monitor on draws that nothing was trained on. Bates et al. (2023)."""

from collections.abc import Sequence

import torch

from fanfold.core.abilities import offers
from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream
from fanfold.estimators.base import device_of, fingerprint_of
from fanfold.guard.answers import Pairs
from fanfold.guard.monitoring.conditional import draws_needed
from fanfold.guard.monitoring.monitor import Monitor
from fanfold.guard.monitoring.reading import chosen, learned_of, numbers_of, scores_of
from fanfold.observation import Estimator, Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.protocols import DrawnInGroups

LEAST_LEARNING, USUAL_LEARNING = 200, 2000  # draws that scores learn from, half of them for the tails
USUAL_CALIBRATION = 4000
MOST_ALARM = 0.1  # rate of false alarms, of which p-values are still of use
BORNE = (0.01, 0.02, 0.05, MOST_ALARM)  # rates that are fallen back to where draws are few
PROBES = 3  # observations whose estimates tell one estimator from another


@checks_arguments
def monitor(
    estimator: Estimator,
    problem: Problem | Pairs,
    alarm: float = 0.01,
    *,
    draws: int | None = None,
    scores: Sequence[str] | None = None,
    confidence: float = 0.95,
    tolerance: float = 0.5,
    batch: int = 1000,
    seed: int = 0,
) -> "Monitor":
    """Calibrate p-values of single observations, and alarms over time, on draws that an estimator was not trained on.

    Scores of what is strange are read off each observation, its estimate and what the estimator carries; the first
    draws teach what is usual, the others calibrate. A p-value is the share of calibration draws that are as strange.
    What no score sees, no p-value tells.

    Args:
        estimator: Any estimator.
        problem: A problem, or pairs of x and their observation, drawn as what is to be called usual.
        alarm: The rate of false alarms: of p-values up to it, and of streams that ever alarm.
        draws: The number of draws in all, of a problem; 6000, or as many as the rate takes.
        scores: Names of scores, see `SCORES`; all that the estimator offers but the costly ones if None.
        confidence: The probability, over calibration draws, with which promises hold given these.
        tolerance: The share of `alarm` by which the true rate may be off.
        batch: How many observations the estimator sees at a time.
        seed: The seed of the draws.

    Raises:
        ValueError: If there are too few draws for the rate (it says how many are needed), a score is unknown or not
            offered, or a setting is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 5)
        >>> usual = ff.guard.monitor(oamp, problem, alarm=0.05, draws=800)
        >>> x, obs = problem.sample(200, torch.Generator().manual_seed(0))
        >>> louder = ff.Observation(3 * obs.y, obs.A, obs.noise_var)
        >>> (usual.p_values(obs) <= 0.05).sum() < 25, (usual.p_values(louder) <= 0.05).sum() > 100
        (tensor(True), tensor(True))
    """
    needed = draws_needed(alarm, confidence, tolerance)
    obs = _drawn(problem, draws, needed, seed)
    learning = learning_share(len(obs.y), needed)
    if learning < LEAST_LEARNING:
        raise ValueError(
            f"alarm {alarm:g} takes at least {needed} calibration draws, so that its rate is within "
            f"{100 * tolerance:g} % of that with {100 * confidence:g} % confidence, and {LEAST_LEARNING} more that "
            f"scores learn from; there are {len(obs.y)}: pass {needed + LEAST_LEARNING}, or a larger alarm."
        )
    numbers = numbers_of(estimator, obs, chosen(estimator, obs, scores), batch, obs.y.ndim - 1)
    learned = learned_of({name: values[:learning] for name, values in numbers.items()})
    late = scores_of({name: values[learning:] for name, values in numbers.items()}, learned)
    probe = _apart(obs[:PROBES])
    with torch.no_grad():
        answer = estimator(probe.to(device_of(estimator))).x.cpu()
    return Monitor(
        estimator,
        learned,
        {name: values.sort().values for name, values in late.items()},
        probe,
        answer,
        fingerprint_of(estimator) or (None if probe.A is None or probe.A.varies else probe.A.fingerprint()),
        alarm,
        confidence,
        batch,
    )


def learning_share(count: int, needed: int) -> int:
    """How many of so many draws scores learn from, where as many as needed calibrate: a third, and at most 2000."""
    return min(max(LEAST_LEARNING, min(count // 3, USUAL_LEARNING)), count - needed)


def bearable(count: int, least: float = 0.01) -> float | None:
    """The least rate of false alarms, from this one on, that so many draws in all can bear; None if none of use.

    Example:
        >>> from fanfold.guard.monitoring import bearable
        >>> bearable(2000), bearable(1000), bearable(100)
        (0.01, 0.02, None)
    """
    rates = [rate for rate in (least, *BORNE) if rate >= least and draws_needed(rate) + LEAST_LEARNING <= count]
    return rates[0] if rates else None


def independent_draws(problem: Problem, count: int, seed: int) -> Pairs:
    """Draws that neither training nor tests saw, each with conditions of its own; fewer where fewer are stored.

    Draws that share conditions with others are not exchangeable with those to come, on which p-values rest: a problem
    that draws in groups is asked for one of each group at a time.
    """
    held_out = problem.held_out()
    if not offers(held_out, DrawnInGroups):
        return draw(held_out, count, seed, Stream.CALIBRATION, 1)
    parts = [
        draw(held_out, min(held_out.groups, count - first), seed, Stream.CALIBRATION, 2 + number)
        for number, first in enumerate(range(0, count, held_out.groups))
    ]
    x, obs = torch.cat([x for x, _ in parts]), parts[0][1]
    y = torch.cat([part.y for _, part in parts])
    each = [part.noise_var.expand(*part.y.shape[:-1], 1) for _, part in parts if part.noise_var is not None]
    return x, Observation.unchecked(y, obs.A, torch.cat(each) if each else None)


def _drawn(problem: Problem | Pairs, draws: int | None, needed: int, seed: int) -> Observation:
    if isinstance(problem, tuple):
        if draws is not None:
            raise ValueError(f"draws is {draws}, and there are pairs already: leave it out.")
        return problem[1]
    count = USUAL_LEARNING + max(needed, USUAL_CALIBRATION) if draws is None else draws
    if count < LEAST_LEARNING + needed:  # refused before anything is drawn
        return Observation.unchecked(torch.empty(max(0, count), 0))
    return independent_draws(problem, count, seed)[1]


def _apart(obs: Observation) -> Observation:
    """An observation that holds no more memory than it needs."""
    return Observation.unchecked(obs.y.clone(), obs.A, obs.noise_var)
