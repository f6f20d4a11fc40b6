"""Whether measurements look like what the posterior predicts of them. Rubin (1984); Gelman, Meng & Stern (1996)."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fanfold.core.abilities import ability, require
from fanfold.core.settings import checks_arguments
from fanfold.core.streams import Stream, generator_of
from fanfold.guard.sbc import Sampler, real
from fanfold.observation import Observation, check_finite
from fanfold.problems.protocols import Counted, DrawsAt

LEAST_DRAWS = 19
FAR = 0.01  # p-values at most this large are said


@dataclass(frozen=True)
class Predictive:
    """Ranks of observed measurements among those that are simulated again at draws of their posterior.

    As the posterior has seen the observation, p-values are not uniform where all is right, but larger (Meng, 1994):
    small ones are rarer than they say, and mean the more.

    Attributes:
        p_values: Of each observation as a whole, `(observations,)`: the share of replicated ones that are no nearer to
            the middle of them all, by Mahalanobis' distance.
        feature_p_values: Of each entry by itself, two-sided, `(observations, entries)`; complex ones are real parts and
            then imaginary parts.
        draws: How many replications there are of each observation.
        failures: How many runs of the simulator failed, by kind, and were left out.

    Example:
        >>> import fanfold as ff, torch
        >>> result = ff.guard.Predictive(torch.tensor([0.4, 0.005]), torch.ones(2, 3), torch.tensor([199, 199]))
        >>> print(result.sentence)
        1 of 2 observations is unlike what its posterior predicts (p at most 0.01): number 1.
    """

    p_values: Tensor
    feature_p_values: Tensor
    draws: Tensor
    failures: Mapping[str, int] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The verdict in words, with the runs that failed."""
        unlike, count = (self.p_values <= FAR).nonzero().flatten().tolist(), len(self.p_values)
        failed = ", ".join(f"{number} {kind}" for kind, number in self.failures.items())
        rest = f" Of the simulator's runs some failed and are left out ({failed})." if failed else ""
        if not unlike:
            said = "The observation is" if count == 1 else f"All {count} observations are"
            return f"{said} like what the posterior predicts (p above {FAR:g}).{rest}"
        numbers = ", ".join(map(str, unlike[:10])) + (", …" if len(unlike) > 10 else "")
        verb, word = ("is", "number") if len(unlike) == 1 else ("are", "numbers")
        whose = "its posterior predicts" if len(unlike) == 1 else "their posteriors predict"
        observations = "observation" if count == 1 else "observations"
        return (
            f"{len(unlike)} of {count} {observations} {verb} unlike what {whose} (p at most {FAR:g}): "
            f"{word} {numbers}.{rest}"
        )


@checks_arguments
def predictive(sampler: Sampler, problem: object, obs: Observation, *, draws: int = 199, seed: int = 0) -> Predictive:
    """Posterior predictive check: draw parameters of each observation's posterior, and simulate y again.

    It takes no truth, so that it judges real measurements: one that is unlike all replications comes of a fault, or of
    a process that the problem is not. A posterior that is merely too wide hardly shows; see `lc2st`.

    Args:
        sampler: The sampler of the posterior.
        problem: A problem that draws observations at given parameters (`DrawsAt`): simulators and programs, and
            problems with a known model. Runs that fail are counted and left out.
        obs: Observations, in a batch.
        draws: How many parameters are drawn of each posterior; their number bounds the p-values from below.
        seed: The seed of all draws.

    Raises:
        ValueError: If the problem draws nothing at given parameters, all runs of an observation fail, there are fewer
            than 19 draws, or observations have another shape than what the problem draws.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.Denoising(ff.priors.Gaussian(1.0), snr_db=0.0)
        >>> class Exact:
        ...     def sample(self, obs, count, generator):
        ...         said = problem.posterior(obs)
        ...         return said.x + said.var.sqrt() * torch.randn(count, *said.x.shape, generator=generator)
        >>> obs = ff.Observation(torch.tensor([[1.0], [9.0]]))
        >>> (ff.guard.predictive(Exact(), problem, obs).p_values <= 0.01).tolist()
        [False, True]
    """
    instead = "Take a problem with sample_at(x, generator), such as a simulator; stored pairs have none."
    at = require(problem, DrawsAt, "predictive", instead)
    if draws < LEAST_DRAWS:
        raise ValueError(f"draws is {draws}; pass at least {LEAST_DRAWS}, whose least p-value is 0.05.")
    if obs.y.ndim < 2:
        raise ValueError(f"obs.y is {tuple(obs.y.shape)}; pass a batch, of one observation too: y[None].")
    counted = ability(problem, Counted)
    before = Counter() if counted is None else Counter(counted.failures)
    x = sampler.sample(obs, draws, generator_of(seed, Stream.POSTERIOR, 0))
    if x.shape[:2] != (draws, len(obs.y)):
        raise ValueError(f"the sampler gives {tuple(x.shape)}; pass draws of shape ({draws}, {len(obs.y)}, n).")
    check_finite("a draw of the sampler", x)
    rows = []
    for i, observed in enumerate(real(obs.y.flatten(1))):
        y = at.sample_at(x[:, i], generator_of(seed, Stream.SIMULATION, 1 + i))[1].y
        if y.shape[1:] != obs.y.shape[1:]:
            raise ValueError(f"the problem draws y of shape {tuple(y.shape[1:])} and obs has {tuple(obs.y.shape[1:])}.")
        replicated = real(y.flatten(1))
        rows.append((*_ranked(observed, replicated, generator_of(seed, Stream.PROBES, 1 + i)), len(y)))
    overall, entries, counts = zip(*rows)
    failures = {} if counted is None else dict(Counter(counted.failures) - before)
    return Predictive(torch.tensor(overall, dtype=torch.float64), torch.stack(entries), torch.tensor(counts), failures)


def _ranked(observed: Tensor, replicated: Tensor, generator: torch.Generator) -> tuple[float, Tensor]:
    """The p-value of the whole and those of the entries, from ranks among replications `(draws, entries)`.

    The observed one takes part in the middle, the spread and the correlations that all are held against, so that each
    is treated alike. Ties are broken at random.
    """
    together = torch.cat([observed[None], replicated]).double()
    count = len(together)
    below, equal = (together[1:] < together[0]).sum(0), (together[1:] == together[0]).sum(0)
    rank = below + ((equal + 1) * torch.rand(equal.shape, generator=generator, dtype=torch.float64)).long()
    entries = (2 * torch.minimum(rank + 1, count - rank).double() / count).clamp_max(1.0)
    distance = distances(together)
    nearer = (distance[1:] > distance[0]).sum() + ((distance[1:] == distance[0]).sum() + 1) * torch.rand(
        (), generator=generator, dtype=torch.float64
    )
    return (1 + int(nearer)) / count, entries


def distances(rows: Tensor) -> Tensor:
    """Mahalanobis' distance of each row `(rows, m)` from the median of all, in units of the middle half's width.

    Correlations of many entries that few rows tell are drawn towards none.
    """
    centred = rows - rows.median(0).values
    low, high = rows.quantile(torch.tensor([0.25, 0.75], dtype=rows.dtype), dim=0)
    spread, deviation = high - low, rows.std(0)
    scale = torch.where(spread > 0, spread / 1.349, torch.where(deviation > 0, deviation, 1.0))  # 1.349 of a Gaussian
    z = centred / scale
    C = z.mT @ z / len(z)
    share = rows.shape[-1] / (rows.shape[-1] + len(rows))
    C = (1 - share) * C + share * torch.diag(C.diagonal()) + 1e-9 * torch.eye(len(C), dtype=C.dtype)
    return torch.linalg.solve_triangular(torch.linalg.cholesky(C), z.mT, upper=False).square().sum(0)
