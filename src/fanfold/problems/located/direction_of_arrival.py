"""Direction of arrival on a uniform linear array. Stoica & Nehorai (1990), IEEE Trans. ASSP 38(10), section II."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.units import from_db, power
from fanfold.observation import Estimate, Observation
from fanfold.priors.base import gaussian_log_prob
from fanfold.problems.base import Described
from fanfold.problems.gaussian.quadrature import posterior_moments

MOST_SOURCES = 3
GAPS = {"uniform": 1, "smooth": 5}  # Dirichlet parameter of the gaps between directions
SAMPLES_AT_ONCE = 512  # whose posteriors are integrated together, for their memory


@dataclass(frozen=True)
class DirectionOfArrival(Described):
    """`Y = A(x) S + W`: 1 to 3 far, narrow-band sources on M sensors in a line, over N snapshots.

    `x_k = 2 pi spacing sin(direction_k)` is the electrical angle in radians, the phase between neighbouring sensors;
    `directions` turns it into radians from broadside. `A(x)_mk = exp(i x_k (m - (M - 1) / 2))`: phases count from the
    middle of the array. Y is flattened, `(..., M N)` with the snapshots of a sensor together; `snapshot_matrix` undoes
    that. Signals are `S_kn ~ CN(0, power_k)`, all independent, and `W_mn ~ CN(0, noise_var)`; the SNR of a source is
    `power_k / noise_var` at one sensor and snapshot, and the strongest has unit power.

    Angles are in rising order, each at least `separation` above the one before, within `±limit`, the electrical
    angle of the edge of the sector. What is left of the interval is split into gaps by a Dirichlet distribution with
    parameters 1 ("uniform": the angles are uniform over all such sets) or 5 ("smooth": the density of one source is
    Beta(5, 5), which vanishes with its derivatives at the edges, as Van Trees' bound asks, and fast enough that draws
    tell its information).

    To the "stochastic" model the angles are all the parameters and Y is Gaussian with zero mean and known powers; to
    the "deterministic" one the signals are nuisance parameters: `(x, Re S, Im S)`, S source by source. Draws are the
    same.

    Raises:
        ValueError: If a size is out of range, the separation leaves no room, or the sector is seen ambiguously.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.DirectionOfArrival(sensors=8, snapshots=5, sources=2)
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.y.shape, bool((x.diff() >= problem.gap).all())
        (torch.Size([3, 2]), torch.Size([3, 40]), True)
    """

    sensors: int = 10  # M
    snapshots: int = 10  # N
    sources: int = 1  # 1 to 3
    snr_db: float | tuple[float, ...] = 0.0  # SNR of each source in dB, at one sensor and snapshot; or one for all
    spacing: float = 0.5  # spacing of the sensors in wavelengths
    sector: float = 60.0  # directions lie within ± so many degrees of broadside
    separation: float | None = None  # least difference of two angles; None is a beam width, 2 pi / M
    angles: Literal["uniform", "smooth"] = "uniform"  # prior of the angles
    signals: Literal["stochastic", "deterministic"] = "stochastic"  # what the likelihood takes them for

    A = None

    def __post_init__(self):
        if not 1 <= self.sources <= MOST_SOURCES:
            raise ValueError(f"sources is {self.sources}; directions of 1 to {MOST_SOURCES} sources can be drawn.")
        if self.sensors <= self.sources or self.snapshots < 1:
            raise ValueError(
                f"{self.sensors} sensors and {self.snapshots} snapshots for {self.sources} sources; pass more sensors "
                "than sources, and at least one snapshot."
            )
        if isinstance(self.snr_db, Sequence) and len(self.snr_db) != self.sources:
            raise ValueError(f"snr_db has {len(self.snr_db)} entries; pass one for all, or {self.sources}.")
        if not 0 < self.sector <= 90 or self.spacing <= 0 or self.limit >= math.pi:
            raise ValueError(
                f"a spacing of {self.spacing} wavelengths and ±{self.sector} degrees: angles up to {self.limit:.2f}, "
                "which are told apart only within ±pi. Pass a smaller spacing or sector."
            )
        if self.gap < 0 or self.room <= 0:
            raise ValueError(
                f"{self.sources} angles at least {self.gap:.3g} apart within ±{self.limit:.3g}: there is no room; "
                "pass a smaller separation."
            )

    @property
    def limit(self) -> float:
        """The largest angle: all lie within ± this."""
        return 2 * math.pi * self.spacing * math.sin(math.radians(self.sector))

    @property
    def gap(self) -> float:
        """The least difference of two angles."""
        return 2 * math.pi / self.sensors if self.separation is None else self.separation

    @property
    def room(self) -> float:
        """The part of the interval that the separations leave."""
        return 2 * self.limit - (self.sources - 1) * self.gap

    @property
    def powers(self) -> Tensor:
        """`E|S_kn|²`, `(sources,)`, in double precision."""
        ratios = self._ratios()
        return torch.tensor(ratios, dtype=torch.float64) / max(ratios)

    @property
    def noise_var(self) -> float:
        """`E|w|²`."""
        return 1 / max(self._ratios())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters."""
        angles = tuple(f"angle{k}" for k in range(self.sources))
        if self.signals == "stochastic":
            return angles
        signals = [f"S{k},{n}" for k in range(self.sources) for n in range(self.snapshots)]
        return (*angles, *(f"{part} {s}" for part in ("Re", "Im") for s in signals))

    @property
    def wanted(self) -> tuple[int, ...]:
        """The places of the angles."""
        return tuple(range(self.sources))

    @property
    def limits(self) -> tuple[tuple[float, float], ...]:
        """The least and the largest value of each parameter."""
        rest = len(self.names) - self.sources
        return ((-self.limit, self.limit),) * self.sources + ((-math.inf, math.inf),) * rest

    @property
    def periodic(self) -> tuple[bool, ...]:
        """True of a parameter whose largest value is next to its least: of none."""
        return (False,) * len(self.names)

    def grid(self, count: int | None = None) -> Tensor:
        """Sets of angles that a search starts from, without signals: `(points, parameters)`, in double precision.

        With so many values for each angle; None takes six to a beam width: with four, a search for three sources at
        20 dB ends beside the highest peak in one of 300 draws.
        """
        beams = self.limit * self.sensors / math.pi
        count = count or math.ceil(6 * beams)
        each = self.limit * (2 * (torch.arange(count, dtype=torch.float64) + 0.5) / count - 1)
        sets = torch.combinations(each, self.sources)
        sets = sets[(sets.diff(dim=-1) > self.gap).all(-1)]
        return torch.cat([sets, sets.new_zeros(len(sets), len(self.names) - self.sources)], -1)

    def profile(self, x: Tensor, obs: Observation) -> Tensor:
        """The parameters with the signals that suit their angles and y best, by least squares."""
        if self.signals == "stochastic":
            return x
        angles = x[..., : self.sources]
        A, Y = self.steering(angles), self.snapshot_matrix(obs.y)
        S = torch.linalg.solve(A.mH @ A, A.mH @ Y.to(A.dtype)).flatten(-2)
        return torch.cat([angles.expand(*S.shape[:-1], -1), S.real, S.imag], -1)

    def directions(self, x: Tensor) -> Tensor:
        """Directions in radians from broadside, from electrical angles."""
        return torch.asin((x / (2 * math.pi * self.spacing)).clamp(-1, 1))

    def snapshot_matrix(self, y: Tensor) -> Tensor:
        """The measurements by sensor and snapshot, `(..., M N)` -> `(..., M, N)`."""
        return y.unflatten(-1, (self.sensors, self.snapshots))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs: angles `(n, sources)` and y `(n, M N)`."""
        x, obs = self.sample_all(n, generator)
        return x[:, : self.sources], obs

    def sample_all(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` pairs: all parameters of the model and y `(n, M N)`."""
        shape = GAPS[self.angles]  # a gamma variable of an integer shape is a sum of exponential ones
        gamma = -torch.log1p(-torch.rand(n, self.sources + 1, shape, generator=generator, dtype=torch.float64)).sum(-1)
        gaps = self.room * gamma / gamma.sum(-1, keepdim=True)
        angles = gaps.cumsum(-1)[:, :-1] - self.limit + self.gap * torch.arange(self.sources)
        amplitudes = self.powers.float().sqrt()[:, None]
        S = circular((n, self.sources, self.snapshots), generator, torch.complex64) * amplitudes
        W = circular((n, self.sensors, self.snapshots), generator, torch.complex64, self.noise_var)
        y = (self.steering(angles).to(S.dtype) @ S + W).flatten(-2)
        x = angles.float()
        if self.signals == "deterministic":
            x = torch.cat([x, S.real.flatten(1), S.imag.flatten(1)], -1)
        return x, Observation(y, None, torch.tensor(self.noise_var))

    def steering(self, angles: Tensor) -> Tensor:
        """`A(x)`, what the array sees of each angle, `(..., k)` -> `(..., M, k)`, complex."""
        place = torch.arange(self.sensors, dtype=angles.dtype, device=angles.device) - (self.sensors - 1) / 2
        phase = place[:, None] * angles.unsqueeze(-2)
        return torch.complex(phase.cos(), phase.sin())

    def mean(self, x: Tensor) -> Tensor:
        """The mean of y, `(..., M N)`: `A(x) S` of the deterministic model, zero of the stochastic one."""
        if self.signals == "stochastic":
            return torch.complex(*x.new_zeros((2, *x.shape[:-1], self.sensors * self.snapshots)))
        angles, S = self._split(x)
        return (self.steering(angles) @ S).flatten(-2)

    def covariance(self, x: Tensor) -> Tensor:
        """The covariance of y, `(..., M N, M N)`: `(A P Aᴴ + noise_var I) ⊗ I`, or white of the deterministic model."""
        if self.signals == "stochastic":
            of_sensors = self.sensor_covariance(x)
        else:
            white = self.noise_var * torch.eye(self.sensors, dtype=x.dtype, device=x.device)
            of_sensors = torch.complex(white, torch.zeros_like(white)).expand(*x.shape[:-1], -1, -1)
        return torch.kron(of_sensors, torch.eye(self.snapshots, dtype=x.dtype, device=x.device))

    def sensor_covariance(self, x: Tensor) -> Tensor:
        """The covariance of one snapshot, `A P Aᴴ + noise_var I`: angles `(..., sources)` -> `(..., M, M)`."""
        A = self.steering(x[..., : self.sources])
        return (A * self.powers.to(x)) @ A.mH + self.noise_var * torch.eye(self.sensors, dtype=A.dtype, device=A.device)

    def log_prior(self, x: Tensor) -> Tensor:
        """`log p(x)` of all parameters, `(..., n)` -> `(...)`; -inf where angles are out of order or too close."""
        if self.signals == "stochastic":
            return self._log_density(x)
        angles, S = self._split(x)
        return self._log_density(angles) + gaussian_log_prob(S, self.powers.to(x)[:, None]).sum((-2, -1))

    def log_likelihood(self, x: Tensor, obs: Observation) -> Tensor:
        """`log p(y|x)`, `(..., n)` with `(..., M N)` -> `(...)`."""
        if self.signals == "deterministic":
            return gaussian_log_prob(obs.y - self.mean(x), self.noise_var).sum(-1)
        B = self.steering(x) * self.powers.to(x).sqrt()
        B, Y = B.to(torch.promote_types(B.dtype, obs.y.dtype)), self.snapshot_matrix(obs.y)
        Y = Y.to(B.dtype)  # Woodbury: only a matrix of the sources' size is inverted
        K = B.mH @ B + self.noise_var * torch.eye(self.sources, dtype=B.dtype, device=B.device)
        L = torch.linalg.cholesky(K)
        seen = torch.linalg.solve_triangular(L, B.mH @ Y, upper=False)
        energy = power(Y).sum((-2, -1)) - power(seen).sum((-2, -1))
        log_det = 2 * L.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        log_det = log_det + (self.sensors - self.sources) * math.log(self.noise_var)
        return -energy / self.noise_var - self.snapshots * (log_det + self.sensors * math.log(math.pi))

    @property
    def has_posterior(self) -> bool:
        """True where `posterior` answers: there is one source."""
        return self.sources == 1

    def posterior(self, obs: Observation) -> Estimate:
        """`E[x|y]` and `Var[x|y]` of one source's angle, by quadrature in double precision.

        With the signals integrated out the log likelihood is `1 / (M + noise_var) / noise_var` times the periodogram,
        `Re Σ_l c_l e^{-i l x}`.

        Raises:
            ValueError: If there are several sources.
        """
        if self.sources > 1:
            raise ValueError(f"the posterior of {self.sources} angles has no quadrature; take sources=1.")
        Y = self.snapshot_matrix(obs.y).reshape(-1, self.sensors, self.snapshots).to(torch.complex128)
        spectrum = power(torch.fft.fft(Y, 2 * self.sensors, dim=-2)).sum(-1)
        lags = torch.fft.ifft(spectrum)[:, : self.sensors] / (self.sensors + self.noise_var) / self.noise_var
        lags[:, 1:] *= 2  # Σ_mn Y_{m+l,n} conj(Y_mn) and their conjugates at -l
        parts = [self._moments(part) for part in lags.split(SAMPLES_AT_ONCE)]
        mean, var = (torch.cat(part).reshape(*obs.y.shape[:-1], 1).to(obs.y.real.dtype) for part in zip(*parts))
        return Estimate(mean, var)

    def _moments(self, lags: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and variance, `(batch,)` each, from `c_l`, `(batch, M)`."""
        order = torch.arange(self.sensors, dtype=torch.float64, device=lags.device)

        def log_density(places: Tensor, rows: Tensor | None) -> Tensor:
            phase = places.unsqueeze(-1) * order
            waves = torch.cat([phase.cos(), phase.sin()], -1)
            seen = torch.cat([lags.real, lags.imag], -1)
            logs = seen @ waves.mT if rows is None else (waves @ seen[rows].unsqueeze(-1)).squeeze(-1)
            return logs + self._log_density(places.unsqueeze(-1))

        sharpness = (lags.abs() * order.square()).sum(-1)  # as if all lags were in phase
        cells = math.ceil(4 * self.limit * self.sensors / math.pi)
        return posterior_moments(log_density, -self.limit, self.limit, sharpness, cells)

    def _log_density(self, angles: Tensor) -> Tensor:
        """The log prior of the angles alone: the gaps over the room that they share are Dirichlet."""
        low = angles.new_full((*angles.shape[:-1], 1), -self.limit)
        least = angles.new_tensor([0.0, *[self.gap] * (self.sources - 1), 0.0])
        gaps = (torch.cat([low, angles, -low], -1).diff(dim=-1) - least) / self.room
        shape, count = GAPS[self.angles], self.sources + 1
        inside = (gaps > 0).all(-1)
        log_gaps = torch.log(torch.where(inside.unsqueeze(-1), gaps, 1.0))
        constant = math.lgamma(count * shape) - count * math.lgamma(shape) - self.sources * math.log(self.room)
        return torch.where(inside, (shape - 1) * log_gaps.sum(-1) + constant, -math.inf)

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Angles `(..., sources)` and signals `(..., sources, N)` of the deterministic model's parameters."""
        count = self.sources * self.snapshots
        angles, real, imag = x.split([self.sources, count, count], -1)
        return angles, torch.complex(real.contiguous(), imag.contiguous()).unflatten(-1, (self.sources, self.snapshots))

    def _ratios(self) -> list[float]:
        each = self.snr_db if isinstance(self.snr_db, Sequence) else [self.snr_db] * self.sources
        return [from_db(snr_db) for snr_db in each]
