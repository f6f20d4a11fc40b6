"""An amortised posterior: a conditional normalising flow trained on pairs. Papamakarios & Murray (2016); Durkan et al.

(2019), spline flows; Papamakarios, Pavlakou & Murray (2017), masked autoregressive flows. The flows are zuko's.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from fanfold.core.settings import Checked, checks_arguments
from fanfold.estimators.posterior.closed_forms import LinearForm
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.real_parts import RealParts
from fanfold.measurements import takes_measurements
from fanfold.networks import DeepSet, PooledCNN
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Problem
from fanfold.problems.protocols import kind_of

Flow = Literal["spline", "affine"]
ROWS_AT_ONCE = 1 << 16  # that go through the flow
FULLY_AUTOREGRESSIVE = 2  # parameters; with more, a draw would take as many passes


@dataclass(frozen=True)
class FlowPosteriorSettings(Checked):
    """A conditional normalising flow that learns the posterior from draws: a `FlowPosterior`.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> import fanfold as ff
        >>> net = ff.estimators.FlowPosteriorSettings(transforms=1).build(ff.problems.LinearGaussian(n=2, m=3))
        >>> net.settings.transforms
        1
    """

    flow: Flow = "spline"  # Rational-quadratic splines, or affine masked autoregressive maps.
    transforms: int = 3  # Layers of the flow.
    width: int = 64  # Width of the two hidden layers of each transform's network.
    context: int = 32  # Numbers that sum up a sequence, picture or set; a vector goes in as it is.
    draws: int = 64  # Draws of the posterior for an estimate's mean and variance; even.
    network_seed: int = 0  # Seed of the starting weights, and of these draws.

    def __post_init__(self):
        if min(self.transforms, self.width, self.context) < 1 or self.draws < 2 or self.draws % 2:
            raise ValueError("transforms, width and context are at least 1, and draws an even number from 2.")

    def build(self, problem: Problem) -> "FlowPosterior":
        """The untrained posterior; two draws of the problem tell the shapes."""
        x, obs = problem.sample(2, torch.Generator().manual_seed(0))
        return FlowPosterior(Features(obs, kind_of(problem)), x, self)


class FlowPosterior(nn.Module):
    """`q(x|y)`: the posterior itself, to draw from, trained by `fit` with the loss `-log q(x|y)`.

    `x = linear(y) + L f⁻¹(z; y)` with `z ~ N(0, I)`: the best linear estimator, its error's covariance `L Lᵀ` and a
    flow f that starts as the identity, so that before training it is the posterior of the Gaussian with the same
    moments. Whether training has brought it to the posterior, `guard.sbc` says. It gives some probability to what lies
    outside the support of a bounded prior. Complex parameters go in as real and imaginary parts. Not scale-equivariant.

    Args:
        features: What the flow sees of an observation.
        x: Parameters as they are drawn, `(..., n)`.
        settings: All else.

    Raises:
        ImportError: If zuko is missing.

    Example:
        >>> import torch, fanfold as ff
        >>> problem = ff.problems.LinearGaussian(n=2, m=3)
        >>> flow, (_, obs) = ff.estimators.FlowPosterior.of(problem), problem.sample(4, torch.Generator())
        >>> flow.sample(obs, 10, torch.Generator()).shape
        torch.Size([10, 4, 2])
    """

    scale_equivariant: ClassVar[bool] = False
    training_defaults: ClassVar[dict[str, Any]] = {
        "steps": 3000,
        "batch": 256,
        "lr": 1e-3,
        "validate_every": 500,
        "validation_samples": 500,
    }

    factor: Tensor

    def __init__(self, features: Features, x: Tensor, settings: FlowPosteriorSettings):
        super().__init__()
        self.features, self.settings = features, settings
        self.real_parts, self.draws, self.seed = RealParts(x.is_complex()), settings.draws, settings.network_seed
        d = self.real_parts.count(x)
        shape, context = features.shape, settings.context
        self.embedding = self._make_embedding(shape, context, self.seed)
        summary = math.prod(shape) if features.kind == "vector" else context
        self.flow = make_flow(settings.flow, d, summary, settings.transforms, settings.width, self.seed)
        self.linear = LinearForm(features, d)
        self.register_buffer("factor", torch.eye(d))
        self.to(self.features.mean.dtype)

    @classmethod
    @checks_arguments
    def of(
        cls,
        problem: Problem,
        flow: Flow = "spline",
        *,
        transforms: int = 3,
        width: int = 64,
        context: int = 32,
        draws: int = 64,
        seed: int = 0,
    ) -> "FlowPosterior":
        """The untrained posterior for a problem.

        Args:
            problem: Two draws tell the shapes.
            flow: "spline" (rational-quadratic) or "affine" (masked autoregressive).
            transforms: Layers of the flow.
            width: Width of the two hidden layers of each transform's network.
            context: Numbers that a sequence, picture or set is summed up by; a vector goes in as it is.
            draws: Draws of the posterior, for the mean and the variance of an estimate; even.
            seed: Seed of the starting weights, and of these draws.

        Raises:
            ValueError: If a setting is out of range.
            ImportError: If zuko is missing.
        """
        return FlowPosteriorSettings(flow, transforms, width, context, draws, seed).build(problem)

    def _make_embedding(self, shape: tuple[int, ...], context: int, seed: int) -> nn.Module:
        if self.features.kind == "vector":
            return nn.Identity()
        if self.features.kind == "set":
            return DeepSet(shape[-1], context, seed=seed)
        return PooledCNN(shape, context, seed=seed)

    def prepare(self, x: Tensor, obs: Observation) -> None:
        """Standardise y, and x by the linear estimator and its error's covariance; training calls it once."""
        rows = self.linear.rows
        x, obs = x[:rows], obs[:rows]
        self.features.prepare(obs)
        fit = self.linear.fit(self.features(obs), self.real_parts.real(x))
        scale, error = fit.var.sqrt(), fit.error  # of samples left out: those fitted err less
        turned = error / error.square().mean(0).sqrt().clamp_min(torch.finfo(error.dtype).tiny)
        correlation = turned.mT @ turned / len(error)
        loading = 1e-6 * torch.eye(len(scale), dtype=error.dtype, device=error.device)
        self.factor.copy_(scale[:, None] * torch.linalg.cholesky(correlation + loading))

    def log_prob(self, obs: Observation, x: Tensor) -> Tensor:
        """`log q(x|y)` of x `(..., n)`, a density over real numbers: `(...)`."""
        leading, (base, context) = self.features.leading(obs), self._given(obs)
        x = self.real_parts.real(x).reshape(len(base), -1)
        whitened = torch.linalg.solve_triangular(self.factor, (x - base).mT, upper=False).mT
        log_q = self.flow(context).log_prob(whitened) - self.factor.diagonal().log().sum()
        return log_q.reshape(leading)

    def losses(self, obs: Observation, x: Tensor) -> Tensor:
        """`-log q(x|y)` in nats, `(batch,)`."""
        return -self.log_prob(obs, x).flatten()

    @torch.no_grad()
    def sample(self, obs: Observation, count: int, generator: torch.Generator) -> Tensor:
        """Independent draws of the posterior of each observation, `(count, ..., n)`."""
        leading, (base, context) = self.features.leading(obs), self._given(obs)
        z = torch.randn(count, *base.shape, generator=generator, dtype=base.dtype, device=generator.device)
        x = self._push(z.to(base.device), base, context)
        return self.real_parts.signal(x, (count, *leading))

    @takes_measurements
    def forward(self, obs: Observation) -> Estimate:
        """Mean and variance of the posterior `(..., n)`, from the same base draws for every observation.

        They come in pairs z and -z and have exactly the covariance I, so that a Gaussian posterior comes out exact.
        """
        leading, (base, context) = self.features.leading(obs), self._given(obs)
        z = _base_draws(self.seed, self.draws, base.shape[-1])[:, None].to(base).expand(-1, base.shape[0], -1)
        error = self._push(z, torch.zeros_like(base), context)  # without the base, beside which little may be rounding
        var = error.var(0, correction=0)
        mean = self.real_parts.signal(base + error.mean(0), leading)
        return Estimate(mean, self.real_parts.variance(var, leading))

    def _given(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """The linear estimate and what the flow sees of the observation, one row a sample."""
        z = self.features(obs)
        return self.linear(z), self.embedding(self.features.seen(z))

    def _push(self, z: Tensor, base: Tensor, context: Tensor) -> Tensor:
        """Base draws `(count, batch, d)` through the flow, so many at a time."""
        inverse = self.flow(context).transform.inv
        if torch.compiler.is_compiling():  # whoever runs the program says how many samples there are at once
            return base + inverse(z) @ self.factor.mT
        block = max(1, ROWS_AT_ONCE // len(base))
        return torch.cat([base + inverse(part) @ self.factor.mT for part in z.split(block)])


@lru_cache(maxsize=8)
def _base_draws(seed: int, draws: int, d: int) -> Tensor:
    """Draws `(draws, d)`, or more, in pairs z and -z, of covariance I; kept, so that no trace draws them."""
    half = torch.randn(max(draws // 2, d), d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    half = torch.linalg.qr(half).Q * len(half) ** 0.5
    return torch.cat([half, -half])


def make_flow(kind: Flow, features: int, context: int, transforms: int, width: int, seed: int) -> nn.Module:
    """A flow of zuko, whose networks end in zeros: it starts as the identity.

    Raises:
        ImportError: If zuko is missing.
    """
    try:
        from zuko import flows
    except ImportError as error:
        raise ImportError("a flow posterior needs zuko: pip install 'fanfold[posterior]'") from error
    passes = None if features <= FULLY_AUTOREGRESSIVE else 2  # two: coupling layers
    make = flows.NSF if kind == "spline" else flows.MAF
    with torch.random.fork_rng(devices=[]):  # zuko starts from the global generator
        torch.manual_seed(seed)
        flow = make(features, context, transforms=transforms, hidden_features=(width, width), passes=passes)
    transforms_made: Any = flow.transform.transforms
    for transform in transforms_made:
        nn.init.zeros_(transform.hyper[-1].weight)
        nn.init.zeros_(transform.hyper[-1].bias)
    return flow
