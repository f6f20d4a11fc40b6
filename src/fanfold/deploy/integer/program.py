"""The integer program: named ports and a list of operations, in one file with what makes it whole and proved."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from fanfold.core.settings import Checked
from fanfold.core.table import Table
from fanfold.deploy.integer.c_text import BYTES, narrowest
from fanfold.deploy.integer.operations import (
    BITS,
    KINDS,
    Const,
    Join,
    MatMul,
    Moved,
    Operation,
    Transpose,
    Windows,
    content,
)
from fanfold.deploy.integer.ranges import Proof, proof_of

MOST_ENTRIES = 1 << 20  # of one value
MOST_ENTRIES_TOGETHER = 1 << 24  # of all values: what a file may ask for
NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
MOST_AXES = 8  # of a transposition


@dataclass(frozen=True)
class IntegerPort(Checked):
    """What goes in or comes out: whole numbers that stand for real ones, `number = integer * 2^-fraction`.

    An integer of b bits is Qm.n with n = fraction and m = b - 1 - n.

    Args:
        name: Its name, in small letters, digits and underscores.
        shape: Its shape, without the batch.
        dtype: The type of its entries.
        fraction: How many bits stand behind the binary point; below 0 the last digit counts for more than one.
        layout: "real", or "iq" for complex numbers as pairs on the last axis, the real part first.
        unit: The unit of the number, in words.

    Raises:
        ValueError: If the name is no identifier of C, the shape is empty or not positive, a fraction is beyond 64 bits,
            or pairs have another last axis than 2.

    Example:
        >>> from fanfold.deploy.integer import IntegerPort
        >>> IntegerPort("y", (250,), "int16", fraction=12).q_format
        'Q3.12'
    """

    name: str
    shape: tuple[int, ...]
    dtype: Literal["int8", "int16", "int32"]
    fraction: int = 0
    layout: Literal["real", "iq"] = "real"
    unit: str = "1"

    def __post_init__(self):
        check_name(self.name)
        if not self.shape or min(self.shape) < 1 or math.prod(self.shape) > MOST_ENTRIES:
            raise ValueError(
                f"port {self.name} has shape {self.shape}; pass positive sizes, at most {MOST_ENTRIES} in all."
            )
        if abs(self.fraction) > 64:
            raise ValueError(f"port {self.name} has a fraction of {self.fraction} bits; pass -64 to 64.")
        if self.layout == "iq" and self.shape[-1] != 2:
            raise ValueError(f"port {self.name} holds pairs in shape {self.shape}; pass a last axis of 2.")
        if len(self.unit) > 80 or not self.unit.isprintable() or "*/" in self.unit or "\\" in self.unit:
            raise ValueError(f"port {self.name} has the unit {self.unit[:80]!r}; pass a few words on one line.")

    @property
    def size(self) -> int:
        """How many entries it has."""
        return math.prod(self.shape)

    @property
    def q_format(self) -> str:
        """Its format as Qm.n, m digits before the binary point and n behind it."""
        return f"Q{BITS[self.dtype] - 1 - self.fraction}.{self.fraction}"

    def integers(self, numbers: np.ndarray) -> np.ndarray:
        """The whole numbers of the port for real or complex ones, rounded half up; beyond its type it saturates.

        Args:
            numbers: Of shape `(batch, *shape)`, where pairs are complex numbers without the last axis.

        Raises:
            ValueError: If they are not finite, of another shape, or complex where the port is real.
        """
        if not np.isfinite(numbers).all():
            raise ValueError(f"{self.name} is not finite; remove or repair these samples.")
        if self.layout == "iq":
            numbers = np.stack([np.real(numbers), np.imag(numbers)], -1)
        if np.iscomplexobj(numbers) or numbers.shape[1:] != self.shape:
            what = "complex" if np.iscomplexobj(numbers) else "real"
            raise ValueError(
                f"{self.name} is {what} of shape {numbers.shape}; pass (batch, {', '.join(map(str, self.shape))}), "
                f"{self.layout}."
            )
        rounded = np.floor(np.ldexp(numbers.astype(np.float64), self.fraction) + 0.5)
        info = np.iinfo(self.dtype)
        return np.clip(rounded, info.min, info.max).astype(self.dtype)

    def numbers(self, integers: np.ndarray) -> np.ndarray:
        """The real or complex numbers, in double precision, that whole numbers of the port stand for."""
        values = np.ldexp(integers.astype(np.float64), -self.fraction)
        return values[..., 0] + 1j * values[..., 1] if self.layout == "iq" else values


@dataclass(frozen=True, eq=False)
class IntegerProgram:
    """A list of operations on whole numbers, from input ports to output ports.

    Each operation makes one value from ports and values before it. A program that exists is whole, and no value and no
    partial sum of it overflows, whatever comes in: this is proved when it is made, from its weights and the types of
    its ports. `play` says what it means.

    Args:
        name: Its name, in small letters, digits and underscores: the prefix of its functions in C.
        inputs: The ports that go in.
        operations: The operations, in order.
        outputs: The ports that come out, each named after the value that it shows, and of its type.

    Raises:
        ValueError: If an operation does not fit the values before it, no output depends on it, or its range cannot be
            proved: the error has the name of the operation, the bound and the limit.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Clamp, IntegerPort, IntegerProgram, MatMul, Rescale, play
        >>> program = IntegerProgram(
        ...     "filter",
        ...     (IntegerPort("y", (2,), "int8"),),
        ...     (
        ...         MatMul("sum", "y", np.array([[1, 2]], np.int8)),
        ...         Rescale("scaled", "sum", np.array([1]), "int32"),
        ...         Clamp("x_hat", "scaled", np.array([-127]), np.array([127]), "int8"),
        ...     ),
        ...     (IntegerPort("x_hat", (1,), "int8"),),
        ... )
        >>> play(program, {"y": np.array([[1, 1], [-1, -1], [127, 127]], np.int8)})["x_hat"].tolist()
        [[2], [-1], [127]]
    """

    name: str
    inputs: tuple[IntegerPort, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[IntegerPort, ...]

    def __post_init__(self):
        check_name(self.name)
        if not self.inputs or not self.outputs:
            raise ValueError(f"program {self.name} has {len(self.inputs)} inputs and {len(self.outputs)} outputs.")
        self._check_names()
        assert self.proof.rows or not self.operations  # it is proved here, or refused
        self._check_outputs()
        if idle := {op.name for op in self.operations} - reaching(self.operations, self.outputs):
            raise ValueError(f"{min(idle)} reaches no output; leave it out.")

    def _check_names(self) -> None:
        defined = set()
        for part in (*self.inputs, *self.operations):
            check_name(part.name)
            if part.name == "run":
                raise ValueError("a value is called run, as the function of the program in C is; take another name.")
            if part.name in defined:
                raise ValueError(f"{part.name} is there twice; each value needs a name of its own.")
            if isinstance(part, Operation):
                if type(part) not in KINDS.values():
                    raise ValueError(f"{part.name} is {type(part).__name__}; operations are {', '.join(KINDS)}.")
                if unknown := [name for name in part.inputs if name not in defined]:
                    raise ValueError(f"{part.name} takes {unknown[0]}, which no port or operation before it makes.")
            defined.add(part.name)

    def _check_outputs(self) -> None:
        made = {op.name for op in self.operations}
        names = [port.name for port in self.outputs]
        if len(set(names)) < len(names):
            raise ValueError(f"program {self.name} has an output twice among {', '.join(names)}.")
        for port in self.outputs:
            if port.name not in made:
                raise ValueError(f"output {port.name} is made by no operation.")
            if (self.sizes[port.name], self.dtypes[port.name]) != (port.size, port.dtype):
                raise ValueError(
                    f"output {port.name} is {port.dtype} of shape {port.shape}, and its value {self.dtypes[port.name]} "
                    f"with {self.sizes[port.name]} entries."
                )

    @cached_property
    def sizes(self) -> dict[str, int]:
        """How many entries each value has, by its name."""
        sizes = {port.name: port.size for port in self.inputs}
        for op in self.operations:
            sizes[op.name] = size_of(op, sizes)
            if sizes[op.name] > MOST_ENTRIES or sum(sizes.values()) > MOST_ENTRIES_TOGETHER:
                raise ValueError(f"{op.name} has {sizes[op.name]} entries, more than a program may hold.")
        return sizes

    @cached_property
    def dtypes(self) -> dict[str, str]:
        """The type of each value, by its name."""
        dtypes: dict[str, str] = {port.name: port.dtype for port in self.inputs}
        for op in self.operations:
            dtypes[op.name] = dtypes[op.source] if isinstance(op, Moved) else vars(op)["dtype"]
            if dtypes[op.name] not in BITS:
                raise ValueError(f"{op.name} is {dtypes[op.name]!r}; take one of {', '.join(BITS)}.")
        return dtypes

    @cached_property
    def proof(self) -> Proof:
        """The bounds of all values and partial sums, one row an operation."""
        return proof_of(self.inputs, self.operations, self.sizes, self.dtypes)

    @property
    def range_table(self) -> Table:
        """The proof as a table: for each operation its bound, its limit, and what can carry it exactly."""
        return Table([row._asdict() for row in self.proof.rows])

    @property
    def weight_bytes(self) -> int:
        """The bytes of its matrices, tables and numbers, those that are the same in several layers once.

        Matrices count in their types, tables and numbers in the narrowest one that holds them, as in C.
        """
        arrays = [values for op in self.operations for values in op.numbers.values()]
        once = {content(values): values for values in arrays}.values()
        return sum(v.size * (BYTES[narrowest(v)] if v.dtype == np.int64 else v.itemsize) for v in once)

    @property
    def multiply_accumulates(self) -> int:
        """The multiply-accumulates of its matrix products, for one sample."""
        products = [op for op in self.operations if isinstance(op, MatMul)]
        return sum(op.weights.size * op.outer * op.inner for op in products)


def reaching(operations: Sequence[Operation], outputs: Sequence[IntegerPort]) -> set[str]:
    """The names of the values that some output depends on."""
    needed = {port.name for port in outputs}
    for op in reversed(operations):
        if op.name in needed:
            needed |= set(op.inputs)
    return needed


def check_name(name: object) -> None:
    """Refuse what cannot be a name in C.

    Raises:
        ValueError: If it is none.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{str(name)[:80]!r} is no name; pass small letters, digits and underscores.")


def size_of(op: Operation, sizes: dict[str, int]) -> int:
    """How many entries the value of an operation has.

    Raises:
        ValueError: If its arrays do not fit what goes in.
    """
    if isinstance(op, Const):
        if not op.values.size:
            raise ValueError(f"{op.name} holds no numbers.")
        return op.values.size
    size = sizes[op.inputs[0]]
    if isinstance(op, MatMul):
        rows, columns = op.weights.shape
        if min(op.outer, op.inner, rows) < 1 or op.outer * columns * op.inner != size:
            raise ValueError(
                f"{op.name} sees {op.source}, {size} entries, as ({op.outer}, {columns}, {op.inner}); pass weights of "
                "shape (rows, columns) whose columns fit. Transposed?"
            )
        return op.outer * rows * op.inner
    if isinstance(op, Transpose):
        positive = all(n > 0 for n in op.shape) and len(op.shape) <= MOST_AXES
        if not positive or math.prod(op.shape) != size or sorted(op.axes) != list(range(len(op.shape))):
            raise ValueError(f"{op.name} sees {size} entries in shape {op.shape} with axes {op.axes}.")
        return size
    if isinstance(op, Windows):
        return _windows_size(op, size)
    if isinstance(op, Join):
        together = size + sizes[op.right]
        if op.outer < 1 or size % op.outer or together % op.outer:
            raise ValueError(f"{op.name} joins {size} and {sizes[op.right]} entries, each in {op.outer} rows.")
        return together
    return _entrywise_size(op, size, sizes)


def _windows_size(op: Windows, size: int) -> int:
    odd = len(op.kernel) == 2 and all(n > 0 and n % 2 for n in op.kernel)
    if not odd or len(op.shape) != 3 or min(op.shape) < 1 or math.prod(op.shape) != size:
        raise ValueError(
            f"{op.name} sees {size} entries in shape {op.shape} through windows of {op.kernel}; pass (rows, columns, "
            "channels), and odd sides of a window."
        )
    return op.shape[0] * op.shape[1] * op.window


def _entrywise_size(op: Operation, size: int, sizes: dict[str, int]) -> int:
    lengths = {name: sizes[name] for name in op.inputs[1:]}
    lengths |= {field: vars(op)[field].size for field in ("shift", "low", "high") if field in op.arrays}
    for name, length in lengths.items():
        if length not in (1, size):
            raise ValueError(f"{op.name}: {name} has {length} entries; pass 1 or {size}, as {op.inputs[0]} has.")
    return size
