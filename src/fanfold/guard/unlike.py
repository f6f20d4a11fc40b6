"""Whether observations are like those of the training: a sentence about those that are not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fanfold.guard.monitoring.sentences import places_of
from fanfold.observation import Estimate, Observation
from fanfold.runs.usual import NORM, RESIDUAL, numbers_of

REACH = 3.0  # distances from the median to the 1 % or 99 % quantile that are still usual: 7 deviations of a Gaussian
SLACK = 0.05  # of a value, or of a decade of the norm, that is usual in any case


@runtime_checkable
class TrainingGuard(Protocol):
    """What knows the training of a network, and says where an observation or its estimate is unlike it.

    Example:
        >>> import fanfold as ff
        >>> class Trusting:
        ...     def remarks(self, obs, estimate):
        ...         return []
        >>> isinstance(Trusting(), ff.guard.TrainingGuard)
        True
    """

    def remarks(self, obs: Observation, estimate: Estimate) -> list[str]:
        """Sentences, each about some samples; none where all is as it was."""
        ...


@dataclass(frozen=True)
class UsualRange:
    """Ranges of numbers that are read off each observation and its estimate, from quantiles over held-out draws.

    A range reaches three times as far from the median as the 1 % and the 99 % quantile. The numbers are the norm of y,
    the residual and the values of the estimate. This sees what is grossly unlike, and no drift. Of less than 30 draws
    no range is known, and there are no remarks.

    Attributes:
        net: The network.
        usual: What a run keeps: `draws`, and `quantiles` of each number at 1, 50 and 99 %.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.runs.usual import usual_of
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> x, obs = problem.sample(100, torch.Generator().manual_seed(0))
        >>> guard = ff.guard.UsualRange(net, usual_of(net, obs))
        >>> far = ff.Observation(1000 * obs.y, problem.A)
        >>> guard.remarks(obs, net(obs)), len(guard.remarks(far, net(far))) > 0
        ([], True)
    """

    net: nn.Module
    usual: Mapping[str, Any]

    def remarks(self, obs: Observation, estimate: Estimate) -> list[str]:
        """A sentence for each number that is out of its range somewhere."""
        numbers, sentences = numbers_of(self.net, obs, estimate), []
        for name, (low, median, high) in self.usual["quantiles"].items():
            if name not in numbers:
                continue
            values = numbers[name]
            slack = SLACK * (1 if name == NORM else max(abs(low), abs(high)))  # where it hardly varied
            least = -torch.inf if name == RESIDUAL else median - max(REACH * (median - low), slack)
            most = median + max(REACH * (high - median), slack)
            outside = ~((values >= least) & (values <= most))  # NaN is
            if outside.any():
                sentences.append(self._sentence(name, values, outside, low, high))
        return sentences

    def _sentence(self, name: str, values: Tensor, outside: Tensor, low: float, high: float) -> str:
        ends = [values[outside].min().item(), values[outside].max().item()]
        if name == NORM:
            name, ends, (low, high) = "the norm of y", [10**end for end in ends], (10**low, 10**high)
        now = f"{ends[0]:.4g}" if ends[0] == ends[1] else f"{ends[0]:.4g} to {ends[1]:.4g}"
        return (
            f"{places_of(outside)} are unlike the training: {name} is {now}, and was {low:.4g} to {high:.4g} in "
            f"98 % of the {self.usual['draws']} draws that it was judged by; do not trust their estimates, nor "
            "intervals around them."
        )
