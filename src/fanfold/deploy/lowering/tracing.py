"""What every trace needs: its arguments in real tensors, its ports, and what it leaves of this machine's paths."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError
from torch.export import ExportedProgram
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from fanfold.core.complex_pairs import as_pairs
from fanfold.deploy.lowering.ports import BATCH, Port
from fanfold.observation import Estimator, Observation

TRACES = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn")  # which hold paths of this machine


@contextmanager
def no_stack_traces() -> Iterator[None]:
    """A block in which torch notes for no operation from which lines it comes, a third of the time of a trace."""
    config: Any = torch.fx.config
    name = "do_not_emit_stack_traces"  # an older torch has no such switch, and heeds none
    before = getattr(config, name, False)
    setattr(config, name, True)
    try:
        yield
    finally:
        setattr(config, name, before)


def without_traces(program: ExportedProgram) -> None:
    """Take from a program, in place, what names paths of this machine."""
    for node in program.graph.nodes:
        for name in TRACES:
            node.meta.pop(name, None)


def traced_with(module: nn.Module, arguments: tuple[Tensor, ...], shapes: Any) -> ExportedProgram:
    """The program of a module, with the axes of samples as `torch.export` wants them said.

    Raises:
        ValueError: If it depends on values, or on the number of samples; with torch's first line on that.
    """
    try:
        with no_stack_traces():
            return torch.export.export(module, arguments, dynamic_shapes=shapes, strict=False)
    except (UserError, GuardOnDataDependentSymNode) as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the estimator cannot be traced, as what it does depends on the values or the number of samples: {first}"
        ) from error


def in_pairs(t: Tensor) -> Tensor:
    """Numbers as a program takes them: complex ones as pairs."""
    return (as_pairs(t) if t.is_complex() else t).contiguous()


def each_variance(obs: Observation) -> Tensor:
    """A noise variance for each sample, `(batch, ..., 1)`, with as many axes as y: 1 where it is the same along one."""
    noise_var = torch.as_tensor(obs.noise_var)
    noise_var = noise_var.reshape(*(1,) * (obs.y.ndim - noise_var.ndim), *noise_var.shape)
    return noise_var.expand(len(obs.y), *noise_var.shape[1:]).contiguous()


def port_of(name: str, t: Tensor, unit: str, batch: int | None) -> Port:
    """The port of a batch of tensors."""
    shape = (BATCH if batch is None else batch, *t.shape[1:], *([2] if t.is_complex() else []))
    return Port(name, shape, str(t.dtype.to_real()).removeprefix("torch."), unit, t.is_complex())


@contextmanager
def evaluating(estimator: Estimator) -> Iterator[None]:
    """A block in which a module is in the mode for evaluation."""
    parts = list(estimator.modules()) if isinstance(estimator, nn.Module) else []
    modes = [part.training for part in parts]
    try:
        for part in parts:
            part.training = False
        yield
    finally:
        for part, training in zip(parts, modes, strict=True):
            part.training = training
