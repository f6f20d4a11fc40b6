"""The diagram of a network or an algorithm, drawn from a recorded step, so that every algorithm has one."""

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fanfold.algorithms.base import Algorithm, Nominal, State, Theta
from fanfold.core.abilities import ability, require
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing, Problem
from fanfold.problems.draws import example_of
from fanfold.report.diagram.flow import flow_of
from fanfold.report.diagram.picture import Subject, drawn
from fanfold.report.diagram.quantities import learned_quantities, nominal_quantities
from fanfold.report.diagram.recording import recorded
from fanfold.report.learned import Deviating
from fanfold.unfolding.boundary import admitted

SAMPLES = 2  # that a step is recorded with
LONGEST = 130  # characters of a citation
PASS = "Pass an algorithm, or an unfolded network of one."


@runtime_checkable
class DeviatingNetwork(Deviating, Protocol):
    """A network of layers that says what every layer's step is given, such as an unfolded algorithm."""

    def admitted(self, obs: Observation) -> Observation: ...

    def thetas(self, obs: Observation) -> list[Theta]: ...

    @property
    def origin(self) -> tuple[str, object]: ...

    def parameters(self) -> Iterator[Tensor]: ...


@runtime_checkable
class Stepping(Protocol):
    """An algorithm: what is unfolded."""

    @property
    def nominals(self) -> Mapping[str, Nominal]: ...

    def start(self, obs: Observation) -> State: ...

    def step(self, s: State, obs: Observation, theta: Theta) -> State: ...


def diagram(net_or_algorithm: object, problem: Problem | None = None, *, dark: bool = True) -> str:
    """The architecture as an SVG: layers folded like a fan, what each of them learned, and one layer opened.

    The opened layer is the signal flow of the step as it ran, under the symbols of its code, which are those of the
    paper. Fixed parts have plain outlines, learned ones thick outlines and stripes; resting the pointer on a part shows
    its formula, and on a quantity its nominal and learned values. The same input gives the same bytes.

    Args:
        net_or_algorithm: A network of layers whose quantities deviate, such as an unfolded one, or an algorithm.
        problem: What measurements are drawn from, to take a step with. If None, a network takes Gaussian signals
            through its own operator, and an algorithm 30 measurements of 50 sparse unknowns.
        dark: Whether readers who prefer dark colours get them; a page that is always light says no.

    Returns:
        The text of the SVG, which holds all that it needs.

    Raises:
        ValueError: If it is neither, the problem has no operator, or the algorithm cannot take these measurements.

    Example:
        >>> import fanfold as ff
        >>> svg = ff.diagram(ff.algorithms.ISTA())
        >>> svg.startswith("<svg"), "threshold" in svg
        (True, True)
    """
    net = ability(net_or_algorithm, DeviatingNetwork)
    subject = _of_algorithm(net_or_algorithm, problem) if net is None else _of_network(net, problem)
    return drawn(subject, dark=dark)


def _of_algorithm(algorithm: object, problem: Problem | None) -> Subject:
    require(algorithm, Stepping, "a diagram", PASS)
    if isinstance(algorithm, type):
        raise ValueError(f"a diagram needs an algorithm; {algorithm.__name__} is a class. Pass {algorithm.__name__}().")
    if not isinstance(algorithm, Algorithm):
        raise ValueError(f"a diagram needs a fanfold.algorithms.Algorithm; {type(algorithm).__name__} is none. {PASS}")
    obs = admitted(algorithm, example_of(problem or CompressedSensing(n=50, m=30), SAMPLES))
    record = recorded(algorithm, obs, [algorithm.nominal_theta(obs)])
    name = type(algorithm).__name__
    subtitle = f"{_cited(algorithm)} Values are those for {record.m} measurements of {record.n} unknowns."
    return Subject(name, subtitle, flow_of(record), nominal_quantities(algorithm, obs), None)


def _of_network(net: DeviatingNetwork, problem: Problem | None) -> Subject:
    try:
        obs = net.admitted(_example(net.operator) if problem is None else example_of(problem, SAMPLES))
        with torch.no_grad():
            thetas = net.thetas(obs)
        record = recorded(net.algorithm, obs, thetas)
    except ValueError as error:
        if problem is not None:
            raise
        raise ValueError(f"{error} The diagram took a step with Gaussian signals; pass the problem instead.") from error
    quantities = learned_quantities(net, obs)
    networks = [name for name, value in vars(thetas[0]).items() if isinstance(value, nn.Module)]
    kind, algorithm = type(net).__name__, net.origin[0].removeprefix("untrained ")
    layers = "1 layer" if net.layers == 1 else f"{net.layers} layers"
    title = f"{kind if algorithm in kind else f'{kind} {algorithm}'}, {layers}"
    count = sum(p.numel() for p in net.parameters())
    strength = "" if net.strength == 1 else f" at strength {net.strength:g}"
    subtitle = f"{count} learned numbers{strength}. {_cited(net.algorithm)}"
    return Subject(title, subtitle, flow_of(record), quantities, net.layers, networks)


def _example(A: LinearOperator) -> Observation:
    """Measurements of Gaussian signals at 20 dB."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((SAMPLES, A.n), generator=generator, dtype=A.dtype).to(A.device)
    y = A @ x
    return Observation(y, A, (y.abs().square().mean() / 100).detach())


def _cited(algorithm: Algorithm) -> str:
    """The paper that the first line of an algorithm's file names."""
    words = inspect.getdoc(sys.modules[type(algorithm).__module__]) or ""
    line = words.splitlines()[0] if words else ""
    return line if len(line) < LONGEST else line[: line.rfind(" ", 0, LONGEST)] + " …"
