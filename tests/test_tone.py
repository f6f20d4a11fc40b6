"""One source at an unknown place: draws, densities and the exact posteriors of a tone's frequency and a delay."""

import math

import pytest
import torch

from fanfold.bounds import cramer_rao, gaussian_fisher, van_trees
from fanfold.core.units import power
from fanfold.observation import Observation
from fanfold.priors.base import gaussian_log_prob
from fanfold.problems import TimeDelay, Tone
from fanfold.problems.gaussian.quadrature import posterior_moments

PROBLEMS = [
    Tone(),
    Tone(gain="rayleigh", density="raised-cosine", n=12),
    Tone(gain="known"),
    TimeDelay(),
    TimeDelay(gain="phase", density="raised-cosine"),
    TimeDelay(gain="rayleigh", n=40, first=-4.0, last=7.0, rolloff=0.0),
]
each_problem = pytest.mark.parametrize("problem", PROBLEMS, ids=lambda p: f"{type(p).__name__}-{p.gain}")


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def double(obs: Observation) -> Observation:
    y = obs.y.to(torch.complex128 if obs.y.is_complex() else torch.float64)
    return Observation(y, None, obs.noise_var.double())


def at(problem, places: torch.Tensor, phase: float = 0.0, amplitude: float = 1.0) -> torch.Tensor:
    """All parameters."""
    rest = [torch.full_like(places, phase), torch.full_like(places, amplitude)]
    return torch.stack([places, *rest][: len(problem.names)], -1)


# Draws


@each_problem
def test_the_noise_has_the_power_asked_for_and_the_signal_one_for_each_entry(problem):
    x, obs = problem.shifted(snr_db=3.0).sample_all(2000, rng(0))
    signal = problem.mean(x)
    noise = power(obs.y - signal).mean().item()
    # a mean of squares of real normal entries deviates by √(2 / count) of itself
    assert abs(noise * 10**0.3 - 1) < 5 * (2 / obs.y.numel()) ** 0.5
    energies = power(problem.waveform(x[:, 0])).sum(-1)
    m = obs.y.shape[-1]
    assert torch.allclose(energies, torch.full_like(energies, m), rtol=1e-4)  # phases up to 60 in single precision
    if problem.gain == "rayleigh":
        assert abs(power(signal).sum(-1).mean().item() / m - 1) < 5 / 2000**0.5  # E a⁴ - 1 = 1
    assert torch.equal(problem.sample(5, rng(1))[0], problem.sample_all(5, rng(1))[0][:, :1])


@each_problem
def test_places_are_drawn_from_the_prior(problem):
    count = 20_000
    x, _ = problem.sample_all(count, rng(2))
    low, high = problem.window
    u = (2 * x[:, 0] - low - high) / (high - low)
    var = 1 / 3 if problem.density == "uniform" else 1 / 3 - 2 / math.pi**2
    assert u.abs().max() <= 1 + 1e-6
    assert abs(u.mean().item()) < 5 * (var / count) ** 0.5
    assert abs(u.square().mean().item() - var) < 5 * (0.09 / count) ** 0.5  # Var u² is 4 / 45 at most
    assert torch.isfinite(problem.log_prior(x)).all()


@each_problem
def test_the_prior_is_a_density(problem):
    low, high = problem.window
    places = torch.linspace(low, high, 4001, dtype=torch.float64)
    amplitudes = torch.linspace(0, 7, 4001, dtype=torch.float64)
    mass = torch.trapezoid(problem.log_prior(at(problem, places)).exp(), places)
    if len(problem.names) > 1:
        mass = mass * 2 * math.pi
    if len(problem.names) > 2:
        x = at(problem, torch.full_like(amplitudes, (low + high) / 2))
        x[:, 2] = amplitudes
        p = problem.log_prior(x).exp()
        mass = mass * torch.trapezoid(p, amplitudes) / problem.log_prior(at(problem, x[:1, 0])).exp().item()
    # the trapezoidal rule in 4000 steps, of smooth functions
    assert mass.item() == pytest.approx(1.0, abs=1e-5)
    outside = torch.tensor([low - 1e-6, high + 1e-6], dtype=torch.float64)
    assert (problem.log_prior(at(problem, outside)) == -math.inf).all()


@each_problem
def test_the_likelihood_is_that_of_gaussian_noise(problem):
    x, obs = problem.sample_all(10, rng(3))
    expected = gaussian_log_prob(obs.y - problem.mean(x), problem.noise_var).sum(-1)
    assert torch.allclose(problem.log_likelihood(x, obs), expected, rtol=1e-5)
    told = problem.log_likelihood(x, Observation(obs.y))  # one noise variance for all draws is known anyhow
    assert torch.allclose(told, expected, rtol=1e-5)


def test_a_range_of_snr_gives_each_draw_its_own():
    problem = Tone(snr_db=(-10.0, 30.0))
    _, obs = problem.sample(5000, rng(4))
    snr_db = -10 * torch.log10(obs.noise_var)
    assert obs.noise_var.shape == (5000, 1)
    assert snr_db.min() >= -10.001
    assert snr_db.max() <= 30.001
    assert abs(snr_db.mean().item() - 10) < 5 * 40 / (12 * 5000) ** 0.5
    assert problem.shifted(show_noise=False).sample(2, rng(4))[1].noise_var is None
    with pytest.raises(ValueError, match="each draw has its own noise_var"):
        _ = problem.noise_var


# Shapes


@each_problem
def test_no_posterior_is_sharper_than_is_said(problem):
    problem = problem.shifted(snr_db=(-5.0, 30.0))
    _, obs = problem.sample(20, rng(9))
    y, var = problem._flat(obs)
    places = torch.linspace(*problem.window, 4001, dtype=torch.float64)
    logs = problem._log_marginal(y @ problem.waveform(places).to(y.dtype).mH, var[:, None], y.shape[-1])
    second = logs.diff(n=2, dim=-1) / (places[1] - places[0]).square()  # a mean of the second derivative nearby
    share = (-second).amax(-1) / problem._sharpness(y, var)
    assert share.max() < 1
    assert share.max() > 0.4  # Cauchy and Schwarz give away a quarter for a strong tone, more where there is noise


def test_bandwidth_and_the_bound_of_a_tone_are_what_derivatives_say():
    pulse, tone = TimeDelay(), Tone(snr_db=10.0)
    slope = torch.autograd.functional.jacobian(pulse.waveform, torch.tensor(20.3, dtype=torch.float64))
    assert slope.square().sum().item() / pulse.n == pytest.approx(pulse.mean_square_bandwidth, rel=1e-12)
    x = torch.tensor([0.4, 1.1], dtype=torch.float64)
    J = torch.autograd.functional.jacobian(lambda v: torch.view_as_real(tone.mean(v)).flatten(), x)
    fisher = 2 * J.mT @ J / tone.noise_var
    # Rife & Boorstyn (1974), eq. 26
    assert fisher.inverse()[0, 0].item() == pytest.approx(6 / (10 * 25 * (25**2 - 1)), rel=1e-12)


@pytest.mark.parametrize(
    "problem", [Tone(snr_db=-30.0), TimeDelay(snr_db=-30.0), TimeDelay(snr_db=-30.0, gain="phase")]
)
def test_a_raised_cosine_is_worth_pi_squared_over_half_its_width_squared(problem):
    smooth = problem.shifted(density="raised-cosine")
    low, high = problem.window
    x = problem.grid(3)[1]
    crb = cramer_rao(gaussian_fisher(x, problem.mean, noise_var=problem.noise_var), problem.names, (0,)).item()
    bound = van_trees(smooth, samples=60)
    # ∫ p'² / p of (1 + cos pi u) / 2 on (-1, 1) is pi², and the data's information is the same everywhere
    u = torch.linspace(-1, 1, 20_001, dtype=torch.float64)[1:-1].requires_grad_()
    log_p = smooth.log_prior(at(smooth, (low + high) / 2 + (high - low) / 2 * u))
    (score,) = torch.autograd.grad(log_p.sum(), u)
    information = torch.trapezoid(score.square() * log_p.exp() / log_p.exp().sum() * 10_000, u).item()
    assert information == pytest.approx(math.pi**2, rel=1e-3)  # the ends are left out, 1e-4 of the interval
    assert bound.mse.item() == pytest.approx(1 / (1 / crb + information * (2 / (high - low)) ** 2), rel=1e-3)


# Posteriors


def brute(problem, obs: Observation, points: int = 20_001) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and variance by the trapezoidal rule."""
    low, high = problem.window
    places = torch.linspace(low, high, points, dtype=torch.float64)
    c = obs.y @ problem.waveform(places).to(obs.y.dtype).mH
    logs = problem._log_marginal(c, obs.noise_var.double(), obs.y.shape[-1]) + problem.log_prior(at(problem, places))
    p = torch.softmax(logs, -1)
    p[:, [0, -1]] /= 2
    p = p / p.sum(-1, keepdim=True)
    mean = p @ places
    return mean, (p * (places - mean[:, None]).square()).sum(-1)


@each_problem
@pytest.mark.parametrize("snr_db", [-10.0, 3.0, 30.0])
def test_the_posterior_is_that_of_a_grid_of_twenty_thousand(problem, snr_db):
    problem = problem.shifted(snr_db=snr_db)
    _, obs = problem.sample(5, rng(5))
    obs = double(obs)
    estimate, (mean, var) = problem.posterior(obs), brute(problem, obs)
    # the step h is at most a quarter of a standard deviation: the trapezoidal rule errs by its ends alone, where the
    # density may end abruptly, by h² p' / 12: less than 1e-6 deviations
    assert ((estimate.x[:, 0] - mean).abs() / var.sqrt()).max() < 1e-6
    assert (estimate.var[:, 0] / var - 1).abs().max() < 1e-6


@each_problem
def test_the_gain_is_integrated_out(problem):
    problem = problem.shifted(snr_db=0.0)
    _, obs = problem.sample(1, rng(6))
    obs = double(obs)
    places = torch.linspace(*problem.window, 7, dtype=torch.float64)[1:-1]
    phases = 2 * math.pi * (torch.arange(120, dtype=torch.float64) / 120) - math.pi
    amplitudes = torch.linspace(0, 3, 181, dtype=torch.float64)
    x = torch.cartesian_prod(*[places, phases, amplitudes][: len(problem.names)]).reshape(-1, len(problem.names))
    logs = problem.log_likelihood(x, obs) + problem.log_prior(x)
    if len(problem.names) > 2:  # Simpson's rule; the density is zero at both ends
        simpson = torch.tensor([4.0, 2.0], dtype=torch.float64).repeat(90).log()
        logs[x[:, 2] > 0] += simpson.repeat(len(places) * len(phases))
    by_hand = logs.reshape(len(places), -1).logsumexp(-1)
    c = (problem.waveform(places).conj() * obs.y).sum(-1)
    formula = problem._log_marginal(c, obs.noise_var, obs.y.shape[-1]) + problem.log_prior(at(problem, places))
    difference = by_hand - formula
    # phases are periodic and their sum exact; with p ~ a exp(-41 a²) at least, Simpson's rule in steps of h = 1 / 60
    # errs by h⁴ / 180 times the third derivative at zero, 250: 1e-5 of the integral, 1 / 82
    assert (difference - difference.mean()).abs().max() < 2e-5


@each_problem
def test_the_posterior_knows_its_own_error(problem):
    problem, count = problem.shifted(snr_db=3.0), 800
    x, obs = problem.sample(count, rng(7))
    estimate = problem.posterior(obs)
    excess = (estimate.x - x).double().square() - estimate.var.double()
    assert abs(excess.mean().item()) < 4 * excess.std().item() / count**0.5
    assert estimate.x.shape == x.shape
    assert estimate.x.dtype == estimate.var.dtype == torch.float32


def test_halving_cells_finds_a_peak_a_millionth_as_wide_as_the_interval():
    centre = torch.tensor([0.123456, -1.9, 0.7], dtype=torch.float64)
    sd = torch.tensor([2e-6, 1e-3, 0.4], dtype=torch.float64)

    def log_density(points, rows):
        where, width = (centre[:, None], sd[:, None]) if rows is None else (centre[rows, None], sd[rows, None])
        return -0.5 * ((points - where) / width).square()

    mean, var = posterior_moments(log_density, -8.0, 8.0, sd**-2, 64)
    # eight nodes in four standard deviations, and what is 32 nats below the top is left out
    assert ((mean - centre).abs() / sd).max() < 1e-6
    assert (var / sd.square() - 1).abs().max() < 1e-6


def test_batch_axes_and_noise_of_each_draw():
    problem = Tone(snr_db=(0.0, 20.0))
    _, obs = problem.sample(6, rng(8))
    plain = problem.posterior(obs)
    shaped = problem.posterior(Observation(obs.y.reshape(2, 3, -1), None, obs.noise_var.reshape(2, 3, 1)))
    assert torch.equal(shaped.x, plain.x.reshape(2, 3, 1))
    alone = problem.posterior(Observation(obs.y[4], None, obs.noise_var[4]))
    # sums of samples alone and in a batch round differently
    assert torch.allclose(alone.x, plain.x[4], rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Tone(n=1), "at least 2 samples"),
        (lambda: Tone(limit=4.0), "a limit up to pi"),
        (lambda: Tone(snr_db=(3.0, -3.0)), "a range"),
        (lambda: Tone(snr_db=math.inf), "finite"),
        (lambda: Tone(gain="none"), "known, phase or rayleigh"),
        (lambda: Tone(density="beta"), "uniform or raised-cosine"),
        (lambda: Tone(estimate=("amplitude",)), "name some of frequency, phase"),
        (lambda: TimeDelay(bandwidth=0.4), "half a cycle a sample"),
        (lambda: TimeDelay(first=5.0, last=5.0), "first < last"),
        (lambda: Tone(estimate=("phase",)).posterior(Tone().sample(1, rng(0))[1]), "estimate frequency alone"),
    ],
)
def test_what_cannot_be_is_refused(make, said):
    with pytest.raises(ValueError, match=said):
        make()
