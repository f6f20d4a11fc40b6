"""The operations of an integer program, in one file as each is a few lines that say what it computes.

They are a subset of TOSA's integer profile, on flat vectors of whole numbers. Each operation makes one value, a vector
of so many entries of one type: int8, int16, int32 or int48. Accumulators are int32 or int48. There is one rounding
rule, half up: `(x + (1 << (s - 1))) >> s`.

Source of the names: TOSA 1.0 specification, operators MATMUL, RESCALE, CLAMP, TABLE, ADD, SUB, MUL, TRANSPOSE, CONCAT,
CONST; WINDOWS is this project's. Unlike there scales are powers of two, and tables have an entry for every value, so
that nothing is interpolated.
"""

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np

BITS = {"int8": 8, "int16": 16, "int32": 32, "int48": 48}  # types of values, and how many bits each has


def lowest(dtype: str) -> int:
    """The least value of a type of values."""
    return -(1 << (BITS[dtype] - 1))


def highest(dtype: str) -> int:
    """The greatest value of a type of values."""
    return (1 << (BITS[dtype] - 1)) - 1


@dataclass(frozen=True, eq=False)
class Operation:
    """One operation and the value that it makes.

    Attributes:
        name: The name of the value, a C identifier.
        kind: What the operation is called in files and proofs.

    Raises:
        ValueError: If an array does not hold whole numbers, or has another number of axes than the operation takes.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Clamp
        >>> Clamp("kept", "r", np.array([-127]), np.array([127]), "int8").kind
        'CLAMP'
    """

    name: str

    kind: ClassVar[str] = ""
    sources: ClassVar[tuple[str, ...]] = ()  # fields that name other values
    arrays: ClassVar[dict[str, int]] = {}  # fields that hold whole numbers, with their number of axes

    def __post_init__(self):
        for field, axes in self.arrays.items():
            values = vars(self)[field]
            if values.flags.writeable or values.base is not None:
                values = values.copy()  # which nobody else can change
            if values.dtype.kind not in "iu" or values.ndim != axes:
                raise ValueError(
                    f"{self.name}: {field} is an array of {values.dtype} with {values.ndim} axes; pass whole numbers "
                    f"with {axes}."
                )
            if values.dtype == np.uint64 and (values > highest("int48")).any():
                raise ValueError(f"{self.name}: {field} has entries beyond 2^47; pass smaller ones.")
            values = np.ascontiguousarray(values if field == "weights" else values.astype(np.int64, copy=False))
            values.setflags(write=False)
            object.__setattr__(self, field, values)

    @property
    def numbers(self) -> dict[str, np.ndarray]:
        """Its arrays, by the names of the fields."""
        return {field: vars(self)[field] for field in self.arrays}

    @property
    def inputs(self) -> tuple[str, ...]:
        """The names of the values that go in."""
        return tuple(vars(self)[field] for field in self.sources)


@dataclass(frozen=True, eq=False)
class Const(Operation):
    """Numbers of the program: a bias, a step.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Const
        >>> Const("bias", np.array([1, -2]), "int8").values.tolist()
        [1, -2]
    """

    values: np.ndarray  # (size,)
    dtype: str

    kind = "CONST"
    arrays = {"values": 1}


@dataclass(frozen=True, eq=False)
class MatMul(Operation):
    """The product of a constant matrix and a value: `out[o, r, i] = Σ_c weights[r, c] in[o, c, i]`.

    The value is seen as `(outer, columns, inner)`, so that one factor of a Kronecker product is an operation too. The
    sum is exact: every partial sum, in any order, is proved to fit into the accumulator.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import MatMul
        >>> MatMul("r", "x", np.ones((3, 2), np.int8), dtype="int32").weights.shape
        (3, 2)
    """

    source: str
    weights: np.ndarray  # (rows, columns), int8 or int16
    outer: int = 1
    inner: int = 1
    dtype: str = "int32"

    kind = "MATMUL"
    sources = ("source",)
    arrays = {"weights": 2}

    def __post_init__(self):
        super().__post_init__()
        if self.weights.dtype not in (np.int8, np.int16):
            raise ValueError(f"{self.name}: weights are {self.weights.dtype}; pass int8 or int16.")
        if self.dtype not in ("int32", "int48"):
            raise ValueError(f"{self.name} sums in {self.dtype!r}; pass int32 or int48.")


@dataclass(frozen=True, eq=False)
class Rescale(Operation):
    """A product with a power of two, `(x + (1 << (s - 1))) >> s`: half up, where s > 0, and `x << -s` elsewhere.

    The result is not clamped: that it fits its type is proved. Put a `Clamp` before where it might not.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Rescale
        >>> Rescale("half", "x", np.array([1]), "int8").shift.tolist()
        [1]
    """

    source: str
    shift: np.ndarray  # (1,) or one for each entry
    dtype: str

    kind = "RESCALE"
    sources = ("source",)
    arrays = {"shift": 1}


@dataclass(frozen=True, eq=False)
class Clamp(Operation):
    """`min(max(x, low), high)`.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Clamp
        >>> Clamp("kept", "r", np.array([-127]), np.array([127]), "int8").high.tolist()
        [127]
    """

    source: str
    low: np.ndarray  # (1,) or one for each entry
    high: np.ndarray  # as low
    dtype: str

    kind = "CLAMP"
    sources = ("source",)
    arrays = {"low": 1, "high": 1}


@dataclass(frozen=True, eq=False)
class Lookup(Operation):
    """A table of values, `values[x - low]`: a nonlinear scalar function, shipped as what it gives.

    That x lies within the table is proved.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Lookup
        >>> Lookup("square", "x", -2, np.array([4, 1, 0, 1, 4]), "int8").values[0 - -2]
        np.int64(0)
    """

    source: str
    low: int  # what the first entry is for
    values: np.ndarray  # (entries,)
    dtype: str

    kind = "TABLE"
    sources = ("source",)
    arrays = {"values": 1}


@dataclass(frozen=True, eq=False)
class Bank(Operation):
    """A bank of tables, `values[row, x - low]`, whose row a second value picks: a posterior mean at a variance, say.

    The row is the number of edges that the picking value reaches, `Σ (v >= edges)`, so that any v picks a row.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import Bank
        >>> Bank("mean", "r", "v", np.array([5]), -1, np.array([[-1, 0, 1], [-2, 0, 2]]), "int8").values.shape
        (2, 3)
    """

    source: str
    row: str  # the value that picks: one entry for all, or one for each
    edges: np.ndarray  # (rows - 1,), rising
    low: int  # what the first entry of each row is for
    values: np.ndarray  # (rows, entries)
    dtype: str

    kind = "BANK"
    sources = ("source", "row")
    arrays = {"edges": 1, "values": 2}


@dataclass(frozen=True, eq=False)
class OfTwo(Operation):
    """An operation on two values entry by entry, the second of which may be one number for all entries.

    Example:
        >>> from fanfold.deploy.integer import Add, Mul
        >>> from fanfold.deploy.integer.operations import OfTwo
        >>> issubclass(Add, OfTwo), issubclass(Mul, OfTwo)
        (True, True)
    """

    left: str
    right: str
    dtype: str

    sources = ("left", "right")


@dataclass(frozen=True, eq=False)
class Add(OfTwo):
    """The sum of two values.

    Example:
        >>> from fanfold.deploy.integer import Add
        >>> Add("r", "x", "step", "int32").inputs
        ('x', 'step')
    """

    kind = "ADD"


@dataclass(frozen=True, eq=False)
class Sub(OfTwo):
    """The difference of two values.

    The soft threshold is one: `r - clamp(r, -t, t)`.

    Example:
        >>> from fanfold.deploy.integer import Sub
        >>> Sub("shrunk", "r", "kept", "int32").inputs
        ('r', 'kept')
    """

    kind = "SUB"


@dataclass(frozen=True, eq=False)
class Mul(OfTwo):
    """The product of two values entry by entry.

    Example:
        >>> from fanfold.deploy.integer import Mul
        >>> Mul("square", "x", "x", "int16").inputs
        ('x', 'x')
    """

    kind = "MUL"


@dataclass(frozen=True, eq=False)
class Moved(Operation):
    """An operation that moves entries and computes nothing: its value has the type of its source.

    Example:
        >>> from fanfold.deploy.integer import Transpose
        >>> from fanfold.deploy.integer.operations import Moved
        >>> issubclass(Transpose, Moved)
        True
    """

    source: str

    sources = ("source",)


@dataclass(frozen=True, eq=False)
class Transpose(Moved):
    """The same entries with their axes in another order; the value is seen in this shape.

    Example:
        >>> from fanfold.deploy.integer import Transpose
        >>> Transpose("turned", "x", (2, 3), (1, 0)).shape
        (2, 3)
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]

    kind = "TRANSPOSE"


@dataclass(frozen=True, eq=False)
class Windows(Moved):
    """The windows of a picture, `out[r, c, i, j, k] = in[r + i - h // 2, c + j - w // 2, k]`, and zero beside it.

    The value is seen as `(rows, columns, channels)`. A product of each window with a matrix is a convolution, TOSA's
    CONV2D with padding that keeps the size.

    Example:
        >>> from fanfold.deploy.integer import Windows
        >>> Windows("seen", "x", (8, 12, 16), (3, 3)).window
        144
    """

    shape: tuple[int, ...]  # (rows, columns, channels)
    kernel: tuple[int, ...]  # (h, w), odd

    kind = "WINDOWS"

    @property
    def window(self) -> int:
        """How many entries a window has."""
        return self.kernel[0] * self.kernel[1] * self.shape[2]


@dataclass(frozen=True, eq=False)
class Join(Operation):
    """Two values side by side: each is seen as `(outer, columns)`, and the columns of the right one come last.

    Example:
        >>> from fanfold.deploy.integer import Join
        >>> Join("both", "z", "state", 64, "int8").inputs
        ('z', 'state')
    """

    left: str
    right: str
    outer: int
    dtype: str

    kind = "CONCAT"
    sources = ("left", "right")


def content(values: np.ndarray) -> tuple[str, tuple[int, ...], bytes]:
    """What tells arrays apart: those of several layers that are the same are stored once."""
    return values.dtype.name, values.shape, values.tobytes()


KINDS = {op.kind: op for op in (Const, MatMul, Rescale, Clamp, Lookup, Bank, Add, Sub, Mul, Transpose, Windows, Join)}


def plain_fields(kind: type[Operation]) -> dict[str, type]:
    """The fields of an operation that are no arrays, by name, each with what it holds: text, a number or a tuple."""
    return {f.name: _held(f.type) for f in fields(kind) if f.name not in kind.arrays}


def _held(annotation: object) -> type:
    return annotation if annotation is str or annotation is int else tuple
