"""The signal flow of a step: what the signals go through, what sets it, and the formulas of the numbers in between."""

from collections.abc import Iterator

from fanfold.report.diagram.parts import Flow, Part, Pill, Wire
from fanfold.report.diagram.recording import StepOperation, StepRecord, Taken, Value
from fanfold.report.diagram.symbols import OPEN, Formulas, plain_text, pretty, symbol_of

SHORT = 14  # characters of a formula that stands beside what it sets
MOST_DRAWN = 15  # operations that are drawn one by one
SCALES = frozenset(["mul", "div", "truediv", "rmul"])
MATRICES = frozenset(["linear", "matmul", "mm", "mv"])
SIGNS = {"add": (1, 1), "radd": (1, 1), "sub": (1, -1), "rsub": (-1, 1)}
ROUND = {"mul": "×", "rmul": "×", "div": "÷", "truediv": "÷", "rdiv": "1/·", "neg": "−1", "abs": "|·|", "square": "·²"}


def flow_of(record: StepRecord) -> Flow:
    """The flow of a recorded step.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.report.diagram.recording import recorded
        >>> _, obs = ff.problems.CompressedSensing(n=40, m=20).sample(2, torch.Generator().manual_seed(0))
        >>> amp = ff.algorithms.AMP()
        >>> [part.label for part in flow_of(recorded(amp, obs, [amp.nominal_theta(obs)])).parts if part.telling]
        ['Aᴴ', 'soft', 'A']
    """
    return _Drawn(record).flow()


class _Drawn:
    def __init__(self, record: StepRecord):
        self.record, self.formulas = record, Formulas(record)
        self.kept = {id(q) for field, q in record.after.items() if record.state.get(field) is q}
        self.signals = self._signals()
        self.outputs = {k: q for k, q in record.after.items() if id(q) in self.signals and q.maker is not None}
        self.operations = self._needed()
        self.readers: dict[int, list[StepOperation]] = {}
        for o in self.operations:
            for q in self._signals_of(o):
                self.readers.setdefault(id(q), []).append(o)
        self.named: dict[int, Value] = {}  # values that a formula is to be given of
        self.parts: dict[int, Part] = {}  # by operation
        self.letters = 0
        self.rests: dict[int, frozenset[str]] = {}

    def _signals(self) -> set[int]:
        """Values with an entry for each unknown or measurement of each sample that come from such values."""
        record = self.record
        lone = 1 in (record.n, record.m)

        def wide(q: Value) -> bool:
            return len(q.shape) > 1 and (q.shape[-1] > 1 or lone)

        found = {id(q) for q in (*record.state.values(), record.data["y"]) if wide(q)}
        for o in record.operations:
            if any(id(t) in found for t in o.takes):
                found |= {id(q) for q in o.gives if wide(q)}
        return found

    def _signals_of(self, o: StepOperation) -> list[Value]:
        return [t for t in o.takes if isinstance(t, Value) and id(t) in self.signals]

    def _needed(self) -> list[StepOperation]:
        """The operations through which signals of the next state pass."""
        wanted, needed = {id(q) for q in self.outputs.values()}, []
        for o in reversed(self.record.operations):
            if any(id(q) in wanted for q in o.gives):
                needed.append(o)
                wanted |= {id(q) for q in self._signals_of(o)}
        return needed[::-1]

    def flow(self) -> Flow:
        groups = self._groups()
        ports = {
            id(q): Part(pretty(name), "port", f"{pretty(name)}: the state that the step before left")
            for name, q in self.record.state.items()
            if id(q) in self.readers and not self._is_beside(q)
        }
        wires: list[Wire] = []
        for group in groups:
            part = self._part(group)
            part.telling = any(o.kind != "arithmetic" or o.word in MATRICES for o in group)
            for o in group:
                self.parts[id(o)] = part
            for q, sign in self._taken(group):
                if self._is_beside(q):
                    part.pills.append(Pill(("−" if sign < 0 else "") + self.formulas.of(q), "data"))
                else:
                    source = ports[id(q)] if q.maker is None else self.parts[id(q.maker)]
                    wires.append(Wire(source, part, sign))
        ends = []
        for name, q in self.outputs.items():
            end = Part(pretty(name), "port", f"{pretty(name)}: the state that goes to the next step")
            assert q.maker is not None
            ends.append(end)
            wires.append(Wire(self.parts[id(q.maker)], end))
        parts = [*ports.values(), *dict.fromkeys(self.parts.values()), *ends]
        return Flow(parts, list(dict.fromkeys(wires)), self._definitions())

    def _is_beside(self, q: Value) -> bool:
        """Whether a signal is the same in every step, and so stands beside what it goes into."""
        return q.origin == "data" or id(q) in self.kept

    def _groups(self) -> list[list[StepOperation]]:
        """Operations that are drawn as one: factors in a row; and where there are many, whole formulas."""
        groups = self._merged(lambda o: self._scales(o))
        if len(groups) <= MOST_DRAWN:
            return groups
        return self._merged(lambda o: o.kind == "arithmetic" and o.word not in MATRICES)

    def _merged(self, joins) -> list[list[StepOperation]]:
        into: dict[int, list[StepOperation]] = {}
        ends = {id(q) for q in self.outputs.values()}
        for o in reversed(self.operations):
            readers = [r for q in o.gives for r in self.readers.get(id(q), ())]
            lone = len(readers) == 1 and joins(o) and joins(readers[0])
            unnamed = not any(q.name or id(q) in ends for q in o.gives)
            group = into[id(readers[0])] if lone and unnamed else []
            group.insert(0, o)
            into[id(o)] = group
        return list({id(into[id(o)]): into[id(o)] for o in reversed(self.operations)}.values())[::-1]

    def _scales(self, o: StepOperation) -> bool:
        """Whether an operation multiplies or divides one signal by what is none."""
        signals = self._signals_of(o)
        return (
            o.kind == "arithmetic"
            and o.word in SCALES
            and len(signals) == 1
            and o.takes.count(signals[0]) == 1
            and (o.word not in ("div", "truediv") or o.takes[0] is signals[0])
        )

    def _taken(self, group: list[StepOperation]) -> Iterator[tuple[Value, int]]:
        """The signals that go into a group, with their signs."""
        inside = {id(q) for o in group for q in o.gives}
        for o in group:
            signs = iter(SIGNS.get(o.word, ()) if len(group) == 1 else ())
            for t in o.takes:
                sign = next(signs, 1)
                if isinstance(t, Value) and id(t) in self.signals and id(t) not in inside:
                    yield t, sign

    def _part(self, group: list[StepOperation]) -> Part:
        last = group[-1]
        names = [self.formulas.name(q) for q in last.gives if id(q) in self.signals]
        output = ", ".join(name for name in names if name)
        text = self.formulas.operation(last)[0]
        formula = f"{output} = {text}" if output else text
        if all(self._scales(o) for o in group):
            symbol, pill = self._factor(group)
            return Part(symbol, "round", formula, [pill], output=output)
        if len(group) > 1:
            for q in last.gives:
                self.named[id(q)] = q
            named = {n for o in group for n in self._nominals(o)}
            pills = [Pill(name, "nominal", frozenset((plain_text(name),))) for name in sorted(named)]
            return Part(output or "·", "box", formula, pills, output="")
        return self._single(last, formula, output)

    def _single(self, o: StepOperation, formula: str, output: str) -> Part:
        if o.word in SIGNS and o.kind == "arithmetic":
            pills = [
                self._pill(t, "−" if sign < 0 else "")
                for t, sign in zip(o.takes, SIGNS[o.word])
                if not (isinstance(t, Value) and id(t) in self.signals)
            ]
            return Part("+", "round", formula, pills, output=output)
        if o.kind == "arithmetic" and o.word in MATRICES:
            matrix = next((t for t in o.takes if isinstance(t, Value) and id(t) not in self.signals), None)
            label = "matrix" if matrix is None else self.formulas.of(matrix)
            return Part(plain_text(label), "box", formula, nominal=_nominal_in(label), output=output)
        if o.kind == "operator":
            return Part(pretty(o.word), "box", formula, output=output)
        pills = [self._pill(t) for t in o.takes if self._sets(t)]
        if o.kind == "network":
            return Part(o.word, "box", formula, pills, nominal=o.word, output=output)
        if o.kind == "arithmetic" and o.word in ROUND:
            return Part(ROUND[o.word], "round", formula, pills, output=output)
        return Part(symbol_of(o.word), "box", formula, pills, output=output)

    def _sets(self, taken: Taken) -> bool:
        """Whether an argument of an operation is worth a pill: no signal, and nothing without a name."""
        if not isinstance(taken, Value):
            return False
        return id(taken) not in self.signals and (taken.maker is not None or bool(self.formulas.name(taken)))

    def _factor(self, group: list[StepOperation]) -> tuple[str, Pill]:
        """The symbol and the text of factors in a row."""
        above, below = [], []
        for o in group:
            factors = [t for t in o.takes if not (isinstance(t, Value) and id(t) in self.signals)]
            (below if o.word in ("div", "truediv") else above).extend(self._pill(t) for t in factors)
        pills = above + below
        kind = "nominal" if len(pills) == 1 and pills[0].kind == "nominal" else "formula"
        rests = frozenset().union(*(p.rests for p in pills))
        if not above:
            return "÷", Pill("·".join(p.text for p in below), kind, rests)
        text = "·".join(p.text for p in above) + "".join(f"/{p.text}" for p in below)
        return "×", Pill(text, kind, rests)

    def _pill(self, taken: Taken, sign: str = "") -> Pill:
        """A value beside what it sets: its formula if that is short, else a name."""
        text = self.formulas.of(taken)
        if isinstance(taken, Value) and taken.maker is not None:
            name = self.formulas.name(taken)
            if not name and len(plain_text(text)) > SHORT:
                name = self.formulas.names[id(taken)] = self._letter()
                text = name
            if name:
                self.named[id(taken)] = taken
            else:
                self._name_those_in(taken)
        nominal = isinstance(taken, Value) and taken.origin == "nominal"
        rests = self._rests(taken) if isinstance(taken, Value) else frozenset()
        return Pill(sign + text, "nominal" if nominal else "formula", rests)

    def _rests(self, q: Value) -> frozenset[str]:
        """The quantities that a number is computed from, in this step."""
        if q.origin == "nominal":
            return frozenset((plain_text(self.formulas.name(q)),))
        if q.maker is None or id(q) in self.signals:
            return frozenset()
        if id(q) not in self.rests:
            takes = [t for t in q.maker.takes if isinstance(t, Value)]
            self.rests[id(q)] = frozenset().union(*(self._rests(t) for t in takes))
        return self.rests[id(q)]

    def _letter(self) -> str:
        """A name for a value that the code gave none."""
        self.letters += 1
        return f"c{_lowered(self.letters)}"

    def _nominals(self, o: StepOperation) -> Iterator[str]:
        """The quantities that an operation takes, by itself or in values that it computes on the way."""
        for t in o.takes:
            if isinstance(t, Value) and t.origin == "nominal":
                yield self.formulas.name(t)
            elif isinstance(t, Value) and t.maker is not None and not self.formulas.name(t):
                yield from (n for n in self._nominals(t.maker) if id(t) not in self.signals)

    def _name_those_in(self, q: Value) -> None:
        """Note the values that the formula of a value names."""
        if q.maker is None:
            return
        for t in q.maker.takes:
            if isinstance(t, Value) and t.maker is not None:
                if not self.formulas.name(t):
                    self._name_those_in(t)
                elif id(t) not in self.named:
                    self.named[id(t)] = t
                    self._name_those_in(t)

    def _definitions(self) -> list[tuple[str, str]]:
        """The formulas of all that parts and formulas name, in the order of computation."""
        for name, q in self.record.after.items():
            if q.maker is not None and id(q) not in self.signals:
                self.formulas.names.setdefault(id(q), f"{pretty(name)}⁺")
                self.named[id(q)] = q
        for q in list(self.named.values()):
            self._name_those_in(q)
        listed: list[tuple[str, str]] = []
        drawn = {id(o) for o in self.operations}
        fused = {id(q) for q in self.named.values() if q.maker is not None and self._is_fused(q)}
        for o in self.record.operations:
            named = [q for q in o.gives if id(q) in self.named and (id(o) not in drawn or id(q) in fused)]
            names = [self.formulas.name(q) for q in o.gives if self.formulas.name(q)]
            if named:
                listed.append((", ".join(names), self.formulas.operation(o)[0]))
        moved = {name: q for name, q in self.record.after.items() if q.maker is None and id(q) not in self.kept}
        listed += [(f"{pretty(name)}⁺", self.formulas.of(q)) for name, q in moved.items()]
        return listed

    def _is_fused(self, q: Value) -> bool:
        assert q.maker is not None
        part = self.parts.get(id(q.maker))
        return part is not None and sum(p is part for p in self.parts.values()) > 1 and part.shape == "box"


def _nominal_in(label: str) -> str:
    """The quantity that a matrix is, or is made of."""
    return plain_text(label).removesuffix("ᴴ") if OPEN in label else ""


def _lowered(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))
