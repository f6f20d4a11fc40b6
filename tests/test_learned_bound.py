"""A bound learned from pairs: exact for Gaussians, in any units, warned of, refused where it says nothing."""

import pytest
import torch

from fanfold.bounds import LearnedBoundWarning, learned_bound, van_trees
from fanfold.priors import BernoulliGaussian, GaussianMixture, Uniform
from fanfold.problems import Denoising, LinearGaussian

LINEAR = LinearGaussian()


def pairs(problem, samples: int, seed: int = 1):
    x, obs = problem.sample(samples, torch.Generator().manual_seed(seed))
    return x, obs.y


def learned(*args, **settings):
    with pytest.warns(LearnedBoundWarning, match="no proof"):
        return learned_bound(*args, **settings)


def test_of_20_000_linear_gaussian_pairs_it_is_within_5_per_cent():
    found, exact = learned(*pairs(LINEAR, 20_000)), van_trees(LINEAR).mse
    assert ((found.mse / exact - 1).abs() < 0.05).all()
    # each end of the interval errs as its middle does; the bootstrap leaves out what learning adds
    assert ((found.low < 1.02 * exact) & (0.98 * exact < found.high)).all()


def test_few_pairs_are_said_to_be_few_and_the_bound_errs_high():
    found, exact = learned(*pairs(LINEAR, 2000), steps=100), van_trees(LINEAR).mse
    assert "These are few" in found.text
    assert "optimistic on few samples" in found.text
    # a resampled mean of 2000 kurtotic squares errs by 3 % for each of ten, their sum by about 1 %
    assert exact.sum() * 0.97 < found.mse.sum() < exact.sum() * 1.15


def test_scores_judged_on_their_own_pairs_are_optimistic():
    ratios = []
    for seed in range(3):
        found = learned(*pairs(LINEAR, 250, seed), steps=0)
        ratios.append((found.naive.sum() / van_trees(LINEAR).mse.sum()).item())
        assert found.naive.sum() < found.mse.sum()
    assert sum(ratios) / 3 < 0.97  # a regression on 10 entries and 125 pairs leaves 1 - 11 / 125 of the error


def test_a_network_makes_the_bound_tighter_where_the_score_is_not_linear():
    problem = Denoising(GaussianMixture((0.5, 0.5), (-1.0, 1.0), (0.2, 0.2)), snr_db=3.0)
    exact = van_trees(problem).mse.item()
    x, y = pairs(problem, 10_000)
    straight, bent = learned(x, y, steps=0).mse.item(), learned(x, y).mse.item()
    assert straight > 1.1 * exact  # the best linear score knows too little, so that its bound is too high
    assert abs(bent / exact - 1) < 0.5 * (straight / exact - 1)


def test_units_of_the_parameters_and_measurements_do_not_matter():
    x, y = pairs(LINEAR, 1000)
    one, other = learned(x, y, steps=20), learned(1e3 * x, 1e-6 * y, steps=20)
    assert torch.allclose(other.mse, 1e6 * one.mse, rtol=1e-3)  # of single precision
    assert torch.allclose(other.information, 1e-6 * one.information, rtol=1e-3, atol=1e-9)


def test_complex_measurements_are_pairs_of_real_ones():
    x, y = pairs(LINEAR, 1000)
    assert torch.equal(learned(x, torch.complex(y[:, ::2], y[:, 1::2]), steps=10).mse, learned(x, y, steps=10).mse)


@pytest.mark.parametrize(
    ("prior", "message"), [(Uniform(), "seems to jump.*ziv_zakai"), (BernoulliGaussian(), "has atoms.*exact_mmse")]
)
def test_priors_that_it_does_not_cover_are_refused(prior, message):
    with pytest.raises(ValueError, match=message):
        learned_bound(*pairs(Denoising(prior), 5000))


def test_a_density_that_falls_smoothly_to_zero_is_covered():
    u = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0))
    triangle = u.sum(-1, keepdim=True)
    assert torch.isfinite(learned(triangle, triangle + u[:, :1], steps=0).mse).all()


def test_bad_pairs_are_refused():
    x, y = pairs(LINEAR, 150)
    with pytest.raises(ValueError, match="too few; pass at least 200"):
        learned_bound(x, y)
    with pytest.raises(ValueError, match="pass real"):
        learned_bound(x[:100], y)
