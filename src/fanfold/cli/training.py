"""The verbs that make runs: train, resume, simulate."""

import functools
import inspect
import itertools
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any

import torch

from fanfold.algorithms import Algorithm
from fanfold.cli.console import notes, show, watching
from fanfold.cli.flags import (
    Flat,
    NetworkChoice,
    ProblemChoice,
    Result,
    RunPath,
    TrainingFlags,
    Unfolding,
    chosen_for,
)
from fanfold.core.abilities import ability
from fanfold.core.machine import join_world
from fanfold.core.suggest import did_you_mean
from fanfold.core.table import Table
from fanfold.estimators.base import Settings
from fanfold.observation import Observation
from fanfold.problems import Problem
from fanfold.problems.protocols import GuessedPrior, likelihood_of, prior_of
from fanfold.runs import recipe
from fanfold.runs.directory import check_schema
from fanfold.training.fit import fit
from fanfold.training.fit import resume as resume_run
from fanfold.training.simulate import simulate as run_simulation
from fanfold.unfolding.equilibrium import EquilibriumSettings
from fanfold.unfolding.unfold import UnfoldedSettings

NOTHING_GIVEN = TrainingFlags()
SECTIONS = ("schema", "problem", "network", "training")


def train_verb(args: Sequence[str], config: Path | None) -> Callable[..., Result]:
    """The verb `train` for the words of a command line, with the defaults of a config, if there is one."""
    prior_given = config is not None or any(word.startswith("--prior") for word in args)

    def train(
        problem: Annotated[ProblemChoice, Flat],
        network: Annotated[NetworkChoice, Flat],
        training: Annotated[TrainingFlags, Flat] = NOTHING_GIVEN,
        run_dir: Path | None = None,
        device: str = "cpu",
    ) -> Result:
        """Train a network: fanfold train PROBLEM NETWORK [flags]. An algorithm is unfolded into one.

        --config FILE gives other defaults, such as a run directory's config.toml.

        Args:
            problem: What to estimate.
            network: An algorithm to unfold, a network that learns end to end (neural), or another estimator.
            training: How to train.
            run_dir: Where config, metrics, checkpoints and weights go; runs/PROBLEM-NETWORK-N if not given.
            device: "cpu" or "cuda".
        """
        return _train(problem, network, asdict(training), run_dir, device, prior_given=prior_given)

    return train if config is None else with_defaults(train, defaults_of(config))


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
    *,
    prior_given: bool,
) -> Result:
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"there is no device {device!r} here; pass cpu{' or cuda' * torch.cuda.is_available()}.")
    name = type(network).__name__.removesuffix("Settings")
    settings = settings_for(network, problem, prior_given=prior_given)
    leads = join_world(torch.device(device)).leads  # chooses the GPU of this process
    net = settings.build(problem).to(device)
    path = run_dir or _free_path(f"{type(problem).__name__}-{name}".lower())
    with watching(str(path)) as watch:
        fit(net, problem, run_dir=path, on_event=watch if leads else None, **options)
    return _trained(path, leads=leads)


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
            notes.print(f"{type(algorithm).__name__} takes the problem's {part}: {known}", markup=False)
    fitted = ability(problem, GuessedPrior)
    if fitted is not None and parts.get("prior") is not None and "prior" not in changes and not prior_given:
        changes["prior"] = fitted.guessed_prior
        notes.print(
            f"{type(algorithm).__name__} begins from the prior of the training scenes: {fitted.guessed_prior}",
            markup=False,
        )
    return replace(algorithm, **changes) if changes else algorithm  # type: ignore[type-var]


def scalar_quantities(algorithm: Algorithm, problem: Problem, sharing: str = "per-layer") -> dict[str, str]:
    """Every quantity of an algorithm that is one number."""
    A = problem.A
    if A is None:
        raise ValueError("an iterative algorithm needs the operator A; this problem has none.")
    template = Observation.unchecked(torch.zeros(A.m, dtype=A.dtype), A)
    theta = vars(algorithm.nominal_theta(template))
    return {name: sharing for name, value in theta.items() if value.ndim == 0}


def defaults_of(file: Path) -> dict[str, Any]:
    """Problem, network and training of a config, such as a run directory's.

    Raises:
        ValueError: If it cannot be read or holds something unknown.
    """
    try:
        config = tomllib.loads(file.read_text())
    except FileNotFoundError as error:
        raise ValueError(f"there is no config {file}; a run directory's config.toml is one.") from error
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{file} is not TOML: {error}") from error
    _refuse_unknown(config, SECTIONS, "the config has [{}]; it takes {}.")
    check_schema(config, file)
    settings = dict(config.get("training", {}))
    _refuse_unknown(settings, [*TrainingFlags.__dataclass_fields__], "[training] has no setting {!r}; it has {}.")
    defaults: dict[str, Any] = {"training": TrainingFlags(**settings)}
    if "problem" in config:
        defaults["problem"] = recipe.build_problem(config["problem"])
    if "network" in config:
        defaults["network"] = chosen_for(recipe.build_settings(config["network"]))
    return defaults


def _refuse_unknown(data: Mapping[str, Any], known: Sequence[str], sentence: str) -> None:
    for name in data:
        if name not in known:
            raise ValueError(sentence.format(name, ", ".join(known)) + did_you_mean(name, known))


def resume(run: RunPath) -> Result:
    """Go on with a training that stopped, to the same numbers as without the break.

    Args:
        run: The run directory.
    """
    with watching(str(run)) as watch:
        resume_run(run, on_event=watch)
    return _trained(run, leads=True)


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
    with watching(str(out)) as watch:
        pairs = run_simulation(
            problem, count, out, on_event=watch, workers=workers, seed=draw_seed, retry_failed=retry_failed
        )
    show(Table(pairs.table()))
    notes.print(f"next: fanfold train simulations neural --path {out}")
    return {"out": str(out), "rows": pairs.table()}


def _trained(path: Path, *, leads: bool) -> Result:
    if leads:
        notes.print(f"next: fanfold evaluate {path} · fanfold report {path} · fanfold apply {path} y.npy")
    return {"run": str(path)}


def _free_path(name: str) -> Path:
    return next(p for i in itertools.count(1) if not (p := Path("runs") / f"{name}-{i}").exists())
