"""Scenes and arrays of RF imaging: they have the moments that are said, and errors that only the data know of."""

import pytest
import torch

import fanfold as ff
from fanfold.core.units import power
from fanfold.estimators.linear.image import back_projection, white_lmmse
from fanfold.problems import RFImaging

SENSING = ("gaussian", "fourier", "steering")
TARGETS = ("points", "extended", "photographs")


def sample(on: RFImaging, n: int = 200):
    return on.sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sensing", SENSING)
@pytest.mark.parametrize("targets", TARGETS)
def test_noise_has_the_power_that_is_said(sensing, targets):
    """`E‖w‖² / m`: a mean of 200 x 120 squares, five standard errors of 1 / sqrt(24000)."""
    on = RFImaging(sensing, (16, 14), (10, 12), targets)
    x, obs = sample(on)
    assert power(obs.y - on.A @ x).mean().item() == pytest.approx(on.noise_var, rel=5 / 24_000**0.5)
    assert obs.noise_var == pytest.approx(on.noise_var)


@pytest.mark.parametrize("targets", TARGETS)
def test_snr_of_white_scenes_is_the_one_that_is_asked_for(targets):
    """The power of a scene against the noise, for columns of unit norm; scenes vary, by 10 % over 2000."""
    on = RFImaging("fourier", (16, 16), (12, 12), targets, snr_db=20)
    x, _ = sample(on, 2000)
    assert power(x).mean().item() * on.A.n / on.A.m / on.noise_var == pytest.approx(100, rel=0.1)


def test_extended_scenes_hold_still_ground_and_a_few_targets():
    x, _ = sample(RFImaging(targets="extended"), 500)
    shares = (x != 0).float().mean(-1)
    assert 0.02 < shares.mean() < 0.3
    assert (shares > 0).all()
    neighbours = ((x != 0).reshape(-1, 32, 32)[:, 1:] == (x != 0).reshape(-1, 32, 32)[:, :-1]).float().mean()
    assert neighbours > 0.9  # points at random would agree in 0.83


def test_scenes_without_speckle_have_one_phase():
    x, _ = sample(RFImaging(targets="extended", speckle=False), 20)
    for scene in x:
        phases = scene[scene != 0].angle()
        assert (phases - phases[0]).abs().max() < 1e-5 or (phases - phases[0]).abs().min() > 6


@pytest.mark.parametrize("changes", [{"phase_deg": 10.0}, {"gain_db": 1.0}, {"position": 0.05}])
def test_errors_reach_the_data_and_not_the_observation(changes):
    ideal = RFImaging(snr_db=80)
    wrong = ideal.shifted(**changes)
    x, obs = sample(wrong)
    assert obs.A is ideal.A
    assert wrong.prior is None
    assert ideal.prior is not None
    residual = power(obs.y - obs.A @ x).mean() / power(obs.y).mean()
    assert 1e-3 < residual < 0.3
    told = power(obs.y - wrong.true_A @ x).mean() / power(obs.y).mean()
    assert told < 1e-6


def test_phase_errors_cost_their_variance():
    """`E|e^{i phi} - 1|²` of two axes is `2 (1 - exp(-sd²))` to first order; 48 draws leave 30 %."""
    on = RFImaging(phase_deg=10.0)
    error = (on.true_A.matrix() - on.A.matrix()).norm() / on.A.matrix().norm()
    assert error.item() ** 2 == pytest.approx(2 * (10 * torch.pi / 180) ** 2, rel=0.5)


def test_the_axes_have_errors_of_their_own():
    on = RFImaging(sensing="steering", phase_deg=10.0)
    first, second = on.true_A.factors
    assert not torch.equal(first, second)


def test_scenes_of_three_axes():
    on = RFImaging("fourier", (8, 6, 4), (6, 5, 3))
    x, obs = sample(on, 3)
    assert x.shape == (3, 192)
    assert obs.y.shape == (3, 90)
    assert torch.isfinite(torch.view_as_real(ff.iterate(ff.algorithms.OAMP(on.prior), 8)(obs).x)).all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"elements": (24,)}, "give each axis"),
        ({"scene": (0, 4)}, "give each axis"),
        ({"sparsity": 1.0}, "probability"),
        ({"gain_db": -1.0}, "not negative"),
        ({"targets": "extended", "scene": (4, 4, 4), "elements": (3, 3, 3)}, "two axes"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        RFImaging(**changes)


def test_more_rows_than_a_fourier_matrix_has_are_refused():
    with pytest.raises(ValueError, match="at most 8"):
        _ = RFImaging("fourier", (8, 8), (9, 8)).A


def test_linear_images_of_silence_are_dark():
    """Also through an operator that sees nothing of some scenes."""
    blind = ff.linops.Kronecker(torch.ones(3, 4, dtype=torch.complex64), torch.eye(2, 3, dtype=torch.complex64))
    obs = ff.Observation(torch.zeros(2, 6, dtype=torch.complex64), blind, torch.zeros(()))
    assert (back_projection(obs).x == 0).all()
    assert (white_lmmse(obs, 1.0).x == 0).all()
