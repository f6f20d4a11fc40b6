"""FISTA with a threshold for each voxel that a small CNN predicts. Beck & Teboulle (2009), eqs. 4.1-4.3, unfolded.

A threshold for all, a factor for each layer, and one for each voxel by what is around it: a hierarchy that ends in the
classical threshold where nothing was learned.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.algorithms import FISTA
from fanfold.algorithms.base import Theta
from fanfold.core.units import power
from fanfold.networks import ResidualCNN
from fanfold.observation import Observation
from fanfold.shrinkage import soft
from fanfold.unfolding.unfold import HasOperator, Unfolded

MOST = 4  # of a deviation: a factor of about fifty


class ThresholdMaps(nn.Module):
    """Factors on the threshold, `(..., n)`, from the powers of the picture to shrink; one before training."""

    def __init__(self, scene: tuple[int, ...], **shape: int):
        super().__init__()
        self.scene = scene
        self.cnn = ResidualCNN(1, 1, **shape)

    def forward(self, r: Tensor, threshold: Tensor, strength: float) -> Tensor:
        """Of the powers in units of the threshold's, so that a scene in other units has the same factors."""
        seen = torch.log1p(power(r) / threshold**2).reshape(-1, 1, *self.scene)
        return torch.exp(strength * MOST * torch.tanh(self.cnn(seen).reshape(r.shape) / MOST))


@dataclasses.dataclass(frozen=True)
class Mapped(FISTA):
    """FISTA whose `theta` has the maps."""

    def shrink(self, r: Tensor, theta: Theta) -> Tensor:
        return soft(r, theta.threshold * theta.maps(r, theta.threshold, theta.strength))


class ThresholdMapFISTA(Unfolded):
    """Unfolded FISTA with a map of thresholds in each layer; untrained, and at strength zero, it is FISTA bit for bit.

    Args:
        fista: The algorithm.
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        layers: How many; they share one CNN.
        learn: Numbers that move too, as for `unfold`.
        **shape: `width`, `depth` and `seed` of the `ResidualCNN`.

    Raises:
        ValueError: If the scene is not made of the operator's unknowns.
    """

    def __init__(
        self,
        fista: FISTA,
        problem_or_obs: HasOperator,
        scene: tuple[int, ...],
        layers: int,
        learn: Mapping[str, str] | None = None,
        **shape: int,
    ):
        fields: dict[str, Any] = {f.name: getattr(fista, f.name) for f in dataclasses.fields(fista)}
        super().__init__(Mapped(**fields), problem_or_obs, layers, learn or {})
        if len(scene) != 2 or scene[0] * scene[1] != self._bound.n:
            raise ValueError(f"the scene is {tuple(scene)} but A has {self._bound.n} unknowns; pass (height, width).")
        self.maps = ThresholdMaps(tuple(scene), **shape).to(self._bound.device)
        for parameter in self.maps.parameters():
            parameter.data = parameter.data.to(self._bound.dtype.to_real())

    def parameter_groups(self, lr: float) -> list[dict]:
        """Those of the numbers, and the weights of the CNN at a quarter of the learning rate."""
        return [*super().parameter_groups(lr), {"params": [*self.maps.parameters()], "lr": lr / 4}]

    def _layer_thetas(self, obs: Observation) -> list[Theta]:
        thetas = super()._layer_thetas(obs)
        for theta in thetas:
            theta.maps, theta.strength = self.maps, self.strength
        return thetas
