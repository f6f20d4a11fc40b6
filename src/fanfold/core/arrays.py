"""Arrays that a user hands over, as tensors: numpy's and torch's are taken, anything else is named with its remedy."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from fanfold.core.abilities import offers


@runtime_checkable
class Frame(Protocol):
    """A table of another library, such as a pandas DataFrame."""

    to_numpy: Callable[..., Any]


@runtime_checkable
class SparseArray(Protocol):
    """A sparse array of another library, such as scipy's."""

    toarray: Callable[..., Any]


def tensor_of(values: Any, name: str) -> Tensor:
    """A numpy array or a torch tensor as a dense tensor of its own dtype, which shares memory where it can.

    Args:
        values: What arrived.
        name: What errors call it.

    Raises:
        ValueError: If it is something else (a list, a table, a sparse array, a masked array), or holds no numbers.

    Example:
        >>> import numpy as np
        >>> from fanfold.core.arrays import tensor_of
        >>> tensor_of(np.ones((2, 3), ">f4"), "y").dtype
        torch.float32
    """
    if isinstance(values, Tensor):
        if values.layout is not torch.strided:
            raise ValueError(f"{name} is a sparse tensor; pass a dense one, {name}.to_dense().")
        return values
    kind = type(values).__name__
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{name} is a {kind}, whose mask would be lost; repair the masked entries, {name}.filled(0).")
    if isinstance(values, np.ndarray | np.generic):
        return _from_numpy(np.asarray(values), name)
    if offers(values, SparseArray):
        raise ValueError(f"{name} is a sparse {kind}; pass a dense array, {name}.toarray().")
    if offers(values, Frame):
        raise ValueError(f"{name} is a {kind}; pass its numbers, {name}.to_numpy().")
    instead = f", np.asarray({name})" if isinstance(values, list | tuple) else ""
    raise ValueError(f"{name} is a {kind}; pass a numpy array or a torch tensor{instead}.")


def _from_numpy(array: np.ndarray, name: str) -> Tensor:
    if array.dtype.kind not in "fcbiu" or array.dtype.itemsize > (16 if array.dtype.kind == "c" else 8):
        raise ValueError(f"{name} holds {array.dtype}; pass numbers of at most double precision.")
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    plain = native.flags.writeable and all(stride >= 0 for stride in native.strides)  # what torch can share
    return torch.from_numpy(native if plain else native.copy())
