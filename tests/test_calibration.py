"""Calibration by least squares: exact without noise, as good as the pairs with it, and clear about bad pairs."""

import pytest
import torch

from fanfold.core.units import power
from fanfold.estimators import fit_factors, fit_responses
from fanfold.linops import Kronecker
from fanfold.problems import RFImaging
from fanfold.problems.draws import draw

SHAPES = {"scene": (10, 8), "elements": (8, 6), "dtype": "complex128"}
FITS = (fit_responses, fit_factors)


def off(A: Kronecker, true: Kronecker) -> float:
    """Relative distance of what the operators make of white scenes."""
    return ((A.matrix() - true.matrix()).norm() / true.matrix().norm()).item()


def wrong(**changes) -> RFImaging:
    return RFImaging("gaussian", **SHAPES, phase_deg=10.0, gain_db=1.0, **changes)


@pytest.mark.parametrize("fit", FITS)
def test_without_noise_the_true_operator_is_found(fit):
    on = wrong()
    x, _ = draw(on, 60, 0, 0, 0)
    found = fit(on.A, x, on.true_A @ x, **({"ridge": 0.0} if fit is fit_factors else {}))
    assert off(on.A, on.true_A) > 0.1
    assert off(found, on.true_A) < 1e-6


def test_operators_of_three_axes_are_found_too():
    on = RFImaging("gaussian", (4, 5, 6), (3, 4, 5), dtype="complex128", phase_deg=20.0, gain_db=2.0)
    x, _ = draw(on, 60, 0, 0, 0)
    for fit in FITS:
        assert off(fit(on.A, x, on.true_A @ x), on.true_A) < 0.02 * off(on.A, on.true_A)


@pytest.mark.parametrize("fit", FITS)
def test_ten_times_the_pairs_leave_a_third_of_the_error(fit):
    """Errors of least squares fall with the root of the pairs: 3.2 times, and 14 or 128 numbers say so within 1.5."""
    on = wrong(snr_db=20.0)
    few, many = ((x, obs.y) for x, obs in (draw(on, n, 0, 0, 0) for n in (100, 1000)))
    settings = {"ridge": 0.0} if fit is fit_factors else {}
    gain = off(fit(on.A, *few, **settings), on.true_A) / off(fit(on.A, *many, **settings), on.true_A)
    assert 10**0.5 / 1.5 < gain < 10**0.5 * 1.5


def test_fewer_numbers_take_fewer_pairs():
    """14 responses against 128 entries of factors, from ten scenes at 20 dB."""
    on = wrong(snr_db=20.0)
    x, obs = draw(on, 10, 0, 0, 0)
    assert off(fit_responses(on.A, x, obs.y), on.true_A) < 0.5 * off(fit_factors(on.A, x, obs.y), on.true_A)


def test_factors_learn_what_responses_cannot():
    """Elements out of place turn every direction by an angle of its own."""
    on = RFImaging("steering", **SHAPES, position=0.05, snr_db=40.0)
    x, obs = draw(on, 200, 0, 0, 0)
    assert off(fit_factors(on.A, x, obs.y), on.true_A) < 0.3 * off(fit_responses(on.A, x, obs.y), on.true_A)


def test_a_strong_ridge_keeps_the_nominal_factors():
    on = wrong()
    x, obs = draw(on, 20, 0, 0, 0)
    assert off(fit_factors(on.A, x, obs.y, ridge=1e9), on.A) < 1e-6


@pytest.mark.parametrize("fit", FITS)
def test_pairs_that_cannot_calibrate_are_refused(fit):
    on = wrong()
    x, obs = draw(on, 5, 0, 0, 0)
    with pytest.raises(ValueError, match="no calibration pairs"):
        fit(on.A, x[:0], obs.y[:0])
    with pytest.raises(ValueError, match=r"pairs, 80\) and \(pairs, 48"):
        fit(on.A, x[:, :-1], obs.y)
    with pytest.raises(ValueError, match="NaN"):
        fit(on.A, x, obs.y * torch.nan)


def test_scenes_that_show_too_little_are_refused():
    on = wrong()
    nothing = torch.zeros(3, 80, dtype=torch.complex128)
    with pytest.raises(ValueError, match="sees none of the 3 scenes"):
        fit_responses(on.A, nothing, torch.zeros(3, 48, dtype=torch.complex128))
    one = nothing.clone()
    one[:, 7] = 1.0
    with pytest.raises(ValueError, match="fewer than its 10 directions"):
        fit_factors(on.A, one, on.true_A @ one, ridge=0.0)
    with pytest.raises(ValueError, match="ridge is -1"):
        fit_factors(on.A, one, on.true_A @ one, ridge=-1.0)


def test_measured_antennas_differ_and_keep_the_power():
    pytest.importorskip("skrf")
    ideal = RFImaging("steering", **SHAPES)
    real = ideal.shifted(measured=True)
    assert real.A is ideal.A
    for factor, nominal in zip(real.true_A.factors, ideal.A.factors, strict=True):
        response = (factor / nominal)[:, 0]
        torch.testing.assert_close(power(response).mean(), torch.ones((), dtype=torch.float64))
        assert response.abs().std() > 0.01
        torch.testing.assert_close(factor, response[:, None] * nominal)
