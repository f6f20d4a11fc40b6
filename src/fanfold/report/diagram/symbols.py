"""The text of a step: names as papers print them, and the formula of a value, down to values that have a name."""

import re
from collections.abc import Iterable

from fanfold.report.diagram.recording import StepOperation, StepRecord, Taken, Value

OPEN, CLOSE = "\x01", "\x02"  # around the names of quantities that an algorithm's authors fixed
GREEK: dict[str, str] = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "eta": "η", "theta": "θ", "kappa": "κ",
    "lam": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "psi": "ψ",
    "omega": "ω",
}  # fmt: skip
LOWER = {"p": "ₚ", "r": "ᵣ", "s": "ₛ", "k": "ₖ", "n": "ₙ", "m": "ₘ", "x": "ₓ"}
SYMBOLS = {  # of functions, wherever they are called
    "posterior": "E[x|r]", "soft_divergence": "soft′", "firm_divergence": "firm′", "prox_misfit": "prox misfit",
    "clamp_min": "max", "clamp_max": "min", "maximum": "max", "minimum": "min", "clamp": "clip", "rounding_variance":
    "rounding", "where": "where", "le": "≤", "lt": "<", "ge": "≥", "gt": ">", "sum": "Σ",
}  # fmt: skip
COMPARED = frozenset(["le", "lt", "ge", "gt"])
ADD, TIMES, POWER, ATOM = 1, 2, 3, 4  # how tightly an operation binds
MOST_TAKEN = 5  # arguments of a function that are written out


def symbol_of(word: str) -> str:
    """How a function is written; by its own name, in words, if papers have no other."""
    return SYMBOLS.get(word, word.replace("_", " "))


def pretty(name: str) -> str:
    """A name of the code as papers print it: `sigma2` is σ², `tau_p` is τₚ."""
    head, *rest = name.split("_")
    power = "²" if head.endswith("2") and len(head) > 1 else ""
    head = head.removesuffix("2") if power else head
    tail = "".join(LOWER.get(part, f"_{part}") for part in rest)
    if rest == ["bar"]:
        return f"{head}\u0304"
    return GREEK.get(head, head) + power + tail


def marked(name: str) -> str:
    """The name of a quantity, marked as one."""
    return OPEN + name + CLOSE


def plain_text(text: str) -> str:
    """A formula without the marks around quantities."""
    return text.replace(OPEN, "").replace(CLOSE, "")


def number_text(value: float) -> str:
    """A number in at most three digits."""
    return f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e").replace("-", "−")


class Formulas:
    """What the values of a step are called and how they are computed.

    A value of the next state is called as it was with a plus; further values under a name of the code have primes.
    """

    def __init__(self, record: StepRecord):
        self.record, self.names = record, dict[int, str]()
        taken: dict[str, int] = {}
        after = {id(q): field for field, q in record.after.items() if q.maker is not None}
        for group in (record.nominal, record.state, record.data):
            for name, q in group.items():
                if group is record.nominal:
                    self.names[id(q)] = marked(name)
                    taken[name] = 1
                elif id(q) not in self.names:
                    text = pretty(name)
                    self.names[id(q)] = text + _primes(taken.get(text, 0))
                    taken[text] = taken.get(text, 0) + 1
        for q in _values_of(record.operations):
            field = after.get(id(q))
            if id(q) in self.names or not (q.name or field):
                continue
            if field is not None and q.name in ("", field):
                self.names[id(q)] = f"{pretty(field)}⁺"
                continue
            text = pretty(q.name)
            self.names[id(q)] = text + _primes(taken.get(text, 0))
            taken[text] = taken.get(text, 0) + 1

    def name(self, q: Value) -> str:
        """The name of a value, or nothing."""
        return self.names.get(id(q), "")

    def of(self, taken: Taken) -> str:
        """A value by its name, else its formula."""
        return self._text(taken, 0)

    def _text(self, taken: Taken, binding: int) -> str:
        if not isinstance(taken, Value):
            return self._number(taken)
        if name := self.name(taken):
            return name
        if taken.maker is None:
            return "[A]" if taken.number is None else self._number(taken.number)
        text, tight = self._made(taken)
        if len(taken.maker.gives) > 1:  # of several that a function gives
            return f"{text}[{1 + taken.maker.gives.index(taken)}]"
        return f"({text})" if tight < binding else text

    def _number(self, value: float | str) -> str:
        if isinstance(value, str):
            return value
        n, m = self.record.n, self.record.m
        if isinstance(value, int) and value in (n, m) and n not in (m, 2 * m) and value > 2:  # else n - m looks like m
            return "n" if value == n else "m"
        return "tiny" if 0 < value < 1e-30 else number_text(value)

    def _made(self, q: Value) -> tuple[str, int]:
        assert q.maker is not None
        return self.operation(q.maker)

    def operation(self, o: StepOperation) -> tuple[str, int]:
        """The formula of an operation, and how tightly it binds."""
        word, takes = o.word, o.takes
        values = [t for t in takes if isinstance(t, Value)]
        if o.kind == "operator":
            signals = [q for q in values if q.origin != "constant"]
            return " ".join([pretty(word), *(self._text(q, POWER) for q in signals[:1])]), TIMES
        if o.kind == "network":
            return f"{marked(word)}({self._listed(values)})", ATOM
        if o.kind == "arithmetic" and (text := self._arithmetic(word, takes)) is not None:
            return text
        if word == "power":
            return f"|{self.of(takes[0])}|²", ATOM
        shown = values if word in ("sum", "mean", "clamp") or o.kind == "call" else takes
        return f"{symbol_of(word)}({self._listed(shown)})", ATOM

    def _listed(self, takes: Iterable[Taken]) -> str:
        texts = [self.of(t) for t in takes if not _is_nameless(t)]
        return ", ".join(texts[:MOST_TAKEN] + ["…"] * (len(texts) > MOST_TAKEN))

    def _arithmetic(self, word: str, takes: list[Taken]) -> tuple[str, int] | None:
        a, b = [*takes, "", ""][:2]
        if word in ("rsub", "rdiv", "rtruediv", "radd", "rmul"):
            a, b, word = b, a, word[1:]
        if word in ("add", "sub"):
            sign, right = (" + ", ADD) if word == "add" else (" − ", TIMES)
            return self._text(a, ADD) + sign + self._text(b, right), ADD
        if word == "mul":
            left, right = self._text(a, TIMES), self._text(b, TIMES)
            return f"{left} · {right}", TIMES
        if word in ("div", "truediv"):
            return f"{self._text(a, TIMES)} / {self._text(b, POWER)}", TIMES
        if word == "neg":
            return f"−{self._text(a, TIMES)}", TIMES
        if word == "square" or (word == "pow" and b == 2):
            return f"{self._text(a, ATOM)}²", POWER
        if word == "pow":
            return f"{self._text(a, ATOM)}^{self._text(b, ATOM)}", POWER
        if word == "sqrt":
            return f"√{self._text(a, ATOM)}", POWER
        if word == "abs":
            return f"|{self.of(a)}|", ATOM
        if word in ("mH", "H"):
            return f"{self._text(a, ATOM)}ᴴ", POWER
        if word in ("linear", "matmul", "mm", "mv"):
            matrix, x = (b, a) if word == "linear" else (a, b)
            return f"{self._text(matrix, POWER)} {self._text(x, POWER)}", TIMES
        if word in COMPARED:
            return f"{self._text(a, ADD)} {symbol_of(word)} {self._text(b, ADD)}", 0
        return None


def _primes(count: int) -> str:
    return ("", "′", "″", "‴", "⁗")[count] if count < 5 else f"⁽{count}⁾"


def names_in(text: str) -> list[str]:
    """The quantities that a formula names."""
    return re.findall(f"{OPEN}([^{CLOSE}]+){CLOSE}", text)


def _values_of(operations: Iterable[StepOperation]) -> Iterable[Value]:
    """Every value of a record: constants where they are first taken, others where they are made."""
    for o in operations:
        yield from (q for q in o.takes if isinstance(q, Value) and q.maker is None)
        yield from o.gives


def _is_nameless(taken: Taken) -> bool:
    """Whether a value says nothing to a reader: a table of the operator's that the step does not name."""
    return isinstance(taken, Value) and taken.origin == "constant" and not taken.name and taken.number is None
