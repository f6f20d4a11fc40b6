"""Rounds of simulations near one observation: the box holds the truth and shrinks, and squared error stays the mean."""

import math
import warnings
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.estimators.base import Region
from fanfold.estimators.posterior.focused import Focused
from fanfold.problems.simulators.python import code_identity
from fanfold.training.events import RoundStarted
from fanfold.training.rounds import LOST, Rejected

H = torch.tensor([[1.0, 0.5], [0.2, 1.0], [1.0, -1.0]])
NOISE = 0.05
SHORT = {"steps": 60, "batch": 64, "validate_every": 60, "threads": 1}  # of a training


def wavy(v):
    """Rises everywhere, and is straight only from near by."""
    return v + 0.45 * torch.sin(2 * v)


def measure(x, generator):
    return wavy(x @ H.mT + NOISE * torch.randn(len(x), 3, generator=generator))


def of_prior(n, generator):
    return torch.randn(n, 2, generator=generator)


SIMULATOR = ff.problems.BatchSimulator(ff.problems.Independent(ff.priors.Gaussian(1.0), 2), measure)
X, OBS = SIMULATOR.sample(1, torch.Generator().manual_seed(5))


def posterior():
    """Mean and standard deviation: the measurements are a function of linear ones, which is undone by bisection."""
    low, high = torch.full((3,), -9.0), torch.full((3,), 9.0)
    for _ in range(60):
        middle = (low + high) / 2
        below = wavy(middle) < OBS.y[0]
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    covariance = torch.linalg.inv(H.mT @ H / NOISE**2 + torch.eye(2))
    return covariance @ H.mT @ low / NOISE**2, covariance.diagonal().sqrt()


def trained(rounds, simulations, **options):
    events = []
    net = ff.neural(SIMULATOR, width=16, observed=OBS.y[0], rounds=rounds)
    ff.fit(net, SIMULATOR, simulations=simulations, on_event=events.append, **SHORT | options)
    return net, [event for event in events if isinstance(event, RoundStarted)]


@pytest.fixture(scope="module")
def nearer():
    return trained(3, 600)


def test_the_box_holds_the_truth_and_never_grows(nearer):
    net, rounds = nearer
    assert [r.number for r in rounds] == [1, 2, 3]
    assert rounds[0].low == (-math.inf,) * 2
    assert rounds[0].share == 1.0
    for before, after in pairwise(rounds):
        assert all(a <= b for a, b in zip(before.low, after.low))
        assert all(a >= b for a, b in zip(before.high, after.high))
        assert after.share < before.share
        assert after.kept >= after.made == 200
    mean, sd = posterior()
    assert ((net.low <= X[0]) & (X[0] <= net.high)).all()
    assert ((net.low < mean - 3 * sd) & (mean + 3 * sd < net.high)).all()


def test_the_mean_is_nearer_than_with_one_round_of_as_many_draws(nearer):
    mean, sd = posterior()
    of_three, of_one = (((net(OBS).x[0] - mean) / sd).abs().mean() for net in (nearer[0], trained(1, 600)[0]))
    assert of_three < of_one / 2
    assert of_three < 1.0


def test_the_first_round_draws_what_the_amortised_estimator_draws():
    estimates = []
    for observed, rounds in ((None, None), (OBS.y[0], 1)):
        net = ff.neural(SIMULATOR, width=16, observed=observed, rounds=rounds)
        ff.fit(net, SIMULATOR, simulations=100, **SHORT | {"steps": 1})
        estimates.append(net.origin[1](OBS).x)
    torch.testing.assert_close(*estimates)  # the linear estimator of these draws, in whatever order they come


def test_without_an_observation_nothing_changes():
    net = ff.neural(SIMULATOR)
    assert type(net) is type(ff.neural(SIMULATOR, observed=None))
    assert net.settings.observed is None
    assert [*net.state_dict()] == [*ff.neural(SIMULATOR, observed=OBS.y[0]).net.state_dict()]


def test_an_interrupted_sequence_goes_on_where_it_was(tmp_path):
    few = SHORT | {"steps": 20}
    whole, rounds = trained(3, 300, store=tmp_path / "whole", **few)

    def stop(event):
        if isinstance(event, RoundStarted) and event.number == 3:
            raise KeyboardInterrupt

    net = ff.neural(SIMULATOR, width=16, observed=OBS.y[0])
    with pytest.raises(KeyboardInterrupt):
        ff.fit(net, SIMULATOR, simulations=300, store=tmp_path / "broken", on_event=stop, **few)
    simulated = [file.read_bytes() for file in sorted((tmp_path / "broken").rglob("runs.bin"))]
    again, others = trained(3, 300, store=tmp_path / "broken", **few)
    assert others == rounds
    assert torch.equal(again(OBS).x, whole(OBS).x)
    assert simulated == [file.read_bytes() for file in sorted((tmp_path / "broken").rglob("runs.bin"))]
    assert len(simulated) == 3
    with pytest.raises(ValueError, match="holds other draws: counts"):
        trained(3, 330, store=tmp_path / "broken")
    with pytest.raises(ValueError, match="holds other draws: observed"):
        ff.fit(ff.neural(SIMULATOR, observed=OBS.y[0] + 1), SIMULATOR, simulations=300, store=tmp_path / "broken")


@pytest.mark.filterwarnings("ignore:The box of the last round")
def test_training_again_begins_with_the_prior():
    options = SHORT | {"steps": 1}
    net = ff.neural(SIMULATOR, width=16, observed=OBS.y[0], rounds=2)
    boxes = []
    for _ in range(2):
        events = []
        ff.fit(net, SIMULATOR, simulations=60, on_event=events.append, **options)
        boxes.append([(event.low, event.high) for event in events if isinstance(event, RoundStarted)])
    assert boxes[0] == boxes[1]


def test_rounds_that_gained_little_say_so():
    blind = replace(SIMULATOR, simulate=lambda x, generator: torch.randn(len(x), 3, generator=generator))
    net = ff.neural(blind, width=16, observed=OBS.y[0], rounds=2)
    with pytest.warns(UserWarning, match="last round still holds .* % of the prior: rounds gained little"):
        ff.fit(net, blind, simulations=200, **SHORT | {"steps": 10})


def box_at(away: float) -> tuple[Region, ff.Observation]:
    """A box so many posterior deviations from the posterior, and draws of it."""
    mean, deviation = posterior()
    low, high = (mean + (away + side * 4) * deviation for side in (-1, 1))
    rejected = Rejected(SIMULATOR, tuple(low.tolist()), tuple(high.tolist()))
    return Region(low.double(), high.double()), rejected.sample(400, torch.Generator().manual_seed(1))[1]


def test_the_observation_is_like_the_draws_of_a_box_that_holds_the_posterior_and_of_no_other(nearer):
    """Far from it in posterior deviations, and well within the range of each measurement."""
    assert nearer[0].likeness(box_at(0.0)[1]) > 0.05
    assert nearer[0].likeness(box_at(9.0)[1]) < LOST
    assert nearer[0].likeness(box_at(9.0)[1][:5]) == 1.0


@pytest.mark.filterwarnings("ignore:The box of the last round")
def test_a_box_that_has_lost_the_posterior_is_left_and_the_next_is_wider(monkeypatch, tmp_path):
    usual, given = Focused.narrowed, []

    def once_wrong(self, generator, wider):
        given.append((usual(self, generator, wider), wider))
        return box_at(9.0)[0] if len(given) == 1 else given[-1][0]

    def sequence(folder):
        monkeypatch.setattr(Focused, "narrowed", once_wrong)
        with pytest.warns(UserWarning, match=r"unlike the draws of round 2: its box has lost the posterior"):
            return trained(3, 300, store=tmp_path / folder)

    net, rounds = sequence("one")
    assert [wider for _, wider in given] == [1.0, 2.0]
    assert (given[1][0].high - given[1][0].low > given[0][0].high - given[0][0].low).all()
    assert [event.kept for event in rounds[:2]] == [100, 100]
    assert rounds[2].kept > 100
    mean, deviation = posterior()
    assert ((net.low <= mean - 3 * deviation) & (mean + 3 * deviation <= net.high)).all()
    again, _ = sequence("one")  # goes on from the store
    assert len(given) == 2
    assert torch.equal(again(OBS).x, net(OBS).x)


def test_an_observation_unlike_the_draws_is_warned_of(nearer):
    net, _ = nearer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        net(OBS)
    with pytest.warns(UserWarning, match="1 of 2 observations lie outside the range .* made for one observation"):
        net(torch.cat([OBS.y, OBS.y + 3]))


def test_box_and_observation_are_kept(nearer, tmp_path):
    net, _ = nearer
    ff.save(net, tmp_path / "net", SIMULATOR)
    loaded = ff.load(tmp_path / "net")
    assert torch.equal(loaded(OBS).x, net(OBS).x)
    assert torch.equal(loaded.low, net.low)
    assert torch.equal(loaded.observed, OBS.y)
    with pytest.warns(UserWarning, match="made for one observation"):
        loaded(OBS.y + 3)


def test_what_cannot_be_done_in_rounds_is_refused(tmp_path):
    net = ff.neural(SIMULATOR, observed=OBS)
    pairs = ff.problems.Pairs(x=np.ones((100, 2), np.float32), y=np.ones((100, 3), np.float32))
    with pytest.raises(ValueError, match="pairs of this problem are stored: pass the simulator"):
        ff.fit(ff.neural(pairs, observed=OBS), pairs, simulations=60)
    with pytest.raises(ValueError, match=r"keep no run directory: pass store=folder"):
        ff.fit(net, SIMULATOR, simulations=60, run_dir=tmp_path / "run")
    with pytest.raises(ValueError, match="simulations is 0 for 3 rounds"):
        ff.fit(net, SIMULATOR)
    with pytest.raises(ValueError, match="trained in rounds, each a training"):
        next(ff.fit_events(net, SIMULATOR, ff.Training()))
    with pytest.raises(ValueError, match=r"observed is torch.float32 of shape \(4,\) .* of shape \(3,\); pass one"):
        ff.neural(SIMULATOR, observed=torch.ones(4))
    with pytest.raises(ValueError, match="observed"):
        ff.neural(SIMULATOR, observed=torch.tensor([1.0, math.nan, 1.0]))
    with pytest.raises(ValueError, match="observed needs the default estimator"):
        ff.neural(SIMULATOR, "absolute", observed=OBS)
    with pytest.raises(ValueError, match="rounds is 2 without an observation"):
        ff.neural(SIMULATOR, rounds=2)
    with pytest.raises(ValueError, match="rounds is 0; pass a positive number"):
        ff.fit(ff.neural(SIMULATOR, observed=OBS, rounds=0), SIMULATOR, simulations=60)
    with pytest.raises(ValueError, match="store is for the simulations of rounds"):
        ff.fit(ff.neural(SIMULATOR), SIMULATOR, simulations=60, store=tmp_path / "store")
    sparse = ff.problems.CompressedSensing(n=4, m=3)
    with pytest.raises(ValueError, match="problems without an operator"):
        ff.neural(sparse, observed=torch.ones(3))


# Truncated priors


@pytest.mark.parametrize(
    "prior",
    [ff.problems.Box((-1.0, 0.0), (1.0, 2.0)), ff.problems.Independent(ff.priors.Gaussian(1.0), 2), of_prior],
    ids=["box", "independent", "function"],
)
def test_a_truncated_prior_is_the_prior_within_the_box(prior):
    simulator = replace(SIMULATOR, prior=prior)
    restricted = simulator.restricted((-0.5, 0.1), (0.25, math.inf)).restricted((-math.inf, 0.0), (0.5, 1.0))
    x = restricted.prior(20_000, torch.Generator().manual_seed(0))
    low, high = torch.tensor([-0.5, 0.1]), torch.tensor([0.25, 1.0])
    assert ((low <= x) & (x <= high)).all()
    assert restricted.prior.limits == ((-0.5, 0.25), (0.1, 1.0))
    every = prior(400_000, torch.Generator().manual_seed(1))
    inside = every[((low <= every) & (every <= high)).all(-1)]
    for power in (1, 2):  # five standard errors of the difference of two means
        a, b = x.double() ** power, inside.double() ** power
        assert ((a.mean(0) - b.mean(0)).abs() < 5 * (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()).all()


def test_a_box_without_draws_is_refused():
    with pytest.raises(ValueError, match=r"none of .* draws of the parameters lies in the box"):
        ff.problems.Truncated(of_prior, (40.0, 40.0), (41.0, 41.0))(1, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"parameter 0 is to lie between 1.0 and 1.0; pass low < high"):
        ff.problems.Truncated(of_prior, (1.0,), (1.0,))
    with pytest.raises(ValueError, match="2 lower and 1 upper bounds"):
        SIMULATOR.restricted((0.0, 0.0), (1.0,))


def test_identities_of_truncated_functions_tell_boxes_apart_and_hold_no_address():
    one, other = (ff.problems.Truncated(of_prior, (0.0, 0.0), (high, 1.0)) for high in (1.0, 2.0))
    assert code_identity(one) != code_identity(other)
    assert "0x" not in code_identity(one)


def test_a_program_is_restricted_and_kept():
    program = ff.problems.Program("echo {x}", ff.problems.Independent(count=2)).restricted((0.0, 0.0), (1.0, 1.0))
    x, _ = program.draw(0)
    assert ((x >= 0) & (x <= 1)).all()
    assert program.identity() != program.restricted((0.0, 0.0), (0.5, 1.0)).identity()


def test_draws_of_a_problem_without_a_prior_are_thrown_away_and_counted():
    problem = Rejected(ff.problems.LinearGaussian(n=2, m=3), (0.0, 0.0), (1.0, 1.0))
    x, obs = problem.sample(50, torch.Generator().manual_seed(0))
    assert len(x) == len(obs.y) == 50
    assert ((x >= 0) & (x <= 1)).all()
    assert problem.thrown_away > 100
    with pytest.raises(ValueError, match=r"only 0 of .* draws of LinearGaussian .*restricted\(low, high\)"):
        Rejected(problem.problem, (9.0, 9.0), (10.0, 10.0)).sample(5, torch.Generator().manual_seed(0))
