"""Laws of every channel estimator: shapes, precisions, scales and devices."""

import functools

import pytest
import torch

import fanfold as ff
from fanfold.core.units import nmse_db, power
from fanfold.estimators import ofdm
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
@pytest.mark.parametrize("level", [1e-12, 1e12])
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
def test_it_runs_where_it_is_moved_to(kind, monkeypatch):
    """A device without numbers: what stays behind on the CPU cannot be combined with what is there."""
    if kind in ("omp", "beam-delay-oamp"):
        pytest.skip("one ends by the numbers that it finds, the other's prior has a power that is read as a number")
    monkeypatch.setattr(kronecker, "refuse_non_finite", lambda *_: None)  # which looks at numbers
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
