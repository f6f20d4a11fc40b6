"""An equivalent program that single precision carries; long, as each operation has a form for values in several parts.

For runtimes without double precision, as OpenVINO on processors and most accelerators. What may be beyond 2^24 is kept
as summands `Σ t 2^e`, values of their own. Sums put them side by side, products multiply each with each, moves move
each; where a shift rounds or a clamp cuts, they are carried into digits of 12 bits below a first one that has the sign.
Knuth (1997), The Art of Computer Programming 2, section 4.3.1. That nothing is beyond 2^24 is proved of the new program
as of any other.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import singledispatchmethod
from typing import NamedTuple

import numpy as np

from fanfold.deploy.integer import operations as ops
from fanfold.deploy.integer.draft import Draft, of_type
from fanfold.deploy.integer.intervals import Range, UnprovedError
from fanfold.deploy.integer.program import IntegerProgram
from fanfold.deploy.integer.ranges import FLOAT32_EXACT, RangeRow

DIGIT = 12  # bits
BASE = 1 << DIGIT
MOST_IN_ONE = FLOAT32_EXACT - 2 * BASE  # of a value in one summand, with room for a digit when it is taken apart
MOST_COMPUTED = 1 << 23  # of a summand that is computed here, so that the difference of two is carried
MOST_SUMMANDS = 4  # summands that are not carried into digits until they have to be
WIDE_PORT = "int32"  # the type of ports that single precision does not carry
LEAST_SHIFT = 8  # that brings such a port within the room


def in_single_precision(program: IntegerProgram) -> IntegerProgram:
    """The same outputs, bit for bit, by values and partial sums that float32 carries exactly.

    Only rescales of ports of 32 bits take values beyond 2^24, and an ONNX file splits these ports in whole numbers.

    Raises:
        UnprovedError: If an output itself may be beyond 2^24, or within 8192 of it and in several summands.
        ValueError: If something else than a rescale by one shift of 8 bits or more takes a port of 32 bits.

    Example:
        >>> from fanfold.deploy.integer import Draft, in_single_precision
        >>> draft = Draft("power")
        >>> y = draft.input("y", (4,), "int16")
        >>> draft.output(draft.rescale(draft.mul(y, y), 16, name="x_hat"), (4,))
        >>> programs = draft.finish(), in_single_precision(draft.finish())
        >>> [sorted({row.carrier for row in program.proof.rows}) for program in programs]
        [['float64'], ['float32']]
    """
    return program if fits_single_precision(program) else _Apart(program).whole()


def fits_single_precision(program: IntegerProgram) -> bool:
    """Whether float32 carries all of a program, but for rescales of ports of 32 bits."""
    return not _rows_beyond(program)


def _rows_beyond(program: IntegerProgram) -> list[RangeRow]:
    """What float32 does not carry of a program, but for rescales of ports of 32 bits."""
    wide = _wide_ports(program)
    pairs = zip(program.operations, program.proof.rows, strict=True)
    return [row for op, row in pairs if row.carrier != "float32" and not splits_port(op, wide)]


def _wide_ports(program: IntegerProgram) -> set[str]:
    return {port.name for port in program.inputs if port.dtype == WIDE_PORT}


def splits_port(op: ops.Operation, wide: set[str]) -> bool:
    """Whether an operation is a rescale that takes a port of 32 bits, by one shift, to what float32 carries."""
    if not isinstance(op, ops.Rescale) or op.source not in wide:
        return False
    return bool((op.shift == op.shift[0]).all()) and int(op.shift[0]) >= LEAST_SHIFT


class Summand(NamedTuple):
    """A value of the new program, times a power of two.

    Example:
        >>> from fanfold.deploy.integer.single_precision import Summand
        >>> Summand("high", 12).exponent
        12
    """

    name: str
    exponent: int


class _Apart:
    """The new program of an old one, as it is written."""

    def __init__(self, program: IntegerProgram):
        self.program = program
        self.draft = Draft(program.name, taken=program.sizes)
        self.summands: dict[str, list[Summand]] = {}
        self.wide_ports = _wide_ports(program)
        self.rows = {row.operation: row for row in program.proof.rows}
        self.outputs = {port.name for port in program.outputs}
        self._numbers: dict[int, str] = {}
        self._splits: dict[tuple[str, int], tuple[str, str]] = {}
        self._digits_of: dict[str, list[Summand]] = {}
        self._ranks: dict[tuple[str, bytes], str] = {}

    def whole(self) -> IntegerProgram:
        """The new program."""
        for port in self.program.inputs:
            self.draft.input(port.name, port.shape, port.dtype, port.fraction, port.layout, port.unit)
            self.summands[port.name] = [Summand(port.name, 0)]
        for op in self.program.operations:
            self._write(op)
        for port in self.program.outputs:
            self.draft.output(port.name, port.shape, port.fraction, port.layout, port.unit)
        written = self.draft.finish()
        dtypes = {port.name: port.dtype for port in self.program.outputs}
        typed = [of_type(op, dtypes[op.name]) if op.name in dtypes else op for op in written.operations]
        single = replace(written, operations=tuple(typed), outputs=self.program.outputs)
        for row in _rows_beyond(single):
            sentence = f"{row.operation} may reach {row.bound}, which single precision does not carry; rescale it."
            raise UnprovedError(sentence, row.operation, row.bound, FLOAT32_EXACT)
        return single

    def _write(self, op: ops.Operation) -> None:
        """Copy an operation that float32 carries, or write another value of the same range, or the summands of one."""
        wanted, output = self.program.proof.ranges[op.name], op.name in self.outputs
        moved = output and isinstance(op, ops.Moved)  # its type would be that of its source
        if self._carried(op) and not moved:
            single = {field: self._single(vars(op)[field]) for field in op.sources}
            self.summands[op.name] = [Summand(self.draft.copy(replace(op, **single)), 0)]
            return
        if unsplit := self.wide_ports.intersection(op.inputs):
            raise ValueError(
                f"{op.name} takes {min(unsplit)}, a port of 32 bits, which single precision does not carry; let a "
                f"rescale by one shift of {LEAST_SHIFT} bits or more take it."
            )
        if output and wanted.magnitude > MOST_IN_ONE:
            sentence = (
                f"{op.name} may reach {wanted.magnitude}, more than {MOST_IN_ONE} in single precision; rescale it."
            )
            raise UnprovedError(sentence, op.name, wanted.magnitude, MOST_IN_ONE)
        size = self.program.sizes[op.name]
        summands = [Summand(self._full(summand.name, size), summand.exponent) for summand in self.apart(op)]
        if wanted.magnitude <= MOST_IN_ONE:
            summands = [Summand(self._together(summands, wanted, op.name), 0)]
        self.summands[op.name] = summands if len(summands) <= MOST_SUMMANDS else self._digits(summands)

    def _carried(self, op: ops.Operation) -> bool:
        if splits_port(op, self.wide_ports):
            return True
        single = all(map(self._is_one, op.inputs))
        return single and self.rows[op.name].carrier == "float32"

    @singledispatchmethod
    def apart(self, op: ops.Operation) -> list[Summand]:
        """The summands of an operation, of summands; those of one entry stand for all entries."""
        raise NotImplementedError(f"{op.kind} has no summands; register them in single_precision.")

    @apart.register
    def _(self, op: ops.Const) -> list[Summand]:
        return self._constants(op.values)

    @apart.register
    def _(self, op: ops.MatMul) -> list[Summand]:
        return [part for summand in self.summands[op.source] for part in self._products(op, summand, op.weights)]

    def _products(self, op: ops.MatMul, summand: Summand, weights: np.ndarray) -> list[Summand]:
        """The product of a matrix and a summand: weights of 16 bits as bytes, few bits of the value, few columns."""
        largest = int(np.abs(weights.astype(np.int64)).sum(1).max())
        if largest * self._magnitude(summand.name) <= MOST_COMPUTED:
            return [Summand(self.draft.matmul(summand.name, weights, op.outer, op.inner), summand.exponent)]
        if largest << 8 > MOST_COMPUTED and (weights != (low := _lowest_bytes(weights))).any():
            high = ((weights.astype(np.int64) - low) >> 8).astype(np.int16)
            parts = [(summand, low), (Summand(summand.name, summand.exponent + 8), high)]
            return [part for of, numbers in parts for part in self._products(op, of, numbers)]
        bits = min(DIGIT, (MOST_COMPUTED // largest).bit_length() - 1)
        if bits < 1:
            columns = np.flatnonzero(weights.any(0))
            first = np.isin(np.arange(weights.shape[1]), columns[: len(columns) // 2])
            halves = np.where(first, weights, 0), np.where(first, 0, weights)
            return [part for half in halves for part in self._products(op, summand, half.astype(weights.dtype))]
        return [part for of in self._split_summand(summand, bits) for part in self._products(op, of, weights)]

    @apart.register
    def _(self, op: ops.Rescale) -> list[Summand]:
        shift = int(op.shift.max())
        lifts = shift - op.shift  # entries that are shifted less are lifted first
        summands = self.summands[op.source]
        if lifts.any():
            summands = [part for summand in summands for part in self._lifted(summand, lifts)]
        lowered = [Summand(name, exponent - shift) for name, exponent in summands]
        if all(summand.exponent >= 0 for summand in lowered):
            return lowered
        digits = self._digits(lowered)
        above = [summand for summand in digits if summand.exponent >= 0]
        first_below = digits[len(digits) - len(above) - 1]  # digits after it are less than one of its own
        if first_below.exponent == -DIGIT:  # else it is less than a half
            above.append(Summand(self.draft.rescale(first_below.name, DIGIT), 0))
        return above or [Summand(self._number(0), 0)]

    def _lifted(self, summand: Summand, lifts: np.ndarray) -> list[Summand]:
        """A summand times `2^lift`, another for each entry: by multiples of 12 as exponents, and by what is left."""
        places, left = np.divmod(lifts, DIGIT)
        if self._magnitude(summand.name) << int(left.max()) > MOST_COMPUTED:
            return [part for of in self._split_summand(summand, DIGIT) for part in self._lifted(of, lifts)]
        name = self.draft.rescale(summand.name, -left) if left.any() else summand.name
        if not np.ptp(places):
            return [Summand(name, summand.exponent + DIGIT * int(places[0]))]
        picked = {int(place): self.draft.const((places == place).astype(np.int64)) for place in np.unique(places)}
        return [
            Summand(self._product_of(name, mask), summand.exponent + DIGIT * place) for place, mask in picked.items()
        ]

    @apart.register
    def _(self, op: ops.Clamp) -> list[Summand]:
        digits, reached = self._digits_of_value(op.source), self.program.proof.ranges[op.source]
        low = np.minimum(np.maximum(op.low, reached.span.low), op.high)
        high = np.maximum(np.minimum(op.high, reached.span.high), op.low)
        if max(np.abs(low).max(), np.abs(high).max()) <= (BASE // 4 - 1) * BASE:
            return [Summand(self.draft.clamp(self._saturated(digits), low, high), 0)]
        if (low > reached.low).any():
            digits = self._no_lower(digits, low)
        if (high < reached.high).any():  # min(v, high) = high - max(high - v, 0)
            below = self._no_lower([*self._constants(high), *self._negative(digits)], np.zeros(1, np.int64))
            digits = [*self._constants(high), *self._negative(below)]
        return digits

    def _saturated(self, digits: list[Summand]) -> str:
        """Digits as one value where that is within 2^22, and beyond it a value beyond any that is less by a digit."""
        name, place = digits[-1]
        for lower in (*digits[-2::-1], Summand("", 0)):
            while place > lower.exponent:  # digits that are not there are zero
                place -= DIGIT
                within = self.draft.clamp(name, -(BASE // 4), BASE // 4 - 1)
                name = self.draft.rescale(within, -DIGIT)
            name = self._sum([name, lower.name]) if lower.name else name
        return name

    def _no_lower(self, summands: list[Summand], low: np.ndarray) -> list[Summand]:
        """`max(v, low)`: low plus what is above it, times one where that has no sign."""
        digits = self._digits([*summands, *self._constants(-low)])
        kept = self.draft.add(self.draft.clamp(digits[-1].name, -1, 0), self._number(1))
        above = [Summand(self._product_of(name, kept), exponent) for name, exponent in digits]
        return [*above, *self._constants(low)]

    def _product_of(self, left: str, right: str) -> str:
        longer, other = sorted([left, right], key=self._size, reverse=True)
        return self.draft.mul(longer, other)

    @apart.register
    def _(self, op: ops.Lookup) -> list[Summand]:
        return [
            Summand(self.draft.lookup(self._single(op.source), op.low, part), e) for part, e in _digits_of(op.values)
        ]

    @apart.register
    def _(self, op: ops.Bank) -> list[Summand]:
        span = self.program.proof.ranges[op.row].span
        first, last = np.searchsorted(op.edges, span, side="right")  # other rows are never picked
        values, edges, source = op.values[first : last + 1], op.edges[first:last], self._single(op.source)
        if not edges.size:
            return [Summand(self.draft.lookup(source, op.low, part[0]), e) for part, e in _digits_of(values)]
        if self._is_one(op.row):
            row = self._single(op.row)
        else:
            row, edges = self._rank(op.row, edges), np.arange(1, len(edges) + 1)
        return [Summand(self.draft.bank(source, row, edges, op.low, part), e) for part, e in _digits_of(values)]

    def _rank(self, name: str, edges: np.ndarray) -> str:
        """How many of some edges each entry of a wide value reaches: as many as differences without a sign."""
        key = name, edges.tobytes()
        if key not in self._ranks:
            count, size = len(edges), self.program.sizes[name]
            ones = np.ones((count, 1), np.int16)  # of products of bytes OpenVINO mistakes the type beside a comparison
            repeated = [Summand(self.draft.matmul(n, ones, size), e) for n, e in self._digits_of_value(name)]
            less = [Summand(self.draft.const(np.tile(part, size)), e) for part, e in _digits_of(-edges)]
            first = self._full(self._digits([*repeated, *less])[-1].name, size * count)
            short = self.draft.matmul(self.draft.clamp(first, -1, 0), ones.T, size)
            self._ranks[key] = self.draft.add(short, self._number(count))
        return self._ranks[key]

    @apart.register
    def _(self, op: ops.Add) -> list[Summand]:
        return [*self.summands[op.left], *self.summands[op.right]]

    @apart.register
    def _(self, op: ops.Sub) -> list[Summand]:
        return [*self.summands[op.left], *self._negative(self.summands[op.right])]

    def _negative(self, summands: Sequence[Summand]) -> list[Summand]:
        return [Summand(self.draft.mul(summand.name, self._number(-1)), summand.exponent) for summand in summands]

    @apart.register
    def _(self, op: ops.Mul) -> list[Summand]:
        pairs = [(left, right) for left in self.summands[op.left] for right in self.summands[op.right]]
        return [part for pair in pairs for part in self._multiplied(*pair)]

    def _multiplied(self, left: Summand, right: Summand) -> list[Summand]:
        """The product of two summands: the larger one in parts, until single precision carries each."""
        sizes = [self._magnitude(summand.name) for summand in (left, right)]
        if sizes[0] * sizes[1] <= MOST_COMPUTED:
            return [Summand(self._product_of(left.name, right.name), left.exponent + right.exponent)]
        larger, other = (left, right) if sizes[0] >= sizes[1] else (right, left)
        bits = DIGIT if 2 * min(sizes) <= BASE else DIGIT - 1  # so that products of two digits are within the room
        return [part for of in self._split_summand(larger, bits) for part in self._multiplied(of, other)]

    @apart.register
    def _(self, op: ops.Moved) -> list[Summand]:
        return [
            Summand(
                self.draft.copy(replace(op, name=self.draft.next_name("moved"), source=summand.name)), summand.exponent
            )
            for summand in self.summands[op.source]
        ]

    @apart.register
    def _(self, op: ops.Join) -> list[Summand]:
        sides = [{e: name for name, e in self._digits_of_value(side)} for side in op.inputs]
        nothing = [self._full(self._number(0), self.program.sizes[side]) for side in op.inputs]
        joined = []
        for exponent in sorted(set().union(*sides)):
            left, right = (side.get(exponent, zero) for side, zero in zip(sides, nothing))
            joined.append(Summand(self.draft.join(left, right, op.outer), exponent))
        return joined

    # Summands and digits

    def _magnitude(self, name: str) -> int:
        return self.draft.ranges[name].magnitude

    def _size(self, name: str) -> int:
        return self.draft.sizes[name]

    def _is_one(self, name: str) -> bool:
        return len(self.summands[name]) == 1 and self.summands[name][0].exponent == 0

    def _single(self, name: str) -> str:
        """The value of the new program that is the one of the old, where that is not wide."""
        ((single, exponent),) = self.summands[name]
        assert exponent == 0
        return single

    def _number(self, value: int) -> str:
        if value not in self._numbers:
            self._numbers[value] = self.draft.const(value)
        return self._numbers[value]

    def _constants(self, values: np.ndarray) -> list[Summand]:
        return [Summand(self.draft.const(part), exponent) for part, exponent in _digits_of(values)]

    def _full(self, name: str, size: int) -> str:
        """A value with all its entries, where it has one for all."""
        if self._size(name) == size:
            return name
        return self.draft.add(self.draft.const(np.zeros(size, np.int64)), name)

    def _sum(self, names: Sequence[str]) -> str:
        first, *others = sorted(names, key=self._size, reverse=True)
        for name in others:
            first = self.draft.add(first, name)
        return first

    def _split_summand(self, summand: Summand, bits: int) -> list[Summand]:
        low, high = self._split(summand.name, bits)
        parts = [Summand(low, summand.exponent)]
        return parts if high is None else [*parts, Summand(high, summand.exponent + bits)]

    def _split(self, name: str, bits: int) -> tuple[str, str | None]:
        """The lowest bits of a value, and the others, rounded down; none where there are no others."""
        low, high = self.draft.ranges[name].span
        if low >= 0 and high < 1 << bits:
            return name, None
        if (name, bits) not in self._splits:
            if max(-low, high) <= MOST_COMPUTED - BASE:
                parts = [self._split_below(name, bits)]
            else:  # each sign by itself, as the proof does not know that a value and its rounding are near
                parts = [self._split_below(self.draft.clamp(name, 0, high), bits)] if high > 0 else []
                parts += [self._split_above(self.draft.clamp(name, low, 0), bits)] if low < 0 else []
            below, above = zip(*parts)
            self._splits[name, bits] = self._sum(below), self._sum(above)
        return self._splits[name, bits]

    def _split_below(self, name: str, bits: int) -> tuple[str, str]:
        """The lowest bits, and the others, rounded down: half up, less a half."""
        above = self.draft.rescale(self.draft.sub(name, self._number(1 << (bits - 1))), bits)
        rest = self.draft.sub(name, self.draft.rescale(above, -bits))
        return self.draft.clamp(rest, 0, (1 << bits) - 1), above

    def _split_above(self, name: str, bits: int) -> tuple[str, str]:
        """The same of a value without positive ones, by what it lacks, which is rounded up."""
        lacks = self.draft.mul(name, self._number(-1))
        lower = self.draft.sub(lacks, self._number((1 << (bits - 1)) + 1))
        lacking = self.draft.add(self.draft.rescale(lower, bits), self._number(1))
        rest = self.draft.add(name, self.draft.rescale(lacking, -bits))
        return self.draft.clamp(rest, 0, (1 << bits) - 1), self.draft.mul(lacking, self._number(-1))

    def _digits_of_value(self, name: str) -> list[Summand]:
        if name not in self._digits_of:
            self._digits_of[name] = self._digits(self.summands[name])
        return self._digits_of[name]

    def _digits(self, summands: Sequence[Summand]) -> list[Summand]:
        """The digits of a sum of summands, the lowest first, from 0 to 4095 but for the last one, which has the sign.

        Their exponents are multiples of 12; digits that are zero may be left out.
        """
        places: dict[int, list[str]] = {}
        for name, exponent in summands:
            place, left = divmod(exponent, DIGIT)
            if left and self._magnitude(name) << left > MOST_COMPUTED // 4:
                name, high = self._split(name, DIGIT - left)
                places.setdefault(place + 1, []).extend([] if high is None else [high])
            places.setdefault(place, []).append(self.draft.rescale(name, -left) if left else name)
        digits, place = [], min(places)
        while places:
            names = places.pop(place, [])
            if sum(map(self._magnitude, names)) > MOST_COMPUTED // 2:
                parts = [self._split(name, DIGIT) for name in names]
                names = [low for low, _ in parts]
                if above := [high for _, high in parts if high is not None]:
                    places.setdefault(place + 1, []).extend(above)
            if names:
                total = self._sum(names)
                if any(places.values()):
                    total, high = self._split(total, DIGIT)
                    places.setdefault(place + 1, []).extend([] if high is None else [high])
                digits.append(Summand(total, DIGIT * place))
            places = {at: there for at, there in places.items() if there}
            place += 1
        return digits

    def _together(self, summands: list[Summand], wanted: Range, name: str) -> str:
        """The sum of summands as one value within a range, which it is known to have."""
        digits = self._digits(summands) if len(summands) > 1 or summands[0].exponent else summands
        value, place = digits[-1]
        for lower, exponent in (*digits[-2::-1], Summand("", 0)):
            if place - exponent > 2 * DIGIT:  # digits between are zero, so that this one is too
                value = self._number(0)
            value = self._within(value, Range(wanted.low >> place, wanted.high >> place))
            value = self.draft.rescale(value, exponent - place) if place > exponent else value
            value, place = self._sum([value, lower]) if lower else value, exponent
        return self._within(value, wanted, name if name in self.outputs else None)

    def _within(self, value: str, wanted: Range, name: str | None = None) -> str:
        """A value with a range that it is known to have, where the proof does not see it; always one of a name."""
        seen = self.draft.ranges[value]
        if name is None and (seen.low >= wanted.low).all() and (seen.high <= wanted.high).all():
            return value
        ends = [end[:1] if (end == end[0]).all() else end for end in wanted]
        size = max(end.size for end in ends)
        return self.draft.clamp(value, *(np.broadcast_to(end, size).copy() for end in ends), name=name)


def _lowest_bytes(weights: np.ndarray) -> np.ndarray:
    """The byte with a sign that numbers are more than a multiple of 256."""
    return weights.astype(np.uint16).astype(np.uint8).view(np.int8)


def _digits_of(values: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Numbers as arrays times powers of two: one, or digits of 12 bits below the first."""
    if not values.size or np.abs(values).max() <= MOST_IN_ONE:
        return [(values, 0)]
    return [(values % BASE, 0), *((part, exponent + DIGIT) for part, exponent in _digits_of(values >> DIGIT))]
