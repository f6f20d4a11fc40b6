"""A network in whole numbers within an ONNX file of floats: its integer program as a function of the file.

As in C (`c_called`) numbers become whole by the Q formats of the ports, and are those of the outputs behind; where one
of them is NaN, all outputs of the sample are.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fanfold.deploy.integer.onnx_form import onnx_model
from fanfold.deploy.integer.operations import highest, lowest
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram
from fanfold.deploy.integer.program_called import program_called

DOMAIN = "fanfold"  # of the functions
SQUARES, AXES_GO_IN = "ReduceSumSquare", 18  # the operator set from which on its axes are an input


class CalledFunctions:
    """The integer programs that a file calls, each once; what the exporter asks for the nodes that call them.

    Attributes:
        programs: The programs by the keys of their networks.

    Example:
        >>> from fanfold.deploy.integer.onnx_called import CalledFunctions
        >>> CalledFunctions().programs
        {}
    """

    def __init__(self) -> None:
        self.programs: dict[str, IntegerProgram] = {}

    def translation(self) -> Callable[..., Any]:
        """What the exporter calls for each operation: the outputs of a node that calls the function."""
        from onnx.defs import OpSchema
        from onnxscript.values import Op, Opset

        def called(key: str, numbers: Any) -> Any:
            if key not in self.programs:
                self.programs[key] = program_called(key, len(self.programs))
            program, kind = self.programs[key], OpSchema.FormalParameter
            ins, outs = (
                [kind(f"{letter}{k}", "T") for k in range(len(ports))]
                for letter, ports in (("r", program.inputs), ("w", program.outputs))
            )
            double = [("T", ["tensor(double)"], "")]
            schema = OpSchema(program.name, DOMAIN, 1, inputs=ins, outputs=outs, type_constraints=double)
            said = Op(Opset(DOMAIN, 1), program.name, schema)(*numbers)
            return said if isinstance(said, (list, tuple)) else [said]

        return called

    def enter(self, model: Any) -> None:
        """Put the functions into a model, an `onnx.ModelProto`, that calls them."""
        if not self.programs:
            return
        opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
        model.functions.extend(_function(program, opset) for program in self.programs.values())


def _function(program: IntegerProgram, opset: int) -> Any:
    """The program between numbers in double precision, `(batch, size)` each."""
    from onnx import helper, numpy_helper

    graph, nodes = onnx_model(program).graph, []

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def number(name: str, values: Any) -> str:
        return node("Constant", [], name, value=numpy_helper.from_array(np.asarray(values), name))

    poison, last = "", number("last_axis", np.array([-1]))
    for k, port in enumerate(program.inputs):
        lost = node("IsNaN", [f"r{k}"], f"lost{k}")
        zero, nan = number(f"zero{k}", 0.0), number(f"nan{k}", np.nan)
        of_port = node("ReduceSum", [node("Where", [lost, nan, zero], f"marked{k}"), last], f"poison{k}", keepdims=1)
        poison = node("Add", [poison, of_port], f"poisons{k}") if poison else of_port
        kept = node("Where", [lost, zero, f"r{k}"], f"kept{k}")
        scaled = node("Mul", [kept, number(f"scale_in{k}", 2.0**port.fraction)], f"scaled{k}")
        floor = node("Floor", [node("Add", [scaled, number(f"half{k}", 0.5)], f"raised{k}")], f"floor{k}")
        bounds = [number(f"{name}{k}", float(end(port.dtype))) for name, end in (("low", lowest), ("high", highest))]
        whole = node("Cast", [node("Clip", [floor, *bounds], f"clipped{k}")], f"whole{k}", to=_type(port))
        node("Reshape", [whole, number(f"shape{k}", np.array([-1, *port.shape]))], port.name)
    nodes += [helper.make_node("Constant", [], [constant.name], value=constant) for constant in graph.initializer]
    for at in graph.node:
        axes = [a for a in at.attribute if a.name == "axes"]
        if at.op_type == SQUARES and opset >= AXES_GO_IN and axes:
            node(SQUARES, [*at.input, number(f"axes_of_{at.output[0]}", np.array(axes[0].ints))], at.output[0])
        else:
            nodes.append(at)
    for k, port in enumerate(program.outputs):
        flat = node("Reshape", [port.name, number(f"size{k}", np.array([-1, port.size]))], f"flat{k}")
        real = node("Cast", [flat], f"real{k}", to=helper.np_dtype_to_tensor_dtype(np.dtype("float64")))
        said = node("Mul", [real, number(f"scale_out{k}", 2.0**-port.fraction)], f"said{k}")
        node("Add", [said, poison], f"w{k}")
    inputs, outputs = (
        [f"{a}{k}" for k in range(len(ports))] for a, ports in (("r", program.inputs), ("w", program.outputs))
    )
    return helper.make_function(DOMAIN, program.name, inputs, outputs, nodes, [helper.make_opsetid("", opset)])


def _type(port: IntegerPort) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(port.dtype))
