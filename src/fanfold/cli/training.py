"""The verbs that make runs: train, resume, quantise, simulate."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from fanfold.algorithms import Algorithm
from fanfold.cli.console import note, proposed, resumable, show, watching
from fanfold.cli.flags import (
    Flat,
    NetworkChoice,
    ProblemChoice,
    Result,
    RunPath,
    TrainingFlags,
    Unfolding,
    chosen_for,
    training_of,
)
from fanfold.cli.outputs import check_folder, goes_on
from fanfold.core.abilities import ability
from fanfold.core.commands import command
from fanfold.core.data_files import toml_table
from fanfold.core.machine import join_world
from fanfold.core.settings import check_known, check_table, kinds_of, made, within
from fanfold.core.table import Table
from fanfold.core.units import power
from fanfold.estimators.base import Settings
from fanfold.estimators.fixed_point import Widths, integer_form
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.protocols import GuessedPrior, Stored, likelihood_of, prior_of
from fanfold.runs import recipe
from fanfold.runs.directory import Run
from fanfold.runs.folders import check_free, check_schema, claimed, discard_unused
from fanfold.runs.needs import needs_of
from fanfold.runs.origin import check_command
from fanfold.training.fit import fit
from fanfold.training.fit import resume as resume_run
from fanfold.training.settings import Training
from fanfold.training.simulate import simulate as run_simulation
from fanfold.unfolding.equilibrium import EquilibriumSettings
from fanfold.unfolding.unfold import UnfoldedSettings

NOTHING_GIVEN = TrainingFlags()
ALLOW = "--allow-program"
FAR = 30.0  # ratio of powers, beyond which a prior is of unknowns in another unit
SECTIONS = ("schema", "problem", "outline", "network", "training")


def train_verb(args: Sequence[str], config: Path | None) -> Callable[..., Result]:
    """The verb `train` for the words of a command line, with the defaults of a config, if there is one."""
    prior_given = config is not None or any(word.startswith("--prior") for word in args)

    def train(
        problem: Annotated[ProblemChoice, Flat],
        network: Annotated[NetworkChoice, Flat],
        training: Annotated[TrainingFlags, Flat] = NOTHING_GIVEN,
        run_dir: Path | None = None,
        device: str = "cpu",
        quantise: Widths | None = None,
        check: bool = False,
        allow_program: bool = False,
    ) -> Result:
        """Train a network: fanfold train PROBLEM NETWORK [flags]. An algorithm is unfolded into one.

        --config FILE gives other defaults, such as a run directory's config.toml.

        Args:
            problem: What to estimate.
            network: An algorithm to unfold, a network that learns end to end (neural), or another estimator.
            training: How to train.
            run_dir: Where config, metrics, checkpoints and weights go; runs/PROBLEM-NETWORK-N if not given.
            device: "cpu" or "cuda".
            quantise: Then train on in whole numbers of so many bits, as fanfold quantise does, into RUN-WIDTHS.
            check: Say whether all that fits together, and train nothing.
            allow_program: Start the program that a --config names, although it was not made here.
        """
        return _train(problem, network, asdict(training), run_dir, device, quantise, prior_given, check)

    return train if config is None else with_defaults(train, defaults_of(config, allow_program=ALLOW in args))


def with_defaults(verb: Callable[..., Result], defaults: Mapping[str, Any]) -> Callable[..., Result]:
    """A function with the same flags and other defaults."""
    signature = inspect.signature(verb)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    required_first = sorted(parameters, key=lambda p: p.default is not inspect.Parameter.empty)

    @functools.wraps(verb)
    def same(*args, **kwargs):
        return verb(*args, **kwargs)

    vars(same)["__signature__"] = signature.replace(parameters=required_first)
    return same


def _train(
    problem: Problem,
    network: Unfolding | Settings,
    options: dict[str, Any],
    run_dir: Path | None,
    device: str,
    widths: Widths | None,
    prior_given: bool,
    check: bool,
) -> Result:
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"there is no device {device!r} here; pass cpu{' or cuda' * torch.cuda.is_available()}.")
    name = type(network).__name__.removesuffix("Settings")
    if run_dir is not None:
        check_folder(run_dir)
    settings = settings_for(network, problem, prior_given=prior_given)
    world = join_world(torch.device(device))  # chooses the GPU of this process
    if widths is not None and world.size > 1:
        raise ValueError(
            "one process trains in whole numbers: leave out --quantise under torchrun; then fanfold quantise RUN."
        )
    net = settings.build(problem).to(device)
    if widths is not None:
        integer_form(net)  # or it is refused before anything is trained
    if check:
        training_of(options)
        note(f"{name} fits {type(problem).__name__}; nothing was trained")
        return {"fits": name}
    path = run_dir or claimed(Path("runs"), f"{type(problem).__name__}-{name}".lower())
    try:
        if widths is not None:
            check_free(_integers_of(path, widths))  # likewise
        with resumable(lambda: goes_on(path, widths)), watching(str(path)) as watch:
            fit(net, problem, run_dir=path, on_event=watch if world.leads else None, **options)
    finally:
        if run_dir is None:
            discard_unused(path)
    return _trained(path, leads=world.leads) if widths is None else _trained_on(path, widths)


@functools.singledispatch
def settings_for(network: Any, problem: Problem, *, prior_given: bool) -> Settings:
    """The settings that a subcommand's value stands for, on a problem."""
    return network


@settings_for.register
def _(network: Unfolding, problem: Problem, *, prior_given: bool) -> Settings:
    algorithm = _suited(network.algorithm, problem, prior_given=prior_given)
    if network.equilibrium:
        return EquilibriumSettings(algorithm, network.learn or scalar_quantities(algorithm, problem, "tied"))
    learn = network.learn or scalar_quantities(algorithm, problem, "per-layer")
    return UnfoldedSettings(algorithm, network.layers, learn, network.checkpoint)


def _suited(algorithm: Algorithm, problem: Problem, *, prior_given: bool) -> Algorithm:
    """The algorithm with the problem's likelihood and prior, where its own are of another kind: no flag says a kind."""
    parts, changes = vars(algorithm), dict[str, Any]()
    for part, known in (("likelihood", likelihood_of(problem)), ("prior", prior_of(problem))):
        if parts.get(part) is not None and known is not None and type(parts[part]) is not type(known):
            changes[part] = known
            note(f"{type(algorithm).__name__} takes the problem's {part}: {known}")
    fitted = ability(problem, GuessedPrior)
    if fitted is not None and parts.get("prior") is not None and "prior" not in changes and not prior_given:
        changes["prior"] = fitted.guessed_prior
        note(f"{type(algorithm).__name__} begins from the prior of the training scenes: {fitted.guessed_prior}")
    suited = replace(algorithm, **changes) if changes else algorithm  # type: ignore[type-var]
    _notice_unit(suited, problem)
    return suited


def _notice_unit(algorithm: Algorithm, problem: Problem) -> None:
    """Say where a prior takes the unknowns of stored pairs for far larger or smaller than they are."""
    prior, stored = vars(algorithm).get("prior"), ability(problem, Stored)
    if prior is None or stored is None:
        return
    measured = power(stored.every()[0]).double().mean().item()
    if measured > 0 and prior.power > 0 and not 1 / FAR < prior.power / measured < FAR:
        note(
            f"the prior takes E|x|^2 of an unknown for {prior.power:.3g}, and in these pairs it is {measured:.3g}: "
            f"begin from a variance {measured / prior.power:.3g} times as large (--prior.var), or scale x and y"
        )


def scalar_quantities(algorithm: Algorithm, problem: Problem, sharing: str = "per-layer") -> dict[str, str]:
    """Every quantity of an algorithm that is one number."""
    A = problem.A
    if A is None:
        raise ValueError("an iterative algorithm needs the operator A; this problem has none.")
    template = Observation.unchecked(torch.zeros(A.m, dtype=A.dtype), A)
    theta = vars(algorithm.nominal_theta(template))
    return {name: sharing for name, value in theta.items() if value.ndim == 0}


def defaults_of(file: Path, *, allow_program: bool = False) -> dict[str, Any]:
    """Problem, network and training of a config, such as a run directory's.

    Raises:
        ValueError: If it cannot be read or holds something unknown, or names a program and was not made here.
    """
    config = toml_table(file, f"there is no config {file}; a run directory's config.toml is one.")
    check_known(config, SECTIONS, "the config has [{}]; it takes {}.")
    check_schema(config, file)
    with within(f"{file}, [training]"):
        settings = check_table(config.get("training", {}))
        known = list(kinds_of(TrainingFlags))  # all but a loss, which is a function
        check_known(settings, known, "training has no setting {!r} here; it has {}.")
        checked = vars(made(Training, settings, "training"))
        defaults: dict[str, Any] = {"training": TrainingFlags(**{name: checked[name] for name in settings})}
    with within(f"{file}, [problem]"):
        commands = needs_of(config.get("problem", {})).commands
    if commands and not allow_program:
        check_command(file.parent, file.read_bytes(), commands[0], file)
    if "problem" in config:
        with within(f"{file}, [problem]"):
            defaults["problem"] = recipe.build_problem(config["problem"])
    if "network" in config:
        with within(f"{file}, [network]"):
            defaults["network"] = chosen_for(recipe.build_settings(config["network"]))
    return defaults


def resume(run: RunPath, quantise: Widths | None = None, allow_program: bool = False) -> Result:
    """Go on with a training that stopped, to the same numbers as without the break.

    Args:
        run: The run directory.
        quantise: Then train on in whole numbers of so many bits, as fanfold train --quantise does, into RUN-WIDTHS.
        allow_program: Start the program of a run that was not made on this machine, in this folder.
    """
    if quantise is not None:
        check_free(_integers_of(run, quantise))
    with resumable(lambda: goes_on(run, quantise)), watching(str(run)) as watch:
        resume_run(run, on_event=watch, allow_program=allow_program)
    return _trained(run, leads=True) if quantise is None else _trained_on(run, quantise, allow_program=allow_program)


def _integers_of(run: Path, widths: Widths) -> Path:
    return Path(f"{run}-{widths}")


def _trained_on(run: Path, widths: Widths, *, allow_program: bool = False) -> Result:
    """A run trained on in whole numbers, with its seed and threads."""
    trained = Run.open(run).config["training"]
    flags = TrainingFlags(seed=trained["seed"], threads=trained["threads"])
    return quantise(run, widths, flags, allow_program=allow_program)


def quantise(
    run: RunPath,
    widths: Widths = "w8a8",
    training: Annotated[TrainingFlags, Flat] = NOTHING_GIVEN,
    run_dir: Path | None = None,
    allow_program: bool = False,
) -> Result:
    """Train a trained network on in whole numbers: the forward pass is that of its integer program, bit for bit.

    The run stays as it is. The new one is a run like any other: evaluate, export and certify take it.

    Args:
        run: Its run directory.
        widths: Bits of weights and of activations.
        training: How to train.
        run_dir: Where the new run goes; RUN-WIDTHS if not given.
        allow_program: Start the program of a run that was not made on this machine, in this folder.
    """
    stored = Run.open(run)
    path = run_dir or _integers_of(run, widths)
    check_folder(path)
    check_free(path)
    net, problem = stored.estimator(), stored.problem(allow_program=allow_program)
    with resumable(lambda: goes_on(path)), watching(str(path)) as watch:
        fit(net, problem, run_dir=path, on_event=watch, quantise=widths, **asdict(training))
    return _trained(path, leads=True)


def simulate(
    problem: Annotated[ProblemChoice, Flat],
    count: int,
    out: Path,
    workers: int | None = None,
    draw_seed: int | None = None,
    retry_failed: bool = False,
) -> Result:
    """Draw from a problem ahead of training: fanfold simulate PROBLEM --count N --out DIR [flags].

    Args:
        problem: What to draw from, such as a program: simulate program --command "solver --seed {seed}" ...
        count: How many draws to make; failed ones are counted, recorded and left out.
        out: The folder for the draws; the same flags again go on and make only what is missing.
        workers: How many runs go on at once; if not given, one for each core for a program, else one.
        draw_seed: The seed of the draws; if not given, that of the simulator, else 0.
        retry_failed: Make those draws again that are stored as failed.
    """
    check_folder(out)
    kept = "what was simulated is kept; go on with:"
    with resumable(lambda: kept), watching(str(out)) as watch:
        pairs = run_simulation(
            problem, count, out, on_event=watch, workers=workers, seed=draw_seed, retry_failed=retry_failed
        )
    show(Table(pairs.table()))
    proposed(command("train", "simulations", "neural", "--path", out))
    return {"out": str(out), "rows": pairs.table()}


def _trained(path: Path, *, leads: bool) -> Result:
    if leads:
        proposed(command("evaluate", path), command("report", path), command("apply", path, "y.npy"))
    return {"run": str(path)}
