"""An estimator with its operator built in, as an ONNX file, and as a plain module from y to x_hat."""

import json
import logging
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.core.files import write_whole
from fanfold.deploy.integer.onnx_called import CalledFunctions
from fanfold.deploy.lowering import Lowered, lowered
from fanfold.deploy.lowering.ports import BATCH
from fanfold.deploy.lowering.tracing import no_stack_traces
from fanfold.observation import Estimator, Observation


class FromMeasurements(nn.Module):
    """A module `y -> x_hat`, or `(y, noise_var) -> x_hat`, for one operator: what `torch.export` takes.

    A noise variance that is one number for all samples belongs to the module, as the operator does. Where the example
    has one for each sample, `(batch, 1)`, it is an argument.

    Args:
        estimator: Any estimator; a module's parameters come along.
        example: An observation with the operator and, where the estimator uses it, the noise variance. Its `y`
            is run once, so that everything derived from the operator is there when the module is traced.

    Raises:
        ValueError: If each sample has a matrix of its own, which the module would take for that of all that come.

    Example:
        >>> import fanfold as ff, torch
        >>> x, obs = ff.problems.CompressedSensing(n=40, m=20).sample(8, torch.Generator().manual_seed(0))
        >>> ff.deploy.FromMeasurements(ff.iterate(ff.algorithms.ISTA(), 10), obs)(obs.y).shape
        torch.Size([8, 40])
    """

    def __init__(self, estimator: Estimator, example: Observation):
        super().__init__()
        self.estimator = estimator
        if example.A is not None and example.A.varies:
            raise ValueError(
                f"the example has a matrix for each sample, {example.A}, and the exported estimator would keep these; "
                "export it for one matrix: linops.Dense."
            )
        self.given_noise = example.noise_var is not None and example.noise_var.ndim > 0
        self._A, self._noise_var = example.A, None if self.given_noise else example.noise_var
        with torch.no_grad():
            estimator(example)

    def forward(self, y: Tensor, noise_var: Tensor | None = None) -> Tensor:
        """Estimates `(batch, n)` from measurements `(batch, m)` and, if samples have their own, variances `(batch, 1)`.

        Raises:
            ValueError: If the module was made for noise variances and gets none, or the other way round.
        """
        if (noise_var is not None) != self.given_noise:
            fix = "a noise variance for each sample; pass (y, noise_var)" if self.given_noise else "one; pass y alone"
            raise ValueError(f"the example that the module was made with has {fix}.")
        noise_var = noise_var if self.given_noise else self._noise_var
        return self.estimator(Observation.unchecked(y, self._A, noise_var)).x

    def arguments(self, obs: Observation) -> tuple[Tensor, ...]:
        """The arguments of `forward` for an observation of a batch."""
        if not self.given_noise or obs.noise_var is None:
            return (obs.y,)
        return obs.y, obs.noise_var.expand(*obs.y.shape[:-1], 1).contiguous()


def to_onnx(estimator: Estimator, example: Observation, path: str | Path, *, fixed_noise: bool = False) -> Path:
    """Write an estimator, with its operator, as an ONNX file for any batch size; the same bytes each time.

    Runtimes have no complex type: what is complex is pairs of reals there, on a last axis `(..., 2)`. The input is `y`
    and, where the estimator takes one, `noise_var` for each sample, `(batch, 1)`; outputs are `x_hat` and what else the
    estimator says, the variance `var` and `quantiles`. The metadata of the file describe each of them, and the file
    holds no path of the machine.

    Args:
        estimator: Any estimator, real or complex, that `lowered` takes.
        example: An observation of at least two samples, its operator and noise variance.
        path: The path of the file, which is there whole or not at all.
        fixed_noise: Whether a noise variance that is one number for all samples belongs to the file, as the operator
            does, and is no input.

    Returns:
        The path of the file.

    Raises:
        ValueError: If `lowered` refuses the estimator or the example, or ONNX has no such operation.
        ImportError: If ONNX is not installed; names the extra.

    Example:
        >>> import fanfold as ff, tempfile, torch
        >>> problem = ff.problems.CompressedSensing(n=20, m=10, dtype="complex64")
        >>> x, obs = problem.sample(4, torch.Generator().manual_seed(0))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     ff.deploy.to_onnx(ff.iterate(ff.algorithms.ISTA(), 2), obs, folder + "/ista.onnx").name
        'ista.onnx'
    """
    return write_onnx(lowered(estimator, example, fixed_noise=fixed_noise), Path(path))


def write_onnx(low: Lowered, path: Path) -> Path:
    """Write a lowered estimator as an ONNX file; see `to_onnx`."""
    if not all(map(find_spec, ("onnx", "onnxscript"))):
        raise ImportError("ONNX files need onnx and onnxscript: pip install 'fanfold[export]'")
    called = CalledFunctions()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every optional package that is missing
    with warnings.catch_warnings(), torch.no_grad(), no_stack_traces():
        warnings.simplefilter("ignore")  # the exporter's notices about itself
        try:
            written = torch.onnx.export(
                low.program,
                input_names=[port.name for port in low.inputs],
                output_names=[port.name for port in low.outputs],
                dynamo=True,
                verbose=False,
                custom_translation_table={
                    torch.ops.aten.linalg_inv.default: _inverse(),
                    torch.ops.fanfold.whole_numbers.default: called.translation(),
                },
            )
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(f"ONNX has no form of this estimator: {_missing(error)}.") from error
    assert written is not None
    model = written.model
    symbols = {str(dim.value) for value in model.graph.inputs for dim in value.shape or () if not isinstance(dim, int)}
    ends = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces with paths of the machine that exported
        for value in node.outputs:
            if ends.get(value.name, value) is not value:  # it would pass for the port
                value.name = f"{value.name}_inside"
            _name_batch(value, symbols)
    for value in ends.values():
        _name_batch(value, symbols)
    for value in (*model.graph.inputs, *model.graph.outputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    ports = (*low.inputs, *low.outputs)
    model.metadata_props.update({port.name: port.described() for port in ports})
    model.metadata_props["fanfold.ports"] = json.dumps([port._asdict() for port in ports], sort_keys=True)
    model.producer_name, model.graph.name = "fanfold", "estimator"
    proto = written.model_proto
    called.enter(proto)
    write_whole(path, proto.SerializeToString(deterministic=True))
    return path


def _name_batch(value: Any, symbols: set[str]) -> None:
    """Call the axis of samples `batch`, for which the exporter has a symbol."""
    for axis, dim in enumerate(value.shape or ()):
        if not isinstance(dim, int) and str(dim.value) in symbols:
            value.shape[axis] = BATCH


def _missing(error: BaseException) -> str:
    """What ONNX lacks: the first line of the first cause."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0].rstrip(".")


def _inverse() -> Callable:
    """The matrix inverse, which ONNX lacks and ONNX Runtime has among its own operators."""
    from onnx.defs import OpSchema
    from onnxscript.values import Op, Opset

    name, domain, version, kind = "Inverse", "com.microsoft", 1, OpSchema.FormalParameter
    types = [("T", ["tensor(float)", "tensor(double)"], "")]
    schema = OpSchema(name, domain, version, inputs=[kind("X", "T")], outputs=[kind("Y", "T")], type_constraints=types)
    inverse = Op(Opset(domain, version), name, schema)
    return lambda A: inverse(A)
