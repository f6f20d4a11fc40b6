"""Laws of the channel estimators that look for few paths, with nothing learned."""

import math

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.noise import circular
from fanfold.core.units import nmse_db, power
from fanfold.estimators.ofdm import BeamDelayOAMP, BeamDelayOMP, DelayThreshold, Interpolation
from fanfold.estimators.ofdm.delay_threshold import median_noise
from fanfold.estimators.ofdm.path_grid import beam_delay_grid

CHANNELS = ff.problems.OFDMChannel(source="kronecker:array=2x4x4,subcarriers=24", pilots="comb-2")
PERIOD = 1 / CHANNELS.layout.spacing_hz / 2  # delays that the pilots tell apart
MAKE = {
    "threshold": DelayThreshold.of,
    "omp": lambda p, **k: BeamDelayOMP.of(p, beams=1, delays=1, longest_delay_s=0.5 * PERIOD, **k),
    "oamp": lambda p, **k: BeamDelayOAMP.of(p, beams=1, delays=1, longest_delay_s=0.5 * PERIOD, **k),
}
SPARSE = pytest.mark.parametrize("kind", MAKE)
PATHS = 3


def on_the_grid(n, noise_var, seed=0):
    """Channels of a few paths of equal power on the orthogonal grid of beams and of delays, and noisy pilots."""
    generator = torch.Generator().manual_seed(seed)
    B, D = beam_delay_grid(CHANNELS.layout, 1, 1, 0.5 * PERIOD)
    x = torch.zeros(n, len(B), len(D), dtype=torch.complex128)
    for draw in range(n):
        beams = torch.randperm(B.shape[1], generator=generator)[:PATHS]
        delays = torch.randint(D.shape[1], (PATHS,), generator=generator)
        phases = torch.polar(torch.ones(PATHS), 6.3 * torch.rand(PATHS, generator=generator)).to(B.dtype)
        size = PATHS**-0.5 * math.sqrt(B.shape[1] / B[:, 0].abs().square().sum())  # atoms have one polarisation
        x[draw] = size * (B[:, beams] * phases) @ D[:, delays].mT
    x = x.flatten(1).to(torch.complex64)
    y = CHANNELS.A @ x
    y = y + circular(tuple(y.shape), generator, y.dtype, noise_var)
    return x, ff.Observation(y, CHANNELS.A, torch.tensor(noise_var))


@pytest.mark.parametrize("kind", ["omp", "oamp"])
def test_paths_on_the_grid_are_recovered(kind):
    x, obs = on_the_grid(20, 1e-8)
    # least squares on the paths leaves 3 · 1e-8 of 384 pilots; single precision less; an atom too many 7 times as much
    assert nmse_db(MAKE[kind](CHANNELS)(obs).x, x) < -90


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", ["omp", "oamp"])
def test_paths_in_noise_cost_about_their_number(kind, known):
    x, obs = on_the_grid(100, 0.1)
    est = MAKE[kind](CHANNELS)(obs if known else ff.Observation(obs.y, obs.A))
    oracle = PATHS * 0.1 / CHANNELS.A.m
    # atoms of noise that are taken for paths have a power of about the logarithm of the atoms, 6 noise variances
    assert power(est.x - x).mean() < oracle * (1 + 6)


def test_what_a_threshold_leaves_is_the_noise_of_paths_and_false_alarms():
    noise_var, m = 0.01, CHANNELS.A.m
    x, obs = on_the_grid(300, noise_var)
    error = DelayThreshold.of(CHANNELS)(obs).x - x
    total = power(CHANNELS.A @ error).sum(1) / noise_var
    # a share 1/m of exponential noises passes log m, and has on average one more than that
    expected = PATHS + (m - PATHS) / m * (math.log(m) + 1)
    assert abs(total.mean() - expected) < 4 * total.std() / len(total) ** 0.5


def test_the_median_tells_the_noise():
    p = power(circular((400, 768), torch.Generator().manual_seed(0), torch.complex64, 0.3))
    found = median_noise(p)
    assert found.shape == (400, 1)
    # a median of m exponentials of mean v deviates by v / sqrt(m) and is wrong by about v / m
    assert abs(found.mean() - 0.3) < 4 * 0.3 / math.log(2) / (400 * 768) ** 0.5 + 2 * 0.3 / 768


@pytest.mark.parametrize("known", [True, False])
@SPARSE
def test_estimates_grow_with_the_observation(kind, known):
    _, obs = CHANNELS.sample(8, torch.Generator().manual_seed(0))
    small = 2.0**-20  # about 1e-6; of a power of two not even the rounding differs
    v = obs.noise_var * small**2 if known and obs.noise_var is not None else None
    estimator = MAKE[kind](CHANNELS)
    one = estimator(obs if known else ff.Observation(obs.y, obs.A))
    other = estimator(ff.Observation(obs.y * small, obs.A, v))
    assert torch.allclose(other.x / small, one.x, rtol=1e-4, atol=1e-5)
    if one.var is not None:
        assert torch.allclose(other.var / small**2, one.var, rtol=1e-3)


@SPARSE
def test_silence_is_estimated_as_silence(kind):
    for noise_var in (torch.tensor(0.0), torch.tensor(0.1), None):
        est = MAKE[kind](CHANNELS)(ff.Observation(torch.zeros(2, CHANNELS.A.m, dtype=torch.complex64), None, noise_var))
        assert est.x.abs().max() < 1e-12
        assert est.var is None or est.var.isfinite().all()


@SPARSE
def test_one_observation_is_estimated_as_a_batch_is(kind):
    _, obs = on_the_grid(3, 0.01)
    alone = MAKE[kind](CHANNELS)(ff.Observation(obs.y[1], obs.A, obs.noise_var))
    assert alone.x.shape == (CHANNELS.layout.n,)
    assert torch.allclose(alone.x, MAKE[kind](CHANNELS)(obs).x[1], atol=1e-4)


@pytest.mark.parametrize("snr_db", [-5.0, 10.0])
def test_a_pursuit_that_is_told_the_noise_does_not_fit_it(snr_db):
    """Of a slot that stands still paths explain little: what they leave of half the draws is more than the noise."""
    source = "jakes:array=2x2,subcarriers=24,delay_spread_ns=300,speed_mps=0"
    problem = ff.problems.OFDMChannel(source, "dmrs-2:length=2,additional=1", snr_db)
    x, obs = problem.held_out().sample(60, torch.Generator().manual_seed(1))
    told, untold = (nmse_db(BeamDelayOMP.of(problem)(o).x, x) for o in (obs, ff.Observation(obs.y, obs.A)))
    assert told < untold + 0.5


@pytest.mark.parametrize("make", [DelayThreshold, BeamDelayOMP, BeamDelayOAMP])
def test_real_channels_are_sparse_enough_to_beat_least_squares(make):
    problem = ff.problems.OFDMChannel(source="umi", snr_db=10.0)
    x, obs = problem.held_out().sample(32, torch.Generator().manual_seed(0))
    assert nmse_db(make.of(problem)(obs).x, x) < nmse_db(Interpolation.of(problem)(obs).x, x) - 2


def test_paths_of_a_still_slot_are_found_over_time():
    problem = ff.problems.OFDMChannel("jakes:array=2x2,subcarriers=24,speed_mps=0", "comb-4@2,11", snr_db=20.0)
    x, obs = problem.sample(20, torch.Generator().manual_seed(0))
    for make in (BeamDelayOMP, BeamDelayOAMP, DelayThreshold):
        assert make.of(problem)(obs).x.shape == x.shape
    h = BeamDelayOMP.of(problem)(obs).x.reshape(-1, *problem.layout.shape)
    assert torch.allclose(h, h[:, :, :1].expand_as(h), atol=1e-5)


def test_what_does_not_fit_is_refused(tmp_path):
    _, other = ff.problems.OFDMChannel("rayleigh:array=2,subcarriers=24").sample(2, torch.Generator())
    for make in MAKE.values():
        with pytest.raises(ValueError, match="of each of 32 antennas"):
            make(CHANNELS)(other)
    with pytest.raises(ValueError, match="greater than zero"):
        DelayThreshold.of(CHANNELS, 0.0)
    with pytest.raises(ValueError, match="at least one path"):
        BeamDelayOMP.of(CHANNELS, 0)
    with pytest.raises(ValueError, match="greater than zero"):
        beam_delay_grid(CHANNELS.layout, longest_delay_s=0.0)
    mask = np.zeros((14, 12), bool)
    mask[2, ::2] = mask[11, 1::2] = True
    np.save(tmp_path / "mask.npy", mask)
    staggered = ff.problems.OFDMChannel("jakes:array=2,subcarriers=12", str(tmp_path / "mask.npy"))
    with pytest.raises(ValueError, match="other subcarriers in other symbols"):
        DelayThreshold.of(staggered)
