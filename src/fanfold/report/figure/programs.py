"""The step of an algorithm as WebAssembly: state, matrices and every quantity are inputs, so one program is all layers.

The C is that of `deploy.codegen`. What `unfold` does to a quantity, `Domain.deviate`, is in the program too.
"""

import copy
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fanfold.algorithms import OAMP, Algorithm
from fanfold.algorithms.base import State, Theta
from fanfold.deploy.codegen import CFiles, write_c
from fanfold.deploy.codegen.text import Golden
from fanfold.deploy.lowering import Lowered, Port
from fanfold.deploy.lowering.ports import BATCH
from fanfold.linops import SVD, LinearOperator
from fanfold.observation import Observation

LATE = 1e30  # a count of steps, as the t of FISTA, after ever so many; its factor is 1 then, and the momentum is a port
VECTORS = ("-msimd128",)  # every browser has these instructions; lanes round as single numbers do
UNIT = "as in the paper of the algorithm"

Values = Mapping[str, Tensor]
Swap = Callable[[Any, Values], Algorithm]


class _MatrixPort(LinearOperator):
    """An operator whose matrix, with its factors if it has any, is an input; norms of its columns are those of A."""

    def __init__(self, matrix: Tensor, A: LinearOperator | None = None, factors: Values | None = None):
        super().__init__((matrix.shape[0], matrix.shape[1]), matrix.dtype)
        self._A, self._known, self._factors = matrix, A, factors

    def _apply(self, x):
        return linear(x, self._A)

    def _adjoint(self, y):
        return torch.matmul(y, self._A)

    def _svd(self):
        assert self._factors is not None
        return SVD(_MatrixPort(self._factors["U"]), self._factors["d"], _MatrixPort(self._factors["V"]))

    def _gram_diagonal(self):
        assert self._known is not None
        return self._known.gram_diagonal()

    def seen(self):
        assert self._known is not None
        return self._known.seen()

    def parts(self):
        return (self._A,)

    def to(self, device=None, dtype=None):
        return self


def prior_of_ports(oamp: OAMP, values: Values) -> OAMP:
    """OAMP whose prior has settings that are inputs of the program, unchecked as they have no values yet."""
    prior, other = copy.copy(oamp.prior), copy.copy(oamp)
    for name in prior.learnable:
        object.__setattr__(prior, name, values[name])
    object.__setattr__(other, "prior", prior)
    return other


def as_it_is(algorithm: Algorithm, values: Values) -> Algorithm:
    """The algorithm, whose settings enter by its quantities alone."""
    return algorithm


class _Part(nn.Module, ABC):
    """The start or the step of an algorithm, from tensors as `inputs` names them to those that `outputs` names."""

    def __init__(self, algorithm: Algorithm, A: LinearOperator, swap: Swap, examples: Values):
        super().__init__()
        self.inputs, self.outputs = list(examples), list[str]()
        self._algorithm, self._A, self._swap = algorithm, A, swap
        with torch.no_grad():
            self(*examples.values())

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, tensors, strict=True))
        values = {name.removeprefix("value_"): t for name, t in given.items() if name.startswith("value_")}
        A = _MatrixPort(given["matrix"], self._A, given)
        obs = Observation.unchecked(given["y"], A, given["noise_var"])
        said = self.said(self._swap(self._algorithm, values), obs, given, values)
        self.outputs = list(said)
        return tuple(said.values())

    @abstractmethod
    def said(self, algorithm: Algorithm, obs: Observation, given: Values, values: Values) -> dict[str, Tensor]:
        """What it gives, by name, of the algorithm with these values."""


class _Start(_Part):
    def said(self, algorithm, obs, given, values):
        return {f"new_{name}": t + 0 for name, t in _tensors(algorithm.start(obs)).items()}


class _Step(_Part):
    """One step, at `value_NAME` moved by `strength` times `deviation_NAME`; fields that stay are no outputs."""

    def __init__(self, algorithm: Algorithm, A: LinearOperator, swap: Swap, examples: Values, state: State):
        numbers = {name: LATE for name, t in state._asdict().items() if isinstance(t, int | float)}
        self._state = state._replace(**numbers)
        super().__init__(algorithm, A, swap, examples)

    def said(self, algorithm, obs, given, values):
        theta = Theta(
            **{
                name: algorithm.nominals[name].domain.deviate(v, given[f"deviation_{name}"] * given["strength"])
                for name, v in values.items()
            }
        )
        fields = {name: given[f"old_{name}"] for name in _tensors(self._state)}
        before = self._state._replace(**fields)
        after = algorithm.step(before, obs, theta)
        return {f"new_{name}": t for name, t in _tensors(after).items() if t is not fields[name]}


class MeasuredSum(nn.Module):
    """Measurements `matrix x + y`, by which the page measures its draws.

    Example:
        >>> import torch
        >>> from fanfold.report.figure.programs import MeasuredSum
        >>> MeasuredSum()(torch.ones(1, 2), torch.eye(2), torch.ones(1, 2))[0].tolist()
        [[2.0, 2.0]]
    """

    def forward(self, y: Tensor, matrix: Tensor, x: Tensor) -> tuple[Tensor]:
        """The sum `(1, m)` of y and what the matrix `(m, n)` measures of x `(1, n)`."""
        return (linear(x, matrix) + y,)


class RightFactor(nn.Module):
    """The right singular vectors `Aᴴ U / d` of a matrix whose others are known: half as many numbers to send.

    Example:
        >>> import torch
        >>> from fanfold.report.figure.programs import RightFactor
        >>> RightFactor()(torch.eye(2)[:1], torch.ones(1, 1), torch.ones(1))[0].tolist()
        [[1.0], [0.0]]
    """

    def forward(self, matrix: Tensor, U: Tensor, d: Tensor) -> tuple[Tensor]:
        """The vectors `(n, m)` for the matrix `(m, n)`, U `(m, m)` and the singular values `(m,)`."""
        return (torch.matmul(matrix.mT, U) / d,)


@torch.no_grad()
def programs_of(
    algorithm: Algorithm, obs: Observation, folder: Path, name: str, swap: Swap = as_it_is
) -> tuple[CFiles, CFiles]:
    """The C of the start and of the step of an algorithm, `NAME_start` and `NAME_step`.

    Inputs are `y`, `noise_var`, the `matrix` with its thin factors `U`, `d` and `V`, `strength`, of each quantity its
    `value_NAME` and its `deviation_NAME`, and of the state `old_FIELD`; outputs are `new_FIELD`. What a
    program does not look at it takes all the same: see `inputs_of`.

    Args:
        algorithm: The algorithm, in single precision.
        obs: One observation, `(1, m)`, with its noise variance `(1, 1)`.
        folder: Where the C goes.
        name: What the programs are called.
        swap: What puts settings that are inputs into the algorithm.

    Raises:
        ValueError: If an operation has no C.

    Example:
        >>> import fanfold as ff, tempfile, torch
        >>> from pathlib import Path
        >>> from fanfold.report.figure.programs import inputs_of, programs_of
        >>> _, obs = ff.problems.CompressedSensing(n=8, m=4).sample(1, torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     start, step = programs_of(ff.algorithms.AMP(), obs, Path(folder), "amp")
        >>> inputs_of(step)
        ['y', 'matrix', 'strength', 'value_alpha', 'deviation_alpha', 'old_x', 'old_v']
    """
    A, noise_var = obs.A, obs.noise_var
    assert A is not None
    assert noise_var is not None
    U, d, V = A.svd()
    values = {name: torch.as_tensor(v) for name, v in vars(algorithm.nominal_theta(obs)).items()}
    values = {name: v if v.ndim else v.reshape(1) for name, v in values.items()}  # matrices stay what they are
    given = {"y": obs.y, "noise_var": noise_var.reshape(1, 1), "matrix": A.matrix()}
    given |= {"U": U.matrix(), "d": d, "V": V.matrix()}
    begun = given | {f"value_{k}": v for k, v in values.items()}
    state = algorithm.start(obs)
    stepped = given | {"strength": torch.ones(1)}
    for k, v in values.items():
        stepped |= {f"value_{k}": v, f"deviation_{k}": torch.zeros_like(v)}
    stepped |= {f"old_{k}": t for k, t in _tensors(state).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notices about itself, and about settings that are tensors
        start, step = _Start(algorithm, A, swap, begun), _Step(algorithm, A, swap, stepped, state)
        return (
            written(start, start.outputs, begun, folder, f"{name}_start"),
            written(step, step.outputs, stepped, folder, f"{name}_step"),
        )


def written(module: nn.Module, outputs: Sequence[str], examples: Values, folder: Path, name: str) -> CFiles:
    """The C of a module of named inputs and outputs, in single precision.

    Args:
        module: Takes the inputs in the order of `examples`, and gives tensors in the order of `outputs`.
        outputs: Their names.
        examples: Every input by name, with numbers that become the golden vectors.
        folder: Where the C goes.
        name: What the program is called.
    """
    examples = {name: t.clone() for name, t in examples.items()}  # inputs that are one tensor would become one input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notices about itself
        said = dict(zip(outputs, module(*examples.values()), strict=True))
        program = torch.export.export(module, tuple(examples.values()), strict=False)
    ports = (tuple(_port(name, t) for name, t in named.items()) for named in (examples, said))
    golden = Golden(*({name: t.reshape(1, -1) for name, t in named.items()} for named in (examples, said)))
    return write_c(Lowered(program, *ports), golden, folder, name)


def inputs_of(files: CFiles) -> list[str]:
    """The inputs that a program looks at."""
    used = {memory for call in files.program.calls.calls for memory in call.memories}
    return [memory.name for memory in files.program.inputs if memory in used]


def _port(name: str, t: Tensor) -> Port:
    sample = t.shape[1:] if t.ndim == 2 and len(t) == 1 else t.shape
    return Port(name, (BATCH, *sample), "float32", UNIT, pairs=False)


def _tensors(state: State) -> dict[str, Tensor]:
    return {name: t for name, t in state._asdict().items() if isinstance(t, Tensor)}
