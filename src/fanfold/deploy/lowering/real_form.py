"""A traced program run again with real tensors alone: what depends on no input is computed once and kept."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind
from torch.fx import Node
from torch.fx.node import map_arg

from fanfold.deploy.lowering.pairs import ComplexParts, Constant, Spread
from fanfold.deploy.lowering.products import PRODUCTS, opened, spread_out
from fanfold.deploy.lowering.rules import RULES
from fanfold.deploy.lowering.tracing import no_stack_traces

aten = torch.ops.aten
KEPT_WHOLE = (aten.linalg_inv.default,)  # else they come apart into operations that no runtime knows
ASIDE = (  # which check what was checked before the trace
    *(aten._assert_tensor_metadata.default, aten._assert_scalar.default, aten._assert_async.msg),
    *(aten.sym_constrain_range_for_size.default, aten.sym_constrain_range.default),
)


# operations with numbers, which the ONNX exporter keeps in single precision; the same ones take them as tensors
WITH_TENSORS = {
    aten.add.Tensor: aten.add.Tensor,
    aten.sub.Tensor: aten.sub.Tensor,
    aten.mul.Tensor: aten.mul.Tensor,
    aten.div.Tensor: aten.div.Tensor,
    aten.add.Scalar: aten.add.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.clamp.default: aten.clamp.Tensor,
    aten.clamp_min.default: aten.clamp_min.Tensor,
    aten.clamp_max.default: aten.clamp_max.Tensor,
    aten.pow.Tensor_Scalar: aten.pow.Tensor_Tensor,
    aten.gt.Scalar: aten.gt.Tensor,
    aten.lt.Scalar: aten.lt.Tensor,
    aten.ge.Scalar: aten.ge.Tensor,
    aten.le.Scalar: aten.le.Tensor,
}


class RealForm(nn.Module):
    """A program with complex numbers inside as a module that computes with real tensors alone.

    Its inputs and outputs are those of the program, complex ones as pairs `(..., 2)`. It is called once with numbers,
    which makes its constants, and can then be traced.

    Args:
        program: What `torch.export` traced.

    Raises:
        ValueError: If an operation on complex numbers, or on a state, has no form in real ones; the error names it.

    Example:
        >>> import torch
        >>> from fanfold.deploy.lowering.real_form import RealForm
        >>> class Turned(torch.nn.Module):
        ...     def forward(self, y):
        ...         return (y * 1j,)
        >>> traced = torch.export.export(Turned(), (torch.ones(3, dtype=torch.complex64),))
        >>> RealForm(traced)(torch.tensor([[1.0, 2.0]]).expand(3, 2))[0][0].tolist()
        [-2.0, 1.0]
    """

    def __init__(self, program: ExportedProgram):
        super().__init__()
        program = without_rare_operations(program)
        _refuse_state(program)
        graph = program.graph
        self._inputs = program.graph_signature.user_inputs
        (output,) = graph.find_nodes(op="output")
        self._outputs = list(output.args[0])
        needed = needed_by(self._outputs)
        self._nodes = [node for node in graph.nodes if node in needed and node.op == "call_function"]
        _refuse_chance(self._nodes)
        self._complex = {node: _is_complex(node) for node in graph.nodes}
        self._constants = self._computed(program, needed)
        self._names: dict[tuple[str, str], str] = {}

    @torch.no_grad()
    def _computed(self, program: ExportedProgram, needed: set[Node]) -> dict[Node, Any]:
        """The value of each node that depends on no input."""
        held = {**program.state_dict, **program.constants}
        specs = program.graph_signature.input_specs
        targets = {spec.arg.name: spec.target for spec in specs if spec.kind is not InputKind.USER_INPUT}
        values: dict[Node, Any] = {}
        for node in program.graph.nodes:
            if node not in needed:
                continue
            if node.op == "placeholder":
                if (target := targets.get(node.name)) is not None:
                    values[node] = held[target]
            elif node.op == "call_function" and all(a in values for a in node.all_input_nodes):
                args, kwargs = (map_arg(a, values.__getitem__) for a in (node.args, node.kwargs))
                values[node] = node.target(*args, **kwargs)
        return values

    def forward(self, *inputs: Tensor) -> tuple[Any, ...]:
        """The outputs of the program, complex ones as pairs."""
        values: dict[Node, Any] = {}
        arriving = dict(zip(self._inputs, inputs, strict=True))
        for node in self._complex:
            if node.op == "placeholder" and node.name in arriving:
                value = arriving[node.name]
                values[node] = ComplexParts.of_pairs(value) if self._complex[node] else value
        for node in self._nodes:
            if node not in self._constants and node.target not in ASIDE:
                values[node] = self._done(node, lambda a: self._value(a, values))
        keep = self._keep("output")
        outputs = [_opened(self._value(node, values), keep, f"{i}") for i, node in enumerate(self._outputs)]
        return tuple(v.joined() if isinstance(v, ComplexParts) else v for v in outputs)

    def _value(self, node: Any, values: dict[Node, Any]) -> Any:
        if not isinstance(node, Node):
            return node
        if node not in self._constants:
            return values[node]
        value = self._constants[node]
        return Constant(value) if isinstance(value, Tensor) else value

    def _done(self, node: Node, value: Callable[[Any], Any]) -> Any:
        """The result of one operation."""
        args, kwargs = map_arg(node.args, value), map_arg(node.kwargs, value)
        keep = self._keep(node.name)
        if node.target in PRODUCTS:
            return PRODUCTS[node.target](keep, *args, **kwargs)
        args, kwargs = (_opened_all(a, keep) for a in (args, kwargs))
        touched = self._complex[node] or any(self._complex[a] for a in node.all_input_nodes)
        if not touched:
            target: Any = node.target
            if target in WITH_TENSORS and any(map(_rounds, args)) and any(map(_is_double, node.all_input_nodes)):
                target = WITH_TENSORS[target]
                both = target is aten.clamp.Tensor  # whose bounds are of one kind
                args = [
                    keep(lambda a=a: torch.tensor(a, dtype=torch.float64), f"number_{i}")
                    if _rounds(a) or (both and isinstance(a, (int, float)))
                    else a
                    for i, a in enumerate(args)
                ]
            return target(*args, **kwargs)
        if node.target not in RULES:
            raise ValueError(
                f"{node.target} on complex numbers has no form in real ones here, so that this estimator cannot "
                "leave PyTorch; write the step without it, or export a real estimator."
            )
        return RULES[node.target](*args, **kwargs)

    def _keep(self, place: str) -> Callable[[Callable[[], Tensor], str], Tensor]:
        """What computes a constant of an operation at the first call, and gives the buffer from then on."""

        def keep(compute: Callable[[], Tensor], tag: str) -> Tensor:
            key = (place, tag)
            if key not in self._names:
                self._names[key] = self._entered(compute().detach())
            return self.get_buffer(self._names[key])

        return keep

    def _entered(self, constant: Tensor) -> str:
        """The name of a buffer that holds these numbers."""
        constant = constant.resolve_conj().contiguous()
        for name, other in self.named_buffers():
            if (other.dtype, other.shape) == (constant.dtype, constant.shape) and _same_bits(other, constant):
                return name
        name = f"constant_{len(self._buffers)}"
        self.register_buffer(name, constant.clone())
        return name


def without_rare_operations(program: ExportedProgram) -> ExportedProgram:
    """The program with operations taken apart that have no rule; those on real numbers alone stay as they are.

    Most programs have none, and stay as they are, since to take one apart is to trace it anew.
    """
    depends = _depending(program)
    on_complex = {node.target for node in depends if _is_complex(node) or any(map(_is_complex, node.all_input_nodes))}
    known = {*RULES, *PRODUCTS, *KEPT_WHOLE, *ASIDE}
    if on_complex <= known and not any(map(_writes, depends)):
        return program
    whole = ({node.target for node in depends} - on_complex) | known
    table = {target: apart for target, apart in torch.export.default_decompositions().items() if target not in whole}
    with no_stack_traces():
        return program.run_decompositions(table)


def _depending(program: ExportedProgram) -> list[Node]:
    """The operations whose results depend on an input, in order."""
    inputs = set(program.graph_signature.user_inputs)
    depending: dict[Node, None] = {}
    for node in program.graph.nodes:
        if (node.op == "placeholder" and node.name in inputs) or any(a in depending for a in node.all_input_nodes):
            depending[node] = None
    return [node for node in depending if node.op == "call_function"]


def _writes(node: Node) -> bool:
    """Whether an operation changes a tensor in place."""
    mutable = isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable
    return mutable and node.target is not aten.detach_.default


def _refuse_state(program: ExportedProgram) -> None:
    changed = [spec.target for spec in program.graph_signature.output_specs if spec.kind is not OutputKind.USER_OUTPUT]
    if changed:
        raise ValueError(f"the estimator changes {', '.join(map(str, changed))} as it runs; export one that does not.")


def needed_by(outputs: Sequence[Any]) -> set[Node]:
    """The nodes that outputs depend on, those among the outputs too."""
    needed: set[Node] = set()
    waiting = [node for node in outputs if isinstance(node, Node)]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting.extend(node.all_input_nodes)
    return needed


def _is_complex(node: Node) -> bool:
    values = node.meta.get("val")
    several = values if isinstance(values, (list, tuple)) else (values,)
    return any(isinstance(v, Tensor) and v.is_complex() for v in several)


def _is_double(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype is torch.float64


def _rounds(value: Any) -> bool:
    """Whether it is a number that single precision does not hold."""
    return (
        isinstance(value, float) and math.isfinite(value) and torch.tensor(value, dtype=torch.float32).item() != value
    )


def _refuse_chance(nodes: list[Node]) -> None:
    drawn = [node for node in nodes if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())]
    if drawn:
        raise ValueError(
            f"the estimator draws numbers at random as it runs, by {drawn[0].target}, which no program can "
            "repeat; draw them once, before it is exported."
        )


def _opened(value: Any, keep: Any, tag: str) -> Any:
    return spread_out(value, keep) if isinstance(value, Spread) else opened(value, keep, tag)


def _opened_all(value: Any, keep: Any, tag: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _opened_all(v, keep, f"{tag}_{name}") for name, v in value.items()}
    if isinstance(value, (list, tuple)) and not isinstance(value, (torch.Size, ComplexParts)):
        return type(value)(_opened_all(v, keep, f"{tag}_{i}") for i, v in enumerate(value))
    return _opened(value, keep, tag)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))
