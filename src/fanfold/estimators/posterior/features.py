"""What a network sees of an observation: real, standardised numbers, learned from data once before training."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.units import power
from fanfold.observation import Observation
from fanfold.problems.kinds import AXES, Kind

CHANNEL = {"vector": -1, "sequence": -2, "image": -3, "set": -1}  # the axis of what is standardised apart

CONSTANT = 1e-12  # standard deviation over the mean of what only rounding changes
HEAVY = 1.9  # times the range of nine tenths is that of 99 in 100: 1.57 for a Gaussian, 2.3 for Laplace's law
SKEWED = 8.0  # times the median, that a positive channel goes up to before its logarithm is taken
LEAST_SHARE = 1e-3  # of the smallest positive value, below which a logarithm does not look
MOST_VALUES = 100_000  # of a channel that tell its law
FAR_PLAIN = 10.0  # standard deviations that are told apart of what also goes in as a logarithm
LARGEST_LOG = 60.0  # whose exponential single precision holds
FARTHEST = 1e4  # standard deviations from the training that a network tells apart; beyond, all is as far
LARGEST_LINEAR_PART = 4096  # features; beyond, the linear part would cost more than the network
MOST_DRAWS, MOST_ENTRIES = 200_000, 100_000_000  # that a linear part is fitted to; a gigabyte in double precision


def rows_to_fit(features: int) -> int:
    """How many draws a linear part of so many features is fitted to."""
    return min(MOST_DRAWS, MOST_ENTRIES // max(1, features))


class Features(nn.Module):
    """`y` as real features of zero mean and unit variance, with the log of the noise variance where it is known.

    Complex numbers become pairs along the axis of features (vectors, sets) or channels (sequences, images).

    Args:
        obs: Any observation of the problem.
        kind: "vector" `(..., m)`, "sequence" `(..., channels, length)`, "image" `(..., channels, h, w)` or
            "set" `(..., count, features)`.
        adaptive: Whether channels of many decades are taken as their logarithms, and heavy tails as inverse sines. A
            vector then has twice as many features: behind them are those that a logarithm was taken of, as they were
            before, and zero for the others. Logarithms tell small values apart, the second half large ones.
    """

    mean: Tensor
    scale: Tensor
    logged: Tensor
    bent: Tensor
    offset: Tensor
    floor: Tensor
    middle: Tensor
    unit: Tensor
    plain_mean: Tensor
    plain_scale: Tensor

    def __init__(self, obs: Observation, kind: Kind, *, adaptive: bool = False):
        super().__init__()
        if kind not in AXES:
            raise ValueError(f"unknown kind of observation {kind!r}; it is one of {', '.join(AXES)}.")
        if obs.y.ndim < 1 + AXES[kind]:
            raise ValueError(f"y has shape {tuple(obs.y.shape)}, too few axes for a batch of the kind {kind!r}.")
        self.kind, self.given_noise = kind, obs.noise_var is not None
        self.single, self.complex = tuple(obs.y.shape[-AXES[kind] :]), obs.y.is_complex()
        shape = self._raw(obs, obs.y.real.dtype).shape[-AXES[kind] :]
        self.adaptive, self.twofold = adaptive, adaptive and kind == "vector"
        self.shape = (2 * shape[0],) if self.twofold else tuple(shape)
        along = [1] * len(shape)
        along[CHANNEL[kind]] = shape[CHANNEL[kind]]
        self.register_buffer("mean", torch.zeros(along, dtype=obs.y.real.dtype))
        self.register_buffer("scale", torch.ones(along, dtype=obs.y.real.dtype))
        for name in ("logged", "bent"):  # whether a channel is taken as its logarithm, and as an inverse sine then
            self.register_buffer(name, torch.zeros(along, dtype=torch.bool))
        for name in ("offset", "floor", "middle", "unit", "plain_mean", "plain_scale"):
            start = float(name in ("unit", "plain_scale"))
            self.register_buffer(name, torch.full(along, start, dtype=obs.y.real.dtype))

    def prepare(self, obs: Observation) -> None:
        """Mean and scale of each feature or channel, from data; what never changes is left at scale 1."""
        raw = self._raw(obs).flatten(0, -1 - AXES[self.kind])
        if self.adaptive:
            self._choose_laws(raw.movedim(CHANNEL[self.kind], 0).flatten(1))
        z = self._spread(raw).double()
        axes = [axis for axis in range(z.ndim) if axis != z.ndim + CHANNEL[self.kind]]
        mean, scale = z.mean(axes, keepdim=True), z.std(axes, keepdim=True)
        changes = scale > CONSTANT * mean.abs()
        if not changes.any():
            warnings.warn(
                f"y is the same in all {len(z)} draws: it tells nothing, and all that is learned is the mean and the "
                "spread of x.",
                stacklevel=2,
            )
        scale = torch.where(changes, scale, 1.0)
        if self.twofold:
            self.plain_mean.copy_(raw.double().mean(0))
            self.plain_scale.copy_(torch.where(self.logged, raw.double().std(0), 1.0))
        self.mean.copy_(mean[0])
        self.scale.copy_(scale[0])

    def forward(self, obs: Observation) -> Tensor:
        """`(batch, *shape)`; leading axes of y, if several, become one."""
        z = (self._spread(self._raw(obs)) - self.mean) / self.scale
        largest = torch.finfo(z.dtype).max ** 0.5  # so that sums of products stay numbers
        z = z.clamp(-largest, largest)
        if self.twofold:
            plain = (self._raw(obs) - self.plain_mean) / self.plain_scale
            z = torch.cat([z, torch.where(self.logged, plain.clamp(-FAR_PLAIN, FAR_PLAIN), 0.0)], -1)
        return z.flatten(0, -1 - AXES[self.kind]) if z.ndim > AXES[self.kind] else z.unsqueeze(0)

    def plain(self, obs: Observation) -> Tensor:
        """The real numbers that features are made of, `(batch, *shape)` of the first half of twofold ones."""
        raw = self._raw(obs)
        return raw.flatten(0, -1 - AXES[self.kind]) if raw.ndim > AXES[self.kind] else raw.unsqueeze(0)

    def completed(self, z: Tensor) -> Tensor:
        """Features of which the first half is given, `(..., m)`: of twofold ones the other half follows from it."""
        if not self.twofold:
            return z
        spread = z * self.scale + self.mean
        logarithm = torch.where(
            self.bent, torch.sinh(spread.clamp(-FAR_PLAIN, FAR_PLAIN)) * self.unit + self.middle, spread
        )
        raw = logarithm.clamp_max(LARGEST_LOG).exp() - self.offset
        plain = (raw - self.plain_mean) / self.plain_scale
        return torch.cat([z, torch.where(self.logged, plain.clamp(-FAR_PLAIN, FAR_PLAIN), 0.0)], -1)

    def _choose_laws(self, values: Tensor) -> None:
        """Which channels `(channels, values)` are taken as their logarithm, and which as an inverse sine of that."""
        count = min(values.shape[1], MOST_VALUES)
        values = values[
            :, torch.arange(count, device=values.device) * (values.shape[1] - 1) // max(1, count - 1)
        ].double()
        smallest = torch.where(values > 0, values, torch.inf).amin(1)
        _, low, middle, high, most = _quantiles(values)
        skewed = (values.amin(1) >= 0) & (most > SKEWED * middle) & torch.isfinite(smallest)
        skewed &= high - low > CONSTANT * middle  # what hardly ever changes has no law to tell
        offset = torch.where(skewed & (values.amin(1) == 0), smallest / 2, 0.0)  # counts have zeros
        floor = torch.where(skewed, LEAST_SHARE * smallest, 0.0)
        logarithm = (values + offset[:, None]).clamp_min(floor[:, None]).log()
        values = torch.where(skewed[:, None], logarithm, values)
        _, low, middle, high, _ = _quantiles(values)
        unit = (high - low) / (2 * 1.645)  # the standard deviation, were they Gaussian
        heavy = (unit > CONSTANT * middle.abs()) & heavy_tailed(values)
        chosen = {"logged": skewed, "bent": heavy, "offset": offset, "floor": floor}
        chosen |= {"middle": middle, "unit": torch.where(heavy, unit, 1.0)}
        for name, value in chosen.items():
            buffer = self.get_buffer(name)
            buffer.copy_(value.reshape(buffer.shape))

    def _spread(self, raw: Tensor) -> Tensor:
        """The channels, those of heavy tails or many decades on a scale on which they are spread evenly; invertible."""
        # what no logarithm is taken of is one there, as the gradient of a logarithm of zero would be no number
        logarithm = torch.where(self.logged, raw + self.offset, 1.0).maximum(self.floor).log()
        z = torch.where(self.logged, logarithm, raw)
        return torch.where(self.bent, torch.asinh((z - self.middle) / self.unit), z)

    @staticmethod
    def seen(z: Tensor) -> Tensor:
        """What a network is shown of the features: those farthest from the training are brought nearer.

        A linear part goes on for ever; a network of measurements a billion times the training's says no number.
        """
        return z.clamp(-FARTHEST, FARTHEST)

    def leading(self, obs: Observation) -> tuple[int, ...]:
        """The batch axes of an observation.

        Raises:
            ValueError: If an observation has another shape than those that the estimator was made for, or is complex
                where they were real.
        """
        axes = AXES[self.kind]
        variable = self.kind == "set"  # sets may differ in their count
        one = tuple(obs.y.shape[-axes:])
        if obs.y.ndim < axes or one[variable:] != self.single[variable:]:
            wanted = ", ".join(map(str, self.single))
            raise ValueError(f"y has shape {tuple(obs.y.shape)}; this estimator takes (..., {wanted}).")
        if obs.y.is_complex() != self.complex:
            raise ValueError(
                f"y is {obs.y.dtype}; this estimator takes {'complex' if self.complex else 'real'} numbers."
            )
        if self.given_noise and obs.noise_var is None:
            raise ValueError("this estimator was made for observations with a noise_var; pass it in the Observation.")
        return tuple(obs.y.shape[:-axes])

    def _raw(self, obs: Observation, dtype: torch.dtype | None = None) -> Tensor:
        y, axis = obs.y, CHANNEL[self.kind]
        z = torch.cat([y.real, y.imag], axis) if y.is_complex() else y
        z = z.to(dtype or self.mean.dtype)  # of the network, whatever the measurements come in
        if not self.given_noise:
            return z
        assert obs.noise_var is not None
        lead = z.ndim - AXES[self.kind]
        level = torch.log(obs.noise_var.to(z.dtype).clamp_min(torch.finfo(z.dtype).tiny))
        level = level.reshape(*level.shape[:lead], -1)[..., :1]  # one for each sample, however it was expanded
        level = level.reshape(*level.shape[:-1], *[1] * AXES[self.kind])
        one = list(z.shape)
        one[axis] = 1
        return torch.cat([z, level.expand(one)], axis)


def heavy_tailed(values: Tensor) -> Tensor:
    """Whether 99 in 100 of each row are spread much wider than nine tenths, `(rows,)`."""
    least, low, _, high, most = _quantiles(values)
    return most - least > HEAVY * (high - low)


def _quantiles(values: Tensor) -> tuple[Tensor, ...]:
    """Of each row, the values below which lie .5, 5, 50, 95 and 99.5 in 100."""
    ordered = values.sort(1).values
    places = (torch.tensor([0.005, 0.05, 0.5, 0.95, 0.995], dtype=torch.float64) * (values.shape[1] - 1)).round()
    return ordered[:, places.long().to(values.device)].unbind(1)


def linear_features(features: Features) -> int:
    """How many features, the first ones, a linear part takes: none of a set, whose order means nothing, nor of many."""
    count = torch.Size(features.shape).numel() // (2 if features.twofold else 1)
    return 0 if features.kind == "set" or count > LARGEST_LINEAR_PART else count


class LinearFit(NamedTuple):
    """The best linear estimator of x `(..., d)` from features `(..., m)`: `x = centre + W z`."""

    centre: Tensor  # (d,)
    W: Tensor  # (d, m)
    var: Tensor  # (d,) of the errors of samples left out, and no less than 1e-12 of that of x itself
    error: Tensor  # (samples, d) of the samples that it was fitted to
    left_out: Tensor  # (samples, d) of each sample, fitted to all others


def fit_linear(z: Tensor | None, x: Tensor) -> LinearFit:
    """The best linear estimator from data, or the mean where there are no features.

    Args:
        z: Features `(samples, m)` in double precision, of any mean: channels are standardised, their places are not.
        x: `(samples, d)` in double precision.

    Raises:
        ValueError: If an entry of x never changes.
    """
    mean = x.mean(0)
    error, prior_var = x - mean, (x - mean).square().mean(0)
    constant = prior_var <= (CONSTANT * mean.abs()).square()
    if constant.any():
        where = int(constant.nonzero()[0])
        raise ValueError(f"parameter {where} has the same value in all {len(x)} draws; leave it out of x.")
    if z is None:
        return LinearFit(mean, x.new_zeros(x.shape[-1], 0), prior_var, error, error)
    W, left_out = ridge(z - z.mean(0), error)
    var = torch.maximum(left_out.square().mean(0), 1e-12 * prior_var)
    return LinearFit(mean - W @ z.mean(0), W, var, error - (z - z.mean(0)) @ W.mT, left_out)


def ridge(z: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of x on z, both of zero mean, with the weight of least leave-one-out error in closed form.

    Allen (1974), "PRESS": the error of a sample that is left out is its residual over `1 - leverage`.

    Args:
        z: `(samples, m)`, of zero mean over these very samples.
        x: `(samples, d)`, likewise.

    Returns:
        The map `(d, m)` and the error `(samples, d)` of each sample where it is left out.
    """
    count = len(z)
    values, V = torch.linalg.eigh(z.mT @ z / count)
    values = values.clamp_min(0)
    turned, target = z @ V, V.mT @ (z.mT @ x) / count
    squares = turned.square()
    floor = values[-1]
    if not floor > 0:  # features that never change tell nothing
        return torch.zeros(x.shape[-1], z.shape[-1], dtype=z.dtype, device=z.device), x
    best: tuple[float, Tensor, Tensor] | None = None
    for weight in torch.logspace(-12, 1, 27, dtype=z.dtype):
        shrunk = 1 / (values + weight * floor)
        leverage = (squares @ shrunk.unsqueeze(-1) + 1) / count  # the mean has a share too
        if leverage.max() >= 1 - 1e-9:  # a sample that alone decides its own estimate tells nothing
            continue
        weights = shrunk.unsqueeze(-1) * target
        left_out = (x - turned @ weights) / (1 - leverage)
        score = torch.log(power(left_out).mean(0).clamp_min(torch.finfo(z.dtype).tiny)).sum().item()
        if best is None or score < best[0]:
            best = (score, (V @ weights).mT, left_out)
    if best is None:
        return torch.zeros(x.shape[-1], z.shape[-1], dtype=z.dtype, device=z.device), x
    return best[1], best[2]
