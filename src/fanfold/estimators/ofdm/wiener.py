"""LMMSE channel estimation, over time and frequency, over space, over all. Edfors et al. (1998); Kay (1993), ch. 12."""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fanfold.core.settings import checks_arguments
from fanfold.estimators.ofdm.covariance import ChannelCovariance, by_antenna, signal_power
from fanfold.estimators.ofdm.interpolation import interpolation_matrix
from fanfold.estimators.ofdm.noise_variance import NoiseVariance
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.protocols import ChannelProblem

SMALLEST_NOISE_VAR_IN_DOUBLE = 1e-9  # over the channel's power: covariances of few draws are singular

Over = Literal["grid", "space", "space-grid"]


class PrecomputedFilter(NamedTuple):
    """A filter over space and grid for one noise variance: a few matrices, complex64, that a receiver keeps."""

    to_modes: Tensor  # (pilots, pilots)
    to_beams: Tensor  # (antennas, antennas)
    gains: Tensor  # (antennas, pilots), real
    from_beams: Tensor  # (antennas, antennas)
    from_modes: Tensor  # (pilots, entries)

    def __call__(self, y: Tensor) -> Tensor:
        """The channel `(..., antennas, entries)` from pilots `(..., antennas, pilots)`."""
        return self.from_beams @ (self.gains * (self.to_beams @ (y @ self.to_modes))) @ self.from_modes


class Wiener(nn.Module):
    """The LMMSE filter of a covariance `space ⊗ grid`, in closed form; of the grid alone, of space alone or of both.

    Over the grid (frequency, and time where there are several symbols) each antenna is filtered by
    `C[:, p] (C[p, p] + noise_var I)⁻¹`. Over space the antennas are filtered at the pilots, and what lies between is
    interpolated linearly. Over both the filter is applied in the eigenbases of the two factors, so that no matrix of
    the whole channel is ever made and each observation may have a noise variance of its own. Filters are kept for each
    noise variance: `filter_of` is what a receiver stores for each antenna alone, `stored` for all of them.

    The error variance is that of Gaussian channels of this covariance; over space alone, at the pilots.

    Args:
        covariance: Covariance of channels of unit mean power.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        over: What is filtered.
        known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.

    Raises:
        ValueError: If the covariance is of another grid, `over` is unknown, or nothing can be interpolated.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("umi", "comb-4")
        >>> lmmse = ff.estimators.ofdm.Wiener.of(problem, ff.estimators.ofdm.ChannelCovariance.of(problem, 500))
        >>> x, obs = problem.held_out().sample(50, torch.Generator().manual_seed(0))
        >>> ff.units.nmse_db(lmmse(obs).x, x) < -14  # at 10 dB SNR
        True
    """

    measures_noise = True

    @checks_arguments
    def __init__(
        self, covariance: ChannelCovariance, mask: Tensor, over: Over = "space-grid", *, known_power: bool = False
    ):
        super().__init__()
        antennas, entries = len(covariance.space), len(covariance.grid)
        if entries != mask.numel():
            raise ValueError(f"the covariance is of {entries} resource elements, the mask has {mask.numel()}.")
        self.over, self.known_power = over, known_power
        pick = mask.flatten().nonzero().flatten()
        space = covariance.space if over != "grid" else torch.eye(antennas, dtype=torch.complex128)
        at_pilots = covariance.grid[pick][:, pick]
        of_space, U = torch.linalg.eigh(space)
        if over == "space":
            at_pilots = torch.eye(len(pick), dtype=torch.complex128)
            back = interpolation_matrix(mask).to(U.dtype)
            prior_var = back.square().sum(1).real  # of the entries, were they interpolated without noise
        else:
            back = covariance.grid[:, pick]
            prior_var = covariance.grid.diagonal().real
        of_pilots, V = torch.linalg.eigh(at_pilots)
        self.register_buffer("space", of_space.clamp_min(0))
        self.register_buffer("pilots", of_pilots.clamp_min(0))
        self.register_buffer("U", U)
        self.register_buffer("V", V)
        self.register_buffer("back", back @ V)  # (entries, pilots)
        self.register_buffer("prior_var", prior_var.clone())
        self.noise_variance = NoiseVariance(covariance.space, covariance.grid[pick][:, pick])
        self._filters: dict[float, Tensor] = {}

    @property
    def scale_equivariant(self) -> bool:
        """Whether the power is measured for each observation, so that other units change nothing."""
        return not self.known_power

    @classmethod
    @checks_arguments
    def of(
        cls,
        problem: ChannelProblem,
        covariance: ChannelCovariance | None = None,
        over: Over = "space-grid",
        *,
        known_power: bool = False,
    ) -> "Wiener":
        """The filter for a problem's layout and pilots.

        Args:
            problem: Layout and pilots.
            covariance: Covariance of channels of unit mean power; `ChannelCovariance.of` the problem if None.
            over: What is filtered.
            known_power: Whether entries of the channel are known to have unit mean power, which is then not measured.

        Raises:
            ValueError: If the covariance is of another layout, `over` is unknown, or nothing can be interpolated.
        """
        covariance, layout = ChannelCovariance.of(problem) if covariance is None else covariance, problem.layout
        sizes, wanted = (len(covariance.space), len(covariance.grid)), (layout.antennas, layout.n // layout.antennas)
        if sizes != wanted:
            raise ValueError(
                f"the covariance is of {sizes[0]} antennas and {sizes[1]} resource elements, the problem has "
                f"{wanted[0]} and {wanted[1]}."
            )
        return cls(covariance, problem.mask, over, known_power=known_power)

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the filter was made for.
        """
        leading, y = obs.y.shape[:-1], by_antenna(obs.y, len(self.space), len(self.pilots)).to(self.U.dtype)
        noise_var = self.noise_variance(obs.y) if obs.noise_var is None else obs.noise_var.expand(*leading, 1)
        scale = torch.ones_like(noise_var) if self.known_power else signal_power(obs.y, noise_var)
        relative = (noise_var / scale).double().clamp_min(SMALLEST_NOISE_VAR_IN_DOUBLE).reshape(-1, 1, 1)
        z_var = self.space[:, None] * self.pilots + relative  # in the eigenbases
        z = (self.U.mH @ y @ self.V.conj()) * self.space[:, None] / z_var
        x = self.U @ z @ self.back.mT
        var = (self._variance(z_var) * scale.reshape(-1, 1, 1)).expand(x.shape)
        return Estimate(x.reshape(*leading, -1).to(obs.y.dtype), var.reshape(*leading, -1).to(obs.y.real.dtype))

    def _apply(self, fn, recurse=True):
        self._filters.clear()  # the filter moves to another device
        return super()._apply(fn, recurse)

    def _variance(self, z_var: Tensor) -> Tensor:
        """Variances of the errors, `(…, antennas, entries)`, from those in the eigenbases."""
        of_antenna = (self.U.abs().square() * self.space).sum(1)
        explained = (self.U.abs().square() * self.space.square()) @ z_var.reciprocal() @ self.back.abs().square().mT
        return (of_antenna[:, None] * self.prior_var - explained).clamp_min(0)

    def filter_of(self, noise_var: float) -> Tensor:
        """The matrix `(entries, pilots)`, complex64, for one noise variance: `h = y @ filter.mT` at each antenna.

        Raises:
            ValueError: If the filter is over space too, or the noise variance is negative or not finite.
        """
        if self.over != "grid":
            raise ValueError(
                "one matrix an antenna exists only over the grid; take Wiener.of(problem, covariance, over='grid')."
            )
        if noise_var not in self._filters:
            W = (self.back / (self.pilots + _checked(noise_var))) @ self.V.mH
            self._filters[noise_var] = W.to(torch.complex64)
        return self._filters[noise_var]

    def stored(self, noise_var: float) -> PrecomputedFilter:
        """The filter for one noise variance and channels of unit power, over whatever this one is.

        Raises:
            ValueError: If the noise variance is negative or not finite.
        """
        gains = self.space[:, None] / (self.space[:, None] * self.pilots + _checked(noise_var))
        parts = (part.to(torch.complex64).contiguous() for part in (self.V.conj(), self.U.mH, self.U, self.back.mT))
        to_modes, to_beams, from_beams, from_modes = (part.resolve_conj() for part in parts)
        return PrecomputedFilter(to_modes, to_beams, gains.float(), from_beams, from_modes)


def _checked(noise_var: float) -> float:
    if not 0 <= noise_var < math.inf:
        raise ValueError(f"noise_var is {noise_var}; it is finite and not negative.")
    return max(noise_var, SMALLEST_NOISE_VAR_IN_DOUBLE)
