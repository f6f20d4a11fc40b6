"""Training, as one generator of typed events that the API, the command line and the lab all consume."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from fanfold.core.machine import World, join_world, sensible_threads, threads
from fanfold.problems import Problem
from fanfold.runs import recipe
from fanfold.runs.directory import Run, environment
from fanfold.training.trainer import Event, Finished, Started, Stepped, Trainer, Training, Validated
from fanfold.unfolding.unfold import Unfolded

Net = TypeVar("Net", bound=nn.Module)


def fit(
    estimator: Net,
    problem: Problem,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    on_event: Callable[[Event], None] | None = None,
    **settings: Any,
) -> Net:
    """Train an estimator on fresh draws of a problem, to the end, and return it with its best weights.

    Args:
        estimator: A module that maps an `Observation` to an `Estimate`, such as `unfold` makes; changed in place.
        problem: Where draws come from.
        run_dir: Directory to keep config, metrics, checkpoints and weights in; nothing is written if None.
        resume: Go on from the checkpoint in `run_dir`, to the same numbers as without the break.
        on_event: Called with each event.
        **settings: Fields of `Training`; what is not given is as in the estimator's `training_defaults`, if any.

    Raises:
        ValueError: If there is nothing to learn, a setting is wrong or the run directory is in use.
        OSError: If the disk is full; the last checkpoint stays whole.
    """
    settings = getattr(estimator, "training_defaults", {}) | settings
    for event in fit_events(estimator, problem, Training(**settings), run_dir, resume=resume):
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
    device = next(estimator.parameters()).device
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
    failed = getattr(problem, "failed", None)  # runs of a simulator that gave no pair, by kind
    if run and failed:
        run.log({"event": "failures", "step": trainer.step, "failed": dict(failed)})


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
    config: dict[str, Any] = {"training": dataclasses.asdict(training)}
    try:
        config |= {"problem": recipe.describe_problem(problem)}
        if isinstance(estimator, Unfolded) or hasattr(estimator, "settings"):
            config |= {"network": recipe.describe_network(estimator)}
    except ValueError:  # classes of the user's own: the run can be resumed from Python, which has them
        config |= {"note": "made from Python with classes that are not registered"}
    return Run.create(path, config, environment(training.seed, problem, device, training.threads, world.size))


def resume(run_dir: str | Path, on_event: Callable[[Event], None] | None = None) -> nn.Module:
    """Go on with a run that stopped, to the same numbers as without the break, and return the trained network."""
    run = Run.open(run_dir)
    settings = run.config["training"]
    net = run.network().to(run.environment.get("device", "cpu"))
    return fit(net, run.problem(), run_dir=run_dir, resume=True, on_event=on_event, **settings)


def summary(finished: Finished) -> str:
    """One line on how a training ended."""
    skipped = f", {finished.skipped} non-finite steps skipped" if finished.skipped else ""
    loss = "" if finished.loss is None else f"loss {finished.loss:.4f}, "
    return f"{loss}{finished.nmse_db:.2f} dB on held-out draws after {finished.step} steps ({finished.reason}){skipped}"


__all__ = ["Event", "Finished", "Started", "Stepped", "Training", "Validated", "fit", "fit_events", "resume", "summary"]
