"""OAMP with a learned denoiser. Ma & Ping (2017), eqs. 29-34; Metzler, Maleki & Baraniuk (2016), section III.

The denoiser is the posterior mean plus what a CNN has learned, which is nothing before training: then this is OAMP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from torch import nn

from fanfold.algorithms import OAMP
from fanfold.algorithms.base import Theta
from fanfold.core.settings import Checked, checks_arguments
from fanfold.estimators.imaging.prior_maps import MeanCorrection, PriorMaps
from fanfold.estimators.imaging.scenes import like_operator, scene_of
from fanfold.observation import Observation
from fanfold.unfolding.unfold import HasOperator, Unfolded

Correct = Literal["prior", "mean"]
Share = Literal["tied", "per-layer"]
CORRECTIONS = {"prior": PriorMaps, "mean": MeanCorrection}


@dataclass(frozen=True)
class Corrected(OAMP):
    """OAMP whose denoiser is in `theta`, one for each layer."""

    def denoise(self, r, v, seen, given, theta):
        noise = seen.noise(v, self.prior.power)
        x, var, beta = theta.denoiser(self.prior, r, noise, given, theta.strength)
        if seen.mask is not None:  # the divergence of those that are seen, to which noise of one variance belongs
            beta = seen.mean(var) / v + seen.mean(beta - var.mean(-1, keepdim=True) / noise)
        return x, var, beta.clamp(1e-6, 1 - 1e-6)


@dataclass(frozen=True)
class HybridOAMPSettings(Checked):
    """Unfolded OAMP whose prior a small CNN moves voxel by voxel, or whose posterior mean it corrects: a `HybridOAMP`.

    Raises:
        ValueError: If a word is unknown, or `reach` does not go with the correction.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.HybridOAMPSettings(layers=3, width=4).build(problem).layers
        3
    """

    algorithm: OAMP = field(default_factory=OAMP)
    layers: int = 5  # Layers of the network, steps of OAMP.
    learn: Mapping[str, str] = field(default_factory=dict)  # Numbers of the algorithm that move too; none if not given.
    correct: Correct = "prior"  # What the CNN moves: maps of the prior's settings, or the posterior mean.
    share: Share = "tied"  # One CNN for all layers, or one for each.
    width: int = 24  # Channels of the CNN.
    depth: int | None = None  # Convolutions of the CNN; 3 for the prior and 4 for the mean if not given.
    reach: int | None = None  # How many voxels away neighbours tell of a voxel's prior; 4 if not given.
    voxels: tuple[int, int] | None = None  # Height and width of the scene; those of the problem if not given.
    network_seed: int = 0  # Seed of the starting weights and of the probe.

    def __post_init__(self):
        if self.correct == "mean" and self.reach is not None:
            raise ValueError(f"reach is {self.reach}, but only maps of the prior have one; leave it out for the mean.")

    @property
    def shape(self) -> dict[str, int]:
        """What sizes the CNN."""
        sizes = {"width": self.width, "depth": self.depth, "reach": self.reach}
        return {name: size for name, size in sizes.items() if size is not None}

    def build(self, problem: HasOperator) -> "HybridOAMP":
        """The untrained network."""
        return HybridOAMP(problem, self)


class HybridOAMP(Unfolded):
    """Unfolded OAMP with a learned denoiser; untrained, and at strength zero, it is OAMP bit for bit.

    Not scale-equivariant: the prior has a power.

    Args:
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        settings: All else.

    Raises:
        ValueError: If the scene is not made of the operator's unknowns.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.HybridOAMP.of(problem, layers=3, width=4).origin[0]
        'untrained OAMP'
    """

    def __init__(self, problem_or_obs: HasOperator, settings: HybridOAMPSettings):
        oamp = settings.algorithm
        super().__init__(Corrected(**vars(oamp)), problem_or_obs, settings.layers, settings.learn)
        self._settings, scene = settings, scene_of(problem_or_obs, settings.voxels)
        count, seed = settings.layers if settings.share == "per-layer" else 1, settings.network_seed
        make = CORRECTIONS[settings.correct]
        self.denoisers = nn.ModuleList(make(oamp.prior, scene, seed + t, **settings.shape) for t in range(count))
        like_operator(self.denoisers, self._bound)

    @classmethod
    @checks_arguments
    def of(
        cls,
        problem_or_obs: HasOperator,
        algorithm: OAMP | None = None,
        layers: int = 5,
        learn: Mapping[str, str] | None = None,
        *,
        correct: Correct = "prior",
        share: Share = "tied",
        scene: tuple[int, int] | None = None,
        width: int = 24,
        depth: int | None = None,
        reach: int | None = None,
        seed: int = 0,
    ) -> "HybridOAMP":
        """The untrained network for a problem.

        Args:
            problem_or_obs: Whatever carries the operator A; the network is bound to it.
            algorithm: OAMP with the prior whose posterior mean is corrected.
            layers: How many steps of it.
            learn: Numbers that move too, as for `unfold`.
            correct: What the CNN moves: the settings of the "prior", a map of each, or the posterior "mean".
            share: One CNN for all layers, "tied", which is told the noise variance, or one for each, "per-layer".
            scene: `(height, width)`; the unknowns are its voxels in row-major order. The problem's if None.
            width: Channels of the CNN.
            depth: Its convolutions; 3 for the prior and 4 for the mean if None.
            reach: How many voxels away the neighbours are that say what a voxel's prior is; 4 if None.
            seed: Seed of the starting weights and of the probe.

        Raises:
            ValueError: If the scene is not made of the operator's unknowns, or a word is unknown.
        """
        cnn = {"width": width, "depth": depth, "reach": reach, "network_seed": seed}
        made = HybridOAMPSettings(algorithm or OAMP(), layers, learn or {}, correct, share, voxels=scene, **cnn)
        return cls(problem_or_obs, made)

    @property
    def settings(self) -> HybridOAMPSettings:
        """What builds the network again."""
        return self._settings

    def parameter_groups(self, lr: float) -> list[dict]:
        """Those of the numbers, and the weights of the CNN at a quarter of the learning rate."""
        return [*super().parameter_groups(lr), {"params": [*self.denoisers.parameters()], "lr": lr / 4}]

    def _layer_thetas(self, obs: Observation) -> list[Theta]:
        thetas = super()._layer_thetas(obs)
        for t, theta in enumerate(thetas):
            theta.denoiser, theta.strength = self.denoisers[t % len(self.denoisers)], self.strength
        return thetas
