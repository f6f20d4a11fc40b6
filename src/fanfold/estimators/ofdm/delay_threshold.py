"""Hard thresholds over beams and delays. Donoho & Johnstone (1994); of channels: Kang, Kim & Joo (2007).

The noise variance, where it is unknown, is that of the median power: Donoho & Johnstone (1994), section 5.
"""

import math

import torch
from torch import Tensor, nn

from fanfold.core.settings import checks_arguments
from fanfold.estimators.ofdm.covariance import by_antenna
from fanfold.estimators.ofdm.interpolation import Method, interpolation_matrix
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.protocols import ChannelProblem


class DelayThreshold(nn.Module):
    """Pilots without the coefficients of their 2-D Fourier transform that are `|c|² < threshold · noise_var`.

    The unitary transform goes over the last two axes of the array, to beams, and over the pilots along frequency and
    time, to delays and Doppler shifts; noise keeps its variance in each coefficient. What is left is interpolated.
    Nothing is learned. There is no error variance: of what falls below the threshold nothing is known.

    Args:
        transform: Unitary transform of the pilots.
        W: Weights of interpolation of one antenna, `(symbols · subcarriers, pilots)`.
        threshold: Threshold over the noise variance; the logarithm of the number of pilots, which the strongest of so
            many noises just reaches, if None.

    Raises:
        ValueError: If the threshold is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("umi", "comb-2")
        >>> x, obs = problem.sample(5, torch.Generator().manual_seed(0))
        >>> ff.estimators.ofdm.DelayThreshold.of(problem)(obs).x.shape == x.shape
        True
    """

    measures_noise = True

    def __init__(self, transform: "BeamDelayTransform", W: Tensor, threshold: float | None = None):
        super().__init__()
        if threshold is not None and not threshold > 0:
            raise ValueError(f"threshold is {threshold}; it is a multiple of the noise variance, greater than zero.")
        self.transform = transform
        self.threshold = math.log(transform.antennas * transform.pilots) if threshold is None else threshold
        self.register_buffer("W", W.float())

    @classmethod
    @checks_arguments
    def of(cls, problem: ChannelProblem, threshold: float | None = None, method: Method = "linear") -> "DelayThreshold":
        """The estimator for a problem's layout and pilots.

        Args:
            problem: Layout and pilots; all symbols with pilots have them on the same subcarriers.
            threshold: Threshold over the noise variance; the logarithm of the number of pilots if None.
            method: Method of interpolation along frequency.

        Raises:
            ValueError: If the threshold is not positive, or pilots are on other subcarriers in other symbols or on one.
        """
        return cls(BeamDelayTransform.of(problem), interpolation_matrix(problem.mask, method), threshold)

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)`.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y, c = self.transform(obs.y)
        p = c.abs().square().flatten(1)
        noise_var = median_noise(p) if obs.noise_var is None else obs.noise_var.expand(*obs.y.shape[:-1], 1)
        kept = c * (p >= self.threshold * noise_var.reshape(-1, 1)).reshape(c.shape)
        z = self.transform.back(kept).reshape(y.shape)
        W = self.W.to(z.real.dtype).mT
        return Estimate(torch.complex(z.real @ W, z.imag @ W).reshape(*obs.y.shape[:-1], -1))


class BeamDelayTransform(nn.Module):
    """The unitary Fourier transform of pilots over the last two axes of the array and over frequency and time.

    Args:
        array: Antennas along each axis.
        mask: Where the pilots are, `(symbols, subcarriers)`.

    Raises:
        ValueError: If pilots are on other subcarriers in other symbols.
    """

    def __init__(self, array: tuple[int, ...], mask: Tensor):
        super().__init__()
        rows = mask[mask.any(1)]
        if not torch.equal(rows, rows[:1].expand_as(rows)):
            raise ValueError(
                "pilots are on other subcarriers in other symbols; a Fourier transform takes combs that are the same "
                "in all symbols with pilots."
            )
        self.antennas, self.pilots = math.prod(array), int(mask.sum())
        self.shape = (*array, len(rows), int(rows[0].sum()))
        axes = range(1, 1 + len(self.shape))
        self.axes = tuple(axes[-2 - min(2, len(array)) :])

    @classmethod
    def of(cls, problem: ChannelProblem) -> "BeamDelayTransform":
        """The transform for a problem's layout and pilots.

        Raises:
            ValueError: If pilots are on other subcarriers in other symbols.
        """
        return cls(problem.layout.array, problem.mask)

    def forward(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Pilots `(batch, antennas, pilots)` and their transform `(batch, *array, symbols, subcarriers)`."""
        y = by_antenna(y, self.antennas, self.pilots)
        return y, torch.fft.ifftn(y.reshape(-1, *self.shape), dim=self.axes, norm="ortho")

    def back(self, c: Tensor) -> Tensor:
        """The pilots of a transform, in its shape."""
        return torch.fft.fftn(c, dim=self.axes, norm="ortho")


def median_noise(p: Tensor) -> Tensor:
    """The noise variance `(batch, 1)` of powers `(batch, m)`, most of noise alone: their median over ln 2."""
    return p.median(-1, keepdim=True).values / math.log(2)
