"""The grid finds the peak, Newton its top: closed forms, bounds that large signals reach, priors and limits."""

import dataclasses
import math

import pytest
import torch

from fanfold.estimators import MaximumAPosteriori, MaximumLikelihood
from fanfold.observation import Observation
from fanfold.problems import DirectionOfArrival, LinearGaussian, TimeDelay, Tone
from fanfold.problems.base import Described

ESTIMATORS = (MaximumLikelihood, MaximumAPosteriori)
each_estimator = pytest.mark.parametrize("kind", ESTIMATORS)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclasses.dataclass(frozen=True)
class Lopsided(Described):
    """y = exp(x) + w, x ~ N(0, 1) by name alone: nothing but a likelihood and limits."""

    limits = ((-3.0, 3.0),)
    names = ("x",)

    def log_prior(self, x):
        return -0.5 * x.square().sum(-1)

    def log_likelihood(self, x, obs):
        return -(obs.y - x.exp()).square().sum(-1) / (2 * 0.01)


@each_estimator
@pytest.mark.parametrize("problem", [Tone(snr_db=30.0), TimeDelay(snr_db=30.0, gain="phase")])
def test_no_grid_finer_than_the_estimator_finds_a_better_place(kind, problem):
    _, obs = problem.sample(20, rng(0))
    obs = _flat(obs)
    x = kind.of(problem.shifted(estimate=problem.names))(obs).x
    every = Observation(obs.y[:, None], None, obs.noise_var)
    fine = problem.log_likelihood(problem.profile(problem.grid(4000), every), every).amax(-1)
    # by rounding of a log likelihood of this size
    assert (problem.log_likelihood(x, obs) >= fine - 1e-9 * fine.abs()).all()


def _flat(obs: Observation) -> Observation:
    return Observation(obs.y.to(torch.complex128), None, obs.noise_var.double())


@each_estimator
def test_a_limit_free_objective_has_zero_gradient_at_the_estimate(kind):
    problem = Tone(snr_db=10.0, gain="rayleigh", estimate=("frequency", "phase", "amplitude"), density="raised-cosine")
    _, obs = problem.sample(50, rng(1))
    estimator, wide = kind.of(problem), _flat(obs)
    estimate = estimator(wide)
    inside = torch.isfinite(estimate.var).all(-1)  # not at a limit
    assert inside.float().mean() > 0.9
    x = estimate.x.requires_grad_()
    (gradient,) = torch.autograd.grad(estimator.objective(x, wide).sum(), x)
    # no more than 1e-6 standard deviations with the others fixed; with them free these are longer by
    # 1 / √(1 - ρ²), about 2, as frequency and phase at t = 0 have ρ² = 3 (n - 1) / (2 (2 n - 1))
    assert (gradient * estimate.var.sqrt())[inside].abs().max() < 2.1e-6


@pytest.mark.parametrize(
    ("problem", "crb"),
    [
        (Tone(snr_db=20.0), 6 / (100 * 25 * (25**2 - 1))),  # Rife & Boorstyn (1974), eq. 26
        (TimeDelay(snr_db=20.0), 0.01 / (64 * TimeDelay().mean_square_bandwidth)),  # Kay (1993), eq. 3.36
    ],
)
def test_a_strong_signal_is_placed_at_the_bound_and_says_so(problem, crb):
    x, obs = problem.sample(1000, rng(2))
    estimate = MaximumLikelihood.of(problem)(obs)
    # a mean of 1000 squares of normal errors deviates by √(2 / 1000); 4 of these, and 2 % by which 20 dB are not ∞
    assert abs((estimate.x - x).square().mean().item() / crb - 1) < 4 * (2 / 1000) ** 0.5 + 0.02
    assert abs(estimate.var.mean().item() / crb - 1) < 0.05


def test_weak_signals_meet_their_limits_where_the_prior_is_uniform():
    problem = Tone(snr_db=-10.0)
    _, obs = problem.sample(200, rng(3))
    ml, map_ = MaximumLikelihood.of(problem)(obs), MaximumAPosteriori.of(problem)(obs)
    assert torch.equal(ml.x, map_.x)  # the prior is constant within the limits
    assert (ml.x.abs() <= torch.tensor(problem.limit)).all()


def test_a_prior_pulls_where_the_signal_is_weak():
    problem = Tone(snr_db=-10.0, density="raised-cosine")
    x, obs = problem.sample(500, rng(4))
    ml, map_ = (kind.of(problem)(obs).x for kind in ESTIMATORS)
    ml_error, map_error = (ml - x).square(), (map_ - x).square()
    difference = ml_error - map_error
    assert difference.mean() > 4 * difference.std() / 500**0.5


def test_a_product_grid_serves_problems_without_one_of_their_own():
    x = torch.tensor([[-1.0], [0.3], [0.9]])
    obs = Observation(x.exp())
    problem = Lopsided()
    assert torch.allclose(MaximumLikelihood.of(problem)(obs).x, x, rtol=0, atol=1e-6)
    map_ = MaximumAPosteriori.of(problem)(obs).x
    # (y - e^x) e^x / 0.01 = x at the top of log p(y|x) + log p(x)
    assert torch.allclose((obs.y - map_.exp()) * map_.exp() / 0.01, map_, rtol=0, atol=1e-3)
    variance = MaximumLikelihood.of(problem)(obs).var
    assert torch.allclose(variance, 0.01 / x.exp().square(), rtol=1e-4)


@pytest.mark.parametrize("sources", [1, 2, 3])
def test_directions_are_found_in_their_order(sources):
    problem = DirectionOfArrival(sources=sources, snr_db=25.0)
    x, obs = problem.sample(20, rng(5))
    for kind in ESTIMATORS:
        estimate = kind.of(problem)(obs)
        # six standard deviations, of 60 normal errors
        assert ((estimate.x - x).abs() < 6 * estimate.var.sqrt()).all()


def test_several_batch_axes_one_sample_and_double_precision_are_kept():
    problem = Tone()
    x, obs = problem.sample(6, rng(6))
    estimator = MaximumLikelihood.of(problem)
    plain = estimator(obs)
    shaped = estimator(Observation(obs.y.reshape(2, 3, -1), None, obs.noise_var))
    assert torch.equal(shaped.x, plain.x.reshape(2, 3, 1))
    assert torch.equal(estimator(Observation(obs.y[0], None, obs.noise_var)).x, plain.x[0])
    assert plain.x.dtype == x.dtype == torch.float32
    assert estimator(_flat(obs)).x.dtype == torch.float64


def test_each_draw_may_have_its_own_noise():
    problem = Tone(snr_db=(0.0, 30.0))
    x, obs = problem.sample(300, rng(7))
    estimate = MaximumLikelihood.of(problem)(obs)
    assert torch.allclose(estimate.var.double(), 6 * obs.noise_var.double() / (25 * 624), rtol=0.9)
    assert ((estimate.x - x).square() / estimate.var).median() < 1  # of a chi-square variable it is 0.45


def test_what_cannot_be_searched_is_refused():
    with pytest.raises(ValueError, match="MaximumLikelihood needs `log_likelihood`; object has none"):
        MaximumLikelihood.of(object())
    with pytest.raises(ValueError, match="no limits for x0, x1"):
        MaximumLikelihood.of(LinearGaussian())
    with pytest.raises(ValueError, match="at least two points"):
        MaximumLikelihood.of(Tone(), grid=1)
    hidden = Tone(snr_db=(0.0, 10.0), show_noise=False)
    with pytest.raises(ValueError, match="each draw has its own noise_var"):
        MaximumLikelihood.of(hidden)(hidden.sample(2, rng(8))[1])
    with pytest.warns(UserWarning, match="y tells nothing"):
        silence = MaximumLikelihood.of(Tone())(Observation(torch.zeros(1, 25, dtype=torch.complex64)))
    assert math.isinf(silence.var.item())
    assert math.isnan(silence.x.item())
