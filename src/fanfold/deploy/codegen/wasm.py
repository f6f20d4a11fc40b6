"""WebAssembly of an estimator: its C compiled by clang for wasm32 without a C library, and a module that loads it.

Roots and roundings are instructions of wasm. The other functions of <math.h> come from `Math` of the host, rounded to
single precision; `memcpy` and `memset` are two loops.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from fanfold.core.files import write_whole
from fanfold.deploy.codegen.build import STRICT, find_compiler, run_compiler
from fanfold.deploy.codegen.to_c import CFiles, to_c
from fanfold.observation import Estimator, Observation

HOSTED = {  # function of <math.h>: of the host
    **{name: f"Math.{name}" for name in ("exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "tanh")},
    **{name: f"Math.{name}" for name in ("sinh", "cosh", "asin", "acos", "atan", "asinh", "acosh", "atanh")},
    "exp2": "x => 2 ** x",
    "erf": "erf",
    "erfc": "x => 1 - erf(x)",
}
HOSTED_OF_TWO = {"pow": "Math.pow", "atan2": "Math.atan2", "hypot": "Math.hypot", "fmod": "(x, y) => x % y"}
INSTRUCTIONS = {"sqrt": "sqrt", "fabs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "rint": "rint"}
STACK = 1 << 20  # bytes; integer programs keep their values there
OF_HOST = {  # types of ports: in C, and as arrays of the host
    "float32": ("float", "Float32Array"),
    "int8": ("int8_t", "Int8Array"),
    "int16": ("int16_t", "Int16Array"),
    "int32": ("int32_t", "Int32Array"),
}
ERF = """\
function erf(x) { // series near zero, continued fraction in the tails; Abramowitz & Stegun 7.1.6 and 7.1.14
    const a = Math.abs(x);
    if (a < 2.5) {
        let term = x, sum = x;
        for (let n = 1; n < 60; n++) sum += term *= 2 * x * x / (2 * n + 1);
        return 2 / Math.sqrt(Math.PI) * Math.exp(-x * x) * sum;
    }
    let fraction = a;
    for (let n = 60; n > 0; n--) fraction = a + n / 2 / fraction;
    return Math.sign(x) * (1 - Math.exp(-a * a) / Math.sqrt(Math.PI) / fraction);
}
"""
CHECKED = """\
function checked(port, given) { // what a typed array would take without a word, and change
    if (given?.length !== port.size)
        throw new RangeError(`${port.name} has ${given?.length ?? 'no'} numbers; pass ${port.size}.`);
    if (port.of === Float32Array || given instanceof port.of) return given;
    const most = 2 ** (8 * port.of.BYTES_PER_ELEMENT - 1);
    if (!Array.from(given).every(v => Number.isInteger(v) && v >= -most && v < most))
        throw new RangeError(`${port.name} takes whole numbers from ${-most} to ${most - 1}.`);
    return given;
}
"""
STRING_H = """\
#ifndef STRING_H
#define STRING_H
#include <stddef.h>
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int c, size_t n);
#endif
"""
STRING_C = """\
#include "string.h"
void *memcpy(void *to, const void *from, size_t n) {
    volatile unsigned char *t = to;
    const unsigned char *f = from;
    while (n--) *t++ = *f++;
    return to;
}
void *memset(void *to, int c, size_t n) {
    volatile unsigned char *t = to;
    while (n--) *t++ = (unsigned char)c;
    return to;
}
"""


def to_wasm(
    estimator: Estimator,
    example: Observation,
    folder: str | Path,
    *,
    name: str = "estimator",
    fixed_noise: bool = False,
) -> list[Path]:
    """Write an estimator as WebAssembly, `NAME.wasm`, a module that loads it, `NAME.mjs`, and the C that it is made of.

    In the host: `const net = await load(bytes); net.run({y}).x_hat`, all of `Float32Array`.

    Args:
        estimator: Any estimator that `to_c` takes.
        example: An observation of at least two samples.
        folder: Where the files go.
        name: What files and functions are called.
        fixed_noise: Whether a noise variance that is one number for all belongs to the program.

    Returns:
        The paths of the files.

    Raises:
        ValueError: If an operation has no C, or clang with wasm-ld is not there or refuses the source.
    """
    return compile_wasm(to_c(estimator, example, folder, name=name, fixed_noise=fixed_noise))


class WasmPort(NamedTuple):
    """A port of a module, as its host sees it.

    Example:
        >>> from fanfold.deploy.codegen.wasm import WasmPort
        >>> WasmPort("y", 20, "float32", into=True).size
        20
    """

    name: str
    size: int
    dtype: str
    into: bool  # it goes in


def compile_wasm(files: CFiles, flags: Sequence[str] = ()) -> list[Path]:
    """Compile C that was written as WebAssembly, and write the module that loads it.

    Args:
        files: What `to_c` or `write_c` wrote, with weights in the source.
        flags: Further flags of clang, such as -msimd128 for hosts with vectors.

    Returns:
        The paths of all files, the last two of them `NAME.wasm` and `NAME.mjs`.

    Raises:
        ValueError: If clang with wasm-ld is not there or refuses the source.
    """
    sides = ((files.program.inputs, True), (files.program.outputs, False))
    ports = [WasmPort(memory.name, memory.size, "float32", into) for side, into in sides for memory in side]
    return [*files.paths, *compile_module(files.source, ports, flags, workspace=True)]


def compile_module(
    source: Path, ports: Sequence[WasmPort], flags: Sequence[str] = (), *, workspace: bool, stack: int = STACK
) -> list[Path]:
    """Compile a C file whose function `NAME_run` takes these ports in turn, as `NAME.wasm`, and write `NAME.mjs`.

    Args:
        source: The C file, `NAME.c`, with its header beside it.
        ports: The arguments of the function.
        flags: Further flags of clang.
        workspace: Whether a workspace is the last argument.
        stack: Its bytes of stack, beyond which a call is a trap.

    Returns:
        The paths of the two files.

    Raises:
        ValueError: If clang with wasm-ld is not there or refuses the source.
    """
    clang, name = find_compiler("clang"), source.stem
    binary, module = source.with_suffix(".wasm"), source.with_suffix(".mjs")
    with tempfile.TemporaryDirectory() as place:
        build = Path(place)
        for part, text in (
            ("math.h", _math_h()),
            ("string.h", STRING_H),
            ("string.c", STRING_C),
            ("ports.c", _ports(source.with_suffix(".h").resolve(), ports, workspace=workspace)),
        ):
            write_whole(build / part, text.encode())
        sources = [source, build / "string.c", build / "ports.c"]
        command = [clang, "--target=wasm32", "-nostdlib", "-ffreestanding", "-O3", *STRICT, *flags]
        command += ["-I", str(build), *map(str, sources)]
        command += ["-Wl,--no-entry", "-Wl,--allow-undefined", "-Wl,--stack-first", f"-Wl,-z,stack-size={stack}"]
        run_compiler([*command, "-o", str(build / "out.wasm")], f"clang makes no WebAssembly of {source.name}")
        write_whole(binary, (build / "out.wasm").read_bytes())
    write_whole(module, _module(name, ports).encode())
    return [binary, module]


def _math_h() -> str:
    """A header with the functions that programs use, in both precisions."""
    lines = ["#ifndef MATH_H", "#define MATH_H", '#define NAN (__builtin_nanf(""))']
    lines.append("#define INFINITY (__builtin_inff())")
    for kind, f in (("float", "f"), ("double", "")):
        lines += [f"{kind} {name}{f}({kind} x);" for name in HOSTED]
        lines += [f"{kind} {name}{f}({kind} x, {kind} y);" for name in HOSTED_OF_TWO]
        lines += [f"#define {name}{f}(x) __builtin_{called}{f}(x)" for name, called in INSTRUCTIONS.items()]
    return "\n".join([*lines, "#endif", ""])


def _ports(header: Path, ports: Sequence[WasmPort], *, workspace: bool) -> str:
    """Memory for the ports, and functions that say where it is."""
    # names with a capital, which neither programs nor ports have
    lines = [f'#include "{header}"', *([f"static {header.stem}_workspace Work;"] if workspace else [])]
    for port in ports:
        kind, at = OF_HOST[port.dtype][0], f"At_{port.name}"
        lines += [
            f"static {kind} Port_{port.name}[{port.size}];",
            f"{kind} *{at}(void);",
            f'__attribute__((export_name("at_{port.name}"))) {kind} *{at}(void) {{ return Port_{port.name}; }}',
        ]
    arguments = ", ".join([*(f"Port_{port.name}" for port in ports), *(["&Work"] if workspace else [])])
    lines += ["void Call(void);", '__attribute__((export_name("call"))) void Call(void) {']
    return "\n".join([*lines, f"    {header.stem}_run({arguments});", "}", ""])


def host_functions() -> str:
    """JavaScript for the functions that a program asks its host for: the object `env`."""
    functions = []
    for name, of_host in {**HOSTED, **HOSTED_OF_TWO}.items():
        functions += [f"    {name}: {of_host},", f"    {name}f: {of_host},"]  # wasm rounds what it gets to its own type
    return "\n".join([ERF, "const env = {", *functions, "};"])


def _module(name: str, ports: Sequence[WasmPort]) -> str:
    """A module that hands in the functions of `Math` and copies numbers in and out."""
    kinds = {port.name: OF_HOST[port.dtype][1] for port in ports}
    said = [
        f"    {{name: '{port.name}', size: {port.size}, into: {str(port.into).lower()}, of: {kinds[port.name]}}},"
        for port in ports
    ]
    given = ", ".join(port.name for port in ports if port.into)
    return "\n".join(
        [
            f"// Loads {name}.wasm: (await load(bytes)).run({{{given}}}) gives its outputs, arrays as ports say.",
            host_functions(),
            "const ports = [",
            *said,
            "];",
            "",
            CHECKED,
            "export async function load(bytes) {",
            "    const {instance} = await WebAssembly.instantiate(bytes, {env});",
            "    const wasm = instance.exports;",
            "    const view = port => new port.of(wasm.memory.buffer, wasm[`at_${port.name}`](), port.size);",
            "    return {",
            "        ports,",
            "        run(inputs) {",
            "            for (const port of ports) if (port.into) view(port).set(checked(port, inputs[port.name]));",
            "            wasm.call();",
            "            const outputs = ports.filter(port => !port.into);",
            "            return Object.fromEntries(outputs.map(port => [port.name, view(port).slice()]));",
            "        },",
            "    };",
            "}",
            "",
        ]
    )
