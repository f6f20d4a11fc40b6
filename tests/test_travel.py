"""Runs travel, and loading is reading: no program starts, no path out of the run is followed, nothing is missed."""

import json
import os
import shlex
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import tomli_w
import torch
from PIL import Image
from torch import Tensor, nn

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.abilities import offers
from fanfold.core.files import sole_writer
from fanfold.linops import (
    DCT,
    Batched,
    Born,
    Compose,
    Dense,
    Diagonal,
    Kronecker,
    LinearOperator,
    Mask,
    Sparse,
    Wavelet,
)
from fanfold.linops.base import Adjoint
from fanfold.observation import Estimate, Observation
from fanfold.problems import REGISTRY, Box, Problem, Program, Simulator
from fanfold.problems.draws import Pool, draw
from fanfold.problems.protocols import ReadsFiles, StartsPrograms
from fanfold.runs import folders, origin, recipe
from fanfold.runs.directory import Run
from fanfold.runs.draws import RunDraws
from fanfold.runs.folders import claimed
from fanfold.runs.needs import needs_of
from fanfold.runs.operators import read_operator, write_operator
from fanfold.training.events import Started, Validated
from fanfold.training.fit import fit_events
from fanfold.training.settings import Training, training_for
from fanfold.training.trainer import SKIPS_TO_DIVERGE
from problem_rows import ROWS

QUICK = {"steps": 4, "batch": 8, "validate_every": 2, "validation_samples": 8, "threads": 1}
SPARSE = ff.problems.CompressedSensing(n=8, m=4, dtype="complex64")  # which few peers take, so that reports are quick


@pytest.fixture
def another_machine(tmp_path, monkeypatch) -> Callable[[], None]:
    """What makes this one another machine, in an empty folder."""

    def leave() -> None:
        (tmp_path / "another").mkdir()
        monkeypatch.chdir(tmp_path / "another")
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another state"))

    return leave


def random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


# Operators


OPERATORS: dict[str, LinearOperator] = {
    "dense": Dense(random(3, 5)),
    "columns together": Dense(random(5, 3).mT),
    "conjugate": Dense(random(5, 3, dtype=torch.complex64).mH),
    "kronecker": Kronecker(random(2, 3, dtype=torch.complex128), random(2, 2, dtype=torch.complex128)),
    "one factor twice": Kronecker(factor := random(2, 3), factor),
    "batched": Batched(random(2, 3, 5)),
    "mask": Mask(torch.tensor([3, 1]), 5, torch.complex64),
    "diagonal": Diagonal(random(4)),
    "adjoint": Dense(random(3, 5)).H,
    "dct": DCT((4, 2)),
    "wavelet": Wavelet((4, 8), "haar", 2, torch.float64),
    "sparse": Sparse((random(3, 5) * (random(3, 5) > 0)).to_sparse()),
    "composed": Dense(random(3, 8)) @ DCT((4, 2)).H,
    "born": Born(random(2, 3), random(3, 3) + 1, torch.tensor([20.0, 21.0]), random(4, 3) + 5),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_an_operator_is_kept_with_its_structure_its_bits_and_its_hash(name, tmp_path):
    A = OPERATORS[name]
    write_operator(tmp_path, A)
    again = read_operator(tmp_path)
    x = random(2, A.n, dtype=A.dtype)
    assert type(again) is type(A)
    assert (again.shape, again.dtype, again.fingerprint()) == (A.shape, A.dtype, A.fingerprint())
    assert torch.equal(again @ x, A @ x)
    assert torch.equal(again.H @ (A @ x), A.H @ (A @ x))


def test_every_operator_of_the_library_is_kept_with_its_structure():
    from fanfold.runs.operators import MAKE

    concrete = {name for name, kind in vars(ff.linops).items() if isinstance(kind, type) and name not in NO_KIND}
    assert concrete | {"Adjoint"} == set(MAKE)
    assert {type(A) for A in OPERATORS.values()} >= {Adjoint, Compose, Born}


NO_KIND = ("SVD", "Basis", "Seen", "LinearOperator", "Foreign")  # no operators, or functions, kept as a matrix


# Data that are no longer there


def train(net: nn.Module, problem: Problem, path: Path, **options: Any) -> None:
    ff.fit(net, problem, run_dir=path, **QUICK | options)


def channels(folder: Path) -> Problem:
    H = random(40, 4, 6, dtype=torch.complex64).numpy()
    np.savez(folder / "mine.npz", H=H)
    np.save(folder / "pilots.npy", np.arange(6)[None] % 2 == 0)
    return REGISTRY["ofdm-channel"](f"{folder / 'mine.npz'}:array=1x2x2", str(folder / "pilots.npy"))


def pictures(folder: Path) -> Problem:
    Image.fromarray((255 * random(12, 12).sigmoid()).to(torch.uint8).numpy()).save(folder / "own.png")
    return REGISTRY["photographs"]((str(folder / "own.png"),), block=4)


def pairs_with_noise_each(folder: Path) -> Problem:
    np.savez(folder / "each.npz", x=random(40, 3), y=random(40, 2), noise_var=random(40, 1).square() + 0.1)
    return REGISTRY["pairs"](str(folder / "each.npz"))


def unfolded(problem: Problem) -> nn.Module:
    return ff.unfold(ff.algorithms.ISTA(0.1), problem, 2, {"threshold": "per-layer"})


def small_neural(problem: Problem) -> nn.Module:
    return ff.neural(problem, "gaussian", width=8)


DATA: dict[str, tuple[Callable[[Path], Problem], Callable[[Problem], nn.Module]]] = {
    "pairs": (ROWS["pairs"][""].make, unfolded),
    "images": (ROWS["pairs"]["images"].make, small_neural),
    "noise of each": (pairs_with_noise_each, small_neural),
    "simulations": (ROWS["simulations"][""].make, small_neural),
    "geometry": (ROWS["rf"][""].make, unfolded),
    "calibrated": (ROWS["rf"]["measured"].make, unfolded),
    "pictures": (pictures, unfolded),
    "channels": (channels, lambda p: ff.estimators.ofdm.MixerSettings(stages=1, width=8).build(p)),
    "program": (ROWS["program"][""].make, small_neural),
}


MANY_PEERS = ("pairs", "pictures")  # of real networks of layers, which take seconds: the complex ones stand for them


@pytest.mark.parametrize("kind", DATA)
def test_a_run_is_loaded_applied_and_reported_on_another_machine_without_its_data(kind, tmp_path, another_machine):
    make, network = DATA[kind]
    (tmp_path / "data").mkdir()
    problem = make(tmp_path / "data")
    net = network(problem)
    train(net, problem, tmp_path / "run", **({"simulations": 20} if kind == "program" else {}))
    x, obs = problem.held_out().sample(6, torch.Generator().manual_seed(0))
    np.save(tmp_path / "y.npy", obs.y.numpy())
    shutil.rmtree(tmp_path / "data")
    (tmp_path / "run").rename(tmp_path / "came")
    another_machine()
    path = tmp_path / "came"
    assert torch.equal(ff.load(path)(obs).x, net(obs).x)
    each = obs.noise_var is not None and obs.noise_var.ndim
    noise = ["--noise-var", "0.1"] if each else []
    assert cli.run(["apply", str(path), str(tmp_path / "y.npy"), "--coverage", "0.5", *noise]) == 0
    if not each:
        assert np.array_equal(np.load("x_hat.npy"), net(obs).x.detach().numpy())
    if kind not in MANY_PEERS:
        assert cli.run(["evaluate", str(path), "--samples", "20"]) == 0
        assert cli.run(["report", str(path), "--samples", "20"]) == 0
    assert cli.run(["runs", str(tmp_path)]) == 0
    assert cli.run(["resume", str(path)]) == 2  # which needs the data
    draws = Run.open(path).draws()
    assert isinstance(draws, RunDraws)
    again, kept = draws.held_out().sample(2, torch.Generator())
    assert again.shape[1:] == x.shape[1:]
    assert torch.isfinite(torch.view_as_real(kept.y) if kept.y.is_complex() else kept.y).all()


def test_kept_draws_are_those_that_evaluate_draws(tmp_path):
    problem = ROWS["pairs"][""].make(tmp_path)
    train(unfolded(problem), problem, tmp_path / "run")
    run, same = Run.open(tmp_path / "run"), {"samples": 8, "layers": False}
    assert run.draws() == problem
    here = ff.evaluate({"net": run.estimator()}, run.draws(), **same)
    (tmp_path / "pairs.npz").unlink()
    assert ff.evaluate({"net": run.estimator()}, run.draws(), **same).rows == here.rows
    with pytest.raises(ValueError, match="snr_db cannot be changed: there are 8 draws of Pairs that the run keeps"):
        ff.evaluate({"net": run.estimator()}, run.draws(), snr_db=[0.0])


def test_what_a_run_keeps_to_be_judged_by_was_not_learned_of(tmp_path):
    """Cross-validated networks learn of all draws: a simulator is asked for new ones, and pairs aside stay aside."""
    simulator = Simulator(Box((0.0,), (1.0,)), noisy)
    pairs = ff.problems.Pairs(x=np.random.default_rng(0).random((60, 1)), y=np.random.default_rng(1).random((60, 2)))
    for problem, count in ((simulator, 40), (pairs, 0)):
        path = tmp_path / type(problem).__name__
        net = ff.neural(problem, width=8)
        ff.fit(net, problem, simulations=count, steps=2, batch=8, validate_every=2, threads=1, run_dir=path)
        learned = Pool(problem, count or 48, 0, all_train=True).x
        kept, _ = Run.open(path).draws().held_out().sample(100, torch.Generator())
        assert len(kept) == (20 if count else 12)
        assert not torch.isin(kept, learned).any()


def test_no_more_is_simulated_to_be_judged_by_than_a_run_keeps(tmp_path, monkeypatch):
    counts = []

    def counted(problem, count, *which):
        counts.append(count)
        return draw(problem, count, *which)

    monkeypatch.setattr("fanfold.training.kept_draws.draw", counted)
    monkeypatch.setattr("fanfold.runs.draws.MOST_BYTES", 5 * 3 * 4)  # of five draws of three numbers
    simulator = Simulator(Box((0.0,), (1.0,)), noisy)
    ff.fit(ff.neural(simulator, width=8), simulator, simulations=40, steps=1, threads=1, run_dir=tmp_path / "run")
    kept, _ = Run.open(tmp_path / "run").draws().held_out().sample(100, torch.Generator())
    assert counts == [len(kept)] == [5]


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + 0.1 * torch.randn(2, generator=generator)


def test_a_run_without_its_operator_or_its_draws_says_so(tmp_path):
    problem = ROWS["pairs"][""].make(tmp_path)
    train(unfolded(problem), problem, tmp_path / "run")
    (tmp_path / "pairs.npz").unlink()
    (tmp_path / "run/draws.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no file .*pairs.npz"):
        Run.open(tmp_path / "run").draws()
    (tmp_path / "run/operator.safetensors").unlink()
    with pytest.raises(ValueError, match="hand in its problem"):
        ff.load(tmp_path / "run")


# Classes of the user's own


@dataclass(frozen=True)
class Blur:
    """`y = A x + w`, of a class of the user's own."""

    A = Dense(random(4, 6))

    def sample(self, n: int, generator: torch.Generator) -> tuple[Tensor, Observation]:
        x = torch.randn(n, 6, generator=generator)
        return x, Observation(self.A @ x + 0.1 * torch.randn(n, 4, generator=generator), self.A, torch.tensor(0.01))

    def shifted(self, **changes: Any) -> "Blur":
        return self

    def held_out(self) -> "Blur":
        return self


@pytest.mark.parametrize("network", [unfolded, small_neural])
def test_a_run_of_ones_own_problem_serves_the_shell_without_it(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    problem = Blur()
    net = network(problem)
    train(net, problem, tmp_path / "run")
    _, obs = problem.sample(3, torch.Generator().manual_seed(1))
    np.save("y.npy", obs.y.numpy())
    assert torch.equal(ff.load("run")(obs).x, net(obs).x)
    assert cli.run(["apply", "run", "y.npy", "--coverage", "0.5"]) == 0
    if network is small_neural:
        assert cli.run(["evaluate", "run", "--samples", "8"]) == 0
        assert cli.run(["report", "run", "--samples", "8"]) == 0


def test_what_a_config_names_as_given_is_asked_for_and_never_imported(tmp_path):
    problem = ff.problems.LinearGaussian()
    train(small_neural(problem), problem, tmp_path / "run")
    for section in ("problem", "network"):
        shutil.copytree(tmp_path / "run", tmp_path / section)
        rewrite(tmp_path / section, **{section: {"given": "this"}})  # a module that speaks when it is imported
        before = set(sys.modules)
        run = Run.open(tmp_path / section)
        for use in (run.network, run.problem):
            if section in use.__name__:
                with pytest.raises(ValueError, match=rf"this: hand it in, ff.load\(path, {section}="):
                    use()
        assert set(sys.modules) == before


def my_loss(x_hat: Tensor, x: Tensor) -> Tensor:
    return (x_hat - x).square().mean(-1)


def my_network(shape: tuple[int, ...], outputs: int, seed: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0], outputs))


def test_all_that_is_to_be_handed_in_is_said_at_once(tmp_path):
    problem = ff.problems.LinearGaussian()
    train(ff.neural(problem, my_loss, network=my_network), problem, tmp_path / "run")
    with pytest.raises(
        ValueError, match=r"my_loss, my_network .*: hand them in, ff.load\(path, loss=..., network=...\)"
    ):
        ff.load(tmp_path / "run")
    ff.load(tmp_path / "run", loss=my_loss, network=my_network)


# Programs


def rewrite(path: Path, **sections: Any) -> None:
    """Let the config of a run say something else, as a stranger may."""
    (path / "config.toml").write_text(tomli_w.dumps(Run(path).config | sections))


def marking(folder: Path) -> Program:
    """A program that leaves a line each time it runs."""
    (folder / "mark.py").write_text(
        f"import sys\nopen({str(folder / 'ran')!r}, 'a').write('x')\nprint(*sys.argv[1:])\n"
    )
    command = f"{shlex.quote(sys.executable)} -I -S {shlex.quote(str(folder / 'mark.py'))} {{x}}"
    return Program(command, Box((0.0,), (1.0,)), shape=(1,))


def starts(folder: Path) -> int:
    return len((folder / "ran").read_bytes()) if (folder / "ran").exists() else 0


@pytest.fixture
def programmed(tmp_path) -> Path:
    """A run that was trained on a program."""
    problem = marking(tmp_path)
    ff.fit(small_neural(problem), problem, run_dir=tmp_path / "run", simulations=20, steps=2, batch=8, threads=1)
    np.save(tmp_path / "y.npy", np.full((2, 1), 0.5, np.float32))
    return tmp_path / "run"


@pytest.mark.parametrize("elsewhere", [False, True], ids=["made here", "from elsewhere"])
def test_a_program_is_started_to_train_and_never_to_use_what_was_trained(
    elsewhere, programmed, tmp_path, another_machine, capsys
):
    if elsewhere:
        another_machine()
    count = starts(tmp_path)
    assert count
    assert ff.load(programmed)(Observation(torch.ones(1, 1))).x.shape == (1, 1)
    for verb in (
        ["apply", str(programmed), str(tmp_path / "y.npy"), "--out", str(tmp_path / "x.npy"), "--coverage", "0.5"],
        ["evaluate", str(programmed), "--samples", "10"],
        ["report", str(programmed), "--samples", "10"],
        ["runs", str(tmp_path)],
    ):
        assert cli.run(verb) == 0
    assert cli.run(["evaluate", str(programmed), "--snr-db", "3"]) == 2
    assert "the run keeps" in capsys.readouterr().err
    assert starts(tmp_path) == count
    assert cli.run(["resume", str(programmed)]) == (2 if elsewhere else 0)
    assert (starts(tmp_path) == count) == elsewhere


def test_a_program_from_elsewhere_starts_only_if_that_is_allowed(programmed, tmp_path, another_machine, capsys):
    another_machine()
    count, again = starts(tmp_path), ["--run-dir", str(tmp_path / "again"), "--steps", "2", "--simulations", "20"]
    with_config = ["train", "program", "neural", "--config", str(programmed / "config.toml"), *again]
    for words in (["resume", str(programmed)], with_config):
        assert cli.run(words) == 2
        said = capsys.readouterr().err
        assert "was not made on this machine, and would start a program" in said
        assert "mark.py" in said
        assert "--allow-program" in said
    assert starts(tmp_path) == count
    assert cli.run(["resume", str(programmed), "--allow-program"]) == 0
    assert starts(tmp_path) > count
    count = starts(tmp_path)
    assert cli.run([*with_config, "--allow-program"]) == 0
    assert starts(tmp_path) > count
    ff.resume(programmed, allow_program=True)


def test_a_command_starts_nothing_else_in_another_folder(tmp_path, monkeypatch, capsys):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    mine.mkdir()
    monkeypatch.chdir(mine)
    (mine / "solver.py").write_text("import sys\nprint(*sys.argv[1:])\n")
    problem = Program(f"{shlex.quote(sys.executable)} -I -S solver.py {{x}}", Box((0.0,), (1.0,)), shape=(1,))
    ff.fit(small_neural(problem), problem, run_dir="run", simulations=20, steps=2, batch=8, threads=1)
    shutil.copytree(mine, theirs)
    (theirs / "solver.py").write_text(f"open({str(theirs / 'ran')!r}, 'w')\nprint(0.5)\n")
    monkeypatch.chdir(theirs)
    with_config = ["train", "program", "neural", "--config", "run/config.toml", "--run-dir", "again"]
    for words in (["resume", "run"], ["resume", str(mine / "run")], with_config):
        assert cli.run(words) == 2
        assert f"was made in {mine} and not in this folder, and would start" in capsys.readouterr().err
    assert not (theirs / "ran").exists()
    assert cli.run(["resume", "run", "--allow-program"]) == 0
    assert (theirs / "ran").exists()
    monkeypatch.chdir(mine)
    assert cli.run(["resume", "run"]) == 0
    (mine / "run/sealed").write_bytes((mine / "run/sealed").read_bytes().replace(b"mine", b"theirs"))
    monkeypatch.chdir(theirs)
    assert cli.run(["resume", str(mine / "run")]) == 2  # nobody moves a seal


def test_a_seal_cannot_be_made_by_who_sends_the_run(programmed, tmp_path, monkeypatch):
    run = Run.open(programmed)
    assert run.sealed
    assert stat.S_IMODE(origin.key_file().stat().st_mode) == 0o600
    rewrite(programmed, problem=run.config["problem"] | {"command": "touch /tmp/never"})
    assert not run.sealed  # the seal of another config
    with pytest.raises(ValueError, match="not made on this machine"):
        run.problem()
    config = (programmed / "config.toml").read_bytes()
    origin.seal(programmed, config)
    assert run.sealed
    shutil.copy(programmed / "sealed", tmp_path / "evil")
    (programmed / "sealed").unlink()
    (programmed / "sealed").symlink_to(tmp_path / "evil")
    assert not run.sealed
    os.chmod(origin.key_file(), 0o644)
    try:
        (programmed / "sealed").unlink()
        shutil.copy(tmp_path / "evil", programmed / "sealed")
        assert not run.sealed  # others could have read the key
    finally:
        os.chmod(origin.key_file(), 0o600)
    assert run.sealed
    monkeypatch.setenv("XDG_STATE_HOME", "/proc/nowhere")  # no key can be kept
    assert not run.sealed


# Paths


def paths_of(kind: type) -> Iterator[str]:
    """The fields of a problem that hold free text."""
    for name, hint in get_type_hints(kind).items():
        texts = [hint, *get_args(hint)]
        if name in {f.name for f in fields(kind)} and str in texts and get_origin(hint) is not Literal:
            yield name


NAMES = {
    "modulation": {"classes"},
    "varied": {"ranges"},
    "broad": {"conditions"},
    "tone": {"estimate"},
    "time-delay": {"estimate"},
}  # texts that are no paths


@pytest.mark.parametrize("name", REGISTRY)
def test_every_text_among_the_settings_of_a_problem_is_judged(name):
    for field in set(paths_of(REGISTRY[name])) - NAMES.get(name, set()):
        value = ["/etc/passwd.npy"] if field in ("pictures",) else "/etc/passwd.npy"
        needed = {f.name: "p" for f in fields(REGISTRY[name]) if MISSING is f.default is f.default_factory}
        needs = needs_of({"name": name} | needed | {field: value})
        assert "/etc/passwd.npy" in needs.files + needs.commands


@pytest.mark.parametrize("name", REGISTRY)
def test_what_a_problem_needs_is_known_from_its_description(name, tmp_path):
    for row in ROWS[name].values():
        needs = needs_of(recipe.describe_problem(row.problem(tmp_path)))
        assert not needs.given
        if not needs.nothing:
            assert all(Path(file.partition(":")[0]).exists() for file in needs.files)
            assert offers(REGISTRY[name], StartsPrograms if needs.commands else ReadsFiles)


WITHIN = {
    "few-channels": lambda text: {"problem": {"name": "ofdm-channel", "source": text + ".npz"}},
    "rf-imaging": lambda text: {"pictures": ["camera", text]},
}


@pytest.mark.parametrize("name", WITHIN)
def test_paths_within_settings_are_seen(name):
    assert needs_of({"name": name} | WITHIN[name]("../mine")).files[0].startswith("../mine")


def evil_paths(folder: Path) -> list[str]:
    os.mkfifo(folder / "fifo.npz")
    return [str(folder / "fifo.npz"), "/dev/zero", "../../secret.npz", "/etc/passwd"]


def test_no_path_of_a_config_from_elsewhere_is_followed(tmp_path, another_machine):
    problem = ROWS["pairs"][""].make(tmp_path)
    train(small_neural(problem), problem, tmp_path / "run")
    np.save(tmp_path / "y.npy", problem.sample(3, torch.Generator())[1].y.numpy())
    another_machine()
    bad = evil_paths(tmp_path)
    sections = [{"name": "pairs", "path": path} for path in bad]
    sections += [{"name": "simulations", "path": path} for path in bad]
    sections += [{"name": "rf", "geometry": path} for path in bad]
    sections += [{"name": "ofdm-channel", "source": path, "pilots": bad[0] + ".npy"} for path in bad]
    sections += [{"name": "photographs", "pictures": [path]} for path in bad]
    for section in sections:
        rewrite(tmp_path / "run", problem=section)
        ff.load(tmp_path / "run")
        words = ["apply", str(tmp_path / "run"), str(tmp_path / "y.npy"), "--coverage", "0.5", "--overwrite"]
        assert cli.run(words) == 0
        assert isinstance(Run.open(tmp_path / "run").draws(), RunDraws)
        for kept in (tmp_path / "run").glob("intervals*"):
            kept.unlink()
    assert cli.run(["report", str(tmp_path / "run"), "--samples", "8"]) == 0
    assert cli.run(["runs", str(tmp_path)]) == 0


@pytest.mark.parametrize("part", [{"name": "pairs", "path": "/dev/zero"}, {"name": "program", "command": "touch ran"}])
def test_a_network_that_names_a_problem_among_its_settings_is_refused(part, tmp_path):
    problem = SPARSE
    train(unfolded(problem), problem, tmp_path / "run")
    rewrite(tmp_path / "run", network=Run(tmp_path / "run").config["network"] | {"algorithm": part})
    with pytest.raises(ValueError, match=f"unknown name '{part['name']}'"):
        ff.load(tmp_path / "run")


@pytest.mark.parametrize("file", ["config.toml", "environment.json", "operator.safetensors", "weights.safetensors"])
@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_link_or_a_pipe_in_a_run_is_not_followed(file, what, tmp_path):
    problem = SPARSE
    train(unfolded(problem), problem, tmp_path / "run")
    (tmp_path / "run" / file).rename(tmp_path / "outside")
    if what == "link":
        (tmp_path / "run" / file).symlink_to(tmp_path / "outside")
    else:
        os.mkfifo(tmp_path / "run" / file)
    with pytest.raises(ValueError, match=r"plain file|no run directory"):
        ff.load(tmp_path / "run")
    assert cli.run(["runs", str(tmp_path)]) == 0


@pytest.mark.parametrize("file", [".lock", "metrics.jsonl", "checkpoint.safetensors"])
def test_nothing_outside_a_run_is_written_through_its_links(file, tmp_path):
    problem = SPARSE
    train(unfolded(problem), problem, tmp_path / "run")
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run" / file).unlink()
    (tmp_path / "run" / file).symlink_to(tmp_path / "precious")
    with pytest.raises(ValueError, match="plain file"):
        ff.resume(tmp_path / "run")
    assert (tmp_path / "precious").read_text() == "precious"


# Damage


DAMAGES: dict[str, Callable[[Path], object]] = {
    "cut config": lambda p: (p / "config.toml").write_bytes((p / "config.toml").read_bytes()[:200]),
    "empty config": lambda p: (p / "config.toml").write_bytes(b""),
    "binary config": lambda p: (p / "config.toml").write_bytes(bytes(range(256))),
    "deep config": lambda p: (p / "config.toml").write_text("a = " + "[" * 5000),
    "schema of text": lambda p: (p / "config.toml").write_text('schema = "three"\n'),
    "newer schema": lambda p: (p / "config.toml").write_text("schema = 99\n"),
    "no sections": lambda p: (p / "config.toml").write_text(f"schema = {folders.SCHEMA}\nproblem = 3\nnetwork = []\n"),
    "strange sections": lambda p: rewrite(p, problem={}, network={"algorithm": 3}, outline={"x": 3}),
    "config a folder": lambda p: ((p / "config.toml").unlink(), (p / "config.toml").mkdir()),
    "cut environment": lambda p: (p / "environment.json").write_text('{"seed": '),
    "environment a list": lambda p: (p / "environment.json").write_text("[1]"),
    "no environment": lambda p: (p / "environment.json").unlink(),
    "no weights": lambda p: (p / "weights.safetensors").unlink(),
    "cut weights": lambda p: (p / "weights.safetensors").write_bytes((p / "weights.safetensors").read_bytes()[:100]),
    "cut operator": lambda p: (p / "operator.safetensors").write_bytes(b"\0" * 100),
    "binary metrics": lambda p: (p / "metrics.jsonl").write_bytes(b"\xff\xfe\n" * 3),
    "metrics of numbers": lambda p: (p / "metrics.jsonl").write_text("3\n"),
    "metrics without events": lambda p: (p / "metrics.jsonl").write_text('{"a": 1}\n'),
    "huge outline": lambda p: rewrite(p, outline=Run(p).config["outline"] | {"y": {"shape": [2**60], "dtype": "bool"}}),
    "outline of nothing": lambda p: rewrite(p, outline={}),
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run as it should be."""
    path, problem = tmp_path_factory.mktemp("whole") / "run", SPARSE
    train(unfolded(problem), problem, path)
    return path


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_one_row_and_every_verb_has_a_sentence_for_it(damage, whole, tmp_path, capsys):
    for name in ("a", "b", "c"):
        shutil.copytree(whole, tmp_path / name)
    np.save(tmp_path / "y.npy", np.zeros((2, 4), np.complex64))
    DAMAGES[damage](tmp_path / "b")
    assert cli.run(["runs", str(tmp_path), "--json"]) == 0
    rows = {Path(row["run"]).name: row for row in json.loads(capsys.readouterr().out)["runs"]}
    assert all(rows[name]["done"] and rows[name]["problem"] == "compressed-sensing" for name in "ac")
    for words in (
        ["apply", str(tmp_path / "b"), str(tmp_path / "y.npy"), "--out", str(tmp_path / "x.npy")],
        ["evaluate", str(tmp_path / "b"), "--samples", "4"],
        ["report", str(tmp_path / "b"), "--samples", "4"],
        ["resume", str(tmp_path / "b")],
    ):
        assert cli.run(words) in (0, 2)
        assert "Traceback" not in capsys.readouterr().err


# One writer, many starters


def test_two_processes_do_not_train_one_run(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run")
    words = ["train", "compressed-sensing", "ista", "--n", "8", "--m", "4", "--layers", "2", "--steps", "1"]
    with sole_writer(tmp_path / "run"), sole_writer(tmp_path / "new"):
        for said in (["resume", str(tmp_path / "run")], [*words, "--run-dir", str(tmp_path / "new")]):
            assert cli.run(said) == 2
            assert f"another process writes to {said[-1]}" in capsys.readouterr().err
    assert cli.run(["resume", str(tmp_path / "run")]) == 0
    assert cli.run([*words, "--run-dir", str(tmp_path / "new")]) == 0
    assert cli.run([*words, "--run-dir", str(tmp_path / "new")]) == 2
    assert "go on with it: fanfold resume" in capsys.readouterr().err


def test_while_a_run_trains_nobody_resumes_it(tmp_path):
    problem = SPARSE
    events = fit_events(unfolded(problem), problem, Training(**QUICK), tmp_path / "run")
    next(event for event in events if isinstance(event, Validated))
    with pytest.raises(ValueError, match="another process writes"):
        ff.resume(tmp_path / "run")
    events.close()
    ff.resume(tmp_path / "run")


def test_many_that_start_at_once_have_a_folder_each(tmp_path):
    with ThreadPoolExecutor(16) as pool:
        paths = list(pool.map(lambda _: claimed(tmp_path / "runs", "a-b"), range(64)))
    assert sorted(path.name for path in paths) == sorted(f"a-b-{k}" for k in range(1, 65))


def test_a_training_that_is_refused_leaves_no_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["train", "linear-gaussian", "neural", "--schedule", "layer-by-layer"]
    assert cli.run(words) == 2
    assert cli.run([*words, "--run-dir", "mine"]) == 2
    assert list((tmp_path / "runs").iterdir()) == []
    assert not (tmp_path / "mine").exists()


# Endings


NETS: dict[str, tuple[Problem, Callable[[Problem], nn.Module], dict[str, Any]]] = {
    "unfolded": (ff.problems.CompressedSensing(n=8, m=4), unfolded, {"schedule": "layer-by-layer"}),
    "neural": (ff.problems.LinearGaussian(), small_neural, {}),
    "hybrid-ep": (
        ff.problems.RFImaging(scene=(4, 4), elements=(3, 3)),
        lambda p: ff.estimators.HybridEPSettings(layers=2, width=4).build(p),
        {},
    ),
    "modl": (
        ff.problems.RFImaging(scene=(4, 4), elements=(3, 3), targets="extended"),
        lambda p: ff.estimators.MoDLSettings(layers=2, width=4).build(p),
        {},
    ),
}


def events_of(name: str, path: Path, **options: Any) -> Any:
    problem, make, how = NETS[name]
    net = make(problem)
    informed = getattr(net, "training_defaults", {})
    return fit_events(net, problem, training_for(informed, QUICK | how | options), path)


def same_run(a: Path, b: Path) -> None:
    assert Run.open(a).metrics() == Run.open(b).metrics()
    assert Run.open(a).weights_hash() == Run.open(b).weights_hash()


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("reached", [Started, Validated], ids=lambda kind: kind.__name__)
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_again(name, reached, tmp_path):
    list(events_of(name, tmp_path / "whole"))
    events = events_of(name, tmp_path / "cut")
    next(event for event in events if isinstance(event, reached))
    events.close()
    assert not (tmp_path / "cut/checkpoint.safetensors").exists()
    ff.resume(tmp_path / "cut")
    same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_that_was_killed_while_it_was_made_is_made_again(whole, tmp_path):
    problem = SPARSE
    shutil.copytree(whole, tmp_path / "run")
    for file in (tmp_path / "run").iterdir():
        if file.name not in (*folders.BEFORE_CONFIG, ".lock"):
            file.unlink()
    (tmp_path / "run/.config.toml.99999999").write_text("half of")
    train(unfolded(problem), problem, tmp_path / "run")
    same_run(whole, tmp_path / "run")


@pytest.mark.parametrize("schedule", ["end-to-end", "layer-by-layer"])
def test_a_run_that_ended_takes_no_step_more(schedule, tmp_path):
    """Its learning rate makes every validation worse than the first: patience ends it, also where a stage does."""
    path, options = tmp_path / "run", {"steps": 40, "lr": 100.0, "patience": 2, "validate_every": 1}
    list(events_of("unfolded", path, schedule=schedule, **options))
    before = {file.name: file.read_bytes() for file in path.iterdir()}
    last = Run.open(path).metrics()[-1]
    assert (last["event"], last["reason"]) == ("finished", "patience")
    assert last["step"] < 40
    for _ in range(2):
        ff.resume(path)
        assert {file.name: file.read_bytes() for file in path.iterdir()} == before


class Hopeless(nn.Module):
    """A network whose loss is not finite."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.zeros(1))

    def forward(self, obs: Observation) -> Estimate:
        return Estimate(
            torch.zeros(len(obs.y), 8) / (self.a if self.a.requires_grad and torch.is_grad_enabled() else 1)
        )


def test_a_run_that_diverged_takes_no_step_more(tmp_path):
    problem, options = SPARSE, QUICK | {"steps": 300, "validate_every": 30}
    with pytest.warns(UserWarning, match="No step was taken"):
        ff.fit(Hopeless(), problem, run_dir=tmp_path / "run", **options)
    assert Run.open(tmp_path / "run").metrics()[-1]["step"] == SKIPS_TO_DIVERGE
    before = (tmp_path / "run/metrics.jsonl").read_bytes()
    with pytest.warns(UserWarning, match="No step was taken"):
        ff.resume(tmp_path / "run", network=Hopeless())
    assert (tmp_path / "run/metrics.jsonl").read_bytes() == before


def test_fragments_of_killed_writers_go_and_those_of_living_ones_stay(whole, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run/.weights.safetensors.99999999").write_bytes(b"half")
    (tmp_path / f"run/.report.html.{os.getppid()}").write_bytes(b"half")
    ff.resume(tmp_path / "run")
    hidden = {file.name for file in (tmp_path / "run").iterdir() if file.name.startswith(".")}
    assert hidden == {".lock", f".report.html.{os.getppid()}"}
