"""Words of C: literals and constant arrays."""

import numpy as np

from fanfold.deploy.generated import in_lines
from fanfold.deploy.integer.operations import lowest

C_TYPES = {"int8": "int8_t", "int16": "int16_t", "int32": "int32_t", "int48": "int64_t"}
BYTES = {"int8_t": 1, "int16_t": 2, "int32_t": 4, "int64_t": 8}
WIDTH = 116  # of a line of numbers
INT32_LOWEST = lowest("int32")


def literal(value: int, wide: bool) -> str:
    """A whole number; the least one has no literal of its own in C."""
    if wide:
        return f"INT64_C({value})" if value >= 0 else f"(-INT64_C({-value}))"
    return "(-2147483647 - 1)" if value == INT32_LOWEST else str(value) if value >= 0 else f"({value})"


def narrowest(values: np.ndarray) -> str:
    """The narrowest type of C that holds all these numbers."""
    low, high = int(values.min()), int(values.max())
    for bits in (8, 16, 32):
        if -(1 << (bits - 1)) <= low and high < 1 << (bits - 1):
            return f"int{bits}_t"
    return "int64_t"


def constant(ctype: str, name: str, values: np.ndarray) -> str:
    """A constant array of one or two axes, its numbers in lines."""
    shape = "".join(f"[{n}]" for n in values.shape)
    rows = [_lines(row, ctype) for row in np.atleast_2d(values)]
    body = ",\n".join("{" + row + "}" for row in rows) if values.ndim == 2 else rows[0]
    return f"static const {ctype} {name}{shape} = {{\n{body}}};\n"


def _lines(row: np.ndarray, ctype: str) -> str:
    wide = ctype == "int64_t"
    words = [literal(v, wide) if wide or v == INT32_LOWEST else str(v) for v in row.tolist()]
    longest = max(map(len, words)) + 1
    a_line = max(1, WIDTH // longest)
    return ",\n".join(in_lines(words, a_line, ","))
