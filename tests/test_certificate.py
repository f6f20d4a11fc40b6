"""The convergence certificate: it holds where theory does, and not where a run or its claims go astray."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import FISTA, OAMP
from fanfold.bounds.convergence import certify, has_evolution
from fanfold.observation import Estimate
from fanfold.problems import CompressedSensing, RFImaging
from fanfold.problems.draws import draw

IID = CompressedSensing(n=500, m=250, sparsity=0.1, snr_db=30, seed=0)


def test_message_passing_on_an_iid_matrix_is_certified():
    x, obs = draw(IID, 100, 0, 2, 0)
    certificate = certify(ff.iterate(OAMP(IID.prior), 16).trajectory(obs), x, IID)
    assert certificate.holds
    assert certificate.verdict.startswith("Converged")
    assert [row["layer"] for row in certificate.table] == list(range(1, 17))


def test_too_few_layers_and_wrong_claims_are_not_certified():
    x, obs = draw(IID, 100, 0, 2, 0)
    layers = ff.iterate(OAMP(IID.prior), 16).trajectory(obs)
    assert not certify(layers[:4], x, IID).holds
    boast = Estimate(layers[-1].x, layers[-1].var / 10)
    assert not certify([*layers[:-1], boast], x, IID).holds


def test_plain_oamp_on_a_kronecker_product_is_not_certified():
    """It leaves its evolution by 10 dB and more, and claims that it does not."""
    on = RFImaging("gaussian", (16, 16), (12, 12), seed=0)
    x, obs = draw(on, 60, 0, 2, 0)
    certificate = certify(ff.iterate(OAMP(on.prior, spread=1e-6), 12).trajectory(obs), x, on)
    end = certificate.table.rows[-1]
    assert not certificate.holds
    assert end["is"] > end["state evolution"] + 10
    assert end["claimed"] < end["is"] - 10


def test_what_claims_nothing_is_judged_by_its_error():
    x, obs = draw(IID, 50, 0, 2, 0)
    certificate = certify(ff.iterate(FISTA(0.05), 5).trajectory(obs), x, IID)
    assert not certificate.holds
    assert "no variance is claimed" in certificate.verdict


def test_problems_without_evolution_are_refused():
    on = RFImaging(targets="extended")
    assert not has_evolution(on)
    with pytest.raises(ValueError, match="known prior"):
        certify([Estimate(torch.zeros(1, on.A.n))], torch.zeros(1, on.A.n), on)
    with pytest.raises(ValueError, match="no layers"):
        certify([], torch.zeros(1, IID.n), IID)
