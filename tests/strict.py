"""Strict dtype promotion, which torch lacks: an operation on tensors of different precision is an error."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

EXPLICIT = ("aten._to_copy", "aten.copy_", "aten.where", "aten._assert")  # conversions, said aloud


class StrictPromotion(TorchDispatchMode):
    """Refuses silent promotion between single and double precision; numbers and 0-dim tensors included."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        tensors = [t for t in tree_leaves((args, kwargs or {})) if isinstance(t, torch.Tensor)]
        inexact = {t.dtype.to_real() for t in tensors if t.is_floating_point() or t.is_complex()}
        if len(inexact) > 1 and not str(func).startswith(EXPLICIT):
            raise RuntimeError(f"{func} mixes {inexact}: convert explicitly")
        return func(*args, **(kwargs or {}))
