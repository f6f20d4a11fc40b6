"""Matching pursuit of paths. Pati, Rezaiifar & Krishnaprasad (1993); of channels Lee, Gil & Lee (2016)."""

import torch
from torch import Tensor, nn

from fanfold.core.units import power
from fanfold.estimators.ofdm.covariance import by_antenna
from fanfold.estimators.ofdm.path_grid import NoiseBeyondDelays, beam_delay_grid, known_or_measured
from fanfold.estimators.ofdm.scale import at_any_scale
from fanfold.observation import Estimate, Observation, takes_measurements
from fanfold.problems.protocols import ChannelProblem

PURSUITS_AT_A_TIME = 16
SMALLEST_GAIN = 1.0  # in the power a path explains, over the noise variance: Akaike (1974), of one complex number


class BeamDelayOMP(nn.Module):
    """Orthogonal matching pursuit of paths until `‖y - A s‖² <= m · noise_var`, or their number is the largest.

    It ends too where a path explains less than the noise of one coefficient.

    Channels are taken to stand still over a slot: in one that moves, least squares is better.

    The channel is the sum of the chosen paths, with coefficients of least squares. There is no error variance: what
    paths off the grid leave is not known.

    Args:
        array: Antennas along each axis.
        mask: Where the pilots are, `(symbols, subcarriers)`.
        B: Steering vectors `(antennas, atoms)`.
        D: Delays `(symbols · subcarriers, atoms)`.
        paths: Most paths; half the pilots if these are fewer, since as many as pilots would fit any noise.

    Raises:
        ValueError: If `paths` is not positive.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.OFDMChannel("umi", "comb-2")
        >>> x, obs = problem.sample(2, torch.Generator().manual_seed(0))
        >>> ff.estimators.ofdm.BeamDelayOMP.of(problem, paths=8)(obs).x.shape == x.shape
        True
    """

    measures_noise = True

    def __init__(self, array: tuple[int, ...], mask: Tensor, B: Tensor, D: Tensor, paths: int = 128):
        super().__init__()
        if paths < 1:
            raise ValueError(f"paths is {paths}; pass at least one path.")
        norm = B.abs().square().sum(0).sqrt()
        seen = D[mask.flatten()]
        self.paths, self.noise_variance = (
            min(paths, max(1, len(B) * len(seen) // 2)),
            NoiseBeyondDelays(array, mask, seen),
        )
        self.register_buffer("B", (B / norm).to(torch.complex64))
        self.register_buffer("D", (D / len(seen) ** 0.5).to(torch.complex64))
        self.register_buffer("seen", (seen / len(seen) ** 0.5).to(torch.complex64))

    @classmethod
    def of(
        cls,
        problem: ChannelProblem,
        paths: int = 128,
        beams: int = 2,
        delays: int = 4,
        longest_delay_s: float | None = None,
    ) -> "BeamDelayOMP":
        """The estimator for a problem's layout and pilots.

        Args:
            problem: Layout and pilots.
            paths: Most paths; half the pilots if these are fewer.
            beams: See `beam_delay_grid`.
            delays: See `beam_delay_grid`.
            longest_delay_s: See `beam_delay_grid`.

        Raises:
            ValueError: If a number is not positive.
        """
        B, D = beam_delay_grid(problem.layout, beams, delays, longest_delay_s)
        return cls(problem.layout.array, problem.mask, B, D, paths)

    @takes_measurements
    @at_any_scale
    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)`.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y = by_antenna(obs.y, len(self.B), len(self.seen)).to(torch.complex64)
        noise_var = known_or_measured(obs, y, self.noise_variance)
        parts = zip(y.split(PURSUITS_AT_A_TIME), noise_var.split(PURSUITS_AT_A_TIME), strict=True)
        channels = [self._pursue(*part) for part in parts]
        return Estimate(torch.cat(channels).reshape(*obs.y.shape[:-1], -1).to(obs.y.dtype))

    def _pursue(self, y: Tensor, noise_var: Tensor) -> Tensor:
        """Channels `(batch, antennas, entries)`; the chosen columns are made orthonormal as they come."""
        scale = power(y).mean((1, 2)).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        y = (y / scale[:, None, None]).flatten(1)
        v = (noise_var[:, 0] / scale.square()).clamp_min(1e-10)  # rounding ends a pursuit too
        batch, rows = len(y), torch.arange(len(y), device=y.device)
        Q, R = y.new_zeros(batch, y.shape[1], self.paths), y.new_zeros(batch, self.paths, self.paths)
        R.diagonal(dim1=1, dim2=2).fill_(1)
        of_beam, of_delay = (rows.new_zeros(batch, self.paths) for _ in range(2))
        left, going = y, torch.ones(batch, dtype=torch.bool, device=y.device)
        for k in range(self.paths):
            going = going & (power(left).sum(1) > v * y.shape[1])
            if not going.any():
                break
            match = power(self.B.mH @ left.reshape(batch, len(self.B), -1) @ self.seen.conj())
            match[rows[:, None], of_beam[:, :k], of_delay[:, :k]] = 0
            pick = match.flatten(1).argmax(1)
            of_beam[:, k], of_delay[:, k] = pick // match.shape[2], pick % match.shape[2]
            q = (self.B.mT[of_beam[:, k], :, None] * self.seen.mT[of_delay[:, k], None]).flatten(1)
            for _ in range(2):  # once leaves rounding of the condition number's size
                inside = (Q[:, :, :k].mH @ q[:, :, None])[..., 0]
                q = q - (Q[:, :, :k] @ inside[:, :, None])[..., 0]
                R[:, :k, k] += inside
            length = power(q).sum(1).sqrt()
            q = q / length.clamp_min(1e-4)[:, None]
            gain = (q.conj() * left).sum(1)
            # what is nearly a sum of others adds only rounding, what is as weak as noise may be only that
            going = going & (length > 1e-4) & (power(gain) > SMALLEST_GAIN * v)
            Q[:, :, k] = torch.where(going[:, None], q, 0)
            R[:, k, k] = torch.where(going, length, 1)
            left = torch.where(going[:, None], left - q * gain[:, None], left)
        s = torch.linalg.solve_triangular(R, Q.mH @ y[:, :, None], upper=True)[..., 0]
        grid = y.new_zeros(batch, self.B.shape[1], self.seen.shape[1])
        grid = grid.index_put((rows[:, None].expand_as(of_beam), of_beam, of_delay), s, accumulate=True)
        return scale[:, None, None] * (self.B @ grid @ self.D.mT)
