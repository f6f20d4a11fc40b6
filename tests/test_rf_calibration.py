"""The study of calibration pairs: what it trains on, what it picks, and the share of a loss that is won back."""

import math

import pytest
import torch

from fanfold.algorithms import FISTA
from fanfold.core.units import nmse_db, power
from fanfold.experiments.rf.rf_calibration import (
    BOTH,
    END_TO_END,
    FACTORS,
    NOMINAL,
    ORACLE,
    RESPONSES,
    Calibration,
    best_on,
    methods,
    section,
    won_back,
)
from fanfold.problems import RFImaging
from fanfold.problems.draws import draw

SMALL = RFImaging("gaussian", (16, 16), (13, 13), phase_deg=20.0, gain_db=2.0)
VALUES = {NOMINAL: -10.0, "one": -25.0, "two": -35.0, ORACLE: -30.0}


def silent(_):
    return lambda event: None


def rows_in(some: torch.Tensor, all_of: torch.Tensor) -> set[int]:
    return {int((power(all_of - row).sum(-1) == 0).nonzero()[0]) for row in some}


def test_training_and_validation_never_share_a_pair():
    x, obs = draw(SMALL, 20, 0, 0, 0)
    pairs = Calibration.of(x, obs, SMALL.A)
    seen, kept = (p.sample(200, torch.Generator().manual_seed(0)) for p in (pairs, pairs.held_out()))
    assert rows_in(seen[0], x) == set(range(16))
    assert rows_in(kept[0], x) == set(range(16, 20))
    for drawn, through in (seen, kept):
        where = [int((power(x - row).sum(-1) == 0).nonzero()[0]) for row in drawn]
        assert torch.equal(through.y, obs.y[where])
    with pytest.raises(ValueError, match="cannot be drawn"):
        pairs.shifted(snr_db=10.0)


def test_the_share_is_nothing_for_the_nominal_operator_and_all_for_the_true_one():
    assert [won_back(VALUES, name) for name in VALUES] == [0.0, 0.75, 1.25, 1.0]


def test_the_table_is_ranked_and_says_how_sure_it_is():
    other = {name: value - 2.0 for name, value in VALUES.items()}
    (first, *_, last) = section("title", [VALUES, other]).table
    assert (first["method"], last["method"]) == ("two", NOMINAL)
    assert first["NMSE in dB"] == -36.0
    assert math.isclose(first["± NMSE in dB"], 1.0)  # sqrt(2) between two values, over the root of two
    assert "± NMSE in dB" not in next(iter(section("title", [VALUES]).table))


def test_the_best_setting_on_the_pairs_is_taken():
    x, obs = draw(SMALL, 20, 0, 0, 0)
    pairs, lams = Calibration.of(x, obs, SMALL.A), (1e-4, 0.05, 10.0)
    errors = [nmse_db(best_on(pairs, iter([FISTA(lam)]), 30)(obs).x, x) for lam in lams]
    assert nmse_db(best_on(pairs, (FISTA(lam) for lam in lams), 30)(obs).x, x) == min(errors)


def test_every_method_estimates_and_a_fitted_operator_is_worth_the_true_one():
    """38 responses from 3380 measurements at 30 dB: their error is far below the noise, so 1 dB is ample."""
    x, obs = draw(SMALL, 100, 0, 2, 0)
    with torch.no_grad():
        found = {name: e(obs).x for name, e in methods(SMALL, 20, 2, 0, silent).items()}
    assert {END_TO_END, FACTORS, BOTH} <= set(found)
    errors = {name: nmse_db(x_hat, x) for name, x_hat in found.items()}
    assert all(math.isfinite(error) for error in errors.values())
    assert errors[ORACLE] < errors[NOMINAL] - 3
    assert abs(errors[RESPONSES] - errors[ORACLE]) < 1
