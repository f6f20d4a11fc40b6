"""A compiled program as an estimator, so that what judges estimators judges the C that ships."""

import ctypes
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fanfold.deploy.codegen.build import FAST, compile_shared, stack_of
from fanfold.deploy.codegen.to_c import CFiles, to_c
from fanfold.estimators.base import fingerprint_of
from fanfold.linops import LinearOperator
from fanfold.measurements import takes_measurements
from fanfold.observation import Estimate, Estimator, Observation

FLOATS = ctypes.POINTER(ctypes.c_float)
SLACK = 64  # bytes, to begin at a multiple of them


class CompiledC:
    """An estimator that calls the C of another, sample by sample; made by `compiled`.

    Attributes:
        files: What was written, with the program that it holds; the folder may be gone.
        pointers: What the program is called with: weights, inputs, outputs, workspace.
        stack_bytes: What a call puts on the stack at most, as the compiler says; None where it does not.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> in_c = ff.deploy.compiled(ff.iterate(ff.algorithms.ISTA(), 10), obs)
        >>> in_c(obs).x.shape
        torch.Size([8, 40])
    """

    def __init__(self, files: CFiles, library: Path, weights: bytes, A: LinearOperator | None):
        self.files, self.stack_bytes = files, stack_of(library, f"{files.name}_run")
        if A is not None:  # else there is none that it belongs to
            self.operator, self.fingerprint = A, A.fingerprint()
        self._library = ctypes.CDLL(str(library))
        self._run = self._library[f"{files.name}_run"]
        self._run.restype = None
        program = files.program
        self._weights = _aligned(len(weights))
        self._weights[:] = np.frombuffer(weights, np.uint8)
        bytes_ = sum((n + SLACK) * d.itemsize for d, n in program.workspace.items()) + SLACK
        self._work = _aligned(bytes_)
        self._ports = [np.zeros(m.size, np.float32) for m in (*program.inputs, *program.outputs)]
        buffers = [self._weights] * (files.weights is not None) + [*self._ports, self._work]
        self.reset()
        self.pointers = [ctypes.c_void_p(buffer.ctypes.data) for buffer in buffers]

    @takes_measurements
    def __call__(self, obs: Observation) -> Estimate:
        """The estimates of a batch, with all outputs that the program has.

        Of a program that remembers the samples are calls one after the other, which it goes on from until `reset`.

        Raises:
            ValueError: If the measurements do not fit the program, or are of another operator.
        """
        self._check(obs)
        y, port = obs.y, self.files.lowered.inputs[0]
        trail = len(port.shape) - port.pairs - 1
        lead = y.shape[: y.ndim - trail]
        flat = Observation.unchecked(y.reshape(-1, *y.shape[y.ndim - trail :]), obs.A, _variances(obs, lead, trail))
        low = self.files.lowered
        arguments = [t.contiguous().numpy() for t in low.arguments(flat, self._calls)]
        outputs = [
            np.empty((len(flat.y), *map(int, port.shape[1:])), np.float32) for port in self.files.lowered.outputs
        ]
        for s in range(len(flat.y)):
            for port, buffer, values in zip(low.inputs, self._ports, arguments):
                buffer[:] = self._held.get(port.name, values[s].reshape(-1))
            self.call()
            for buffer, values in zip(self._ports[len(arguments) :], outputs, strict=True):
                values[s] = buffer.reshape(values[s].shape)
            said = {port.name: values[s].reshape(-1) for port, values in zip(low.outputs, outputs)}
            self._held = {name: said[output] for name, output in low.kept.items()}
            self._calls += 1
        estimate = self.files.lowered.estimate([torch.from_numpy(values) for values in outputs])
        var = None if estimate.var is None else estimate.var.reshape(*lead, *estimate.var.shape[1:])
        return Estimate(estimate.x.reshape(*lead, *estimate.x.shape[1:]), var)

    def reset(self) -> None:
        """Forget all calls, where the program remembers any."""
        self._held: dict[str, np.ndarray] = {}
        self._calls = 0

    @property
    def entry(self) -> ctypes.c_void_p:
        """The address of the function that runs the program."""
        return ctypes.cast(self._run, ctypes.c_void_p)

    def call(self) -> None:
        """Run the program on what is in its ports: the bare call that a latency is measured of."""
        self._run(*self.pointers)

    def load(self, obs: Observation) -> None:
        """Put the first of these observations, a batch `(1, ...)` or more, into the ports."""
        for buffer, values in zip(self._ports, self.files.lowered.arguments(obs)):
            buffer[:] = values[0].reshape(-1).numpy()

    def _check(self, obs: Observation) -> None:
        port = self.files.lowered.inputs[0]
        wanted = tuple(port.shape[1 : -1 if port.pairs else None])
        dtype = torch.complex64 if port.pairs else torch.float32
        if tuple(obs.y.shape[-len(wanted) :]) != wanted or obs.y.dtype != dtype:
            raise ValueError(
                f"y is {obs.y.dtype} of shape {tuple(obs.y.shape)}, and the program takes {dtype} of shape (..., "
                f"{', '.join(map(str, wanted))}); pass such, or compile the estimator for this problem."
            )
        if obs.A is not None and fingerprint_of(self) not in (None, obs.A.fingerprint()):
            raise ValueError("the program was compiled for another operator; compile the estimator for this one.")


def _variances(obs: Observation, lead: Sequence[int], trail: int) -> Tensor | None:
    if obs.noise_var is None or not obs.noise_var.ndim:
        return obs.noise_var
    return obs.noise_var.expand(*lead, *(1,) * trail).reshape(-1, *(1,) * trail)


def _aligned(size: int) -> np.ndarray:
    """So many bytes from a multiple of 64 on."""
    whole = np.zeros(size + SLACK, np.uint8)
    start = -whole.ctypes.data % SLACK
    return whole[start : start + size]


def compiled(
    estimator: Estimator,
    example: Observation,
    *,
    flags: Sequence[str] = FAST,
    compiler: str | None = None,
    fixed_noise: bool = False,
) -> CompiledC:
    """Write an estimator as C, compile it on this machine, and give it back as an estimator.

    Args:
        estimator: Any estimator that `to_c` takes.
        example: An observation of at least two samples.
        flags: Flags of the compiler.
        compiler: Its name, such as clang; the first that is there if None.
        fixed_noise: Whether a noise variance that is one number for all belongs to the program.

    Raises:
        ValueError: If an operation has no C, or there is no compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = to_c(estimator, example, folder, weights="blob", fixed_noise=fixed_noise)
        return compiled_files(files, example.A, flags=flags, compiler=compiler)


def compiled_files(
    files: CFiles, A: LinearOperator | None, *, flags: Sequence[str] = FAST, compiler: str | None = None
) -> CompiledC:
    """Compile what `to_c` wrote, and give it back as an estimator; the files are not needed any more then.

    Args:
        files: What was written, and is still there.
        A: The operator of the observations.
        flags: Flags of the compiler.
        compiler: Its name, such as clang; the first that is there if None.

    Raises:
        ValueError: If there is no compiler.
    """
    library = compile_shared([files.source], flags, compiler=compiler)
    weights = files.weights.read_bytes() if files.weights is not None else b""
    return CompiledC(files, library, weights, A)
