"""What scores read of many observations, and what they learn of usual ones."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from fanfold.core.settings import check_known
from fanfold.estimators.base import device_of
from fanfold.guard.answers import part
from fanfold.guard.monitoring.answered import Answered
from fanfold.guard.monitoring.combined import learn_surprise, surprise
from fanfold.guard.monitoring.distance import Learned
from fanfold.guard.monitoring.registry import COMBINED, COSTLY, SCORES
from fanfold.guard.monitoring.scores import LearnedOf
from fanfold.observation import Estimate, Estimator, Observation

NEGLIGIBLE = 0.01  # of a usual distance, below which two are the same


def scores_of(numbers: Mapping[str, Tensor], learned: LearnedOf) -> dict[str, Tensor]:
    """The scores of what was read, by name, and the combined one, `(count,)` each."""
    each = {name: _score(name, values, learned[name]) for name, values in numbers.items()}
    surprises = torch.stack([surprise(s.nan_to_num(nan=torch.inf), learned[name]) for name, s in each.items()])
    return each | {COMBINED: surprises.amax(0)}


def _score(name: str, numbers: Tensor, learned: Learned) -> Tensor:
    """A score, of which what is next to nothing ties: it would tell the rounding of one batch size from another's."""
    return SCORES[name].of(numbers, learned).clamp_min(NEGLIGIBLE)


def learned_of(numbers: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """What each score learns of the first half, and its tail from the second."""
    learned = {}
    for name, values in numbers.items():
        values = values[torch.isfinite(values).all(-1)]
        half = len(values) // 2
        usual = SCORES[name].learn(values[:half])
        learned[name] = usual | learn_surprise(_score(name, values[half:], usual))
    return learned


def chosen(estimator: Estimator, obs: Observation, names: Sequence[str] | None) -> list[str]:
    """The names of the scores that are asked for; all that are offered but the costly ones if None.

    Raises:
        ValueError: If one is unknown or not offered, or none is asked for.
    """
    with torch.no_grad():
        seen = Answered(estimator, obs[:2].to(device_of(estimator)))
        offered = [name for name, score in SCORES.items() if score.offered(seen)]
    if names is None:
        return [name for name in offered if name not in COSTLY]
    check_known(names, list(SCORES), "there is no score {!r}; take some of {}.")
    for name in names:
        if name not in offered:
            raise ValueError(f"the score {name!r} needs what is not there; this estimator offers {', '.join(offered)}.")
    if not names:
        raise ValueError(f"scores is empty; take some of {', '.join(offered)}.")
    return list(dict.fromkeys(names))


@torch.no_grad()
def numbers_of(
    estimator: Estimator,
    obs: Observation,
    names: Sequence[str],
    batch: int,
    axes: int,
    estimate: Estimate | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
) -> dict[str, Tensor]:
    """What the scores read of many observations of so many axes each: `(count, d)` each score, on the CPU.

    The estimator sees so many at a time, on its own device; `on_estimate` gets the estimates of each batch.
    """
    obs = obs.to(device_of(estimator))
    one = obs.y.ndim == axes or len(obs.y) <= batch
    blocks = [obs] if one else [obs[i : i + batch] for i in range(0, len(obs.y), batch)]
    parts = []
    for i, block in enumerate(blocks):
        given = estimate if one or estimate is None else part(estimate, slice(i * batch, (i + 1) * batch))
        seen = Answered(estimator, block, given)
        parts.append({name: SCORES[name].read(seen).cpu() for name in names})
        if on_estimate is not None:
            on_estimate(seen.estimate)
    return {name: torch.cat([each[name] for each in parts]) for name in names}
