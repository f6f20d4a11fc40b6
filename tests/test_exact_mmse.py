"""The MMSE by quadrature and by sampling is that of closed forms; too few effective samples give no answer."""

import pytest
import torch

from fanfold.bounds import exact_mmse
from fanfold.priors import BernoulliGaussian, Laplace, Uniform
from fanfold.problems import Denoising, DirectionOfArrival, LinearGaussian, MixtureSignal, Modulation, Tone


def closed_form(problem, samples: int) -> torch.Tensor:
    """The mean of known posterior variances over the same observations."""
    _, obs = problem.sample_all(samples, torch.Generator().manual_seed(0))
    var = problem.posterior(obs).var
    return var.double().reshape(samples, -1).mean(0)


@pytest.mark.parametrize(
    "problem",
    [
        *(Denoising(Uniform(), snr_db=s) for s in (-20, 10, 40)),
        Denoising(Uniform(2, 5), snr_db=10),
        Denoising(Laplace()),
        LinearGaussian(n=1, m=3),
        Tone(gain="known", n=10, snr_db=0),
        Tone(gain="known", n=10, snr_db=30),
        DirectionOfArrival(sensors=5, snapshots=4, snr_db=0),
    ],
    ids=lambda p: f"{type(p).__name__}-{p.snr_db}",
)
def test_quadrature_of_one_parameter_is_the_closed_form(problem):
    found = exact_mmse(problem, samples=100)
    known = closed_form(problem, 100)
    error = (found.mse - known).abs()
    assert (error <= found.numerical_error + 1e-5 * known).all()  # of single precision
    assert (found.numerical_error < 1e-3 * known).all()
    assert found.effective_samples == float("inf")


@pytest.mark.parametrize("problem", [LinearGaussian(n=2, m=3), Tone(n=5, snr_db=5)], ids=["linear", "tone with phase"])
def test_quadrature_of_two_parameters_integrates_the_nuisance_out(problem):
    found, known = exact_mmse(problem, samples=20, method="quadrature"), closed_form(problem, 20)
    assert len(found.names) == len(problem.wanted)
    assert ((found.mse - known).abs() <= 2 * found.numerical_error + 1e-5 * known).all()


@pytest.mark.parametrize(
    "problem",
    [
        LinearGaussian(),
        LinearGaussian(n=20, m=20, snr_db=10),
        MixtureSignal(),
        Denoising(BernoulliGaussian()),
        Denoising(Uniform(), snr_db=10),
        Denoising(Laplace(), n=2),
    ],
    ids=lambda p: f"{type(p).__name__}-{p.n}-{p.snr_db}",
)
def test_importance_samples_agree_with_the_closed_form_in_any_dimension(problem):
    found, known = exact_mmse(problem, samples=100, method="importance"), closed_form(problem, 100)
    assert found.effective_samples > 100
    # each variance from N effective samples of kurtosis below 15 errs by √(14 / N), the mean of a hundred, unequal as
    # they are, by a fifth of that at most
    assert ((found.mse - known).abs() / known).max() < 4 * 0.2 * (14 / found.effective_samples) ** 0.5


def test_the_standard_error_is_that_of_means_over_observations():
    problem = Denoising(Laplace())
    runs = [exact_mmse(problem, samples=200, seed=seed) for seed in range(30)]
    spread = torch.stack([run.mse for run in runs]).std().item()
    told = torch.stack([run.standard_error for run in runs]).mean().item()
    assert spread == pytest.approx(told, rel=0.5)  # a standard deviation of thirty errs by 13 %, four of them


@pytest.mark.parametrize(
    ("problem", "settings", "message"),
    [
        (Tone(), {"samples": 20}, "samples are effective.*more particles"),
        (LinearGaussian(), {"method": "quadrature"}, "10 parameters.*importance"),
        (Denoising(BernoulliGaussian()), {}, "x0 has atoms.*importance"),
        (LinearGaussian(), {"method": "guess"}, "take quadrature, importance or None"),
        (Modulation(), {}, "learned_bound"),
    ],
    ids=["few", "many", "atoms", "method", "simulator"],
)
def test_what_it_cannot_integrate_is_refused(problem, settings, message):
    with pytest.raises(ValueError, match=message):
        exact_mmse(problem, **settings)
