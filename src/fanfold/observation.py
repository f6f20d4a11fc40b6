"""What the receiver knows and what an estimator says: the only types that problems and algorithms share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fanfold.core.precision import at_least_single, double
from fanfold.linops import LinearOperator

COMFORT = 2.0**24  # sizes up to which, and down to whose inverse, single precision holds fourth powers with ease
MOST = 2.0**240  # likewise for double precision, beyond which there is none


@dataclass(frozen=True)
class Observation:
    """Measurements `y = A x + w` with `E|w|² = noise_var`, checked when made.

    Args:
        y: The measurements, shape `(..., m)`.
        A: The operator, or None where only a simulator exists.
        noise_var: The noise variance, a number or a real tensor that broadcasts against `(..., 1)`; None if unknown.

    Raises:
        ValueError: If shapes, dtypes or devices do not fit, the batch is empty, an entry of `y` is not finite
            or a variance is negative.

    Example:
        >>> import fanfold as ff, torch
        >>> A = ff.linops.Dense(torch.ones(2, 3))
        >>> ff.Observation(torch.ones(5, 2), A, torch.tensor(0.1))[:2].y.shape
        torch.Size([2, 2])
    """

    y: Tensor
    A: LinearOperator | None = None
    noise_var: Tensor | None = None

    def __post_init__(self):
        y, A = self.y, self.A
        if not isinstance(y, Tensor) or not (y.is_floating_point() or y.is_complex()):
            arrived = y.dtype if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"y is {arrived}; pass a floating or complex torch tensor.")
        if y.layout is not torch.strided:
            raise ValueError("y is a sparse tensor; pass a dense one, y.to_dense().")
        if y.ndim == 0 or y.numel() == 0:
            raise ValueError(f"y has shape {tuple(y.shape)}: nothing to estimate from; pass shape (..., m), not empty.")
        if A is not None:
            self._check_fit(y, A)
        check_finite("y", y)
        if self.noise_var is not None:
            object.__setattr__(self, "noise_var", self._checked_variance())

    @staticmethod
    def _check_fit(y: Tensor, A: LinearOperator) -> None:
        if y.shape[-1] != A.m:
            transposed = y.ndim > 1 and y.shape[-2] == A.m
            hint = " Transposed?" if transposed else " Is it x? Transposed?" if y.shape[-1] == A.n else ""
            hint += f" y has shape {tuple(y.shape)}, A is {A}." if A.factored else ""
            raise ValueError(
                f"A maps {A.n} -> {A.m} but y has {y.shape[-1]} entries; pass y of shape (..., {A.m}).{hint}"
            )
        if y.dtype != A.dtype:
            raise ValueError(
                f"y is {y.dtype} but A is {A.dtype}; convert one: y.to({A.dtype}) or A.to(dtype={y.dtype})."
            )
        if y.device != A.device:
            raise ValueError(
                f"y is on {y.device} but A is on {A.device}; move one: y.to('{A.device}') or A.to('{y.device}')."
            )

    def _checked_variance(self) -> Tensor:
        given = self.noise_var
        given = torch.as_tensor(given, dtype=torch.float64 if isinstance(given, float) else None, device=self.y.device)
        if given.is_complex():
            raise ValueError(f"noise_var is {given.dtype}; a variance E|w|² is real: pass its real part.")
        check_finite("noise_var", given)
        var = given.to(at_least_single(self.y.dtype).to_real())
        if ((var == 0) != (given == 0)).any() or torch.isinf(var).any():
            raise ValueError(
                f"noise_var is {given.max().item():g}, which {var.dtype} cannot hold; pass y and A in double "
                "precision, or all in other units."
            )
        if (var < 0).any():
            raise ValueError(f"noise_var is {var.min().item():g}; a variance is not negative: pass E|w|² (not in dB).")
        full = (*self.y.shape[:-1], 1)
        fits = len(var.shape) <= len(full) and all(a in (1, b) for a, b in zip(var.shape[::-1], full[::-1]))
        if not fits:
            raise ValueError(f"noise_var has shape {tuple(var.shape)}; pass a number or shape {full}, one per sample.")
        return var

    @classmethod
    def unchecked(cls, y: Tensor, A: LinearOperator | None = None, noise_var: Tensor | None = None) -> "Observation":
        """The same observation without checks: for code that is traced or exported, where values are not there yet."""
        obs = object.__new__(cls)
        for name, value in (("y", y), ("A", A), ("noise_var", noise_var)):
            object.__setattr__(obs, name, value)
        return obs

    def to(self, device: torch.device | str) -> "Observation":
        """The same observation on another device."""
        if self.y.device == torch.device(device):
            return self
        var = None if self.noise_var is None else self.noise_var.to(device)
        return Observation.unchecked(self.y.to(device), None if self.A is None else self.A.to(device), var)

    def in_precision(self, dtype: torch.dtype) -> "Observation":
        """The same observation in another data type, real or complex as `y` is; itself where it has that."""
        if self.y.dtype == dtype:
            return self
        var = None if self.noise_var is None else self.noise_var.to(dtype.to_real())
        return Observation.unchecked(self.y.to(dtype), None if self.A is None else self.A.in_precision(dtype), var)

    def working_dtype(self) -> torch.dtype:
        """The data type to compute in: single precision for half, double where single does not hold fourth powers.

        A batch of silence alone, and anything while a graph is traced, is comfortable in its own.
        """
        dtype, A = at_least_single(self.y.dtype), self.A
        if torch.compiler.is_compiling() or dtype == double(dtype):
            return dtype
        extreme = _extreme(self.y) or (A is not None and A.once("extreme", lambda: _extreme(A.probed())))
        return double(dtype) if extreme else dtype

    def check_size(self) -> None:
        """Refuse measurements, or an operator, in double precision whose fourth powers that does not hold.

        Measurements that are next to nothing are taken as silence.

        Raises:
            ValueError: If there are such.
        """
        A = self.A
        if torch.compiler.is_compiling() or self.y.dtype != double(self.y.dtype):
            return
        if bool((self.y.detach().abs() > MOST).any()) or (
            A is not None and A.once("beyond", lambda: _extreme(A.probed(), MOST))
        ):
            raise ValueError(
                f"y has entries beyond {MOST:.0e}, or A such or none beyond {1 / MOST:.0e}, whose fourth powers "
                f"{self.y.dtype} cannot hold; pass y and A in other units."
            )

    def __getitem__(self, rows: slice | Tensor) -> "Observation":
        """The observation of some samples of a batch."""
        var = self.noise_var
        if var is not None and var.ndim:
            var = var.expand(*self.y.shape[:-1], 1)[rows]
        return Observation.unchecked(self.y[rows], None if self.A is None else self.A.of_samples(rows), var)


@dataclass(frozen=True)
class Estimate:
    """An estimate `x` of shape `(..., n)` and, where the estimator gives one, its error variance `E|x_hat - x|²`.

    Example:
        >>> import fanfold as ff, torch
        >>> ff.Estimate(torch.zeros(3), var=torch.ones(3)).var.sum().item()
        3.0
    """

    x: Tensor
    var: Tensor | None = None

    def to(self, device: torch.device | str) -> "Estimate":
        """The same estimate on another device."""
        return Estimate(self.x.to(device), None if self.var is None else self.var.to(device))

    def in_precision(self, dtype: torch.dtype) -> "Estimate":
        """The same estimate in another precision, that of a data type; itself where it has that.

        Raises:
            ValueError: If numbers do not fit into it.
        """
        if not self.x.is_complex():
            dtype = dtype.to_real()  # places are real where y is not
        if self.x.dtype == dtype:
            return self
        x, var = self.x.to(dtype), None if self.var is None else self.var.to(dtype.to_real())
        if not torch.compiler.is_compiling():
            _refuse_overflow("the estimate", self.x, x)
            if self.var is not None and var is not None:
                _refuse_overflow("its error variance", self.var, var)
        return Estimate(x, var)


Estimator = Callable[[Observation], Estimate]  # a function, a classical algorithm, a network: all alike


def _refuse_overflow(what: str, wide: Tensor, narrow: Tensor) -> None:
    if (narrow.isinf() & ~wide.isinf()).any():
        raise ValueError(
            f"{what} reaches {wide.abs().max().item():.0e}, which {narrow.dtype} cannot hold; pass y and A in double "
            "precision, or in other units."
        )


def _extreme(rows: Tensor, comfort: float = COMFORT) -> bool:
    """Whether the largest entry of a row is beyond what a precision is comfortable with, or short of its inverse."""
    largest = rows.detach().abs().amax(-1)
    return bool(((largest > comfort) | ((largest < 1 / comfort) & (largest > 0))).any())


def check_finite(name: str, values: Tensor) -> None:
    """Refuse NaN and Inf, naming the first bad entry.

    Raises:
        ValueError: If an entry is not finite.
    """
    finite = torch.isfinite(values)
    if not finite.all():
        first = tuple((~finite).nonzero()[0].tolist())
        raise ValueError(
            f"{name} is not finite: {values[first].item()} at index {first}, {int((~finite).sum())} such entries; "
            "remove or repair these samples."
        )
