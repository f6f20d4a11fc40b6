"""OAMP follows state evolution to the Bayes limit, and finds the noise variance by itself."""

import pytest
import torch

import fanfold as ff
from fanfold.bounds.state_evolution import vamp
from fanfold.units import db, nmse_db

ENSEMBLES = [
    {"ensemble": "iid"},
    {"ensemble": "row-orthogonal"},
    {"ensemble": "iid", "dtype": "complex64"},
    {"ensemble": "row-orthogonal", "dtype": "complex64"},
]


@pytest.mark.parametrize("changes", ENSEMBLES, ids=str)
@pytest.mark.parametrize("snr_db", [20, 40])
def test_error_settles_where_state_evolution_says(changes, snr_db):
    """Within 0.5 dB at n = 500, where 200 draws leave 0.1 dB and the size of the matrix the rest."""
    on = ff.problems.CompressedSensing(snr_db=snr_db, **changes)
    x, obs = on.sample(200, torch.Generator().manual_seed(3))
    oamp = ff.algorithms.OAMP(on.prior)
    errors = vamp(on.prior, on.A.svd().s, on.n, on.noise_var, 24, is_complex=x.is_complex())
    assert nmse_db(ff.run(oamp, obs, 24).x, x) == pytest.approx(db(errors[-1] / on.prior.power), abs=0.5)


def test_variance_that_it_carries_is_its_error():
    on = ff.problems.CompressedSensing(snr_db=30)
    x, obs = on.sample(200, torch.Generator().manual_seed(3))
    estimate = ff.run(ff.algorithms.OAMP(on.prior), obs, 24)
    assert estimate.var is not None
    assert estimate.var.mean() == pytest.approx((estimate.x - x).square().mean().item(), rel=0.15)


def test_estimated_noise_costs_little_and_holds_when_the_noise_grows():
    on = ff.problems.CompressedSensing(snr_db=40)
    for shifted in (on, on.shifted(snr_db=30.0)):
        x, obs = shifted.sample(200, torch.Generator().manual_seed(3))
        blind = ff.Observation(obs.y, obs.A)  # nobody says how strong the noise is
        given, estimated = (nmse_db(ff.run(ff.algorithms.OAMP(on.prior), o, 24).x, x) for o in (obs, blind))
        assert estimated <= given + 0.2


def test_a_wrong_prior_is_unlearned():
    """Trained from p = 0.3 and an unknown noise variance, ten layers come within 0.5 dB of the Bayes limit."""
    on = ff.problems.CompressedSensing(snr_db=40)
    oamp = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.3), noise="estimated")
    net = ff.unfold(oamp, on, 10, dict.fromkeys(oamp.nominals, "per-layer"))
    ff.fit(net, on, steps=60, lr=6e-3, loss_layers=2, threads=1)
    (row,) = ff.evaluate({"unfolded": net}, on, layers=False)
    assert row["limit_db"] < row["nmse_db"] < row["limit_db"] + 0.5
