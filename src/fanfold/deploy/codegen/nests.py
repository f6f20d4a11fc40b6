"""Loop nests that grow: operations entry by entry over one shape go into one loop until somebody needs its results.

A nest is open while calls are added before it; what it reads is in memory already. Whoever reads a value of an open
nest in another way than entry by entry closes it, and it is written where it then stands.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

from fanfold.deploy.codegen.kernels import C_TYPES, CallList, Memory, Number, Strided, broadcast_strides, dense_strides


@dataclass(eq=False)
class Pending:
    """A value that is so far a name in an open nest."""

    nest: "Nest"
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    uses: list[int]  # how many users are left, shared by all shapes of the value
    views: list[Strided] = field(default_factory=list)  # its place in memory, once it is written

    def of_shape(self, shape: Sequence[int]) -> "Pending":
        """The same value with other dimensions of one entry."""
        return Pending(self.nest, self.name, tuple(shape), self.dtype, self.uses, self.views)


def lean(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without dimensions of one entry."""
    return tuple(size for size in shape if size != 1)


def aligned_strides(view: Strided, shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of a view that is broadcast to a shape, for the lean shape."""
    return tuple(stride for stride, size in zip(broadcast_strides(view, len(shape)), shape) if size != 1)


@dataclass(frozen=True)
class _Access:
    """Where a name is read from or written to: a pointer with strides over the dimensions of the nest."""

    pointer: str
    strides: tuple[int, ...]
    name: str


class Nest:
    """A loop nest over one lean shape.

    Args:
        shape: The lean shape.
        calls: Where the nest goes when it closes.
    """

    def __init__(self, shape: tuple[int, ...], calls: CallList):
        self.shape, self._calls, self.open = shape, calls, True
        self._reads: list[tuple[Memory, int]] = []
        self._numbers: list[Number] = []
        self._loads: dict[tuple[Memory, int, tuple[int, ...]], _Access] = {}
        self._lines: list[str] = []
        self._pending: list[Pending] = []
        self._constant_names: dict[Number, str] = {}

    def load(self, view: Strided, shape: Sequence[int]) -> str:
        """The name of an entry of a view that is broadcast to the nest's shape."""
        strides = aligned_strides(view, shape)
        key = (view.memory, view.offset, strides)
        if key not in self._loads:
            read = (view.memory, view.offset)
            if read not in self._reads:
                self._reads.append(read)
            self._loads[key] = _Access(f"r{self._reads.index(read)}", strides, f"x{len(self._loads)}")
        return self._loads[key].name

    def number(self, value: Number) -> str:
        """The name of a number that is an argument of the call."""
        if value not in self._constant_names:
            self._constant_names[value] = f"n{len(self._numbers)}"
            self._numbers.append(value)
        return self._constant_names[value]

    def let(self, text: str, dtype: torch.dtype, shape: Sequence[int], users: int) -> Pending:
        """Name what an expression gives."""
        name = f"v{len(self._lines)}"
        kind = "int" if dtype == torch.bool else C_TYPES[dtype]
        self._lines.append(f"const {kind} {name} = {text};")
        pending = Pending(self, name, tuple(shape), dtype, [users])
        self._pending.append(pending)
        return pending

    def close(self) -> None:
        """Write the nest, with a store for each value that somebody still needs."""
        if not self.open:
            return
        self.open = False
        kept = [pending for pending in self._pending if pending.uses[0] > 0]
        if not kept:
            return
        order = self._order()
        sizes = [self.shape[d] for d in order]
        dense = dense_strides(sizes)
        out_strides = [0] * len(self.shape)
        for d, stride in zip(order, dense):
            out_strides[d] = stride
        size = math.prod(self.shape)
        stores, writes = [], []
        for i, pending in enumerate(kept):
            memory = Memory("work", pending.dtype, size)
            writes.append((memory, 0))
            stores.append(_Access(f"w{i}", tuple(out_strides), pending.name))
            lean_view = iter(out_strides)
            strides = tuple(0 if n == 1 else next(lean_view) for n in pending.shape)
            pending.views.append(Strided(memory, pending.shape, strides))
        self._calls.add(self._text(order, stores), self._reads, writes, self._numbers)

    def _order(self) -> list[int]:
        """The dimensions from the outermost loop to the innermost, by the strides of most of what is read."""
        votes: dict[tuple[int, ...], int] = {}
        for access in self._loads.values():
            if access.strides and all(access.strides):
                order = tuple(sorted(range(len(self.shape)), key=lambda d, s=access.strides: (-s[d], d)))
                votes[order] = votes.get(order, 0) + 1
        return list(max(votes, key=lambda order: votes[order])) if votes else list(range(len(self.shape)))

    def _text(self, order: list[int], stores: list[_Access]) -> str:
        accesses = [*self._loads.values(), *stores]
        groups = merged([(self.shape[d], tuple(a.strides[d] for a in accesses)) for d in order])
        kinds = [C_TYPES[memory.dtype] for memory, _ in self._reads]
        before, within, after = [], [], []
        for k, access in enumerate(accesses):
            steps = [strides[k] for _, strides in groups]
            entry = f"{access.pointer}[{place(steps)}]"
            if k >= len(self._loads):
                after.append(f"{entry} = {access.name};")
                continue
            kind = kinds[int(access.pointer[1:])]
            line = f"const {'int' if kind == 'unsigned char' else kind} {access.name} = {entry};"
            (within if any(steps) else before).append(line)
        return loops([size for size, _ in groups], [*within, *self._lines, *after], before)


def loops(sizes: Sequence[int], lines: Sequence[str], before: Sequence[str] = ()) -> str:
    """Nested loops over i0, i1, … around some lines, as text."""
    out, indent = [f"    {line}" for line in before], "    "
    for g, size in enumerate(sizes):
        out.append(f"{indent}for (int i{g} = 0; i{g} < {size}; i{g}++) {{")
        indent += "    "
    out += [f"{indent}{line}" for line in lines]
    for _ in sizes:
        indent = indent[:-4]
        out.append(f"{indent}}}")
    return "\n".join(out)


def place(strides: Iterable[int]) -> str:
    """The index of an entry in loops over i0, i1 and so on."""
    terms = [f"i{g}" if stride == 1 else f"i{g} * {stride}" for g, stride in enumerate(strides) if stride]
    return " + ".join(terms) or "0"


def merged(dims: list[tuple[int, tuple[int, ...]]]) -> list[tuple[int, tuple[int, ...]]]:
    """Loops from the outermost in, neighbours joined where all strides go on as in one."""
    merged: list[tuple[int, tuple[int, ...]]] = []
    for size, strides in dims:
        if merged and all(outer == inner * size for outer, inner in zip(merged[-1][1], strides)):
            merged[-1] = (merged[-1][0] * size, strides)
        else:
            merged.append((size, strides))
    return merged
