"""An estimator with its operator built in as a traced program of real tensors, for runtimes without complex numbers."""

import warnings

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fanfold.core.abilities import ability, offers
from fanfold.deploy.lowering.ports import BATCH
from fanfold.deploy.lowering.programs import Lowered
from fanfold.deploy.lowering.real_form import RealForm, needed_by
from fanfold.deploy.lowering.remembered import lowered_step
from fanfold.deploy.lowering.tracing import each_variance, evaluating, in_pairs, port_of, traced_with, without_traces
from fanfold.estimators.base import Classifying, InWholeNumbers, Quantiled, Remembering, WithEnds
from fanfold.observation import Estimator, Observation


def lowered(
    estimator: Estimator, example: Observation, *, batch: int | None = None, fixed_noise: bool = False
) -> Lowered:
    """An estimator as a program of real tensors alone: `torch.export`, then complex numbers as pairs `(..., 2)`.

    The operator is in the program, and whatever depends on it and on the weights alone is computed once, before. What
    an estimator remembers from call to call goes in and comes out, as ports of their own: see `LoweredStep`.

    Args:
        estimator: Any estimator; it is run in the mode for evaluation, and is left as it was.
        example: An observation of at least two samples, `(batch, ...)`.
        batch: How many samples the program takes; any number if None.
        fixed_noise: Whether a noise variance that is one number for all samples belongs to the program, as the operator
            does. Else it is an input for each sample, wherever the estimator takes one.

    Returns:
        The program, with its ports.

    Raises:
        ValueError: If the example is no batch of two or more, has fewer samples than `batch` or a matrix for each, or
            is in half precision; or the estimator computes in whole numbers, cannot be traced, or has an operation
            without a form in real numbers.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=40, m=20, dtype="complex64")
        >>> x, obs = problem.sample(8, torch.Generator().manual_seed(0))
        >>> ff.deploy.lowered(ff.iterate(ff.algorithms.OAMP(), 2), obs).inputs[0].shape
        ('batch', 20, 2)
    """
    _check(example, batch)
    if (remembering := ability(estimator, Remembering)) is not None:
        return lowered_step(remembering, example[: batch or len(example.y)], batch, fixed_noise=fixed_noise)
    if offers(estimator, InWholeNumbers):
        raise ValueError(
            "the network computes in whole numbers: take its integer program, ff.deploy.integer.drafted(net), or the "
            "network with the same weights in floating point, net.network."
        )
    example = example[: batch or len(example.y)]
    given = example.noise_var is not None and (example.noise_var.ndim > 0 or not fixed_noise)
    with evaluating(estimator), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notices about itself
        says_quantiles = _says_quantiles(estimator, example)
        module = _Ported(estimator, example, given=given, quantiles=says_quantiles)
        arguments = (example.y.resolve_conj(), *([each_variance(example)] if given else ()))
        said = module(*arguments)  # so that all that derives from the operator is there
        traced = _traced(module, arguments, batch)
        taken = _taken(traced)
        form = RealForm(traced)
        pairs = tuple(map(in_pairs, arguments))
        form(*pairs)
        unused = pairs[1][:1] if given and not taken[1] else None
        given = given and taken[1]
        program = _traced(_Inputs(form, unused), pairs if given else pairs[:1], batch)
    without_traces(program)
    units = _units(estimator)
    inputs = [port_of(name, t, units[name], batch) for name, t in zip(("y", "noise_var"), arguments)]
    outputs = [port_of(name, t, units[name], batch) for name, t in said.items()]
    return Lowered(program, tuple(inputs if given else inputs[:1]), tuple(outputs), estimator=estimator)


def _check(example: Observation, batch: int | None) -> None:
    if example.y.ndim < 2 or len(example.y) < 2:
        raise ValueError(
            f"the example's y has shape {tuple(example.y.shape)}; pass a batch of at least two samples, (batch, m), so "
            "that the program takes batches of any size."
        )
    if batch is not None and not 0 < batch <= len(example.y):
        raise ValueError(
            f"batch is {batch} and the example has {len(example.y)} samples; pass a batch from 1 to {len(example.y)}, "
            "or a longer example."
        )
    if example.A is not None and example.A.varies:
        raise ValueError(
            f"the example has a matrix for each sample, {example.A}, and the exported estimator would keep these; "
            "export it for one matrix: linops.Dense."
        )
    if torch.finfo(example.y.dtype).bits < 32:
        raise ValueError(f"the example is {example.y.dtype}; export in single or double precision.")


class _Ported(nn.Module):
    """An estimator from tensors to tensors."""

    def __init__(self, estimator: Estimator, example: Observation, *, given: bool, quantiles: bool):
        super().__init__()
        self.estimator, self._A, self._quantiles = estimator, example.A, quantiles
        self._noise_var = None if given else example.noise_var

    def forward(self, y: Tensor, noise_var: Tensor | None = None) -> dict[str, Tensor]:
        obs = Observation.unchecked(y, self._A, self._noise_var if noise_var is None else noise_var)
        estimate = self.estimator(obs)
        quantiled = ability(self.estimator, Quantiled) if self._quantiles else None
        said = {"x_hat": estimate.x, "var": estimate.var}
        ended = ability(self.estimator, WithEnds)
        said["low"], said["high"] = (None, None) if ended is None else ended.ends(estimate)
        said["quantiles"] = None if quantiled is None else quantiled.quantiles(obs)
        return {name: value for name, value in said.items() if value is not None}


class _Inputs(nn.Module):
    """A real form with its inputs by name; a noise variance that changes nothing is none of them."""

    def __init__(self, form: RealForm, unused: Tensor | None):
        super().__init__()
        self.form, self._unused = form, unused

    def forward(self, y: Tensor, noise_var: Tensor | None = None) -> tuple[Tensor, ...]:
        noise_var = self._unused if noise_var is None else noise_var
        return self.form(y) if noise_var is None else self.form(y, noise_var)


def _traced(module: nn.Module, arguments: tuple[Tensor, ...], batch: int | None) -> ExportedProgram:
    return traced_with(module, arguments, None if batch is not None else tuple({0: Dim(BATCH)} for _ in arguments))


def _taken(program: ExportedProgram) -> list[bool]:
    """Which inputs the outputs depend on."""
    (output,) = program.graph.find_nodes(op="output")
    names = {node.name for node in needed_by(output.all_input_nodes)}
    return [name in names for name in program.graph_signature.user_inputs]


def _says_quantiles(estimator: Estimator, example: Observation) -> bool:
    if not offers(estimator, Quantiled):
        return False
    try:
        estimator.quantiles(example)
    except ValueError:  # a network with another loss
        return False
    return True


def _units(estimator: Estimator) -> dict[str, str]:
    x = "probability of each class" if offers(estimator, Classifying) else "that of the unknowns"
    return {
        "y": "that of the measurements",
        "noise_var": "square of y's, E|w|^2 of one measurement",
        "x_hat": x,
        "var": "square of x_hat's, E|x_hat - x|^2",
        "low": "that of x_hat, the lower end of its interval",
        "high": "that of x_hat, the upper end of its interval",
        "quantiles": "that of x_hat, in rising order along the last axis but one",
    }
