"""Arrays of pairs: those that fit each other, and those that were handed over in Python."""

import hashlib
import warnings
from collections.abc import Mapping
from functools import cached_property
from typing import Any, NamedTuple

import scipy.sparse
import torch
from torch import Tensor

from fanfold.core.arrays import tensor_of
from fanfold.core.units import power
from fanfold.linops import Dense, LinearOperator, from_scipy
from fanfold.observation import Observation, check_finite
from fanfold.problems.kinds import AXES, Kind
from fanfold.problems.unknowns import Unknowns

UNEXPLAINED = 1.2  # share of ‖y‖² beyond which A x has nothing to do with y, by more than chance


ARRAYS = ("x", "y", "A", "noise_var")  # of a file of pairs


class PairArrays(NamedTuple):
    """Pairs that are stored."""

    x: Tensor  # (samples, n)
    y: Tensor  # (samples, m), or of the kind's shape
    A: LinearOperator | None
    noise_var: Tensor | None  # () or (samples, 1)
    unknowns: Unknowns = Unknowns()


class HandedOver:
    """Arrays that were handed over in Python: not copied, so do not change them; two of the same object are equal."""

    def __init__(self, pairs: PairArrays, kind: Kind):
        self.pairs, self.kind = pairs, kind

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all arrays, their shapes and dtypes, and of the limits of x."""
        digest = hashlib.sha256()
        for array in (self.pairs.x, self.pairs.y, self.pairs.noise_var):
            if array is not None:
                digest.update(f"{array.dtype} {tuple(array.shape)}".encode())
                digest.update(array.resolve_conj().contiguous().numpy().data)
        digest.update((self.pairs.A.fingerprint() if self.pairs.A is not None else "").encode())
        if self.pairs.unknowns.limits:  # names and units change nothing that is learned
            digest.update(repr(self.pairs.unknowns.limits).encode())
        return digest.hexdigest()


def tensors_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays that were handed over, as tensors of the CPU; A as an operator.

    Raises:
        ValueError: If x or y is missing, or one is no array.
    """
    missing = [name for name in ("x", "y") if given[name] is None]
    if missing:
        raise ValueError(f"Pairs has no {' and no '.join(missing)}; pass both, x=... and y=...")
    arrays: dict[str, Any] = {name: tensor_of(given[name], name).detach().cpu() for name in ("x", "y")}
    if (A := given["A"]) is not None:
        if scipy.sparse.issparse(A):
            A = from_scipy(A)
        arrays["A"] = A if isinstance(A, LinearOperator) else tensor_of(A, "A").detach().cpu()
    if (var := given["noise_var"]) is not None:
        arrays["noise_var"] = torch.as_tensor(var) if isinstance(var, int | float) else tensor_of(var, "noise_var")
    return arrays


def checked_pairs(arrays: Mapping[str, Any], kind: Kind, where: str = "Pairs") -> PairArrays:
    """Pairs that fit each other.

    Args:
        arrays: Tensors x and y, and where they are known A, a tensor or an operator, and noise_var.
        kind: What one observation is.
        where: What the pairs are called in a warning.

    Raises:
        ValueError: Says what does not fit.
    """
    x, y = arrays["x"], arrays["y"]
    check_shapes(x, y, kind)
    precisions = (x.dtype, y.dtype) if "A" in arrays else (x.real.dtype, y.real.dtype)  # real x may give complex y
    if precisions[0] != precisions[1]:
        raise ValueError(f"x is {x.dtype} and y is {y.dtype}; store both in one precision.")
    check_finite("x", x)
    check_finite("y", y)
    A = arrays.get("A")
    if isinstance(A, Tensor):
        A = Dense(A)
    if A is not None and A.n != x.shape[-1]:
        raise ValueError(f"A maps {A.n} -> {A.m} but x has {x.shape[-1]} entries; store A of shape (m, n). Transposed?")
    noise_var = arrays.get("noise_var")
    if noise_var is not None and noise_var.numel() == 1:
        noise_var = noise_var.reshape(())
    Observation(y, A, noise_var)  # the same checks as for any observation
    notice_unrelated(x, y, A, where)
    return PairArrays(x, y, A, noise_var)


def check_shapes(x: Tensor, y: Tensor, kind: Kind) -> None:
    """Refuse pairs whose x or y is no batch of what the kind says.

    Raises:
        ValueError: Says both shapes and what is wanted.
    """
    if x.ndim == 2 and y.ndim == 1 + AXES[kind] and len(x) == len(y):
        return
    wanted = {
        "vector": "(samples, m)",
        "sequence": "(samples, channels, length)",
        "image": "(samples, channels, h, w)",
        "set": "(samples, count, features)",
    }
    fits = [name for name in AXES if y.ndim == 1 + AXES[name]]
    hint = f" Or say what y is: kind={' or '.join(map(repr, fits))}." if fits and kind not in fits else ""
    raise ValueError(f"x is {tuple(x.shape)} and y is {tuple(y.shape)}; pass (samples, n) and {wanted[kind]}.{hint}")


def notice_unrelated(x: Tensor, y: Tensor, A: LinearOperator | None, where: str) -> None:
    """Warn where an operator does not explain what was measured: with `y = A x + w`, `E‖y - Ax‖²` is below `E‖y‖²`.

    An operator that has nothing to do with the pairs leaves twice as much. The first thousand pairs are looked at.

    Args:
        x: Signals `(samples, n)`.
        y: Measurements `(samples, m)`.
        A: The operator that they are said to be measured with.
        where: What the pairs are called in the warning.
    """
    x, y = x[:1000], y[:1000]
    if A is None or not y.any():
        return
    scale = y.abs().max().clamp_min(torch.finfo(y.real.dtype).tiny)  # squares neither overflow nor vanish
    share = (power((y - A @ x.to(A.dtype)) / scale).sum() / power(y / scale).sum()).item()
    if share > UNEXPLAINED:
        warnings.warn(
            f"{where}: ‖y - Ax‖² is {100 * share:.0f} % of ‖y‖², and below 100 % wherever y = A x + noise: is this the "
            "right A, in the units of x and y?",
            stacklevel=2,
        )
