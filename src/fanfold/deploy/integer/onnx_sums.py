"""Sums of an integer program in an ONNX file, with few nodes; long, as all that writes them shares what is written.

What is scaled and rounded in the end is scaled first.

A rescale `Floor(v 2^-s + 1/2)` of a sum is the sum of scaled terms, where float32, or else float64, carries every part
exactly: this is proved from the ranges of the values. So a shift costs no node where its term is scaled anyway, and
what is added and taken away again is left out: a layer `soft(p + x) - x` is `p - clip(p + x)`. A sum that several
others go on from, as a residual does from layer to layer, is kept with the factor and the offset of its first use.
For one sample a node costs some 0.3 µs in ONNX Runtime, whatever it computes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.intervals import FLOAT64_EXACT, Range
from fanfold.deploy.integer.ranges import FLOAT32_EXACT, OFFSET

CARRIERS = {"float32": FLOAT32_EXACT, "float64": FLOAT64_EXACT}  # whole numbers up to here are exact
NONE = np.zeros(1)
# Parts of one that are added so that nothing is half way; small ones stay parts of it when scales become finer
PARTS = (0.0625, 0.125, 0.25, 0.5)
LEAST_PART = 2.0**-16  # of a byte, so that it and the digits behind it are within 24 bits


class Nodes(Protocol):
    """The graph that nodes are written into."""

    operations: dict[str, ops.Operation]
    ranges: dict[str, Range]
    bytes: dict[str, str]  # values there are as unsigned bytes, 128 more, and their tensors
    products: dict[str, str]  # products of bytes, and their tensors of int32
    multiplied: set[str]  # values that will be bytes
    outputs: set[str]
    varying: set[str]  # values that some input reaches, of those so far
    carriers: dict[str, int]  # the types that sums are carried in, narrow ones first, and what they hold exactly

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str: ...

    def number(self, values: Any, dtype: str) -> str: ...

    def source(self, name: str, dtype: str) -> str: ...

    def cast(self, tensor: str, dtype: str) -> str: ...

    def table(self, name: str, factor: float, dtype: str) -> str: ...


class ScaledTensor(NamedTuple):
    """A tensor, and the largest whole number that it and its parts are in units of their last digit.

    Example:
        >>> from fanfold.deploy.integer.onnx_sums import ScaledTensor
        >>> ScaledTensor("t3", 255.0).needed
        255.0
    """

    tensor: str
    needed: float


class Combination(NamedTuple):
    """A sum of values times numbers, `(1,)` or one for each entry, and a constant.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer.onnx_sums import Combination
        >>> Combination({"x": np.ones(1)}, np.zeros(1)).plus(Combination({"x": np.ones(1)}, np.ones(1)), -1).terms
        {'x': array([0.])}
    """

    terms: dict[str, np.ndarray]
    constant: np.ndarray

    def plus(self, other: "Combination", sign: int) -> "Combination":
        """The sum or the difference."""
        terms = dict(self.terms)
        for name, factor in other.terms.items():
            terms[name] = terms.get(name, NONE) + sign * factor
        return Combination(terms, self.constant + sign * other.constant)

    def times(self, factor: np.ndarray) -> "Combination":
        """The multiple."""
        return Combination({name: factor * c for name, c in self.terms.items()}, factor * self.constant)


class ScaledSums:
    """Writes `factor v + offset` for values v of a program.

    Args:
        graph: Where the nodes go. Those that nothing needs in the end are left out there.

    Attributes:
        within: The values that need no nodes of their own but where something else than a sum takes them.
    """

    def __init__(self, graph: Nodes):
        self.graph = graph
        self._written: dict[tuple[str, str, bytes, bytes], ScaledTensor] = {}
        self._first: dict[tuple[str, str], tuple[np.ndarray, np.ndarray, ScaledTensor]] = {}  # of what is kept
        self._passed = {op.name for op in graph.operations.values() if self._is_linear(op)}
        self._clipped = self._inner_clamps()
        self._gains = self._gained()
        self._kept = self._shared()
        self.within = self._passed | self._clipped | self._rounded() | self._gains.keys()

    def write(self, name: str, factor: np.ndarray, offset: float) -> tuple[str, str] | None:
        """A tensor that is the value times a factor plus an offset, and its type; None if no type holds it exactly."""
        for dtype, limit in self.graph.carriers.items():
            part = self._part(name, np.asarray(factor, np.float64), np.full(1, float(offset)), dtype)
            if part.needed <= limit:
                return part.tensor, dtype
        return None

    def to_bytes(self, name: str, factor: np.ndarray) -> str | None:
        """A tensor of bytes: 128 more than the value times powers of two below 1, half up; None if it cannot be.

        It is `QuantizeLinear`, whose ties go to even. So a part of one is added to the value, which leaves nothing half
        way and changes nothing else, if it is not there already. The node has a scale, so that the value is taken in
        that which it has. Beyond what bytes hold, digits may be lost.
        """
        if not ((LEAST_PART / PARTS[-1] <= factor) & (factor < 1)).all():  # some runtimes add 128 in single precision
            return None
        a, b = self._as_it_is(name) or (factor, NONE)
        if (plain := self._of_plain_leaf(name)) is not None:
            a, b = plain, b * plain / a
        unit = a / factor
        if (unit != unit[0]).any():
            a, b, unit = factor, NONE, np.ones(1)
        alone, there = self._never_half_way(name, factor), bool(((b * factor >= LEAST_PART * a) & (b < a)).all())
        parts = [a.min(keepdims=True) * p for p in PARTS if (factor * p * a.min() >= LEAST_PART * a).all()]
        if not (alone or parts):
            return None
        fresh = [] if alone or ((b < 0).any() and name in self._kept) else parts
        for offset in (b, *fresh, NONE) if there else (*fresh, b, NONE):
            tensor, needed = self._part(name, a, offset, "float32")
            if needed <= FLOAT32_EXACT:
                break
        else:
            return None
        if not ((offset > 0) & (offset < a)).all() and not (alone and not offset.any()):
            tensor = self.graph.node("Add", [tensor, self._numbers(a.min() * PARTS[-1] - offset, "float32")])
        ends = self.graph.number(unit[0], "float32"), self.graph.number(OFFSET, "uint8")
        return self.graph.node("QuantizeLinear", [tensor, *ends])

    def _never_half_way(self, name: str, factor: np.ndarray) -> bool:
        """Whether the value times a factor is never half way between whole numbers, as it is too small a multiple."""
        terms, constant = self._combination(name, whole=True)
        if len(terms) != 1 or constant.any():
            return False
        ((term, c),) = terms.items()
        least = 0.5 / factor / last_digit(c)  # what is multiplied is a multiple of it, where the product is half way
        return bool((self._largest(term) < least).all())

    def _of_plain_leaf(self, name: str) -> np.ndarray | None:
        """The factor of a sum with which a product in it is as it is, and is not scaled for each of its uses."""
        if name in self._kept or name not in self._passed:
            return None
        apart = self._kept | self._clipped | self.graph.bytes.keys() | self._gains.keys()
        terms = self._combination(name, whole=True).terms
        return next((1 / c for term, c in terms.items() if term not in apart and are_powers_of_two(c)), None)

    def _as_it_is(self, name: str) -> tuple[np.ndarray, np.ndarray] | None:
        """The positive factor and the offset of a value that take a sum within it as that is there, or will be."""
        if (first := self._first.get(("float32", name))) is not None:
            a, b, _ = first
            return (a, b) if (a > 0).all() else None
        op = self.graph.operations.get(name)
        if op is None:  # what comes in
            return np.ones(1), NONE
        if isinstance(op, ops.Clamp) and name in self._clipped:
            return self._as_it_is(op.source)
        if name not in self._passed:
            return None
        for term, c in self._combination(name, whole=True).terms.items():
            there = self._as_it_is(term) if are_powers_of_two(np.abs(c)) else None
            if there is not None:
                return there[0] / np.abs(c), there[1] * np.sign(c)
        return None

    # What is a sum, and which are kept

    def _is_linear(self, op: ops.Operation) -> bool:
        if isinstance(op, ops.Rescale):
            return bool((op.shift <= 0).all())
        if isinstance(op, ops.Add | ops.Sub):
            return any(self._has_size_of(op.name, side) for side in op.inputs)
        return isinstance(op, ops.Mul) and self._known_factor(op) is not None

    def _has_size_of(self, name: str, side: str) -> bool:
        """Whether a side of a sum, no constant, has all its entries: a constant that spreads it may be left out."""
        if isinstance(self.graph.operations.get(side), ops.Const):
            return False
        return self._largest(side).size == self._largest(name).size

    def _known_factor(self, op: ops.Mul) -> tuple[str, np.ndarray] | None:
        """What numbers of the program multiply, and these."""
        for known, other in ((op.right, op.left), (op.left, op.right)):
            factors = self.graph.operations.get(known)
            if isinstance(factors, ops.Const) and self.graph.ranges[other].low.size >= factors.values.size:
                return other, factors.values
        return None

    def _consumers(self) -> dict[str, list[ops.Operation]]:
        consumers: dict[str, list[ops.Operation]] = {}
        for op in self.graph.operations.values():
            for name in op.inputs:
                consumers.setdefault(name, []).append(op)
        return consumers

    def _inner_clamps(self) -> set[str]:
        """Clamps of sums whose values go into sums alone."""
        consumers = self._consumers()
        return {
            op.name
            for op in self.graph.operations.values()
            if isinstance(op, ops.Clamp)
            and op.name not in self.graph.multiplied | self.graph.outputs
            and (op.source in self._passed or isinstance(self.graph.operations.get(op.source), ops.MatMul))
            and all(user.name in self._passed for user in consumers.get(op.name, []))
        }

    def _rounded(self) -> set[str]:
        """Rescales that clamps alone take, which write them."""
        consumers = self._consumers()
        return {
            op.name
            for op in self.graph.operations.values()
            if isinstance(op, ops.Rescale)
            and op.name not in self.graph.outputs
            and all(isinstance(user, ops.Clamp) for user in consumers.get(op.name, []))
        }

    def _gained(self) -> dict[str, tuple[str, str]]:
        """Products with a table that nothing else takes, each of which one sum takes: what they are of, and the table.

        A factor of such a product is one of the table.
        """
        consumers, gained = self._consumers(), {}
        for op in self.graph.operations.values():
            users = consumers.get(op.name, [])
            if not isinstance(op, ops.Mul) or op.name in self._passed | self.graph.outputs or len(users) != 1:
                continue
            if not (users[0].name in self._passed or isinstance(users[0], ops.Rescale)):
                continue
            for side, other in ((op.right, op.left), (op.left, op.right)):
                tabled = isinstance(self.graph.operations.get(side), ops.Lookup | ops.Bank)
                if tabled and side != other and side not in self.graph.outputs and len(consumers[side]) == 1:
                    gained[op.name] = other, side
        return gained

    def _shared(self) -> set[str]:
        """Sums that more than one rounding, or another sum that is kept, goes on from."""
        consumers, kept, within = self._consumers(), set(), self._passed | self._clipped
        users: dict[str, set[str]] = {}
        for name in reversed(self.graph.operations):
            mine: set[str] = {"output"} if name in self.graph.outputs else set()
            for user in consumers.get(name, []):
                mine |= users[user.name] if user.name in within - kept else {user.name}
            users[name] = mine
            if name in within and len(mine) > 1:
                kept.add(name)
        return kept

    def _combination(self, name: str, *, whole: bool) -> Combination:
        """The value as a sum of what is kept, clipped, or no sum; of itself, if it is one of these, unless `whole`."""
        op = self.graph.operations.get(name)
        if isinstance(op, ops.Const):
            return Combination({}, op.values.astype(np.float64))
        if name not in self._passed or (name in self._kept and not whole):
            return Combination({name: np.ones(1)}, NONE)
        if isinstance(op, ops.Add | ops.Sub):
            left, right = (self._combination(side, whole=False) for side in op.inputs)
            return left.plus(right, 1 if isinstance(op, ops.Add) else -1)
        if isinstance(op, ops.Rescale):
            return self._combination(op.source, whole=False).times(np.ldexp(1.0, -op.shift))
        assert isinstance(op, ops.Mul)
        known = self._known_factor(op)
        assert known is not None
        return self._combination(known[0], whole=False).times(known[1].astype(np.float64))

    # Nodes

    def _part(self, name: str, a: np.ndarray, b: np.ndarray, dtype: str) -> ScaledTensor:
        """The tensor `a v + b`."""
        key = dtype, name, a.tobytes(), b.tobytes()
        if key not in self._written:
            tensor, needed = self._of_kept(name, a, b, dtype) if name in self._kept else self._new(name, a, b, dtype)
            self._written[key] = ScaledTensor(tensor, max(needed, self._digits(name, a, b)))
        return self._written[key]

    def _digits(self, name: str, a: np.ndarray, b: np.ndarray) -> float:
        largest = self._largest(name) * np.abs(a) + np.abs(b)
        return float((largest / np.minimum(last_digit(a), last_digit(b))).max())

    def _of_kept(self, name: str, a: np.ndarray, b: np.ndarray, dtype: str) -> ScaledTensor:
        """Of a value that is there, or is now kept with this factor and this offset."""
        if (dtype, name) not in self._first:
            part = self._new(name, a, b, dtype)
            if a.all() and max(part.needed, self._digits(name, a, b)) <= CARRIERS[dtype]:
                self._first[dtype, name] = a, b, part
            return part
        a_first, b_first, part = self._first[dtype, name]
        ratio = a / a_first
        if (np.abs(np.frexp(ratio)[0]) != 0.5).any():  # no power of two, so that the product might be rounded
            return self._new(name, a, b, dtype)
        before = ratio * b_first
        digit = np.minimum.reduce([last_digit(part) for part in np.broadcast_arrays(a, b, before)])
        reached = self._largest(name) * np.abs(a) + np.abs(before) + np.abs(b)
        tensor = self._moved(part.tensor, ratio, b - before, dtype)
        return ScaledTensor(tensor, max(part.needed, float((reached / digit).max())))

    def _moved(self, tensor: str, factor: np.ndarray, offset: np.ndarray, dtype: str) -> str:
        """A tensor times a factor, plus an offset."""
        if (factor != 1).any():
            tensor = self.graph.node("Mul", [tensor, self._numbers(factor, dtype)])
        return self.graph.node("Add", [tensor, self._numbers(offset, dtype)]) if offset.any() else tensor

    def _new(self, name: str, a: np.ndarray, b: np.ndarray, dtype: str) -> ScaledTensor:
        op = self.graph.operations.get(name)
        if isinstance(op, ops.Clamp) and name in self._clipped:
            return self._clip(op, a, b, dtype)
        if name in self._passed:
            return self._sum(name, a, b, dtype)
        return ScaledTensor(self._leaf(name, a, b, dtype), 0.0)

    def _clip(self, op: ops.Clamp, a: np.ndarray, b: np.ndarray, dtype: str) -> ScaledTensor:
        if (a < 0).any():
            part = self._part(op.name, np.abs(a), NONE, dtype)
            return ScaledTensor(self._moved(part.tensor, np.sign(a), b, dtype), part.needed)
        offset = b
        if self._part(op.source, a, b, dtype).needed > CARRIERS[dtype]:  # what is added after it has fewer digits
            offset = NONE
        tensor, needed = self._part(op.source, a, offset, dtype)
        tensor = clipped(self.graph, tensor, a * op.low + offset, a * op.high + offset, dtype)
        return ScaledTensor(self._moved(tensor, np.ones(1), b - offset, dtype), needed)

    def _sum(self, name: str, a: np.ndarray, b: np.ndarray, dtype: str) -> ScaledTensor:
        terms, constant = self._combination(name, whole=True).times(a)
        constant, left = constant + b, {name: c for name, c in terms.items() if c.any()}
        if any(term in self.graph.varying and self._has_size_of(name, term) for term in left):
            terms = left  # without what cancels, unless the batch and the size are its own
        if not terms:  # with all its entries, as a product may take it
            whole = np.broadcast_to(constant, self._largest(name).shape)
            return ScaledTensor(self.graph.number(whole[None], dtype), 0.0)
        bearer = self._bearer(terms)
        added = sorted(terms, key=lambda term: bool((terms[term] < 0).any()))  # what is taken away comes last
        digit, size, needed, tensor = last_digit(constant), np.abs(constant), 0.0, ""
        for term in added:
            c, o = terms[term], constant if term == bearer else NONE
            negative = bool(tensor) and bool((c < 0).all())
            part = self._part(term, *((-c, -o) if negative else (c, o)), dtype)
            tensor = self.graph.node("Sub" if negative else "Add", [tensor, part.tensor]) if tensor else part.tensor
            digit, size = np.minimum(digit, last_digit(c)), size + np.abs(c) * self._largest(term)
            reached = size if term != added[-1] else np.minimum(size, np.abs(a) * self._largest(name) + np.abs(b))
            needed = max(needed, part.needed, float((reached / digit).max()))
        return ScaledTensor(tensor, needed)

    def _largest(self, name: str) -> np.ndarray:
        low, high = self.graph.ranges[name]
        return np.maximum(np.abs(low), np.abs(high))

    def _bearer(self, terms: dict[str, np.ndarray]) -> str:
        """The term that takes the offset: one that is kept, whose offset may be there, else one that is clipped."""
        rank = [name not in self._kept and 1 + (name not in self._clipped) for name in terms]
        return list(terms)[rank.index(min(rank))]

    def _leaf(self, name: str, a: np.ndarray, b: np.ndarray, dtype: str) -> str:
        graph = self.graph
        if name in self._gains and (a == a[0]).all() and are_powers_of_two(np.abs(a)):
            other, table = self._gains[name]
            product = graph.node("Mul", [graph.source(other, dtype), graph.table(table, float(a[0]), dtype)])
            return self._moved(product, np.ones(1), b, dtype)
        if name in graph.products and dtype == "float32" and (a == a[0]).all() and are_powers_of_two(a) and a[0] != 1:
            scaled = graph.node("DequantizeLinear", [graph.products[name], graph.number(a[0], dtype)])
            return self._moved(scaled, np.ones(1), b, dtype)
        if name in graph.bytes and (a == a[0]).all() and 0 < OFFSET * a[0] <= FLOAT32_EXACT * last_digit(a)[0]:
            inputs = [graph.bytes[name], graph.number(a[0], "float32"), graph.number(OFFSET, "uint8")]
            tensor = graph.node("DequantizeLinear", inputs)
            return self._moved(tensor if dtype == "float32" else graph.cast(tensor, dtype), np.ones(1), b, dtype)
        return self._moved(graph.source(name, dtype), a, b, dtype)

    def _numbers(self, values: np.ndarray, dtype: str) -> str:
        return self.graph.number(values[0] if (values == values[0]).all() else values[None], dtype)


def clipped(graph: Nodes, tensor: str, low: np.ndarray, high: np.ndarray, dtype: str) -> str:
    """A tensor between two ends, `(1,)` or one for each entry; one node where they are the same for all."""
    ends: Sequence[np.ndarray] = (low, high)
    if all((end == end[0]).all() for end in ends):
        return graph.node("Clip", [tensor, *(graph.number(end[0], dtype) for end in ends)])
    above = graph.node("Max", [tensor, graph.number(low[None], dtype)])
    return graph.node("Min", [above, graph.number(high[None], dtype)])


def are_powers_of_two(numbers: np.ndarray) -> bool:
    """Whether all of them are positive ones."""
    return bool((np.frexp(numbers)[0] == 0.5).all())


def last_digit(values: np.ndarray) -> np.ndarray:
    """The largest power of two that each number is a multiple of; infinite for 0.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer.onnx_sums import last_digit
        >>> last_digit(np.array([0.75, -6.0, 0.0])).tolist()
        [0.25, 2.0, inf]
    """
    fraction, exponent = np.frexp(values)
    whole = np.ldexp(fraction, 53).astype(np.int64)
    lowest = np.ldexp((whole & -whole).astype(np.float64), exponent - 53)
    return np.where(values == 0, np.inf, lowest)
