"""An integer program as WebAssembly whose ports are floats, as those of the page's other programs are."""

from pathlib import Path

from fanfold.deploy.codegen.wasm import wasm_of
from fanfold.deploy.integer import IntegerPort, IntegerProgram, program_to_c
from fanfold.deploy.integer.c_text import C_TYPES
from fanfold.report.figure.built import SMALL, BuiltProgram

LARGEST = {"int8": 2**7, "int16": 2**15, "int32": 2**31}  # and one less above zero


def compiled_integers(program: IntegerProgram, folder: Path) -> BuiltProgram:
    """An integer program that takes and gives single precision by the Q formats of its ports, as an estimator does.

    Args:
        program: The program.
        folder: Where its C goes.

    Raises:
        ValueError: If clang with wasm-ld is not there.
    """
    program_to_c(program).write(folder)
    wasm = wasm_of(folder / f"{program.name}.c", _ports(program), SMALL)
    inputs, outputs = ({port.name: port.size for port in ports} for ports in (program.inputs, program.outputs))
    return BuiltProgram(wasm, inputs, outputs)


def _ports(program: IntegerProgram) -> str:
    """Memory for the ports, and the call with what becomes of numbers before and after it."""
    lines = ["#include <math.h>", f'#include "{program.name}.h"']
    for port in (*program.inputs, *program.outputs):
        lines += [
            f"static float {port.name}[{port.size}];",
            f"static {C_TYPES[port.dtype]} whole_{port.name}[{port.size}];",
            f"float *at_{port.name}(void);",
            f'__attribute__((export_name("at_{port.name}"))) float *at_{port.name}(void) {{ return {port.name}; }}',
        ]
    words = ", ".join(f"whole_{port.name}" for port in (*program.inputs, *program.outputs))
    lines += ["void call(void);", '__attribute__((export_name("call"))) void call(void) {']
    lines += [_entered(port) for port in program.inputs]
    lines += [f"    {program.name}_run({words});"]
    lines += [_given_out(port) for port in program.outputs]
    return "\n".join([*lines, "}", ""])


def _given_out(port: IntegerPort) -> str:
    step = 2.0**-port.fraction
    return f"    for (int i = 0; i < {port.size}; i++) {port.name}[i] = (float)(whole_{port.name}[i] * {step!r});"


def _entered(port: IntegerPort) -> str:
    """Half up to whole numbers, and no further than the type goes."""
    most = LARGEST[port.dtype]
    return (
        f"    for (int i = 0; i < {port.size}; i++) {{ double v = floor({port.name}[i] * {2.0**port.fraction!r} + 0.5);"
        f" v = v < -{most}.0 ? -{most}.0 : v > {most - 1}.0 ? {most - 1}.0 : v;"
        f" whole_{port.name}[i] = ({C_TYPES[port.dtype]})v; }}"
    )
