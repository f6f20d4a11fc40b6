"""EP with a prior for each voxel that a CNN reads off its neighbours. Céspedes et al. (2014), section IV, unfolded.

Structure enters through the prior alone: each layer stays an exact step of EP, and the CNN is a denoiser that may be
trained on each layer by itself, as in Metzler, Mousavi & Baraniuk (2017), section 3.3.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fanfold.algorithms import EP
from fanfold.algorithms.base import Theta
from fanfold.core.settings import Checked
from fanfold.estimators.base import Draws
from fanfold.estimators.imaging.lessons import MapLessons
from fanfold.estimators.imaging.prior_maps import Denoised, PriorMaps
from fanfold.estimators.imaging.scenes import scene_of
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian, Prior
from fanfold.unfolding.loops import iterates, last
from fanfold.unfolding.unfold import HasOperator, Unfolded


@dataclass(frozen=True)
class MappedEP(EP):
    """EP whose `theta` has the maps of its prior's settings."""

    def denoise(self, r, v, theta):
        return theta.maps(self.prior, r, v, theta, theta.strength)[:2]

    def _double(self, a):
        return super()._double(a) if isinstance(a, Tensor) else a  # maps and strength stay as they are


@dataclass(frozen=True)
class HybridEPSettings(Checked):
    """Unfolded EP whose prior a small CNN moves voxel by voxel: a `HybridEP`.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.HybridEPSettings(layers=3, width=4).build(problem).layers
        3
    """

    algorithm: EP = field(default_factory=lambda: EP(BernoulliGaussian(), damping=1.0))
    layers: int = 8  # Layers of the network, steps of EP.
    learn: Mapping[str, str] = field(default_factory=dict)  # Numbers of the algorithm that move too; none if not given.
    width: int = 24  # Channels of the CNN.
    depth: int = 3  # Convolutions of 1 x 1 of the CNN.
    reach: int = 4  # How many voxels away neighbours tell of a voxel's prior.
    voxels: tuple[int, int] | None = None  # Height and width of the scene; those of the problem if not given.
    network_seed: int = 0  # Seed of the starting weights.

    def build(self, problem: HasOperator) -> "HybridEP":
        """The untrained network."""
        return HybridEP(problem, self)


class HybridEP(Unfolded):
    """Unfolded EP with maps of its prior's settings; untrained, and at strength zero, it is EP bit for bit.

    One CNN serves all layers, as it sees the noise variance of every voxel. `fit` teaches a Bernoulli-Gaussian prior by
    lessons; with `schedule="end-to-end"` gradients pass through EP, and `batch`, `lr` and `clip` should be given too.
    Not scale-equivariant: the prior has a power.

    Args:
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        settings: All else.

    Raises:
        ValueError: If the scene is not made of the operator's unknowns.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.RFImaging("gaussian", scene=(8, 8), elements=(6, 6))
        >>> ff.estimators.HybridEP.of(problem, layers=3, width=4).origin[0]
        'untrained EP'
    """

    def __init__(self, problem_or_obs: HasOperator, settings: HybridEPSettings):
        ep = settings.algorithm
        super().__init__(MappedEP(**vars(ep)), problem_or_obs, settings.layers, settings.learn)
        self._settings, scene = settings, scene_of(problem_or_obs, settings.voxels)
        shape = {"width": settings.width, "reach": settings.reach, "depth": settings.depth}
        self.denoiser = PriorMaps(ep.prior, scene, settings.network_seed, **shape).to(self._bound.device)

    @classmethod
    def of(
        cls,
        problem_or_obs: HasOperator,
        algorithm: EP | None = None,
        layers: int = 8,
        learn: Mapping[str, str] | None = None,
        *,
        scene: tuple[int, int] | None = None,
        width: int = 24,
        depth: int = 3,
        reach: int = 4,
        seed: int = 0,
    ) -> "HybridEP":
        """The untrained network for a problem.

        Args:
            problem_or_obs: Whatever carries the operator A; the network is bound to it.
            algorithm: EP with the prior whose settings move; Bernoulli-Gaussian, undamped, if None.
            layers: How many steps of it.
            learn: Numbers that move too, as for `unfold`.
            scene: `(height, width)`; the unknowns are its voxels in row-major order. The problem's if None.
            width: Channels of the CNN.
            depth: Its convolutions of 1 x 1.
            reach: How many voxels away the neighbours are that say what a voxel's prior is.
            seed: Seed of the starting weights.

        Raises:
            ValueError: If the scene is not made of the operator's unknowns.
        """
        cnn = {"width": width, "depth": depth, "reach": reach, "voxels": scene, "network_seed": seed}
        given = {} if algorithm is None else {"algorithm": algorithm}
        return cls(problem_or_obs, HybridEPSettings(**given, layers=layers, learn=learn or {}, **cnn))

    @property
    def settings(self) -> HybridEPSettings:
        """What builds the network again."""
        return self._settings

    @property
    def prior(self) -> Prior:
        """The prior whose settings move."""
        return self._settings.algorithm.prior

    @property
    def training_defaults(self) -> dict[str, Any]:
        """Lessons for a Bernoulli-Gaussian prior, whose gradients need no clipping; other priors have no lessons."""
        if not isinstance(self.prior, BernoulliGaussian):
            return {}
        course = {"schedule": "lessons", "steps": 600, "batch": 16, "lr": 3e-3, "clip": 1e6}
        return course | {"validate_every": 200, "validation_samples": 32}

    def parameter_groups(self, lr: float) -> list[dict]:
        """Those of the numbers, and the weights of the CNN."""
        return [*super().parameter_groups(lr), {"params": [*self.denoiser.parameters()], "lr": lr}]

    def lessons(self, draw: Draws, steps: int, batch: int, seed: int) -> MapLessons:
        """A course that teaches the maps without a gradient through a step of EP, whose inverse makes that dear."""
        return MapLessons(self, draw, steps, batch, seed)

    @torch.no_grad()
    def cavities(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """What the measurements and the other voxels say of each, layer by layer: `(layers, ..., n)`.

        Returns:
            Means and variances: the noisy pictures that the CNN sees, and learns from.
        """
        obs = self.admitted(obs)
        shown: list[tuple[Tensor, Tensor]] = []

        def overheard(prior: Prior, r: Tensor, v: Tensor, given: Any, strength: float) -> Denoised:
            shown.append((r, v))
            return self.denoiser(prior, r, v, given, strength)

        thetas = [Theta(**vars(theta) | {"maps": overheard}) for theta in self.thetas(obs)]
        last(iterates(self.algorithm, obs, thetas))
        means, variances = zip(*shown, strict=True)
        return torch.stack(means), torch.stack(variances)

    def voxel_settings(self, r: Tensor, v: Tensor) -> dict[str, Tensor]:
        """The prior of each voxel beside neighbours that are seen in noise of variance v, `(..., n)` each."""
        nominal = vars(self.prior)
        nominal = Theta(**{name: v.new_tensor(nominal[name]) for name in self.prior.learnable})
        return self.denoiser.voxel_settings(self.prior, r, v, nominal, self.strength)

    def _layer_thetas(self, obs: Observation) -> list[Theta]:
        thetas = super()._layer_thetas(obs)
        for theta in thetas:
            theta.maps, theta.strength = self.denoiser, self.strength
        return thetas
