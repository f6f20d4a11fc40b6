"""Operators of the user's own as tensors in a run directory, with the hash by which networks know them."""

from collections.abc import Callable, Mapping
from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor

from fanfold.linops import Batched, Dense, Kronecker, LinearOperator
from fanfold.runs.weights import read_tensors, write_tensors

FILE = "operator.safetensors"


@singledispatch
def parts_of(A: LinearOperator) -> tuple[str, dict[str, Tensor]]:
    """How an operator is stored and its tensors; the dense matrix where no structure is registered here."""
    return "matrix", {"matrix": A.matrix()}


@parts_of.register
def _(A: Kronecker) -> tuple[str, dict[str, Tensor]]:
    return "kronecker", {f"factor {k}": factor for k, factor in enumerate(A.factors)}


@parts_of.register
def _(A: Batched) -> tuple[str, dict[str, Tensor]]:
    return "batched", {"matrices": A.matrix()}


MAKE: Mapping[str, Callable[..., LinearOperator]] = {"matrix": Dense, "kronecker": Kronecker, "batched": Batched}


def write_operator(folder: Path, A: LinearOperator) -> None:
    """Keep an operator in a run directory."""
    how, tensors = parts_of(A)
    facts = {"stored as": how, "complex": A.dtype.is_complex, "operator": A.fingerprint()}
    write_tensors(folder / FILE, tensors, facts)


def read_operator(folder: Path) -> LinearOperator:
    """The operator that `write_operator` kept, known by the same hash.

    Raises:
        ValueError: If the file is missing, damaged, or stored in a way that is not known here.
    """
    tensors, facts = read_tensors(folder / FILE, "The run keeps no operator: hand in its problem.")
    if facts["stored as"] not in MAKE:
        raise ValueError(f"{folder / FILE} is stored as {facts['stored as']!r}; a newer fanfold wrote it.")
    if facts["complex"]:
        tensors = {name: torch.view_as_complex(t) for name, t in tensors.items()}
    A = MAKE[facts["stored as"]](*(tensors[name] for name in sorted(tensors)))
    A.once("fingerprint", lambda: facts["operator"])
    return A
