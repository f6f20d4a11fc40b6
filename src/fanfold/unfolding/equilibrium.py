"""Fixed points as networks: one tied step, iterated until nothing changes. Bai, Kolter & Koltun (2019), eqs. 7-10."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils._pytree import keystr, tree_flatten_with_path

from fanfold.algorithms import ISTA
from fanfold.algorithms.base import Algorithm, State, Theta
from fanfold.core.settings import Checked, checks_arguments
from fanfold.observation import Estimate, Observation
from fanfold.unfolding.adjoint import ImplicitGradient, Through, detached, flat, replaced, sample_numbers
from fanfold.unfolding.boundary import HasOperator
from fanfold.unfolding.unfold import Unfolded

Gradient = Literal["implicit", "jacobian-free"]
MOST_TRACED = 300  # iterations of a program for elsewhere, which has each written out and grows with them


@checks_arguments
def equilibrium(
    algorithm: Algorithm,
    problem_or_obs: HasOperator,
    learn: Mapping[str, str] | None = None,
    *,
    tolerance: float = 1e-4,
    max_iterations: int = 1000,
    gradient: Gradient = "implicit",
) -> "Equilibrium":
    """The fixed point `s = step(s, θ)` of an algorithm whose named quantities may deviate from their nominal values.

    The memory of training is that of one step, whatever the number of iterations: by the implicit function theorem the
    gradient needs the fixed point alone. Untrained, it is the algorithm run until nothing changes.

    Args:
        algorithm: The algorithm that is iterated.
        problem_or_obs: Whatever carries the operator A; the network is bound to it.
        learn: The quantities that may move, written as in `unfold`, every one "tied": all iterations are one step. What
            the fixed point does not depend on is better left alone: of ISTA's step and threshold only the ratio
            matters, and long steps diverge.
        tolerance: The relative change of every part of the state, for every sample, at which it counts as fixed; also
            that of the equation that the gradient solves.
        max_iterations: The number of steps after which it stops anyway, with a warning that says why.
        gradient: "implicit" is exact at a fixed point. "jacobian-free" differentiates the last step alone, which is
            cheaper and a descent direction where the step contracts (Fung et al., 2022, theorem 3.1).

    Raises:
        ValueError: If `unfold` refuses the arguments; also if a quantity is not tied or a setting is out of range.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.equilibrium(ff.algorithms.ISTA(), problem, learn={"threshold": "tied"})
        >>> x_hat = net(problem.sample(8, torch.Generator().manual_seed(0))[1]).x
        >>> x_hat.shape, net.iterations > 10
        (torch.Size([8, 40]), True)
    """
    return Equilibrium(algorithm, problem_or_obs, learn or {}, tolerance, max_iterations, gradient)


class Equilibrium(Unfolded):
    """The fixed point of one step with learned deviations; made by `equilibrium`.

    What a state carries beside tensors of the samples, such as the counter of FISTA's momentum, is not differentiated:
    the fixed point does not depend on it.

    Attributes:
        iterations: How many steps the last call took.

    Example:
        >>> import fanfold as ff
        >>> net = ff.equilibrium(ff.algorithms.ISTA(), ff.problems.CompressedSensing(n=40, m=20))
        >>> isinstance(net, ff.unfolding.Equilibrium), net.layers
        (True, 1)
    """

    @checks_arguments
    def __init__(
        self,
        algorithm: Algorithm,
        problem_or_obs: HasOperator,
        learn: Mapping[str, str],
        tolerance: float,
        max_iterations: int,
        gradient: Gradient,
    ):
        for name, words in learn.items():
            if "per-layer" in words.split():
                raise ValueError(f"an equilibrium iterates one step, so {name} cannot be {words!r}: say 'tied'.")
        if not 0 < tolerance < 1 or max_iterations < 2:
            raise ValueError(
                f"tolerance is {tolerance} and max_iterations {max_iterations}; pass a number between 0 and 1, and at "
                "least 2."
            )
        super().__init__(algorithm, problem_or_obs, 1, learn)
        self.tolerance, self.max_iterations, self.iterations = tolerance, max_iterations, 0
        self.gradient: Gradient = gradient
        self._warned: set[str] = set()
        self._learns = self._rests = False

    @property
    def settings(self) -> "EquilibriumSettings":
        """The settings that build the network again."""
        return EquilibriumSettings(self.algorithm, self.learn, self.tolerance, self.max_iterations, self.gradient)

    @property
    def depth(self) -> int:
        return min(self.max_iterations, 100)

    def trajectory(self, obs: Observation, depth: int | None = None, latest: int | None = None) -> list[Estimate]:
        """The estimate, as a network of one layer gives it."""
        dtype, obs = obs.y.dtype, self.admitted(obs)
        (theta,), self._learns = self.thetas(obs), torch.is_grad_enabled()
        start = self.algorithm.start(obs)
        s, settled = self._settle(start, obs, detached(theta))
        s = self._at_rest(s, start, obs, theta)
        after = self.algorithm.step(s, obs, theta)
        if torch.is_grad_enabled() and self.gradient == "implicit":
            began, numbers = sample_numbers(start, obs), sample_numbers(after, obs)
            moving = [k for k, v in numbers.items() if k not in began or not torch.equal(began[k], v)]
            adjoint = ImplicitGradient(self.algorithm, s, obs, theta, moving, settled, self.tolerance)
            after = replaced(after, dict(zip(moving, Through.apply(adjoint, *(numbers[k] for k in moving)))))
        return [self.algorithm.read(after).in_precision(dtype)]

    @torch.no_grad()
    def _at_rest(self, s: State, start: State, obs: Observation, theta: Theta) -> State:
        """The fixed point with the counters of the start, if it is as fixed with them.

        FISTA's has no momentum there, and far fewer products solve the equation of the gradient.
        """
        counters = {keystr(path): v for path, v in tree_flatten_with_path(start)[0] if not isinstance(v, Tensor)}
        if not counters:
            return s
        rest = replaced(s, counters)
        if not torch.compiler.is_compiling():  # which goes by the last call
            after = self.algorithm.step(rest, obs, theta)
            self._rests = bool((_change(rest, after, obs, {})[0] <= 10 * self.tolerance).all())
        return rest if self._rests else s

    @torch.no_grad()
    def _settle(self, s: State, obs: Observation, theta: Theta) -> tuple[State, Tensor]:
        """The state one step before the last, and which samples have settled."""
        if torch.compiler.is_compiling():
            return self._settle_as_before(s, obs, theta), obs.y.real.new_ones(()) > 0
        changes, lengths, scales = [], [], {}
        change = obs.y.real.new_full((obs.y.shape[:-1].numel(),), math.inf)  # nothing has settled before the first step
        going = change > self.tolerance
        for _ in range(self.max_iterations - 1):
            s, before = self.algorithm.step(s, obs, theta), s
            change, length = _change(before, s, obs, scales)
            going = (change > self.tolerance) & torch.isfinite(change)
            changes.append(change[going].max().item() if going.any() else 0.0)
            lengths.append(length)
            if not going.any():
                break
        self.iterations = len(changes) + 1
        settled, lost = change <= self.tolerance, int((~torch.isfinite(change)).sum())
        if lost:
            self._say(lost, obs, "diverges", f"to numbers that are not finite within {len(changes)} iterations.")
        if going.any():
            self._say(int(going.sum()), obs, *self._reason(changes, lengths, obs))
        return s, settled

    def _settle_as_before(self, s: State, obs: Observation, theta: Theta) -> State:
        """As many steps as the last call took: a program that is traced cannot see when numbers have settled.

        Raises:
            ValueError: If there was no call, or one of very many iterations.
        """
        if not 0 < self.iterations <= MOST_TRACED:
            raise ValueError(
                f"the last call of this equilibrium took {self.iterations} iterations, and a traced program has from 1 "
                f"to {MOST_TRACED}; call it once, raise tolerance, or take so many layers with unfold."
            )
        for _ in range(self.iterations - 1):
            s = self.algorithm.step(s, obs, theta)
        return s

    def _say(self, count: int, obs: Observation, what: str, more: str) -> None:
        training = what in self._warned and self._learns
        self._warned.add(what)
        if not training:  # which says each thing once
            who = f"{type(self.algorithm).__name__} has not reached a fixed point for {count} of"
            warnings.warn(
                f"{who} {obs.y.shape[:-1].numel()} samples: it {what}, {more} Their gradients are those of the last "
                "step alone.",
                stacklevel=6,
            )

    def _reason(self, changes: Sequence[float], lengths: Sequence[Tensor], obs: Observation) -> tuple[str, str]:
        count, now = len(changes), changes[-1]
        if now <= 100 * torch.finfo(obs.y.dtype).eps:
            return "goes on in the last digits", f"by {now:.1e}; raise tolerance, which is {self.tolerance:.0e}."
        late, early = slice(count - count // 8 - 1, count), slice(count // 2 - count // 8, count // 2 + 1)
        if max(lengths[late]) > 1.1 * max(lengths[early]):
            return "diverges", f"in steps that have grown to {max(lengths[late]):.1e}."
        fall = max(changes[late]) / max(changes[early])  # over half of the iterations
        if fall < 0.9:
            needed = count + 0.5 * count * math.log(self.tolerance / now) / math.log(fall)
            return "converges slowly", f"by changes of {now:.1e}; raise max_iterations to about {needed:.0f}."
        return "goes round", f"in changes of {now:.1e} that do not fall; damp it, or take fewer layers with unfold."

    def extra_repr(self) -> str:
        """The algorithm and the settings, for `repr`."""
        return f"{self.algorithm}, learn={self.learn}, strength={self.strength}, tolerance={self.tolerance}"


@dataclass(frozen=True)
class EquilibriumSettings(Checked):
    """The settings of a fixed point as a network: all of it but its weights.

    Example:
        >>> import fanfold as ff
        >>> settings = ff.unfolding.EquilibriumSettings(ff.algorithms.ISTA(), {"threshold": "tied"})
        >>> settings.build(ff.problems.CompressedSensing(n=40, m=20)).tolerance
        0.0001
    """

    algorithm: Algorithm = field(default_factory=ISTA)  # what is iterated
    learn: Mapping[str, str] = field(default_factory=dict)  # sharing and granularity of each quantity that may move
    tolerance: float = 1e-4  # relative change at which a sample counts as fixed
    max_iterations: int = 1000  # steps after which it stops anyway
    gradient: Gradient = "implicit"  # exact at a fixed point, or of the last step alone

    needs_operator_only: ClassVar[bool] = True

    def build(self, problem_or_obs: HasOperator) -> Equilibrium:
        """The untrained network for a problem or an observation."""
        return Equilibrium(
            self.algorithm, problem_or_obs, self.learn, self.tolerance, self.max_iterations, self.gradient
        )


def _change(before: State, s: State, obs: Observation, scales: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The largest relative change of a part of the state, for each sample, and the longest step in absolute terms.

    A part that has all but vanished counts as zero.
    """
    changes, steps, old = [], [], sample_numbers(before, obs)
    for name, new in sample_numbers(s, obs).items():
        size = torch.linalg.vector_norm(flat(new, obs), dim=-1)
        scales[name] = torch.maximum(scales.get(name, size), size)
        floor = (scales[name] * torch.finfo(size.dtype).eps).clamp_min(torch.finfo(size.dtype).tiny)
        steps.append(torch.linalg.vector_norm(flat(new - old[name], obs), dim=-1) if name in old else size)
        changes.append(steps[-1] / torch.maximum(size, floor))
    return torch.stack(changes).amax(0), torch.stack(steps).max()
