"""Conformal intervals hold what they promise, on draws and by construction."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fanfold as ff
from fanfold.core.streams import Stream
from fanfold.guard import Conformal, conformal, coverage, coverage_by_size, interval_score
from fanfold.guard.quantiles import average_quantile, chance, conformal_quantile, fewest, group_quantiles, rank
from fanfold.observation import Estimate, Observation
from fanfold.problems import CompressedSensing, LinearGaussian
from fanfold.problems.draws import draw

LINEAR = LinearGaussian(snr_db=6.0)
CALIBRATION, TESTS = 4000, 20_000


def draws_of(problem, count=TESTS):
    return draw(problem, count, 0, Stream.TESTING, 0)


def within(share, target, count=CALIBRATION):
    """Four standard errors: those of the draws of the test, and of the calibration set, `√(c (1 - c) / n)`."""
    spread = math.hypot(share.standard_error, chance(count, target))
    return abs(share.value - target) <= 4 * spread + 1 / count


class Wrong:
    """Biased, and with a variance that is ten times too small."""

    def __call__(self, obs):
        right = LINEAR.posterior(obs)
        return Estimate(0.7 * right.x + 0.2, right.var / 10)


@given(st.integers(1, 400), st.floats(0.01, 0.99))
def test_the_quantile_has_the_rank_of_finite_samples(count, level):
    scores = torch.arange(1, count + 1, dtype=torch.float64)
    if count < fewest(level):
        with pytest.raises(ValueError, match="calibration draws"):
            conformal_quantile(scores, level)
        return
    k = conformal_quantile(scores, level).item()
    assert k == rank(count, level) == group_quantiles(scores, torch.zeros(count), 1, level).item()
    assert k / (count + 1) >= level - 1e-9 > (k - 1) / (count + 1) - 1e-9


def test_ranks_are_exact_where_the_product_is_whole():
    assert [rank(9, 0.9), rank(19, 0.9), rank(99, 0.99)] == [9, 18, 99]
    assert [fewest(c) for c in (0.5, 0.9, 0.99)] == [1, 9, 99]


def test_too_few_draws_are_refused_with_the_number_that_it_takes():
    with pytest.raises(ValueError, match="at least 99 calibration draws and there are 50"):
        conformal(LINEAR.posterior, LINEAR, 0.99, samples=50)
    with pytest.raises(ValueError, match="at least 9 calibration draws"):
        conformal(LINEAR.posterior, LINEAR, groups=8, samples=60)


@pytest.mark.parametrize("kind", ["each", "joint", "energy", "average"])
@pytest.mark.parametrize("scale", ["constant", "variance", "magnitude"])
@pytest.mark.parametrize("estimator", [LINEAR.posterior, Wrong()], ids=["right", "wrong"])
def test_coverage_is_what_was_asked_for_however_wrong_the_estimator(kind, scale, estimator):
    x, obs = draws_of(LINEAR)
    cal = conformal(estimator, LINEAR, 0.9, kind, scale=scale, samples=CALIBRATION)
    interval = cal(obs)
    assert interval.covers(x).shape == ((TESTS,) if cal.joint else x.shape)
    assert within(coverage(interval, x), 0.9, cal.draws)


@pytest.mark.parametrize("kind", ["each", "joint", "energy", "average"])
def test_widths_go_with_the_root_of_the_variance_whatever_its_unit(kind):
    generator = torch.Generator().manual_seed(13)
    var = torch.rand(600, 3, generator=generator, dtype=torch.float64) + 0.01
    x = var.sqrt() * torch.randn(var.shape, generator=generator, dtype=torch.float64)
    says = lambda obs: Estimate(0 * obs.y, obs.y)  # noqa: E731
    radius = conformal(says, (x, Observation(var)), kind=kind)(Observation(var)).radius
    ratio = radius / var.sqrt()
    torch.testing.assert_close(ratio, ratio[:1].expand(ratio.shape))
    other = conformal(says, (x, Observation(400 * var)), kind=kind)(Observation(400 * var)).radius
    torch.testing.assert_close(other, radius)


def test_entries_are_covered_one_by_one_and_seldom_all_at_once():
    x, obs = draws_of(LINEAR)
    cal = conformal(LINEAR.posterior, LINEAR, samples=CALIBRATION)
    inside = cal(obs).covers(x).double()
    spread = math.hypot(0.3 / CALIBRATION**0.5, 0.3 / TESTS**0.5)  # of a share of 0.9
    assert (inside.mean(0) - 0.9).abs().max() < 4 * spread
    together = inside.all(-1).double().mean().item()
    assert 0.9**10 < together < 0.5
    assert cal.together == pytest.approx(together, abs=0.04)  # four standard errors of a share of 4000
    assert f"only about {100 * cal.together:.0f} %" in str(cal(obs))
    assert "kind='joint'" in cal.promise


def test_joint_regions_are_as_small_as_the_law_allows():
    """White Gaussian errors: a box reaches the normal quantile of `(1 + c^(1/d)) / 2`, a ball that of chi-square."""
    from scipy.stats import chi2, norm

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40_000, 5, generator=generator, dtype=torch.float64)
    pairs = (x, Observation(torch.zeros_like(x)))
    guess = lambda obs: Estimate(obs.y, torch.ones_like(obs.y))  # noqa: E731
    box, ball = (conformal(guess, pairs, kind=kind).thresholds.item() for kind in ("joint", "energy"))
    assert box == pytest.approx(norm.ppf((1 + 0.9**0.2) / 2), rel=0.01)  # about 4 standard errors at 40 000 draws
    assert ball == pytest.approx((chi2.ppf(0.9, 5) / 5) ** 0.5, rel=0.01)


def test_the_box_around_an_ellipsoid_holds_it():
    x, obs = draws_of(LINEAR)
    interval = conformal(LINEAR.posterior, LINEAR, kind="energy", samples=CALIBRATION)(obs)
    held = interval.covers(x)
    assert interval.entries_cover(x)[held].all()
    assert not interval.entries_cover(x)[~held].all()


@pytest.mark.parametrize("kind", ["each", "joint"])
def test_groups_are_covered_each_where_the_error_goes_with_the_magnitude(kind):
    generator = torch.Generator().manual_seed(5)
    y = torch.randn(24_000, 3, generator=generator)
    x = y + y.square() * torch.randn(y.shape, generator=generator)
    calibration, later = slice(12_000), slice(12_000, None)
    guess = lambda obs: Estimate(obs.y)  # noqa: E731

    def spread(**settings):
        cal = conformal(guess, (x[calibration], Observation(y[calibration])), 0.9, kind, **settings)
        size = y[later].abs() if kind == "each" else y[later].square().mean(-1)
        shares = coverage_by_size(cal(Observation(y[later])).covers(x[later]), size)
        return max(s.value for s in shares) - min(s.value for s in shares)

    assert spread(scale="constant") > 0.1
    assert spread(scale="constant", groups=3) < 0.03  # 4 · √2 standard errors of 4000 draws of test and of calibration
    if kind == "each":
        assert spread(scale="magnitude") < 0.03


def test_groups_by_another_number():
    problem = CompressedSensing(n=40, m=20, snr_db=20)
    by = lambda obs, estimate: obs.y.square().mean(-1)  # noqa: E731
    estimator = ff.iterate(ff.algorithms.OAMP(problem.prior), 5)
    cal = conformal(estimator, problem, kind="joint", groups=2, by=by, samples=CALIBRATION)
    x, obs = draws_of(problem, 8000)
    shares = coverage_by_size(cal(obs).covers(x), by(obs, None), parts=2)
    assert all(within(s, 0.9, cal.draws // 2) for s in shares)
    with pytest.raises(ValueError, match="is to be grouped"):
        conformal(estimator, problem, groups=2, by=by, samples=100)


def test_complex_signals_have_discs():
    problem = CompressedSensing(n=40, m=20, snr_db=20, dtype="complex64")
    estimator = ff.iterate(ff.algorithms.OAMP(problem.prior), 8)
    x, obs = draws_of(problem, 8000)
    for kind in ("each", "joint"):
        interval = conformal(estimator, problem, kind=kind, samples=CALIBRATION)(obs)
        assert interval.low is None
        assert not interval.radius.is_complex()
        assert within(coverage(interval, x), 0.9)
        assert torch.equal(interval.entries_cover(x), (x - interval.x).abs() <= interval.width / 2)
    with pytest.raises(ValueError, match="disc"):
        interval_score(interval, x)


def test_quantile_regression_is_conformalised():
    """Quantiles at 25 and 75 % instead of 5 and 95 % are widened until they cover 90 %."""

    class Halves:
        def __call__(self, obs):
            return Estimate(obs.y)

        def quantiles(self, obs):
            return torch.stack([obs.y - 0.67 * obs.y.abs(), obs.y, obs.y + 0.67 * obs.y.abs()], -2)

    generator = torch.Generator().manual_seed(7)
    y = torch.randn(24_000, 2, generator=generator)
    x = y + y.abs() * torch.randn(y.shape, generator=generator)
    pairs, later = (x[:4000], Observation(y[:4000])), Observation(y[4000:])
    for kind in ("each", "joint"):
        cal = conformal(Halves(), pairs, 0.9, kind, scale="quantiles")
        assert within(coverage(cal(later), x[4000:]), 0.9, cal.draws)
        assert cal.thresholds.min() > 0
    wide = conformal(Halves(), pairs, 0.2, scale="quantiles")  # less than the quantiles hold: they are drawn in
    assert wide.thresholds.max() < 0
    assert within(coverage(wide(later), x[4000:]), 0.2)
    with pytest.raises(ValueError, match="pinball"):
        conformal(LINEAR.posterior, LINEAR, scale="quantiles", samples=50)
    with pytest.raises(ValueError, match="centre"):
        conformal(Halves(), pairs, kind="energy", scale="quantiles")


def test_a_network_of_quantiles_is_conformalised():
    problem = LinearGaussian(n=2, m=3, snr_db=5)
    settings = {"steps": 40, "batch": 128, "validate_every": 40, "threads": 1}
    net = ff.fit(ff.neural(problem, "pinball", levels=(0.2, 0.5, 0.8), width=16), problem, **settings)
    x, obs = draws_of(problem, 8000)
    raw = ((net.quantiles(obs)[:, 0] <= x) & (x <= net.quantiles(obs)[:, -1])).double().mean()
    assert raw < 0.7
    for kind in ("each", "joint"):
        cal = conformal(net, problem, 0.9, kind, scale="quantiles", samples=CALIBRATION)
        assert within(coverage(cal(obs), x), 0.9, cal.draws)


@pytest.mark.parametrize("settings", [{}, {"groups": 3}, {"kind": "joint", "scale": "magnitude"}, {"kind": "average"}])
def test_a_calibration_is_plain_data_and_comes_back(settings):
    cal = conformal(LINEAR.posterior, LINEAR, samples=600, **settings)
    again = Conformal.from_dict(LINEAR.posterior, json.loads(json.dumps(cal.as_dict())))
    _, obs = draws_of(LINEAR, 50)
    assert torch.equal(cal(obs).radius, again(obs).radius)
    assert cal.promise == again.promise


def test_zeros_that_fill_the_promise_are_said():
    """Nine entries in ten are zero and easy: an estimator that is right of them and wrong of the others holds both."""
    problem = CompressedSensing(n=50, m=25)
    oamp = ff.iterate(ff.algorithms.OAMP(), 3)
    each = conformal(lambda obs: Estimate(oamp(obs).x), problem, samples=600)
    x, obs = draws_of(problem, 2000)
    interval, signal = each(obs), x != 0
    held = ((interval.low <= x) & (x <= interval.high))[signal].double().mean().item()
    assert each.not_zero is not None
    assert abs(each.not_zero - held) < 0.05  # 600 draws have some 3000 such entries, 2000 draws 10 000
    assert each.misses_signals
    assert f"only about {100 * each.not_zero:.0f} % are held" in each.promise
    joint = conformal(lambda obs: Estimate(oamp(obs).x), problem, kind="joint", samples=600)
    assert not joint.misses_signals
    assert not conformal(LINEAR.posterior, LINEAR, samples=600).misses_signals
    before = {name: value for name, value in each.as_dict().items() if name != "not_zero"}  # as it was written once
    assert torch.equal(Conformal.from_dict(each.estimator, before)(obs).radius, interval.radius)


@pytest.mark.parametrize("kind", ["each", "joint", "energy"])
def test_one_sample_or_many_axes_of_them_are_the_same(kind):
    cal = conformal(LINEAR.posterior, LINEAR, kind=kind, groups=2, samples=600)
    x, obs = draws_of(LINEAR, 6)
    whole = cal(obs)
    folded = cal(Observation(obs.y.reshape(2, 3, -1), None, obs.noise_var))
    one = cal(Observation(obs.y[4], None, obs.noise_var))
    assert torch.allclose(folded.low.reshape(6, -1), whole.low, rtol=1e-5, atol=1e-6)
    assert torch.allclose(one.high, whole.high[4], rtol=1e-5, atol=1e-6)
    assert folded.covers(x.reshape(2, 3, -1)).shape == whole.covers(x).reshape(2, 3, *whole.covers(x).shape[1:]).shape


def test_pictures_are_one_sample_each():
    generator = torch.Generator().manual_seed(9)
    x = torch.randn(3000, 4, 5, generator=generator)
    y = x + torch.randn(x.shape, generator=generator)
    half = lambda obs: Estimate(obs.y / 2)  # noqa: E731
    cal = conformal(half, (x[:1000], Observation(y[:1000])), kind="joint")
    interval = cal(Observation(y[1000:]))
    assert interval.low.shape == (2000, 4, 5)
    assert interval.covers(x[1000:]).shape == (2000,)
    assert within(coverage(interval, x[1000:]), 0.9, cal.draws)
    with pytest.raises(ValueError, match="calibrated for"):
        cal(Observation(y[:, :2]))


def test_calibration_draws_are_those_of_the_seed_and_of_no_other_stream():
    first, again, other = (conformal(LINEAR.posterior, LINEAR, samples=100, seed=s) for s in (1, 1, 2))
    assert torch.equal(first.thresholds, again.thresholds)
    assert not torch.equal(first.thresholds, other.thresholds)


def test_the_average_threshold_loses_no_more_than_its_share():
    scores = torch.arange(40, dtype=torch.float64).reshape(10, 4)
    q = average_quantile(scores, 0.7)
    missed = (scores > q).double().mean(-1)
    assert (missed.sum() + 1) / 11 <= 0.3 < (missed.sum() + 0.25 + 1) / 11


def test_mistakes_are_named():
    for settings, words in (
        ({"kind": "both"}, "kind is 'both'"),
        ({"scale": "width"}, "scale is 'width'"),
        ({"coverage": 90}, "probability between 0 and 1"),
        ({"groups": 0}, "at least 1"),
        ({"groups": 2, "kind": "average"}, "1 for kind='average'"),
    ):
        with pytest.raises(ValueError, match=words):
            conformal(LINEAR.posterior, LINEAR, samples=100, **settings)
    with pytest.raises(ValueError, match="needs an estimator with var"):
        conformal(lambda obs: Estimate(obs.y), LINEAR, scale="variance", samples=100)
    for settings in ({}, {"scale": "magnitude"}, {"groups": 2}, {"kind": "joint", "scale": "constant"}):
        with pytest.raises(ValueError, match="calibration draws"):
            conformal(LINEAR.posterior, LINEAR, samples=1, **settings)
    x, obs = draws_of(LINEAR, 30)
    with pytest.raises(ValueError, match="not finite"):
        conformal(lambda obs: Estimate(obs.y / 0), (x, obs))
    with pytest.raises(ValueError, match="for 30 observations"):
        conformal(LINEAR.posterior, (x[:20], obs))
    with pytest.raises(ValueError, match="where x is"):
        conformal(lambda obs: Estimate(obs.y[:, :2]), (x, obs))


def test_intervals_equal_those_of_mapie():
    regression = pytest.importorskip("mapie.regression")
    import numpy as np
    from sklearn.linear_model import LinearRegression

    generator = torch.Generator().manual_seed(11)
    y = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    x = y.sum(-1, keepdim=True) + torch.randn(400, 1, generator=generator, dtype=torch.float64)
    model = LinearRegression().fit(y[:100].numpy(), x[:100, 0].numpy())
    peer = regression.SplitConformalRegressor(model, confidence_level=0.9, prefit=True)
    peer.conformalize(y[100:300].numpy(), x[100:300, 0].numpy())
    _, theirs = peer.predict_interval(y[300:].numpy())
    estimator = lambda obs: Estimate(torch.as_tensor(model.predict(obs.y.numpy()))[:, None])  # noqa: E731
    ours = conformal(estimator, (x[100:300], Observation(y[100:300])))(Observation(y[300:]))
    np.testing.assert_allclose(torch.stack([ours.low[:, 0], ours.high[:, 0]], -1), theirs[:, :, 0], rtol=0, atol=1e-12)
