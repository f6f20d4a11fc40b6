"""Van Trees' bound: exact where the posterior is Gaussian, below the MMSE everywhere, refused where it says nothing."""

import math

import pytest
import torch

from fanfold.bounds import van_trees
from fanfold.priors import BernoulliGaussian, Gaussian, GaussianMixture, Laplace, Uniform
from fanfold.problems import (
    CompressedSensing,
    Denoising,
    DirectionOfArrival,
    LinearGaussian,
    MixtureSignal,
    Modulation,
    TimeDelay,
    Tone,
)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_peaks(noise_var: float) -> Denoising:
    prior = GaussianMixture((0.5, 0.5), (-1.0, 1.0), (0.01, 0.01))
    return Denoising(prior, snr_db=10 * torch.tensor(prior.power / noise_var).log10().item())


def mmse(problem, draws: int = 50_000) -> torch.Tensor:
    _, obs = problem.sample(draws, rng(1))
    return problem.posterior(obs).var.double().mean(0)


@pytest.mark.parametrize("problem", [LinearGaussian(), LinearGaussian(n=2, m=5, snr_db=7)], ids=["square", "tall"])
def test_it_is_the_mmse_of_a_linear_gaussian_model(problem):
    bound = van_trees(problem)
    exact = problem.posterior(problem.sample(1, rng(0))[1]).var[0].double()
    assert torch.allclose(bound.mse, exact, rtol=1e-6)  # of single precision
    assert bound.relative_error < 1e-9
    assert torch.allclose(bound.prior_information, torch.eye(problem.n, dtype=torch.float64))


@pytest.mark.parametrize(
    "problem",
    [
        MixtureSignal(),
        Denoising(Laplace(), snr_db=0),
        Denoising(Gaussian(2.0)),
        two_peaks(0.3),
        Tone(density="raised-cosine", snr_db=-5),
        Tone(density="raised-cosine", snr_db=10),
        TimeDelay(density="raised-cosine", snr_db=5),
        DirectionOfArrival(angles="smooth", snr_db=0),
    ],
    ids=lambda p: f"{type(p).__name__}-{getattr(p, 'snr_db', '')}",
)
def test_it_never_exceeds_the_mmse(problem):
    bound, least = van_trees(problem), mmse(problem, 10_000)
    assert (bound.mse <= least * (1 + 5 * bound.relative_error) + 5 * least / 10_000**0.5).all()
    assert (bound.mse > 0).all()


@pytest.mark.parametrize(("noise_var", "ratio"), [(1.0, 45.8), (0.1, 1.36), (0.01, 1.00)])
def test_it_is_loose_where_the_prior_has_narrow_peaks(noise_var, ratio):
    problem = two_peaks(noise_var)
    bound = van_trees(problem, samples=20_000)
    # the second figure is rounded to two places, 0.4 %; variances of 50 000 draws err by 0.5 %
    assert (mmse(problem) / bound.mse).item() == pytest.approx(ratio, rel=0.02)


def test_kinks_are_no_jumps():
    bound = van_trees(Denoising(Laplace(), snr_db=10))
    assert bound.prior_information.item() == pytest.approx(2.0, rel=1e-6)  # of unit variance: 1 / scale²
    assert bound.mse.item() == pytest.approx(1 / 12, rel=1e-6)


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Denoising(BernoulliGaussian()), "x0 has atoms.*bayes_limit"),
        (Denoising(BernoulliGaussian(0.95)), "x0 has atoms.*bayes_limit"),
        (Denoising(BernoulliGaussian(0.99)), "x0 has atoms.*bayes_limit"),
        (Denoising(Uniform()), "density of x0 jumps.*ziv_zakai"),
        (Denoising(Uniform(0, 5), snr_db=30), "density of x0 jumps.*ziv_zakai"),
        (Tone(), "density of frequency jumps.*ziv_zakai"),
        (Tone(estimate=("phase",), density="raised-cosine"), "density of phase jumps"),
        (DirectionOfArrival(), "density of angle0 jumps"),
        (Modulation(), "van_trees needs .*`log_prior`; Modulation has none"),
        (CompressedSensing(), "van_trees needs .*`log_prior`; CompressedSensing has none.*learned_bound"),
    ],
    ids=lambda p: type(p).__name__ if not isinstance(p, str) else "",
)
def test_priors_that_it_does_not_cover_are_refused_with_the_bound_to_use(problem, message):
    with pytest.raises(ValueError, match=message):
        van_trees(problem)


def test_an_exponential_density_jumps_though_its_scores_products_do_not_show_it():
    class Exponential(Denoising):
        def sample(self, n, generator):
            _, obs = super().sample(n, generator)
            x = -torch.log(1 - torch.rand(n, 1, generator=generator))
            return x, obs

        sample_all = sample

        def log_prior(self, x):
            return torch.where(x >= 0, -x, -torch.inf).sum(-1)

    with pytest.raises(ValueError, match="jumps or does not vanish"):
        van_trees(Exponential())


@pytest.mark.parametrize("cut", [1.5, 2.5, 3.0, 4.0])
def test_a_gaussian_that_is_cut_off_jumps_however_little_mass_is_there(cut):
    """At 2.5 deviations and -10 dB what the formula gives is 10 % above the MMSE."""
    lost = 0.5 * math.erfc(cut / math.sqrt(2))

    class Cut(Denoising):
        def sample(self, n, generator):
            u = torch.rand(n, 1, generator=generator, dtype=torch.float64)
            x = torch.special.ndtri(lost + (1 - 2 * lost) * u)
            return x, super().sample(n, generator)[1]

        sample_all = sample

        def log_prior(self, x):
            inside = -0.5 * x.square() - 0.5 * math.log(2 * math.pi) - math.log(1 - 2 * lost)
            return torch.where(x.abs() <= cut, inside, -torch.inf).sum(-1)

    with pytest.raises(ValueError, match="jumps or does not vanish"):
        van_trees(Cut(Gaussian(1.0), snr_db=-10))
