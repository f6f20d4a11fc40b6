"""Draws of a problem, kept in a run, for whoever wants to judge the network where the problem cannot draw."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fanfold.core.files import is_regular
from fanfold.core.streams import Stream
from fanfold.linops import Batched, LinearOperator
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.draws import draw
from fanfold.problems.kinds import Kind
from fanfold.runs.outline import Outline
from fanfold.runs.weights import read_tensors, write_tensors

FILE = "draws.safetensors"
MOST_DRAWS, MOST_BYTES = 1000, 2**25  # of each part

Draws = tuple[Tensor, Observation]


def drawn(problem: Problem, outlined: Outline) -> tuple[Draws, Draws]:
    """Draws of a problem that costs little to draw from: of its training part, and those that `evaluate` draws."""
    count = most_kept(*outlined.sample(1, torch.Generator()))
    return draw(problem, count, 0, Stream.TUNING, 0), draw(problem.held_out(), count, 0, Stream.TESTING, 0)


def write_draws(folder: Path, train: Draws, test: Draws, A: LinearOperator | None) -> None:
    """Keep the first draws of both parts, unless each observation has another operator than the problem's."""
    tensors: dict[str, Tensor] = {}
    for part, (x, obs) in (("train", train), ("test", test)):
        count = most_kept(x, obs)
        x, obs = x[:count], obs[:count]
        tensors |= {f"{part}/x": x, f"{part}/y": obs.y}
        if obs.noise_var is not None:
            tensors[f"{part}/noise_var"] = obs.noise_var
        if obs.A is not None and obs.A.varies:
            tensors[f"{part}/A"] = obs.A.matrix()
        elif obs.A is not None and (A is None or obs.A.fingerprint() != A.fingerprint()):
            return
    observed = train[1].A is not None
    write_tensors(folder / FILE, tensors, {"observed": observed})


class RunDraws:
    """A problem whose draws are those that a run keeps: some to tune on, and some that were not trained on.

    As with stored pairs, a draw of the former picks some at random, with replacement; of the latter come the first
    ones, each once, and at most all.

    Args:
        folder: The run directory.
        outlined: The outline of the problem, whose abilities these draws have too.

    Raises:
        ValueError: If the run keeps none, or they are damaged.

    Example:
        >>> import pathlib, tempfile, torch, fanfold as ff
        >>> from fanfold.runs.draws import RunDraws, drawn, write_draws
        >>> from fanfold.runs.outline import Outline, outline_of
        >>> problem, folder = ff.problems.LinearGaussian(n=2, m=3), pathlib.Path(tempfile.mkdtemp())
        >>> outlined = Outline(outline_of(problem, *problem.sample(2, torch.Generator())), None)
        >>> write_draws(folder, *drawn(problem, outlined), None)
        >>> RunDraws(folder, outlined).held_out().sample(5, torch.Generator())[0].shape
        torch.Size([5, 2])
    """

    def __init__(self, folder: Path, outlined: Outline):
        tensors, facts = read_tensors(folder / FILE, "The run keeps no draws.")
        self.outlined, self.A = outlined, outlined.A
        self.kind: Kind = outlined.kind
        try:
            A = outlined.A if facts["observed"] else None
            self._parts = {part: _pairs(tensors, part, A) for part in ("train", "test")}
        except (KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"{folder / FILE} holds no draws of the run: {error!r}; remove it.") from error
        for ability in ("noise_var", "unknowns", "scene", "layout", "mask"):
            if ability in vars(outlined):
                vars(self)[ability] = vars(outlined)[ability]
        self._part = "train"

    @property
    def stock(self) -> str:
        """What the draws are."""
        return f"{len(self._parts['test'][0])} draws of {self.outlined.name} that the run keeps"

    def sample(self, n: int, generator: torch.Generator) -> Draws:
        """`n` of the pairs of this part; of those that were not trained on the first ones, and at most all."""
        x, obs = self._parts[self._part]
        if self._part == "test":
            return x[:n], obs[:n]
        rows = torch.randint(len(x), (n,), generator=generator)
        return x[rows], obs[rows]

    def held_out(self) -> "RunDraws":
        """The draws that were not trained on."""
        other = object.__new__(RunDraws)
        vars(other).update(vars(self))
        other._part = "test"
        return other

    def shifted(self, **changes: Any) -> "RunDraws":
        """Draws that are kept cannot be made under other conditions.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            f"{', '.join(changes)} cannot be changed: there are {self.stock}, as they were. Evaluate under other "
            "conditions where its problem can draw: in Python with the problem handed in, or on the machine that made "
            "the run and has its data."
        )


def has_draws(folder: Path) -> bool:
    """Whether a run keeps draws."""
    return is_regular(folder / FILE)


def _pairs(tensors: Mapping[str, Tensor], part: str, A: LinearOperator | None) -> Draws:
    matrices = tensors.get(f"{part}/A")
    operator = A if matrices is None else Batched(matrices)
    return tensors[f"{part}/x"], Observation(tensors[f"{part}/y"], operator, tensors.get(f"{part}/noise_var"))


def most_kept(x: Tensor, obs: Observation) -> int:
    """How many pairs of this size are kept, at most."""
    entries = [math.prod(t.shape[1:]) * t.element_size() for t in (x, obs.y)]
    if obs.A is not None and obs.A.varies:
        entries.append(obs.A.m * obs.A.n * obs.y.element_size())
    return max(2, min(MOST_DRAWS, MOST_BYTES // max(1, sum(entries))))
