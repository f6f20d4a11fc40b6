"""Two paths in more noise than is claimed, on draws whose truth is known: when measured noise may speak for a network.

Of `y = A x + w` alone nobody tells more noise from a small dense signal: `w + u` and `x + A⁺ u` give y one law wherever
A has full row rank. So errors stand here for both explanations, and a network is believed where it errs less in both.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fanfold.core.precision import double
from fanfold.core.units import power
from fanfold.guard.answers import Pairs, answers
from fanfold.guard.fallback.noise_split import NoiseSplit
from fanfold.observation import Estimator, Observation

FACTOR = 4.0  # between levels of noise, 6 dB: what is read off them is smooth
FIRST = 0.25  # of the claimed variance, the least of them
MOST = 12  # levels, which reach 60 dB above the claim
FEWEST, SHARE = 100, 5  # draws of a level: one in five, or a hundred, or all that there are
FAINT, PLAIN, LOUDEST = 0.5, 0.75, 4.0  # power of y over the usual: nothing is moved, all is, and how much counts
STEPS = 20  # of conjugate gradients; directions that A hardly passes need more, and signals of no plausible size
RISING = 1e-6  # by which a curve that stands still rises, so that it can be read backwards
TINY = torch.finfo(torch.float64).tiny

Curve = tuple[float, ...]


class NoiseLevels(NamedTuple):
    """What both paths do where there is more noise than the observation claims, from nothing more on.

    Numbers between levels are read along straight lines; beyond the last one they are those of the last one.

    Example:
        >>> import torch
        >>> from fanfold.guard.fallback import NoiseLevels
        >>> levels = NoiseLevels(1.0, (0.0, 1.0), ((0.0, 2.0), (0.0, 2.0)), (-8.0, -9.0), (-1.0, -1.0))
        >>> levels.beyond(torch.ones(2), torch.tensor([[1.0, 1.5], [0.0, 3.0]]).double().exp()).tolist()
        [0.5, 0.0]
    """

    claimed: float  # noise variance of the draws
    noise: Curve  # logs of the noise variance over the claimed one, rising from 0
    left: tuple[Curve, Curve]  # logs of mean squares of `y - A x_hat` over the claimed variance, network first, rising
    moved: Curve  # by how much differences of losses are to be moved to say the truth, over the noise beyond the claim
    risk: Curve  # logs of the network's squared error over the baseline's, the larger one of both explanations
    hidden: float = 0.0  # by how much differences are to be moved at home, where A hides that the network is better
    heard: float = 1.0  # mean square of y beyond the noise, of these draws; where y is weaker nothing is moved at home

    @classmethod
    def of(cls, judge: NoiseSplit, pairs: Pairs, network: Estimator, baseline: Estimator) -> "NoiseLevels":
        """Find them on draws `(x, obs)`, of which one in five meets every level of noise.

        The levels end where the noise is as strong as y, or where an estimate is not finite.
        """
        x, obs = pairs
        count = min(len(x), max(FEWEST, len(x) // SHARE))
        drawn = judge.drawn(obs[:count], range(len(x), len(x) + count))
        x, obs = x[:count].to(obs.y.device), obs[:count]
        assert obs.noise_var is not None
        added = drawn * obs.noise_var.sqrt()
        signal = least_norm(obs, added)
        claimed = obs.noise_var.double().mean().item()
        loudest = power(obs.y.to(double(obs.y.dtype))).mean().item() / claimed if claimed else 0.0
        e, noise, levels = 0.0, [], []
        while not levels or (len(levels) <= MOST and noise[-1] < math.log1p(loudest)):
            louder = Observation.unchecked(obs.y + e**0.5 * added, obs.A, obs.noise_var)
            level = _level(judge, louder, e, (x, x + e**0.5 * signal), (network, baseline))
            if levels and not all(map(math.isfinite, level)):
                break
            noise.append(math.log1p(e))
            levels.append(level)
            e = e * FACTOR if e else FIRST
        network_left, baseline_left, moved, risk = zip(*levels)
        moved = (moved[1:2] or moved)[:1] + moved[1:]  # nothing is to be moved where there is no more noise
        return cls(claimed, tuple(noise), (_rising(network_left), _rising(baseline_left)), moved, risk)

    @property
    def usual(self) -> tuple[float, float]:
        """The mean squares that both leave of y over the claimed variance, where nothing has changed."""
        return math.exp(self.left[0][0]), math.exp(self.left[1][0])

    def ratios(self, residuals: Tensor, claimed: Tensor) -> Tensor:
        """Residuals `(batch, 2)` over the claimed variance `(batch,)`, as they count: up to those of the last level."""
        most = torch.tensor([math.exp(curve[-1]) for curve in self.left], dtype=torch.float64, device=claimed.device)
        ratio = residuals.double() / claimed.double().clamp_min(TINY)[:, None]
        return torch.minimum(ratio.nan_to_num(math.inf, math.inf), most)

    def beyond(self, claimed: Tensor, ratios: Tensor) -> Tensor:
        """The log of the noise over the claim, `(batch,)`, by the least unusual of what is left.

        What network and baseline leave is compared with the draws over what is claimed, and as it is: a claim that is
        smaller than theirs makes all that is left look large, and a larger one that is true leaves more.

        Args:
            claimed: The noise variance of each observation, `(batch,)`.
            ratios: Residuals over it, `(batch, 2)`, means over the last calls.
        """
        quieter = (self.claimed / claimed.double().clamp_min(TINY)).log()
        logs = ratios.clamp_min(TINY).log()
        says = [_read(logs[:, path], self.left[path], self.noise) for path in (0, 1)]
        says += [_read(logs[:, path] - quieter, self.left[path], self.noise) + quieter for path in (0, 1)]
        return torch.stack(says, -1).amin(-1).clamp_min(0.0)

    def loudness(self, heard: Tensor, claimed: Tensor) -> Tensor:
        """Mean squares of y beyond the noise over those of the draws, at most `LOUDEST`: `(batch,)`."""
        return ((heard.double() - claimed) / max(self.heard, TINY)).clamp(0.0, LOUDEST)

    def corrected(self, differences: Tensor, claimed: Tensor, ratios: Tensor, loudness: Tensor | None = None) -> Tensor:
        """Differences of losses in the noise that there seems to be, as moved as on draws with so much: `(batch,)`.

        Where that speaks for the network, it counts only where the network errs less in so much noise, be it noise,
        over what is claimed and as it is.

        Args:
            differences: Those of `NoiseSplit`, `(batch,)`.
            claimed: The noise variance of each observation, `(batch,)`.
            ratios: Residuals over it, `(batch, 2)`, means over the last calls.
            loudness: The mean over these calls, `(batch,)`; as usual if not given.
        """
        level = self.beyond(claimed, ratios)
        moved = differences + claimed * level.expm1() * _read(level, self.noise, self.moved)
        if self.hidden:
            usual = 1 - level / (self.noise[1:2] or (1.0,))[0]  # beyond the first level `moved` has all
            if loudness is not None:  # what is so weak is of another world, and tells nothing of what A hides here
                usual = torch.minimum(usual, (loudness - FAINT) / (PLAIN - FAINT)).clamp_max(1.0)
            moved = moved + self.hidden * usual.clamp_min(0.0)
        as_it_is = level - (self.claimed / claimed.double().clamp_min(TINY)).log()
        risk = torch.maximum(*(_read(at, self.noise, self.risk) for at in (level, as_it_is)))
        return torch.where(risk < 0, moved, torch.maximum(moved, differences))


def least_norm(obs: Observation, measured: Tensor) -> Tensor:
    """The least signal that looks most like this, `A⁺ measured`, by conjugate gradients; without A, what is measured.

    CGLS of Hestenes & Stiefel (1952), on `Aᴴ A x = Aᴴ measured`, each sample by itself: what no signal looks like, as
    where there are more measurements than unknowns or a sensor is dead, stays out.
    """
    if (A := obs.A) is None:
        return measured
    wide = double(measured.dtype)  # before squaring, as in `differences`
    A, r = A.to(dtype=wide), measured.to(wide)
    p = A.H @ r
    x, size = torch.zeros_like(p), power(p).sum(-1, keepdim=True)
    for _ in range(STEPS):
        seen = A @ p
        step = size / power(seen).sum(-1, keepdim=True).clamp_min(TINY)
        x, r = x + step * p, r - step * seen
        s, before = A.H @ r, size
        size = power(s).sum(-1, keepdim=True)
        p = s + size / before.clamp_min(TINY) * p
    return x.to(measured.dtype)


def _level(
    judge: NoiseSplit,
    obs: Observation,
    e: float,
    truths: tuple[Tensor, Tensor],
    paths: tuple[Estimator, Estimator],
) -> tuple[float, float, float, float]:
    """What both leave of y, how far differences are to be moved, and the risk, in noise that is beyond the claim by e.

    The losses of the measurements are moved to their mean; further, where A hides by how much the network errs less.
    """
    halves, claimed = judge.halves(obs, range(len(obs.y))), judge.claimed(obs)
    whole, copy = ([answers(path, o) for path in paths] for o in (obs, halves.obs))
    of_network, of_baseline = ((judge.residuals(obs, estimate) / claimed).mean().item() for estimate in whole)
    wide = double(obs.y.dtype)  # before squaring, as in `differences`
    errors = [[power((estimate.x - x).to(wide)).sum() for estimate in whole] for x in truths]
    risks = torch.stack([network.clamp_min(TINY) / baseline.clamp_min(TINY) for network, baseline in errors])
    risk, worst = risks[0].item(), risks.amax().item()
    seen = [power(judge.measured(obs, estimate.x - truths[0]).to(wide)).flatten(1).sum(-1) for estimate in copy]
    said, true = judge.differences(halves, copy[0], copy[1]), seen[0] - seen[1]
    target = min(true.mean().item(), (risk - 1) * seen[1].mean().item()) if risk < 1 else true.mean().item()
    extra = e * claimed.mean().item()
    moved = (target - said.mean().item()) / extra if extra else 0.0
    return _log(of_network), _log(of_baseline), moved, _log(worst)


def _log(value: float) -> float:
    return math.log(max(value, TINY)) if math.isfinite(value) else math.inf


def _rising(values: Sequence[float]) -> Curve:
    """The values, each at least the one before and a little more."""
    curve = [values[0]]
    for value in values[1:]:
        curve.append(max(value, curve[-1] + RISING))
    return tuple(curve)


def _read(at: Tensor, knots: Curve, values: Curve) -> Tensor:
    """The broken line through these points at some places, constant beyond: `(batch,)`. It exports."""
    x, y = (torch.tensor(numbers, dtype=torch.float64, device=at.device) for numbers in (knots, values))
    if len(knots) == 1:
        return y.expand(at.shape)
    width = x[1:] - x[:-1]
    inside = torch.minimum((at[..., None] - x[:-1]).clamp_min(0.0), width)
    return y[0] + (inside * ((y[1:] - y[:-1]) / width)).sum(-1)
