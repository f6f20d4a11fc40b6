"""Least squares at the pilots and interpolation between them. Coleri, Ergen, Puri & Bahai (2002)."""

from typing import Literal

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from fanfold.core.settings import checks_arguments
from fanfold.estimators.ofdm.covariance import by_antenna
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.protocols import ChannelProblem

Method = Literal["linear", "nearest", "spline"]


class Interpolation(nn.Module):
    """`x = W y` at each antenna: along frequency in each symbol with pilots, then linearly in time between these.

    Outside the outermost pilots the last one is held, but for splines, which go on. The error variance is that of the
    noise, `noise_var · Σ W²`; what interpolation itself errs by is not known to it.

    Args:
        W: Weights of one antenna, `(symbols · subcarriers, pilots)`; see `interpolation_matrix`.
        antennas: Number of the array's antennas.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> x, obs = problem.sample(5, torch.Generator().manual_seed(0))
        >>> ff.estimators.ofdm.Interpolation.of(problem)(obs).x.shape == x.shape
        True
    """

    def __init__(self, W: Tensor, antennas: int):
        super().__init__()
        self.antennas = antennas
        self.register_buffer("W", W.float())
        self.register_buffer("gain", W.square().sum(1).float())

    @classmethod
    @checks_arguments
    def of(cls, problem: ChannelProblem, method: Method = "linear") -> "Interpolation":
        """The estimator for a problem's layout and pilots.

        Args:
            problem: Layout and pilots.
            method: Method of interpolation along frequency.

        Raises:
            ValueError: If a symbol with pilots has but one, which leaves nothing to interpolate.
        """
        return cls(interpolation_matrix(problem.mask, method), problem.layout.antennas)

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and, where the noise variance is known, its error variance.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y = by_antenna(obs.y, self.antennas, self.W.shape[1])
        W = self.W.to(y.real.dtype).mT
        x = torch.complex(y.real @ W, y.imag @ W).reshape(*obs.y.shape[:-1], -1)
        if obs.noise_var is None:
            return Estimate(x)
        return Estimate(x, (obs.noise_var * self.gain.to(W.dtype).repeat(self.antennas)).expand(x.shape))


@checks_arguments
def interpolation_matrix(mask: Tensor, method: Method = "linear") -> Tensor:
    """The real weights `(symbols · subcarriers, pilots)`, in double precision, for pilots `(symbols, subcarriers)`.

    Raises:
        ValueError: If a symbol with pilots has but one for several subcarriers, or the method is unknown.
    """
    symbols, subcarriers = mask.shape
    rows = mask.any(1).nonzero().flatten().tolist()
    everywhere, when = np.arange(subcarriers), np.arange(symbols)
    over_time = _linear(np.array(rows), when)  # (symbols, symbols with pilots)
    columns = []
    for place, symbol in enumerate(rows):
        pilots = mask[symbol].nonzero().flatten().numpy()
        if len(pilots) < 2 < subcarriers:
            raise ValueError(
                f"symbol {symbol} has pilots on subcarrier {pilots.tolist()} only, of {subcarriers}: nothing to "
                "interpolate between; take a comb with at least two pilots."
            )
        columns.append(np.kron(over_time[:, place : place + 1], _along_frequency(pilots, everywhere, method)))
    return torch.from_numpy(np.concatenate(columns, 1))


def _along_frequency(pilots: np.ndarray, everywhere: np.ndarray, method: Method) -> np.ndarray:
    if method == "linear":
        return _linear(pilots, everywhere)
    if method == "nearest":
        return np.eye(len(pilots))[np.abs(everywhere[:, None] - pilots).argmin(1)]
    if method == "spline":
        if len(pilots) == 1:
            return np.ones((len(everywhere), 1))
        return CubicSpline(pilots, np.eye(len(pilots)))(everywhere)
    raise ValueError(f"unknown interpolation {method!r}; take linear, nearest or spline.")


def _linear(knots: np.ndarray, everywhere: np.ndarray) -> np.ndarray:
    return np.stack([np.interp(everywhere, knots, unit) for unit in np.eye(len(knots))], 1)
