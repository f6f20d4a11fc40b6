"""Silent sensors, silence and poor covariances: such a sample is NaN and named, the others are what they are alone."""

import math

import pytest
import torch

from fanfold.estimators import ESPRIT, MUSIC, Locator, MaximumAPosteriori, MaximumLikelihood, RootMUSIC
from fanfold.estimators.arrays.subspace import polynomial_roots
from fanfold.observation import Observation
from fanfold.problems import DirectionOfArrival, TimeDelay, Tone

ARRAY = DirectionOfArrival(sensors=8, sources=2, snapshots=10)
METHODS = {
    "MUSIC": MUSIC.of(ARRAY),
    "MUSIC within limits": MUSIC.of(ARRAY, limits=(-3.0, 3.0)),
    "MUSIC, smoothed": MUSIC.of(ARRAY, subarray=6),
    "Root-MUSIC": RootMUSIC.of(ARRAY),
    "ESPRIT": ESPRIT.of(ARRAY),
    "ESPRIT, least squares": ESPRIT.of(ARRAY, fit="least-squares"),
    "ESPRIT, forward": ESPRIT.of(ARRAY, forward_backward=False),
}
BAD = 2  # the sample that is spoilt
OTHERS = [0, 1, 3, 4]


def silence(Y):
    Y[BAD] = 0


def a_silent_sensor(Y):
    Y[BAD, 3] = 0


def a_sensor_far_below_rounding(Y):
    Y[BAD, 3] *= 1e-12


def a_single_live_sensor(Y):
    Y[BAD, 1:] = 0


def every_other_sensor(Y):
    Y[BAD, ::2] = 0


def one_wave_for_two_sources(Y):
    Y[BAD] = 1


SPOILT = {
    silence: "all sensors are silent",
    a_silent_sensor: "sensor 3 is silent",
    a_sensor_far_below_rounding: "sensor 3 is silent",
    a_single_live_sensor: "sensor 1 is silent",
    every_other_sensor: "sensor 0 is silent",
    one_wave_for_two_sources: "lower rank than its 2 sources",
}


def drawn(n: int = 5):
    return ARRAY.sample(n, torch.Generator().manual_seed(0))[1].y


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spoil", SPOILT)
def test_what_an_array_cannot_tell_is_nan_and_named_and_the_others_live(name, spoil):
    method, y = METHODS[name], drawn()
    whole = method(Observation(y)).x
    Y = ARRAY.snapshot_matrix(y.clone())
    spoil(Y)
    with pytest.warns(UserWarning, match=f"1 of 5 samples.*of sample {BAD} .*{SPOILT[spoil]}"):
        x = method(Observation(Y.flatten(-2))).x
    assert x[BAD].isnan().all()
    assert torch.equal(x[OTHERS], whole[OTHERS])
    with pytest.warns(UserWarning, match="1 of 1 samples"):
        assert method(Observation(Y[BAD].flatten())).x.isnan().all()


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [1e-150, 1e-15, 1e15, 1e150])
def test_powers_of_any_scale_give_the_same_angles(name, scale):
    y = drawn().to(torch.complex128)
    # roots that are nearly double move by the root of rounding
    assert (METHODS[name](Observation(scale * y)).x - METHODS[name](Observation(y)).x).abs().max() < 1e-7
    # by a power of two, the covariance is the same but for the order of its sums; LAPACK's bits vary from call to call
    R = METHODS[name].covariance(y)
    two = 2.0 ** round(math.log2(scale))
    assert (METHODS[name].covariance(two * y) - R).abs().max() <= 8 * torch.finfo(torch.float64).eps * R.abs().max()


@pytest.mark.parametrize("sensors", [4, 8])
def test_a_root_at_infinity_ends_nothing(sensors):
    """Waves half a turn apart on an even array: the polynomial's last coefficient vanishes."""
    x = torch.tensor([[-math.pi / 2, math.pi / 2]], dtype=torch.float64)
    steering = torch.polar(torch.ones(1, sensors, 2, dtype=torch.float64), torch.arange(sensors)[:, None] * x[:, None])
    y = (steering @ torch.eye(2, dtype=torch.complex128)).flatten(-2)  # orthogonal waves in turn
    # a root that is far away takes half of the digits, and those on the circle are double: eps to the power of 1/4
    assert (RootMUSIC(sensors, 2)(Observation(y)).x - x).abs().max() < 5e-4
    roots = polynomial_roots(torch.tensor([[2.0, -3.0, 1.0, 0.0]], dtype=torch.complex128))[0]
    near = roots[roots.abs().argsort()[:2]]
    assert (near - torch.tensor([1.0, 2.0])).abs().max() < 1e-12


LOCATED = {
    "tone": Tone(snr_db=20.0),
    "tone of any gain": Tone(snr_db=20.0, gain="rayleigh"),
    "delay": TimeDelay(snr_db=20.0),
    "direction": DirectionOfArrival(sensors=8, snapshots=4),
    "direction of unknown signals": DirectionOfArrival(sensors=8, snapshots=4, signals="deterministic"),
}


@pytest.mark.parametrize("name", LOCATED)
@pytest.mark.parametrize("method", [MaximumLikelihood, MaximumAPosteriori])
def test_silence_tells_no_place(name, method):
    problem = LOCATED[name]
    estimator, (_, obs) = method.of(problem), problem.sample(5, torch.Generator().manual_seed(0))
    whole, y = estimator(obs), obs.y.clone()
    y[BAD] = 0
    with pytest.warns(UserWarning, match=f"NaN for 1 of 5 samples.*objective of sample {BAD} is the same"):
        estimate = estimator(Observation(y, None, obs.noise_var))
    assert estimate.x[BAD].isnan().all()
    assert estimate.var[BAD].isinf().all()
    assert torch.equal(estimate.x[OTHERS], whole.x[OTHERS])
    assert torch.equal(estimate.var[OTHERS], whole.var[OTHERS])


@pytest.mark.parametrize("scale", [1e-18, 1e-15, 1e15, 1e18])
def test_places_of_any_gain_do_not_depend_on_the_units(scale):
    problem = LOCATED["tone of any gain"]
    estimator, (_, obs) = MaximumLikelihood.of(problem), problem.sample(20, torch.Generator().manual_seed(0))
    y, noise_var = obs.y.to(torch.complex128), obs.noise_var.double()
    usual, scaled = (estimator(Observation(c * y, None, c**2 * noise_var)) for c in (1.0, scale))
    # Newton's last step is below 1e-6 standard deviations
    assert ((scaled.x - usual.x) / usual.var.sqrt()).abs().max() < 1e-4
    assert (scaled.var / usual.var - 1).abs().max() < 1e-4


@pytest.mark.parametrize("known_noise", [True, False])
@pytest.mark.parametrize("scale", [0.0, 1e-25, 1e25])
def test_a_locator_takes_silence_for_no_news_and_any_scale_for_what_it_is(scale, known_noise):
    problem = LOCATED["tone"]
    net, (_, obs) = Locator.of(problem), problem.sample(5, torch.Generator().manual_seed(0))
    y, noise_var = obs.y.to(torch.complex128), obs.noise_var.double() if known_noise else None
    whole = net(Observation(y, None, noise_var))
    y = y.clone()
    y[BAD] *= scale
    if known_noise:
        noise_var = noise_var.expand(5, 1).clone()
        noise_var[BAD] *= scale**2 or 1.0
    estimate = net(Observation(y, None, noise_var))
    assert torch.equal(estimate.x[OTHERS], whole.x[OTHERS])
    assert torch.isfinite(estimate.x).all()
    low, high = problem.window
    if scale == 0:
        spread = (high - low) / math.sqrt(12)
        assert estimate.x[BAD].abs() < 0.1 * spread
        assert estimate.var[BAD].sqrt() > 0.7 * spread
    else:
        assert (estimate.x[BAD] - whole.x[BAD]).abs() < 1e-5
        assert (estimate.var[BAD] / whole.var[BAD] - 1).abs() < 1e-3
