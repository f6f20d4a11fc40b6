"""OAMP with a learned denoiser. Ma & Ping (2017), eqs. 29-34; Metzler, Maleki & Baraniuk (2016), section III.

The denoiser is the posterior mean plus what a CNN has learned, which is nothing before training: then this is OAMP.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fanfold.algorithms import OAMP
from fanfold.algorithms.base import Theta
from fanfold.core.units import power
from fanfold.estimators.imaging.back_projection_unet import as_picture, as_signal
from fanfold.networks import ContextCNN, ResidualCNN
from fanfold.observation import Observation
from fanfold.priors import Prior
from fanfold.unfolding.unfold import HasOperator, Unfolded

MOST = 2  # of a deviation of the prior: it stays unsure enough for measurements to overrule it
Denoised = tuple[Tensor, Tensor, Tensor]  # mean, variance, divergence


class PriorMaps(nn.Module):
    """The settings of the prior, voxel by voxel, from what the voxel's neighbours show.

    Given its neighbours, a voxel has a prior of its own, and the noise of its own value is independent of theirs: the
    posterior mean under that prior is the scalar one, and `var / v` remains its divergence, exactly, whatever the CNN
    has learned.
    It sees powers alone: a turn of the scene's phase turns the estimate.
    """

    def __init__(self, prior: Prior, scene: tuple[int, ...], seed: int, **shape: int):
        super().__init__()
        self.scene, self.level = scene, prior.power
        self.cnn = ContextCNN(3, len(prior.learnable), seed=seed, **shape)

    def settings(self, prior: Prior, r: Tensor, v: Tensor, given: Any, strength: float) -> dict[str, Tensor]:
        """The prior's settings for every voxel, `(..., n)` each; v is one variance for all or one for each."""
        own, v_all = power(r), v.expand(r.shape)
        seen = torch.stack([torch.log1p(own / v), torch.log((own + v) / self.level), torch.log(v_all / self.level)], -2)
        seen = seen.to(self.cnn.around.weight.dtype)  # steps in double precision need no such network
        maps = self.cnn(seen.reshape(-1, 3, *self.scene)).flatten(2)
        maps = (strength * MOST * torch.tanh(maps / MOST)).to(own.dtype)
        return {
            name: domain.deviate(getattr(given, name), d.reshape(r.shape))
            for (name, domain), d in zip(prior.learnable.items(), maps.unbind(1))
        }

    def forward(self, prior: Prior, r: Tensor, v: Tensor, given: Any, strength: float) -> Denoised:
        """Posterior mean of r = x + noise of variance v, its variance and its divergence."""
        x, var = prior.posterior(r, v, Theta(**self.settings(prior, r, v, given, strength)))
        return x, var, var.mean(-1, keepdim=True) / v


class MeanCorrection(nn.Module):
    """A correction that is added to the posterior mean, in units of the noise; its divergence by Monte Carlo.

    Ramani, Blu & Unser (2008), theorem 2, with one probe of unit entries that is always the same.
    """

    probe: Tensor

    def __init__(self, prior: Prior, scene: tuple[int, ...], seed: int, **shape: int):
        super().__init__()
        self.scene, self.level = scene, prior.power
        self.cnn = ResidualCNN(5, 2, seed=seed, **shape)
        quarter = torch.randint(4, scene, generator=torch.Generator().manual_seed(seed)).flatten()
        self.register_buffer("probe", torch.exp(0.5j * torch.pi * quarter.to(torch.complex128)), persistent=False)

    def correction(self, r: Tensor, x: Tensor, v: Tensor) -> Tensor:
        """What is added to the posterior mean x of r."""
        scale, level = (v + self.level).rsqrt(), torch.log(v / self.level).expand(r.shape)
        parts = [as_picture(scale * part, self.scene) for part in (r, x)]
        seen = torch.cat([*parts, level.reshape(-1, 1, *self.scene)], 1)
        return v.sqrt() * as_signal(self.cnn(seen), r)

    def forward(self, prior: Prior, r: Tensor, v: Tensor, given: Any, strength: float) -> Denoised:
        """Corrected mean of r = x + noise of variance v, the posterior variance and the divergence."""
        x, var = prior.posterior(r, v, given)
        probe = self.unit_probe(r)
        step = v.sqrt() / 32  # small against the noise, large against rounding
        moved = r + step * probe
        now = self.correction(r, x, v)
        then = self.correction(moved, prior.posterior(moved, v, given)[0], v)
        slope = (probe.conj() * (then - now)).real.mean(-1, keepdim=True) / step
        return x + strength * now, var, var.mean(-1, keepdim=True) / v + strength * slope

    def unit_probe(self, r: Tensor) -> Tensor:
        """Entries of modulus one: quarter turns where r is complex, signs where it is real."""
        probe = self.probe if r.is_complex() else self.probe.real + self.probe.imag
        return probe.to(r.dtype)


@dataclasses.dataclass(frozen=True)
class Corrected(OAMP):
    """OAMP whose denoiser is in `theta`, one for each layer."""

    def denoise(self, r, v, given, theta):
        x, var, beta = theta.denoiser(self.prior, r, v, given, theta.strength)
        return x, var, beta.clamp(1e-6, 1 - 1e-6)


KINDS = {"prior": PriorMaps, "mean": MeanCorrection}


class HybridOAMP(Unfolded):
    """Unfolded OAMP with a learned denoiser; untrained, and at strength zero, it is OAMP bit for bit.

    Args:
        oamp: The algorithm, with the prior whose posterior mean is corrected.
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        layers: How many.
        learn: Numbers that move too, as for `unfold`.
        correct: What the CNN moves: the settings of the "prior", a map of each, or the posterior "mean".
        share: One CNN for all layers, "tied", which is told the noise level, or one for each, "per-layer".
        seed: Of the starting weights and of the probe.
        **shape: `width`, `depth` and so on of the CNN.

    Raises:
        ValueError: If the scene is not made of the operator's unknowns, or a word is unknown.
    """

    def __init__(
        self,
        oamp: OAMP,
        problem_or_obs: HasOperator,
        scene: tuple[int, ...],
        layers: int,
        learn: Mapping[str, str] | None = None,
        *,
        correct: Literal["prior", "mean"] = "prior",
        share: Literal["tied", "per-layer"] = "tied",
        seed: int = 0,
        **shape: int,
    ):
        fields = {f.name: getattr(oamp, f.name) for f in dataclasses.fields(oamp)}
        super().__init__(Corrected(**fields), problem_or_obs, layers, learn or {})
        if len(scene) != 2 or scene[0] * scene[1] != self._bound.n:
            raise ValueError(f"the scene is {tuple(scene)} but A has {self._bound.n} unknowns; pass (height, width).")
        if correct not in KINDS or share not in ("tied", "per-layer"):
            raise ValueError(f"correct is {correct!r} and share {share!r}; say prior or mean, and tied or per-layer.")
        count = layers if share == "per-layer" else 1
        made = (KINDS[correct](oamp.prior, tuple(scene), seed + t, **shape) for t in range(count))
        self.denoisers = nn.ModuleList(made).to(self._bound.device)
        for parameter in self.denoisers.parameters():
            parameter.data = parameter.data.to(self._bound.dtype.to_real())

    def parameter_groups(self, lr: float) -> list[dict]:
        """Those of the numbers, and the weights of the CNN at a quarter of the learning rate."""
        return [*super().parameter_groups(lr), {"params": [*self.denoisers.parameters()], "lr": lr / 4}]

    def _layer_thetas(self, obs: Observation) -> list[Theta]:
        thetas = super()._layer_thetas(obs)
        for t, theta in enumerate(thetas):
            theta.denoiser, theta.strength = self.denoisers[t % len(self.denoisers)], self.strength
        return thetas
