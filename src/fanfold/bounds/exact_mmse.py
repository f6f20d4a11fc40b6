"""The MMSE itself, `E Var[x|y]`, where prior and likelihood are known: by quadrature or by importance sampling.

Weights of samples and their effective number: Kong, Liu & Wong (1994); proposals mixed with the prior:
Hesterberg (1995).
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fanfold.bounds.assumptions import has_atoms
from fanfold.bounds.panels import panels
from fanfold.core.abilities import require
from fanfold.core.settings import checks_arguments
from fanfold.observation import Observation
from fanfold.problems.protocols import KnownModel

POINTS_AT_ONCE = 2**18  # whose likelihood is computed together, for their memory
ZOOMS = 30  # at most, of the box that a posterior is in
DEPTH = 32.0  # nats below the highest value at which mass is left out: 1e-14 of it
FREEDOM = 5.0  # of the t distribution that is proposed: tails heavier than a posterior's
WORST = 0.05  # mean of 1 / effective samples from which on nothing is returned
TRAIN = 4000  # draws that the proposal is regressed on


Method = Literal["quadrature", "importance"]


@dataclass(frozen=True)
class ExactMMSE:
    """The least mean squared error that there is, and how well it is known.

    Attributes:
        mse: Least mean squared error of each wanted parameter, `(w,)`, float64.
        standard_error: Standard error of `mse`, `(w,)`: that of a mean over the observations drawn.
        numerical_error: What the quadrature changes when it has half as many cells, `(w,)`; of importance sampling,
            what half of the samples say differently on average.
        names: Names of the wanted parameters.
        effective_samples: Harmonic mean over the observations of `1 / Σ weights²`; infinite with quadrature.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.Denoising(ff.priors.Gaussian(1.0), snr_db=0.0)
        >>> round(ff.bounds.exact_mmse(problem, samples=50).mse.item(), 3)
        0.5
    """

    mse: Tensor
    standard_error: Tensor
    numerical_error: Tensor
    names: tuple[str, ...]
    effective_samples: float


@checks_arguments
def exact_mmse(
    problem: object, samples: int = 1000, method: Method | None = None, particles: int = 4000, seed: int = 0
) -> ExactMMSE:
    """The mean posterior variance over draws of the observation, which no estimator goes below.

    Quadrature, of one or two parameters (nuisance included), zooms in on each posterior and halves its cells to see
    what changes. Importance sampling, of any number, proposes half of its samples from the prior, half from a t
    distribution about the linear regression of x on y; a variance from N effective samples is mended by `N / (N - 1)`.

    Args:
        problem: A `problems.protocols.KnownModel`.
        samples: Observations drawn.
        method: "quadrature" or "importance"; None takes quadrature where there is one parameter.
        particles: Importance samples for each observation.
        seed: Seed of all draws.

    Raises:
        ValueError: If the likelihood is not known, there are too many parameters or atoms for quadrature, or too few
            effective samples.
    """
    model = require(problem, KnownModel, "exact_mmse", "Learn a bound from draws instead: learned_bound.")
    n = len(model.names)
    method = method or ("quadrature" if n == 1 else "importance")
    generator = torch.Generator().manual_seed(seed)
    x, obs = model.sample_all(samples, generator)
    names = tuple(model.names[i] for i in model.wanted)
    if method == "importance":
        var, numerical, effective = _importance(model, obs, particles, generator)
    else:
        _refuse(model, x)
        coarse, fine = (_quadrature(model, x.double(), obs, cells) for cells in ((32, 64) if n == 1 else (6, 12)))
        var, numerical, effective = fine, (fine - coarse).mean(0).abs(), math.inf
    return ExactMMSE(var.mean(0), var.std(0) / samples**0.5, numerical, names, effective)


def _refuse(model: KnownModel, x: Tensor) -> None:
    if len(model.names) > 2:
        raise ValueError(f"there are {len(model.names)} parameters; quadrature takes two at most: method='importance'.")
    for i, name in enumerate(model.names):
        if has_atoms(x[:, i]):
            raise ValueError(f"the prior of {name} has atoms, which quadrature misses: method='importance'.")


def _rows(obs: Observation, rows: slice, points: int) -> Observation:
    """A part of the observations, each repeated along a new axis."""
    part = obs[rows]
    var = part.noise_var
    if var is not None and var.ndim > 1:
        var = var.unsqueeze(1)
    y = part.y.to(torch.complex128 if part.y.is_complex() else torch.float64)
    return Observation.unchecked(y.unsqueeze(1).expand(-1, points, *y.shape[1:]), part.A, var)


# By quadrature


def _quadrature(model: KnownModel, x: Tensor, obs: Observation, cells: int) -> Tensor:
    """Posterior variances `(samples, w)` with so many cells of eight nodes along each parameter."""
    low, high = _box(model)
    points = (8 * cells) ** x.shape[-1]
    size = max(1, POINTS_AT_ONCE // points)
    parts = [slice(i, i + size) for i in range(0, len(x), size)]
    return torch.cat([_variances(model, x[rows], _rows(obs, rows, points), low, high, cells) for rows in parts])


def _box(model: KnownModel) -> tuple[Tensor, Tensor]:
    """The ends `(n,)` of a box with the prior's mass: the draws' range and as much again, or the support's ends."""
    x = model.sample_all(20_000, torch.Generator().manual_seed(0))[0].double()
    room = x.amax(0) - x.amin(0)
    ends = []
    for side, extreme in ((-1, x.argmin(0)), (1, x.argmax(0))):
        inside = x[extreme]  # (n, n): the draw that is farthest out in each parameter
        outside = inside + side * room.diag()
        if torch.isfinite(model.log_prior(outside)).all():
            ends.append(outside.diagonal())
            continue
        for _ in range(60):
            middle = (inside + outside) / 2
            within = torch.isfinite(model.log_prior(middle)).unsqueeze(-1)
            inside, outside = torch.where(within, middle, inside), torch.where(within, outside, middle)
        ends.append(inside.diagonal())
    return ends[0], ends[1]


def _variances(model: KnownModel, x: Tensor, obs: Observation, low: Tensor, high: Tensor, cells: int) -> Tensor:
    """The posterior variances: the box shrinks about what has mass, as long as it does; `(samples, w)`."""
    count = len(x)
    low, high = low.expand(count, -1), high.expand(count, -1)
    points, logs, ends = _evaluated(model, obs, low, high, cells)
    for _ in range(ZOOMS - 1):
        inside = logs >= logs.amax(-1, keepdim=True) - DEPTH
        # a point that has mass keeps its neighbours: a peak may be between them
        at = torch.where(inside.unsqueeze(-1), points, torch.nan)
        margin = (high - low) / cells
        new_low = torch.maximum(low, torch.nan_to_num(at, nan=math.inf).amin(1) - margin)
        new_high = torch.minimum(high, torch.nan_to_num(at, nan=-math.inf).amax(1) + margin)
        if ((new_high - new_low) > 0.7 * (high - low)).all():
            break
        low, high = new_low, new_high
        points, logs, ends = _evaluated(model, obs, low, high, cells)
    weight = torch.softmax(logs + ends, -1).unsqueeze(-1)
    wanted = points[..., list(model.wanted)]
    mean = (weight * wanted).sum(1, keepdim=True)
    return (weight * (wanted - mean).square()).sum(1)


def _evaluated(
    model: KnownModel, obs: Observation, low: Tensor, high: Tensor, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Points of each box `(count, points, n)`, the log of the joint density there, and the log weights of points."""
    at, weights = panels(torch.linspace(0, 1, cells + 1, dtype=torch.float64))
    n = low.shape[-1]
    unit = torch.cartesian_prod(*[at] * n).reshape(-1, n)
    share = torch.cartesian_prod(*[weights] * n).reshape(-1, n).log().sum(-1)
    points = low.unsqueeze(1) + (high - low).unsqueeze(1) * unit
    return points, model.log_prior(points) + model.log_likelihood(points, obs), share


# By importance sampling


def _importance(
    model: KnownModel, obs: Observation, particles: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Posterior variances `(samples, w)`, the numerical error and the harmonic mean of effective samples."""
    propose = _Proposal(model, generator)
    size = max(1, POINTS_AT_ONCE // particles)
    var, halves, shares = [], [], []
    for i in range(0, len(obs.y), size):
        rows = slice(i, i + size)
        points, logs = propose(obs[rows].y, particles, generator)
        repeated = _rows(obs, rows, particles)
        logs = model.log_likelihood(points, repeated) - logs
        wanted = points[..., list(model.wanted)]
        full, share = _weighted(wanted, logs)
        var.append(full)
        shares.append(share)
        halves.append(_weighted(wanted[:, ::2], logs[:, ::2])[0])
    share = torch.cat(shares).mean().item()
    if not share <= WORST:
        raise ValueError(
            f"only {1 / share:.1f} of {particles} samples are effective, and {1 / WORST:.0f} are the least: take more "
            "particles, fewer parameters or less SNR, or hold estimators against van_trees."
        )
    variance = torch.cat(var)
    return variance, (torch.cat(halves) - variance).mean(0).abs(), 1 / share


def _weighted(x: Tensor, logs: Tensor) -> tuple[Tensor, Tensor]:
    """Variance under weights, mended for their number, and `Σ weights²`: `(count, w)` and `(count,)`."""
    weight = torch.softmax(logs, -1)
    share = weight.square().sum(-1)
    mean = (weight.unsqueeze(-1) * x).sum(1, keepdim=True)
    var = (weight.unsqueeze(-1) * (x - mean).square()).sum(1)
    return var / (1 - share).clamp_min(1e-12).unsqueeze(-1), share


class _Proposal:
    """Half the prior, half a t distribution about the linear regression of x on y; the prior alone if it has atoms."""

    def __init__(self, model: KnownModel, generator: torch.Generator):
        x, obs = model.sample_all(TRAIN, generator)
        x = x.double()
        self.model, self.n = model, x.shape[-1]
        self.atoms = any(has_atoms(column) for column in x.mT)
        features = _features(obs.y)
        self.gain = torch.linalg.lstsq(features, x, driver="gelsd").solution
        left = x - features @ self.gain
        spread = left.mT @ left / len(x) + 1e-12 * x.var(0).diag()
        self.root = torch.linalg.cholesky(spread)

    def __call__(self, y: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Points `(batch, count, n)`, and the log of the proposal's density over that of the prior."""
        batch = len(y)
        prior = self.model.sample_all(batch * count, generator)[0].double().reshape(batch, count, self.n)
        if self.atoms:
            return prior, prior.new_zeros(batch, count)
        centre = (_features(y) @ self.gain).unsqueeze(1)
        z = torch.randn(batch, count, self.n, generator=generator, dtype=torch.float64)
        chi = torch.randn(batch, count, int(FREEDOM), generator=generator, dtype=torch.float64).square().mean(-1, True)
        near = centre + (z / chi.sqrt()) @ self.root.mT
        points = torch.where((torch.arange(count) % 4 < 2).unsqueeze(-1), near, prior)  # half, and half of each half
        white = torch.linalg.solve_triangular(self.root, (points - centre).mT, upper=False).mT
        n, f = self.n, FREEDOM
        constant = math.lgamma((f + n) / 2) - math.lgamma(f / 2) - n / 2 * math.log(f * math.pi)
        logs = constant - self.root.diagonal().log().sum() - (f + n) / 2 * torch.log1p(white.square().sum(-1) / f)
        # over the prior's density: where that is zero, the point has no weight
        return points, torch.logaddexp(logs - self.model.log_prior(points), torch.zeros_like(logs)) - math.log(2)


def _features(y: Tensor) -> Tensor:
    """A one and the real entries of y, `(batch, 1 + m)`."""
    flat = torch.view_as_real(y).flatten(1) if y.is_complex() else y.flatten(1)
    return torch.cat([torch.ones(len(flat), 1, dtype=torch.float64), flat.double()], -1)
