"""An estimator with its operator built in, as a plain module from y to x_hat, and as an ONNX file."""

import logging
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from fanfold.core.abilities import offers
from fanfold.core.files import write_whole
from fanfold.estimators.base import Paired
from fanfold.observation import Estimator, Observation


class FromPairs(nn.Module):
    """A module `(y, noise_var) -> (x_hat, var)` in pairs of reals, of an estimator that computes with them.

    Args:
        estimator: A module with `of_pairs(y (batch, m, 2), noise_var (batch, 1)) -> (x_hat (batch, n, 2), var)`.
        example: An observation; where its noise variance is unknown, so it is to the exported network.

    Example:
        >>> import fanfold as ff, torch
        >>> class Shrink(torch.nn.Module):
        ...     def of_pairs(self, y, noise_var):
        ...         return y / (1 + noise_var[..., None]), noise_var.expand(y.shape[:-1])
        >>> obs = ff.Observation(torch.ones(5, 4, dtype=torch.complex64), None, torch.ones(1))
        >>> module = ff.deploy.FromPairs(Shrink(), obs)
        >>> module(*module.arguments(obs))[0].shape
        torch.Size([5, 4, 2])
    """

    estimator: Paired

    def __init__(self, estimator: Paired, example: Observation):
        super().__init__()
        self.estimator, self.known = estimator, example.noise_var is not None

    def forward(self, y: Tensor, noise_var: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Estimates `(batch, n, 2)` and their error variances `(batch, n)` from measurements `(batch, m, 2)`."""
        return self.estimator.of_pairs(y, noise_var)

    def arguments(self, obs: Observation) -> tuple[Tensor, ...]:
        """The arguments of `forward` for an observation of a batch."""
        y = torch.view_as_real(obs.y.resolve_conj()).contiguous()
        return (y, obs.noise_var.expand(len(y), 1).contiguous()) if obs.noise_var is not None else (y,)


class FromMeasurements(nn.Module):
    """A module `y -> x_hat`, or `(y, noise_var) -> x_hat`, for one operator: what `torch.export` and ONNX take.

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


def to_onnx(estimator: Estimator, example: Observation, path: str | Path) -> Path:
    """Write an ONNX file with input `y` (batch, m) and output `x_hat` (batch, n), for any batch size.

    The operator is in the file, and so is a noise variance that is one number for all samples. Where the example has
    one for each sample, the file has a second input `noise_var` (batch, 1).

    Runtimes have no complex type. An estimator that computes complex numbers as pairs of reals has inputs `y`
    (batch, m, 2) and, if the noise variance is known, `noise_var` (batch, 1), and a second output `var` (batch, n).

    Args:
        estimator: A real-valued estimator, or one with a method `of_pairs` as in `FromPairs`.
        example: An observation of at least two samples, its operator and noise variance.
        path: The path of the file, which is there whole or not at all.

    Returns:
        The path of the file.

    Raises:
        ValueError: If the estimator is complex and has no form in pairs of reals, the example is no batch of at least
            two samples, or each of them has a matrix of its own.
    """
    if example.y.ndim < 2 or len(example.y) < 2:
        raise ValueError(
            f"the example's y has shape {tuple(example.y.shape)}; pass a batch of at least two samples, (batch, m), so "
            "that the file takes batches of any size."
        )
    if example.y.is_complex():
        if not offers(estimator, Paired):
            raise ValueError("ONNX runtimes have no complex type; export a real estimator, or one with of_pairs.")
        module = FromPairs(estimator, example)
        arguments, outputs = module.arguments(example), ["x_hat", "var"]
    else:
        module = FromMeasurements(estimator, example)
        arguments, outputs = module.arguments(example), ["x_hat"]
    modes = {part: part.training for part in module.modules()}
    try:
        return _written(module.eval(), arguments, outputs, Path(path))
    finally:  # the estimator is the user's own
        for part, training in modes.items():
            part.training = training


def _written(module: nn.Module, arguments: tuple[Tensor, ...], outputs: list[str], path: Path) -> Path:
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it names every optional package that is missing
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's notices about itself
        program = torch.onnx.export(
            module,
            arguments,
            input_names=["y", "noise_var"][: len(arguments)],
            output_names=outputs,
            dynamic_shapes=tuple({0: torch.export.Dim("batch")} for _ in arguments),
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.linalg_inv.default: _inverse()},
        )
    assert program is not None
    for node in program.model.graph:
        node.metadata_props.clear()  # stack traces with paths of the machine that exported
    write_whole(path, program.model_proto.SerializeToString())
    return path


def _inverse() -> Callable:
    """The matrix inverse, which ONNX lacks and ONNX Runtime has among its own operators."""
    from onnx.defs import OpSchema
    from onnxscript.values import Op, Opset

    name, domain, version, kind = "Inverse", "com.microsoft", 1, OpSchema.FormalParameter
    types = [("T", ["tensor(float)", "tensor(double)"], "")]
    schema = OpSchema(name, domain, version, inputs=[kind("X", "T")], outputs=[kind("Y", "T")], type_constraints=types)
    inverse = Op(Opset(domain, version), name, schema)
    return lambda A: inverse(A)
