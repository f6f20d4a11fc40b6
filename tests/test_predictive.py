"""Posterior predictive checks pass where the model is right, and flag what it does not predict."""

import shlex
import sys

import pytest
import torch

from fanfold.core.abilities import offers
from fanfold.guard import predictive
from fanfold.observation import Observation
from fanfold.problems import BatchSimulator, Box, LinearGaussian, MixtureSignal, Program, Simulator
from fanfold.problems.draws import draw
from fanfold.problems.protocols import Counted, DrawsAt, kind_of
from problem_rows import ROWS, row_of

PROBLEM = LinearGaussian(n=2, m=4, snr_db=8.0)
BOX = Box((0.0, 0.0), (1.0, 1.0))
CASES = [(name, variant) for name in ROWS for variant in ROWS[name]]


class Posterior:
    """The exact one of the linear Gaussian model."""

    def __init__(self):
        A = PROBLEM.operator.matrix().double()
        covariance = torch.linalg.inv(A.mT @ A / PROBLEM.noise_var + torch.eye(2, dtype=A.dtype))
        self.root = torch.linalg.cholesky(covariance).float()

    def sample(self, obs, count, generator):
        mean = PROBLEM.posterior(obs).x
        return mean + torch.randn(count, *mean.shape, generator=generator) @ self.root.mT


class Uniform:
    """Draws of the box, whatever was observed."""

    def sample(self, obs, count, generator):
        return torch.rand(count, len(obs.y), 2, generator=generator)


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


# Observations at given parameters


@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_pairs_at_drawn_parameters_are_draws_of_the_problem(case, tmp_path):
    row = row_of(*case)
    problem = row.problem(tmp_path)
    if not offers(problem, DrawsAt):
        pytest.skip("draws nothing at given parameters")
    count = min(row.draws, 2000)
    x, obs = problem.sample(count, rng())
    given, again = problem.sample_at(x, rng(1))
    assert torch.equal(given, x)
    assert again.y.shape == obs.y.shape
    assert again.y.dtype == obs.y.dtype
    assert again.A is obs.A
    assert torch.equal(again.y, problem.sample_at(x, rng(1))[1].y)
    assert kind_of(problem) == "vector" or again.y.ndim > 2
    if count >= 500:  # the same power, and the same product with the parameters
        for value in (
            lambda y: y.abs().square().flatten(1).mean(-1),
            lambda y: (x[:, 0] * y.flatten(1)[:, 0].conj()).real,
        ):
            a, b = value(obs.y).double(), value(again.y).double()
            assert abs(a.mean() - b.mean()) <= 6 * (a.var() + b.var()).sqrt() / count**0.5 + 1e-6


def crashing(x, generator):
    if x[0] > 0.5:
        raise RuntimeError("no mesh")
    return x + 0.1 * torch.randn(x.shape, generator=generator)


def test_simulators_count_the_runs_that_fail_and_give_the_others():
    simulator = Simulator(BOX, crashing)
    x = torch.tensor([[0.1, 0.2], [0.9, 0.2], [0.3, 0.4]])
    kept, obs = simulator.sample_at(x, rng())
    assert torch.equal(kept, x[[0, 2]])
    assert (obs.y - kept).abs().max() < 1
    assert simulator.failures == {"crash": 1}
    with pytest.raises(ValueError, match="all 1 runs at given parameters failed, the last: crash"):
        simulator.sample_at(x[1:2], rng())
    with pytest.raises(ValueError, match="pass real, finite parameters"):
        simulator.sample_at(torch.full((1, 2), torch.nan), rng())


def test_a_batch_simulator_answers_all_at_once():
    holes = BatchSimulator(BOX, lambda x, generator: torch.where(x > 0.5, torch.nan, x))
    kept, obs = holes.sample_at(torch.tensor([[0.1, 0.2], [0.9, 0.2]]), rng())
    assert kept.tolist() == obs.y.tolist()
    assert holes.failures == {"non-finite": 1}


def test_a_program_answers_at_given_parameters():
    words = f"{shlex.quote(sys.executable)} -I -S -c 'import sys; print(*sys.argv[1:])' {{x}} {{seed}}"
    program = Program(words, BOX, shape=(3,))
    kept, obs = program.sample_at(torch.tensor([[0.25, 0.5], [0.75, 1.0]]), rng())
    assert kept.tolist() == obs.y[:, :2].tolist() == [[0.25, 0.5], [0.75, 1.0]]
    assert obs.y[0, 2] != obs.y[1, 2]  # a seed of its own


# The check


def test_a_right_model_passes_and_its_small_p_values_are_rarer_than_uniform_ones():
    _, obs = draw(PROBLEM, 400, 0, 2, 0)
    result = predictive(Posterior(), PROBLEM, obs, draws=99)
    for p in (result.p_values, result.feature_p_values):
        assert (p <= 0.05).double().mean() < 0.05 + 3.3 * (0.05 * 0.95 / 400) ** 0.5  # once in a thousand times
    assert result.p_values.min() >= 0.01
    assert abs(result.feature_p_values.mean().item() - 0.5) < 0.2  # uniform ones have 0.5; these have seen y
    assert (result.draws == 99).all()


def test_contaminated_observations_are_flagged():
    _, obs = draw(PROBLEM, 20, 1, 2, 0)
    y = obs.y.clone()
    y[3, 1] += 20 * PROBLEM.noise_var**0.5
    result = predictive(Posterior(), PROBLEM, Observation(y, None, obs.noise_var))
    assert result.p_values[3] <= 0.005
    assert result.feature_p_values[3, 1] <= 0.01
    assert "number 3" in result.sentence or "3," in result.sentence
    assert (result.p_values <= 0.01).sum() <= 2


def test_a_broken_correlation_shows_in_the_whole_alone():
    """Two sensors that see the same, and differ in one observation by what either may say."""
    same = Simulator(BOX, lambda x, generator: x[:1].expand(2) + 0.01 * torch.randn(2, generator=generator))
    result = predictive(Uniform(), same, Observation(torch.tensor([[0.3, 0.7], [0.5, 0.5]])))
    assert result.p_values[0] <= 0.01 < result.p_values[1]
    assert (result.feature_p_values > 0.1).all()


def test_failed_runs_are_left_out_and_said():
    simulator = Simulator(BOX, crashing)
    result = predictive(Uniform(), simulator, Observation(torch.tensor([[0.2, 0.5], [5.0, 5.0]])), draws=99)
    assert result.failures == {"crash": 198 - int(result.draws.sum())}
    assert 20 < result.draws.min() < 80
    assert "crash" in result.sentence
    assert (result.p_values <= 0.05).tolist() == [False, True]


def test_a_problem_that_counts_is_told_from_one_that_cannot_be_asked(tmp_path):
    assert offers(Simulator(BOX, crashing), Counted)
    pairs = ROWS["pairs"][""].problem(tmp_path)
    with pytest.raises(ValueError, match="predictive needs `sample_at`; Pairs has none"):
        predictive(Uniform(), pairs, Observation(torch.zeros(1, 2)))
    with pytest.raises(ValueError, match="at least 19"):
        predictive(Uniform(), PROBLEM, Observation(torch.zeros(1, 4)), draws=5)
    with pytest.raises(ValueError, match="pass a batch"):
        predictive(Uniform(), PROBLEM, Observation(torch.zeros(4)))
    with pytest.raises(ValueError, match=r"draws y of shape \(4,\)"):
        predictive(Uniform(), PROBLEM, Observation(torch.zeros(1, 3)))
    assert MixtureSignal(n=2, m=1).sample_at(torch.zeros(3, 2), rng())[1].y.shape == (3, 1)
