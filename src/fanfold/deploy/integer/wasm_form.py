"""An integer program as WebAssembly: its C, compiled by clang for wasm32, and a module that loads it."""

from pathlib import Path

from fanfold.deploy.codegen.wasm import STACK, WasmPort, compile_module
from fanfold.deploy.integer.c_source import program_to_c
from fanfold.deploy.integer.program import IntegerProgram


def program_to_wasm(program: IntegerProgram, folder: str | Path) -> list[Path]:
    """Write a program as `NAME.wasm`, a module that loads it, `NAME.mjs`, and the C that it is made of.

    In the host: `const net = await load(bytes); net.run({y}).x_hat`, arrays of the whole numbers of the ports, as
    `Int16Array`. The header says what they stand for.

    Raises:
        OSError: If a file cannot be written.
        ValueError: If clang with wasm-ld is not there or refuses the source.
    """
    written = program_to_c(program)
    paths = written.write(folder)
    sides = ((program.inputs, True), (program.outputs, False))
    ports = [WasmPort(port.name, port.size, port.dtype, into) for side, into in sides for port in side]
    source = Path(folder) / f"{program.name}.c"
    return [*paths, *compile_module(source, ports, workspace=False, stack=STACK + written.stack_bytes // 16 * 16)]
