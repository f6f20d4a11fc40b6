"""Lessons for maps of a prior: what is drawn, what the CNN sees of it, and the likelihood that it is taught by.

Metzler, Mousavi & Baraniuk (2017), section 3.3: a denoiser learns beside noise of every level, layer by layer, and no
gradient passes through a step of the algorithm.
"""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from fanfold.core.units import power
from fanfold.estimators.base import Draws, Term
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian, Prior

LR_FACTORS = (1.0, 2 / 3, 2 / 3)  # of the three terms
CAVITY_DRAWS = 1_000_000  # number of the draw whose scenes the layers see, far from those of steps
MANY_SCENES, FEW_SCENES, LONG_TERM = 32, 12, 100  # scenes of a term of more steps than the last number, and of others
SCENES_AT_ONCE = 4  # that go through EP, as it fills the memory


class Pupil(Protocol):
    """A network with maps of a prior, and noisy pictures of its own making."""

    @property
    def prior(self) -> Prior: ...

    def cavities(self, obs: Observation) -> tuple[Tensor, Tensor]: ...

    def voxel_settings(self, r: Tensor, v: Tensor) -> dict[str, Tensor]: ...


class MapLessons:
    """Teaches a prior its maps, by the likelihood of the scene: beside white noise of any level, then beside EP's own.

    A third of the steps each: noise as drawn, then cavities of some scenes, then these and those of others that are
    left by what was learned.

    Args:
        net: The network, with a Bernoulli-Gaussian prior.
        draw: Where scenes and their measurements come from.
        steps: Lessons in all.
        batch: Scenes in each.
        seed: Seed of the noise and of the choice of cavities.

    Raises:
        ValueError: If the prior is another.
    """

    def __init__(self, net: Pupil, draw: Draws, steps: int, batch: int, seed: int):
        if not isinstance(net.prior, BernoulliGaussian):
            raise ValueError(
                f"lessons tell empty voxels from others, which {type(net.prior).__name__} does not; take a "
                "BernoulliGaussian prior, or train with schedule='end-to-end'."
            )
        self.net, self.draw, self.batch = net, draw, batch
        self.generator = torch.Generator().manual_seed(seed)
        edges = [round(steps * third / 3) for third in range(4)]
        self.terms = [Term(*part) for part in zip(edges, edges[1:], LR_FACTORS)]
        self._scenes: Tensor | None = None  # of the cavities, (scenes, n)
        self._cavities: tuple[Tensor, Tensor] | None = None  # means and variances, (layers, scenes, n)

    def begin(self, term: int) -> None:
        """Make the cavities of a term, with the maps as they are now; the first term has none."""
        self._scenes = self._cavities = None
        if term > 0:
            self._scenes, obs = self._drawn(term)
            parts = [
                self.net.cavities(obs[first : first + SCENES_AT_ONCE])
                for first in range(0, len(self._scenes), SCENES_AT_ONCE)
            ]
            r, v = (torch.cat(part, 1) for part in zip(*parts, strict=True))
            self._cavities = r, v

    def loss(self, step: int) -> Tensor:
        """Minus the log likelihood of a batch of scenes under the maps, a voxel, but for constants."""
        x, r, v = self._lesson(step)
        return surprise(x, **self.net.voxel_settings(r, v))

    def state(self) -> dict[str, Tensor]:
        """The generator's, and the cavities, complex ones as pairs of reals."""
        tensors = {"generator": self.generator.get_state()}
        if self._cavities is not None:
            r, v = self._cavities
            tensors |= {"r": torch.view_as_real(r) if r.is_complex() else r, "v": v}
        return tensors

    def restore(self, step: int, state: Mapping[str, Tensor]) -> None:
        """Go on after so many steps, from what `state` gave then; scenes are drawn again."""
        term = next((number for number, term in enumerate(self.terms) if term.first < step <= term.last), 0)
        self.generator.set_state(state["generator"])
        self._scenes = self._cavities = None
        if term > 0:
            self._scenes, _ = self._drawn(term)
            r, v = (state[name].to(self._scenes.device) for name in ("r", "v"))
            self._cavities = torch.view_as_complex(r) if self._scenes.is_complex() else r, v

    def _drawn(self, term: int) -> tuple[Tensor, Observation]:
        first, last, _ = self.terms[term]
        return self.draw(MANY_SCENES if last - first > LONG_TERM else FEW_SCENES, CAVITY_DRAWS + term)

    def _lesson(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Scenes, what is seen of them, and the variance of what is wrong with that, `(batch, n)` each."""
        if self._scenes is None or self._cavities is None:
            x, _ = self.draw(self.batch, step)
            return x, *noisy(x, self.net.prior.power, self.generator)
        r, v = self._cavities
        layer, scene = (torch.randint(size, (self.batch,), generator=self.generator) for size in r.shape[:2])
        return self._scenes[scene], r[layer, scene], v[layer, scene]


def noisy(x: Tensor, level: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Scenes in noise from their own power down to 50 dB below, its variance uneven over voxels; and the variance."""
    decades = 5 * torch.rand((len(x), 1), generator=generator)
    uneven = torch.exp(0.5 * torch.randn(x.shape, generator=generator))
    v = (level * 10**-decades * uneven).to(x.device)
    return x + v.sqrt() * torch.randn(x.shape, generator=generator, dtype=x.dtype).to(x.device), v


def surprise(x: Tensor, p: Tensor, var: Tensor) -> Tensor:
    """Mean of `-log p(x)` under Bernoulli-Gaussian priors of one voxel each, but for constants."""
    there = x != 0
    return -torch.where(there, torch.log(p) - power(x) / var - torch.log(var), torch.log1p(-p)).mean()
