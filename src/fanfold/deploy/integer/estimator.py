"""Integer programs as estimators: real measurements in, quantised by the Q format of the port, and estimates out."""

import ctypes
import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from fanfold.deploy.codegen import compile_shared
from fanfold.deploy.integer.c_source import program_to_c
from fanfold.deploy.integer.player import checked_inputs, play
from fanfold.deploy.integer.program import IntegerPort, IntegerProgram
from fanfold.estimators.fixed_point.operation import enter, whole_in_trace
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Observation

Run = Callable[[IntegerProgram, Mapping[str, np.ndarray]], dict[str, np.ndarray]]
INPUTS, OUTPUTS = ("y", "noise_var"), ("x_hat", "var")


class IntegerEstimator:
    """An integer program as an estimator, made by `compiled` or `IntegerEstimator(program)`, which plays it.

    Measurements become whole numbers by the Q format of their port, rounded half up; beyond it they saturate. The
    program has a port `y`, and `noise_var` where it needs one; it gives `x_hat`, and `var` where it knows it.

    Attributes:
        scale_equivariant: False, as whole numbers have the units of their ports.
        key: What it is called in a trace.

    Args:
        program: The program.
        run: What computes its outputs, with the arguments and the result of `play`.

    Raises:
        ValueError: If the program has other ports.

    Example:
        >>> import torch
        >>> from fanfold.deploy.integer import Draft, IntegerEstimator
        >>> draft = Draft("half")
        >>> y = draft.input("y", (2,), "int16", fraction=8)
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (2,), fraction=8)
        >>> IntegerEstimator(draft.finish())(torch.tensor([0.5, -3.0])).x
        tensor([ 0.2500, -1.5000])
    """

    scale_equivariant: ClassVar[bool] = False

    def __init__(self, program: IntegerProgram, run: Run = play):
        self.program, self.run, self.key = program, run, ""
        for ports, first, known in ((program.inputs, "y", INPUTS), (program.outputs, "x_hat", OUTPUTS)):
            names = [port.name for port in ports]
            if first not in names or set(names) - set(known):
                wanted = " and perhaps ".join(known)
                raise ValueError(f"the program has ports {', '.join(names)}; an estimator has {wanted}.")

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The estimate.

        Raises:
            ValueError: If y does not fit its port, or the program needs a noise variance and there is none.
        """
        batch, given = (), {}
        for port in self.program.inputs:
            value = obs.y if port.name == "y" else self._noise_var(obs)
            batch, given[port.name] = _of_port(port, value)
        if torch.compiler.is_exporting():
            outputs = whole_in_trace(self, given)
        else:
            enter(self)
            outputs = self.said(given)
        numbers = {}
        for port, values in zip(self.program.outputs, outputs, strict=True):
            parts = values.reshape(*batch, *port.shape).to(obs.y.device)
            numbers[port.name] = torch.view_as_complex(parts) if port.layout == "iq" else parts
        x, var = numbers["x_hat"], numbers.get("var")
        real = obs.y.dtype.to_real()
        x = x.to(real.to_complex() if x.is_complex() else real)
        return Estimate(x, None if var is None else var.to(real))

    @property
    def form(self) -> IntegerProgram:
        """What has its ports: the program."""
        return self.program

    def said(self, ports: Mapping[str, Tensor]) -> list[Tensor]:
        """The numbers of each output, `(batch, size)` in double precision, for those of each port."""
        inputs = {}
        for port in self.program.inputs:
            parts = ports[port.name].cpu().reshape(-1, *port.shape)
            numbers = torch.view_as_complex(parts) if port.layout == "iq" else parts
            inputs[port.name] = port.integers(numbers.numpy())
        outputs = self.run(self.program, inputs)
        whole = [outputs[port.name].reshape(-1, port.size).astype(np.float64) for port in self.program.outputs]
        return [torch.from_numpy(np.ldexp(values, -port.fraction)) for port, values in zip(self.program.outputs, whole)]

    def _noise_var(self, obs: Observation) -> Tensor:
        if obs.noise_var is None:
            raise ValueError("the program needs the noise variance; pass Observation(y, A, noise_var).")
        return obs.noise_var.expand(*obs.y.shape[:-1], 1)


def _axes(port: IntegerPort) -> tuple[int, ...]:
    """The shape of a port's numbers, complex ones without the axis of their parts."""
    return port.shape[:-1] if port.layout == "iq" else port.shape


def _of_port(port: IntegerPort, value: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """The shape of the batch, and the numbers of a port in double precision, `(batch, size)`.

    Raises:
        ValueError: If they are of another shape than the port, or complex where it is real.
    """
    axes = _axes(port)
    inner = len(axes) if value.shape[-len(axes) :] == axes else 1
    batch = tuple(value.shape[: value.ndim - inner])
    if math.prod(value.shape[value.ndim - inner :]) != math.prod(axes):
        raise ValueError(f"{port.name} has shape {tuple(value.shape)}; pass (..., {', '.join(map(str, axes))}).")
    if value.is_complex() and port.layout == "real":
        raise ValueError(f"{port.name} is complex, and the port is real; pass real numbers.")
    if port.layout == "iq":
        value = value if value.is_complex() else torch.complex(value, torch.zeros_like(value))
        value = torch.view_as_real(value.resolve_conj())
    return batch, value.detach().resolve_neg().reshape(-1, port.size).double()


class CompiledProgram:
    """The C form of a program in this process, with the arguments and the result of `play`; made by `compiled`.

    Raises:
        ValueError: If there is no C compiler; by a call, if the inputs are not those of the program's ports.

    Example:
        >>> import numpy as np
        >>> from fanfold.deploy.integer import CompiledProgram, Draft
        >>> draft = Draft("half")
        >>> y = draft.input("y", (4,), "int8")
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (4,))
        >>> program = draft.finish()
        >>> CompiledProgram(program)(program, {"y": np.array([[-3, -1, 1, 3]], np.int8)})["x_hat"].tolist()
        [[-1, 0, 1, 2]]
    """

    def __init__(self, program: IntegerProgram):
        self.program = program
        with tempfile.TemporaryDirectory() as folder:
            program_to_c(program).write(folder)
            library = compile_shared([Path(folder, f"{program.name}.c")])
        self._function = ctypes.CDLL(str(library))[f"{program.name}_run"]
        self._function.restype = None
        self._function.argtypes = [ctypes.c_void_p] * len((*program.inputs, *program.outputs))

    def __call__(self, program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs `(batch, *shape)` for inputs `(batch, *shape)`, one sample after the other."""
        if program is not self.program:
            raise ValueError(f"this is the compiled form of another program than {program.name}; compile that.")
        given, results = self._arrays(inputs)
        batch = len(given[0])
        arrays = [*given, *results.values()]
        starts = [array.ctypes.data for array in arrays]
        steps = [array.nbytes // max(batch, 1) for array in arrays]
        for k in range(batch):
            self._function(*(start + k * step for start, step in zip(starts, steps)))
        return results

    def _arrays(self, inputs: Mapping[str, np.ndarray]) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """The inputs as the function takes them, and arrays for the outputs by name."""
        ports, checked = self.program.inputs, checked_inputs(self.program, inputs)
        given = [np.ascontiguousarray(checked[port.name].astype(port.dtype)) for port in ports]
        return given, {port.name: np.empty((len(given[0]), *port.shape), port.dtype) for port in self.program.outputs}

    def prepared(self, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
        """A call for the first sample of inputs and nothing else, to be timed."""
        given, results = self._arrays(inputs)
        arrays = [*given, *results.values()]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in arrays]

        def call() -> list[np.ndarray]:
            self._function(*pointers)
            return arrays  # which live as long as the call does

        return call


def compiled(program: IntegerProgram) -> IntegerEstimator:
    """A program as an estimator that runs its C form, compiled for this machine.

    Raises:
        ValueError: If there is no C compiler, or the program has other ports than an estimator.

    Example:
        >>> import torch
        >>> from fanfold.deploy.integer import Draft, compiled
        >>> draft = Draft("half")
        >>> y = draft.input("y", (2,), "int16", fraction=8)
        >>> draft.output(draft.rescale(y, 1, name="x_hat"), (2,), fraction=8)
        >>> compiled(draft.finish())(torch.tensor([[0.5, -3.0]])).x
        tensor([[ 0.2500, -1.5000]])
    """
    return IntegerEstimator(program, CompiledProgram(program))
