"""One step of an algorithm, recorded as it runs: every operation, under the symbols that its code gives it.

An operation that the step itself writes is recorded as it is. What happens inside a function that the step calls is one
operation with that function's name, and an operator bears the name that the step has for it. So the record is as fine
as the paper's equations, for every algorithm alike.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fanfold.algorithms.base import Algorithm, State, Theta
from fanfold.linops import LinearOperator
from fanfold.observation import Observation

UNNAMED = ("s", "obs", "theta", "self")  # locals that hold more than one value
FOREIGN = ("torch.", "jaxtyping", "beartype", "typeguard")  # modules that stand between a step and an operation
SAME = frozenset(  # leave what a value means as it is
    """
    to double float real clone contiguous resolve_conj detach expand expand_as unsqueeze squeeze __getitem__ reshape
    view view_as
    """.split()  # noqa: SIM905 - a line is easier to read
)
MADE = frozenset(  # are no operations on values
    ["new_tensor", "new_zeros", "new_ones", "new_full", "tensor", "zeros", "ones", "zeros_like", "ones_like", "eye"]
)


@dataclass(eq=False)
class Value:
    """A value in a step: where it came from, the operation that gave it, its name in the code.

    `origin` is "state", "data", "nominal", "constant" or "made", the last by `maker`.
    """

    origin: str
    shape: tuple[int, ...]
    name: str = ""
    maker: "StepOperation | None" = None
    number: float | None = None  # of constants that are one number


Taken = Value | float | int | str  # what an operation takes; text stands for a number that changes with the step


@dataclass(eq=False)
class StepOperation:
    """An operation of a step: its word, or the symbol of an operator; what it takes and what it gives."""

    word: str
    takes: list[Taken] = field(default_factory=list)
    gives: list[Value] = field(default_factory=list)
    kind: str = "arithmetic"  # or "call", "operator", "network"


@dataclass
class StepRecord:
    """All operations of one step in order, the values that go in, and those of the next state, by name."""

    operations: list[StepOperation]
    state: dict[str, Value]
    after: dict[str, Value]
    data: dict[str, Value]
    nominal: dict[str, Value]
    n: int
    m: int


@torch.no_grad()
def recorded(algorithm: Algorithm, obs: Observation, thetas: Sequence[Theta]) -> StepRecord:
    """The record of the second of three steps, by when everything that derives from the operator has been computed.

    Numbers that the third step has otherwise, such as a counter's, lose their value, as they are none of the step's.

    Args:
        algorithm: What takes the steps.
        obs: Measurements `(batch, m)`, in the precision in which the algorithm computes.
        thetas: The quantities of the first layers.

    Example:
        >>> import fanfold as ff, torch
        >>> _, obs = ff.problems.CompressedSensing(n=40, m=20).sample(2, torch.Generator().manual_seed(0))
        >>> ista = ff.algorithms.ISTA()
        >>> [o.word for o in recorded(ista, obs, [ista.nominal_theta(obs)]).operations]
        ['A', 'sub', 'Aᴴ', 'mul', 'add', 'soft']
    """
    s = algorithm.step(algorithm.start(obs), obs, thetas[0])
    theta = thetas[min(1, len(thetas) - 1)]
    first, s = _record(algorithm, obs, theta, s)
    second, _ = _record(algorithm, obs, theta, s)
    if len(first.operations) == len(second.operations):
        for one, other in zip(first.operations, second.operations, strict=True):
            for k, (a, b) in enumerate(zip(one.takes, other.takes)):
                if isinstance(a, Value) and isinstance(b, Value) and a.number != b.number:
                    a.number, a.name = None, a.name or "cₖ"
                elif isinstance(a, int | float) and a != b:
                    one.takes[k] = "cₖ"
    return first


def _record(algorithm: Algorithm, obs: Observation, theta: Theta, s: State) -> tuple[StepRecord, State]:
    recorder = _Recorder(algorithm, obs, theta, s)
    with recorder:
        after = algorithm.step(s, obs, theta)
    return recorder.record(after), after


class _Recorder(TorchFunctionMode):
    def __init__(self, algorithm: Algorithm, obs: Observation, theta: Theta, s: State):
        super().__init__()
        assert obs.A is not None
        self.algorithm, self.A = algorithm, obs.A
        self.operations: list[StepOperation] = []
        self.values: dict[int, Value] = {}
        self.calls: dict[int, tuple[StepOperation, set[int]]] = {}
        self.alive: list[object] = []  # what is alive keeps its id
        self.frame: FrameType | None = None
        self.data = self._known("data", {"y": obs.y, "noise_var": obs.noise_var})
        self.state = self._known("state", s._asdict())
        self.nominal = self._known("nominal", vars(theta))
        self.networks = {id(v): k for k, v in vars(theta).items() if isinstance(v, nn.Module)}

    def _known(self, origin: str, tensors: Mapping[str, Any]) -> dict[str, Value]:
        known = {}
        for name, t in tensors.items():
            if isinstance(t, Tensor):
                known[name] = self.values.setdefault(id(t), Value(origin, tuple(t.shape), name))
                self.alive.append(t)
        return known

    def __torch_function__(self, func, types, args=(), kwargs=None):
        frames = [*self._frames(sys._getframe(1))]
        self._name_values()
        result = func(*args, **(kwargs or {}))
        gives = [t for t in (result if isinstance(result, list | tuple) else (result,)) if isinstance(t, Tensor)]
        if gives and frames:
            self.alive += gives
            self._note(_word(func), [*args, *(kwargs or {}).values()], gives, frames)
        return result

    def _frames(self, frame: FrameType | None) -> Iterator[FrameType]:
        """The frames from the step inwards to an operation; none where no step runs."""
        frames = []
        while frame is not None:
            frames.append(frame)
            if frame.f_code.co_name == "step" and _receiver(frame) is self.algorithm:
                outer = frame.f_back
                if outer is None or _receiver(outer) is not self.algorithm or outer.f_code.co_name != "step":
                    self.frame = frame
                    yield from reversed(frames)
                    return
            frame = frame.f_back

    def _note(self, word: str, args: list[Any], gives: list[Tensor], frames: list[FrameType]) -> None:
        call = next((f for f in frames if not self._sees_through(f)), None)
        if call is not None:
            self._note_call(call, args, gives)
            return
        takes = [*self._flat(args)]
        if word in SAME and takes and isinstance(takes[0], Value):
            self.values[id(gives[0])] = takes[0]
            return
        if word in MADE or _is_constant(takes):
            for t in gives:
                self.values[id(t)] = _constant(t)
            return
        operation = StepOperation(word, list[Taken](takes))
        self.operations.append(operation)
        self._give(operation, gives)

    def _note_call(self, frame: FrameType, args: list[Any], gives: list[Tensor]) -> None:
        if id(frame) not in self.calls:
            operation = self._called(frame)
            self.calls[id(frame)] = operation, set()
            self.alive.append(frame)
            self.operations.append(operation)
            operation.takes += self._arguments(frame)
        operation, inside = self.calls[id(frame)]
        for q in self._flat(args, inside):
            if isinstance(q, Value) and q not in operation.takes and q.maker is not operation:
                operation.takes.append(q)
        for t in gives:
            inside.add(id(t))
            if id(t) not in self.values or self.values[id(t)].origin == "constant":
                self._give(operation, [t])

    def _called(self, frame: FrameType) -> StepOperation:
        receiver = _receiver(frame)
        if id(receiver) in self.networks:
            return StepOperation(self.networks[id(receiver)], kind="network")
        if isinstance(receiver, LinearOperator) and frame.f_code.co_name == "__matmul__":
            return StepOperation(self._symbol(receiver), kind="operator")
        return StepOperation(frame.f_code.co_name.strip("_"), kind="call")

    def _arguments(self, frame: FrameType) -> list[Taken]:
        """The tensors that a function was given, in the order of its parameters, as far as they are known."""
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        given = [self.values.get(id(frame.f_locals.get(name))) for name in names]
        return [q for q in given if q is not None]

    def _symbol(self, operator: LinearOperator) -> str:
        """What the step calls an operator, or its adjoint."""
        named = {"A": self.A} | ({} if self.frame is None else self.frame.f_locals)
        for turned, sign in ((operator, ""), (operator.H, "ᴴ")):
            for name, value in named.items():
                if value is turned:
                    return name + sign
        return "linear map"

    def _sees_through(self, frame: FrameType) -> bool:
        """Whether a frame belongs to the step: a method of the algorithm, a closure, or what only passes calls on."""
        module = frame.f_globals.get("__name__", "")
        inner = "<" in frame.f_code.co_qualname
        return module.startswith(FOREIGN) or module == "torch" or inner or _receiver(frame) is self.algorithm

    def _give(self, operation: StepOperation, gives: list[Tensor]) -> None:
        for t in gives:
            made = Value("made", tuple(t.shape), maker=operation)
            operation.gives.append(made)
            self.values[id(t)] = made

    def _flat(self, args: list[Any], inside: Set[int] = frozenset()) -> Iterator[Value | float | int]:
        for arg in args:
            if isinstance(arg, Tensor):
                if id(arg) not in inside:
                    self.alive.append(arg)
                    yield self.values.setdefault(id(arg), _constant(arg))
            elif isinstance(arg, list | tuple):
                yield from self._flat([a for a in arg if isinstance(a, Tensor)], inside)
            elif isinstance(arg, int | float) and not isinstance(arg, bool):
                yield arg

    def _name_values(self) -> None:
        """Give values the names under which the step holds them; a value keeps its first name."""
        for name, held in () if self.frame is None else self.frame.f_locals.items():
            if isinstance(held, Tensor) and name not in UNNAMED:
                value = self.values.get(id(held))
                if value is None:
                    self.alive.append(held)
                    value = self.values[id(held)] = _constant(held)
                value.name = value.name or name

    def record(self, after: State) -> StepRecord:
        self._name_values()
        fields = {k: self.values.get(id(t)) for k, t in after._asdict().items() if isinstance(t, Tensor)}
        new = {k: q for k, q in fields.items() if q is not None}
        fixed = [o for o in self.operations if o.kind == "call" and _is_constant(o.takes)]
        for q in (q for o in fixed for q in o.gives):
            q.origin, q.maker = "constant", None
        operations = [o for o in self.operations if o not in fixed]
        read = {id(q) for o in operations for q in o.takes} | {id(q) for q in new.values()}
        for o in operations:
            o.gives = [q for q in o.gives if id(q) in read]
        self.alive.clear()  # frames hold on to all that was computed, and to this
        self.calls.clear()
        self.frame = None
        return StepRecord(operations, self.state, new, self.data, self.nominal, self.A.n, self.A.m)


def _is_constant(takes: Sequence[Taken]) -> bool:
    """Whether nothing is taken but what derives from the operator without having a name in the step."""
    return all(q.origin == "constant" and not q.name for q in takes if isinstance(q, Value))


def _constant(t: Tensor) -> Value:
    number = t.item() if t.numel() == 1 and not t.is_complex() else None
    return Value("constant", tuple(t.shape), number=number)


def _receiver(frame: FrameType) -> object:
    """What a method was called on."""
    names = frame.f_code.co_varnames
    return frame.f_locals.get(names[0]) if frame.f_code.co_argcount else None


def _word(func: Any) -> str:
    """The name of a function of torch; of an attribute, that of the attribute."""
    name = func.__name__
    word = func.__self__.__name__ if name == "__get__" else name
    return word if word in SAME else word.strip("_")
