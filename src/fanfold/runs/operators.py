"""Operators as tensors in a run directory: the structured ones as they are made, others as their dense matrix."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fanfold.core.precision import dtype_named
from fanfold.linops import (
    DCT,
    Batched,
    Born,
    Compose,
    Dense,
    Diagonal,
    Kronecker,
    LinearOperator,
    Mask,
    Sparse,
    Wavelet,
)
from fanfold.runs.weights import read_tensors, write_tensors

FILE = "operator.safetensors"
MOST_ENTRIES = 2**28  # of a dense matrix that is formed to be kept: a gigabyte
LONGEST_BASIS = 2**14  # along an axis: its matrices are made when it is read


class Made(NamedTuple):
    """What an operator is made of again."""

    parts: list[Any]
    m: int
    n: int
    dtype: torch.dtype


MAKE: Mapping[str, Callable[[Made], LinearOperator]] = {
    "Adjoint": lambda made: made.parts[0].H,
    "Batched": lambda made: Batched(made.parts[0]),
    "Born": lambda made: Born(*made.parts, dtype=made.dtype),
    "Compose": lambda made: Compose(*made.parts),
    "DCT": lambda made: DCT(_extent(made.parts[0]), made.dtype),
    "Dense": lambda made: Dense(made.parts[0]),
    "Diagonal": lambda made: Diagonal(made.parts[0]),
    "Kronecker": lambda made: Kronecker(*made.parts),
    "Mask": lambda made: Mask(made.parts[0], made.n, made.dtype),
    "Sparse": lambda made: Sparse(_coordinates(made.parts[0], made.parts[1], (made.m, made.n))),
    "Wavelet": lambda made: Wavelet(_extent(made.parts[0]), *made.parts[1:], dtype=made.dtype),
}


def write_operator(folder: Path, A: LinearOperator) -> None:
    """Keep an operator in a run directory, unless it is of a class of the user's own and too large to be formed."""
    if not _is_known(A) and A.m * A.n > MOST_ENTRIES:
        return
    tensors: list[Tensor] = []
    described = _described(A, tensors)
    facts = {"stored": described, "operator": A.fingerprint()}
    write_tensors(folder / FILE, {str(number): t for number, t in enumerate(tensors)}, facts)


def read_operator(folder: Path) -> LinearOperator:
    """The operator that `write_operator` kept, known by the same hash.

    Raises:
        ValueError: If the file is missing, damaged, or stored in a way that is not known here.
    """
    file = folder / FILE
    tensors, facts = read_tensors(file, "The run keeps no operator: hand in its problem, ff.load(path, problem=...).")
    try:
        A = _made(facts["stored"], tensors)
        fingerprint = str(facts["operator"])
    except (KeyError, TypeError, IndexError, AttributeError, ValueError, RuntimeError, RecursionError) as error:
        raise ValueError(f"{file} holds no operator that this fanfold reads: {error}") from error
    A.once("fingerprint", lambda: fingerprint)  # of a matrix that was another operator once
    return A


def _is_known(A: LinearOperator) -> bool:
    name = type(A).__name__
    return name in MAKE and type(A).__module__.startswith("fanfold.linops.")


def _described(A: LinearOperator, tensors: list[Tensor]) -> dict[str, Any]:
    """An operator as plain data, whose tensors are added to a list."""
    name = type(A).__name__ if _is_known(A) else "Dense"
    parts: Sequence[Any] = A.parts() if _is_known(A) and not A.varies else (A.matrix(),)
    if A.varies:
        name = "Batched"
    described: list[dict[str, Any]] = []
    for part in parts:
        if isinstance(part, LinearOperator):
            described.append({"operator": _described(part, tensors)})
        elif isinstance(part, Tensor):
            described.append({"tensor": len(tensors)})
            tensors.append(part)
        else:
            described.append({"plain": part})
    return {"kind": name, "parts": described, "m": A.m, "n": A.n, "dtype": str(A.dtype).removeprefix("torch.")}


def _made(data: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LinearOperator:
    """The operator of a description.

    Raises:
        ValueError: If its kind is unknown here.
    """
    if data["kind"] not in MAKE:
        raise ValueError(f"an operator is stored as {data['kind']!r}; a newer fanfold wrote it")
    parts: list[Any] = []
    for part in data["parts"]:
        if "operator" in part:
            parts.append(_made(part["operator"], tensors))
        else:
            parts.append(tensors[str(part["tensor"])] if "tensor" in part else part["plain"])
    return MAKE[data["kind"]](Made(parts, int(data["m"]), int(data["n"]), dtype_named(data["dtype"])))


def _coordinates(indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    return torch.sparse_coo_tensor(indices, values, shape, check_invariants=True)  # or bad indices end the process


def _extent(sizes: Sequence[int]) -> tuple[int, ...]:
    if max(sizes) > LONGEST_BASIS:
        raise ValueError(f"a basis has axes of {list(sizes)} entries; at most {LONGEST_BASIS} are read")
    return tuple(sizes)
