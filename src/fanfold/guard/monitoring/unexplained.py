"""What the estimate does not explain of the measurements, where no operator says it: learned from draws.

A ridge regression on radial features of the estimate (Broomhead & Lowe, 1988), whose weight is that of the least
leave-one-out error (Allen, 1974).
"""

from typing import ClassVar

import torch
from torch import Tensor

from fanfold.estimators.posterior.features import ridge
from fanfold.guard.monitoring import distance as mahalanobis
from fanfold.guard.monitoring.answered import Answered
from fanfold.guard.monitoring.distance import Learned

MOST_UNKNOWNS = 16  # real ones, beyond which so few radial features say nothing of the measurements
CENTRES = 150


class Unexplained:
    """The distance of `features(y) - E[features(y) | x_hat]` from that of usual draws.

    A cloud of measurements of few parameters is thin: what lies beside it, though within its reach, is seen once the
    part that the parameters make is taken away. One score for any simulator.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.guard.monitoring import Answered, Unexplained
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> net = ff.neural(problem, width=4)
        >>> net.prepare(*problem.sample(200, torch.Generator().manual_seed(0)))
        >>> seen = Answered(net, problem.sample(200, torch.Generator().manual_seed(1))[1])
        >>> score = Unexplained()
        >>> numbers = score.read(seen)
        >>> score.of(numbers, score.learn(numbers)).shape
        torch.Size([200])
    """

    sees: ClassVar[str] = "contaminated measurements, other noise and other nuisance parameters of a simulator"

    def offered(self, seen: Answered) -> bool:
        """Where unknowns are few and measurements more."""
        n = seen.estimate.x.shape[-1] * (2 if seen.estimate.x.is_complex() else 1)
        return n <= MOST_UNKNOWNS and n < seen.features.shape[-1]

    def read(self, seen: Answered) -> Tensor:
        """The features of y, and behind them the real parts of the estimate and their number."""
        x = seen.estimate.x
        x = (torch.cat([x.real, x.imag], -1) if x.is_complex() else x).double()
        count = torch.full((len(x), 1), float(x.shape[-1]), dtype=torch.float64)
        return torch.cat([seen.features, x, count.to(x.device)], -1)

    def learn(self, numbers: Tensor) -> dict[str, Tensor]:
        """The regression, and the distance of what it leaves of draws that it was not fitted to."""
        features, x = _split(numbers)
        middle, spread = x.mean(0), x.std(0).clamp_min(1e-12)
        rows = torch.linspace(0, len(x) - 1, min(CENTRES, len(x) // 5)).long()
        learned = {"middle": middle, "spread": spread, "centres": ((x - middle) / spread)[rows]}
        z = _radial(x, learned)
        learned |= {"z_mean": z.mean(0), "mean": features.mean(0)}
        W, left_out = ridge(z - learned["z_mean"], features - learned["mean"])
        return learned | {"W": W} | {f"left/{k}": v for k, v in mahalanobis.learn_distance(left_out).items()}

    def of(self, numbers: Tensor, learned: Learned) -> Tensor:
        """The distance, `(count,)`."""
        features, x = _split(numbers)
        explained = learned["mean"] + (_radial(x, learned) - learned["z_mean"]) @ learned["W"].mT
        left = {name.removeprefix("left/"): t for name, t in learned.items() if name.startswith("left/")}
        return mahalanobis.distance(features - explained, left)


def _split(numbers: Tensor) -> tuple[Tensor, Tensor]:
    n = int(numbers[0, -1].item())
    return numbers[:, : -1 - n], numbers[:, -1 - n : -1]


def _radial(x: Tensor, learned: Learned) -> Tensor:
    """Linear and Gaussian functions of the standardised unknowns, `(count, n + centres)`."""
    at = (x - learned["middle"]) / learned["spread"]
    near = torch.cdist(at, learned["centres"]).square()
    return torch.cat([at, torch.exp(-near / at.shape[-1])], -1)
