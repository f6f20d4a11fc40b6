"""What a problem is: draws of signals and their observations, and copies of itself under other conditions."""

import dataclasses
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import torch
from torch import Tensor

from fanfold.core.settings import Checked
from fanfold.linops import LinearOperator
from fanfold.observation import Observation


@runtime_checkable
class Problem(Protocol):
    """Something to estimate. A problem is plain data: its fields say all of it, and the same fields draw the same.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(3, torch.Generator().manual_seed(0))
        >>> x.shape, obs.y.shape
        (torch.Size([3, 40]), torch.Size([3, 20]))
    """

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
        """The problem that validation draws come from."""
        ...


class Described(Checked):
    """What problems that are frozen dataclasses share: `shifted` and `held_out`.

    Example:
        >>> import fanfold as ff
        >>> tone = ff.problems.Tone(snr_db=10.0)
        >>> tone.shifted(snr_db=0.0) == ff.problems.Tone(snr_db=0.0), tone.held_out() is tone
        (True, True)
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]]

    def shifted(self, **changes: Any) -> Self:
        """The same problem with some fields changed.

        Raises:
            ValueError: If a field is unknown.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                raise ValueError(f"{type(self).__name__} has no {name!r} to change; it has {', '.join(known)}.")
        return dataclasses.replace(self, **changes)

    def held_out(self) -> Self:
        """The problem itself, as every draw is fresh."""
        return self


@dataclasses.dataclass(frozen=True)
class Nested(Described):
    """What problems that draw from another one share: its fields are shifted as theirs are.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.Mismatched(error=0.1).shifted(snr_db=20.0, error=0.2)
        >>> problem.problem.snr_db, problem.error
        (20.0, 0.2)
    """

    problem: Described

    def shifted(self, **changes: Any) -> Self:
        """The same problem with some fields changed, those of this one or of the one that it draws from.

        Raises:
            ValueError: If neither has a field of that name.
        """
        fields = [field.name for field in dataclasses.fields(self)]
        outer = {name: value for name, value in changes.items() if name in fields}
        inner = {name: value for name, value in changes.items() if name not in fields}
        if inner:
            outer["problem"] = outer.get("problem", self.problem).shifted(**inner)
        return dataclasses.replace(self, **outer)

    def held_out(self) -> Self:
        """The same conditions over held-out draws."""
        return dataclasses.replace(self, problem=self.problem.held_out())
