"""Keeping: what was trained or saved comes back bit for bit; what is the user's own is named and asked for again."""

import json
import math
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fanfold as ff
from fanfold.algorithms import FREE, POSITIVE, Algorithm, Nominal
from fanfold.cli.apply import apply_to_file
from fanfold.core.noise import circular
from fanfold.core.table import Table
from fanfold.linops import Dense, Kronecker, LinearOperator
from fanfold.observation import Estimate, Observation
from fanfold.problems.base import Described
from fanfold.runs import recipe
from fanfold.runs.directory import Run
from fanfold.runs.folders import SCHEMA
from fanfold.shrinkage import soft
from fanfold.training.events import Stepped
from fanfold.training.fit import fit_events
from fanfold.training.settings import Training

QUICK = {"steps": 4, "batch": 8, "validate_every": 2, "validation_samples": 20, "threads": 1}


def observed(A: LinearOperator, count: int = 3) -> Observation:
    y = torch.randn(count, A.m, dtype=A.dtype, generator=torch.Generator().manual_seed(1))
    return Observation(y, A, torch.tensor(0.01))


def moved(net: nn.Module) -> nn.Module:
    """The network away from where it starts."""
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, dtype=p.dtype, generator=torch.Generator().manual_seed(2)))
    return net


def random(m: int, n: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(m, n, dtype=dtype, generator=torch.Generator().manual_seed(0)) / m**0.5


OPERATORS = {
    "dense": Dense(random(10, 20)),
    "complex": Dense(random(10, 20, torch.complex64)),
    "kronecker": Kronecker(random(3, 4, torch.complex64), random(4, 5, torch.complex64)),
    "composed": Dense(random(8, 10)) @ Dense(random(10, 20)),
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("kind", ["unfolded", "equilibrium"])
def test_a_saved_network_brings_its_operator_and_gives_the_same_bits(tmp_path, name, kind):
    obs = observed(OPERATORS[name])
    algorithm = ff.algorithms.ISTA(0.05)
    if kind == "unfolded":
        net = moved(ff.unfold(algorithm, obs, 3, {"threshold": "per-layer"}))
    else:
        net = moved(ff.equilibrium(algorithm, obs, {"threshold": "tied"}, tolerance=1e-2))
    ff.save(net, tmp_path / "net")
    loaded = ff.load(tmp_path / "net")
    assert torch.equal(loaded(obs).x, net(obs).x)
    assert loaded.fingerprint == net.fingerprint
    with pytest.raises(ValueError, match="another operator"):
        loaded(observed(Dense(random(10, 20, obs.y.dtype).roll(1, 0))))


def test_nothing_is_saved_over_what_is_there(tmp_path):
    net = ff.unfold(ff.algorithms.ISTA(), observed(OPERATORS["dense"]), 2, {"step": "tied"})
    ff.save(net, tmp_path / "net")
    with pytest.raises(ValueError, match="exists"):
        ff.save(net, tmp_path / "net")


def test_a_network_shaped_by_its_problem_is_saved_with_it(tmp_path):
    problem = ff.problems.LinearGaussian()
    net = ff.neural(problem, members=2, width=8)
    with pytest.raises(ValueError, match="takes its shape from a problem"):
        ff.save(net, tmp_path / "net")
    net.prepare(*problem.sample(50, torch.Generator().manual_seed(0)))
    ff.save(moved(net), tmp_path / "net", problem)
    _, obs = problem.sample(5, torch.Generator().manual_seed(1))
    assert torch.equal(ff.load(tmp_path / "net")(obs).x, net(obs).x)


def test_a_saved_network_keeps_its_strength_and_serves_the_verbs(tmp_path, monkeypatch, capsys):
    from fanfold.cli import main as cli

    monkeypatch.chdir(tmp_path)
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = moved(ff.unfold(ff.algorithms.ISTA(), problem, 2, {"threshold": "per-layer"}))
    net.strength = 0.5
    ff.save(net, "net", problem)
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    assert ff.load("net").strength == 0.5
    assert torch.equal(ff.load("net")(obs).x, net(obs).x)
    np.save("y.npy", obs.y.numpy())
    assert cli.run(["apply", "net", "y.npy", "--coverage", "0.9"]) == 0
    assert cli.run(["report", "net", "--samples", "20"]) == 0
    assert cli.run(["runs", "."]) == 0
    assert cli.run(["resume", "net"]) == 2
    assert "was saved, not trained" in capsys.readouterr().err


def test_a_network_is_not_saved_with_a_problem_of_another_operator(tmp_path):
    net = ff.unfold(ff.algorithms.ISTA(), ff.problems.CompressedSensing(n=20, m=10), 2, {"step": "tied"})
    with pytest.raises(ValueError, match="another operator"):
        ff.save(net, tmp_path / "net", ff.problems.CompressedSensing(n=20, m=10, seed=1))


# Classes of the user's own


class State(NamedTuple):
    x: Tensor


@dataclass(frozen=True)
class MyISTA(Algorithm):
    lam: float = 0.1

    nominals = {
        "W": Nominal(lambda a, obs: obs.A.norm() ** -2 * obs.A.matrix().mH, FREE, lr_scale=1.0),
        "threshold": Nominal(lambda a, obs: a.lam * obs.A.norm() ** -2, POSITIVE),
    }

    def start(self, obs):
        return State(obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        return State(soft(s.x + (obs.y - obs.A @ s.x) @ theta.W.mT, theta.threshold))

    def read(self, s):
        return Estimate(s.x)


@dataclass(frozen=True)
class MyProblem(Described):
    seed: int = 0

    @property
    def A(self):
        return Dense(torch.randn(10, 20, generator=torch.Generator().manual_seed(self.seed)) / 10**0.5)

    def sample(self, n, generator):
        x = circular((n, 20), generator) * (torch.rand(n, 20, generator=generator) < 0.1)
        return x, Observation(self.A @ x + circular((n, 10), generator, var=0.01), self.A, torch.tensor(0.01))


class MyNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(10, 20)

    def forward(self, obs):
        return Estimate(self.inner(obs.y))


def my_loss(x_hat: Tensor, x: Tensor) -> Tensor:
    return (x_hat - x).abs().mean(-1)


def test_a_run_of_ones_own_problem_loads_by_the_operator_that_it_keeps(tmp_path):
    problem = MyProblem()
    net = ff.unfold(ff.algorithms.ISTA(), problem, 2, {"threshold": "per-layer"})
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK)
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    assert torch.equal(ff.load(tmp_path / "run")(obs).x, net(obs).x)
    with pytest.raises(ValueError, match=r"problem of the user's own, MyProblem: hand it in, ff.load\(path, problem"):
        Run.open(tmp_path / "run").problem()
    assert Run.open(tmp_path / "run", problem=problem).problem() is problem


def test_ones_own_algorithm_is_named_and_asked_for(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.unfold(MyISTA(), problem, 2, {"threshold": "per-layer"})
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK)
    with pytest.raises(ValueError, match=r"MyISTA: hand it in, ff.load\(path, algorithm=...\)"):
        ff.load(tmp_path / "run")
    with pytest.raises(ValueError, match="the algorithm MyISTA, and ISTA was handed in"):
        ff.load(tmp_path / "run", algorithm=ff.algorithms.ISTA())
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    assert torch.equal(ff.load(tmp_path / "run", algorithm=MyISTA())(obs).x, net(obs).x)


def test_a_guest_with_other_settings_or_a_class_is_refused(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.unfold(MyISTA(0.1), problem, 2, {"threshold": "per-layer"})
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK)
    with pytest.raises(ValueError, match=r"MyISTA\(lam=0.1\) as its algorithm, and lam=0.7 was handed in"):
        ff.load(tmp_path / "run", algorithm=MyISTA(0.7))
    with pytest.raises(ValueError, match="is the class MyISTA; hand in an object"):
        ff.load(tmp_path / "run", algorithm=MyISTA)


class MoreUnfolded(ff.unfolding.Unfolded):
    """A network of the user's own that looks like one of fanfold's."""

    def __init__(self, problem):
        super().__init__(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
        self.more = nn.Parameter(torch.zeros(3))


def test_a_subclass_of_a_network_is_the_users_own(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.fit(MoreUnfolded(problem), problem, run_dir=tmp_path / "run", **QUICK)
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    with pytest.raises(ValueError, match="MoreUnfolded: hand it in"):
        ff.load(tmp_path / "run")
    assert torch.equal(ff.load(tmp_path / "run", network=MoreUnfolded(problem))(obs).x, net(obs).x)


@pytest.mark.parametrize("lam", [np.float32(0.125), np.float64(0.125)])
def test_numbers_of_numpy_are_numbers(tmp_path, lam):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.unfold(ff.algorithms.ISTA(lam), problem, int(np.int64(2)), {"threshold": "per-layer"})
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK)
    assert ff.load(tmp_path / "run").algorithm == ff.algorithms.ISTA(0.125)


def test_a_run_killed_at_its_first_checkpoint_resumes_as_if_unbroken(tmp_path):
    problem, how = ff.problems.LinearGaussian(), QUICK | {"steps": 6, "patience": 2, "lr": 10.0}

    def net():
        return ff.neural(problem, width=8)

    ff.fit(net(), problem, run_dir=tmp_path / "whole", **how)
    settings = Training(**ff.neural(problem).training_defaults | how)
    events = fit_events(net(), problem, settings, tmp_path / "cut")
    next(event for event in events if isinstance(event, Stepped))
    events.close()
    ff.resume(tmp_path / "cut")
    whole, cut = Run.open(tmp_path / "whole"), Run.open(tmp_path / "cut")
    assert whole.metrics() == cut.metrics()
    assert whole.weights_hash() == cut.weights_hash()


def test_ones_own_network_resumes_and_loads_when_handed_in(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    torch.manual_seed(0)
    net = ff.fit(MyNetwork(), problem, run_dir=tmp_path / "run", **QUICK)
    with pytest.raises(ValueError, match=r"MyNetwork: hand it in, ff.load\(path, network=...\)"):
        ff.load(tmp_path / "run")
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    assert torch.equal(ff.load(tmp_path / "run", network=MyNetwork())(obs).x, net(obs).x)
    resumed = ff.resume(tmp_path / "run", network=MyNetwork())
    assert torch.equal(resumed(obs).x, net(obs).x)


def test_ones_own_loss_is_named_and_asked_for(tmp_path):
    problem = ff.problems.LinearGaussian()
    net = ff.fit(ff.neural(problem, loss=my_loss, width=8), problem, run_dir=tmp_path / "run", **QUICK)
    with pytest.raises(ValueError, match="my_loss: hand it in"):
        ff.load(tmp_path / "run")
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    assert torch.equal(ff.load(tmp_path / "run", loss=my_loss)(obs).x, net(obs).x)


def test_what_has_no_name_is_refused_before_it_trains(tmp_path):
    problem, seen = ff.problems.LinearGaussian(), []
    for loss, what in ((lambda x_hat, x: (x_hat - x).abs().mean(-1), "lambda"), (partial(my_loss), "partial")):
        net = ff.neural(problem, loss=loss, width=8)
        with pytest.raises(ValueError, match=f"cannot name a {what}"):
            ff.fit(net, problem, run_dir=tmp_path / "run", on_event=seen.append, **QUICK)
    assert not seen
    assert not (tmp_path / "run").exists()


def test_misspelt_settings_of_a_training_are_refused():
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
    for wrong in ({"schedule": "lesson"}, {"nmse_over": "batsch"}, {"step": 3}):
        with pytest.raises(ValueError, match="Did you mean"):
            ff.fit(net, problem, **wrong)
    with pytest.raises(ValueError, match="layer-by-layer"):
        ff.fit(ff.neural(ff.problems.LinearGaussian()), ff.problems.LinearGaussian(), schedule="layer-by-layer")


# Schema and intervals


def test_a_run_of_another_schema_is_refused_by_a_sentence(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK)
    text = (tmp_path / "run/config.toml").read_text()
    for other, age in (("", "an older"), (f"schema = {SCHEMA + 1}\n", "a newer")):
        (tmp_path / "run/config.toml").write_text(text.replace(f"schema = {SCHEMA}\n", other))
        with pytest.raises(ValueError, match=f"written by {age} fanfold"):
            ff.load(tmp_path / "run")


def test_intervals_are_calibrated_once_and_kept_in_the_run(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    net = ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"})
    ff.fit(net, problem, run_dir=tmp_path / "run", **QUICK)
    _, obs = problem.sample(3, torch.Generator().manual_seed(5))
    np.save(tmp_path / "y.npy", obs.y.numpy())
    run = Run.open(tmp_path / "run")
    first = apply_to_file(run, tmp_path / "y.npy", tmp_path / "a.npy", coverage=0.9)
    file = tmp_path / "run/intervals-each-0.9.json"
    written = file.read_bytes()
    again = apply_to_file(run, tmp_path / "y.npy", tmp_path / "a.npy", coverage=0.9, overwrite=True)
    assert file.read_bytes() == written
    assert all(torch.equal(first[path], again[path]) for path in first)
    assert run.kept("intervals-each-0.9")["coverage"] == 0.9
    ff.resume(tmp_path / "run")
    file.write_text(file.read_text().replace(run.weights_hash(), "0" * 64))  # of other weights
    assert run.kept("intervals-each-0.9") is None


def test_numbers_that_json_lacks_are_kept_as_text_and_come_back(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    ff.save(ff.unfold(ff.algorithms.ISTA(), problem, 2, {"step": "tied"}), tmp_path / "net", problem)
    run = Run.open(tmp_path / "net")
    run.keep(
        "bounds", {"rows": [{"width": math.inf, "low": -math.inf, "mean": 1.5}], "p": (math.nan, 0.25), "word": "wide"}
    )

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not in JSON")

    json.loads((tmp_path / "net" / "bounds.json").read_text(), parse_constant=refuse)
    kept = run.kept("bounds")
    assert kept is not None
    assert kept["rows"] == [{"width": math.inf, "low": -math.inf, "mean": 1.5}]
    assert math.isnan(kept["p"][0])
    assert (kept["p"][1], kept["word"]) == (0.25, "wide")
    json.loads((tmp_path / "net" / "environment.json").read_text(), parse_constant=refuse)


def test_a_table_on_a_terminal_has_three_digits_of_huge_numbers():
    text = str(Table([{"what": "ratio", "value": 123456789.123}, {"what": "dB", "value": -12.345}]))
    assert text.splitlines()[1:] == ["ratio  1.23e+08", "dB       -12.35"]
    assert "inf" in str(Table([{"a": math.inf}]))


def test_no_two_registries_share_a_name():
    """A run keeps names: one that two of them have would be read as the other."""
    homes = (ff.likelihoods, ff.penalties, ff.priors, ff.algorithms, ff.estimators, ff.problems)
    kinds = [kind for home in homes for kind in home.REGISTRY.values()] + list(ff.problems.PARTS.values())
    assert set(recipe.NAMES) == set(kinds)
    assert len(recipe.OF_PROBLEMS | recipe.OF_NETWORKS) == len(set(kinds))
