"""What a picture of a step is made of: parts on signals, the pills that set them, wires, and formulas."""

from dataclasses import dataclass, field
from typing import NamedTuple


class Pill(NamedTuple):
    """What sets an operation, or is added to it: a quantity, a formula, the measurements."""

    text: str
    kind: str  # "nominal", "formula" or "data"
    rests: frozenset[str] = frozenset()  # the quantities that it is computed from


@dataclass(eq=False)
class Part:
    """A part of the flow: an end of the state, or an operation on signals, with what it sets it."""

    label: str
    shape: str  # "port", "round" or "box"
    formula: str = ""
    pills: list[Pill] = field(default_factory=list)
    nominal: str = ""  # the quantity that the part itself is, such as a matrix or a network
    output: str = ""  # the name of what comes out
    telling: bool = False  # whether it is more than arithmetic


class Wire(NamedTuple):
    """A signal from one part to another; `sign` is -1 where it is subtracted."""

    source: Part
    target: Part
    sign: int = 1


@dataclass
class Flow:
    """Parts in the order in which they are computed, wires, and the formulas of what the parts name."""

    parts: list[Part]
    wires: list[Wire]
    formulas: list[tuple[str, str]]  # name, formula
