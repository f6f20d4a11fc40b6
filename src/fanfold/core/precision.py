"""Data types by name, as settings and files write them."""

from typing import Literal

import torch

DType = Literal["float32", "float64", "complex64", "complex128"]
DTYPES: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "float64": torch.float64,
    "complex64": torch.complex64,
    "complex128": torch.complex128,
}


def dtype_named(name: str) -> torch.dtype:
    """The torch data type of that name.

    Raises:
        ValueError: If the name is none of these.
    """
    if name not in DTYPES:
        raise ValueError(f"dtype is {name!r}; pass {', '.join(DTYPES)}.")
    return DTYPES[name]


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """The data type itself, or the one of single precision for half of it, in which there is no linear algebra."""
    return torch.promote_types(dtype, torch.float32)


def single(dtype: torch.dtype) -> torch.dtype:
    """The data type of single precision, real or complex as the given one."""
    return torch.complex64 if dtype.is_complex else torch.float32


def double(dtype: torch.dtype) -> torch.dtype:
    """The data type of double precision, real or complex as the given one."""
    return torch.promote_types(dtype, torch.float64)
