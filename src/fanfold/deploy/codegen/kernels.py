"""The data of a generated program: memory, views of it, and calls of C functions that are shared where they agree.

Two calls with the same text share a function, so that sixteen layers of one
form are sixteen calls of the same few functions.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

C_TYPES = {torch.float32: "float", torch.float64: "double", torch.int64: "int64_t", torch.bool: "unsigned char"}
FIELDS = {torch.float32: "f", torch.float64: "d", torch.int64: "i", torch.bool: "b"}  # of the workspace
ALIGNED = 16  # entries: every buffer starts at a multiple, 64 bytes where they are float


@dataclass(eq=False)
class Memory:
    """A stretch of memory of one type: an input, an output, a constant, or a part of the workspace."""

    kind: str  # input, output, const or work
    dtype: torch.dtype
    size: int  # entries
    name: str = ""  # of a port or a constant
    values: Tensor | None = None  # of a constant
    offset: int = 0  # in the workspace, once it is laid out

    @property
    def c_type(self) -> str:
        """Its type in C."""
        return C_TYPES[self.dtype]


@dataclass(eq=False)
class Strided:
    """Some entries of a memory in an order of their own, as strides say."""

    memory: Memory
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """The type of its entries."""
        return self.memory.dtype

    def reshaped(self, shape: Sequence[int], strides: Sequence[int], offset: int | None = None) -> "Strided":
        """Other strides over the same memory."""
        return Strided(self.memory, tuple(shape), tuple(strides), self.offset if offset is None else offset)


def dense_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of memory without gaps, row after row."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= size
    return tuple(strides[::-1])


def is_dense(view: Strided) -> bool:
    """Whether entries follow each other without gaps."""
    wanted = dense_strides(view.shape)
    return all(n == 1 or s == w for n, s, w in zip(view.shape, view.strides, wanted))


def broadcast_strides(view: Strided, ndim: int) -> tuple[int, ...]:
    """The strides of a view in a tensor of so many axes that it is broadcast to."""
    return (0,) * (ndim - len(view.shape)) + tuple(0 if n == 1 else s for n, s in zip(view.shape, view.strides))


class Number(NamedTuple):
    """A number that is an argument of a call, not a part of its text, so that layers share their functions."""

    value: float | int | bool
    dtype: torch.dtype


class Call(NamedTuple):
    """A call of a function: what it reads and writes, numbers, and the multiply-accumulates it takes."""

    function: int
    arguments: tuple[tuple[Memory, int] | Number, ...]
    products: int = 0

    @property
    def memories(self) -> list[Memory]:
        """Every memory that it touches."""
        return [argument[0] for argument in self.arguments if not isinstance(argument, Number)]


class Attached(NamedTuple):
    """C that was written elsewhere and that functions call: a program of whole numbers.

    Attributes:
        helpers: Texts that several of them may share.
        text: Its constants and functions, all static, which begin with its name.
        body: That of a function that calls it.
        constant_bytes: The bytes of its constants.
        products: Multiply-accumulates of a call.

    Example:
        >>> from fanfold.deploy.codegen.kernels import Attached
        >>> Attached((), "static float two(void) { return 2; }", "    w0[0] = two();", 0, 0).products
        0
    """

    helpers: tuple[str, ...]
    text: str
    body: str
    constant_bytes: int
    products: int


@dataclass
class CallList:
    """Calls in their order, the functions they share, the constants they read and what else is attached, by name."""

    functions: dict[tuple[str, str], int] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)
    constants: dict[str, Memory] = field(default_factory=dict)
    attached: dict[str, Attached] = field(default_factory=dict)

    def constant(self, values: Tensor) -> Memory:
        """The memory of a contiguous tensor; equal tensors share theirs."""
        values = values.detach().contiguous().reshape(-1)
        key = hashlib.sha256(str(values.dtype).encode() + values.numpy().tobytes()).hexdigest()
        if key not in self.constants:
            name = f"c{len(self.constants)}"
            self.constants[key] = Memory("const", values.dtype, values.numel(), name, values)
        return self.constants[key]

    def add(
        self,
        body: str,
        reads: Sequence[Strided | tuple[Memory, int]],
        writes: Sequence[Strided | tuple[Memory, int]],
        numbers: Sequence[Number] = (),
        products: int = 0,
    ) -> None:
        """Add a call of a function with this body, which names what it reads r0, r1 and so on, writes w0, numbers n0.

        Nothing that is written is read under another name: pointers are restricted.
        """
        arguments: list[tuple[Memory, int] | Number] = []
        signature = []
        for letter, views, const in (("r", reads, "const "), ("w", writes, "")):
            for i, view in enumerate(views):
                memory, offset = (view.memory, view.offset) if isinstance(view, Strided) else view
                arguments.append((memory, offset))
                signature.append(f"{const}{memory.c_type} *restrict {letter}{i}")
        for i, number in enumerate(numbers):
            arguments.append(number)
            signature.append(f"const {C_TYPES[number.dtype]} n{i}")
        key = (", ".join(signature), body)
        function = self.functions.setdefault(key, len(self.functions))
        self.calls.append(Call(function, tuple(arguments), products))


def lay_out(calls: Sequence[Call]) -> dict[torch.dtype, int]:
    """Give every part of the workspace its place, reusing what no later call needs; the entries needed of each type."""
    last = {memory: i for i, call in enumerate(calls) for memory in call.memories if memory.kind == "work"}
    free: dict[torch.dtype, list[tuple[int, int]]] = {}
    total = dict.fromkeys(C_TYPES, 0)
    placed: set[Memory] = set()
    for i, call in enumerate(calls):
        for memory in call.memories:
            if memory.kind == "work" and memory not in placed:
                memory.offset = _take(free.setdefault(memory.dtype, []), _rounded(memory.size), total, memory.dtype)
                placed.add(memory)
        for memory in dict.fromkeys(call.memories):
            if memory.kind == "work" and last[memory] == i:
                _give(free[memory.dtype], memory.offset, _rounded(memory.size))
    return total


def _rounded(size: int) -> int:
    return -(-size // ALIGNED) * ALIGNED


def _take(gaps: list[tuple[int, int]], size: int, total: dict[torch.dtype, int], dtype: torch.dtype) -> int:
    """The start of the smallest gap that is large enough, or of new memory at the end."""
    fitting = [gap for gap in gaps if gap[1] >= size]
    if not fitting:
        start = total[dtype]
        if gaps and gaps[-1][0] + gaps[-1][1] == start:  # the last gap grows
            start = gaps.pop()[0]
        total[dtype] = start + size
        return start
    start, length = min(fitting, key=lambda gap: gap[1])
    gaps.remove((start, length))
    if length > size:
        _give(gaps, start + size, length - size)
    return start


def _give(gaps: list[tuple[int, int]], start: int, size: int) -> None:
    """Add a gap, joined with its neighbours; gaps are kept in order."""
    gaps.append((start, size))
    gaps.sort()
    joined: list[tuple[int, int]] = []
    for at, length in gaps:
        if joined and joined[-1][0] + joined[-1][1] == at:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((at, length))
    gaps[:] = joined
