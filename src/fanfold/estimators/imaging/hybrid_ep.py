"""EP with a prior for each voxel that a CNN reads off its neighbours. Céspedes et al. (2014), section IV, unfolded.

Structure enters through the prior alone: each layer stays an exact step of EP, and the CNN is a denoiser that may be
trained on each layer by itself, as in Metzler, Mousavi & Baraniuk (2017), section 3.3.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fanfold.algorithms import EP
from fanfold.algorithms.base import Theta
from fanfold.estimators.imaging.hybrid import PriorMaps
from fanfold.observation import Estimate, Observation
from fanfold.priors import Prior
from fanfold.unfolding.unfold import HasOperator, Unfolded


class MappedPrior:
    """A prior whose posterior first moves its settings, voxel by voxel; all else is that of the prior within."""

    def __init__(self, prior: Prior, maps: PriorMaps):
        self.within, self.maps, self.strength = prior, maps, 1.0
        self.heard: list[tuple[Tensor, Tensor]] | None = None  # what it was asked, where somebody listens

    def __getattr__(self, name: str) -> Any:
        if name == "within":  # asked for before it is there, by a copy in the making
            raise AttributeError(name)
        return getattr(self.within, name)

    def __repr__(self) -> str:
        return repr(self.within)

    def posterior(self, r: Tensor, v: Tensor, given: Any) -> tuple[Tensor, Tensor]:
        """Mean and variance given r = x + noise of variance v."""
        if self.heard is not None:
            self.heard.append((r, v))
        return self.maps(self.within, r, v, given, self.strength)[:2]


class HybridEP(Unfolded):
    """Unfolded EP with maps of its prior's settings; untrained, and at strength zero, it is EP bit for bit.

    One CNN serves all layers, as it is told the noise of every voxel.

    Args:
        ep: The algorithm, with the prior whose settings move.
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        layers: How many.
        learn: Numbers that move too, as for `unfold`.
        seed: Of the starting weights.
        **shape: `width`, `reach` and `depth` of the `ContextCNN`.

    Raises:
        ValueError: If the scene is not made of the operator's unknowns.
    """

    def __init__(
        self,
        ep: EP,
        problem_or_obs: HasOperator,
        scene: tuple[int, ...],
        layers: int,
        learn: Mapping[str, str] | None = None,
        *,
        seed: int = 0,
        **shape: int,
    ):
        maps = PriorMaps(ep.prior, tuple(scene), seed, **shape)
        mapped: Any = MappedPrior(ep.prior, maps)
        super().__init__(dataclasses.replace(ep, prior=mapped), problem_or_obs, layers, learn or {})
        if len(scene) != 2 or scene[0] * scene[1] != self._bound.n:
            raise ValueError(f"the scene is {tuple(scene)} but A has {self._bound.n} unknowns; pass (height, width).")
        self.prior, self._mapped, self.denoiser = ep.prior, mapped, maps.to(self._bound.device)

    def parameter_groups(self, lr: float) -> list[dict]:
        """Those of the numbers, and the weights of the CNN."""
        return [*super().parameter_groups(lr), {"params": [*self.denoiser.parameters()], "lr": lr}]

    @torch.no_grad()
    def cavities(self, obs: Observation) -> tuple[Tensor, Tensor]:
        """What the measurements and the other voxels say of each, layer by layer: `(layers, ..., n)`.

        Returns:
            Means and variances: the noisy pictures that the CNN sees, and learns from.
        """
        heard = self._mapped.heard = []
        try:
            self(obs)
        finally:
            self._mapped.heard = None
        means, variances = zip(*heard, strict=True)
        return torch.stack(means), torch.stack(variances)

    def settings(self, r: Tensor, v: Tensor) -> dict[str, Tensor]:
        """The prior of each voxel beside neighbours that are seen in noise of variance v, `(..., n)` each."""
        own = Theta(**{name: v.new_tensor(getattr(self.prior, name)) for name in self.prior.learnable})
        return self.denoiser.settings(self.prior, r, v, own, self.strength)

    def trajectory(self, obs: Observation, depth: int | None = None, latest: int | None = None) -> list[Estimate]:
        """The estimate of every layer, or of the first `depth` layers; of these only the `latest` ones if so wished."""
        self._mapped.strength = self.strength
        return super().trajectory(obs, depth, latest)
