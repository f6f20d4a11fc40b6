"""Laws of the front end of channel networks: scale, noise variance, pairs."""

import pytest
import torch

import fanfold as ff
from fanfold.core.complex_pairs import as_pairs
from fanfold.core.streams import generator_of
from fanfold.estimators.base import MeasuresNoise
from fanfold.estimators.ofdm import ADMMSettings, FilterSettings, MixerSettings
from fanfold.estimators.ofdm.front_end import SMALLEST_NOISE_VAR, FrontEnd

CHANNELS = ff.problems.OFDMChannel("kronecker:array=2x2x2,subcarriers=12,delay_spread_ns=300", "comb-2", (0.0, 20.0))
NETWORKS = {
    "grid": MixerSettings(6, 6, 1, 6, 8, 12),
    "mixture": FilterSettings(2, 2, modes=4, stages=1, corrected=3, width=8, depth=2),
    "unfolded": ADMMSettings(2, 16, 4),
}
families = pytest.mark.parametrize("settings", NETWORKS.values(), ids=NETWORKS)


@pytest.fixture
def observed():
    return CHANNELS.sample(20, generator_of(0))


@pytest.mark.parametrize("known", [True, False])
def test_pilots_and_noise_are_brought_to_unit_power_of_the_channel(known, observed):
    x, obs = observed
    front_end, factor = FrontEnd(8, 6), 2.0**-40
    y, noise_var = as_pairs(obs.y), obs.noise_var if known else None
    at = front_end(y, noise_var)
    scaled = front_end(factor * y, None if noise_var is None else factor**2 * noise_var)
    for part, other in ((at.y, scaled.y), (at.noise_var, scaled.noise_var), (at.scale * factor**2, scaled.scale)):
        assert torch.equal(part, other)  # of a power of two not even the rounding differs
    # the power of a draw is that of its pilots to within the noise that they have, 20 draws of 48
    assert at.scale.mean() == pytest.approx(x.abs().square().mean().item(), rel=0.2 if known else 0.5)
    assert at.y.shape == (20, 8, 2 * 6)


def test_a_known_power_is_not_measured(observed):
    _, obs = observed
    at = FrontEnd(8, 6, known_power=True)(as_pairs(obs.y), obs.noise_var)
    assert (at.scale == 1).all()
    assert torch.equal(at.noise_var, obs.noise_var)


def test_noise_that_is_all_but_none_has_a_bound_and_silence_a_scale():
    at = FrontEnd(8, 6)(torch.zeros(3, 48, 2), torch.zeros(3, 1))
    assert (at.noise_var == SMALLEST_NOISE_VAR).all()
    assert (at.scale > 0).all()
    assert (at.y == 0).all()


@families
def test_both_families_measure_an_unknown_noise_variance_by_their_front_end(settings, observed):
    x, obs = observed
    net = settings.build(CHANNELS).requires_grad_(requires_grad=False)
    net.prepare(x, obs)
    assert isinstance(net, MeasuresNoise)
    assert net.measures_noise
    measured = net.front_end.noise_variance(obs.y)
    blind, told = net(ff.Observation(obs.y, obs.A)), net(ff.Observation(obs.y, obs.A, measured))
    assert torch.equal(blind.x, told.x)
    assert torch.equal(blind.var, told.var)


@families
def test_losses_take_observations_of_any_precision(settings, observed):
    x, obs = observed
    net = settings.build(CHANNELS)
    net.prepare(x, obs)
    double = ff.Observation(obs.y.to(torch.complex128), None, obs.noise_var.double())
    assert torch.equal(net.losses(double, x), net.losses(obs, x))
