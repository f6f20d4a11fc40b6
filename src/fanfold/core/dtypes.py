"""Dtypes by the names that settings and files give them, such as "float32" and "complex128"."""

import torch

from fanfold.core.suggest import did_you_mean

_BY_NAME = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.complex32, torch.complex64, torch.complex128
    )
}  # fmt: skip


def dtype_of(name: str) -> torch.dtype:
    """The dtype of a name: `dtype_of("float32")` is `torch.float32`.

    Raises:
        ValueError: If no floating or complex dtype has this name.
    """
    if name not in _BY_NAME:
        known = ("float32", "float64", "complex64", "complex128")
        raise ValueError(f"unknown dtype {name!r}; take {', '.join(known)}.{did_you_mean(name, known)}")
    return _BY_NAME[name]


def name_of(dtype: torch.dtype) -> str:
    """The name of a dtype, without `torch.`: what `dtype_of` reads."""
    return str(dtype).removeprefix("torch.")
