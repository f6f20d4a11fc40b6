"""An integer program in PyTorch: whole numbers in float tensors, each value in a type that is proved to be exact.

What is computed in float32 stays within 2^24, all else within 2^53 in float64, so that these are the player's bits.
"""

from collections.abc import Mapping
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor, nn

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.program import IntegerProgram

CARRIERS = {"float32": torch.float32, "float64": torch.float64}


class TorchProgram(nn.Module):
    """An integer program as a module of PyTorch, without parameters.

    Args:
        program: The program.

    Example:
        >>> import torch
        >>> from fanfold.deploy.integer import Draft, TorchProgram
        >>> draft = Draft("half")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (4,))
        >>> TorchProgram(draft.finish())({"y": torch.tensor([[-3, -1, 1, 3]])})["x_hat"].tolist()
        [[-1, 0, 1, 2]]
    """

    def __init__(self, program: IntegerProgram):
        super().__init__()
        self.program = program
        self.carriers = {row.operation: CARRIERS[row.carrier] for row in program.proof.rows}
        for i, op in enumerate(program.operations):
            for field in op.arrays:
                self.register_buffer(f"{field}_{i}", torch.from_numpy(np.array(vars(op)[field])), persistent=False)

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs `(batch, *shape)` of inputs `(batch, *shape)`, whole numbers by the names of the ports."""
        values = {port.name: inputs[port.name].flatten(1) for port in self.program.inputs}
        for i, op in enumerate(self.program.operations):
            carrier = self.carriers[op.name]
            arrays = [self.get_buffer(f"{field}_{i}") for field in op.arrays]
            values[op.name] = computed(op, carrier, arrays, *(values[name].to(carrier) for name in op.inputs))
        batch = len(values[self.program.inputs[0].name])
        return {
            port.name: values[port.name]
            .expand(batch, port.size)
            .reshape(batch, *port.shape)
            .to(torch.from_numpy(np.empty(0, port.dtype)).dtype)
            for port in self.program.outputs
        }


@singledispatch
def computed(op: ops.Operation, carrier: torch.dtype, arrays: list[Tensor], *sources: Tensor) -> Tensor:
    """The value of one operation, `(batch, size)`, in the float type that carries it."""
    raise NotImplementedError(f"{op.kind} has no form in PyTorch; register one in torch_form.")


@computed.register
def _(op: ops.Const, carrier: torch.dtype, arrays: list[Tensor]) -> Tensor:
    return arrays[0].to(carrier)[None]


@computed.register
def _(op: ops.MatMul, carrier: torch.dtype, arrays: list[Tensor], x: Tensor) -> Tensor:
    seen = x.reshape(len(x), op.outer, op.weights.shape[1], op.inner)
    return (arrays[0].to(carrier) @ seen).flatten(1)


@computed.register
def _(op: ops.Rescale, carrier: torch.dtype, arrays: list[Tensor], x: Tensor) -> Tensor:
    scaled = x * torch.from_numpy(np.ldexp(1.0, -op.shift)).to(x)
    return torch.where(arrays[0] > 0, torch.floor(scaled + 0.5), scaled)


@computed.register
def _(op: ops.Clamp, carrier: torch.dtype, arrays: list[Tensor], x: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, arrays[0].to(carrier)), arrays[1].to(carrier))


@computed.register
def _(op: ops.Lookup, carrier: torch.dtype, arrays: list[Tensor], x: Tensor) -> Tensor:
    return arrays[0].to(carrier)[x.long() - op.low]


@computed.register
def _(op: ops.Bank, carrier: torch.dtype, arrays: list[Tensor], x: Tensor, row: Tensor) -> Tensor:
    edges, values = arrays
    picked = (row.long()[..., None] >= edges).sum(-1)
    return values.to(carrier)[picked, x.long() - op.low]


@computed.register
def _(op: ops.Add, carrier: torch.dtype, arrays: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    return x + y


@computed.register
def _(op: ops.Sub, carrier: torch.dtype, arrays: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    return x - y


@computed.register
def _(op: ops.Mul, carrier: torch.dtype, arrays: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    return x * y


@computed.register
def _(op: ops.Transpose, carrier: torch.dtype, arrays: list[Tensor], x: Tensor) -> Tensor:
    return x.reshape(len(x), *op.shape).permute(0, *(1 + axis for axis in op.axes)).flatten(1)


@computed.register
def _(op: ops.Windows, carrier: torch.dtype, arrays: list[Tensor], x: Tensor) -> Tensor:
    (rows, columns, _), (h, w) = op.shape, op.kernel
    picture = nn.functional.pad(x.reshape(len(x), *op.shape), (0, 0, w // 2, w // 2, h // 2, h // 2))
    shifted = [picture[:, i : i + rows, j : j + columns] for i in range(h) for j in range(w)]
    return torch.stack(shifted, 3).flatten(1)


@computed.register
def _(op: ops.Join, carrier: torch.dtype, arrays: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
    batch = max(len(x), len(y))
    return torch.cat([v.expand(batch, -1).unflatten(1, (op.outer, -1)) for v in (x, y)], 2).flatten(1)
