"""Simulators that are Python functions: of one draw, or of a batch."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import partial
from types import CodeType
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fanfold.core.settings import WANTED
from fanfold.observation import Observation
from fanfold.problems.simulators.base import (
    TRIAL_RUNS,
    Numbered,
    as_parameters,
    grouped,
    parameters_of,
    refusal,
    seeds_of,
)
from fanfold.problems.simulators.outcome import Outcome, judge, numbers, one_line
from fanfold.problems.simulators.parameters import Bounds, Sampler, between

PRIOR = {WANTED: "pass Box(low, high), Independent(prior, count), or a function (n, generator) -> (n, d)"}


@dataclass(frozen=True)
class Simulator(Numbered):
    """A function of one draw, `simulate(x, generator) -> y`, with x `(d,)` and y the observation, tensor or array.

    Randomness must come from the generator alone, then every draw has a seed of its own and repeats bit for bit,
    alone or among others. What the function raises is recorded as a crash; numbers that are not finite or an
    observation of another shape, likewise by their kind.

    Attributes:
        prior: What draws the parameters: `Box`, `Independent`, or a function `(n, generator)` -> `(n, d)`.
        simulate: The function of one draw.

    Example:
        >>> import torch, fanfold as ff
        >>> box = ff.problems.Box((0.0, 0.0), (1.0, 1.0))
        >>> noisy = ff.problems.Simulator(box, lambda x, generator: x + 0.1 * torch.randn(2, generator=generator))
        >>> x, obs = noisy.sample(5, torch.Generator().manual_seed(0))
        >>> tuple(x.shape), tuple(obs.y.shape), noisy.failures
        ((5, 2), (5, 2), {})
    """

    prior: Sampler = field(metadata=PRIOR)
    simulate: Callable[[Tensor, torch.Generator], Any]

    def restricted(self, low: Bounds, high: Bounds) -> Self:
        """The same simulator with parameters from its prior given that each lies between its bounds."""
        return replace(self, prior=between(self.prior, low, high))

    def identity(self) -> dict[str, Any]:
        return python_identity(self)

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        return [self._outcome(seed, index) for index in indices]

    def _outcome(self, seed: int, index: int) -> Outcome:
        for_x, for_y = seeds_of(seed, index)
        return self._at(index, parameters_of(self.prior, 1, for_x, self.dtype)[0], for_y)

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Those of the given parameters `(samples, d)` whose runs succeeded, and their observation.

        Raises:
            ValueError: If all runs fail.
        """
        seed, rows = int(torch.randint(2**62, (), generator=generator)), as_parameters(x, self.dtype)
        return self._kept([self._at(i, row, seeds_of(seed, i)[1]) for i, row in enumerate(rows)])

    def _at(self, index: int, x: np.ndarray, for_y: int) -> Outcome:
        """One run at given parameters."""
        try:
            y = self.simulate(torch.from_numpy(x.copy()), torch.Generator().manual_seed(for_y))
        except (Exception, SystemExit) as error:
            return Outcome(index, x, failure="crash", detail=one_line(error))
        return judge(index, x, y, self.kind, self.shape, self.dtype)


@dataclass(frozen=True)
class BatchSimulator(Numbered):
    """A function of a batch, `simulate(x, generator) -> y`, with x `(n, d)` and y `(n, ...)`.

    Draws that are numbered are made in whole chunks of `chunk`, so that each repeats bit for bit however many are
    asked for; what the function raises loses its chunk. `sample` asks for as many as it needs at once.

    Attributes:
        prior: What draws the parameters: `Box`, `Independent`, or a function `(n, generator)` -> `(n, d)`.
        simulate: The function of a batch.
        chunk: How many numbered draws are always made together.

    Raises:
        ValueError: If the chunk is empty.

    Example:
        >>> import torch, fanfold as ff
        >>> box = ff.problems.Box((0.0, 0.0), (1.0, 1.0))
        >>> noisy = ff.problems.BatchSimulator(box, lambda x, generator: x + torch.randn(x.shape, generator=generator))
        >>> x, obs = noisy.sample(500, torch.Generator().manual_seed(0))
        >>> tuple(obs.y.shape)
        (500, 2)
    """

    prior: Sampler = field(metadata=PRIOR)
    simulate: Callable[[Tensor, torch.Generator], Any]
    chunk: int = field(default=64, kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}; pass a positive number of draws.")

    def restricted(self, low: Bounds, high: Bounds) -> Self:
        """The same simulator with parameters from its prior given that each lies between its bounds."""
        return replace(self, prior=between(self.prior, low, high))

    def identity(self) -> dict[str, Any]:
        return python_identity(self)

    @property
    def together(self) -> int:
        return self.chunk

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        outcomes = []
        for group in grouped(indices, self.chunk):
            chunk = self._chunk(seed, group[0] // self.chunk)
            outcomes += [chunk[index % self.chunk] for index in group]
        return outcomes

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        tried, good = 0, 0
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        while good < n:
            for_x, for_y = torch.randint(2**62, (2,), generator=generator).tolist()
            parts.append(self._good(n - good, for_x, for_y))
            tried, good = tried + n - good, good + len(parts[-1][0])
            if tried >= TRIAL_RUNS and not good:
                raise ValueError(refusal(self.outcomes(self.seed, range(TRIAL_RUNS))))
        x, y = (np.concatenate(arrays) for arrays in zip(*parts))
        return torch.from_numpy(x), Observation(torch.from_numpy(y))

    def sample_at(self, x: Tensor, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """Those of the given parameters `(samples, d)` whose runs succeeded, and their observation.

        Raises:
            ValueError: If all runs fail.
        """
        rows, for_y = as_parameters(x, self.dtype), int(torch.randint(2**62, (), generator=generator))
        return self._kept(self._at(0, rows, for_y))

    def _chunk(self, seed: int, number: int) -> list[Outcome]:
        """All draws of a chunk."""
        first, (for_x, for_y) = number * self.chunk, seeds_of(seed, number)
        return self._at(first, parameters_of(self.prior, self.chunk, for_x, self.dtype), for_y)

    def _at(self, first: int, x: np.ndarray, for_y: int) -> list[Outcome]:
        """Runs at given parameters, all at once; the first has this number."""
        try:
            y = self._answers(x, for_y)
        except (Exception, SystemExit) as error:
            return [Outcome(first + i, x[i], failure="crash", detail=one_line(error)) for i in range(len(x))]
        return [judge(first + i, x[i], y[i], self.kind, self.shape, self.dtype) for i in range(len(x))]

    def _good(self, n: int, for_x: int, for_y: int) -> tuple[np.ndarray, np.ndarray]:
        """What succeeds of `n` draws; the rest is counted."""
        x, shape = parameters_of(self.prior, n, for_x, self.dtype), self.expected_shape()
        y = np.empty((0, *shape), self.dtype)
        try:
            y = self._answers(x, for_y)
        except (Exception, SystemExit):
            self._failures["crash"] += n
            return x[:0], y
        if y.shape[1:] != shape:
            self._failures["wrong shape"] += n
            return x[:0], y[:0].reshape(0, *shape)
        finite = np.isfinite(y).reshape(n, -1).all(1)
        if not finite.all():
            self._failures["non-finite"] += int((~finite).sum())
        return x[finite], y[finite]

    def _answers(self, x: np.ndarray, seed: int) -> np.ndarray:
        """The observations of all draws, `(n, ...)`."""
        y = numbers(self.simulate(torch.from_numpy(x.copy()), torch.Generator().manual_seed(seed)), self.dtype)
        if y.ndim == 0 or len(y) != len(x):
            raise ValueError(f"y has shape {y.shape} for {len(x)} draws; return one observation each, ({len(x)}, ...)")
        return y


def python_identity(simulator: Simulator | BatchSimulator) -> dict[str, Any]:
    """What decides the draws of a function: its source, that of its prior, and the settings."""
    code = {"simulator": code_identity(simulator.simulate), "prior": code_identity(simulator.prior)}
    settings = {"kind": simulator.kind, "shape": simulator.shape, "dtype": simulator.dtype}
    return code | settings | {"together": simulator.together}


def code_identity(thing: Any) -> str:
    """A function by its name and a hash of its source, or a frozen dataclass by its fields, functions among them alike.

    What a function calls, or finds outside itself, is not seen.
    """
    if is_dataclass(thing) and not isinstance(thing, type):
        held = {f.name: vars(thing).get(f.name) for f in fields(thing)}
        if not any(inspect.isroutine(value) or isinstance(value, partial) for value in held.values()):
            return repr(thing)
        inner = (f"{name}={code_identity(v) if callable(v) else repr(v)}" for name, v in held.items())
        return f"{type(thing).__qualname__}({', '.join(inner)})"  # the repr of a function is its address
    if isinstance(thing, partial):
        return f"{code_identity(thing.func)} with {thing.args!r} {thing.keywords!r}"
    code = thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)
    try:
        text = inspect.getsource(code)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        function = code.__func__ if inspect.ismethod(code) else code
        text = repr(_instructions(function.__code__ if inspect.isfunction(function) else None))
    name = f"{code.__module__}.{code.__qualname__}"
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _instructions(code: Any) -> Any:
    """Compiled code and the constants in it, as plain data that is the same in every process."""
    if isinstance(code, frozenset):
        return sorted(map(repr, code))
    if not isinstance(code, CodeType):
        return repr(code)
    return code.co_code.hex(), code.co_names, [_instructions(constant) for constant in code.co_consts]
