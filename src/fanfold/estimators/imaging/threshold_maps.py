"""FISTA with a threshold for each voxel that a small CNN predicts. Beck & Teboulle (2009), eqs. 4.1-4.3, unfolded.

A threshold for all, a factor for each layer, and one for each voxel by what is around it: a hierarchy that ends in the
classical threshold where nothing was learned.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from fanfold.algorithms import FISTA
from fanfold.algorithms.base import Theta
from fanfold.core.settings import Checked
from fanfold.core.units import power
from fanfold.estimators.imaging.scenes import like_operator, scene_of
from fanfold.networks import ResidualCNN
from fanfold.observation import Observation
from fanfold.shrinkage import soft
from fanfold.unfolding.unfold import HasOperator, Unfolded

LARGEST_DEVIATION = 4  # of a threshold's logarithm: a factor of about fifty


class ThresholdMaps(nn.Module):
    """Factors on the threshold, `(..., n)`, from the powers of the picture to shrink; one before training."""

    def __init__(self, scene: tuple[int, ...], **shape: int):
        super().__init__()
        self.scene = scene
        self.cnn = ResidualCNN(1, 1, **shape)

    def forward(self, r: Tensor, threshold: Tensor, strength: float) -> Tensor:
        """The factors; the CNN sees powers over the threshold's, so that other units give the same factors."""
        seen = torch.log1p(power(r) / threshold**2).reshape(-1, 1, *self.scene)
        deviation = self.cnn(seen).reshape(r.shape)
        return torch.exp(strength * LARGEST_DEVIATION * torch.tanh(deviation / LARGEST_DEVIATION))


@dataclass(frozen=True)
class MappedFISTA(FISTA):
    """FISTA whose `theta` has the maps."""

    def shrink(self, r, theta):
        return soft(r, theta.threshold * theta.maps(r, theta.threshold, theta.strength))


@dataclass(frozen=True)
class ThresholdMapFISTASettings(Checked):
    """Unfolded FISTA with a threshold for each voxel that a small CNN predicts: a `ThresholdMapFISTA`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.ThresholdMapFISTASettings(layers=3, width=4).build(problem).layers
        3
    """

    algorithm: FISTA = field(default_factory=FISTA)
    layers: int = 8  # Layers of the network, steps of FISTA, which share one CNN.
    learn: Mapping[str, str] = field(default_factory=dict)  # Numbers of the algorithm that move too; none if not given.
    width: int = 24  # Channels of the CNN.
    depth: int = 4  # Convolutions of the CNN.
    voxels: tuple[int, int] | None = None  # Height and width of the scene; those of the problem if not given.
    network_seed: int = 0  # Seed of the starting weights.

    def build(self, problem: HasOperator) -> "ThresholdMapFISTA":
        """The untrained network."""
        return ThresholdMapFISTA(problem, self)


class ThresholdMapFISTA(Unfolded):
    """Unfolded FISTA with a map of thresholds in each layer; untrained, and at strength zero, it is FISTA bit for bit.

    Not scale-equivariant: `lam` is in the units of `Aᴴy`.

    Args:
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        settings: All else.

    Raises:
        ValueError: If the scene is not made of the operator's unknowns.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.ThresholdMapFISTA.of(problem, layers=3, width=4).origin[0]
        'untrained FISTA'
    """

    def __init__(self, problem_or_obs: HasOperator, settings: ThresholdMapFISTASettings):
        super().__init__(MappedFISTA(**vars(settings.algorithm)), problem_or_obs, settings.layers, settings.learn)
        self._settings, scene = settings, scene_of(problem_or_obs, settings.voxels)
        maps = ThresholdMaps(scene, width=settings.width, depth=settings.depth, seed=settings.network_seed)
        self.maps = like_operator(maps, self._bound)

    @classmethod
    def of(
        cls,
        problem_or_obs: HasOperator,
        algorithm: FISTA | None = None,
        layers: int = 8,
        learn: Mapping[str, str] | None = None,
        *,
        scene: tuple[int, int] | None = None,
        width: int = 24,
        depth: int = 4,
        seed: int = 0,
    ) -> "ThresholdMapFISTA":
        """The untrained network for a problem.

        Args:
            problem_or_obs: Whatever carries the operator A; the network is bound to it.
            algorithm: FISTA with its weight.
            layers: How many steps of it; they share one CNN.
            learn: Numbers that move too, as for `unfold`.
            scene: `(height, width)`; the unknowns are its voxels in row-major order. The problem's if None.
            width: Channels of the CNN.
            depth: Its convolutions.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the scene is not made of the operator's unknowns.
        """
        cnn = {"width": width, "depth": depth, "voxels": scene, "network_seed": seed}
        return cls(problem_or_obs, ThresholdMapFISTASettings(algorithm or FISTA(), layers, learn or {}, **cnn))

    @property
    def settings(self) -> ThresholdMapFISTASettings:
        """What builds the network again."""
        return self._settings

    def parameter_groups(self, lr: float) -> list[dict]:
        """Those of the numbers, and the weights of the CNN at a quarter of the learning rate."""
        return [*super().parameter_groups(lr), {"params": [*self.maps.parameters()], "lr": lr / 4}]

    def _layer_thetas(self, obs: Observation) -> list[Theta]:
        thetas = super()._layer_thetas(obs)
        for theta in thetas:
            theta.maps, theta.strength = self.maps, self.strength
        return thetas
