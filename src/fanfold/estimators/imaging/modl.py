"""MoDL. Aggarwal, Mani & Jacob (2019), eqs. 9-10: z = x + CNN(x), x ← (AᴴA + λI)⁻¹ (Aᴴy + λz)."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from fanfold.core.settings import Checked, checks_arguments
from fanfold.core.units import rms
from fanfold.estimators.imaging.scenes import check_scene, like_operator, scene_of, through
from fanfold.estimators.linear.image import ImageName, image_for
from fanfold.estimators.precision import in_full_precision
from fanfold.networks import ResidualCNN
from fanfold.observation import Estimate, Estimator, Observation, takes_measurements
from fanfold.problems.base import Problem


@dataclass(frozen=True)
class MoDLSettings(Checked):
    """A CNN and a return to the measurements by turns: a `MoDL`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.MoDLSettings(layers=2, width=4).build(problem).scene
        (8, 8)
    """

    image: ImageName = "lmmse"  # The first image: LMMSE for white scenes, or the matched filter.
    signal_var: float | None = None  # E|x|² of a voxel for the LMMSE image; that of the problem if not given.
    lam: float = 30.0  # λ at the start, in units of noise_var / E|x|²; each layer learns a factor on it.
    layers: int = 5  # Turns, which share one CNN.
    width: int = 24  # Channels of the CNN.
    depth: int = 4  # Convolutions of the CNN.
    voxels: tuple[int, int] | None = None  # Height and width of the scene; those of the problem if not given.
    network_seed: int = 0  # Seed of the starting weights.

    def build(self, problem: Problem) -> "MoDL":
        """The untrained network."""
        image, signal_var = image_for(self, problem)
        shape = {"width": self.width, "depth": self.depth, "seed": self.network_seed}
        net = MoDL(scene_of(problem, self.voxels), image, self.lam, self.layers, **shape)
        net.settings = replace(self, signal_var=signal_var)
        return net if problem.A is None else like_operator(net, problem.A)


class MoDL(nn.Module):
    """A CNN and a return to the measurements by turns, all with the same weights.

    The inverse is exact, by the singular values: for a Kronecker product it costs two products with small matrices.
    Scale-equivariant where the first image is: the matched filter is, and the LMMSE image is not.

    Args:
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        image: The estimator that gives the first image. `of` names one, so that the network can be kept.
        lam: λ at the start, in units of the noise variance over `E|x|²`; each layer learns a factor on it.
        layers: How many.
        width: Channels of the `ResidualCNN`.
        depth: Its convolutions.
        seed: Seed of the starting weights.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.MoDL.of(problem, layers=2, width=4).settings.image
        'lmmse'
    """

    settings: MoDLSettings | None = None  # None where the image is the user's own

    def __init__(
        self,
        scene: tuple[int, ...],
        image: Estimator,
        lam: float = 30.0,
        layers: int = 5,
        *,
        width: int = 24,
        depth: int = 4,
        seed: int = 0,
    ):
        super().__init__()
        self.scene, self.image, self.lam, self.layers = tuple(scene), image, lam, layers
        self.cnn = ResidualCNN(2, 2, width=width, depth=depth, seed=seed)
        self.scales = nn.Parameter(torch.zeros(layers))

    @classmethod
    @checks_arguments
    def of(
        cls,
        problem: Problem,
        image: ImageName = "lmmse",
        *,
        signal_var: float | None = None,
        lam: float = 30.0,
        layers: int = 5,
        scene: tuple[int, int] | None = None,
        width: int = 24,
        depth: int = 4,
        seed: int = 0,
    ) -> "MoDL":
        """The untrained network for a problem.

        Args:
            problem: Says the operator and the scene, and draws scenes.
            image: The first image: LMMSE for white scenes, "lmmse", or the matched filter `Aᴴ y`, "back-projection".
            signal_var: `E|x|²`, which the LMMSE image takes for that of every voxel; that of the problem if None.
            lam: λ at the start, in units of the noise variance over `E|x|²`.
            layers: How many.
            scene: `(height, width)`; the problem's if None.
            width: Channels of the CNN.
            depth: Its convolutions.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the scene is not made of the operator's unknowns, or a size does not fit.
        """
        return MoDLSettings(image, signal_var, lam, layers, width, depth, scene, seed).build(problem)

    @property
    def scale_equivariant(self) -> bool:
        """Whether measurements in other units give the estimate in other units."""
        return self.settings is not None and self.settings.image == "back-projection"

    @takes_measurements
    @in_full_precision
    def forward(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`; complex or real as the measurements.

        Raises:
            ValueError: If the operator or the noise variance is unknown, or the operator is of another scene.
        """
        if obs.A is None or obs.noise_var is None:
            raise ValueError("MoDL needs the operator A and noise_var; pass both in the Observation.")
        U, d, V = obs.A.svd()
        y, x = U.H @ obs.y, self.image(obs).x
        check_scene(x, self.scene)
        for scale in self.scales:
            size = rms(x)
            z = x + size * through(self.cnn, x / size, self.scene)
            lam = self.lam * scale.exp() * obs.noise_var / size**2
            x = z + V @ (d / (d**2 + lam) * (y - d * (V.H @ z)))
        return Estimate(x)
