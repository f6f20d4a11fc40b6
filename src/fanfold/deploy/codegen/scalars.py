"""C for what is done entry by entry: one line for each aten operation, and how numbers are written.

`{0}`, `{1}` are operands, names or numbers, so that repeating one costs nothing; `{f}` is the suffix of functions of
<math.h>. Where torch carries NaN through, so does the text: `fmaxf` would not.
"""

import math
from typing import NamedTuple

import torch

LARGER = "(({0} > {1}) | ({0} != {0})) ? {0} : {1}"  # with || it would be a branch, and no vectors
SMALLER = "(({0} < {1}) | ({0} != {0})) ? {0} : {1}"


class Line(NamedTuple):
    """The C of an operation, and what it computes in."""

    text: str
    answers: bool = False  # a comparison: it computes in the type of its operands and gives 0 or 1
    chooses: bool = False  # its first operand is a condition and keeps its type


LINES = {
    "add": Line("{0} + {1}"),
    "sub": Line("{0} - {1}"),
    "mul": Line("{0} * {1}"),
    "div": Line("{0} / {1}"),
    "neg": Line("-{0}"),
    "abs": Line("fabs{f}({0})"),
    "reciprocal": Line("1 / {0}"),
    "square": Line("{0} * {0}"),
    "sqrt": Line("sqrt{f}({0})"),
    "rsqrt": Line("1 / sqrt{f}({0})"),
    "exp": Line("exp{f}({0})"),
    "exp2": Line("exp2{f}({0})"),
    "expm1": Line("expm1{f}({0})"),
    "log": Line("log{f}({0})"),
    "log2": Line("log2{f}({0})"),
    "log10": Line("log10{f}({0})"),
    "log1p": Line("log1p{f}({0})"),
    "sin": Line("sin{f}({0})"),
    "cos": Line("cos{f}({0})"),
    "tan": Line("tan{f}({0})"),
    "asin": Line("asin{f}({0})"),
    "acos": Line("acos{f}({0})"),
    "atan": Line("atan{f}({0})"),
    "atan2": Line("atan2{f}({0}, {1})"),
    "sinh": Line("sinh{f}({0})"),
    "cosh": Line("cosh{f}({0})"),
    "tanh": Line("tanh{f}({0})"),
    "asinh": Line("asinh{f}({0})"),
    "acosh": Line("acosh{f}({0})"),
    "atanh": Line("atanh{f}({0})"),
    "erf": Line("erf{f}({0})"),
    "erfc": Line("erfc{f}({0})"),
    "sigmoid": Line("1 / (1 + exp{f}(-{0}))"),
    "relu": Line("{0} < 0 ? 0 : {0}"),
    "sign": Line("({0} > 0) - ({0} < 0)"),
    "floor": Line("floor{f}({0})"),
    "ceil": Line("ceil{f}({0})"),
    "round": Line("rint{f}({0})"),  # ties to even, as torch
    "trunc": Line("trunc{f}({0})"),
    "fmod": Line("fmod{f}({0}, {1})"),
    "remainder": Line("{0} - floor{f}({0} / {1}) * {1}"),
    "pow": Line("pow{f}({0}, {1})"),
    "hypot": Line("hypot{f}({0}, {1})"),
    "maximum": Line(LARGER),
    "minimum": Line(SMALLER),
    "clamp_min": Line(LARGER),
    "clamp_max": Line(SMALLER),
    "where": Line("{0} ? {1} : {2}", chooses=True),
    "gt": Line("{0} > {1}", answers=True),
    "ge": Line("{0} >= {1}", answers=True),
    "lt": Line("{0} < {1}", answers=True),
    "le": Line("{0} <= {1}", answers=True),
    "eq": Line("{0} == {1}", answers=True),
    "ne": Line("{0} != {1}", answers=True),
    "isnan": Line("{0} != {0}", answers=True),
    "isinf": Line("({0} - {0} != 0) & ({0} == {0})", answers=True),
    "logical_and": Line("{0} && {1}", answers=True),
    "logical_or": Line("{0} || {1}", answers=True),
    "logical_xor": Line("!{0} != !{1}", answers=True),
    "logical_not": Line("!{0}", answers=True),
    "bitwise_and": Line("{0} & {1}"),
    "bitwise_or": Line("{0} | {1}"),
    "bitwise_xor": Line("{0} ^ {1}"),
}
WHOLE = {  # of whole numbers, where it is another text
    "abs": "{0} < 0 ? -{0} : {0}",
    "floor": "{0}",
    "ceil": "{0}",
    "round": "{0}",
    "trunc": "{0}",
    "remainder": "({0} % {1} + {1}) % {1}",
    "fmod": "{0} % {1}",
    "bitwise_not": "~{0}",
    "div_floor": "({0} - (({0} % {1} + {1}) % {1})) / {1}",
    "div_trunc": "{0} / {1}",
}
POWERS = {  # exponents that torch takes by products
    0.5: "sqrt{f}({0})",
    -0.5: "1 / sqrt{f}({0})",
    1.0: "{0}",
    2.0: "{0} * {0}",
    3.0: "{0} * {0} * {0}",
    -1.0: "1 / {0}",
    -2.0: "1 / ({0} * {0})",
}


def suffix(dtype: torch.dtype) -> str:
    """That of the functions of <math.h> for a type."""
    return "f" if dtype == torch.float32 else ""


def number(value: float | int | bool, dtype: torch.dtype) -> str:
    """A number in C, to the last bit of its type."""
    if not dtype.is_floating_point:
        whole = int(value)
        return f"({whole})" if whole < 0 else str(whole)
    f = suffix(dtype)
    if math.isnan(value):
        return "NAN"
    if math.isinf(value):
        return "INFINITY" if value > 0 else "(-INFINITY)"
    if dtype == torch.float32:
        value = torch.tensor(value, dtype=torch.float64).to(dtype).item()
        if math.isinf(value):
            return "INFINITY" if value > 0 else "(-INFINITY)"
    digits = f"{value:.9g}" if dtype == torch.float32 else f"{value:.17g}"
    if not any(mark in digits for mark in ".e"):
        digits += ".0"
    return f"({digits}{f})" if digits.startswith("-") else digits + f
