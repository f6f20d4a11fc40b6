"""A program as calls with their places in memory: what is written as C, and what it costs."""

import math
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from fanfold.deploy.codegen import arithmetic, convolutions, moves, norms, products, reductions, solves
from fanfold.deploy.codegen.kernels import FIELDS, CallList, Memory, Strided, dense_strides, is_dense, lay_out
from fanfold.deploy.codegen.writer import Writer, short_name
from fanfold.deploy.lowering.tracing import no_stack_traces

FAMILIES = (arithmetic, convolutions, moves, norms, products, reductions, solves)  # which enter their rows
KEPT = (
    "addmm",
    "native_group_norm",
    "native_layer_norm",
    "split",
    "split_with_sizes",
    "unbind",
    "linalg_inv",
    "linalg_cholesky",
    "linalg_solve",
)  # else they come apart
FURTHER = (  # which torch can say with simpler operations, and does if it is asked to
    *("_softmax", "_log_softmax", "upsample_nearest2d", "upsample_nearest1d"),
    *(
        "gelu",
        "softplus",
        "leaky_relu",
        "elu",
        "hardtanh",
        "logsumexp",
        "linalg_vector_norm",
        "var_mean",
        "log_sigmoid",
    ),
    *("_native_batch_norm_legit_no_training", "_native_batch_norm_legit_functional", "silu", "hardsigmoid", "logit"),
    *("index_select", "stack", "std_mean", "addmv", "baddbmm", "lerp", "addcmul", "addcdiv", "rsub", "tril", "triu"),
    *("nan_to_num", "xlogy", "sinc", "mish"),
)


class CProgram(NamedTuple):
    """Everything that the C of a program says.

    Attributes:
        calls: The calls, their functions and constants.
        inputs, outputs: Memories of the ports, in the order of the program's.
        workspace: Entries of each type.
    """

    calls: CallList
    inputs: tuple[Memory, ...]
    outputs: tuple[Memory, ...]
    workspace: dict[torch.dtype, int]

    @property
    def products(self) -> int:
        """Multiply-accumulates of a call."""
        return sum(call.products for call in self.calls.calls)

    @property
    def weight_bytes(self) -> int:
        """The bytes of all constants, of attached programs too."""
        attached = sum(part.constant_bytes for part in self.calls.attached.values())
        return attached + sum(c.size * c.dtype.itemsize for c in self.calls.constants.values())

    @property
    def workspace_bytes(self) -> int:
        """The bytes of the workspace, but for gaps between its parts."""
        return sum(size * dtype.itemsize for dtype, size in self.workspace.items())


def program_of(traced: ExportedProgram, names: tuple[list[str], list[str]]) -> CProgram:
    """The calls of a traced program of real tensors for one sample.

    Args:
        traced: The program, of float32 inputs and outputs.
        names: Names of the inputs and of the outputs.

    Raises:
        ValueError: If an operation has no C, or a port is not float32.
    """
    with warnings.catch_warnings(), no_stack_traces():
        warnings.simplefilter("ignore")  # torch's notices about itself
        traced = traced.run_decompositions(_decompositions())
    traced.graph.eliminate_dead_code()
    calls, values = CallList(), {}
    writer = Writer(calls)
    held = {**traced.state_dict, **traced.constants, **traced.tensor_constants}
    inputs = []
    for spec, node in zip(traced.graph_signature.input_specs, traced.graph.find_nodes(op="placeholder"), strict=True):
        if spec.kind is InputKind.USER_INPUT:
            val = _checked(node.meta["val"], names[0][len(inputs)])
            memory = Memory("input", val.dtype, val.numel(), names[0][len(inputs)])
            inputs.append(memory)
            values[node] = Strided(memory, tuple(val.shape), dense_strides(val.shape))
        elif isinstance(value := held.get(str(spec.target)), Tensor):
            values[node] = value.detach()
    with torch.no_grad():
        writer.run(traced.graph.nodes, values)
    (output,) = traced.graph.find_nodes(op="output")
    outputs: list[Memory] = []
    for name, node in zip(names[1], output.args[0], strict=True):
        _checked(node.meta["val"], name)
        outputs.append(_delivered(writer, values[node], name, outputs))
    return CProgram(calls, tuple(inputs), tuple(outputs), lay_out(calls.calls))


def _checked(val: Any, name: str) -> Tensor:
    if not isinstance(val, Tensor) or val.dtype != torch.float32:
        kind = val.dtype if isinstance(val, Tensor) else type(val).__name__
        raise ValueError(
            f"{name} is {kind}, and C is written in float32: pass an estimator and an example in single precision, "
            "net.float() and obs.in_precision(torch.float32); `fanfold export` does that by itself."
        )
    return val


def _delivered(writer: Writer, value: Any, name: str, before: list[Memory]) -> Memory:
    """The memory of an output: the one where the value is, or a copy."""
    view = writer.view(value)
    size = math.prod(view.shape)
    if is_dense(view) and view.offset == 0 and view.memory.kind == "work" and view.memory.size == size:
        view.memory.kind, view.memory.name = "output", name
        return view.memory
    memory = Memory("output", view.dtype, size, name)
    writer.copy(view, Strided(memory, view.shape, dense_strides(view.shape)))
    return memory


def _decompositions() -> dict[Any, Any]:
    table = core_aten_decompositions()
    wanted = [getattr(torch.ops.aten, name) for name in FURTHER]
    table.update(get_decompositions(wanted))
    return {target: how for target, how in table.items() if short_name(target) not in KEPT}


def reference(memory: Memory, offset: int, prefix: str) -> str:
    """The text of a pointer into memory."""
    if memory.kind == "work":
        base, offset = f"work->{FIELDS[memory.dtype]}", memory.offset + offset
    elif memory.kind == "const":
        base = f"{prefix}{memory.name}"
    else:
        base = memory.name
    return f"{base} + {offset}" if offset else base
