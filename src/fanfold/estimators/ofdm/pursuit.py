"""Paths on a grid of beams and delays: matching pursuit and OAMP, with nothing learned.

Pati, Rezaiifar & Krishnaprasad (1993); of channels Lee, Gil & Lee (2016). OAMP: Ma & Ping (2017).
"""

import torch
from torch import Tensor, nn

from fanfold.algorithms import OAMP
from fanfold.core.units import power
from fanfold.estimators.ofdm.covariance import CYCLIC_PREFIX, by_antenna
from fanfold.estimators.ofdm.delay_threshold import BeamDelayTransform, median_noise
from fanfold.linops import Kronecker
from fanfold.observation import Estimate, Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems.radio.ofdm_channel import OFDMChannel
from fanfold.unfolding.unfold import iterate

CHUNK = 16  # observations at a time
FEW = 0.25  # of the directions of the pilots: the median of all says more of the noise than so few
LEAST_GAIN = 1.0  # of a path in the power it explains, over the noise variance: Akaike (1974), of one complex number
LOUDEST = 1e4  # noise variance over the power of y


def beam_delay_grid(
    problem: OFDMChannel, beams: int = 1, delays: int = 2, longest_delay_s: float | None = None
) -> tuple[Tensor, Tensor]:
    """Steering vectors `(antennas, atoms)` and delays `(symbols · subcarriers, atoms)`, complex128, of modulus one.

    Directions are uniform in sine along the last two axes of the array; polarisations and panels have their own. Delays
    run from zero on in steps of a share of one over the bandwidth. Paths stand still over a slot.

    Args:
        problem: Its layout.
        beams: Atoms for each antenna along an axis.
        delays: Atoms within one over the bandwidth.
        longest_delay_s: In seconds; the cyclic prefix if None.

    Raises:
        ValueError: If a number is not positive.
    """
    layout = problem.layout
    longest = CYCLIC_PREFIX / layout.spacing_hz if longest_delay_s is None else longest_delay_s
    if min(beams, delays) < 1 or not longest > 0:
        raise ValueError(f"beams {beams}, delays {delays} and longest_delay_s {longest}; all are greater than zero.")
    B = torch.eye(torch.Size(layout.array[:-2]).numel(), dtype=torch.complex128)
    for size in layout.array[-2:]:
        B = torch.kron(B, _waves(size, torch.arange(beams * size if size > 1 else 1) / (beams * size)))
    steps = int(longest * layout.spacing_hz * layout.subcarriers * delays) + 1
    D = _waves(layout.subcarriers, torch.arange(steps) / (delays * layout.subcarriers))
    return B, D.repeat(layout.symbols, 1)


class NoiseBeyondDelays(nn.Module):
    """The noise variance of pilots from what no path on the grid can cause; where that is little, the median.

    What is left is the mean power along the directions that are orthogonal to all delays, as in MUSIC's noise subspace.

    Args:
        problem: Layout and pilots.
        seen: Delays at the pilots `(pilots, atoms)`.
    """

    def __init__(self, problem: OFDMChannel, seen: Tensor):
        super().__init__()
        U, d, _ = torch.linalg.svd(seen, full_matrices=True)
        self.register_buffer("beyond", U[:, int((d > 1e-4 * d[0]).sum()) :].conj().to(torch.complex64))
        few = self.beyond.shape[1] < FEW * len(seen)
        self.transform = BeamDelayTransform(problem) if few else None

    def forward(self, y: Tensor) -> Tensor:
        """`(batch, 1)` of pilots `(batch, antennas, pilots)`."""
        if self.transform is not None:
            return median_noise(power(self.transform(y.flatten(1))[1]).flatten(1))
        return power(y @ self.beyond).mean((1, 2))[:, None]


class BeamDelayOMP(nn.Module):
    """Orthogonal matching pursuit of paths until `‖y - A s‖² <= m · noise_var`, or their number is the largest.

    It ends too where a path explains less than the noise of one coefficient.

    Channels are taken to stand still over a slot: in one that moves, least squares is better.

    The channel is the sum of the paths that were found, with coefficients of least squares. There is no error variance:
    what paths off the grid leave is not known.

    Args:
        problem: Layout and pilots.
        most: Paths; half the pilots if these are fewer, since as many as pilots would fit any noise.
        beams: See `beam_delay_grid`.
        delays: See `beam_delay_grid`.
        longest_delay_s: See `beam_delay_grid`.

    Raises:
        ValueError: If a number is not positive.
    """

    def __init__(
        self,
        problem: OFDMChannel,
        most: int = 128,
        beams: int = 2,
        delays: int = 4,
        longest_delay_s: float | None = None,
    ):
        super().__init__()
        if most < 1:
            raise ValueError(f"most is {most}; pass at least one path.")
        B, D = beam_delay_grid(problem, beams, delays, longest_delay_s)
        norm = B.abs().square().sum(0).sqrt()
        seen = D[problem.mask.flatten()]
        self.most, self.noise_variance = min(most, max(1, problem.A.m // 2)), NoiseBeyondDelays(problem, seen)
        self.register_buffer("B", (B / norm).to(torch.complex64))
        self.register_buffer("D", (D / len(seen) ** 0.5).to(torch.complex64))
        self.register_buffer("seen", (seen / len(seen) ** 0.5).to(torch.complex64))

    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)`.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y = by_antenna(obs.y.to(torch.complex64), len(self.B), len(self.seen))
        noise_var = _noise_var(obs, y, self.noise_variance)
        found = [self._pursue(y[k : k + CHUNK], noise_var[k : k + CHUNK]) for k in range(0, len(y), CHUNK)]
        return Estimate(torch.cat(found).reshape(*obs.y.shape[:-1], -1).to(obs.y.dtype))

    def _pursue(self, y: Tensor, noise_var: Tensor) -> Tensor:
        """`(batch, antennas, entries)`; the chosen columns are made orthonormal as they come."""
        scale = power(y).mean((1, 2)).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
        y = (y / scale[:, None, None]).flatten(1)
        v = (noise_var[:, 0] / scale.square()).clamp_min(1e-10)  # rounding ends a pursuit too
        batch, rows = len(y), torch.arange(len(y), device=y.device)
        Q, R = y.new_zeros(batch, y.shape[1], self.most), y.new_zeros(batch, self.most, self.most)
        R.diagonal(dim1=1, dim2=2).fill_(1)
        of_beam, of_delay = (rows.new_zeros(batch, self.most) for _ in range(2))
        left, going = y, torch.ones(batch, dtype=torch.bool, device=y.device)
        for k in range(self.most):
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
            found = (q.conj() * left).sum(1)
            # what is nearly a sum of others adds only rounding, what is as weak as noise may be only that
            going = going & (length > 1e-4) & (power(found) > LEAST_GAIN * v)
            Q[:, :, k] = torch.where(going[:, None], q, 0)
            R[:, k, k] = torch.where(going, length, 1)
            left = torch.where(going[:, None], left - q * found[:, None], left)
        s = torch.linalg.solve_triangular(R, Q.mH @ y[:, :, None], upper=True)[..., 0]
        grid = y.new_zeros(batch, self.B.shape[1], self.seen.shape[1])
        grid = grid.index_put((rows[:, None].expand_as(of_beam), of_beam, of_delay), s, accumulate=True)
        return scale[:, None, None] * (self.B @ grid @ self.D.mT)


class BeamDelayOAMP(nn.Module):
    """OAMP of Bernoulli-Gaussian coefficients on a grid of beams and delays, whose settings each observation tells.

    Channels are taken to stand still over a slot. Grids much finer than the default's make it diverge: neighbouring
    atoms are then nearly one.
    The error variance takes the coefficients' errors to be independent, and the channel to be on the grid.

    Args:
        problem: Layout and pilots.
        iterations: Of OAMP.
        share: Of coefficients that are not zero, to start with.
        damping: Share of the new message in what is sent on; less from where an observation's errors grow.
        beams: See `beam_delay_grid`.
        delays: See `beam_delay_grid`.
        longest_delay_s: See `beam_delay_grid`.
    """

    def __init__(
        self,
        problem: OFDMChannel,
        iterations: int = 40,
        share: float = 0.1,
        damping: float = 0.3,
        beams: int = 2,
        delays: int = 2,
        longest_delay_s: float | None = None,
    ):
        super().__init__()
        B, D = beam_delay_grid(problem, beams, delays, longest_delay_s)
        seen = D[problem.mask.flatten()]
        B, D, seen = B / B.abs().square().sum(0).sqrt(), D / len(seen) ** 0.5, seen / len(seen) ** 0.5
        self.A = Kronecker(B.to(torch.complex64), seen.to(torch.complex64))
        self.back = Kronecker(B.to(torch.complex64), D.to(torch.complex64))
        self.squares = Kronecker(B.abs().square().float(), D.abs().square().float())
        self.antennas, self.pilots, self.noise_variance = len(B), len(seen), NoiseBeyondDelays(problem, seen)
        prior = BernoulliGaussian(share, 1 / share)
        self.algorithm = iterate(OAMP(prior, settings="estimated", damping=damping, adapt=True), iterations)

    def forward(self, obs: Observation) -> Estimate:
        """The channel `(..., n)` and its error variance.

        Raises:
            ValueError: If the pilots are not those that the estimator was made for.
        """
        y = by_antenna(obs.y.to(torch.complex64), self.antennas, self.pilots)
        noise_var, y = _noise_var(obs, y, self.noise_variance), y.flatten(1)
        scale = power(y).mean(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        A, back, squares = (operator.to(y.device) for operator in (self.A, self.back, self.squares))
        silent = scale <= torch.finfo(torch.float32).tiny  # OAMP finds no prior for it, but without noise
        relative = (noise_var / scale).clamp_max(LOUDEST).masked_fill(silent, 0.0)
        s = self.algorithm(Observation.unchecked(y / scale.sqrt(), A, relative))
        assert s.var is not None  # OAMP tells it
        x, var, leading = scale.sqrt() * (back @ s.x), scale * (squares @ s.var), obs.y.shape[:-1]
        return Estimate(x.reshape(*leading, -1).to(obs.y.dtype), var.reshape(*leading, -1).to(obs.y.real.dtype))


def _noise_var(obs: Observation, y: Tensor, unknown: NoiseBeyondDelays) -> Tensor:
    """`(batch, 1)`, said or measured."""
    if obs.noise_var is None:
        return unknown(y)
    return obs.noise_var.expand(*obs.y.shape[:-1], 1).reshape(-1, 1).float()


def _waves(size: int, turns: Tensor) -> Tensor:
    """`exp(-j 2π i u)` for i below `size` and turns u `(atoms,)`: `(size, atoms)`."""
    angle = -2 * torch.pi * torch.arange(size, dtype=torch.float64)[:, None] * turns.double()
    return torch.polar(torch.ones_like(angle), angle)
