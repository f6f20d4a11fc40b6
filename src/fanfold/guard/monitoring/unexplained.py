"""What the estimate does not explain of the measurements, where no operator says it: learned from draws.

A ridge regression on radial features of the estimate (Broomhead & Lowe, 1988), whose weight is that of the least
leave-one-out error (Allen, 1974).
"""

from typing import ClassVar

import torch
from torch import Tensor

from fanfold.estimators.posterior.features import ridge
from fanfold.guard.monitoring.answered import Answered
from fanfold.guard.monitoring.distance import Learned, components, distance, learn_distance

MOST_UNKNOWNS = 16  # real ones, beyond which so few radial features say nothing of the measurements
CENTRES = 300
DIRECTIONS = 3  # principal ones of the features, which stand for what else than the unknowns moves measurements


class Unexplained:
    """The distance of `features(y) - E[features(y) | x_hat, u]` from that of usual draws, u three principal features.

    A cloud of measurements of few parameters, wanted or nuisance, is thin: what lies beside it, though within its
    reach, is seen once the part that the parameters make is taken away. One score for any simulator.

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
        count = torch.full_like(x[:, :1], float(x.shape[-1]))
        return torch.cat([seen.features, x, count], -1)

    def learn(self, numbers: Tensor) -> dict[str, Tensor]:
        """The regression, and the distance of what it leaves of draws that it was not fitted to."""
        features, x = _split(numbers, int(numbers[0, -1].item()))
        mean = features.mean(0)
        count = max(1, min(DIRECTIONS, features.shape[1] // 4))
        learned = {"mean": mean, "directions": components(features - mean, count)}
        given = _given(features, x, learned)
        learned |= {"middle": given.mean(0), "spread": given.std(0).clamp_min(1e-12)}
        rows = torch.linspace(0, len(given) - 1, min(CENTRES, len(given) // 4)).long()
        learned["centres"] = ((given - learned["middle"]) / learned["spread"])[rows]
        z = _radial(given, learned)
        learned["z_mean"] = z.mean(0)
        W, left_out = ridge(z - learned["z_mean"], features - mean)
        return learned | {"W": W} | {f"left/{k}": v for k, v in learn_distance(left_out).items()}

    def of(self, numbers: Tensor, learned: Learned) -> Tensor:
        """The distance, `(count,)`."""
        features, x = _split(numbers, len(learned["middle"]) - learned["directions"].shape[1])
        z = _radial(_given(features, x, learned), learned)
        explained = learned["mean"] + (z - learned["z_mean"]) @ learned["W"].mT
        left = {name.removeprefix("left/"): t for name, t in learned.items() if name.startswith("left/")}
        return distance(features - explained, left)


def _split(numbers: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Features and n unknowns."""
    return numbers[:, : -1 - n], numbers[:, -1 - n : -1]


def _given(features: Tensor, x: Tensor, learned: Learned) -> Tensor:
    """The unknowns and the principal features, `(count, n + directions)`."""
    return torch.cat([x, (features - learned["mean"]) @ learned["directions"]], -1)


def _radial(given: Tensor, learned: Learned) -> Tensor:
    """Linear and Gaussian functions of standardised numbers, `(count, n + directions + centres)`."""
    at = (given - learned["middle"]) / learned["spread"]
    centres = learned["centres"]
    near = at.square().sum(-1, keepdim=True) + centres.square().sum(-1) - 2 * at @ centres.mT
    return torch.cat([at, torch.exp(-near.clamp_min(0.0) / at.shape[-1])], -1)
