"""Heat through a plate with inclusions, by finite elements. Gustafsson & McBain (2020), scikit-fem."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from scipy.linalg import solveh_banded
from scipy.sparse import coo_array, csr_array
from torch import Tensor

from fanfold.core.precision import dtype_named
from fanfold.observation import Observation
from fanfold.problems.base import Described
from fanfold.problems.simulators.base import Precision


@dataclass(frozen=True)
class Heat(Described):
    """How well do inclusions conduct that lie in a grainy plate, seen from temperatures at its edges?

    Stationary heat flow `-∇·(κ ∇u) = 0` on the unit square: flux 1 enters at the left edge, the right edge is held at
    u = 0, the others are insulated. `across²` square inclusions have conductivities `exp(x_i)` with
    `x_i ~ N(0, contrast²)`, all else 1; then the conductivity of every cell of the mesh, `cells` each way, is
    multiplied by `exp(grain * N(0, 1))`, and `sensors` on each of the left, lower and upper edge read u with noise of
    variance `noise_var`. The grain goes through the solution of the equation: the likelihood is an integral over
    `cells²` unknowns, and there is none to write down. Needs scikit-fem: `pip install 'fanfold[fem]'`.

    Raises:
        ValueError: If a number is out of range or the mesh does not fit the inclusions.
        ImportError: If scikit-fem is not installed when draws are made.

    Example:
        >>> import torch, fanfold as ff
        >>> x, obs = ff.problems.Heat(cells=8).sample(3, torch.Generator().manual_seed(0))
        >>> tuple(x.shape), tuple(obs.y.shape)
        ((3, 4), (3, 15))
    """

    across: int = 2  # inclusions each way
    cells: int = 16  # cells of the mesh, each way: a multiple of 4 * across
    sensors: int = 5  # sensors on each of three edges
    contrast: float = 0.7  # standard deviation of the log conductivity of an inclusion
    grain: float = 0.2  # standard deviation of the log conductivity of a cell
    noise_var: float = 1e-4  # noise variance of a sensor; u is about 1 at the left edge
    dtype: Precision = "float32"  # precision of parameters and measurements

    A = None
    kind = "vector"

    def __post_init__(self):
        if self.across < 1 or self.cells < 1 or self.cells % (4 * self.across):
            raise ValueError(
                f"{self.cells} cells for {self.across} inclusions each way; pass a multiple of 4 * across, such as "
                f"{4 * max(self.across, 1)}."
            )
        if not 1 <= self.sensors <= self.cells:
            raise ValueError(
                f"sensors is {self.sensors}; pass 1 to {self.cells}, one for each cell of an edge at most."
            )
        if min(self.contrast, self.grain, self.noise_var) < 0:
            raise ValueError("contrast, grain and noise_var are not negative.")

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` plates: log conductivities `(n, across²)` and temperatures `(n, 3 * sensors)`."""
        x = self.contrast * torch.randn(n, self.across**2, generator=generator, dtype=torch.float64)
        return self.sample_at(x, generator)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """The given log conductivities and the temperatures of a plate of each, of a grain of its own."""
        plate, dtype = assembled(self.cells), dtype_named(self.dtype)
        log_k = torch.from_numpy(self.conductivities(x.double().numpy(), plate))
        log_k = log_k + self.grain * torch.randn(log_k.shape, generator=generator, dtype=torch.float64)
        u = torch.from_numpy(plate.temperatures(log_k.exp().numpy())[:, self.places(plate)])
        y = u + self.noise_var**0.5 * torch.randn(u.shape, generator=generator, dtype=torch.float64)
        return x.to(dtype), Observation(y.to(dtype), None, torch.tensor(self.noise_var, dtype=dtype))

    def conductivities(self, x: np.ndarray, plate: "Plate") -> np.ndarray:
        """The log conductivity of each cell without grain, `(n, across²)` -> `(n, cells²)`."""
        tile = plate.centres * self.across  # (2, cells²), in units of a tile; an inclusion is the middle of its tile
        inside = (np.abs(tile % 1 - 0.5) < 0.25).all(0)
        column, row = tile.astype(int)
        return np.where(inside, x[:, row * self.across + column], 0.0)

    def places(self, plate: "Plate") -> np.ndarray:
        """The nodes with sensors: along the left edge, the lower and the upper one, each from its first end."""
        along = np.round(np.linspace(0, 1, self.sensors + 2)[1:-1] * self.cells).astype(int)
        left, lower = along, along * (self.cells + 1)  # nodes count along y first
        return np.concatenate([left, lower, lower + self.cells])


class Plate:
    """A square of bilinear elements, assembled once; conductivities of the cells come with each solution.

    Nodes are numbered along y first; those of the right edge, where u = 0, come last and are left out.

    Attributes:
        free: How many nodes are not held at u = 0.
        band: How many diagonals the stiffness matrix has below its main one.
        centres: The middle of each cell, `(2, cells²)`.
        nodes: The place of each node, `(2, (cells + 1)²)`.

    Raises:
        ImportError: If scikit-fem is not installed.

    Example:
        >>> import numpy as np
        >>> from fanfold.problems.simulators.heat import Plate
        >>> u = Plate(4).temperatures(np.ones((1, 16)))  # a uniform plate: u falls linearly from 1 at the left
        >>> u[0].reshape(4, 5)[:, 0].round(6).tolist()
        [1.0, 0.75, 0.5, 0.25]
    """

    def __init__(self, cells: int):
        skfem = require_skfem()
        edge = np.linspace(0, 1, cells + 1)
        basis = skfem.Basis(skfem.MeshQuad.init_tensor(edge, edge), skfem.ElementQuad1())
        mesh, self.free, self.band = basis.mesh, cells * (cells + 1), cells + 2
        stiffness = skfem.BilinearForm(lambda u, v, w: (u.grad * v.grad).sum(0)).elemental(basis).tolocal()
        self.centres = mesh.p[:, mesh.t].mean(1)
        self.nodes = mesh.p
        self._banded = self._assemble(stiffness, basis.element_dofs)
        left = skfem.FacetBasis(mesh, basis.elem, facets=mesh.facets_satisfying(lambda p: p[0] == 0))
        self._load = skfem.LinearForm(lambda v, w: v).assemble(left)[: self.free]

    def _assemble(self, stiffness: np.ndarray, dofs: np.ndarray) -> csr_array:
        """What maps conductivities `(cells²,)` to the lower band of the stiffness matrix, `((band + 1) * free,)`."""
        i, j = dofs.T[:, :, None], dofs.T[:, None, :]
        cell = np.broadcast_to(np.arange(len(stiffness))[:, None, None], stiffness.shape)
        keep = np.broadcast_to((i >= j) & (i < self.free), stiffness.shape)
        place = ((i - j) * self.free + j)[keep]
        shape = ((self.band + 1) * self.free, len(stiffness))
        return coo_array((stiffness[keep], (place, cell[keep])), shape=shape).tocsr()

    def temperatures(self, conductivities: np.ndarray) -> np.ndarray:
        """Solutions u at all nodes but those of the right edge, `(n, cells²)` -> `(n, free)`."""
        bands = (self._banded @ conductivities.T).T.reshape(-1, self.band + 1, self.free)
        return np.stack([solveh_banded(band, self._load, lower=True, check_finite=False) for band in bands])


def require_skfem() -> Any:
    """scikit-fem, if it is installed.

    Raises:
        ImportError: If not.
    """
    try:
        import skfem
    except ImportError as error:
        raise ImportError("heat needs scikit-fem: pip install 'fanfold[fem]'") from error
    return skfem


@lru_cache(maxsize=8)
def assembled(cells: int) -> Plate:
    """The plate with so many cells each way."""
    return Plate(cells)
