"""RF scenes with structure: the four kinds, copies with few or with mirrored scenes, and what is learned of them."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fanfold.core.noise import circular
from fanfold.core.streams import Stream
from fanfold.estimators import LMMSE
from fanfold.estimators.imaging.one_phase import phase_of
from fanfold.observation import Observation
from fanfold.problems import Problem, RFImaging
from fanfold.problems.draws import draw


@dataclass(frozen=True)
class Setting:
    """A kind of scene through a kind of operator."""

    title: str
    changes: dict[str, Any]

    @property
    def photographs(self) -> bool:
        """Real scenes with one phase; otherwise targets with speckle."""
        return self.changes["targets"] == "photographs"

    def problem(self, seed: int) -> RFImaging:
        """On the operator with this seed; trained on camera and ascent, or on drawn targets."""
        return RFImaging(seed=seed, **self.changes)


EXTENDED = {"targets": "extended"}
PICTURES = {"targets": "photographs", "speckle": False}
SETTINGS = (
    Setting("extended targets, Kron(Gauss)", EXTENDED | {"sensing": "gaussian"}),
    Setting("photographs, Kron(Gauss)", PICTURES | {"sensing": "gaussian"}),
    Setting("extended targets, Kron(steering)", EXTENDED | {"sensing": "steering"}),
    Setting("photographs, Kron(steering)", PICTURES | {"sensing": "steering"}),
)


@dataclass(frozen=True)
class Turned:
    """Scenes of a problem, mirrored and transposed at random and measured again: more of the same few pictures."""

    of: RFImaging

    @property
    def A(self):  # noqa: N802
        """The operator."""
        return self.of.A

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` scenes and their measurements."""
        x, obs = self.of.sample(n, generator)
        kinds = torch.randint(8, (n, 1, 1), generator=generator)
        z = x.reshape(n, *self.of.scene)
        for bit, turn in enumerate((lambda z: z.flip(-1), lambda z: z.flip(-2), lambda z: z.mT)):
            z = torch.where((kinds >> bit) % 2 == 1, turn(z), z)
        x = z.flatten(1)
        y = self.of.true_A @ x + circular(obs.y.shape, generator, obs.y.dtype, self.of.noise_var)
        return x, Observation.unchecked(y, obs.A, obs.noise_var)

    def shifted(self, **changes: Any) -> "Turned":
        """The same of other scenes."""
        return Turned(self.of.shifted(**changes))

    def held_out(self) -> Problem:
        """Where validation draws come from."""
        return self.of


@dataclass(frozen=True)
class FewScenes:
    """So many training scenes and no more, with their measurements; validation draws are fresh."""

    of: RFImaging | Turned
    count: int
    seed: int

    @property
    def A(self):  # noqa: N802
        """The operator."""
        return self.of.A

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` of the stored pairs, at random."""
        x, obs = self._pairs()
        pick = torch.randint(self.count, (n,), generator=generator)
        return x[pick], Observation.unchecked(obs.y[pick], obs.A, obs.noise_var)

    def _pairs(self) -> tuple[Tensor, Observation]:
        if "pairs" not in self.__dict__:
            self.__dict__["pairs"] = draw(self.of, self.count, self.seed, Stream.TUNING, 7)
        return self.__dict__["pairs"]

    def shifted(self, **changes: Any) -> "FewScenes":
        """The same number of other scenes."""
        return FewScenes(self.of.shifted(**changes), self.count, self.seed)

    def held_out(self) -> Problem:
        """Where validation draws come from."""
        return self.of.held_out()


@dataclass(frozen=True)
class Field:
    """Mean and covariance of scenes that are real but for one phase, and the first image that finds their phase."""

    mean: Tensor  # (n,)
    covariance: Tensor  # (n, n)

    @classmethod
    def of(cls, on: Problem, scene: tuple[int, ...], seed: int) -> "Field":
        """The field of 2000 draws: the covariance of rows times that of columns, as Werner et al. (2008), eq. 3."""
        x, _ = draw(on, 2000, seed, Stream.TUNING, 3)
        x = (x * phase_of(x).conj()).real.double()
        z = (x - x.mean()).reshape(-1, *scene)
        rows, columns = (torch.einsum("bij,bkj->ik", a, a) for a in (z, z.mT))
        covariance = torch.kron(rows, columns)
        covariance *= len(covariance) * z.square().mean() / covariance.trace()
        return cls(x.mean().float().expand(len(covariance)), covariance.float())

    @cached_property
    def image(self) -> LMMSE:
        """LMMSE for any phase: the mean is zero and its power is in the covariance."""
        return LMMSE(None, (self.covariance + torch.outer(self.mean, self.mean)).to(torch.complex64))

    @cached_property
    def linear(self) -> LMMSE:
        """LMMSE once the phase is known."""
        return LMMSE(self.mean, self.covariance)
