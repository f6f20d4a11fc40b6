"""A U-Net on a linear image. Jin, McCann, Froustey & Unser (2017), "FBPConvNet": x̂ = U-Net(image(y))."""

from dataclasses import dataclass, replace

from torch import nn

from fanfold.core.settings import Checked, checks_arguments
from fanfold.core.units import rms
from fanfold.estimators.imaging.scenes import check_scene, like_operator, scene_of, through
from fanfold.estimators.linear.image import ImageName, image_for
from fanfold.estimators.precision import in_full_precision
from fanfold.networks import UNet
from fanfold.observation import Estimate, Estimator, Observation, takes_measurements
from fanfold.problems.base import Problem


@dataclass(frozen=True)
class BackProjectionUNetSettings(Checked):
    """A U-Net on a linear image of the scene: a `BackProjectionUNet`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.BackProjectionUNetSettings(width=8).build(problem).scene
        (8, 8)
    """

    image: ImageName = "lmmse"  # The image: LMMSE for white scenes, or the matched filter.
    signal_var: float | None = None  # E|x|² of a voxel for the LMMSE image; that of the problem if not given.
    width: int = 32  # Channels of the first level of the U-Net.
    levels: int = 2  # How often the picture is halved.
    norm_groups: int = 8  # Groups of group norm; 0 leaves it out.
    voxels: tuple[int, int] | None = None  # Height and width of the scene; those of the problem if not given.
    network_seed: int = 0  # Seed of the starting weights.

    def build(self, problem: Problem) -> "BackProjectionUNet":
        """The untrained network."""
        image, signal_var = image_for(self, problem)
        shape = {"width": self.width, "levels": self.levels, "groups": self.norm_groups, "seed": self.network_seed}
        net = BackProjectionUNet(scene_of(problem, self.voxels), image, **shape)
        net.settings = replace(self, signal_var=signal_var)
        return net if problem.A is None else like_operator(net, problem.A)


class BackProjectionUNet(nn.Module):
    """What a network makes of a linear image of the scene, without another look at the measurements.

    Scale-equivariant where the image is: the matched filter is, and the LMMSE image is not, as it knows the power of
    a scene.

    Args:
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        image: The estimator that gives the image. `of` names one, so that the network can be kept.
        width: Channels of the first level of the `UNet`.
        levels: How often the picture is halved.
        groups: Groups of group norm; 0 leaves it out.
        seed: Seed of the starting weights.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.BackProjectionUNet.of(problem, width=8).settings.image
        'lmmse'
    """

    settings: BackProjectionUNetSettings | None = None  # None where the image is the user's own

    def __init__(
        self,
        scene: tuple[int, ...],
        image: Estimator,
        *,
        width: int = 32,
        levels: int = 2,
        groups: int = 8,
        seed: int = 0,
    ):
        super().__init__()
        self.scene, self.image = tuple(scene), image
        self.net = UNet(2, 2, width=width, levels=levels, groups=groups, seed=seed)

    @classmethod
    @checks_arguments
    def of(
        cls,
        problem: Problem,
        image: ImageName = "lmmse",
        *,
        signal_var: float | None = None,
        scene: tuple[int, int] | None = None,
        width: int = 32,
        levels: int = 2,
        groups: int = 8,
        seed: int = 0,
    ) -> "BackProjectionUNet":
        """The untrained network for a problem.

        Args:
            problem: Says the operator and the scene, and draws scenes.
            image: The stronger input is the LMMSE image, "lmmse"; `Aᴴ y`, "back-projection", has neither noise nor
                resolution put right.
            signal_var: `E|x|²`, which the LMMSE image takes for that of every voxel; that of the problem if None.
            scene: `(height, width)`; the problem's if None.
            width: Channels of the first level of the U-Net.
            levels: How often the picture is halved.
            groups: Groups of group norm; 0 leaves it out.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the scene is not made of the operator's unknowns, or a size does not fit.
        """
        return BackProjectionUNetSettings(image, signal_var, width, levels, groups, scene, seed).build(problem)

    @property
    def scale_equivariant(self) -> bool:
        """Whether measurements in other units give the estimate in other units."""
        return self.settings is not None and self.settings.image == "back-projection"

    @takes_measurements
    @in_full_precision
    def forward(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`; complex or real as the measurements.

        Raises:
            ValueError: If the image lacks something, or the operator is of another scene.
        """
        x = self.image(obs).x
        check_scene(x, self.scene)
        scale = rms(x)
        return Estimate(scale * through(self.net, x / scale, self.scene))
