"""Images of draws about a centre, learned of like the draws themselves where both look alike."""

import torch
from torch import Tensor, nn

from fanfold.estimators.posterior.features import Features, fit_linear

CHANCE = 0.01  # that draws with a centre of symmetry are taken for others
FREQUENCIES = (0.5, 1.0, 2.0)  # of sines and cosines, over standard deviations
DIRECTIONS = 64  # pairs of numbers, and likewise sums of all, that are looked at beside each number
MOST_ROWS = 10_000  # that are looked at
ROWS_A_NUMBER = 4  # at least, for each number of y
TELLING = 6.0  # F statistic of a parameter that y tells something of in a straight line
FARTHEST = 4.0  # standard errors, that the mean of a bounded parameter may be from the middle
HUBER, HUBER_STEPS = 1.345, 10  # standard deviations from a centre that count in full; steps towards it
LEAST_NEAR = 0.1  # share of samples that a step takes to count in full, at least
TINY = 1e-300  # in place of a sum of squares that is zero
RATE = 0.25  # of the learning rate, for the centre


class Mirror(nn.Module):
    """Turns pairs (x, y) into `(c + s(x - c), 2b - y)` by chance, s being -1 for odd parameters and 1 for even ones.

    Signals and noise that are as likely with the other sign have such a centre (b, c): half of what there is to learn
    follows from the other half, and draws count twice. Parameters of which the best linear estimator tells nothing,
    as scales and variances, are even. Whether draws look like their images is tested by averages that are zero if they
    do, each over its standard error: sines of sums of odd numbers, the imaginary part of the empirical characteristic
    function (Feuerverger & Mureika, 1977), alone and times functions of even parameters; and residuals of
    the linear estimator times cosines of y, or sines for even ones. The centre is learned with the networks, as means
    are known to the spread of the draws, where the spread about the estimate counts; only a bounded parameter has the
    middle between its bounds.

    Args:
        features: Features of an observation, a vector.
        d: The number of real parameters.

    Example:
        >>> import torch, fanfold as ff
        >>> from fanfold.estimators.posterior.features import Features
        >>> from fanfold.estimators.posterior.mirror import Mirror
        >>> x, obs = ff.problems.LinearGaussian(n=2, m=3).sample(1000, torch.Generator().manual_seed(0))
        >>> mirror = Mirror(Features(obs, "vector"), d=2)
        >>> mirror.prepare(x, obs.y, torch.full((2,), -torch.inf), torch.full((2,), torch.inf))
        >>> mirror.odd.tolist()
        [True, True]
    """

    odd: Tensor
    bounded: Tensor
    x_middle: Tensor
    x_unit: Tensor
    y_middle: Tensor
    y_unit: Tensor

    def __init__(self, features: Features, d: int):
        super().__init__()
        dtype = features.mean.dtype
        m = features.single[0] * (2 if features.complex else 1)
        for name in ("odd", "bounded"):  # of parameters; none are odd where there is no centre
            self.register_buffer(name, torch.zeros(d, dtype=torch.bool))
        for name, size in (("x", d), ("y", m)):
            self.register_buffer(f"{name}_middle", torch.zeros(size, dtype=dtype))
            self.register_buffer(f"{name}_unit", torch.ones(size, dtype=dtype))
        self.x_shift = nn.Parameter(torch.zeros(d, dtype=dtype))
        self.y_shift = nn.Parameter(torch.zeros(m, dtype=dtype))

    @property
    def symmetric(self) -> bool:
        """Whether draws look like their images."""
        return bool(self.odd.any())

    def parameter_group(self, lr: float) -> dict:
        """The centre, for an optimiser."""
        return {"params": [*self.parameters()], "lr": RATE * lr, "decay_scale": 0.0}

    @torch.no_grad()
    def prepare(self, x: Tensor, y: Tensor, low: Tensor, high: Tensor) -> None:
        """Tell from draws whether they look like their images.

        Args:
            x: Real parameters `(samples, d)`.
            y: Their measurements `(samples, m)`, real or complex.
            low: The least value of each parameter, `(d,)`, infinite where there is none.
            high: The largest.
        """
        rows = slice(MOST_ROWS)
        x, y = x[rows].double(), _real(y[rows]).double()
        self.odd.zero_()
        if len(x) < ROWS_A_NUMBER * y.shape[1]:
            return
        self.bounded.copy_(torch.isfinite(low) & torch.isfinite(high))
        one_sided = torch.isfinite(low) ^ torch.isfinite(high)
        self.y_middle.copy_(_middle(y))
        self.y_unit.copy_(_spread(y))
        self.x_unit.copy_(_spread(x))
        self.x_middle.copy_(torch.where(self.bounded, 0.5 * (low + high), _middle(x)))
        away = (x.mean(0) - self.x_middle) / _spread(x) * len(x) ** 0.5
        x, y = ((each - _middle(each)) / _spread(each) for each in (x, y))
        left = fit_linear(y, x).error
        told, free = x.square().sum(0) / left.square().sum(0).clamp_min(TINY) - 1, len(y) - y.shape[1] - 1
        odd = told * free / y.shape[1] > TELLING
        turns = odd.any() and not (odd & (one_sided | (away.abs() > FARTHEST))).any()
        if turns and _alike(x, y, left - _middle(left), odd):
            self.odd.copy_(odd)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Real parameters `(batch, d)` and measurements, half of which, by torch's generator, become their images."""
        turned = torch.rand(len(x), 1, device=x.device) < 0.5
        centre = self.x_middle + self.x_unit * self.x_shift.masked_fill(self.bounded, 0.0)
        x = torch.where(turned & self.odd, 2 * centre - x, x)
        seen = _real(y)
        image = 2 * (self.y_middle + self.y_unit * self.y_shift) - seen
        seen = torch.where(turned, image.to(seen), seen)
        return x, torch.view_as_complex(seen.unflatten(-1, (-1, 2))) if y.is_complex() else seen


def _real(y: Tensor) -> Tensor:
    """Real numbers `(batch, m)` as they are, complex ones `(batch, m / 2)` as pairs beside each other."""
    return torch.view_as_real(y).flatten(-2) if y.is_complex() else y


def _middle(values: Tensor) -> Tensor:
    """Huber's (1964) estimates `(n,)` of the centres of `(samples, n)`: far values, of heavy tails, count less."""
    middle, unit = values.mean(0), _spread(values)
    for _ in range(HUBER_STEPS):
        away = (values - middle) / unit
        near = (away.abs() < HUBER).double().mean(0).clamp_min(LEAST_NEAR)
        middle = middle + unit * away.clamp(-HUBER, HUBER).mean(0) / near
    return middle


def _spread(values: Tensor) -> Tensor:
    """Standard deviations `(n,)` of `(samples, n)`, one where nothing changes."""
    spread = values.std(0)
    return torch.where(spread > 0, spread, 1.0)


def _alike(x: Tensor, y: Tensor, left: Tensor, odd: Tensor) -> bool:
    """Whether all averages that a centre makes zero are within what chance allows.

    Args:
        x: Parameters about their centre, in standard deviations, `(samples, d)`.
        y: Likewise the measurements, `(samples, m)`.
        left: What the best linear estimator leaves of x.
        odd: Which parameters change their sign, `(d,)`.
    """
    generator = torch.Generator().manual_seed(0)
    turning, even = torch.cat([y, x[:, odd]], 1), x[:, ~odd]
    averages = []
    for frequency in FREQUENCIES:
        sines = torch.sin(frequency * _sums(turning, generator))
        averages.append(_over_error(sines.mT, torch.ones_like(x[:, :1])))
        if even.shape[1]:
            averages += [_over_error(sines.mT, wave(frequency * even)) for wave in (torch.cos, torch.sin)]
        sums = frequency * _sums(y, generator)
        averages.append(_over_error(torch.cos(sums).mT, left[:, odd]))
        averages.append(_over_error(torch.sin(sums).mT, left[:, ~odd]))
    each = torch.cat([average.flatten() for average in averages])
    most = -torch.special.ndtri(torch.tensor(CHANCE / (2 * len(each)), dtype=torch.float64))
    return bool(each.abs().max() < most)


def _sums(values: Tensor, generator: torch.Generator) -> Tensor:
    """Each of the numbers `(samples, n)`, sums and differences of two, and sums of all with Gaussian weights."""
    n = values.shape[1]
    pairs = torch.zeros(n, DIRECTIONS)
    at = torch.arange(DIRECTIONS)
    for _ in range(2):
        pairs[torch.randint(n, (DIRECTIONS,), generator=generator), at] += (
            torch.randint(2, (DIRECTIONS,), generator=generator) * 2.0 - 1
        )
    dense = torch.randn(n, DIRECTIONS, generator=generator)
    sums = values @ torch.cat([torch.eye(n), pairs, dense], 1).to(values)
    return sums / _spread(sums)


def _over_error(first: Tensor, second: Tensor) -> Tensor:
    """Averages over samples of products of `(k, samples)` and `(samples, l)`, over their standard errors."""
    total, square = first @ second, first.square() @ second.square()
    return total / square.clamp_min(TINY).sqrt()
