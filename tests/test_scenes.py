"""The study of RF scenes: its scores, the scenes that it trains on, and what it concludes."""

import math
import re
from dataclasses import replace

import pytest
import torch

from fanfold.experiments.base import Goal
from fanfold.experiments.rf import rf_imaging
from fanfold.experiments.rf.rf_imaging import Imaged
from fanfold.experiments.rf.rf_methods import LONG_FISTA, PLAIN, UNFOLDED
from fanfold.experiments.rf.rf_scenes import (
    DETECTED,
    FALSE_ALARMS,
    NMSE,
    PARAMETERS,
    Measured,
    curve_section,
    goals,
    means,
    section,
    verdict,
)
from fanfold.experiments.rf.scene_data import SETTINGS, FewScenes, Field, Turned
from fanfold.experiments.rf.scene_methods import HYBRID, L1, MODL, RATES, UNET
from fanfold.experiments.rf.scene_pictures import scene_pictures
from fanfold.experiments.rf.scene_scores import auc, bright, decibel, detected, roc, ssim
from fanfold.problems import RFImaging

SMALL = {"scene": (12, 8), "elements": (9, 7), "sensing": "gaussian"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_scores_of_gaussians_give_the_roc_of_two_gaussians():
    """Shifted by one standard deviation: AUC is Phi(1/sqrt 2); standard errors below 0.5/sqrt(N), N = 2e4, times 5."""
    score = torch.randn(40_000, generator=generator())
    target = torch.arange(40_000) % 2 == 0
    score = score + target
    tolerance = 5 * 0.5 / 2e4**0.5

    def phi(z):
        return 0.5 * (1 + math.erf(z / 2**0.5))

    assert auc(score[target], score[~target]) == pytest.approx(phi(1 / 2**0.5), abs=tolerance)
    quantile = 1.2815515655446004  # of 90 %
    assert detected(score, target, 0.1) == pytest.approx(phi(1 - quantile), abs=2 * tolerance)  # and of the threshold


def test_roc_rises_and_no_score_at_all_finds_nothing():
    score, target = torch.rand(1000, generator=generator()), torch.arange(1000) < 300
    curve = roc(score, target, (0.01, 0.1, 0.5, 1.0))
    assert curve == sorted(curve)
    assert curve[-1] > 0.99
    assert roc(torch.zeros(1000), target, (0.1,)) == [0.0]


def test_bright_voxels_are_within_ten_decibels_of_their_own_scene():
    x = torch.tensor([[1.0, 0.32, 0.31, 0.0], [10.0, 3.2, 3.1, 1.0]])  # amplitude 0.316 is -10 dB
    assert bright(x).tolist() == [[True, True, False, False]] * 2
    assert not bright(torch.zeros(1, 4)).any()


def test_a_picture_is_like_itself_alone():
    x = torch.randn(3, 96, dtype=torch.complex64, generator=generator())
    picture = decibel(x, (12, 8), x)
    assert picture.shape == (3, 12, 8)
    assert picture.amax((1, 2)).tolist() == pytest.approx([1.0] * 3)
    assert ssim(picture, picture) == pytest.approx(1.0)
    assert ssim(picture, picture.flip(-1)) < 0.9


def test_pictures_of_a_scene_are_in_decibels_and_its_errors_in_magnitudes():
    x = torch.zeros(32 * 32, dtype=torch.complex64)
    x[100] = 2.0
    text, (_, _, maps) = scene_pictures(x, {HYBRID: x + 0.2j, UNET: 0.5 * x}, (32, 32), {})
    assert "40 dB from black to white" in text
    assert re.findall(r"<br>([\d.]+) %", maps) == ["10", "50"]  # of the brightest voxel


def test_the_page_of_a_study_shows_the_two_that_are_held_against_each_other_first():
    x = torch.randn(3, 32 * 32, dtype=torch.complex64, generator=generator())
    one = measured(-20, -10, -21)
    pictures = {"scene": x[0], L1: x[1], MODL: x[2], UNET: x[1], HYBRID: x[2]}
    shown = section([replace(one, pictures=pictures, rocs={HYBRID: [0.5] * len(FALSE_ALARMS)})])
    assert re.findall(r'alt="error of ([^"]*)"', shown.figures[2]) == [HYBRID, UNET, MODL, L1]
    assert "-20.0 dB over all scenes" in shown.figures[1]
    on = RFImaging(**SMALL)
    rows = {name: {"NMSE in dB": db} for name, db in ((UNFOLDED, -20.0), (PLAIN, 3.0), (LONG_FISTA, -9.0))}
    scene = {"scene": x[0, :96]} | dict.fromkeys((LONG_FISTA, PLAIN, UNFOLDED), x[1, :96])
    of_imaging = rf_imaging.section(Imaged(on, rows, {UNFOLDED: [-20.0]}, {}, scene))
    assert re.findall(r'alt="error of ([^"]*)"', of_imaging.figures[3]) == [UNFOLDED, PLAIN, LONG_FISTA]


def test_turned_scenes_are_scenes_measured_again():
    """Residuals are noise: mean |y - Ax|² over 50 x 63 entries within 5 standard errors of its variance."""
    on = Turned(RFImaging(**SMALL | {"scene": (8, 8), "elements": (7, 7), "targets": "extended"}))
    x, obs = on.sample(50, generator())
    plain, _ = on.of.sample(50, generator())
    energy = (obs.y - on.A @ x).abs().square().mean().item() / on.of.noise_var
    assert energy == pytest.approx(1, abs=5 / obs.y.numel() ** 0.5)
    assert not torch.equal(x, plain)
    for one, other in zip(x, plain, strict=True):  # the same voxels elsewhere
        assert torch.equal(one.abs().sort().values, other.abs().sort().values)


def test_stored_scenes_are_so_many_and_no_more():
    on = FewScenes(RFImaging(**SMALL), 5, 0)
    x, obs = on.sample(200, generator())
    assert len(torch.unique(torch.view_as_real(x).flatten(1), dim=0)) == 5
    assert len(torch.unique(torch.view_as_real(obs.y).flatten(1), dim=0)) == 5
    again, _ = FewScenes(RFImaging(**SMALL), 5, 0).sample(200, generator())
    assert torch.equal(x, again)
    assert on.held_out() is on.of


def test_a_field_is_the_separable_covariance_of_real_scenes():
    on = RFImaging(**SMALL | {"targets": "photographs", "speckle": False})
    field = Field.of(on, on.scene, 0)
    assert torch.equal(field.covariance, field.covariance.mT)
    rows = field.covariance.reshape(12, 8, 12, 8)
    torch.testing.assert_close(rows[:, 0, :, 0] / rows[0, 0, 0, 0], rows[:, 3, :, 3] / rows[0, 3, 0, 3])
    assert torch.linalg.eigvalsh(field.covariance.double()).min() > -1e-6 * field.covariance.max()
    x, obs = on.sample(50, generator())
    assert (field.image(obs).x - x).abs().square().sum() < 0.3 * x.abs().square().sum()  # it sees something


def measured(hybrid_db: float, unet_db: float, classical_db: float, seed: int = 0) -> Measured:
    def row(db: float, count: int) -> dict:
        return {NMSE: db, DETECTED: -db / 100, PARAMETERS: count}

    rows = {HYBRID: row(hybrid_db, 10), UNET: row(unet_db, 300), MODL: row(-50.0, 20), L1: row(classical_db, 0)}
    return Measured(SETTINGS[0], seed, rows, {}, {})


def passed(found_goals: list[Goal]) -> list[bool]:
    return [goal.passed for goal in found_goals]


def test_goals_are_judged_on_the_mean_of_operators_against_the_best_peer_of_each():
    group = [measured(-20, -10, -21), measured(-20, -10, -17, seed=1)]
    ahead = goals(group)[0]
    assert ahead.value == pytest.approx((-1 + 3) / 2)
    assert passed(goals(group)) == [True] * 5
    assert passed(goals(group, ahead_db=2.0)) == [False, True, True, True, True]
    assert passed(goals([measured(-20, -25, -10)])) == [True, True, False, False, True]


def test_means_have_their_standard_error_and_the_verdict_names_the_winner():
    group = [measured(-20, -10, -21), measured(-22, -10, -17, seed=1)]
    rows = means(group)
    assert rows[HYBRID][NMSE] == -21
    assert rows[HYBRID]["standard error, dB"] == pytest.approx(1.0)  # sqrt(2) / sqrt(2)
    assert f"{MODL} with -50.0 dB, 29.0 dB before {HYBRID}" in verdict([group])


def test_a_curve_says_where_each_wins():
    errors = {10: {HYBRID: -1.0, UNET: 0.0, MODL: -2.0}, 100: {HYBRID: -4.0, UNET: -3.0, MODL: -2.0}}
    text = curve_section(SETTINGS[0], errors).text
    assert f"10 scenes: {MODL}; 100 scenes: {HYBRID}" in text


def test_every_kind_of_scene_has_rates():
    assert {setting.changes["targets"] for setting in SETTINGS} == set(RATES)
