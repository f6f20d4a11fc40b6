"""Direction of arrival: draws, prior, likelihood and posterior agree with each other and with closed forms."""

import math

import pytest
import torch

from fanfold.bounds import gaussian_fisher
from fanfold.core.units import from_db, power
from fanfold.observation import Observation
from fanfold.problems import DirectionOfArrival

EPS = torch.finfo(torch.float64).eps
each_prior = pytest.mark.parametrize("angles", ["uniform", "smooth"])
each_count = pytest.mark.parametrize("sources", [1, 2, 3])
each_model = pytest.mark.parametrize("signals", ["stochastic", "deterministic"])


def exact(obs: Observation) -> Observation:
    """In double precision."""
    return Observation(obs.y.to(torch.complex128), None, obs.noise_var)


def score(problem: DirectionOfArrival, x: torch.Tensor, obs: Observation) -> torch.Tensor:
    x = x.double().requires_grad_()
    return torch.autograd.grad(problem.log_likelihood(x, exact(obs)).sum(), x)[0]


def fisher(problem: DirectionOfArrival, x: torch.Tensor) -> torch.Tensor:
    return gaussian_fisher(x, problem.mean, problem.covariance)


@each_prior
@each_count
def test_angles_rise_apart_within_the_sector(sources, angles, generator):
    p = DirectionOfArrival(sources=sources, angles=angles)
    x, _ = p.sample(5000, generator)
    assert x.abs().max() <= p.limit
    assert p.directions(x).abs().max() <= math.radians(60) * (1 + 1e-6)  # single precision
    assert sources == 1 or x.diff(dim=-1).min() > p.gap * (1 - 1e-6)
    # the first gap is Beta(a, K a) of the room: mean 1 / (K + 1), variance K / (K + 1)² / ((K + 1) a + 1)
    gap, K = (x[:, 0] + p.limit).double() / p.room, sources
    a = 1 if angles == "uniform" else 5
    spread = math.sqrt(K / ((K + 1) * a + 1)) / (K + 1)
    assert abs(gap.mean().item() - 1 / (K + 1)) < 5 * spread / 5000**0.5
    # kurtosis of a Beta is below 9 here: the deviation of a variance is below √(8 / samples) of it
    assert abs(gap.var().item() / spread**2 - 1) < 5 * (8 / 5000) ** 0.5


@each_prior
@pytest.mark.parametrize("sources", [1, 2])
def test_prior_is_a_density(sources, angles):
    p = DirectionOfArrival(sources=sources, angles=angles, separation=0.5)
    points = 2000 if sources == 2 else 20_000
    x = 3 * (2 * (torch.arange(points, dtype=torch.float64) + 0.5) / points - 1)
    x = torch.stack(torch.meshgrid(*[x] * sources, indexing="ij"), -1)
    mass = p.log_prior(x).exp().sum().item() * (6 / points) ** sources
    # a jump along an edge of the support of length s costs half a step of it at most: s h / 2 of s² / 2, three edges
    slack = 3 * (6 / points) / p.room if angles == "uniform" else 1e-6
    assert mass == pytest.approx(1, abs=slack)


def test_smooth_prior_of_one_source_is_a_beta():
    p = DirectionOfArrival(angles="smooth")
    x = torch.linspace(-p.limit, p.limit, 51, dtype=torch.float64)[1:-1]
    wanted = torch.distributions.Beta(torch.tensor(5.0).double(), 5.0).log_prob((x + p.limit) / (2 * p.limit))
    got = p.log_prior(x.unsqueeze(-1))
    assert (got - wanted + math.log(2 * p.limit)).abs().max() < 100 * EPS * wanted.abs().max()
    assert p.log_prior(torch.tensor([p.limit + 0.01])) == -math.inf


def test_angles_out_of_order_or_too_close_are_impossible():
    p = DirectionOfArrival(sources=2, separation=0.5)
    bad = torch.tensor([[1.0, 0.0], [0.0, 0.4], [-3.0, 0.0]])
    assert (p.log_prior(bad) == -math.inf).all()
    assert torch.isfinite(p.log_prior(torch.tensor([0.0, 0.6])))


def test_each_source_has_its_snr(generator):
    p = DirectionOfArrival(sources=2, snr_db=(10.0, 4.0), signals="deterministic", snapshots=20)
    x, obs = p.sample_all(2000, generator)
    S = p._split(x)[1]
    W = obs.y - p.mean(x)
    assert p.powers.tolist() == pytest.approx([1, from_db(-6)])
    assert p.noise_var == pytest.approx(0.1)
    seen = power(S).double().mean((0, 2)) / power(W).double().mean()
    # mean of 40,000 and of 400,000 exponential variables
    assert ((seen / torch.tensor([from_db(10), from_db(4)]) - 1).abs() < 5 * (1.1 / 40_000) ** 0.5).all()


def test_models_of_the_signals_share_their_draws():
    stochastic = DirectionOfArrival(sources=2)
    x, obs = stochastic.sample(7, torch.Generator().manual_seed(5))
    other, seen = stochastic.shifted(signals="deterministic").sample(7, torch.Generator().manual_seed(5))
    assert torch.equal(x, other)
    assert torch.equal(obs.y, seen.y)


@each_model
@each_count
def test_likelihood_is_that_of_its_mean_and_covariance(sources, signals, generator):
    p = DirectionOfArrival(sensors=4, snapshots=3, sources=sources, snr_db=6.0, signals=signals, separation=0.3)
    x, obs = p.sample_all(20, generator)
    x, obs = x.double(), exact(obs)
    C, r = p.covariance(x), obs.y - p.mean(x)
    misfit = (r.conj() * torch.linalg.solve(C, r)).sum(-1).real
    wanted = -misfit - torch.linalg.slogdet(C).logabsdet - 12 * math.log(math.pi)
    condition = torch.linalg.cond(C).max().item()
    assert (p.log_likelihood(x, obs) - wanted).abs().max() < 12 * condition * EPS * wanted.abs().max()


@each_model
def test_score_has_zero_mean_and_the_fisher_information_as_covariance(signals, generator):
    p = DirectionOfArrival(sensors=4, snapshots=2, sources=2, snr_db=(6.0, 3.0), signals=signals, separation=0.9)
    x, _ = p.sample_all(1, generator)
    draws = 20_000
    if signals == "deterministic":
        y = p.mean(x) + p.noise_var**0.5 * torch.randn(draws, 8, dtype=torch.complex64, generator=generator)
    else:
        S = p.powers.float().sqrt()[:, None] * torch.randn(draws, 2, 2, dtype=torch.complex64, generator=generator)
        y = (p.steering(x) @ S).flatten(-2)
        y = y + p.noise_var**0.5 * torch.randn(draws, 8, dtype=torch.complex64, generator=generator)
    s = score(p, x.expand(draws, -1), Observation(y))
    J = fisher(p, x[0].double())
    white = s @ torch.linalg.inv(torch.linalg.cholesky(J)).mT
    n = s.shape[-1]
    assert white.mean(0).abs().max() < 5 / draws**0.5  # entries of unit variance
    # entries of a covariance of unit variables; the kurtosis of the score is below 9
    assert (white.mT @ white / draws - torch.eye(n)).abs().max() < 5 * (9 / draws) ** 0.5


def test_bound_of_one_source_is_the_closed_form():
    """Stoica & Nehorai (1990), eqs. 2.10 and 2.13 for one source on a uniform array."""
    M, N = 6, 5
    for snr_db in (-10.0, 0.0, 25.0):
        p = DirectionOfArrival(sensors=M, snapshots=N, snr_db=snr_db)
        rho = from_db(snr_db)
        wanted = 6 / (N * rho * M * (M**2 - 1)) * (1 + 1 / (M * rho))
        found = 1 / fisher(p, torch.tensor([0.4]).double())
        assert found.item() == pytest.approx(wanted, rel=1e-9)
        d = p.shifted(signals="deterministic")
        x, _ = d.sample_all(1, torch.Generator().manual_seed(3))
        energy = power(d._split(x.double())[1]).sum().item()
        found = torch.linalg.inv(fisher(d, x[0].double()))[0, 0].item()
        assert found == pytest.approx(6 / (rho * energy * M * (M**2 - 1)), rel=1e-9)


@each_prior
def test_posterior_is_prior_times_likelihood(angles, generator):
    for snr_db in (-15.0, 0.0, 20.0):
        p = DirectionOfArrival(sensors=5, snapshots=4, snr_db=snr_db, angles=angles)
        _, obs = p.sample(10, generator)
        grid = p.limit * (2 * (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 - 1)
        each = exact(Observation(obs.y.unsqueeze(1), None, obs.noise_var))
        weight = torch.softmax(p.log_likelihood(grid[:, None], each) + p.log_prior(grid[:, None]), -1)
        mean = weight @ grid
        var = (weight * (grid - mean[:, None]).square()).sum(-1)
        got = p.posterior(exact(obs))
        assert got.var is not None
        # 1e-6 of the mass by quadrature; the grid at 20 dB errs by (step / width)² / 24 = 1e-5 if an edge cuts a peak
        assert (got.x[:, 0] - mean).abs().max() < 1e-5
        assert (got.var[:, 0] / var - 1).abs().max() < 1e-4


@each_prior
def test_posterior_variance_is_the_error(angles, generator):
    p = DirectionOfArrival(snr_db=-8.0, angles=angles)
    x, obs = p.sample(4000, generator)
    e = p.posterior(obs)
    assert e.var is not None
    excess = ((e.x - x).square() - e.var).double()
    assert abs(excess.mean().item()) < 5 * excess.std().item() / 4000**0.5


def test_posterior_takes_any_batch(generator):
    p = DirectionOfArrival()
    _, obs = p.sample(6, generator)
    whole = p.posterior(obs).x
    assert p.posterior(obs[2:3]).x[0, 0].item() == pytest.approx(whole[2, 0].item(), abs=1e-6)  # single precision
    assert p.posterior(Observation(obs.y[2])).x.shape == (1,)
    assert torch.equal(p.posterior(Observation(obs.y.reshape(2, 3, -1))).x.flatten(), whole.flatten())


@each_model
@each_count
def test_search_starts_from_possible_angles_and_profiles_their_signals(sources, signals, generator):
    p = DirectionOfArrival(sources=sources, signals=signals, snapshots=3)
    start = p.grid()
    assert torch.isfinite(p.shifted(signals="stochastic").log_prior(start[:, :sources])).all()
    assert len(p.limits) == len(p.periodic) == len(p.names) == start.shape[-1]
    x, obs = p.sample_all(4, generator)
    x, obs = x.double(), exact(obs)
    if signals == "deterministic":
        best = p.profile(x, obs)
        assert torch.equal(best[:, :sources], x[:, :sources])
        assert (p.log_likelihood(best, obs) > p.log_likelihood(x, obs)).all()
        assert score(p, best, obs)[:, sources:].abs().max() < 1e-9  # the gradient by the signals, of order 10, is zero


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"sources": 4}, "1 to 3"),
        ({"sources": 3, "sensors": 3}, "more sensors"),
        ({"snapshots": 0}, "at least one snapshot"),
        ({"angles": "flat"}, "take uniform or smooth"),
        ({"signals": "random"}, "take stochastic"),
        ({"sources": 2, "snr_db": (1.0, 2.0, 3.0)}, "one for all, or 2"),
        ({"spacing": 0.7}, "smaller spacing"),
        ({"sector": 0.0}, "smaller spacing or sector"),
        ({"sources": 3, "separation": 3.0}, "no room"),
    ],
)
def test_what_cannot_be_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        DirectionOfArrival(**wrong)


def test_posterior_of_several_sources_is_refused(generator):
    p = DirectionOfArrival(sources=2)
    with pytest.raises(ValueError, match="sources=1"):
        p.posterior(p.sample(2, generator)[1])
