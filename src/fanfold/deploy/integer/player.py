"""What an integer program means: each operation in NumPy, in whole numbers of 64 bits, batch first."""

from collections.abc import Mapping
from functools import singledispatch

import numpy as np

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.intervals import joined, rescaled, windows_of
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram


def play(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Compute the outputs of a program.

    Args:
        program: The program.
        inputs: For each input port whole numbers `(batch, *shape)` of its type.

    Returns:
        For each output port whole numbers `(batch, *shape)` of its type.

    Raises:
        ValueError: If an input is missing, unknown, no whole numbers of the port's type, or of another shape.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import IntegerPort, IntegerProgram, Rescale, play
        >>> y, x_hat = IntegerPort("y", (4,), "int8"), IntegerPort("x_hat", (4,), "int8")
        >>> half = IntegerProgram("half", (y,), (Rescale("x_hat", "y", np.array([1]), "int8"),), (x_hat,))
        >>> play(half, {"y": np.array([[-3, -1, 1, 3]], np.int8)})["x_hat"].tolist()  # half up
        [[-1, 0, 1, 2]]
    """
    values = values_of(program, inputs)
    return {port.name: values[port.name].reshape(-1, *port.shape).astype(port.dtype) for port in program.outputs}


def values_of(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every value of a program, `(batch, size)` in int64, by name; inputs and errors as of `play`."""
    values = checked_inputs(program, inputs)
    for op in program.operations:
        result = played(op, *(values[name] for name in op.inputs))
        values[op.name] = np.broadcast_to(result, (len(values[program.inputs[0].name]), program.sizes[op.name]))
    return values


def checked_inputs(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inputs as `(batch, size)` in int64.

    Raises:
        ValueError: If they are not those of the program's ports.
    """
    names = {port.name for port in program.inputs}
    if set(inputs) != names:
        raise ValueError(f"inputs are {sorted(inputs)}; pass {sorted(names)}.")
    values = {port.name: _checked(port, np.asarray(inputs[port.name])) for port in program.inputs}
    if len({len(value) for value in values.values()}) > 1:
        raise ValueError(f"inputs have batches of {[len(value) for value in values.values()]}; pass one batch.")
    return values


def _checked(port: IntegerPort, value: np.ndarray) -> np.ndarray:
    if value.dtype.kind not in "iu" or value.shape[1:] != port.shape or value.ndim != len(port.shape) + 1:
        raise ValueError(
            f"{port.name} is {value.dtype} of shape {value.shape}; pass {port.dtype} of shape (batch, "
            f"{', '.join(map(str, port.shape))})."
        )
    info = np.iinfo(port.dtype)
    if value.size and (int(value.min()) < info.min or int(value.max()) > info.max):
        raise ValueError(f"{port.name} spans {value.min()} to {value.max()}, which {port.dtype} does not hold.")
    return value.reshape(len(value), port.size).astype(np.int64)


@singledispatch
def played(op: ops.Operation, *sources: np.ndarray) -> np.ndarray:
    """The value of one operation, `(batch, size)` or what broadcasts to it, from those that go in."""
    raise NotImplementedError(f"{op.kind} has no meaning; register one in the player.")


@played.register
def _(op: ops.Const) -> np.ndarray:
    return op.values


@played.register
def _(op: ops.MatMul, x: np.ndarray) -> np.ndarray:
    # in float64, which is exact: every partial sum is proved to be within 2^47
    seen = x.reshape(len(x), op.outer, op.weights.shape[1], op.inner).astype(np.float64)
    product = (op.weights.astype(np.float64) @ seen).astype(np.int64)
    return product.reshape(len(x), op.outer * len(op.weights) * op.inner)


@played.register
def _(op: ops.Rescale, x: np.ndarray) -> np.ndarray:
    return rescaled(x, op.shift)


@played.register
def _(op: ops.Clamp, x: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum(x, op.low), op.high)


@played.register
def _(op: ops.Lookup, x: np.ndarray) -> np.ndarray:
    return op.values[x - op.low]


@played.register
def _(op: ops.Bank, x: np.ndarray, row: np.ndarray) -> np.ndarray:
    return op.values[np.searchsorted(op.edges, row, side="right"), x - op.low]


@played.register
def _(op: ops.Add, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x + y


@played.register
def _(op: ops.Sub, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x - y


@played.register
def _(op: ops.Mul, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y


@played.register
def _(op: ops.Transpose, x: np.ndarray) -> np.ndarray:
    axes = (0, *(1 + axis for axis in op.axes))
    return x.reshape(len(x), *op.shape).transpose(axes).reshape(x.shape)


@played.register
def _(op: ops.Windows, x: np.ndarray) -> np.ndarray:
    return windows_of(op, x)


@played.register
def _(op: ops.Join, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return joined(op, x, y)
