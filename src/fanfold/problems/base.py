"""What a problem is: draws of signals and their observations, and copies of itself under other conditions."""

import dataclasses
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.priors import Prior


@runtime_checkable
class Problem(Protocol):
    """Something to estimate. A problem is plain data: its fields say all of it, and the same fields draw the same."""

    @property
    def A(self) -> LinearOperator | None:  # noqa: N802 - its name in the mathematics
        """The operator, the same object for every draw; None where there is none."""
        ...

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        """`n` fresh pairs: signals `(n, unknowns)` and their observation."""
        ...

    def shifted(self, **changes: Any) -> Self:
        """The same problem with some fields changed: another SNR, another picture."""
        ...

    def held_out(self) -> "Problem":
        """Where validation draws come from."""
        ...


class Described:
    """`shifted` and `held_out` for problems that are frozen dataclasses; a prior where one is known."""

    prior: Prior | None = None

    def shifted(self, **changes: Any) -> Self:
        """The same problem with some fields changed.

        Raises:
            ValueError: If a field is unknown.
        """
        known = [f.name for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        for name in changes:
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no {name!r} to change; it has {', '.join(known)}.")
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def held_out(self) -> Self:
        """Itself: every draw is fresh."""
        return self
