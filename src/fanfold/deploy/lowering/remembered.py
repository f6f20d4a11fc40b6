"""An estimator that remembers as a program: what it remembers goes in and comes out, so that nothing is kept inside."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from fanfold.deploy.lowering.ports import BATCH, Port
from fanfold.deploy.lowering.programs import Lowered
from fanfold.deploy.lowering.real_form import RealForm
from fanfold.deploy.lowering.tracing import each_variance, evaluating, in_pairs, port_of, traced_with, without_traces
from fanfold.estimators.base import Remembering
from fanfold.observation import Observation

UNITS = {
    "y": "that of the measurements",
    "noise_var": "square of y's, E|w|^2 of one measurement",
    "drawn": "1: standard noise like y, circular if complex, new at every call",
    "trust": "1: of the network and of the baseline",
    "memory": "what else the next call depends on; as it came out of the call before",
    "watch": "1: the bets of the monitor's martingale; as they came out of the call before",
    "p_value": "1: the share of usual draws that are as strange",
    "alarm": "1 while the alarm is on, else 0",
    "x_hat": "that of the unknowns",
    "var": "square of x_hat's, E|x_hat - x|^2",
}


class LoweredStep(Lowered):
    """A program of one call, for streams side by side, and its ports; made by `lowered` of what remembers.

    Attributes:
        remembering: The estimator, which draws what is by lot.
        start: What it remembered when the program was made, by port, `(k,)` each.

    Example:
        >>> import fanfold as ff, torch
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net, safe = ff.iterate(ff.algorithms.ISTA(), 3), ff.iterate(ff.algorithms.FISTA(lam=0.1), 5)
        >>> guard = ff.guard.guarded(net, safe, problem, reach=0.9, samples=100)
        >>> low = ff.deploy.lowered(guard, problem.sample(4, torch.Generator().manual_seed(0))[1])
        >>> [port.name for port in low.inputs], [port.name for port in low.outputs]
        (['y', 'noise_var', 'drawn', 'trust', 'memory'], ['x_hat', 'trust_next', 'memory_next'])
    """

    def __init__(
        self,
        program: ExportedProgram,
        inputs: tuple[Port, ...],
        outputs: tuple[Port, ...],
        remembering: Remembering,
        start: Mapping[str, Tensor],
    ):
        super().__init__(program, inputs, outputs)
        self.remembering, self.start = remembering, dict(start)

    def arguments(self, obs: Observation, first: int = 0) -> tuple[Tensor, ...]:
        """The inputs of calls with these numbers on, one for each sample, with what was remembered at the start.

        Raises:
            ValueError: If the program takes a noise variance and the observation has none.
        """
        given, count = super().arguments(obs), len(obs.y)
        drawn = self.remembering.chance(obs, range(first, first + count))
        held = [value.float().expand(count, -1).contiguous() for value in self.start.values()]
        return *given, *map(in_pairs, drawn.values()), *held


def lowered_step(estimator: Remembering, example: Observation, batch: int | None, *, fixed_noise: bool) -> LoweredStep:
    """The program of an estimator that remembers; see `lowered`."""
    given = example.noise_var is not None and (example.noise_var.ndim > 0 or not fixed_noise)
    step, start, count = estimator.step(), estimator.remembered, len(example.y)
    if example.y.real.dtype != torch.float32:
        raise ValueError(f"the example is {example.y.dtype}; export what remembers in single precision.")
    tensors = {"y": example.y.resolve_conj()}
    if given:
        tensors["noise_var"] = each_variance(example)
    chance = estimator.chance(example, range(count))
    tensors |= chance
    tensors |= {name: value.float().expand(count, -1).contiguous() for name, value in start.items()}
    module = _Call(step, example, tuple(tensors), tuple(chance), tuple(start))
    arguments = tuple(tensors.values())
    with evaluating(step), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's notices about itself
        said = module(*arguments)
        shapes = None if batch is not None else (tuple({0: Dim(BATCH)} for _ in arguments),)
        form = RealForm(traced_with(module, arguments, shapes))
        pairs = tuple(map(in_pairs, arguments))
        form(*pairs)
        program = traced_with(form, pairs, shapes)
    without_traces(program)
    return LoweredStep(
        program,
        tuple(port_of(name, t, _unit(name), batch) for name, t in tensors.items()),
        tuple(port_of(name, t, _unit(name), batch) for name, t in said.items()),
        estimator,
        start,
    )


def _unit(name: str) -> str:
    """The unit of a port; what comes out for the next call has that of what goes in."""
    return UNITS.get(name.removesuffix("_next"), "1")


class _Call(nn.Module):
    """A step from tensors to tensors, in the order of its ports."""

    def __init__(
        self,
        step: nn.Module,
        example: Observation,
        names: tuple[str, ...],
        chance: tuple[str, ...],
        remembered: tuple[str, ...],
    ):
        super().__init__()
        self.step, self._A, self._names = step, example.A, names
        self._chance, self._remembered = chance, remembered
        self._noise_var = None if "noise_var" in names else example.noise_var

    def forward(self, *arguments: Tensor) -> dict[str, Tensor]:
        given = dict(zip(self._names, arguments, strict=True))
        obs = Observation.unchecked(given["y"], self._A, given.get("noise_var", self._noise_var))
        chance, held = ({name: given[name] for name in names} for names in (self._chance, self._remembered))
        estimate, after = self.step(obs, chance, held)
        said = {"x_hat": estimate.x, "var": estimate.var} | {n: t for n, t in after.items() if n not in held}
        said |= {f"{name}_next": after[name] for name in held}
        return {name: value for name, value in said.items() if value is not None}
