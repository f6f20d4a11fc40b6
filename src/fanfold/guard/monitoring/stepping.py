"""One call of a monitor as tensors alone, the state of its martingale going in and out: what exports.

The same p-values as `Monitor` and the same bets as `MartingaleWatch`, for streams side by side; tests compare both.
"""

import torch
from torch import Tensor

from fanfold.guard.monitoring.answered import Answered
from fanfold.guard.monitoring.conditional import band
from fanfold.guard.monitoring.monitor import Monitor
from fanfold.guard.monitoring.reading import scores_of
from fanfold.guard.monitoring.registry import COMBINED, SCORES
from fanfold.guard.monitoring.streams import BETS, MartingaleWatch
from fanfold.observation import Estimate, Observation

MOST_KEPT = 1e30  # wealth beyond which nothing is decided, within single precision
BLOCK = 2.0**20  # calls are counted in these and the rest, as single precision holds no count of all


class MonitorStep:
    """The combined score's p-value of one call of each stream, and the bets on it.

    The p-value is `(1 + scores of calibration that are as large) / (n + 1)`. `Monitor` draws ties by lot; here all of
    them count, so that the p-value is that of `Monitor` without ties and an upper bound of it with them, which is valid
    too.

    Args:
        monitor: The monitor, around the estimator that it watches.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import MonitorStep
        >>> problem, oamp = ff.problems.CompressedSensing(n=40, m=20), ff.iterate(ff.algorithms.OAMP(), 5)
        >>> usual = ff.guard.monitor(oamp, problem, alarm=0.05, draws=800)
        >>> _, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> estimate, rank = MonitorStep(usual).judged(obs)
        >>> torch.equal(rank / (usual.draws + 1), usual.p_values(obs))
        True
    """

    def __init__(self, monitor: Monitor):
        self.monitor, self.estimator = monitor, monitor.estimator
        self.scores = monitor.calibration[COMBINED]
        ranks, bounds = band(monitor.draws, monitor.confidence)
        lifted = torch.cat([bounds, torch.ones(1, dtype=torch.float64)])
        bets = torch.tensor(BETS, dtype=torch.float64)
        self.ranks, self.bets = ranks, bets * lifted[:, None] ** (bets - 1)

    def judged(self, obs: Observation) -> tuple[Estimate, Tensor]:
        """The estimate of finite measurements, y `(streams, ...)`, and the rank of each from 1 on, `(streams,)`."""
        seen = Answered(self.estimator, obs)
        score = scores_of({name: SCORES[name].read(seen) for name in self.monitor.learned}, self.monitor.learned)
        combined = torch.where(score[COMBINED].isnan(), torch.inf, score[COMBINED])
        return seen.estimate, (self.scores >= combined[:, None]).float().sum(-1).double() + 1

    def p_values(self, ranks: Tensor) -> Tensor:
        """The p-values of ranks."""
        return ranks / (self.monitor.draws + 1)

    def after(self, watch: Tensor, ranks: Tensor) -> Tensor:
        """The state of the martingale, `(streams, 8)`, after one more call of each stream."""
        wealth, largest, low, high = watch.split([len(BETS), 1, 1, 1], -1)
        calls = low + BLOCK * high
        begun = _reserve(calls) - _reserve(calls + 1)
        factors = self.bets[(self.ranks < ranks[:, None]).sum(-1)]
        wealth = ((wealth + begun) * factors).clamp_max(MOST_KEPT)
        total = wealth.mean(-1, keepdim=True) + _reserve(calls + 1)
        carried = (low + 1 >= BLOCK).double()
        state = [wealth, torch.maximum(largest, total), (low + 1) * (1 - carried), high + carried]
        return torch.cat(state, -1)

    def alarmed(self, watch: Tensor) -> Tensor:
        """Whether each stream has alarmed, `(streams, 1)`."""
        return watch[:, len(BETS) : len(BETS) + 1] >= 1 / self.monitor.alarm


def remembered_watch(watch: MartingaleWatch) -> Tensor:
    """The state of one stream as `MonitorStep` takes it, `(8,)`: wealth of each bet, the largest, and calls."""
    high, low = divmod(float(watch.calls), BLOCK)
    counts = torch.tensor([low, high], dtype=torch.float64)
    return torch.cat([watch.wealth, watch.largest.reshape(1), counts]).clamp_max(MOST_KEPT)


def _reserve(calls: Tensor) -> Tensor:
    """As in `streams`: the share of the wealth whose bets have not begun."""
    return 1 / (1 + calls.log1p())
