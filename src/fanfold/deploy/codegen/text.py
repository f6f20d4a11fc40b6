"""The C text of a program: a header that describes the ports, the source, and golden vectors in hexadecimal."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fanfold.deploy.codegen.functions import functions_of
from fanfold.deploy.codegen.kernels import C_TYPES, FIELDS, Memory, Number
from fanfold.deploy.codegen.program import CProgram, reference
from fanfold.deploy.codegen.scalars import number
from fanfold.deploy.generated import header_lines, in_lines
from fanfold.deploy.lowering import Port

IN_BLOB = 64  # entries from which a constant goes into the file of weights
LINE = 8  # numbers a line
VECTORS = """\
/* Sixteen sums side by side: a vector where the compiler has them, of whatever width, and a loop elsewhere. */
#if defined(__GNUC__)
typedef float lanes __attribute__((vector_size(64)));
typedef double dlanes __attribute__((vector_size(128)));
#define ADD(sum, x, y) (sum) += (x) * (y)
#define COPY(to, from, n) __builtin_memcpy(to, from, (n) * sizeof(float))
#define DCOPY(to, from, n) __builtin_memcpy(to, from, (n) * sizeof(double))
#define CLEAR(sum) __builtin_memset(&(sum), 0, sizeof(sum))
#else
typedef struct { float v[16]; } lanes;
typedef struct { double v[16]; } dlanes;
#define ADD(sum, x, y) for (int l = 0; l < 16; l++) (sum).v[l] += (x) * (y).v[l]
#define COPY(to, from, n) memcpy(to, from, (n) * sizeof(float))
#define DCOPY(to, from, n) memcpy(to, from, (n) * sizeof(double))
#define CLEAR(sum) memset(&(sum), 0, sizeof(sum))
#endif
#define DADD(sum, x, y) ADD(sum, x, y)
"""
# units of rounding of the largest entry: sums of n products in another order, functions of another libm
TOLERANCE = 1e3


class Golden(NamedTuple):
    """What the estimator says of some samples: inputs and outputs by name, `(samples, entries)`."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class Texts(NamedTuple):
    """The files of a program.

    Attributes:
        header, source, golden: Their text.
        weights: The bytes of the file of weights, empty where they are in the source.
        blob: Where each constant begins in it, in entries.
    """

    header: str
    source: str
    golden: str
    weights: bytes
    blob: dict[Memory, int]


def texts(
    program: CProgram, ports: Sequence[Port], golden: Golden, name: str, start: Mapping[str, Tensor], *, blob: bool
) -> Texts:
    """The files of a program whose functions begin with `name`, and that begins with what `start` remembers."""
    offsets, weights = _blob(program) if blob else ({}, b"")
    head = _header(program, ports, name, len(weights), start)
    source = [f'#include "{name}.h"', "", "#include <math.h>", "#include <string.h>", ""]
    attached = program.calls.attached.values()
    source += [*dict.fromkeys(text for part in attached for text in part.helpers), *(part.text for part in attached)]
    if any("lanes " in body for _, body in program.calls.functions):
        source.append(VECTORS)
    source += functions_of(body for _, body in program.calls.functions)
    source += [_constant(c, name) for c in program.calls.constants.values() if c not in offsets]
    for (signature, body), i in program.calls.functions.items():
        source += [f"static void k{i}({signature}) {{", body, "}", ""]
    source += [*_run(program, name, offsets), "", *_self_test(program, golden, name, len(weights)), ""]
    return Texts(head, "\n".join(source), _golden_text(golden), weights, offsets)


# The header


def _header(program: CProgram, ports: Sequence[Port], name: str, weight_bytes: int, start: Mapping[str, Tensor]) -> str:
    upper = name.upper()
    lines = [
        f"/* {name}: an estimator for one sample, in single precision; generated.",
        " *",
        " * Ports, each an array of float, row after row without gaps:",
    ]
    memories = {m.name: m for m in (*program.inputs, *program.outputs)}
    for port in ports:
        way = "in " if port.name in {m.name for m in program.inputs} else "out"
        shape = " x ".join(str(n) for n in port.shape[1:]) or "1"
        layout = "interleaved: re, im, re, im, ..." if port.pairs else "real"
        lines.append(f" *   {way} {port.name}: {shape} = {memories[port.name].size} numbers; {layout}")
        lines.append(f" *       unit: {port.unit}")
    lines += [
        " *",
        f" * Multiply-accumulates of a call: {program.products}. Bytes of weights: {program.weight_bytes}.",
        f" * Bytes of the workspace: sizeof({name}_workspace), {program.workspace_bytes} of them in use.",
        " * A call allocates nothing and keeps nothing; calls with workspaces of their own may run at once.",
        " *",
        " * C99. Fast with gcc: -O3 -march=native -ffp-contract=fast -fno-math-errno -fno-trapping-math.",
        " * Not -ffast-math, -Ofast or -fassociative-math: sums would lose their order, and exp its digits.",
    ]
    if weight_bytes:
        lines.append(
            f" * Weights are the file {name}.weights, {weight_bytes} bytes of little-endian float, to be mapped."
        )
    declared = [f"#define {upper}_{m.name.upper()}_SIZE {m.size}" for m in (*program.inputs, *program.outputs)]
    for port, values in start.items():
        words = ", ".join(number(value, torch.float32) for value in values.float().tolist())
        lines.append(
            f" * The first call takes {upper}_{port.upper()}_START for {port}, each other the {port}_next before."
        )
        declared.append(f"#define {upper}_{port.upper()}_START {{{words}}}")
    if weight_bytes:
        declared.append(f"#define {upper}_WEIGHTS_SIZE {weight_bytes // 4}")
    fields = [f"    {C_TYPES[d]} {FIELDS[d]}[{n}];" for d, n in program.workspace.items() if n]
    declared += ["", "typedef struct {", *(fields or ["    float f[1];"]), f"}} {name}_workspace;"]
    prototype = _prototype(program, name, blob=bool(weight_bytes))
    return "\n".join([*lines, " */", *header_lines(upper, declared, prototype), ""])


def _prototype(program: CProgram, name: str, *, blob: bool) -> str:
    arguments = ["const float *weights"] * blob
    arguments += [f"const float *{m.name}" for m in program.inputs]
    arguments += [f"float *{m.name}" for m in program.outputs]
    return f"void {name}_run({', '.join(arguments)}, {name}_workspace *work)"


# The source


def _blob(program: CProgram) -> tuple[dict[Memory, int], bytes]:
    """Where each constant is in the file of weights, in entries, and its bytes."""
    offsets, parts, at = {}, [], 0
    for constant in program.calls.constants.values():
        if constant.dtype == torch.float32 and constant.size >= IN_BLOB:
            offsets[constant] = at
            padding = -constant.size % 16
            parts += [_values(constant).astype("<f4").tobytes(), bytes(4 * padding)]
            at += constant.size + padding
    return offsets, b"".join(parts)


def _values(constant: Memory) -> np.ndarray:
    assert constant.values is not None
    return constant.values.numpy()


def _constant(constant: Memory, name: str) -> str:
    values = _values(constant)
    if constant.dtype == torch.float32 and np.isfinite(values).all():
        words = [f"{v:.8e}f" for v in values.tolist()]
    else:
        words = [number(v, constant.dtype) for v in values.tolist()]
    joined = ",\n    ".join(in_lines(words, LINE, ", "))
    return f"static const {constant.c_type} {name}_{constant.name}[{constant.size}] = {{\n    {joined}}};\n"


def _run(program: CProgram, name: str, offsets: dict[Memory, int]) -> list[str]:
    lines = [_prototype(program, name, blob=bool(offsets)) + " {"]
    used = {memory for call in program.calls.calls for memory in call.memories}
    lines += [f"    (void){m.name};" for m in program.inputs if m not in used]
    if not any(m.kind == "work" for m in used):
        lines.append("    (void)work;")
    for call in program.calls.calls:
        arguments = []
        for argument in call.arguments:
            if isinstance(argument, Number):
                arguments.append(number(argument.value, argument.dtype))
                continue
            memory, offset = argument
            if memory in offsets:
                arguments.append(f"weights + {offsets[memory] + offset}")
            else:
                arguments.append(reference(memory, offset, f"{name}_"))
        lines.append(f"    k{call.function}({', '.join(arguments)});")
    return [*lines, "}"]


# Golden vectors


def _words(values: Tensor) -> list[str]:
    return [f"{w:08x}" for w in values.reshape(-1).numpy().astype("<f4").view("<u4").tolist()]


def _golden_text(golden: Golden) -> str:
    """Single-precision bit patterns in hexadecimal, as test benches read them; a line for some numbers of a sample."""
    lines = []
    for way, vectors in (("input", golden.inputs), ("output", golden.outputs)):
        for name, values in vectors.items():
            for s, sample in enumerate(values):
                lines.append(f"// {way} {name}, sample {s}, {sample.numel()} numbers")
                lines += in_lines(_words(sample), LINE, " ")
    return "\n".join([*lines, ""])


def _golden_array(name: str, values: Tensor) -> list[str]:
    words = [f"0x{word}u" for word in _words(values)]
    joined = ",\n    ".join(in_lines(words, LINE, ", "))
    return [f"static const uint32_t golden_{name}[{len(words)}] = {{\n    {joined}}};", ""]


def _self_test(program: CProgram, golden: Golden, name: str, weight_bytes: int) -> list[str]:
    """A function that replays the golden vectors, and a `main` around it, both there by a macro alone."""
    samples = len(next(iter(golden.outputs.values())))
    lines = [f"#ifdef {name.upper()}_SELF_TEST", ""]
    for port, values in (golden.inputs | golden.outputs).items():
        lines += _golden_array(port, values)
    weights = "const float *weights" if weight_bytes else "void"
    lines += [
        f"int {name}_self_test({weights});",
        "",
        "/* How many numbers differ from the golden ones by more than rounding. */",
        f"int {name}_self_test({weights}) {{",
        f"    static {name}_workspace work;",
        *(f"    static float {m.name}[{m.size}];" for m in (*program.inputs, *program.outputs)),
        "    int wrong = 0;",
        f"    for (int s = 0; s < {samples}; s++) {{",
        *(f"        memcpy({m.name}, golden_{m.name} + s * {m.size}, sizeof {m.name});" for m in program.inputs),
    ]
    arguments = ["weights"] * bool(weight_bytes) + [m.name for m in (*program.inputs, *program.outputs)]
    lines.append(f"        {name}_run({', '.join(arguments)}, &work);")
    for m in program.outputs:
        largest = golden.outputs[m.name].abs().max().item()
        tolerance = number(TOLERANCE * torch.finfo(torch.float32).eps * largest, torch.float32)
        lines += [
            f"        for (int i = 0; i < {m.size}; i++) {{",
            "            float wanted;",
            f"            memcpy(&wanted, golden_{m.name} + s * {m.size} + i, sizeof wanted);",
            f"            wrong += !(fabsf({m.name}[i] - wanted) <= {tolerance});",
            "        }",
        ]
    lines += ["    }", "    return wrong;", "}", "", f"#ifndef {name.upper()}_NO_MAIN"]
    if weight_bytes:
        lines += [
            "#include <stdio.h>",
            "",
            "int main(int count, char **arguments) { /* the path of the file of weights */",
            f"    static float weights[{weight_bytes // 4}];",
            '    FILE *file = count > 1 ? fopen(arguments[1], "rb") : 0;',
            f"    if (!file || fread(weights, 4, {weight_bytes // 4}, file) != {weight_bytes // 4}) return 2;",
            "    fclose(file);",
            f"    return {name}_self_test(weights) ? 1 : 0;",
            "}",
        ]
    else:
        lines += ["int main(void) {", f"    return {name}_self_test() ? 1 : 0;", "}"]
    return [*lines, "#endif", "", "#endif"]
