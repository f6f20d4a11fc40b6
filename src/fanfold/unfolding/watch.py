"""Does a run do what theory says? Its empirical variance against state evolution, layer by layer.

AMP with a soft threshold: Donoho, Maleki & Montanari (2009), eq. 4. OAMP: Ma & Ping (2017), eqs. 29-34.
"""

import dataclasses
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.algorithms import AMP, OAMP, Algorithm
from fanfold.algorithms.base import State
from fanfold.bounds.assumptions import not_haar, not_iid, wrong_noise, wrong_power
from fanfold.bounds.state_evolution import oamp_evolution, soft_threshold_evolution
from fanfold.core.table import Table, as_text
from fanfold.core.units import db, power, rms
from fanfold.linops import LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.priors import Prior
from fanfold.shrinkage import soft_divergence
from fanfold.unfolding.boundary import admitted
from fanfold.unfolding.loops import iterates


@dataclass(frozen=True)
class Trace:
    """What an algorithm did and what it should have done; made by `watch`.

    Attributes:
        estimate: The estimate of the last layer.
        table: For each layer the error variance of an unknown, in dB: `predicted_db` by state evolution, `believed_db`
            by what the algorithm carries and `true_db` where x is known, medians over the samples; how far they may lie
            from the prediction, and whether one of them is `apart`.
        broken: The assumptions that do not hold, in words; empty while theory and run agree.

    Example:
        >>> import fanfold as ff, torch
        >>> obs = ff.problems.CompressedSensing(n=200, m=100).sample(50, torch.Generator().manual_seed(0))[1]
        >>> trace = ff.watch(ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.1)), obs, 5)
        >>> len(trace.table), trace.broken
        (5, [])
    """

    estimate: Estimate
    table: Table
    broken: list[str]

    def __str__(self) -> str:
        return as_text(self.table.columns, [[*row.values()] for row in self.table])


@torch.no_grad()
def watch(
    algorithm: Algorithm, obs: Observation, iterations: int, *, x: Tensor | None = None, prior: Prior | None = None
) -> Trace:
    """Run AMP or OAMP beside its state evolution, and warn, naming the broken assumption, where they part.

    State evolution is a limit. At n unknowns the median sample may lie `0.5 dB √(500 / n)`, three standard errors and
    one layer away from it; two layers that are farther off, or the last one, are taken as parting.

    Args:
        algorithm: AMP or OAMP.
        obs: The measurements with the operator and, for AMP, the noise variance.
        iterations: The number of iterations.
        x: The true signals, in a simulation.
        prior: The prior of the signals. OAMP has its own; for AMP, without one, each layer is predicted from the one
            before by Stein's unbiased estimate of the threshold's risk.

    Raises:
        ValueError: If the algorithm has no state evolution here, or the noise variance or the prior is not known.
    """
    if obs.A is not None and obs.A.varies:
        raise ValueError("each sample has a matrix of its own here; watch one of them with an operator for it alone.")
    kind = type(algorithm)
    if kind not in WATCHED:
        known = " and ".join(watched.__name__ for watched in WATCHED)
        raise ValueError(f"{type(algorithm).__name__} has no state evolution here; {known} have.")
    dtype, obs = obs.y.dtype, admitted(algorithm, obs)
    assert obs.A is not None
    states = [algorithm.start(obs), *iterates(algorithm, obs, [algorithm.nominal_theta(obs)] * iterations)]
    watched = WATCHED[kind](algorithm, obs, obs.A, prior, states)
    estimates = [algorithm.read(s) for s in states[1:]]
    seen = {"believed_db": watched.believed()}
    if x is not None:
        seen["true_db"] = [power(e.x - x).mean(-1) for e in estimates]
    rows = _compare(watched.predicted(), seen, watched.lags, obs.A.n)
    broken: list[str] = []
    apart = [row for row in rows if row["apart"]]
    if len(apart) > 1 or rows[-1]["apart"]:
        broken = watched.broken(x) or [f"none that can be named; {obs.A.n} unknowns may be too few"]
        row, last = apart[0], list(seen)[-1]
        warnings.warn(
            f"{kind.__name__} and state evolution part at layer {row['layer']}, {row[last]:.1f} dB instead of "
            f"{row['predicted_db']:.1f} dB. Broken assumption: {'; '.join(broken)}.",
            stacklevel=3,
        )
    return Trace(estimates[-1].in_precision(dtype), Table(rows), broken)


SAMPLE_SPREAD_DB = 3.0  # of the error of one sample of 500 unknowns, one in ten of them not zero, where errors fall


def _compare(predicted: Sequence[float], seen: Mapping[str, Sequence[Tensor]], lags: int, n: int) -> list[dict]:
    rows, limit = [], [_db(e) for e in predicted]
    for t, expected in enumerate(limit):
        near = limit[max(0, t - lags) : t + lags + 1]
        row, margins, apart = {"layer": t + 1, "predicted_db": expected}, [], False
        for name, errors in seen.items():
            levels = torch.tensor([_db(e) for e in errors[t].flatten().tolist()], dtype=torch.float64)
            spread = SAMPLE_SPREAD_DB * (500 / n) ** 0.5
            if len(levels) >= 8:
                spread = (levels.quantile(0.84) - levels.quantile(0.16)).item() / 2
            margin = 0.5 * (500 / n) ** 0.5 + 3 * 1.25 * spread / len(levels) ** 0.5  # 1.25: of a median
            row[name] = levels.quantile(0.5).item()
            apart |= not min(near) - margin <= row[name] <= max(near) + margin
            margins.append(margin)
        rows.append(row | {"allowed_db": max(margins), "apart": apart})
    return rows


def _db(variance: float) -> float:
    """The variance in decibels, -200 at the least, and 999 where it is not finite."""
    return db(min(max(variance, 1e-20), 1e99)) if math.isfinite(variance) else 999.0


@dataclass(frozen=True)
class WatchedAMP:
    """AMP with a soft threshold, which takes A for iid with unit columns."""

    amp: AMP
    obs: Observation
    A: LinearOperator
    prior: Prior | None
    states: list[State]

    def __post_init__(self):
        if self.obs.noise_var is None:
            raise ValueError("state evolution of AMP needs the noise variance; pass an Observation with noise_var.")

    @property
    def lags(self) -> int:
        """A prediction from the layer before has no layer to be late by."""
        return 0 if self.prior is None else 1

    @property
    def noise_var(self) -> Tensor:
        """The noise variance `E|w|²` of the observation."""
        assert self.obs.noise_var is not None
        return self.obs.noise_var

    def predicted(self) -> list[float]:
        """The error of each layer, by state evolution if the prior is known, else by Stein's estimate."""
        if self.prior is None:
            return [e.median().item() for e in self._stein()]
        noise_var, count = self.noise_var.mean().item(), len(self.states) - 1
        delta, is_complex = self.A.m / self.A.n, self.obs.y.is_complex()
        return soft_threshold_evolution(self.prior, self.amp.alpha, delta, noise_var, count, is_complex=is_complex)

    def _stein(self) -> list[Tensor]:
        """`mean|x - r|² + 2 τ² divergence - τ²`, for each sample. Stein (1981)."""
        errors = []
        for before, after in zip(self.states, self.states[1:]):
            tau = rms(before.v)
            r = before.x + self.A.H @ before.v
            gain = 2 * soft_divergence(r, self.amp.alpha * tau) - 1
            errors.append(power(after.x - r).mean(-1) + (tau**2 * gain)[..., 0])
        return errors

    def believed(self) -> list[Tensor]:
        """The error variance that the corrected residual implies: `(‖v‖² / m - noise_var) m / n`."""
        A = self.A
        return [((power(s.v).mean(-1, keepdim=True) - self.noise_var) * A.m / A.n)[..., 0] for s in self.states[1:]]

    def broken(self, x: Tensor | None) -> list[str]:
        """The assumptions that do not hold; of noise and prior nothing can be said where A is not iid."""
        operator = not_iid(self.A)
        if operator:
            return [f"{operator}; use OAMP"]
        tau2 = power(self.states[-1].v).mean(-1)
        measured = (tau2 - self._stein()[-1] * self.A.n / self.A.m).median().item()
        slack = 5 * tau2.median().item() * (2 / self.obs.y.numel()) ** 0.5
        return wrong_noise(self.obs, measured, x, slack) + wrong_power(self.obs, self.prior, x)


@dataclass(frozen=True)
class WatchedOAMP:
    """OAMP, which takes A for right-rotationally invariant and its own prior and noise variance for true."""

    oamp: OAMP
    obs: Observation
    A: LinearOperator
    given_prior: Prior | None
    states: list[State]
    lags = 1

    def __post_init__(self):
        if self.given_prior is None and self.oamp.settings == "estimated":
            raise ValueError("OAMP estimates its prior's settings; state evolution needs the true prior: pass prior.")

    @property
    def prior(self) -> Prior:
        """The prior that predictions are made with."""
        return self.given_prior or self.oamp.prior

    def predicted(self) -> list[float]:
        """The error of each layer, by state evolution."""
        known = self.obs.noise_var if self.oamp.noise == "given" else None
        noise_var = (self.states[-1].noise_var if known is None else known).mean().item()
        A = self.A
        return oamp_evolution(
            self.prior,
            A.svd().s,
            A.n,
            noise_var,
            len(self.states) - 1,
            linear=self.oamp.linear,
            damping=self.oamp.damping,
            is_complex=self.obs.y.is_complex(),
        )

    def believed(self) -> list[Tensor]:
        """The error variance that OAMP carries."""
        return [s.var.mean(-1) for s in self.states[1:]]

    def broken(self, x: Tensor | None) -> list[str]:
        """The assumptions that do not hold; of noise and prior nothing can be said where A is not invariant."""
        operator = not_haar(self.A)
        if operator:
            return [f"{operator}; damp it, or unfold it and let scalars learn"]
        blind = dataclasses.replace(self.oamp, noise="estimated")
        theta = blind.nominal_theta(self.obs)
        *_, last = iterates(blind, self.obs, [theta] * (len(self.states) - 1))
        broken = wrong_noise(self.obs, last.noise_var.mean().item(), x)
        broken += wrong_power(self.obs, self.prior, x)
        return broken or [f"the prior, as A and the noise variance hold: signals are not {self.prior}"]


WATCHED: dict[type, Callable] = {AMP: WatchedAMP, OAMP: WatchedOAMP}  # a subclass may do otherwise, and has none
