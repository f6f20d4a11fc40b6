"""The verbs of the command line, all in one file as each is short: they call the library and own no mathematics.

A verb prints for people and returns plain data for `--json`.
"""

import functools
import inspect
import itertools
import json
import operator
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from fanfold import algorithms, estimators, problems
from fanfold.algorithms import FISTA, Algorithm
from fanfold.cli.apply import apply_to_file
from fanfold.cli.channels import channels  # noqa: F401 - a verb
from fanfold.cli.console import StudyWatch, notes, show, simulation_watch, watching
from fanfold.core.files import write_whole
from fanfold.core.machine import join_world, sensible_threads
from fanfold.core.suggest import did_you_mean
from fanfold.core.table import Table, plain
from fanfold.evaluation.evaluate import evaluate as evaluate_estimators
from fanfold.evaluation.peers import peers_of
from fanfold.experiments import Study, find_experiment
from fanfold.experiments.demo import study as demo_study
from fanfold.linops import dot_test
from fanfold.observation import Observation
from fanfold.problems import CompressedSensing, Problem
from fanfold.report.page import Section, write_page
from fanfold.report.plots import require_matplotlib
from fanfold.report.run_page import write_run_page
from fanfold.runs import recipe
from fanfold.runs.directory import Run, installed
from fanfold.training.events import Event
from fanfold.training.fit import fit
from fanfold.training.fit import resume as resume_run
from fanfold.training.settings import Training
from fanfold.training.simulate import simulate as run_simulation
from fanfold.unfolding.unfold import iterate, unfold

Result = dict[str, Any]
sub = tyro.conf.subcommand


def _choice_of(registry: dict[str, type]) -> Any:
    """One subcommand for each row of a registry."""
    return functools.reduce(
        operator.or_, (Annotated[kind, sub(name, prefix_name=False)] for name, kind in registry.items())
    )


ProblemChoice, AlgorithmChoice = _choice_of(problems.REGISTRY), _choice_of(algorithms.REGISTRY | estimators.REGISTRY)
Flat = tyro.conf.arg(name="")


@dataclass(frozen=True)
class TrainingFlags(Training):
    """How to train; `--seed` belongs to the problem, which fixes A with it."""

    seed: Annotated[int, tyro.conf.arg(name="draw-seed")] = 0  # of the draws


RunPath = Annotated[Path, tyro.conf.Positional]


def demo(out_dir: Path = Path("fanfold-demo"), seed: int = 0) -> Result:
    """Train in front of your eyes, under a minute: the figure of unfolding, a photograph, and a report to open.

    Args:
        out_dir: Where report.html and the numbers go.
        seed: Of matrices and draws.
    """
    require_matplotlib()
    return _present(demo_study(seed=seed, watch=_watch), out_dir)


def reproduce(
    name: Annotated[str, tyro.conf.Positional], quick: bool = False, out_dir: Path | None = None, seed: int = 0
) -> Result:
    """Run a published experiment: every goal, what was measured, PASS or FAIL, and a report.

    Args:
        name: Such as sparse-limit, lista-family, mimo-detection, rf-imaging or photographs; a wrong one names them all.
        quick: The small version, with goals of its own.
        out_dir: Where the report goes; reports/NAME if not given.
        seed: Of matrices and draws.
    """
    require_matplotlib()
    study = find_experiment(name)(quick=quick, seed=seed, watch=_watch)
    return _present(study, out_dir or Path("reports") / name)


def train(
    problem: Annotated[ProblemChoice, Flat],
    algorithm: Annotated[AlgorithmChoice, Flat],
    training: Annotated[TrainingFlags, Flat] = TrainingFlags(),
    layers: int = 16,
    learn: tuple[str, ...] = (),
    checkpoint: bool = False,
    run_dir: Path | None = None,
    device: str = "cpu",
) -> Result:
    """Train a network: fanfold train PROBLEM ALGORITHM [flags] or, end to end, fanfold train PROBLEM neural [flags].

    --config FILE gives other defaults. What is not given of --steps, --batch, --lr, --validate-every and
    --validation-samples is 1900, 512, 4e-3, 200 and 10 000 for neural, and as each network of channels says.

    Args:
        problem: What to estimate.
        algorithm: What to unfold, or neural, or a network of channels such as beam-mixer.
        training: How to train.
        layers: How many iterations to unfold.
        learn: What may move, as QUANTITY=SHARING: step=per-layer, W=tied, "threshold=per-layer vector". Every
            quantity that is one number, per layer, if not given.
        checkpoint: Train in the memory of a few layers, taking every step two more times.
        run_dir: Where config, metrics, checkpoints and weights go; runs/PROBLEM-ALGORITHM-N if not given.
        device: "cpu" or "cuda".
    """
    if isinstance(algorithm, tuple(estimators.REGISTRY.values())):
        return _train_end_to_end(problem, algorithm, training, learn, run_dir, device)
    algorithm = _told_by(problem, algorithm)
    wanted = dict(_learned(word) for word in learn) or scalar_quantities(algorithm, problem)
    _check_device(device)
    leads = join_world(torch.device(device)).leads  # chooses the GPU of this process
    net = unfold(algorithm, problem, layers, wanted, checkpoint=checkpoint).to(device)
    path = run_dir or _free_path(f"{type(problem).__name__}-{type(algorithm).__name__}".lower())
    with watching(str(path)) as watch:
        fit(net, problem, run_dir=path, on_event=watch if leads else None, **vars(training))
    return _trained(path, leads)


def _train_end_to_end(
    problem: Problem,
    settings: Any,
    training: TrainingFlags,
    learn: tuple[str, ...],
    run_dir: Path | None,
    device: str,
) -> Result:
    if learn:
        raise ValueError("--learn names quantities of an algorithm to unfold; this network learns all of its own.")
    _check_device(device)
    leads = join_world(torch.device(device)).leads
    net = settings.build(problem).to(device)
    path = run_dir or _free_path(f"{type(problem).__name__}-{_name_of(settings)}".lower())
    given = {k: v for k, v in vars(training).items() if v != getattr(TrainingFlags, k)}  # the rest is the network's
    with watching(str(path)) as watch:
        fit(net, problem, run_dir=path, on_event=watch if leads else None, **given)
    return _trained(path, leads)


def _name_of(settings: Any) -> str:
    return next(name for name, kind in estimators.REGISTRY.items() if type(settings) is kind)


def _trained_name(network: dict[str, Any]) -> str | None:
    """The estimator or algorithm that a config names."""
    named = (name for name in estimators.REGISTRY if name in network)
    return next(named, network.get("algorithm", {}).get("name"))


def _check_device(device: str) -> None:
    if device not in ("cpu", "cuda") or (device == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"there is no device {device!r} here; pass cpu{' or cuda' * torch.cuda.is_available()}.")


def _told_by(problem: Problem, algorithm: Algorithm) -> Algorithm:
    """The algorithm with the problem's likelihood and prior, where its own are of another kind: no flag says a kind."""
    changes = {}
    for part in ("likelihood", "prior"):
        own, its = getattr(algorithm, part, None), getattr(problem, part, None)
        if own is not None and its is not None and type(own) is not type(its):
            changes[part] = its
            notes.print(f"{type(algorithm).__name__} takes the problem's {part}: {its}")
    guess, own = getattr(problem, "guessed_prior", None), getattr(algorithm, "prior", None)
    if guess is not None and own is not None and "prior" not in changes and own == type(algorithm)().prior:  # type: ignore[attr-defined]
        changes["prior"] = guess
        notes.print(f"{type(algorithm).__name__} begins from the prior of the training scenes: {guess}")
    return replace(algorithm, **changes) if changes else algorithm  # type: ignore[type-var]


def train_from(config: dict[str, Any]):
    """`train` with the defaults of a config, such as a run directory's."""
    known = ("problem", "network", "training")
    for section in config:
        if section not in known:
            raise ValueError(f"the config has [{section}]; it takes {', '.join(known)}.{did_you_mean(section, known)}")
    network = dict(config.get("network", {}))
    for key in network:
        if key not in (settings := ("algorithm", "layers", "learn", "checkpoint", *estimators.REGISTRY)):
            hint = did_you_mean(key, settings)
            raise ValueError(f"[network] has no setting {key!r}; it has {', '.join(settings)}.{hint}")
    default = {
        "problem": recipe.build_problem(config["problem"]) if "problem" in config else None,
        "algorithm": _algorithm_of(network),
        "training": _training(config.get("training", {})),
        "layers": network.get("layers", 16),
        "learn": tuple(f"{k}={v}" for k, v in network.get("learn", {}).items()),
        "checkpoint": network.get("checkpoint", False),
    }
    return with_defaults(train, {k: v for k, v in default.items() if v is not None})


def _algorithm_of(network: dict[str, Any]) -> Any:
    """What a config's [network] names: an algorithm to unfold, the settings of an end-to-end network, or neither."""
    if (settings := recipe.estimator_settings(network)) is not None:
        return settings
    return recipe.build(network["algorithm"], algorithms.REGISTRY) if "algorithm" in network else None


def with_defaults(verb, defaults: dict[str, Any]):
    """A function with the same flags and other defaults."""
    signature = inspect.signature(verb)
    parameters = [p.replace(default=defaults.get(p.name, p.default)) for p in signature.parameters.values()]
    required_first = sorted(parameters, key=lambda p: p.default is not inspect.Parameter.empty)

    @functools.wraps(verb)
    def same(*args, **kwargs):
        return verb(*args, **kwargs)

    same.__signature__ = signature.replace(parameters=required_first)  # type: ignore[attr-defined]
    return same


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
        count: How many draws; failed ones are counted, recorded and left out.
        out: Where they go; with the same flags again it goes on and makes only what is missing.
        workers: Runs at once; one for each core for a program, else one, if not given.
        draw_seed: Of the draws; a simulator's own if not given, else 0.
        retry_failed: Make those again that are stored as failed.
    """
    settings = {"workers": workers, "seed": draw_seed, "retry_failed": retry_failed}
    with simulation_watch(str(out)) as watch:
        pairs = run_simulation(problem, count, out, on_event=watch, **settings)
    show(Table(pairs.table()))
    notes.print(f"next: fanfold train simulations neural --path {out}")
    return {"out": str(out), "rows": pairs.table()}


def resume(run: RunPath) -> Result:
    """Go on with a training that stopped, to the same numbers as without the break.

    Args:
        run: Its run directory.
    """
    with watching(str(run)) as watch:
        resume_run(run, on_event=watch)
    return _trained(run, leads=True)


def runs(directory: Annotated[Path, tyro.conf.Positional] = Path("runs")) -> Result:
    """List run directories with what was trained and how far it got.

    Args:
        directory: Where to look.
    """
    rows = []
    for file in sorted(directory.glob("*/config.toml")):
        run = Run(file.parent)
        config, validated = run.config, [m for m in run.metrics() if m["event"] == "validated"]
        network, last = config.get("network", {}), validated[-1] if validated else {}
        rows.append(
            {
                "run": str(run.path),
                "problem": config.get("problem", {}).get("name"),
                "algorithm": _trained_name(network),
                "layers": network.get("layers"),
                "step": last.get("step", 0),
                "of": config["training"]["steps"],
                "nmse_db": last.get("nmse_db"),
                "done": (run.path / "weights.safetensors").is_file(),
            }
        )
    if rows:
        show(Table(rows))
    else:
        notes.print(f"no runs in {directory}; fanfold train makes one.")
    return {"runs": rows}


def evaluate(
    run: RunPath,
    snr_db: tuple[float, ...] = (),
    pictures: tuple[str, ...] = (),
    samples: int = 1000,
    layers: bool = False,
    out: Path | None = None,
) -> Result:
    """Error of a trained run on fresh draws, against its untrained self and its peers, with the limits.

    Args:
        run: Its run directory.
        snr_db: SNRs to try, where the problem has one; that of the training if none is given.
        pictures: Other pictures to test on, where the problem has some; those of the training if none is given.
        samples: Draws for each condition.
        layers: A row for each layer.
        out: A .csv or .json file for the table.
    """
    stored = Run.open(run)
    net, problem = stored.estimator(), stored.problem()
    conditions: dict[str, Any] = {"snr_db": list(snr_db)} if snr_db else {}
    if pictures:
        problem = problem.shifted(pictures=pictures)
    table = evaluate_estimators(peers_of(net, problem), problem, samples=samples, layers=layers, **conditions)
    show(table)
    if out is not None:
        (table.to_json if out.suffix == ".json" else table.to_csv)(out)
        notes.print(f"written: {out}")
    return {"rows": [{k: plain(v) for k, v in row.items()} for row in table]}


def apply(
    run: RunPath,
    y: Annotated[Path, tyro.conf.Positional],
    out: Path = Path("x_hat.npy"),
    strength: float = 1.0,
    coverage: float | None = None,
    joint: bool = False,
    noise_var: float | None = None,
) -> Result:
    """Estimate x from your own measurements with a trained run.

    Args:
        run: Its run directory.
        y: An .npy file of measurements, shape (m,) or (samples, m); of sequences, images and sets as they are drawn.
        out: Where the estimates go, as .npy, shape (n,) or (samples, n); what else is written has this name with _var,
            _low, _high or _radius.
        strength: How far to trust what was learned: 0 is the classical algorithm, 1 the trained network.
        coverage: Of intervals around each estimate, such as 0.9, calibrated on held-out draws; none if not given.
        joint: Intervals hold all entries of a sample at once, with that probability.
        noise_var: Of your measurements, if it is another than the problem's; networks of channels can measure it.
    """
    files = apply_to_file(Run.open(run), y, out, strength, coverage, joint=joint, noise_var=noise_var)
    rows = [{"written": str(p), "shape": str(tuple(v.shape)), "dtype": str(v.dtype)} for p, v in files.items()]
    show(Table(rows))
    return {"out": str(out), "shape": list(files[out].shape), "files": [str(path) for path in files]}


def report(run: RunPath, out: Path | None = None, samples: int = 1000) -> Result:
    """Write the page of a run: learning curve, error of every layer, peers and limits.

    Args:
        run: Its run directory.
        out: Where to; report.html in the run directory if not given.
        samples: Draws to measure on.
    """
    stored = Run.open(run)
    path = write_run_page(stored, out or stored.path / "report.html", samples)
    notes.print(f"open {path}")
    return {"report": str(path)}


def doctor() -> Result:
    """Check the installation: versions, threads, extras, and two laws on this machine."""
    problem = CompressedSensing(n=64, m=32)
    _, obs = problem.sample(4, torch.Generator().manual_seed(0))
    gap = dot_test(problem.A)
    net = unfold(FISTA(), problem, 8, {"step": "per-layer"})
    same = torch.equal(net(obs).x, iterate(FISTA(), 8)(obs).x)
    packages = ("fanfold", "torch", "numpy", "scipy", "safetensors", "tyro", "rich", "PyWavelets", "pillow")
    extras = ("matplotlib", "pandas", "onnx", "onnxruntime", "onnxscript", "pylops", "deepinv", "scikit-learn")
    facts: dict[str, Any] = {name: installed(name) or "missing: install fanfold again" for name in packages}
    facts |= {name: installed(name) or "not installed (optional)" for name in extras}
    facts |= {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads idle now": sensible_threads(),
        "adjoint": f"relative gap {gap:.1e}",
        "zero deviation is the algorithm": "bit for bit" if same else "BROKEN",
    }
    show(Table([{"what": k, "value": str(v)} for k, v in facts.items()]))
    return {"facts": facts, "failed": not same or any("missing" in str(facts[name]) for name in packages)}


def scalar_quantities(algorithm: Algorithm, problem: Problem) -> dict[str, str]:
    """Every quantity of an algorithm that is one number, per layer."""
    A = problem.A
    if A is None:
        raise ValueError("an iterative algorithm needs the operator A; this problem has none.")
    template = Observation.unchecked(torch.zeros(A.m, dtype=A.dtype), A)
    theta = vars(algorithm.nominal_theta(template))
    return {name: "per-layer" for name, value in theta.items() if value.ndim == 0}


def _present(study: Study, out_dir: Path) -> Result:
    """Write the report of an experiment and print its goals."""
    out_dir.mkdir(parents=True, exist_ok=True)
    goals = Section("Goals", study.claim, table=study.table())
    facts = study.facts | {
        "fanfold": installed("fanfold"),
        "torch": torch.__version__,
        "seconds": round(study.seconds, 1),
    }
    page = write_page(out_dir / "report.html", f"fanfold {study.name}", study.verdict, [*study.sections, goals], facts)
    for i, figure in enumerate(f for section in study.sections for f in section.figures if f.startswith("<svg")):
        write_whole(out_dir / f"figure-{i + 1}.svg", figure.encode())
    write_whole(out_dir / "goals.json", json.dumps(study.as_json(), indent=1).encode())
    show(Table([{**row, "pass": "PASS" if row["pass"] else "FAIL"} for row in study.table()]))
    notes.print(f"\n{study.verdict}\n\nopen {page}", markup=False)
    return study.as_json() | {"report": str(page), "failed": not study.passed}


def _watch(title: str) -> Callable[[Event], None]:
    return StudyWatch(title)


def _trained(path: Path, leads: bool) -> Result:
    if leads:
        notes.print(f"next: fanfold evaluate {path} · fanfold report {path} · fanfold apply {path} y.npy")
    return {"run": str(path)}


def _free_path(name: str) -> Path:
    return next(p for i in itertools.count(1) if not (p := Path("runs") / f"{name}-{i}").exists())


def _learned(word: str) -> tuple[str, str]:
    quantity, _, sharing = word.partition("=")
    if not sharing:
        raise ValueError(f"cannot read --learn {word}; say QUANTITY=SHARING, such as step=per-layer.")
    return quantity, sharing


def _training(settings: dict[str, Any]) -> TrainingFlags:
    known = list(Training.__dataclass_fields__)
    for name in settings:
        if name not in known:
            raise ValueError(
                f"[training] has no setting {name!r}; it has {', '.join(known)}.{did_you_mean(name, known)}"
            )
    return TrainingFlags(**settings)
