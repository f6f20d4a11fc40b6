"""RF imaging: y = (A_1 ⊗ … ⊗ A_K) x + w, a complex scene seen by arrays, frequencies or random projections per axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.precision import dtype_named
from fanfold.core.units import from_db
from fanfold.linops import Kronecker, LinearOperator, field_of_view, partial_fourier, steering, uniform_linear
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems.base import Described
from fanfold.problems.rf.antenna_responses import element_responses, frequency_responses
from fanfold.problems.sparse.photographs import load_picture, picture_files

Sensing = Literal["gaussian", "fourier", "steering"]
Scene = Literal["points", "extended", "photographs"]


@dataclass(frozen=True)
class RFImaging(Described):
    """Scenes of shape `scene` through one factor for each axis: `y = (A_1 ⊗ … ⊗ A_K) x + w`.

    A factor is complex Gaussian, some rows of a Fourier matrix, or the steering matrix of a linear array half a
    wavelength apart that looks at a share of its field of view. Points are independent, `CN(0, 1)` with probability
    `sparsity`; extended targets are discs, bars and edges; photographs are crops of pictures. The latter two have
    speckle, `CN(0, reflectivity)`, or one random phase a scene if `speckle` is off. The SNR is `E‖Ax‖² / E‖w‖²` for
    white scenes of the same power.

    With phase, gain or position errors or measured responses the data come from the true array, while the observation
    carries the nominal operator: what a network is calibrated against.

    Raises:
        ValueError: If a number is out of range, or the scene does not suit its targets.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.RFImaging(scene=(8, 8), elements=(6, 6))
        >>> x, obs = problem.sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.y.shape, problem.shifted(phase_deg=5.0).prior is None
        (torch.Size([3, 64]), torch.Size([3, 36]), True)
    """

    sensing: Sensing = "steering"
    scene: tuple[int, ...] = (32, 32)  # voxels along each axis
    elements: tuple[int, ...] = (24, 24)  # measurements along each axis
    targets: Scene = "points"
    sparsity: float = 0.1  # probability of a point
    speckle: bool = True  # whether each voxel of an extended target has a phase and a strength by chance
    snr_db: float = 30.0  # E‖Ax‖² / E‖w‖²
    field: float = 0.8  # share of the field of view, in sines; of steering matrices
    phase_deg: float = 0.0  # standard deviation of each element's phase error
    gain_db: float = 0.0  # and of its gain error
    position: float = 0.0  # and of its place, in wavelengths; of steering matrices
    measured: bool = False  # responses of real antennas: detuned elements on the first axis, a band on the others
    pictures: tuple[str, ...] = ("camera", "ascent")  # shipped ones (aero, ascent, camera) or image files
    seed: int = 0  # seed of the factors and of their errors
    dtype: Literal["complex64", "complex128"] = "complex64"

    def __post_init__(self):
        if len(self.scene) != len(self.elements) or not self.scene or min(self.scene + self.elements) < 1:
            raise ValueError(
                f"the scene is {self.scene} and the elements are {self.elements}; give each axis a count of both."
            )
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}; it is the probability of a point, between 0 and 1.")
        if min(self.phase_deg, self.gain_db, self.position) < 0:
            raise ValueError("phase_deg, gain_db and position are standard deviations: not negative.")
        if self.targets != "points" and len(self.scene) != 2:
            raise ValueError(f"{self.targets} scenes have two axes, not {len(self.scene)}; take points for more.")

    @staticmethod
    def files_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The pictures that are files."""
        return picture_files(settings)

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The nominal operator."""
        ideal = 0.0, 0.0, 0.0, False
        return _operator(self.sensing, self.scene, self.elements, self.field, *ideal, self.seed, self.dtype)

    @property
    def true_A(self) -> LinearOperator:  # noqa: N802
        """The operator that measures."""
        errors = self.phase_deg, self.gain_db, self.position, self.measured
        return _operator(self.sensing, self.scene, self.elements, self.field, *errors, self.seed, self.dtype)

    @property
    def prior(self) -> BernoulliGaussian | None:
        """The prior of each voxel, where they are independent and the operator is known."""
        known = self.targets == "points" and self.A is self.true_A
        return BernoulliGaussian(self.sparsity) if known else None

    @cached_property
    def noise_var(self) -> float:
        """`E|w|²`."""
        energy = self.sparsity if self.targets == "points" else _mean_power(self.targets, self.scene, self.pictures)
        return energy * self.A.gram_diagonal().sum().item() / self.A.m / from_db(self.snr_db)

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` scenes `(n, voxels)`, axes in row-major order, and their observation with the nominal operator."""
        dtype = dtype_named(self.dtype)
        if self.targets == "points":
            x = BernoulliGaussian(self.sparsity).sample((n, self.A.n), generator, dtype)
        else:
            reflectivity = scenes(self.targets, n, self.scene, self.pictures, generator)
            phases = circular(reflectivity.shape if self.speckle else (n, 1, 1), generator, torch.complex64, 1.0)
            phases = phases if self.speckle else phases / phases.abs().clamp_min(1e-12)
            x = (reflectivity.sqrt() * phases).flatten(1).to(dtype)
        return self.sample_at(x, generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given scenes and an observation of each."""
        dtype = dtype_named(self.dtype)
        x = x.to(dtype)
        y = self.true_A @ x + circular((len(x), self.A.m), generator, dtype, self.noise_var)
        return x, Observation(y, self.A, torch.tensor(self.noise_var, dtype=dtype.to_real()))


def scenes(
    targets: Scene, n: int, shape: tuple[int, ...], pictures: tuple[str, ...], generator: torch.Generator
) -> Tensor:
    """Reflectivities `E|x|²` of `n` scenes, `(n, height, width)`, zero or more."""
    if targets == "photographs":
        return _crops(n, shape, pictures, generator)
    h, w = shape
    rows, columns = torch.arange(h)[:, None], torch.arange(w)
    picture = torch.zeros(n, h, w)
    for _ in range(3):  # one disc, one bar and one edge a scene, each at a place, size and brightness of its own
        u = torch.rand(6, n, 1, 1, generator=generator)
        dy, dx = rows - u[0] * h, columns - u[1] * w
        angle, brightness = math.pi * u[2], 10 ** -u[5]
        along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
        disc = dx**2 + dy**2 < (1 + 0.1 * h * u[3]) ** 2
        bar = (across.abs() < 0.75) & (along.abs() < 0.1 * h + 0.3 * h * u[3])
        edge = (along > 0) & (along < 0.15 * w * u[4] + 1) & (across.abs() < 0.15 * h * u[3] + 1)
        kind = torch.randint(3, (n, 1, 1), generator=generator)
        shown = torch.where(kind == 0, disc, torch.where(kind == 1, bar, edge))
        picture = torch.maximum(picture, brightness * shown)
    return picture


def _crops(n: int, shape: tuple[int, ...], pictures: tuple[str, ...], generator: torch.Generator) -> Tensor:
    """Crops of pictures at half their resolution, as brightness to the fourth power: dark ground, few bright parts."""
    loaded = [torch.nn.functional.avg_pool2d(load_picture(name)[None], 2)[0] for name in pictures]
    which = torch.randint(len(pictures), (n,), generator=generator).tolist()
    place = torch.rand(n, 2, generator=generator).tolist()
    crops = []
    for index, (down, right) in zip(which, place, strict=True):
        source = loaded[index]
        top, left = (int(share * (size - side + 1)) for share, size, side in zip((down, right), source.shape, shape))
        crops.append(source[top : top + shape[0], left : left + shape[1]])
    return torch.stack(crops) ** 4


@lru_cache(maxsize=32)
def _mean_power(targets: Scene, shape: tuple[int, ...], pictures: tuple[str, ...]) -> float:
    return scenes(targets, 2000, shape, pictures, torch.Generator().manual_seed(0)).mean().item()


@lru_cache(maxsize=32)
def _operator(
    sensing: Sensing,
    scene: tuple[int, ...],
    elements: tuple[int, ...],
    field: float,
    phase_deg: float,
    gain_db: float,
    position: float,
    measured: bool,
    seed: int,
    dtype: str,
) -> LinearOperator:
    """The Kronecker operator; errors, where there are any, are drawn after the factors, which they leave alone."""
    generator, of_errors = (torch.Generator().manual_seed(seed + offset) for offset in (0, 10_007))
    factors = []
    for axis, (n, m) in enumerate(zip(scene, elements, strict=True)):
        phase, gain, place = torch.randn(3, m, generator=of_errors, dtype=torch.float64)
        if sensing == "gaussian":
            factor = circular((m, n), generator, torch.complex128, 1 / m)
        elif sensing == "fourier":
            if m > n:
                raise ValueError(f"{m} rows of a Fourier matrix of {n}; take at most {n} elements on this axis.")
            factor = partial_fourier(n, torch.randperm(n, generator=generator)[:m].sort().values, torch.complex128)
        else:
            factor = steering(uniform_linear(m) + position * place, field_of_view(n, field), torch.complex128)
        response = 10 ** (gain_db * gain / 20) * torch.exp(1j * math.radians(phase_deg) * phase)
        if measured:
            response = response * (element_responses(of_errors, m) if axis == 0 else frequency_responses(m))
        factors.append((response[:, None] * factor).to(dtype_named(dtype)))
    return Kronecker(*factors)
