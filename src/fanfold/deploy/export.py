"""An estimator with its operator built in, as a plain module from y to x_hat, and as an ONNX file."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fanfold.observation import Estimate, Observation


class FromMeasurements(nn.Module):
    """`y -> x_hat` for one operator and noise variance: what `torch.export` and ONNX take.

    Args:
        estimator: Any estimator; a module's parameters come along.
        example: An observation with the operator and, where the estimator uses it, the noise variance. Its `y`
            is run once, so that everything derived from the operator is there when the module is traced.
    """

    def __init__(self, estimator: Callable[[Observation], Estimate], example: Observation):
        super().__init__()
        self.estimator = estimator
        self._A, self._noise_var = example.A, example.noise_var
        with torch.no_grad():
            estimator(example)

    def forward(self, y: Tensor) -> Tensor:
        """Estimates `(batch, n)` from measurements `(batch, m)`."""
        return self.estimator(Observation.unchecked(y, self._A, self._noise_var)).x


def to_onnx(estimator: Callable[[Observation], Estimate], example: Observation, path: str | Path) -> Path:
    """Write an ONNX file with input `y` (batch, m) and output `x_hat` (batch, n), for any batch size.

    Args:
        estimator: A real-valued estimator (runtimes have no complex type).
        example: An observation of at least two samples, its operator and noise variance.
        path: Where to write.

    Raises:
        ValueError: If the estimator is complex.
    """
    if example.y.is_complex():
        raise ValueError("ONNX runtimes have no complex type; export a real estimator.")
    module = FromMeasurements(estimator, example).eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every optional package that is missing
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notices about itself
        program = torch.onnx.export(
            module,
            (example.y,),
            input_names=["y"],
            output_names=["x_hat"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.linalg_inv.default: _inverse()},
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces with paths of the machine that exported
    program.save(path)
    return Path(path)


def _inverse() -> Callable:
    """A matrix inverse, which ONNX lacks and ONNX Runtime has among its own operators."""
    from onnx.defs import OpSchema
    from onnxscript.values import Op, Opset

    name, domain, version, kind = "Inverse", "com.microsoft", 1, OpSchema.FormalParameter
    types = [("T", ["tensor(float)", "tensor(double)"], "")]
    schema = OpSchema(name, domain, version, inputs=[kind("X", "T")], outputs=[kind("Y", "T")], type_constraints=types)
    inverse = Op(Opset(domain, version), name, schema)
    return lambda A: inverse(A)
