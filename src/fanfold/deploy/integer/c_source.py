"""An integer program as one portable pair of C files: C99, no allocation, one sample a call.

It needs `<stdint.h>` alone, and a compiler's intrinsics where a processor has the instructions. Every operation is
exact: no sum overflows, by the proof, and a shift of a negative number is the compiler's own only where that rounds
down. The same program gives the same bytes.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fanfold.core.files import write_whole
from fanfold.deploy.codegen.kernels import Attached
from fanfold.deploy.generated import header_lines, indented
from fanfold.deploy.integer.c_lanes import BYTES_LOOKED_UP, SWITCH
from fanfold.deploy.integer.c_loops import Loops, groups_of
from fanfold.deploy.integer.c_octaves import OCTAVES
from fanfold.deploy.integer.c_text import BYTES, C_TYPES, constant
from fanfold.deploy.integer.c_values import CValues
from fanfold.deploy.integer.files import fingerprint_of_program
from fanfold.deploy.integer.golden import GoldenVectors, golden_vectors, hex_text
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram

HELPERS = {
    "down": """/* floor(x / 2^s). C leaves it to compilers what a shift of a negative number is, and they do this;
   where one does not, the complement is shifted. */
static inline {t} down{bits}({t} x, int32_t s)
{{
#if (-1 >> 1) == -1
    return x >> s;
#else
    const {t} sign = -({t})(x < 0);
    return ((x ^ sign) >> s) ^ sign;
#endif
}}
""",
    "clamp": """static inline {t} clamp{bits}({t} x, {t} low, {t} high)
{{
    return x < low ? low : x > high ? high : x;
}}
""",
}
COUNT_REACHED = """/* How many of the rising edges a value reaches: the row of a bank of tables. */
static inline int32_t count_reached(int64_t x, const int64_t *edges, int32_t count)
{
    int32_t row = 0;
    for (int32_t k = 0; k < count; k++) row += x >= edges[k];
    return row;
}
"""
UNSIGNED_BYTES = """\
/* Bytes are multiplied as unsigned by signed where a processor does that, and as words of 16 bits elsewhere and
   by clang, which is faster so. The numbers are the same. */
#if (defined(__AVX512VNNI__) || defined(__AVXVNNI__)) && !defined(__clang__)
typedef uint8_t byte_t;
#define BYTE_OFFSET 128
#else
typedef int16_t byte_t;
#define BYTE_OFFSET 0
#endif
"""


class IntegerC(NamedTuple):
    """The text of a program's C files and of its golden vectors, by file name; made by `program_to_c`.

    Example:
        >>> from fanfold.deploy.integer import Draft, program_to_c
        >>> draft = Draft("half")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (4,))
        >>> list(program_to_c(draft.finish()).files)
        ['half.h', 'half.c', 'half_y.hex', 'half_x_hat.hex']
    """

    files: Mapping[str, str]
    stack_bytes: int  # of the values, while the function runs

    def write(self, folder: str | Path) -> list[Path]:
        """Write the files to a folder, made if need be; returns their paths.

        Raises:
            OSError: If one cannot be written.
        """
        Path(folder).mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            write_whole(Path(folder) / name, text.encode())
        return [Path(folder) / name for name in self.files]


def program_to_c(program: IntegerProgram, golden: GoldenVectors | None = None) -> IntegerC:
    """The C files of a program: `NAME.h`, `NAME.c`, and a text of golden vectors for each port.

    `NAME_run` computes one sample. With `-DNAME_SELF_TEST` (in capitals) the source has a `main` that replays the
    golden vectors and returns 0 if all came out, else the number of the first vector that did not, counted from 1.

    Args:
        program: The program.
        golden: The vectors to replay; drawn by `golden_vectors` if not given.
    """
    golden = golden or golden_vectors(program)
    writer = _Writer(program)
    ports = (*program.inputs, *program.outputs)
    vectors = {**golden.inputs, **golden.outputs}
    files = {f"{program.name}.h": _header(program, writer), f"{program.name}.c": writer.source(golden)}
    files |= {f"{program.name}_{port.name}.hex": hex_text(port, vectors[port.name]) for port in ports}
    return IntegerC(files, writer.stack_bytes)


def attached_c(program: IntegerProgram, body: str) -> Attached:
    """The C of a program within another source, where functions of this body call it.

    Its function is static, and the names of its constants begin with its own.
    """
    writer = _Writer(program, f"{program.name}_")
    costs = writer.values.constant_bytes, program.multiply_accumulates
    return Attached(tuple(writer.helpers()), writer.function(), body, *costs)


def signature(program: IntegerProgram) -> str:
    """The function of one sample, as C declares it."""
    inputs = [f"const {C_TYPES[port.dtype]} in_{port.name}[{port.size}]" for port in program.inputs]
    outputs = [f"{C_TYPES[port.dtype]} out_{port.name}[{port.size}]" for port in program.outputs]
    return f"void {program.name}_run({', '.join([*inputs, *outputs])})"


def _header(program: IntegerProgram, writer: "_Writer") -> str:
    guard = program.name.upper()
    sizes = [
        f"#define {guard}_STACK_BYTES {writer.stack_bytes}",
        f"#define {guard}_CONSTANT_BYTES {writer.values.constant_bytes}",
    ]
    ports = [_described(port, "in") for port in program.inputs] + [_described(port, "out") for port in program.outputs]
    lines = [
        f"/* {program.name}: one sample of an integer program of {len(program.operations)} operations.",
        f"   SHA-256 of the program: {fingerprint_of_program(program)}",
        "   A number of Qm.n is its integer times 2^-n. Arrays are row by row; iq is real part, imaginary part.",
        "   Pointers may not overlap. No state: calls from several threads do not disturb each other.",
        "   C99. The numbers are the same with every flag; it is fast with -O3 and -march of the processor.",
        "",
        *ports,
        "*/",
        *header_lines(guard, sizes, signature(program)),
    ]
    return "\n".join(lines) + "\n"


def _described(port: IntegerPort, direction: str) -> str:
    shape = " x ".join(map(str, port.shape))
    return f"   {direction}_{port.name}: {shape}, {port.dtype}, {port.q_format}, {port.layout}, unit {port.unit}"


class _Writer:
    """Writes the source; values share arrays where they are not needed at once."""

    def __init__(self, program: IntegerProgram, prefix: str = ""):
        self.program, self.groups = program, groups_of(program)
        self.places = {port.name: f"in_{port.name}" for port in program.inputs}
        self.arrays: list[tuple[str, int]] = []  # type and entries
        self.stored = self._stored()
        self.values = CValues(program, self.places.__getitem__, prefix)
        self.loops = Loops(self.values)
        self.body = [*self._body(), "", *self._given_out()]
        self.stack_bytes = sum(BYTES[C_TYPES[t]] * n for t, n in self.arrays) + self.loops.products.padded_bytes

    def _stored(self) -> set[str]:
        """The values that are needed beyond the loop that makes them."""
        stored = {port.name for port in self.program.outputs}
        for group in self.groups:
            stored |= {name for op in group.operations for name in op.inputs} - {op.name for op in group.operations}
        return stored | {group.operations[0].name for group in self.groups if len(group.operations) == 1}

    def _body(self) -> list[str]:
        last = self._last_uses()
        free: list[int] = []
        held: dict[str, int] = {}
        lines: list[str] = []
        for number, group in enumerate(self.groups):
            for op in group.operations:
                if op.name in self.stored:
                    held[op.name] = self._array_for(op.name, free)
                    self.places[op.name] = f"b{held[op.name]}"
            lines.append(f"/* {', '.join(f'{op.name} ({op.kind})' for op in group.operations)} */")
            lines += self.loops.lines(group, self.stored)
            gone = [name for name in held if last[name] == number]
            free += [held.pop(name) for name in gone]
        return lines

    def _given_out(self) -> list[str]:
        """The loops that copy values to the ports."""
        return [
            f"for (i = 0; i < {port.size}; i++) out_{port.name}[i] = {self.values.whole(port.name)}[i];"
            for port in self.program.outputs
        ]

    def _last_uses(self) -> dict[str, int]:
        """The number of the group that needs each value last; outputs are needed beyond all."""
        last: dict[str, int] = {}
        for number, group in enumerate(self.groups):
            for op in group.operations:
                last |= {op.name: number} | dict.fromkeys(op.inputs, number)
        return last | {port.name: len(self.groups) for port in self.program.outputs}

    def _array_for(self, name: str, free: list[int]) -> int:
        dtype, size = self.program.dtypes[name], self.program.sizes[name]
        fitting = [k for k in free if self.arrays[k][0] == dtype]
        if not fitting:
            self.arrays.append((dtype, size))
            return len(self.arrays) - 1
        best = max(fitting, key=lambda k: self.arrays[k][1])
        free.remove(best)
        self.arrays[best] = (dtype, max(size, self.arrays[best][1]))
        return best

    def source(self, golden: GoldenVectors) -> str:
        """The text of the source file."""
        program = self.program
        parts = [
            f"/* {program.name}: written by fanfold from an integer program; see {program.name}.h. */",
            f'#include "{program.name}.h"',
            "",
            *self.helpers(),
            *self.values.constants,
            *self._function(),
            "",
            self._self_test(golden),
        ]
        return "\n".join(line.rstrip() for line in parts) + "\n"

    def function(self) -> str:
        """The text of the function of one sample, for its own source alone, with its constants."""
        head, *rest = self._function()
        return "\n".join(line.rstrip() for line in [*self.values.constants, f"static {head}", *rest]) + "\n"

    def _function(self) -> list[str]:
        arrays = [f"{C_TYPES[dtype]} b{k}[{entries}];" for k, (dtype, entries) in enumerate(self.arrays)]
        ignored = [f"(void)in_{port.name};" for port in self.program.inputs]
        return [signature(self.program), "{", *indented([*arrays, "int32_t i;", *ignored, "", *self.body]), "}"]

    def helpers(self) -> list[str]:
        """The text of functions that others have too."""
        helpers = [
            HELPERS[name].format(t=f"int{bits}_t", bits=bits)
            for name in HELPERS
            for bits in (32, 64)
            if f"{name}{bits}" in self.values.needs
        ]
        named = {
            "count_reached": COUNT_REACHED,
            "octaves": OCTAVES,
            "bytes": UNSIGNED_BYTES,
            "lanes": SWITCH,
            "bytes_looked_up": BYTES_LOOKED_UP,
        }
        helpers += [text for name, text in named.items() if name in self.values.needs]
        return [*helpers, *self.loops.products.lanes.helpers.values()]

    def _self_test(self, golden: GoldenVectors) -> str:
        program = self.program
        count = len(next(iter(golden.outputs.values())))
        given = {**golden.inputs, **golden.outputs}
        arrays = [
            constant(C_TYPES[port.dtype], f"golden_{port.name}", np.reshape(given[port.name], (count, port.size)))
            for port in (*program.inputs, *program.outputs)
        ]
        outputs = [f"static {C_TYPES[port.dtype]} out_{port.name}[{port.size}];" for port in program.outputs]
        arguments = [f"golden_{port.name}[k]" for port in program.inputs]
        arguments += [f"out_{port.name}" for port in program.outputs]
        compared = []
        for port in program.outputs:
            differs = f"out_{port.name}[i] != golden_{port.name}[k][i]"
            compared.append(f"        for (i = 0; i < {port.size}; i++) if ({differs}) return k + 1;")
        lines = [
            f"#ifdef {program.name.upper()}_SELF_TEST",
            *arrays,
            *outputs,
            "",
            "int main(void)",
            "{",
            "    int32_t i;",
            f"    for (int k = 0; k < {count}; k++) {{",
            f"        {program.name}_run({', '.join(arguments)});",
            *compared,
            "    }",
            "    return 0;",
            "}",
            "#endif",
        ]
        return "\n".join(lines)
