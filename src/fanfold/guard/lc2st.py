"""Whether posterior draws are draws of the posterior at given observations. Linhart, Gramfort & Rodrigues (2023).

"L-C2ST: local diagnostics for posterior approximations in simulation-based inference": a classifier tells true
parameters from draws of their posteriors, given y; where it can, the posterior is wrong. This one is quick enough to be
trained hundreds of times: a perceptron learns features from one part of the pairs, and from the others a least-squares
classifier of these features is fitted about each observation (Kanamori, Hido & Sugiyama, 2009, eq. 8).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream, generator_of
from fanfold.guard.answers import Pairs, calibration_draws
from fanfold.guard.classifier_features import FAR, Shown, learned_features
from fanfold.guard.sbc import Sampler, real
from fanfold.observation import Observation, check_finite
from fanfold.problems import Problem

LEAST_SAMPLES = 100
LEARNING_SHARE = 0.4  # of the pairs, from which features are learned; the others test
NEAR_SHARE = 0.2  # of the other pairs that count, as an effective number, about an observation
FREEDOM = 10.0  # effective number of features that a classifier takes
STANDARDISING = 64  # draws that tell mean and covariance of a posterior
EVALUATED = 300  # draws from the posterior of an observation, over which the statistic is a mean


@dataclass(frozen=True)
class LC2ST:
    """A local classifier two-sample test: the statistic at each observation beside those of permuted labels.

    Attributes:
        statistic: The mean square of `p / q - 1` over draws of q, as the classifier has it, `(observations,)`: near
            zero where the posterior q is right.
        null: The same of classifiers whose labels were permuted, `(nulls, observations)`.

    Example:
        >>> import fanfold as ff, torch
        >>> null = torch.arange(99.0)[:, None].expand(-1, 2)
        >>> result = ff.guard.LC2ST(torch.tensor([50.0, 200.0]), null)
        >>> print(result.sentence)
        The posterior is told from the truth at 1 of 2 observations (p at most 0.05): number 1.
    """

    statistic: Tensor
    null: Tensor

    @property
    def p_values(self) -> Tensor:
        """The share of null statistics that are no smaller, `(observations,)`; at least one over their number and 1."""
        larger = (self.null >= self.statistic).sum(0)
        return (1 + larger).double() / (1 + len(self.null))

    @property
    def p_value(self) -> float:
        """The least p-value of all observations, times their number (Bonferroni)."""
        return min(1.0, self.p_values.min().item() * len(self.p_values))

    def quantile(self, level: float = 0.95) -> Tensor:
        """What the statistic stays below with a probability where the posterior is right, `(observations,)`."""
        return self.null.quantile(level, dim=0)

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        wrong = (self.p_values <= 0.05).nonzero().flatten().tolist()
        count = len(self.statistic)
        if not wrong:
            where = "the observation" if count == 1 else f"any of {count} observations"
            return f"The posterior is not told from the truth at {where} (every p above 0.05)."
        numbers = ", ".join(map(str, wrong[:10])) + (", …" if len(wrong) > 10 else "")
        plural = "number" if len(wrong) == 1 else "numbers"
        return (
            f"The posterior is told from the truth at {len(wrong)} of {count} observations (p at most 0.05): "
            f"{plural} {numbers}."
        )


@checks_arguments
def lc2st(
    sampler: Sampler,
    problem: Problem | Pairs,
    obs: Observation,
    *,
    samples: int = 1000,
    draws: int = 16,
    nulls: int = 200,
    batch: int = 1000,
    seed: int = 0,
) -> LC2ST:
    """Test a posterior at given observations, by a classifier that has pairs of the whole problem.

    Unlike simulation-based calibration it says where a posterior is wrong, and the prior in place of the posterior does
    not pass. Of each observation's truth and draws any may be the truth, if q is right: labels are permuted among
    them, and where q is right everywhere the p-value is exact. Where it is wrong elsewhere, the test is as local as
    observations are near to each other; in many dimensions of y none are.

    Args:
        sampler: The sampler of the posterior q.
        problem: A problem, whose draws are true parameters and observations, or pairs of them.
        obs: The observations to test at, in a batch; those of the pairs must be of the same shape.
        samples: The number of true parameters, of a problem.
        draws: The number of draws from q that stand beside each of them.
        nulls: The number of permutations of the labels.
        batch: How many observations the sampler sees at a time.
        seed: The seed of all draws, of the labels, and of the perceptron.

    Raises:
        ValueError: If there are fewer than 100 true parameters, no draws or permutations, or observations that do not
            fit, or the sampler gives something else than finite draws.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.LinearGaussian(n=1, m=1, snr_db=10.0)
        >>> class Prior:
        ...     def sample(self, obs, count, generator):
        ...         return torch.randn(count, len(obs.y), 1, generator=generator)
        >>> _, obs = problem.sample(2, torch.Generator().manual_seed(0))
        >>> ff.guard.lc2st(Prior(), problem, obs, samples=300, nulls=99).p_value <= 0.05
        True
    """
    x, seen = calibration_draws(problem, samples, seed)
    if len(x) < LEAST_SAMPLES or min(draws, nulls) < 1:
        raise ValueError(
            f"there are {len(x)} true parameters, draws is {draws} and nulls {nulls}; pass at least {LEAST_SAMPLES} "
            "true parameters, and draws and nulls from 1."
        )
    if obs.y.shape[1:] != seen.y.shape[1:] or obs.y.ndim < 2:
        raise ValueError(f"obs.y is {tuple(obs.y.shape)}; pass a batch of shape (..., {tuple(seen.y.shape[1:])}).")
    truth, first = real(x).double(), round(LEARNING_SHARE * len(x))
    shown = Shown(seen[:first], truth[:first])
    parts = [
        standardised(sampler, seen[part], draws, generator_of(seed, Stream.POSTERIOR, 1 + part.start), truth[part])
        for part in (slice(i, i + batch) for i in range(0, len(x), batch))
    ]
    rows = torch.cat(parts, 1)
    v, at = shown.numbers(seen), shown.numbers(obs)
    features = learned_features(rows[:, :first], v[:first], seed)
    evaluated = standardised(sampler, obs, EVALUATED, generator_of(seed, Stream.POSTERIOR, 0))
    if (certain := (evaluated == evaluated[0]).all(-1).all(0)).any():
        raise ValueError(
            f"the sampler says one value alone at observation {int(certain.nonzero()[0])}: nothing can be tested; "
            "its posterior there is a point."
        )
    tested, labels = features(rows[:, first:], v[first:]), _labels(draws, len(x) - first, nulls, seed)
    by_row = torch.einsum("kni,knj->nij", tested, tested) / len(tested)
    chosen = torch.stack([tested[label, torch.arange(len(label))] for label in labels])  # (1 + nulls, pairs, features)
    statistics = [
        _statistic(nearness(v[first:], place), by_row, chosen, phi)
        for place, phi in zip(at, features(evaluated, at).unbind(1))
    ]
    result = torch.stack(statistics, -1)
    return LC2ST(result[0], result[1:])


def _labels(draws: int, pairs: int, nulls: int, seed: int) -> Tensor:
    """Which row of each pair passes for the truth: the first, and any in each permutation, `(1 + nulls, pairs)`."""
    permuted = torch.randint(1 + draws, (nulls, pairs), generator=generator_of(seed, Stream.PROBES, 0))
    return torch.cat([torch.zeros(1, pairs, dtype=torch.long), permuted])


def _statistic(weight: Tensor, by_row: Tensor, chosen: Tensor, phi: Tensor) -> Tensor:
    """The mean square of the density ratio less one at an observation, for each set of labels, `(1 + nulls,)`.

    Ridge regression `w = (G + lam I)⁻¹ h`, with G the covariance of features under q, which no label changes, and h
    their mean over what passes for the truth; lam leaves as many features as `FREEDOM` says.

    Args:
        weight: How much each pair counts, `(pairs,)`, of sum one.
        by_row: The covariance of features of each pair, `(pairs, features, features)`.
        chosen: Features of what passes for the truth, `(1 + nulls, pairs, features)`.
        phi: Features of draws at the observation, `(draws, features)`.
    """
    values, V = torch.linalg.eigh(torch.einsum("n,nij->ij", weight, by_row))
    values = values.clamp_min(0)
    lams = values[-1].clamp_min(1e-300) * torch.logspace(-12, 3, 301, dtype=values.dtype)
    kept = (values / (values + lams[:, None])).sum(-1)
    lam = lams[(kept - min(FREEDOM, len(values) / 2)).abs().argmin()]
    means = torch.einsum("n,hni->hi", weight, chosen) @ V
    return (means / (values + lam) @ (phi @ V).mT).square().mean(-1)


def nearness(v: Tensor, place: Tensor) -> Tensor:
    """How near each observation is to one: Gaussian weights of sum one, whose effective number is a share of all."""
    far = (v - place).square().sum(-1)
    far = far - far.min()
    goal, low, high = NEAR_SHARE * len(v), 1e-4, 1e4
    for _ in range(60):
        middle = math.sqrt(low * high)
        weight = torch.exp(-far / (2 * middle**2))
        low, high = (middle, high) if weight.sum() ** 2 / weight.square().sum() < goal else (low, middle)
    return weight / weight.sum()


def standardised(
    sampler: Sampler, obs: Observation, count: int, generator: torch.Generator, truth: Tensor | None = None
) -> Tensor:
    """The truth, if there is one, and draws from q, whitened by q's mean and covariance at each observation.

    Returns:
        `(rows, samples, n)` in double precision; mean and covariance come from further draws.
    """
    z = real(sampler.sample(obs, count + STANDARDISING, generator)).double()
    shape = (count + STANDARDISING, len(obs.y))
    if z.ndim != 3 or z.shape[:2] != shape or (truth is not None and z.shape[-1] != truth.shape[-1]):
        n = "n" if truth is None else truth.shape[-1]
        raise ValueError(f"the sampler gives {tuple(z.shape)}; pass draws of shape ({shape[0]}, {shape[1]}, {n}).")
    check_finite("a draw of the sampler", z)
    reference, rows = z[:STANDARDISING], z[STANDARDISING:]
    rows = rows if truth is None else torch.cat([truth[None], rows])
    mean = reference.mean(0)
    error = reference - mean
    spread = error.square().mean(0)
    least = 1e-12 * (mean.square().mean(0) + spread.mean(0)).clamp_min(1e-300)  # where q says one value alone
    C = torch.einsum("kni,knj->nij", error, error) / len(error)
    alone = torch.diag_embed(spread + least)
    share = min(1.0, z.shape[-1] / STANDARDISING)  # few draws know no correlations
    L = torch.linalg.cholesky((1 - share) * C + (share + 1e-6) * alone)
    white = torch.linalg.solve_triangular(L, (rows - mean).unsqueeze(-1), upper=False).squeeze(-1)
    return white.clamp(-FAR, FAR)
