"""Laws that every row of `problems.REGISTRY` obeys: draws that repeat, copies, held-out draws, scale, densities."""

import dataclasses
import json
import math
from typing import Literal, Protocol, get_args, get_origin, get_type_hints, runtime_checkable

import pytest
import torch

from fanfold.bounds.assumptions import has_atoms
from fanfold.core.abilities import offers
from fanfold.core.noise import circular
from fanfold.core.precision import dtype_named
from fanfold.core.units import power
from fanfold.linops import LinearOperator
from fanfold.observation import Observation
from fanfold.priors import Prior
from fanfold.problems import REGISTRY, Problem
from fanfold.problems.kinds import AXES
from fanfold.problems.protocols import (
    CorrelatedModel,
    DrawsAll,
    KeepsValidation,
    KnownJoint,
    KnownLikelihood,
    Stored,
    WhiteModel,
    kind_of,
    likelihood_of,
    noise_var_of,
    posterior_of,
    prior_of,
)
from fanfold.runs.recipe import build_problem, describe_problem
from problem_rows import ROWS, row_of

CASES = [(name, variant) for name in REGISTRY for variant in ROWS.get(name, [""])]
SIGMAS = 5.0  # standard errors that a mean may be off: 6e-7 by chance


@runtime_checkable
class ErringOperator(Protocol):
    @property
    def true_A(self) -> LinearOperator | None: ...


@pytest.fixture(params=CASES, ids=lambda case: "-".join(filter(None, case)))
def row(request):
    return row_of(*request.param)


@pytest.fixture
def problem(row, tmp_path) -> Problem:
    return row.problem(tmp_path)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def fields_of(problem: Problem) -> dict:
    return {f.name: vars(problem)[f.name] for f in dataclasses.fields(problem)}


def measured(problem: Problem) -> bool:
    """Whether all its pairs, noise included, are stored."""
    return problem.held_out() != problem and not offers(problem, KeepsValidation)


def equal(a: tuple[torch.Tensor, Observation], b: tuple[torch.Tensor, Observation]) -> bool:
    return torch.equal(a[0], b[0]) and torch.equal(a[1].y, b[1].y)


def near_one(values: torch.Tensor) -> bool:
    """Whether the mean of draws is one, within standard errors that are small enough to tell."""
    error = (values.std() / len(values) ** 0.5).item()
    assert error < 0.05, "too few draws to tell"
    return abs(values.mean().item() - 1) < SIGMAS * error + 1e-6  # and rounding, of what is one in every draw


def test_every_row_has_a_factory_and_every_factory_a_row():
    assert set(ROWS) == set(REGISTRY), "add the smallest problem of a new row to ROWS in tests/problem_rows.py"


def test_it_is_a_problem_and_plain_data(problem):
    assert isinstance(problem, Problem)
    data = json.loads(json.dumps(describe_problem(problem)))
    again = build_problem(data)
    assert again == problem
    assert describe_problem(again) == describe_problem(problem)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(problem, dataclasses.fields(problem)[0].name, None)


def test_the_same_fields_draw_the_same(row, problem, tmp_path):
    count = min(row.draws, 30)
    drawn, again = problem.sample(count, rng(1)), row.problem(tmp_path).sample(count, rng(1))
    assert equal(drawn, again)
    assert equal(drawn, build_problem(describe_problem(problem)).sample(count, rng(1)))
    assert not torch.equal(drawn[1].y, problem.sample(count, rng(2))[1].y)


def test_a_draw_leaves_the_global_generator_alone(row, problem):
    state = torch.get_rng_state()
    problem.sample(min(row.draws, 5), rng(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_shifted_changes_what_it_names_and_nothing_else(row, problem):
    before = fields_of(problem)
    shifted = problem.shifted(**row.change)
    assert type(shifted) is type(problem)
    assert fields_of(shifted) == before | row.change != before
    assert fields_of(problem) == before
    assert problem.shifted() == problem
    assert shifted.shifted(**{name: before[name] for name in row.change}) == problem
    with pytest.raises(ValueError, match="has no 'no_such_field' to change; it has"):
        problem.shifted(no_such_field=1.0)


def test_held_out_draws_are_fresh_or_from_other_pairs(row, problem):
    held_out = problem.held_out()
    assert held_out.held_out() == held_out
    count = min(row.draws, 100)
    x, obs = problem.sample(count, rng(3))
    other_x, other = held_out.sample(count, rng(4))
    if held_out == problem:  # fresh: discrete signals may come again, their noise does not
        x, other_x = (torch.cat([a.flatten(1), _real(o.y).to(a.dtype)], -1) for a, o in ((x, obs), (other_x, other)))
    assert not _rows(x) & _rows(other_x)
    if offers(problem, Stored):
        assert offers(held_out, Stored)
        parts = [_rows(part.every()[0]) for part in (problem, held_out)]
        assert not parts[0] & parts[1]
        assert _rows(x) <= parts[0]
        assert _rows(other_x) <= parts[1]


def _rows(x: torch.Tensor) -> set[bytes]:
    return {row.numpy().tobytes() for row in x}


def _real(y: torch.Tensor) -> torch.Tensor:
    return (torch.view_as_real(y) if y.is_complex() else y).flatten(1)


def test_draws_have_one_precision_and_their_shapes_and_are_finite(row, problem):
    for count in (1, min(row.draws, 20)):
        x, obs = problem.sample(count, rng(5))
        if problem.held_out() == problem or count == 1:
            assert len(x) == len(obs.y) == count
        assert x.ndim == 2
        assert obs.y.ndim == 1 + AXES[kind_of(problem)]
        assert torch.isfinite(torch.view_as_real(x) if x.is_complex() else x).all()
        assert torch.isfinite(_real(obs.y)).all()
        assert x.dtype.to_real() == obs.y.dtype.to_real()
        if obs.noise_var is not None:
            assert obs.noise_var.dtype == obs.y.dtype.to_real()
            assert (obs.noise_var >= 0).all()
        assert (obs.A is None) == (problem.A is None)
        if obs.A is not None:
            assert obs.A is problem.A or obs.A.varies
            assert obs.A.shape == (obs.y.shape[-1], x.shape[-1])
            assert obs.A.dtype == obs.y.dtype


def test_every_precision_can_be_had(row, problem):
    hint = get_type_hints(type(problem)).get("dtype")
    if "dtype" not in fields_of(problem) or get_origin(hint) is not Literal:
        pytest.skip("its precision is not a field")
    if measured(problem):
        pytest.skip("its precision is that of what is stored")
    for name in get_args(hint):
        x, obs = problem.shifted(dtype=name).sample(min(row.draws, 5), rng(6))
        assert obs.y.dtype == dtype_named(name)
        assert x.dtype.to_real() == obs.y.dtype.to_real()


def test_signals_have_the_power_of_their_prior(row, problem):
    prior = prior_of(problem)
    if not isinstance(prior, Prior):  # none, or that of a simulator's parameters
        pytest.skip("it has no prior of each unknown")
    x, _ = problem.sample(row.draws, rng(7))
    assert near_one(power(x).double().mean(-1) / prior.power)


def test_noise_has_the_variance_that_is_said(row, problem):
    x, obs = problem.sample(row.draws, rng(8))
    erring = problem.true_A if offers(problem, ErringOperator) else None
    likelihood = likelihood_of(problem)
    if obs.noise_var is None or obs.A is None or likelihood is not None or measured(problem):
        pytest.skip("there is no noise added to A x")
    A = obs.A if erring is None else erring
    noise = power(obs.y - A @ x).double() / obs.noise_var.double()
    assert near_one(noise.mean(-1))


def test_a_gaussian_model_is_what_draws_are(row, problem):
    if not offers(problem, DrawsAll) or not offers(problem, WhiteModel):
        pytest.skip("it is no Gaussian model")
    x, obs = problem.sample_all(row.draws, rng(9))
    noise = obs.y - problem.mean(x)
    if offers(problem, CorrelatedModel):
        R = problem.covariance(x.double()).to(torch.complex128 if noise.is_complex() else torch.float64)
        L = torch.linalg.cholesky(R)
        white = torch.linalg.solve_triangular(L, noise.to(R.dtype).unsqueeze(-1), upper=False).squeeze(-1)
    else:
        var = obs.noise_var if obs.noise_var is not None else torch.tensor(problem.noise_var)
        white = noise / var.sqrt()
    assert near_one(power(white).double().mean(-1))


def test_ten_decibels_less_are_ten_times_the_noise_on_the_same_signals(row, problem):
    snr_db = fields_of(problem).get("snr_db")
    if not isinstance(snr_db, float):
        pytest.skip("it has no one SNR")
    if measured(problem):
        pytest.skip("it was measured")
    weaker = problem.shifted(snr_db=snr_db - 10.0)
    (x, obs), (same, louder) = problem.sample(5, rng(10)), weaker.sample(5, rng(10))
    assert torch.equal(x, same)
    before, after = (
        noise_var_of(p) if o.noise_var is None else o.noise_var for p, o in ((problem, obs), (weaker, louder))
    )
    assert float(after) == pytest.approx(10 * float(before), rel=1e-5)


def test_a_field_of_power_scales_signals_and_measurements(row, problem):
    if "power" not in fields_of(problem):
        pytest.skip("it has no power to set")
    (x, obs), (x_4, obs_4) = (p.sample(5, rng(11)) for p in (problem, problem.shifted(power=4 * problem.power)))
    assert torch.equal(x_4, 2 * x)  # powers of two scale without rounding
    torch.testing.assert_close(obs_4.y, 2 * obs.y)
    if obs.noise_var is not None:
        torch.testing.assert_close(obs_4.noise_var, 4 * obs.noise_var)


def test_the_likelihood_integrates_to_one(row, problem):
    """By importance sampling from a wide Gaussian about the observations, at three draws of the parameters."""
    if not offers(problem, KnownLikelihood) or not offers(problem, DrawsAll):
        pytest.skip("it has no likelihood")
    x, obs = problem.sample_all(3, rng(12))
    precise = torch.complex128 if obs.y.is_complex() else torch.float64
    _, many = problem.sample_all(2000, rng(13))
    var = 1.5 * power(many.y).double().mean().item()
    for i in range(len(x)):
        y = circular((200_000, obs.y.shape[-1]), rng(14), precise, var)
        half = 1.0 if y.is_complex() else 0.5
        log_q = (-half * power(y) / var - half * math.log(math.pi / half * var)).sum(-1)
        noise_var = None if obs.noise_var is None else obs[i : i + 1].noise_var
        log_p = problem.log_likelihood(x[i].double(), Observation(y, None, noise_var))
        assert near_one((log_p - log_q).exp())


def test_the_prior_integrates_to_one(row, problem):
    """By importance sampling from a Gaussian twice as wide as the draws."""
    if not offers(problem, KnownJoint) or not offers(problem, DrawsAll):
        pytest.skip("its prior is not known")
    draws = problem.sample_all(2000, rng(15))[0].double()
    if any(has_atoms(column) for column in draws.mT):
        pytest.skip("it has atoms, of which log_prior gives the probability")
    centre, width = draws.mean(0), 2 * draws.std(0)
    z = torch.randn(200_000, draws.shape[-1], generator=rng(16), dtype=torch.float64)
    log_q = (-0.5 * z.square() - 0.5 * math.log(2 * math.pi) - width.log()).sum(-1)
    assert near_one((problem.log_prior(centre + width * z) - log_q).exp())


def test_outcomes_of_a_likelihood_have_probability_one_together(row, problem):
    likelihood = likelihood_of(problem)
    if likelihood is None or likelihood.outcomes is None:
        pytest.skip("its outcomes cannot be listed")
    x, obs = problem.sample(20, rng(16))
    z = (obs.A @ x).double()
    logs = [likelihood.log_likelihood(torch.full_like(z, y), z, problem.noise_var) for y in likelihood.outcomes]
    assert torch.allclose(torch.stack(logs).exp().sum(0), torch.ones_like(z), rtol=0, atol=1e-9)


def test_the_posterior_mean_is_as_far_off_as_it_says(row, problem):
    posterior = posterior_of(problem)
    if posterior is None:
        pytest.skip("its posterior is not known")
    x, obs = problem.sample(min(row.draws, 2000), rng(17))
    estimate = posterior(obs)
    assert estimate.x.shape == estimate.var.shape == x.shape
    assert estimate.x.dtype == x.dtype
    gap = (power(estimate.x - x) - estimate.var).double().sum(-1)
    assert abs(gap.mean()) < SIGMAS * gap.std() / len(gap) ** 0.5
