"""Training, as one generator of typed events that the API, the command line and the lab all consume."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeVar, Unpack, overload

from torch import nn

from fanfold.core.abilities import ability, offers
from fanfold.core.files import sole_writer
from fanfold.core.machine import World, join_world, sensible_threads, threads
from fanfold.estimators import QuantisedNetwork, quantised
from fanfold.estimators.base import FollowsBudget, TrainedInRounds, WithTrainingDefaults, device_of
from fanfold.estimators.fixed_point import Widths
from fanfold.problems import Problem
from fanfold.problems.protocols import Counted, Stored
from fanfold.runs import recipe, usual
from fanfold.runs.directory import Run
from fanfold.runs.environment import environment
from fanfold.runs.folders import check_free, discard_unused
from fanfold.runs.log import forget_after
from fanfold.runs.outline import outline_of
from fanfold.training.events import Event, Finished, Started, Validated
from fanfold.training.kept_draws import keep_draws
from fanfold.training.rounds import round_events
from fanfold.training.settings import Training, TrainingOptions, training_for
from fanfold.training.trainer import Trainer

Net = TypeVar("Net", bound=nn.Module)


@overload
def fit(
    estimator: Net,
    problem: Problem,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    store: str | Path | None = None,
    quantise: None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: Unpack[TrainingOptions],
) -> Net: ...


@overload
def fit(
    estimator: nn.Module,
    problem: Problem,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    store: str | Path | None = None,
    quantise: Widths,
    on_event: Callable[[Event], None] | None = None,
    **options: Unpack[TrainingOptions],
) -> QuantisedNetwork: ...


def fit(
    estimator: nn.Module,
    problem: Problem,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    store: str | Path | None = None,
    quantise: Widths | None = None,
    on_event: Callable[[Event], None] | None = None,
    **options: Unpack[TrainingOptions],
) -> nn.Module:
    """Train an estimator on fresh draws of a problem, to the end, and return it with its best weights.

    Args:
        estimator: A module that maps an `Observation` to an `Estimate`, such as `unfold` makes; changed in place.
        problem: Where draws come from.
        run_dir: Directory to keep config, metrics, checkpoints and weights in; nothing is written if None.
        resume: Go on from the checkpoint in `run_dir`, to the same numbers as without the break.
        store: Folder to keep the simulations of rounds in, of an estimator that is trained in rounds; called again with
            the same, it goes on where it stopped.
        quantise: "w8a8", "w8a12" or "w16a16", bits of weights and activations: train a copy of the network that
            computes in whole numbers, from the weights that the network has, and return that copy, with the best
            weights in whole numbers. The network itself stays as it is.
        on_event: Called with each event, the last of which says if training came to little; without it that is a
            warning.
        **options: Fields of `Training`, such as `steps`, or a `loss` of your own; what is not given, or None, is as in
            the estimator's `training_defaults`, if it has some, else as in `Training`.

    Raises:
        ValueError: If there is nothing to learn, a setting is wrong, the network cannot be kept or has no form in whole
            numbers, or the run directory is in use.
        OSError: If the disk is full; the last checkpoint stays whole.

    Example:
        >>> import fanfold as ff
        >>> problem = ff.problems.CompressedSensing(n=20, m=10)
        >>> net = ff.unfold(ff.algorithms.ISTA(), problem, 3, {"step": "per-layer"})
        >>> ff.fit(net, problem, steps=2).layers
        3
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> ff.fit(net, problem, steps=2, quantise="w8a12").widths
        'w8a12'
    """
    if quantise is not None:
        estimator = quantised(estimator, quantise)
    rounds = ability(estimator, TrainedInRounds)
    if rounds is None and store is not None:
        raise ValueError(
            "store is for the simulations of rounds, and this estimator is trained at once; simulate ahead with "
            "ff.simulate(problem, count, store), and train on what it returns."
        )
    if rounds is None:
        events = _events(estimator, problem, run_dir, options, resume=resume)
    else:
        events = _rounds(rounds, problem, run_dir, options, resume=resume, store=store)
    for event in events:
        if on_event:
            on_event(event)
        elif isinstance(event, Finished) and event.advice is not None:
            warnings.warn(event.advice, stacklevel=2)
    return estimator


def _events(
    estimator: nn.Module, problem: Problem, run_dir: str | Path | None, options: TrainingOptions, *, resume: bool
) -> Iterator[Event]:
    """The events of a training with the settings that suit the estimator, but for what the user says."""
    informed, follower = ability(estimator, WithTrainingDefaults), ability(estimator, FollowsBudget)
    defaults = {} if informed is None else informed.training_defaults
    if follower is not None:
        stored = ability(problem, Stored)
        every = 0 if stored is None else len(stored.every()[0])
        defaults = follower.follow(options.get("simulations") or every)
    return fit_events(estimator, problem, training_for(defaults, options), run_dir, resume=resume)


def _rounds(
    estimator: TrainedInRounds,
    problem: Problem,
    run_dir: str | Path | None,
    options: TrainingOptions,
    *,
    resume: bool,
    store: str | Path | None,
) -> Iterator[Event]:
    """The events of rounds of simulations near one observation."""
    if run_dir is not None or resume:
        raise ValueError(
            "rounds near one observation keep no run directory: pass store=folder, with which fit goes on after a "
            "break, and keep the network with ff.save(net, path, problem)."
        )
    each: TrainingOptions = {**options, "simulations": 0}
    return round_events(
        estimator,
        problem,
        simulations=training_for({}, options).simulations,
        seed=training_for({}, options).seed,
        store=None if store is None else Path(store),
        train=lambda net, draws: _events(net, draws, None, each, resume=False),
    )


def fit_events(
    estimator: nn.Module,
    problem: Problem,
    training: Training,
    run_dir: str | Path | None = None,
    *,
    resume: bool = False,
) -> Iterator[Event]:
    """The training beneath `fit`, one event at a time; an event that is not asked for does not happen."""
    if offers(estimator, TrainedInRounds):
        raise ValueError("the estimator is trained in rounds, each a training: ff.fit(net, problem, on_event=...).")
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
    path = None if run_dir is None else Path(run_dir)
    if path is not None:
        _ = Run.open(path) if resume else check_free(path)
    with threads(count), nullcontext() if path is None or not world.leads else _held(path):
        trainer = Trainer(estimator, problem, training, device, world, path)
        run = None
        if path is not None and world.leads:
            run = Run.open(path) if resume else _create_run(path, trainer)
            _check_processes(run, world)
        if resume:
            trainer.resume()
            if run:
                forget_after(run.path, trainer.step if trainer.restored else None)
        for event in trainer.events():
            if run and not isinstance(event, Started):
                kind = type(event).__name__.lower()
                run.log({"event": kind} | {k: v for k, v in dataclasses.asdict(event).items() if k != "seconds"})
            if run and isinstance(event, Validated) and event.step == 0:
                keep_draws(run, trainer)
            yield event
        simulator = None if ability(problem, Stored) else ability(problem, Counted)  # stored runs failed before
        if run and simulator is not None and simulator.failures:
            run.log({"event": "failures", "step": trainer.step, "failed": dict(simulator.failures)})
        if run:
            run.keep(usual.NAME, usual.usual_of(estimator, trainer.validation[1]))


@contextmanager
def _held(path: Path) -> Iterator[None]:
    """Hold a run directory for this process alone; one that was made for a run that did not come to be goes again."""
    made = not os.path.lexists(path)
    try:
        with sole_writer(path):
            yield
    finally:
        if made:
            discard_unused(path)


def _check_processes(run: Run, world: World) -> None:
    processes = run.environment.get("processes", 1)
    if processes != world.size:
        raise ValueError(
            f"{run.path} was trained by {processes} processes and this is {world.size}: the batches would differ. "
            f"Resume it with torchrun --nproc-per-node {processes}."
        )


def _create_run(path: Path, trainer: Trainer) -> Run:
    """A run directory with all that builds problem and network again; what is not fanfold's own is named in it."""
    problem, training = trainer.problem, trainer.training
    x, obs = trainer.validation
    config = {
        "problem": recipe.describe_problem(problem),
        "outline": outline_of(problem, x.cpu(), obs.to("cpu")),
        "network": recipe.describe_network(trainer.estimator),
        "training": recipe.describe_training(training),
    }
    facts = environment(training.seed, problem, trainer.device, training.threads, trainer.world.size)
    return Run.create(path, config, facts, problem.A)


def resume(
    run_dir: str | Path,
    on_event: Callable[[Event], None] | None = None,
    *,
    allow_program: bool = False,
    **handed_in: Any,
) -> nn.Module:
    """Go on with a run that stopped, to the same numbers as without the break, and return the trained network.

    A run that stopped before its first checkpoint begins again; one that came to its end takes no step more.

    Args:
        run_dir: The run directory.
        on_event: Called with each event.
        allow_program: Whether the run's program may be started although the run was not made here, in this folder.
        **handed_in: What was made of classes or functions of your own: `problem`, `network`, `algorithm`, `loss`.

    Raises:
        ValueError: If the run is damaged or another process trains it, its data are missing or not what they were,
            something is not handed in, or it starts a program and was not made here.
    """
    run = Run.open(run_dir, **handed_in)
    if "training" not in run.config:
        raise ValueError(f"{run_dir} was saved, not trained: load it, ff.load(path), and train it with ff.fit.")
    options = recipe.build_training(run.section("training"), run.handed_in)
    problem = run.problem(allow_program=allow_program)
    net = run.network(problem).to(run.environment.get("device", "cpu"))
    return fit(net, problem, run_dir=run_dir, resume=True, on_event=on_event, **options)
