"""Training, as one generator of typed events that the API, the command line and the lab all consume."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, Unpack

import torch
from torch import nn

from fanfold.core.abilities import ability
from fanfold.core.machine import World, join_world, sensible_threads, threads
from fanfold.estimators.base import Bound, WithTrainingDefaults, device_of
from fanfold.problems import Problem
from fanfold.problems.protocols import Counted, Stored
from fanfold.runs import recipe, usual
from fanfold.runs.directory import Run
from fanfold.runs.environment import environment
from fanfold.runs.operators import write_operator
from fanfold.training.events import Event, Started
from fanfold.training.settings import Training, TrainingOptions, training_for
from fanfold.training.trainer import Trainer

Net = TypeVar("Net", bound=nn.Module)


def fit(
    estimator: Net,
    problem: Problem,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    **options: Unpack[TrainingOptions],
) -> Net:
    """Train an estimator on fresh draws of a problem, to the end, and return it with its best weights.

    Args:
        estimator: A module that maps an `Observation` to an `Estimate`, such as `unfold` makes; changed in place.
        problem: Where draws come from.
        run_dir: Directory to keep config, metrics, checkpoints and weights in; nothing is written if None.
        resume: Go on from the checkpoint in `run_dir`, to the same numbers as without the break.
        on_event: Called with each event.
        **options: Fields of `Training`, such as `steps`, or a `loss` of your own; what is not given, or None, is as in
            the estimator's `training_defaults`, if it has some, else as in `Training`.

    Raises:
        ValueError: If there is nothing to learn, a setting is wrong, the network cannot be kept or the run directory
            is in use.
        OSError: If the disk is full; the last checkpoint stays whole.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> ff.fit(net, problem, steps=2).layers
        3
    """
    informed = ability(estimator, WithTrainingDefaults)
    defaults = {} if informed is None else informed.training_defaults
    for event in fit_events(estimator, problem, training_for(defaults, options), run_dir, resume=resume):
        if on_event:
            on_event(event)
    return estimator


def fit_events(
    estimator: nn.Module,
    problem: Problem,
    training: Training,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
) -> Iterator[Event]:
    """The training beneath `fit`, one event at a time; an event that is not asked for does not happen."""
    if not any(p.requires_grad for p in estimator.parameters()):
        raise ValueError(
            "nothing to learn: the estimator has no parameters. Name quantities in unfold(..., learn=...)."
        )
    if resume and run_dir is None:
        raise ValueError("resume needs the run directory to go on from: pass run_dir.")
    device = device_of(estimator)
    world = join_world(device)
    count = training.threads or sensible_threads()
    training = dataclasses.replace(training, threads=count)
    trainer = Trainer(estimator, problem, training, device, world, None if run_dir is None else Path(run_dir))
    run = None
    if run_dir is not None and world.leads:
        run = Run.open(run_dir) if resume else _create_run(run_dir, estimator, problem, training, device, world)
        _check_processes(run, world)
    if resume:
        trainer.restore()
        if run:
            run.forget_after(trainer.step)
    with threads(count):
        for event in trainer.events():
            if run and not isinstance(event, Started):
                kind = type(event).__name__.lower()
                run.log({"event": kind} | {k: v for k, v in dataclasses.asdict(event).items() if k != "seconds"})
            yield event
    simulator = None if ability(problem, Stored) else ability(problem, Counted)  # stored runs failed before
    if run and simulator is not None and simulator.failures:
        run.log({"event": "failures", "step": trainer.step, "failed": dict(simulator.failures)})
    if run:
        run.keep(usual.NAME, usual.usual_of(estimator, trainer.validation[1]))


def _check_processes(run: Run, world: World) -> None:
    processes = run.environment.get("processes", 1)
    if processes != world.size:
        raise ValueError(
            f"{run.path} was trained by {processes} processes and this is {world.size}: the batches would differ. "
            f"Resume it with torchrun --nproc-per-node {processes}."
        )


def _create_run(
    path: str | Path, estimator: nn.Module, problem: Problem, training: Training, device: torch.device, world: World
) -> Run:
    """A run directory with all that builds problem and network again; what is not fanfold's own is named in it."""
    config = {
        "problem": recipe.describe_problem(problem),
        "network": recipe.describe_network(estimator),
        "training": recipe.describe_training(training),
    }
    run = Run.create(path, config, environment(training.seed, problem, device, training.threads, world.size))
    bound = ability(estimator, Bound)
    if recipe.GIVEN in config["problem"] and bound is not None:
        write_operator(run.path, bound.operator)
    return run


def resume(run_dir: str | Path, on_event: Callable[[Event], None] | None = None, **handed_in: Any) -> nn.Module:
    """Go on with a run that stopped, to the same numbers as without the break, and return the trained network.

    Args:
        run_dir: The run directory.
        on_event: Called with each event.
        **handed_in: What was made of classes or functions of your own: `problem`, `network`, `algorithm`, `loss`.
    """
    run = Run.open(run_dir, **handed_in)
    if "training" not in run.config:
        raise ValueError(f"{run_dir} was saved, not trained: load it, ff.load(path), and train it with ff.fit.")
    options = recipe.build_training(run.section("training"), run.handed_in)
    net = run.network().to(run.environment.get("device", "cpu"))
    return fit(net, run.problem(), run_dir=run_dir, resume=True, on_event=on_event, **options)
