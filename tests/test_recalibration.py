"""A receiver that has drifted is estimated from pairs: gains to the noise, an error of A as far as x tells."""

from functools import cache

import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.core.units import nmse_db, power
from fanfold.estimators import ErrorLeft, Recalibrated, ReceiverModel
from fanfold.guard.adaptation_contest import AdaptationContest, Folds
from fanfold.guard.adaptation_losses import Losses, OfPairs
from fanfold.guard.recalibration import RIDGES, fitted_error, fitted_gains, receivers_of

PROBLEM = ff.problems.CompressedSensing(n=60, m=30, sparsity=0.1, snr_db=30, seed=0)
COMPLEX = ff.problems.RFImaging("gaussian", (6, 6), (5, 6), snr_db=30)
PAIRS = 100


@cache
def trained() -> nn.Module:
    oamp = ff.algorithms.OAMP(ff.priors.BernoulliGaussian(0.3))
    net = ff.unfold(oamp, PROBLEM, 4, {"prior": "per-layer", "noise_var": "per-layer"})
    return ff.fit(net, PROBLEM, steps=60, batch=64, seed=0, threads=1)


def draws(place, samples: int = PAIRS, seed: int = 1):
    return place.sample(samples, torch.Generator().manual_seed(seed))


@torch.no_grad()
def error_db(net, place) -> float:
    x, obs = draws(place, 2000, 999)
    return nmse_db(net(obs).x, x)


def test_a_hundred_pairs_win_back_a_calibration_drift():
    net, drifted = trained(), ff.guard.CalibrationDrift(PROBLEM, gain_db=2.0)
    home, before = error_db(net, PROBLEM), error_db(net, drifted)
    adapted = ff.guard.adapt(net, draws(drifted))
    assert before > home + 3
    assert adapted.level.startswith("gains")
    assert before - error_db(adapted.network, drifted) >= 0.8 * (before - home)


def test_a_hundred_pairs_win_back_part_of_an_error_of_a_without_structure():
    net, wrong = trained(), ff.problems.Mismatched(PROBLEM, 0.1)
    adapted = ff.guard.adapt(net, draws(wrong))
    assert adapted.level.startswith("gains and operator")
    assert error_db(adapted.network, wrong) < error_db(net, wrong) - 1


@pytest.mark.parametrize("place", [PROBLEM, PROBLEM.shifted(snr_db=10), ff.problems.Mismatched(PROBLEM, 0.01)])
def test_where_the_receiver_is_as_it_was_nothing_is_lost(place):
    adapted = ff.guard.adapt(trained(), draws(place, seed=2))
    assert error_db(adapted.network, place) <= error_db(trained(), place) + 0.1  # what 2000 draws resolve


def test_gains_and_phases_are_found_to_the_noise_of_the_pairs():
    """N pairs tell a gain to a variance of `1 / (N SNR)`; drawn to their mean they are nearer."""
    drifted = ff.guard.CalibrationDrift(COMPLEX, gain_db=1.0, phase_deg=20.0)
    x, obs = draws(drifted, 200)
    true = drifted.responses(obs.A.m, torch.complex128)
    gains = fitted_gains(obs.y.to(torch.complex128), (obs.A @ x).to(torch.complex128))
    allowed = 1 / (200 * 1000)
    assert power(gains - true).mean() < 2 * allowed  # thirty of them, each exponential: 5 deviations
    assert power(true - 1).mean() > 1000 * allowed


def test_a_gain_that_is_common_needs_no_more_than_the_pairs_of_one():
    x, obs = draws(PROBLEM, 10)
    z = (obs.A @ x).double()
    gains = fitted_gains(1.5 * (z + 0.05 * torch.randn(z.shape, generator=torch.Generator().manual_seed(3))), z)
    assert gains.std() < 0.01
    assert gains.mean().item() == pytest.approx(1.5, abs=0.01)


def test_sensors_that_are_dead_are_not_divided_by():
    x, obs = draws(ff.guard.Dead(PROBLEM, 3))
    gains = fitted_gains(obs.y.double(), (obs.A @ x).double())
    assert (gains[(obs.y == 0).all(0)] == 1).all()
    assert torch.isfinite(gains).all()
    assert gains.min() > 0.5


def test_an_error_of_a_is_explained_by_as_many_directions_as_there_are_pairs():
    """Of an error of one size in all n directions, N < n pairs see a share N / n."""
    generator = torch.Generator().manual_seed(4)
    n, m, pairs = 80, 12, 40
    E, x = (torch.randn(shape, generator=generator, dtype=torch.complex128) for shape in ((m, n), (pairs, n)))
    fitted = fitted_error(x, x @ E.mT)
    explained = 1 - power(E - fitted.error).mean() / power(E).mean()
    assert explained.item() == pytest.approx(pairs / n, abs=0.1)
    fresh = torch.randn(2000, n, generator=generator, dtype=torch.complex128)
    assert power(fresh @ (E - fitted.error).mT).mean().item() == pytest.approx(fitted.left.item(), rel=0.2)
    noise = torch.randn(pairs, m, generator=generator, dtype=torch.complex128)
    assert fitted_error(x, noise) is None


@pytest.mark.parametrize(("pairs", "n"), [(15, 40), (60, 20)])
def test_what_the_others_leave_of_a_pair_is_that_of_a_fit_without_it(pairs, n):
    """In closed form of all pairs, few and many; the ridge is that of all."""
    generator = torch.Generator().manual_seed(6)
    x, E, w = (
        torch.randn(shape, generator=generator, dtype=torch.complex128) for shape in ((pairs, n), (4, n), (pairs, 4))
    )
    left = x @ E.mT + w
    fitted, residual, *_ = fitted_error(x, left)
    ridges = [ridge * power(x).sum() / pairs * torch.eye(n, dtype=x.dtype) for ridge in RIDGES]
    fits = [torch.linalg.solve(x.mH @ x + ridge, x.mH @ left).mT for ridge in ridges]
    chosen = min(range(len(RIDGES)), key=lambda i: power(fits[i] - fitted).sum())
    torch.testing.assert_close(fitted, fits[chosen], rtol=1e-8, atol=1e-8)  # squares of condition numbers, in double
    missed = []
    for k in range(pairs):
        rest = torch.arange(pairs) != k
        without = torch.linalg.solve(x[rest].mH @ x[rest] + ridges[chosen], x[rest].mH @ left[rest])
        missed.append(power(left[k] - x[k] @ without).mean())
    assert residual.item() == pytest.approx(torch.stack(missed).mean().item(), rel=1e-6)


def test_what_pairs_leave_of_an_error_of_a_is_known_for_every_signal():
    """Of fresh signals, quiet and loud ones apart, and the noise apart from it: 3 standard errors of 2000 draws."""
    generator = torch.Generator().manual_seed(7)
    n, m, pairs, entry_var, noise_var = 60, 40, 50, 0.02, 0.5
    draw = lambda *shape: torch.randn(shape, generator=generator, dtype=torch.float64)  # noqa: E731
    E, x = entry_var**0.5 * draw(m, n), draw(pairs, n) * (draw(pairs, 1).abs() + 0.2)
    fitted = fitted_error(x, x @ E.mT + noise_var**0.5 * draw(pairs, m))
    assert fitted.noise_var.item() == pytest.approx(noise_var, rel=0.15)  # of 2000 numbers, some of which tell E
    assert fitted.entry_var == pytest.approx(entry_var, rel=0.35)  # as far as the grid of ridges is
    left = ErrorLeft(fitted.directions, entry_var, 0.0)
    for loudness in (0.3, 1.0, 3.0):
        fresh = loudness * draw(2000, n)
        added = power(fresh @ (E - fitted.error).mT).mean(-1, keepdim=True)
        assert left.variance(fresh).mean().item() == pytest.approx(added.mean().item(), rel=0.1)
        assert power(fresh).sum(-1).mean() * entry_var > 1.3 * added.mean()  # what none of it had been told of


def test_larger_signals_are_told_more_noise_where_a_is_in_error_and_units_are_free():
    generator = torch.Generator().manual_seed(8)
    error, directions = (torch.randn(shape, generator=generator) / 20 for shape in ((30, 60), (5, 60)))
    receiver = ReceiverModel(torch.ones(30), 2.0, error, ErrorLeft(directions, 0.01, 0.1))
    matched = lambda o: ff.Estimate(o.A.H @ o.y)  # noqa: E731
    _, obs = draws(PROBLEM, 5)
    seen = receiver.corrected(obs, matched)
    assert seen.noise_var.shape == (5, 1)
    assert (seen.noise_var > 2 * obs.noise_var).all()
    assert torch.equal(seen.noise_var.flatten().argsort(), power(matched(obs).x).sum(-1).argsort())
    louder = receiver.corrected(ff.Observation(100 * obs.y, obs.A, 1e4 * obs.noise_var), matched)
    torch.testing.assert_close(louder.noise_var, 1e4 * seen.noise_var, rtol=1e-5, atol=0)
    torch.testing.assert_close(louder.y, 100 * seen.y, rtol=1e-5, atol=1e-5)


def test_signals_of_another_scale_are_brought_to_that_of_the_network_and_back():
    _, obs = draws(ff.guard.Amplified(PROBLEM, 4.0), 5)
    said = Recalibrated(trained(), ReceiverModel(torch.ones(30), scale=4.0))(obs)
    believed = trained()(ff.Observation(obs.y / 4, obs.A, obs.noise_var / 16))
    torch.testing.assert_close(said.x, 4 * believed.x)
    torch.testing.assert_close(said.var, 16 * believed.var)


def folds_of(place, lessons: int = 14, pairs: int = 20) -> Folds:
    return Folds(OfPairs(*draws(place, pairs)), lessons)


def test_a_hundred_pairs_tell_the_scale_of_signals():
    net, louder = trained(), ff.guard.Amplified(PROBLEM, 3.0)
    level, fitted = folds_of(louder, 70, PAIRS).of_another_scale(net, None)
    assert level in ("scale 2", "scale 2.83", "scale 4")
    assert error_db(Recalibrated(net, fitted.of_all), louder) < error_db(net, louder) - 3


def test_what_judges_a_closed_form_was_not_fitted_to():
    folds = folds_of(PROBLEM)
    fitted = dict(folds.receivers())["gains"]
    for judge, others, receiver in zip(folds.judges, folds.others, fitted.without, strict=True):
        assert len(judge.x) + len(others.x) == 20
        assert not (judge.x[:, None] == others.x).all(-1).any()
        torch.testing.assert_close(receiver.gains, dict(receivers_of(others.x, others.obs))["gains"].gains)
    assert torch.equal(torch.cat([judge.x for judge in folds.judges]), folds.pairs.x)


def test_no_scale_is_looked_for_where_there_is_none():
    assert folds_of(ff.guard.Amplified(PROBLEM, 3.0)).of_another_scale(trained(), None) is not None

    class Equivariant(nn.Identity):
        scale_equivariant = True

    tone = ff.problems.Tone()
    assert folds_of(ff.guard.Amplified(PROBLEM, 3.0)).of_another_scale(Equivariant(), None) is None
    assert folds_of(tone).of_another_scale(ff.neural(tone), None) is None


def test_what_has_learned_must_surely_be_better_than_the_best_closed_form():
    net, noise = nn.Identity(), torch.randn(30, 1, generator=torch.Generator().manual_seed(2))
    of = lambda mean: Losses(mean + noise, torch.ones(1), torch.ones(1))  # noqa: E731
    contest = AdaptationContest(net, of(3.0), "dB")
    contest.enter("gains", net, of(2.0))
    contest.decided_by(before=of(3.0), best=of(2.0))
    contest.enter("few numbers", net, Losses(1.9 - noise, torch.ones(1), torch.ones(1)))
    assert (contest.level, contest.rows[-1]["better"]) == ("gains", False)
    contest.enter("all weights", net, of(1.8))
    assert (contest.level, contest.rows[-1]["better"]) == ("all weights", True)
    assert contest.gain == pytest.approx(1.2, abs=1e-6)


def test_silent_pairs_and_a_single_one_say_nothing_of_the_receiver():
    x, obs = draws(PROBLEM, 12)
    silent = dict(receivers_of(torch.zeros_like(x), obs))
    assert "gains and operator" not in silent
    assert (silent["gains"].gains == 1).all()
    assert not list(receivers_of(x[:1], obs[:1]))


def test_the_noise_variance_is_that_which_is_left():
    x, obs = draws(ff.guard.Noisier(PROBLEM, 3.0), 400)
    levels = dict(receivers_of(x, obs))
    assert levels["noise variance"].noise_factor.item() == pytest.approx(9, rel=0.1)
    assert levels["gains"].noise_factor.item() == pytest.approx(9, rel=0.1)
    assert "gains and operator" not in levels


def test_without_an_operator_for_all_nothing_is_said_of_the_receiver():
    tone, detection = ff.problems.Tone(), ff.problems.MIMODetection(users=4, antennas=8)
    for problem in (tone, detection):
        assert not list(receivers_of(*draws(problem, 20)))


@pytest.mark.parametrize(("corrects", "told"), [(False, False), (True, False), (True, True)])
def test_what_was_recalibrated_is_kept_and_loaded(tmp_path, corrects, told):
    net = ff.unfold(ff.algorithms.ISTA(lam=0.05), PROBLEM, 3, {"step": "per-layer"})
    nn.init.constant_(net.deviations["step"], 0.2)
    error = 0.01 * torch.randn(30, 60, generator=torch.Generator().manual_seed(5)) if corrects else None
    left = ErrorLeft(torch.ones(3, 60) / 60, 0.01, 0.1) if told else None
    both = Recalibrated(net, ReceiverModel(torch.linspace(0.5, 2, 30), 1.5, error, left, 2.0 if told else None))
    both.strength = 0.5
    assert net.strength == 0.5
    ff.save(both, tmp_path / "run", PROBLEM)
    again = ff.load(tmp_path / "run")
    _, obs = draws(PROBLEM, 5)
    assert again.strength == 0.5
    assert torch.equal(again(obs).x, both(obs).x)
    assert torch.equal(again(obs.y).x, both(obs.y).x)


def test_what_can_be_said_of_the_network_can_be_said_of_it_behind_its_receiver():
    from fanfold.core.abilities import offers
    from fanfold.estimators.base import Bound, Restrainable

    receiver = ReceiverModel(torch.ones(30))
    for within, able in ((trained(), True), (ff.estimators.LMMSE.of(PROBLEM), False)):
        both = Recalibrated(within, receiver)
        assert offers(both, Restrainable) is able
        assert offers(both, Bound) is able
    assert Recalibrated(ff.estimators.LMMSE.of(PROBLEM), receiver).settings is None


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ReceiverModel(torch.zeros(3)), "gains are"),
        (lambda: ReceiverModel(torch.ones(3), 0.0), r"noise_factor, of the variance, is 0\.0"),
        (lambda: ReceiverModel(torch.ones(3), 1.0, torch.ones(4, 2)), r"error is \(4, 2\) for 3 gains"),
        (lambda: ReceiverModel(torch.ones(3), scale=0.0), r"scale, of x, is 0\.0; pass a positive"),
        (lambda: ReceiverModel(torch.ones(3), left=ErrorLeft(torch.ones(2, 4), 1.0, 1.0)), "with an error of A"),
        (lambda: ff.estimators.RecalibratedSettings(corrects=True, directions=-1), "directions is -1; pass 0 or more"),
        (lambda: ff.estimators.RecalibratedSettings(directions=2), "directions is 2; pass 0 or more, and 0 where"),
        (lambda: Recalibrated(trained(), ReceiverModel(torch.ones(29)))(draws(PROBLEM, 2)[1]), r"pass measurements of"),
        (lambda: ff.estimators.RecalibratedSettings().build(ff.problems.Tone()), "one operator A"),
    ],
)
def test_receivers_that_cannot_be_are_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()
