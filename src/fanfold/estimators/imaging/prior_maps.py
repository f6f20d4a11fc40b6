"""What a CNN adds to a prior's posterior mean: maps of the prior's settings, or a correction to the mean itself."""

from typing import Any

import torch
from torch import Tensor, nn

from fanfold.algorithms.base import Theta
from fanfold.core.units import power
from fanfold.estimators.imaging.scenes import as_picture, as_signal
from fanfold.networks import ContextCNN, ResidualCNN
from fanfold.priors import Prior

LARGEST_DEVIATION = 2  # of a setting of the prior: it stays unsure enough for measurements to overrule it
Denoised = tuple[Tensor, Tensor, Tensor]  # mean, variance, divergence


class PriorMaps(nn.Module):
    """The settings of the prior, voxel by voxel, from what the voxel's neighbours show.

    Given its neighbours, a voxel has a prior of its own, and the noise of its own value is independent of theirs: the
    posterior mean under that prior is the scalar one, and `var / v` remains its divergence, exactly, whatever the CNN
    has learned.
    It sees powers alone: a turn of the scene's phase turns the estimate.

    Raises:
        ValueError: If the prior has no settings that may be learned.
    """

    def __init__(self, prior: Prior, scene: tuple[int, ...], seed: int, **shape: int):
        super().__init__()
        if not prior.learnable:
            raise ValueError(
                f"maps move the settings of a prior, and {type(prior).__name__} has none that may be learned; take a "
                "BernoulliGaussian, or correct the mean."
            )
        self.scene, self.level = scene, prior.power
        self.cnn = ContextCNN(3, len(prior.learnable), seed=seed, **shape)

    def voxel_settings(self, prior: Prior, r: Tensor, v: Tensor, given: Any, strength: float) -> dict[str, Tensor]:
        """The prior's settings for every voxel, `(..., n)` each; v is one variance for all or one for each."""
        energy, v_all = power(r), v.expand(r.shape)
        seen = [torch.log1p(energy / v), torch.log((energy + v) / self.level), torch.log(v_all / self.level)]
        seen = torch.stack(seen, -2)
        seen = seen.to(self.cnn.around.weight.dtype)  # steps in double precision need no such network
        maps = self.cnn(seen.reshape(-1, 3, *self.scene)).flatten(2)
        maps = (strength * LARGEST_DEVIATION * torch.tanh(maps / LARGEST_DEVIATION)).to(energy.dtype)
        nominal = vars(given)
        return {
            name: domain.deviate(nominal[name], d.reshape(r.shape))
            for (name, domain), d in zip(prior.learnable.items(), maps.unbind(1))
        }

    def forward(self, prior: Prior, r: Tensor, v: Tensor, given: Any, strength: float) -> Denoised:
        """Posterior mean of r = x + noise of variance v, its variance and its divergence."""
        x, var = prior.posterior(r, v, Theta(**self.voxel_settings(prior, r, v, given, strength)))
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
