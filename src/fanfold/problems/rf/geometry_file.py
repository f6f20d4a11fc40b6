"""The operator of a user's own array, from a TOML file: one factor for each axis of the scene, or a near-field set-up.

Far field, a Kronecker product, one table for each axis of the scene; the last axis varies fastest in x and y:

    [[axis]]
    kind = "linear-array"    # elements evenly apart
    elements = 24
    spacing = 0.5            # wavelengths (0.5 if not given)
    field = 0.8              # sines of the angles looked at: -0.8 … 0.8; or [low, high]
    voxels = 32

    [[axis]]
    kind = "positions"       # elements anywhere along a line
    positions = [0.0, 0.5, 1.2, 2.1]    # wavelengths
    field = [-0.5, 0.5]
    voxels = 6

    [[axis]]
    kind = "frequencies"     # range from frequencies, there and back: exp(-4 pi i f r / c)
    first_hz = 76e9
    bandwidth_hz = 1e9       # from the first to the last
    count = 16               # or, instead of these three: frequencies_hz = [...]
    range_m = [1.0, 2.5]
    voxels = 20

    [[axis]]
    kind = "fourier"         # some rows of a discrete Fourier transform
    rows = [0, 3, 4, 9]
    voxels = 16

    [[axis]]
    kind = "matrix"          # measured: an .npy file of shape (measurements, voxels)
    file = "azimuth.npy"

Near field, `Born`, instead: measurements are (transmitters, receivers, frequencies), the scene is a grid x, y, z:

    [near-field]
    transmitters_m = [[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0]]
    receivers_m = "receivers.npy"
    frequencies_hz = [9e9, 10e9]    # or first_hz, bandwidth_hz, count
    lowest_m = [-0.2, 0.0, 0.4]     # first and last voxel of the grid
    highest_m = [0.2, 0.0, 0.8]
    voxels = [16, 1, 16]            # an axis with one voxel lies in the middle

A list of numbers may be the name of an .npy file, beside the TOML file.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fanfold.core.data_files import regular_file, toml_table
from fanfold.core.suggest import did_you_mean
from fanfold.linops.base import LinearOperator
from fanfold.linops.born import Born
from fanfold.linops.kronecker import Kronecker
from fanfold.linops.steering import partial_fourier, steering, uniform_linear
from fanfold.problems.rf.entries import MOST_ENTRIES, Entries

LIGHT = 299_792_458.0  # metres a second


@dataclass(frozen=True)
class Geometry:
    """The contents of a geometry file.

    Attributes:
        A: The operator, complex128.
        scene: Voxels along each axis.
        measured: Elements along each axis, or transmitters, receivers and frequencies.

    Example:
        >>> import pathlib, tempfile
        >>> from fanfold.problems.rf.geometry_file import read_geometry
        >>> file = pathlib.Path(tempfile.mkdtemp(), "array.toml")
        >>> _ = file.write_text('axis = [{kind = "fourier", rows = [0, 3, 4], voxels = 5}]')
        >>> read_geometry(file).measured
        (3,)
    """

    A: LinearOperator
    scene: tuple[int, ...]
    measured: tuple[int, ...]

    def operator(self, dtype: torch.dtype) -> LinearOperator:
        """The operator in a precision, the same object at every call."""
        return self.A.once(("geometry", dtype), lambda: self.A.to(dtype=dtype))


def read_geometry(path: str | Path) -> Geometry:
    """The geometry that a TOML file describes.

    Raises:
        ValueError: If there is no such file, a table or key is unknown, missing or of another kind, antennas or
            frequencies coincide, voxels cannot be told apart, or a measured matrix is rank-deficient.
    """
    path = regular_file(path, f"there is no geometry file {path}; write one: one [[axis]] for each axis of the scene.")
    return _read(path.resolve(), path.read_bytes())


@lru_cache(maxsize=8)
def _read(path: Path, content: bytes) -> Geometry:
    data = toml_table(path)
    if unknown := set(data) - {"axis", "near-field"}:
        word = min(unknown)
        raise ValueError(
            f"{path} has {word!r}; it takes [[axis]] or [near-field].{did_you_mean(word, ('axis', 'near-field'))}"
        )
    if len(data) != 1:
        raise ValueError(
            f"{path} has {' and '.join(sorted(data)) or 'nothing'}; give [[axis]] tables or one [near-field]."
        )
    (tables,) = data.values()
    if "near-field" in data:
        if not isinstance(tables, dict):
            raise ValueError(f"{path}: near-field is no table; write [near-field].")
        return _near_field(Entries(f"{path}, [near-field]", tables, path.parent))
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path}: axis is no list of tables; write [[axis]], in double brackets, for each axis.")
    factors = [_factor(Entries(f"{path}, axis {i}", table, path.parent)) for i, table in enumerate(tables, start=1)]
    scene, measured = (tuple(f.shape[side] for f in factors) for side in (1, 0))
    return Geometry(Kronecker(*factors), scene, measured)


def _factor(axis: Entries) -> Tensor:
    """The matrix of one axis, `(measurements, voxels)`."""
    kind = axis.take("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise axis.wrong(f"kind is {kind!r}; there are {', '.join(KINDS)}.{did_you_mean(str(kind), KINDS)}")
    try:
        factor = KINDS[kind](axis)
    except ValueError as error:
        raise error if str(error).startswith(axis.where) else axis.wrong(str(error)) from error
    axis.done()
    return factor


def _field(axis: Entries) -> tuple[float, float]:
    """Lowest and highest sine."""
    field = axis.take("field")
    low, high = (-field, field) if isinstance(field, (int, float)) else _ends(axis, "field", "sines")
    if not -1 <= low < high <= 1:
        raise axis.wrong(f"field is {field!r}; give a sine between 0 and 1, or the lowest and highest, within -1 … 1.")
    return low, high


def _ends(axis: Entries, key: str, unit: str) -> tuple[float, float]:
    low, high = (ends := axis.array(key, 1, f"lowest and highest, in {unit}").tolist())[0], ends[-1]
    if len(ends) != 2 or low >= high:
        raise axis.wrong(f"{key} is {ends}; give the lowest and the highest, in {unit}.")
    return low, high


def _grid(ends: tuple[float, float], voxels: int) -> Tensor:
    if voxels == 1:
        return torch.tensor([sum(ends) / 2], dtype=torch.float64)
    return torch.linspace(*ends, voxels, dtype=torch.float64)


def _linear_array(axis: Entries) -> Tensor:
    spacing, (low, high) = axis.number("spacing", 0.5), _field(axis)
    if spacing * (high - low) > 1 + 1e-9:
        raise axis.wrong(
            f"elements {spacing:g} wavelengths apart cannot tell directions apart over {high - low:g} in sines, at "
            f"most {1 / spacing:g}: narrow the field, or place them unevenly with kind = 'positions'."
        )
    elements = axis.count("elements")
    voxels = axis.count("voxels", elements)
    return steering(uniform_linear(elements, spacing), _grid((low, high), voxels), torch.complex128)


def _positions(axis: Entries) -> Tensor:
    positions = axis.array("positions", 1, "list of positions in wavelengths")
    sines = _grid(_field(axis), axis.count("voxels", len(positions)))
    return steering(positions, sines, torch.complex128)


def _frequencies(table: Entries) -> Tensor:
    """Measured frequencies in Hz, ascending or as listed."""
    if "frequencies_hz" in table:
        frequencies = table.array("frequencies_hz", 1, "list of frequencies in Hz")
    else:
        first, bandwidth = table.number("first_hz"), table.number("bandwidth_hz")
        count = table.count("count")
        if bandwidth < 0 or (bandwidth == 0) != (count == 1):
            raise table.wrong(
                f"bandwidth_hz is {bandwidth:g} over {count} frequencies; it goes from the first to the last."
            )
        frequencies = first + bandwidth * torch.linspace(0, 1, count, dtype=torch.float64)
    if (frequencies <= 0).any() or len(frequencies.unique()) < len(frequencies):
        raise table.wrong("a frequency is not positive or is there twice; give different ones, in Hz.")
    return frequencies


def _range(axis: Entries) -> Tensor:
    f, ends = _frequencies(axis), _ends(axis, "range_m", "metres")
    steps = f.sort().values.diff()
    if len(steps) and (steps.max() - steps.min()) < 1e-6 * steps.max():
        unambiguous = LIGHT / (2 * steps.mean().item())
        if ends[1] - ends[0] > unambiguous * (1 + 1e-9):
            raise axis.wrong(
                f"frequencies {steps.mean().item():g} Hz apart tell ranges apart within c / 2 df = {unambiguous:g} m, "
                f"but range_m covers {ends[1] - ends[0]:g} m: narrow it, or measure at closer frequencies."
            )
    phase = -4 * math.pi / LIGHT * f[:, None] * _grid(ends, axis.count("voxels", len(f)))
    phase = torch.remainder(phase, 2 * math.pi)
    return torch.polar(torch.ones_like(phase), phase) / len(f) ** 0.5


def _fourier(axis: Entries) -> Tensor:
    rows = axis.array("rows", 1, "list of rows")
    if (rows != rows.round()).any():
        raise axis.wrong("rows are whole numbers.")
    return partial_fourier(axis.count("voxels", len(rows)), rows.long(), torch.complex128)


def _matrix(axis: Entries) -> Tensor:
    name = axis.take("file")
    factor = torch.as_tensor(axis.file(str(name)).astype(np.complex128))
    if factor.ndim != 2 or 0 in factor.shape or not torch.isfinite(factor.real + factor.imag).all():
        raise axis.wrong(f"{name} has shape {tuple(factor.shape)}; store (measurements, voxels), finite and not empty.")
    if (rank := int(torch.linalg.matrix_rank(factor))) < min(factor.shape):
        raise axis.wrong(
            f"{name} of shape {tuple(factor.shape)} has rank {rank}: some of its rows or columns follow from others. "
            "Leave out measurements that repeat, or voxels that look alike."
        )
    return factor


KINDS: dict[str, Callable[[Entries], Tensor]] = {
    "linear-array": _linear_array,
    "positions": _positions,
    "frequencies": _range,
    "fourier": _fourier,
    "matrix": _matrix,
}


def _near_field(table: Entries) -> Geometry:
    form = "list of positions [x, y, z] in metres"
    transmitters, receivers = (table.array(f"{side}_m", 2, form) for side in ("transmitters", "receivers"))
    wavenumbers = 2 * math.pi / LIGHT * _frequencies(table)
    lowest, highest = (table.array(key, 1, "position [x, y, z] in metres") for key in ("lowest_m", "highest_m"))
    scene = table.counts("voxels", 3)
    fields = math.prod(scene) * (len(transmitters) + len(receivers)) * len(wavenumbers)
    if fields > MOST_ENTRIES:
        raise table.wrong(f"voxels is {scene}: the waves there would have {fields} entries, more than {MOST_ENTRIES}.")
    if (
        len(lowest) != 3
        or len(highest) != 3
        or not all(a < b or (a == b and n == 1) for a, b, n in zip(lowest, highest, scene))
    ):
        raise table.wrong(
            "lowest_m and highest_m are corners [x, y, z] of the grid; they may agree on axes of one voxel."
        )
    table.done()
    axes = [_grid((a, b), n) for a, b, n in zip(lowest.tolist(), highest.tolist(), scene, strict=True)]
    voxels = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    try:
        A = Born(transmitters, receivers, wavenumbers, voxels, torch.complex128)
    except ValueError as error:
        raise table.wrong(str(error)) from error
    return Geometry(A, scene, (len(transmitters), len(receivers), len(wavenumbers)))
