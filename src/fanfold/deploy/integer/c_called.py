"""The row of C for a network in whole numbers within a program of floats: its integer program, called like a function.

Numbers become whole by the Q formats of the ports, as `IntegerPort.integers` does it, and are those of the outputs
behind it, as `IntegerPort.numbers` says them: the bits between are the integer program's. Where one of the numbers is
NaN, which no port holds, all outputs are.
"""

from typing import Any

from torch import fx

from fanfold.deploy.codegen.kernels import Strided
from fanfold.deploy.codegen.writer import Writer, row
from fanfold.deploy.integer.c_source import attached_c
from fanfold.deploy.integer.c_text import C_TYPES
from fanfold.deploy.integer.operations import highest, lowest
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram
from fanfold.deploy.integer.program_called import program_called


@row("whole_numbers")
def called(writer: Writer, node: fx.Node, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Strided]:
    """A call of the integer program of a traced network, which is written once.

    Raises:
        ValueError: If its scales are not chosen yet.
    """
    key, numbers = args
    attached = writer.calls.attached
    if key not in attached:
        program = program_called(key, len(attached))
        attached[key] = attached_c(program, _body(program))
    outputs = [writer.new(value.shape, value.dtype) for value in node.meta["val"]]
    reads = [writer.dense(value) for value in numbers]
    writer.calls.add(attached[key].body, reads, outputs, (), attached[key].products)
    return outputs


def _body(program: IntegerProgram) -> str:
    """Whole numbers of the inputs, the program, and numbers of its outputs."""
    ports = (*program.inputs, *program.outputs)
    lines = [f"    {C_TYPES[port.dtype]} p{k}[{port.size}];" for k, port in enumerate(ports)]
    lines.append("    int broken = 0;")
    for k, port in enumerate(program.inputs):
        lines += _quantised(port, k)
    lines.append(f"    {program.name}_run({', '.join(f'p{k}' for k in range(len(ports)))});")
    for k, port in enumerate(program.outputs):
        number = f"(double)p{len(program.inputs) + k}[i] * {_power(-port.fraction)}"
        lines.append(f"    for (int i = 0; i < {port.size}; i++) w{k}[i] = broken ? NAN : {number};")
    return "\n".join(lines)


def _quantised(port: IntegerPort, k: int) -> list[str]:
    low, high = float(lowest(port.dtype)), float(highest(port.dtype))
    return [
        f"    for (int i = 0; i < {port.size}; i++) {{",
        f"        const double x = floor(r{k}[i] * {_power(port.fraction)} + 0.5);",
        "        broken |= x != x;",
        f"        p{k}[i] = ({C_TYPES[port.dtype]})(x > {low} ? x < {high} ? x : {high} : {low});",  # also of NaN
        "    }",
    ]


def _power(fraction: int) -> str:
    """A power of two, which every double holds."""
    return repr(2.0**fraction)
