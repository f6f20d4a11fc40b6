"""Laws of every channel estimator: shapes, precisions, scales and devices."""

import functools

import pytest
import torch

import fanfold as ff
from fanfold.core.units import nmse_db, power
from fanfold.estimators import ofdm
from fanfold.estimators.ofdm import scale
from fanfold.linops import kronecker

CHANNELS = ff.problems.OFDMChannel("umi", "comb-4", snr_db=10.0)
NETWORKS = {
    "beam-mixer": ofdm.MixerSettings(8, 6, 1, 6, 16, 16),
    "grid-cnn": ofdm.CNNSettings(width=8, depth=2, modes=6),
    "beam-delay-admm": ofdm.ADMMSettings(2, 32, 4),
    "beam-delay-oamp": ofdm.OAMPSettings(2, 32, 4),
    "learned-filters": ofdm.FilterSettings(3, 2, 6, 1, 4, 8, 2),
    "adapted": ofdm.AdaptedSettings(ofdm.MixerSettings(8, 6, 1, 6, 16, 16)),
}
MADE = {
    "linear": ofdm.Interpolation.of,
    "threshold": ofdm.DelayThreshold.of,
    "robust": lambda p: ofdm.Wiener.of(p, ofdm.ChannelCovariance.robust(p.layout), "grid"),
    "lmmse-space": lambda p: ofdm.Wiener.of(p, covariance(p), "space"),
    "lmmse": lambda p: ofdm.Wiener.of(p, covariance(p)),
    "lmmse-known-power": lambda p: ofdm.Wiener.of(p, covariance(p), known_power=True),
    "full": lambda p: ofdm.FullGaussian.of(p, 500, modes=6),
    "gmm": lambda p: ofdm.KroneckerGMM.of(p, ofdm.Mixture.of(p, 3, 300, 2)),
    "omp": lambda p: ofdm.BeamDelayOMP.of(p, 8),
    "oamp": lambda p: ofdm.BeamDelayOAMP.of(p, 4),
}
every = pytest.mark.parametrize("kind", [*MADE, *NETWORKS])


def covariance(problem):
    return ofdm.ChannelCovariance.of(problem, 300)


def prepared(problem, kind):
    if kind in MADE:
        return MADE[kind](problem).requires_grad_(requires_grad=False)
    net = NETWORKS[kind].build(problem).requires_grad_(requires_grad=False)
    net.prepare(*problem.sample(300, torch.Generator().manual_seed(0)))
    return net


@functools.cache
def estimator(kind):
    return prepared(CHANNELS, kind)


@functools.cache
def observed():
    return CHANNELS.held_out().sample(6, torch.Generator().manual_seed(1))


def test_no_network_is_left_out():
    assert NETWORKS.keys() == ofdm.REGISTRY.keys()


@every
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("known", [True, False])
def test_leading_axes_and_precision_are_those_of_the_observation(kind, dtype, known):
    _, obs = observed()
    y, v = obs.y.to(dtype), obs.noise_var.to(dtype.to_real()) if known else None
    whole = estimator(kind)(ff.Observation(y, None, v))
    each = None if v is None else v.expand(3, 1)
    for shape, noise_var in (((6,), v), ((2, 3), v), ((2, 3), each)):
        found = estimator(kind)(ff.Observation(y.reshape(*shape, -1), None, noise_var))
        assert found.x.shape == (*shape, CHANNELS.layout.n)
        assert found.x.dtype == dtype
        # single precision, whose products a batch of another shape may take in another order
        torch.testing.assert_close(found.x.reshape(6, -1), whole.x, rtol=1e-4, atol=1e-5)
        if found.var is not None:
            assert found.var.shape == found.x.shape
            assert found.var.dtype == dtype.to_real()
    alone = estimator(kind)(ff.Observation(y[0], None, v))
    torch.testing.assert_close(alone.x, whole.x[0], rtol=1e-3, atol=1e-4)


@every
@pytest.mark.parametrize("level", [1e-36, 1e-12, 1e12, 1e33])
def test_channels_of_any_power_are_learned_and_estimated_alike(kind, level):
    if kind == "lmmse-known-power":
        pytest.skip("takes channels to have unit power")
    found = []
    for problem in (CHANNELS, CHANNELS.shifted(power=level)):
        x, obs = problem.held_out().sample(32, torch.Generator().manual_seed(2))
        estimate = prepared(problem, kind)(obs)
        spread = None if estimate.var is None else (power(estimate.x - x) / estimate.var).mean().item()
        found.append((nmse_db(estimate.x, x), spread))
    (nmse, spread), (other_nmse, other_spread) = found
    assert other_nmse == pytest.approx(nmse, abs=0.02)  # dB; rounding moves iterative ones a little
    assert spread is None or other_spread == pytest.approx(spread, rel=0.02)


@every
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("exponent", [-60, -30, 30, 60])
def test_no_bit_depends_on_a_power_of_two(kind, exponent, known):
    """At 1e-18 squares are subnormal in single precision or nearly so."""
    _, obs = observed()
    c, noise_var = 2.0**exponent, obs.noise_var if known else None
    whole = estimator(kind)(ff.Observation(obs.y, None, noise_var))
    scaled = estimator(kind)(ff.Observation(c * obs.y, None, None if noise_var is None else c * c * noise_var))
    if kind == "lmmse-known-power":  # which takes its channels to have unit power, and says so
        assert not estimator(kind).scale_equivariant
        assert torch.isfinite(scaled.x).all()
        return
    assert torch.equal(scaled.x, c * whole.x)
    assert (scaled.var is None) == (whole.var is None)
    if whole.var is not None:  # at 1e-36 some are subnormal, multiples of 1.4e-45
        torch.testing.assert_close(scaled.var, c * c * whole.var, rtol=1e-6, atol=2e-45)


@every
def test_powers_that_are_no_numbers_are_refused_or_not_needed(kind):
    _, obs = observed()
    y = obs.y.clone()
    y[2] *= 1e25
    if estimator(kind)(ff.Observation(obs.y)).var is None and kind != "lmmse-known-power":
        assert torch.isfinite(estimator(kind)(ff.Observation(y)).x).all()
    else:
        with pytest.raises(ValueError, match=r"y of sample 2 is of size .*\+25.*double precision"):
            estimator(kind)(ff.Observation(y))
    if kind != "lmmse-known-power":
        double = estimator(kind)(ff.Observation(y.to(torch.complex128)))
        assert torch.isfinite(double.x).all()
        assert double.var is None or (double.var[2] > 0).all()


@every
def test_silence_changes_no_other_sample_and_is_not_certain(kind):
    _, obs = observed()
    whole, y, others = estimator(kind)(obs), obs.y.clone(), [0, 1, 3, 4, 5]
    y[2] = 0
    estimate = estimator(kind)(ff.Observation(y, None, obs.noise_var))
    assert torch.equal(estimate.x[others], whole.x[others])
    assert (estimate.x[2] == 0).all()
    # a signal a thousand times below the noise would be as silent: its power is what the estimate may err by
    assert estimate.var is None or estimate.var[2].mean() > 1e-4 * obs.noise_var


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
@every
def test_half_precision_comes_back_as_it_came(kind):
    _, obs = observed()
    y = obs.y.to(torch.complex32)
    whole = estimator(kind)(ff.Observation(y.to(torch.complex64), None, obs.noise_var))
    estimate = estimator(kind)(ff.Observation(y, None, obs.noise_var))
    assert estimate.x.dtype == torch.complex32
    assert torch.equal(estimate.x.to(torch.complex64), whole.x.to(torch.complex32).to(torch.complex64))
    assert whole.var is None or torch.equal(estimate.var, whole.var.half())


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_without_power_teach_nothing(name):
    x, obs = CHANNELS.sample(8, torch.Generator().manual_seed(0))
    net = NETWORKS[name].build(CHANNELS)
    with pytest.raises(ValueError, match=r"largest entry of the 8 channels to learn from is 0\.0"):
        net.prepare(0 * x, obs)


@every
def test_real_pilots_are_refused(kind):
    _, obs = observed()
    with pytest.raises(ValueError, match="pilots of a channel are complex"):
        estimator(kind)(ff.Observation(obs.y.real.contiguous()))


@every
def test_it_runs_where_it_is_moved_to(kind, monkeypatch):
    """A device without numbers: what stays behind on the CPU cannot be combined with what is there."""
    if kind in ("omp", "beam-delay-oamp"):
        pytest.skip("one ends by the numbers that it finds, the other's prior has a power that is read as a number")
    monkeypatch.setattr(kronecker, "refuse_non_finite", lambda *_: None)  # which looks at numbers, as does the other
    monkeypatch.setattr(scale, "check_power", lambda *_: None)
    _, obs = observed()
    net = prepared(CHANNELS, kind)
    net(obs)  # fills what is kept between calls
    moved = net.to("meta")
    there = ff.Observation.unchecked(obs.y.to("meta"), None, obs.noise_var.to("meta"))
    assert moved(there).x.device.type == "meta"


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        *((ofdm.MixerSettings, {k: 0}) for k in ("modes", "state", "stages", "delays", "beams", "width")),
        *(
            (ofdm.FilterSettings, {k: 0})
            for k in ("components", "rounds", "modes", "corrected", "width", "oversampling")
        ),
        (ofdm.FilterSettings, {"depth": 1}),
        (ofdm.FilterSettings, {"stages": -1}),
        *((ofdm.CNNSettings, {k: 0}) for k in ("width", "depth", "fold", "modes")),
        *((ofdm.ADMMSettings, {k: 0}) for k in ("iterations", "beams", "modes", "lam", "rho")),
        *((ofdm.OAMPSettings, {k: 0}) for k in ("iterations", "beams", "modes", "share", "damping")),
        (ofdm.OAMPSettings, {"share": 2.0}),
        (ofdm.ADMMSettings, {"lam": float("nan")}),
    ],
)
def test_sizes_that_make_no_network_are_refused(settings, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        settings(**wrong)
