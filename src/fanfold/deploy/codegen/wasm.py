"""WebAssembly of an estimator: its C compiled by clang for wasm32 without a C library, and a module that loads it.

Roots and roundings are instructions of wasm. The other functions of <math.h> come from `Math` of the host, rounded to
single precision; `memcpy` and `memset` are two loops.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path

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
STACK = ("-Wl,--stack-first", "-Wl,-z,stack-size=1048576")  # integer programs keep their values there; beyond it a trap
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
    clang = find_compiler("clang")
    binary, module = files.source.with_suffix(".wasm"), files.source.with_suffix(".mjs")
    with tempfile.TemporaryDirectory() as place:
        build = Path(place)
        for part, text in (
            ("math.h", _math_h()),
            ("string.h", STRING_H),
            ("string.c", STRING_C),
            ("ports.c", _ports(files)),
        ):
            write_whole(build / part, text.encode())
        sources = [files.source, build / "string.c", build / "ports.c"]
        command = [clang, "--target=wasm32", "-nostdlib", "-ffreestanding", "-O3", *STRICT, *flags]
        command += ["-I", str(build), "-I", str(files.source.parent), *map(str, sources)]
        command += ["-Wl,--no-entry", "-Wl,--allow-undefined", *STACK, "-o", str(build / "out.wasm")]
        run_compiler(command, f"clang makes no WebAssembly of {files.source.name}")
        write_whole(binary, (build / "out.wasm").read_bytes())
    write_whole(module, _module(files).encode())
    return [*files.paths, binary, module]


def _math_h() -> str:
    """A header with the functions that programs use, in both precisions."""
    lines = ["#ifndef MATH_H", "#define MATH_H", '#define NAN (__builtin_nanf(""))']
    lines.append("#define INFINITY (__builtin_inff())")
    for kind, f in (("float", "f"), ("double", "")):
        lines += [f"{kind} {name}{f}({kind} x);" for name in HOSTED]
        lines += [f"{kind} {name}{f}({kind} x, {kind} y);" for name in HOSTED_OF_TWO]
        lines += [f"#define {name}{f}(x) __builtin_{called}{f}(x)" for name, called in INSTRUCTIONS.items()]
    return "\n".join([*lines, "#endif", ""])


def _ports(files: CFiles) -> str:
    """Memory for the ports, and functions that say where it is."""
    memories = [*files.program.inputs, *files.program.outputs]
    lines = [f'#include "{files.name}.h"', f"static {files.name}_workspace work;"]
    lines += [f"static float {m.name}[{m.size}];" for m in memories]
    for m in memories:
        lines += [
            f"float *at_{m.name}(void);",
            f'__attribute__((export_name("at_{m.name}"))) float *at_{m.name}(void) {{ return {m.name}; }}',
        ]
    arguments = ", ".join(m.name for m in memories)
    lines += ["void call(void);", '__attribute__((export_name("call"))) void call(void) {']
    return "\n".join([*lines, f"    {files.name}_run({arguments}, &work);", "}", ""])


def host_functions() -> str:
    """JavaScript for the functions that a program asks its host for: the object `env`."""
    functions = []
    for name, of_host in {**HOSTED, **HOSTED_OF_TWO}.items():
        functions += [f"    {name}: {of_host},", f"    {name}f: {of_host},"]  # wasm rounds what it gets to its own type
    return "\n".join([ERF, "const env = {", *functions, "};"])


def _module(files: CFiles) -> str:
    """A module that hands in the functions of `Math` and copies numbers in and out."""
    ports = [
        f"    {{name: '{m.name}', size: {m.size}, into: {'true' if m in files.program.inputs else 'false'}}},"
        for m in (*files.program.inputs, *files.program.outputs)
    ]
    return "\n".join(
        [
            f"// Loads {files.name}.wasm: (await load(bytes)).run({{y}}) gives its outputs, all of Float32Array.",
            host_functions(),
            "const ports = [",
            *ports,
            "];",
            "",
            "export async function load(bytes) {",
            "    const {instance} = await WebAssembly.instantiate(bytes, {env});",
            "    const wasm = instance.exports;",
            "    const view = port => new Float32Array(wasm.memory.buffer, wasm[`at_${port.name}`](), port.size);",
            "    return {",
            "        ports,",
            "        run(inputs) {",
            "            for (const port of ports) if (port.into) view(port).set(inputs[port.name]);",
            "            wasm.call();",
            "            const outputs = ports.filter(port => !port.into);",
            "            return Object.fromEntries(outputs.map(port => [port.name, view(port).slice()]));",
            "        },",
            "    };",
            "}",
            "",
        ]
    )
