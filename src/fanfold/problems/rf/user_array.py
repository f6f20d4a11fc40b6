"""RF imaging by the user's own array: its geometry from a text file, and calibration pairs from the true array."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor

from fanfold.core.data_files import regular_file
from fanfold.core.noise import circular
from fanfold.core.precision import dtype_named
from fanfold.core.units import from_db, power
from fanfold.linops import Diagonal, LinearOperator
from fanfold.observation import Observation, check_finite
from fanfold.priors import BernoulliGaussian
from fanfold.problems.base import Described
from fanfold.problems.pair_arrays import PairArrays, notice_unrelated
from fanfold.problems.pairs import Part, load_arrays, pick_rows, rows_of
from fanfold.problems.rf.geometry_file import Geometry, read_geometry
from fanfold.problems.rf.imaging import Scene, scenes
from fanfold.problems.sparse.photographs import picture_files

SIMULATED_ONLY = ("targets", "sparsity", "speckle", "snr_db", "phase_deg", "gain_db", "pictures", "seed")


@dataclass(frozen=True)
class RFGeometry(Described):
    """Your own array, from a geometry file: `y = A x + w`, trained on its calibration pairs or on simulated scenes.

    `fanfold.problems.rf.geometry_file` says what the file holds. Calibration pairs are an `.npz` file with known scenes
    `x`, `(samples, voxels)` or `(samples, *scene)`, and what the true array measured of them, complex `y`,
    `(samples, m)` or with one axis for each of the array's; `noise_var`, `E|w|²`, may stand beside them. Networks get y
    with the nominal A of the file. The last `held_out_share` of the pairs is kept for validation and testing.

    Without pairs scenes are simulated as `rf-imaging` does; with phase or gain errors, one for each element of each
    axis, or each transmitter, receiver and frequency, they come from an array that is not the nominal one.

    Raises:
        ValueError: If a number is out of range, or a file is missing or does not fit.

    Example:
        >>> import fanfold as ff, pathlib, tempfile
        >>> file = pathlib.Path(tempfile.mkdtemp(), "array.toml")
        >>> _ = file.write_text('axis = [{kind = "linear-array", elements = 8, field = 0.8, voxels = 10}]')
        >>> problem = ff.problems.RFGeometry(str(file))
        >>> problem.A.shape, problem.scene
        ((8, 10), (10,))
    """

    geometry: str  # a TOML file; the documentation of fanfold.problems.rf.geometry_file says what it holds
    pairs: str | None = None  # an .npz file of scenes x and measurements y; simulated scenes if not given
    part: Part = "train"
    held_out_share: float = 0.2  # share of the pairs, from the end of the file, that is kept for tests
    targets: Scene = "points"  # targets of simulated scenes, as all settings below
    sparsity: float = 0.1  # probability of a point
    speckle: bool = True
    snr_db: float = 30.0  # E‖Ax‖² / E‖w‖²
    phase_deg: float = 0.0  # standard deviation of each element's phase error
    gain_db: float = 0.0  # and of its gain error
    pictures: tuple[str, ...] = ("camera", "ascent")  # shipped ones (aero, ascent, camera) or image files
    seed: int = 0  # seed of the errors
    dtype: Literal["complex64", "complex128"] = "complex64"

    def __post_init__(self):
        if not 0 < self.sparsity < 1:
            raise ValueError(f"sparsity is {self.sparsity}; it is the probability of a point, between 0 and 1.")
        if not 0 < self.held_out_share < 1:
            raise ValueError(f"held_out_share is {self.held_out_share}; pass a share between 0 and 1.")
        if min(self.phase_deg, self.gain_db) < 0:
            raise ValueError("phase_deg and gain_db are standard deviations: not negative.")
        if self.pairs is not None:
            self.rows()
        elif self.targets != "points" and len(self._extent) != 2:
            raise ValueError(
                f"{self.targets} scenes have two axes of more than one voxel, and {self.geometry} has a scene of "
                f"{self.scene}; take points."
            )

    @staticmethod
    def files_of(settings: Mapping[str, Any]) -> Sequence[str]:
        """The geometry, the pairs and the pictures that are files."""
        pairs = settings.get("pairs")
        return [settings["geometry"], *([] if pairs is None else [pairs]), *picture_files(settings)]

    @property
    def A(self) -> LinearOperator:  # noqa: N802
        """The nominal operator, as the geometry file has it."""
        return self._geometry.operator(dtype_named(self.dtype))

    @property
    def scene(self) -> tuple[int, ...]:
        """Voxels along each axis; x has them in row-major order."""
        return self._geometry.scene

    @property
    def measured(self) -> bool:
        """Whether there are pairs, whose SNR no setting changes."""
        return self.pairs is not None

    @property
    def true_A(self) -> LinearOperator | None:  # noqa: N802
        """The operator that measures simulated scenes; of pairs nobody knows it."""
        if self.pairs is not None:
            return None
        if self.phase_deg == self.gain_db == 0:
            return self.A
        response = _response(self._geometry.measured, self.phase_deg, self.gain_db, self.seed)
        key = ("erring", self.phase_deg, self.gain_db, self.seed)
        return self.A.once(key, lambda: Diagonal(response.to(self.A.dtype)) @ self.A)

    @property
    def prior(self) -> BernoulliGaussian | None:
        """The prior of each voxel, where they are independent and the operator is known."""
        return BernoulliGaussian(self.sparsity) if self.targets == "points" and self.true_A is self.A else None

    @cached_property
    def guessed_prior(self) -> BernoulliGaussian:
        """The prior that an algorithm may begin from: sparsity and power of scenes to train on."""
        if self.pairs is None and self.targets == "points":
            return BernoulliGaussian(self.sparsity)
        x = self.sample(500, torch.Generator().manual_seed(0))[0] if self.pairs is None else self._train_scenes()
        p = min(max((x != 0).double().mean().item(), 1e-3), 0.3)
        return BernoulliGaussian(p, power(x).double().mean().item() / p)

    @cached_property
    def noise_var(self) -> float | Tensor | None:
        """`E|w|²`; of pairs, if the file says it for all."""
        if self.pairs is not None:
            var = self._stored().noise_var
            return None if var is None or var.ndim else var
        energy = self.sparsity if self.targets == "points" else self._mean_power
        return energy * self.A.gram_diagonal().sum().item() / self.A.m / from_db(self.snr_db)

    def shifted(self, **changes: Any) -> Self:
        """The same array under other conditions.

        Raises:
            ValueError: If a field is unknown, or is one of simulated scenes and these were measured.
        """
        for name in SIMULATED_ONLY if self.pairs is not None else ():
            if name in changes:
                raise ValueError(
                    f"{name} is a setting of simulated scenes, and {self.pairs} holds measured ones: leave it out, or "
                    "train without pairs."
                )
        return super().shifted(**changes)

    def held_out(self) -> "RFGeometry":
        """The pairs that are kept for testing; simulated scenes are always fresh."""
        return self if self.pairs is None else self.shifted(part="test")

    def rows(self) -> range:
        """The places of the pairs that this part holds."""
        return rows_of(self.part, len(self._stored().x), self.held_out_share, str(self.pairs))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` scenes `(n, voxels)` and their observation with the nominal operator."""
        if self.pairs is not None:
            stored = self._stored()
            pick, var = pick_rows(self.part, self.rows(), n, generator), stored.noise_var
            var = var[pick] if var is not None and var.ndim else var
            return stored.x[pick], Observation(stored.y[pick], stored.A, var)
        dtype, true_A = dtype_named(self.dtype), self.true_A
        assert true_A is not None
        if self.targets == "points":
            x = BernoulliGaussian(self.sparsity).sample((n, self.A.n), generator, dtype)
        else:
            reflectivity = scenes(self.targets, n, self._extent, self.pictures, generator)
            phases = circular(reflectivity.shape if self.speckle else (n, 1, 1), generator, torch.complex64)
            phases = phases if self.speckle else phases / phases.abs().clamp_min(1e-12)
            x = (reflectivity.sqrt() * phases).flatten(1).to(dtype)
        var = torch.as_tensor(self.noise_var, dtype=dtype.to_real())
        return x, Observation(true_A @ x + circular((n, self.A.m), generator, dtype, var), self.A, var)

    @property
    def _geometry(self) -> Geometry:
        return read_geometry(self.geometry)

    @property
    def _extent(self) -> tuple[int, ...]:
        """The axes of the scene that have more than one voxel."""
        return tuple(count for count in self.scene if count > 1)

    @cached_property
    def _mean_power(self) -> float:
        generator = torch.Generator().manual_seed(0)
        return scenes(self.targets, 2000, self._extent, self.pictures, generator).mean().item()

    def _train_scenes(self) -> Tensor:
        x = self._stored().x
        return x[: rows_of("train", len(x), self.held_out_share, str(self.pairs)).stop]

    def _stored(self) -> PairArrays:
        path = regular_file(
            str(self.pairs),
            f"there is no file {self.pairs} of calibration pairs; pass an .npz file with scenes x and measurements y "
            f"of {self.geometry}, or leave --pairs out to train on simulated scenes.",
        )
        return _read_pairs(path.resolve(), path.stat().st_mtime_ns, self._geometry, self.A)


def _response(measured: tuple[int, ...], phase_deg: float, gain_db: float, seed: int) -> Tensor:
    """What each measurement is multiplied by: the product of one error for each element of each axis, `(m,)`."""
    generator = torch.Generator().manual_seed(seed + 10_007)  # a stream that no scene has
    response = torch.ones(1, dtype=torch.complex128)
    for count in measured:
        phase, gain = torch.randn(2, count, generator=generator, dtype=torch.float64)
        of_axis = 10 ** (gain_db * gain / 20) * torch.exp(1j * math.radians(phase_deg) * phase)
        response = (response[:, None] * of_axis).flatten()
    return response


@lru_cache(maxsize=4)
def _read_pairs(path: Path, modified_ns: int, geometry: Geometry, A: LinearOperator) -> PairArrays:
    """Pairs that fit a geometry, in the precision of its operator.

    Raises:
        ValueError: Says what does not fit.
    """
    arrays = load_arrays(path)
    x, y = arrays["x"], arrays["y"]
    if len(x) == 0 or x.ndim < 2 or y.ndim < 2:
        raise ValueError(
            f"{path} holds no pairs: x has shape {tuple(x.shape)} and y {tuple(y.shape)}; store (samples, {A.n}) and "
            f"(samples, {A.m})."
        )
    if len(x) != len(y):
        raise ValueError(f"{path} holds {len(x)} scenes x and {len(y)} measurements y; store one of each a pair.")
    for name, array, size, shape, what in (
        ("x", x, A.n, geometry.scene, "voxels"),
        ("y", y, A.m, geometry.measured, "measurements"),
    ):
        if tuple(array.shape[1:]) not in ((size,), shape):
            hint = " Are x and y swapped?" if tuple(array.shape[1:]) in ((A.n,), (A.m,)) else ""
            raise ValueError(
                f"{path} has {name} of shape {tuple(array.shape)} but the geometry has {size} {what}; store "
                f"(samples, {size}) or (samples, {', '.join(map(str, shape))}).{hint}"
            )
        check_finite(f"{name} of {path}", array)
    if not y.is_complex():
        raise ValueError(
            f"{path} has real y, {y.dtype}, but the array measures complex amplitudes: store I + 1j * Q; magnitudes "
            "alone are not enough."
        )
    if not x.any():
        raise ValueError(f"{path} has nothing but zeros in x; store the scenes that were measured.")
    noise_var = arrays.get("noise_var")
    if noise_var is not None and noise_var.numel() == 1:
        noise_var = noise_var.reshape(())
    x, y = x.flatten(1).to(A.dtype), y.flatten(1).to(A.dtype)
    noise_var = Observation(y, A, noise_var).noise_var  # the same checks as for any observation
    notice_unrelated(x, y, A, str(path))
    return PairArrays(x, y, A, noise_var)
