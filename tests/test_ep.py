"""Expectation propagation as OAMP with a variance for each entry; its detector is under test with MIMO detection."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import EP, FISTA, OAMP
from fanfold.core.units import nmse_db, power
from fanfold.linops import Dense
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, RFImaging
from fanfold.problems.draws import draw

POINTS = BernoulliGaussian(0.1)


def test_a_kronecker_product_is_treated_as_its_matrix():
    on = RFImaging("steering", (8, 6), (6, 5), dtype="complex128")
    x, obs = draw(on, 5, 0, 2, 0)
    dense = Observation(obs.y, Dense(obs.A.matrix()), obs.noise_var)
    for improper in ("keep", "forget"):
        ep = EP(POINTS, damping=1.0, improper=improper)
        torch.testing.assert_close(
            ff.iterate(ep, 4)(obs).x, ff.iterate(ep, 4)(dense).x, rtol=1e-6, atol=1e-6 * x.abs().max()
        )


def test_it_meets_oamp_where_oamp_is_optimal():
    """On an iid matrix cavities differ by little: both end at the Bayes error."""
    on = CompressedSensing(n=200, m=100, sparsity=0.1, snr_db=30, seed=0)
    x, obs = draw(on, 100, 0, 2, 0)
    ours = nmse_db(ff.iterate(EP(POINTS, damping=1.0), 12)(obs).x, x)
    assert ours == pytest.approx(nmse_db(ff.iterate(OAMP(POINTS), 20)(obs).x, x), abs=0.5)


def test_neighbouring_directions_are_told_apart_where_others_fail():
    """In the median over scenes, 5 dB past what an l1 penalty and one variance for all reach, prior known or not."""
    on = RFImaging("steering", (16, 16), (12, 12), seed=0)
    x, obs = draw(on, 60, 0, 2, 0)

    def median(estimate):
        return (10 * torch.log10(power(estimate.x - x).sum(-1) / power(x).sum(-1))).median().item()

    told = median(ff.iterate(EP(POINTS, damping=1.0, improper="forget"), 10)(obs))
    wrong = median(ff.iterate(EP(BernoulliGaussian(0.3), damping=0.95, improper="forget", noise="estimated"), 12)(obs))
    assert told < median(ff.iterate(FISTA(0.01), 300)(obs)) - 5
    assert told < median(ff.iterate(OAMP(POINTS, damping=0.7), 30)(obs)) - 5
    assert wrong == pytest.approx(told, abs=0.5)


def test_the_noise_variance_is_found():
    """A median of 60 means of 144 squares, some of them spent on 26 points, errs by some 5 %."""
    on = RFImaging("gaussian", (16, 16), (12, 12), seed=0, snr_db=20)
    _, obs = draw(on, 60, 0, 2, 0)
    ep, theta = EP(POINTS, damping=1.0, noise="estimated"), None
    s = ep.start(obs)
    for _ in range(20):
        theta = ep.nominal_theta(obs) if theta is None else theta
        s = ep.step(s, obs, theta)
    assert s.noise_var.median().item() == pytest.approx(on.noise_var, rel=0.15)


def test_variances_are_honest():
    """Their mean is the mean squared error, within a factor of 1.3: 60 scenes with 26 points each leave 5 %."""
    on = RFImaging("gaussian", (16, 16), (12, 12), seed=0)
    x, obs = draw(on, 60, 0, 2, 0)
    found = ff.iterate(EP(POINTS, damping=1.0), 12)(obs)
    error = power(found.x - x).mean(-1).median() / found.var.mean(-1).median()
    assert 1 / 1.3 < error < 1.3


@pytest.mark.parametrize("setting", [{"noise": "known"}, {"improper": "mend"}, {"damping": 0.0}, {"widest": -1.0}])
def test_settings_that_are_none_are_refused(setting):
    with pytest.raises(ValueError, match=next(iter(setting))):
        EP(**setting)


def test_batches_too_large_for_memory_are_taken_in_parts(monkeypatch):
    """The same numbers, with one sample at a time and with all at once."""
    on = RFImaging("steering", (8, 6), (6, 5), dtype="complex128")
    _, obs = draw(on, 7, 0, 2, 0)
    ep = EP(POINTS, damping=1.0, noise="estimated")
    whole = ff.iterate(ep, 3)(obs)
    monkeypatch.setattr("fanfold.algorithms.ep.MAX_MATRIX_ENTRIES", 2 * on.A.m**2)
    parts = ff.iterate(ep, 3)(obs)
    torch.testing.assert_close(parts.x, whole.x)
    torch.testing.assert_close(parts.var, whole.var)
