"""The bytes of tensors that are alive at once, on any device: what a training step asks of a machine."""

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class PeakMemory(TorchDispatchMode):
    """A block `with PeakMemory() as memory: ...` that counts the storages that operations make and that live at once.

    It counts exactly what tensors hold, the backward pass included; neither what was there before nor what an operation
    needs inside itself. Operations take longer meanwhile.

    Attributes:
        peak: The most bytes alive at once.
        now: The bytes alive now.

    Example:
        >>> import fanfold as ff, torch
        >>> with ff.deploy.PeakMemory() as memory:
        ...     total = torch.ones(1000).sum()
        >>> memory.peak
        4004
    """

    def __init__(self):
        super().__init__()
        self.peak = self.now = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for t in tree_leaves(result):
            if isinstance(t, Tensor):
                self._meet(t.untyped_storage(), before)
        return result

    def _meet(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        if id(storage) in before or storage in self._known:  # a view, or written in place
            return
        self._known.add(storage)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._part, storage.nbytes())

    def _part(self, size: int) -> None:
        self.now -= size
