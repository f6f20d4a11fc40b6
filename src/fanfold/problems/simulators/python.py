"""Simulators that are Python functions: of one draw, or of a batch."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, is_dataclass
from functools import partial
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fanfold.observation import Observation
from fanfold.problems.simulators.base import FIRST, Numbered, grouped, parameters_of, refusal, seeds_of
from fanfold.problems.simulators.outcome import Outcome, judge, numbers, one_line

Sampler = Callable[[int, torch.Generator], Tensor]


@dataclass(frozen=True)
class Simulator(Numbered):
    """A function of one draw, `simulate(x, generator) -> y`, with x `(d,)` and y the observation, tensor or array.

    Randomness must come from the generator alone, then every draw has a seed of its own and repeats bit for bit,
    alone or among others. What the function raises is recorded as a crash; numbers that are not finite or an
    observation of another shape, likewise by their kind.
    """

    prior: Sampler = field()  # type: ignore[assignment]  # Box, Independent, or (n, generator) -> (n, d)
    simulate: Callable[[Tensor, torch.Generator], Any]

    def identity(self) -> dict[str, Any]:
        return python_identity(self)

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        return [self._outcome(seed, index) for index in indices]

    def _outcome(self, seed: int, index: int) -> Outcome:
        for_x, for_y = seeds_of(seed, index)
        x = parameters_of(self.prior, 1, for_x, self.dtype)[0]
        try:
            y = self.simulate(torch.from_numpy(x.copy()), torch.Generator().manual_seed(for_y))
        except Exception as error:
            return Outcome(index, x, failure="crash", detail=one_line(error))
        return judge(index, x, y, self.kind, self.shape, self.dtype)


@dataclass(frozen=True)
class BatchSimulator(Numbered):
    """A function of a batch, `simulate(x, generator) -> y`, with x `(n, d)` and y `(n, ...)`.

    Draws that are numbered are made in whole chunks of `chunk`, so that each repeats bit for bit however many are
    asked for; what the function raises loses its chunk. `sample` asks for as many as it needs at once.

    Raises:
        ValueError: If the chunk is empty.
    """

    prior: Sampler = field()  # type: ignore[assignment]  # Box, Independent, or (n, generator) -> (n, d)
    simulate: Callable[[Tensor, torch.Generator], Any]
    chunk: int = field(default=64, kw_only=True)  # draws that are always made together

    def __post_init__(self):
        super().__post_init__()
        if self.chunk < 1:
            raise ValueError(f"chunk is {self.chunk}; pass a positive number of draws.")

    def identity(self) -> dict[str, Any]:
        return python_identity(self)

    @property
    def together(self) -> int:
        return self.chunk

    def outcomes(self, seed: int, indices: Sequence[int]) -> list[Outcome]:
        found = []
        for some in grouped(indices, self.chunk):
            chunk = self._chunk(seed, some[0] // self.chunk)
            found += [chunk[index % self.chunk] for index in some]
        return found

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        tried, have = 0, 0
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        while have < n:
            for_x, for_y = torch.randint(2**62, (2,), generator=generator).tolist()
            parts.append(self._good(n - have, for_x, for_y))
            tried, have = tried + n - have, have + len(parts[-1][0])
            if tried >= FIRST and not have:
                raise ValueError(refusal(self.outcomes(self.seed, range(FIRST))))
        x, y = (np.concatenate(arrays) for arrays in zip(*parts))
        return torch.from_numpy(x), Observation(torch.from_numpy(y))

    def _chunk(self, seed: int, number: int) -> list[Outcome]:
        """All draws of a chunk."""
        first, (for_x, for_y) = number * self.chunk, seeds_of(seed, number)
        x = parameters_of(self.prior, self.chunk, for_x, self.dtype)
        try:
            y = self._answers(x, for_y)
        except Exception as error:
            return [Outcome(first + i, x[i], failure="crash", detail=one_line(error)) for i in range(len(x))]
        return [judge(first + i, x[i], y[i], self.kind, self.shape, self.dtype) for i in range(len(x))]

    def _good(self, n: int, for_x: int, for_y: int) -> tuple[np.ndarray, np.ndarray]:
        """What succeeds of `n` draws; the rest is counted."""
        x, shape = parameters_of(self.prior, n, for_x, self.dtype), self.expected
        y = np.empty((0, *shape), self.dtype)
        try:
            y = self._answers(x, for_y)
        except Exception:
            self.failed["crash"] += n
            return x[:0], y
        if y.shape[1:] != shape:
            self.failed["wrong shape"] += n
            return x[:0], y[:0].reshape(0, *shape)
        finite = np.isfinite(y).reshape(n, -1).all(1)
        if not finite.all():
            self.failed["non-finite"] += int((~finite).sum())
        return x[finite], y[finite]

    def _answers(self, x: np.ndarray, seed: int) -> np.ndarray:
        """Observations of all draws `(n, ...)`."""
        y = numbers(self.simulate(torch.from_numpy(x.copy()), torch.Generator().manual_seed(seed)), self.dtype)
        if y.ndim == 0 or len(y) != len(x):
            raise ValueError(f"y has shape {y.shape} for {len(x)} draws; return one observation each, ({len(x)}, ...)")
        return y


def python_identity(simulator: Simulator | BatchSimulator) -> dict[str, Any]:
    """Functions by their source, and the settings that tell the draws."""
    code = {"simulator": source_of(simulator.simulate), "prior": source_of(simulator.prior)}
    settings = {"kind": simulator.kind, "shape": simulator.shape, "dtype": simulator.dtype}
    return code | settings | {"together": simulator.together}


def source_of(thing: Any) -> str:
    """A function by its name and a hash of its source, or a frozen dataclass by its fields.

    What a function calls, or finds outside itself, is not seen.
    """
    if is_dataclass(thing) and not isinstance(thing, type):
        return repr(thing)
    if isinstance(thing, partial):
        return f"{source_of(thing.func)} with {thing.args!r} {thing.keywords!r}"
    code = thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)
    try:
        text = inspect.getsource(code)
    except (OSError, TypeError):  # typed at a prompt, or compiled
        text = repr(_instructions(getattr(code, "__code__", None)))
    name = f"{code.__module__}.{code.__qualname__}"
    return f"{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _instructions(code: Any) -> Any:
    """Compiled code, and the constants in it, as plain data that is the same in every process."""
    if isinstance(code, frozenset):
        return sorted(map(repr, code))
    if not isinstance(code, CodeType):
        return repr(code)
    return code.co_code.hex(), code.co_names, [_instructions(constant) for constant in code.co_consts]
