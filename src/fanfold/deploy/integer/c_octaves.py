"""Logarithms of an integer program in C: of all octaves that it adds up, one alone is neither full nor empty.

The program sums `clamp(x 2^-k, 2^d, 2^(d+1)) - 2^d` over octaves k, which means the same on every machine. Below the
octave of x these terms are 2^d, and above it zero, so that C has to compute the one term of the leading digit of x.
The logarithm is that of Mitchell (1962).
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.program import IntegerProgram

FEWEST = 4  # octaves from which it pays
OCTAVES = """/* Sum over octaves k of clamp(x 2^-k, 2^d, 2^(d+1)) - 2^d, by the octave of the leading digit of x. */
static inline int32_t leading_digit(int32_t x)
{
#if defined(__GNUC__) && __INT_MAX__ == 2147483647
    return 31 - __builtin_clz((uint32_t)x);
#else
    int32_t digit = 0;
    for (int32_t step = 16; step; step /= 2) digit += x >> (digit + step) ? step : 0;
    return digit;
#endif
}
static inline int32_t octaves(int32_t x, int32_t first, int32_t last, int32_t d)
{
    const int32_t k = clamp32(leading_digit(x < 1 ? 1 : x) - d, first, last);
    const int32_t one = 1, least = one << d; /* where int has 16 bits, too */
    return (k - first) * least + clamp32(down32(x + ((one << k) >> 1), k), least, 2 * least) - least;
}
"""


class Octaves(NamedTuple):
    """A sum over octaves: what it is of, which octaves, the digits of each, and the values on the way.

    Example:
        >>> from fanfold.deploy.integer.c_octaves import Octaves
        >>> Octaves("x", 0, 24, 4, frozenset()).last
        24
    """

    source: str
    first: int
    last: int
    digits: int
    within: frozenset[str]


def octaves_of(program: IntegerProgram) -> dict[str, Octaves]:
    """The sums over octaves in a program, by the name of their last value; of values that nothing else needs."""
    made = {op.name: op for op in program.operations}
    uses: dict[str, int] = dict.fromkeys([port.name for port in program.outputs], 2)
    for op in program.operations:
        for name in op.inputs:
            uses[name] = uses.get(name, 0) + 1
    limits = {row.operation: row.limit for row in program.proof.rows}
    sums = {op.name: _octaves(op, made) for op in program.operations if isinstance(op, ops.Sub)}
    return {
        name: part
        for name, part in sums.items()
        if part is not None
        and all(uses[value] == 1 for value in part.within)
        and max(limits[value] for value in (name, *part.within)) <= ops.highest("int32")
    }


def _octaves(op: ops.Sub, made: Mapping[str, ops.Operation]) -> Octaves | None:
    """The octaves that a difference is of: a sum of clamps less their lower ends; None of another one."""
    taken, at = made.get(op.right), made.get(op.left)
    terms: list[ops.Operation | None] = []
    within: list[str] = []
    while isinstance(at, ops.Add):
        terms.append(made.get(at.right))
        within.append(at.name)
        at = made.get(at.left)
    terms.append(at)
    if not isinstance(taken, ops.Const) or len(terms) < FEWEST:
        return None
    ends: set[tuple[int, ...]] = set()
    shifts: list[tuple[str, int]] = []
    for term in reversed(terms):
        if not isinstance(term, ops.Clamp):
            return None
        within.append(term.name)
        shifted = made.get(term.source)
        if isinstance(shifted, ops.Rescale) and shifted.shift.size == 1 and int(shifted.shift[0]) > 0:
            within.append(shifted.name)
            shifts.append((shifted.source, int(shifted.shift[0])))
        else:
            shifts.append((term.source, 0))
        ends.add((*term.low.tolist(), *term.high.tolist()))
    return _of_terms(shifts, ends, taken.values, within)


def _of_terms(
    shifts: list[tuple[str, int]], ends: set[tuple[int, ...]], taken: np.ndarray, within: list[str]
) -> Octaves | None:
    """Octaves one after the other, of one value, all with the same ends, whose lower ends are taken away again."""
    (source, first), count = shifts[0], len(shifts)
    if shifts != [(source, first + k) for k in range(count)] or len(ends) != 1:
        return None
    low, *high = min(ends)
    digits = low.bit_length() - 1
    if low != 1 << digits or high != [2 * low] or taken.tolist() != [count * low]:
        return None
    return Octaves(source, first, first + count - 1, digits, frozenset(within))
