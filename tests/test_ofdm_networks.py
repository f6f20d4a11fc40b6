"""Laws of the learned channel estimators."""

import copy

import pytest
import torch

import fanfold as ff
from fanfold.estimators.ofdm import (
    ADMMSettings,
    BeamMixer,
    ChannelCovariance,
    CNNSettings,
    GridCNN,
    MixerSettings,
    OAMPSettings,
    UnfoldedADMM,
    UnfoldedOAMP,
    Wiener,
)
from fanfold.training.events import Validated

CHANNELS = ff.problems.OFDMChannel(pilots="comb-4", snr_db=(0, 20))
MAKE = {
    "beam-mixer": lambda p, **k: BeamMixer.of(p, MixerSettings(48, 6, 2, 6, 24, 16, **k)),
    "grid-cnn": lambda p, **k: GridCNN.of(p, CNNSettings(width=16, depth=3, **k)),
    "unfolded-admm": lambda p, **k: UnfoldedADMM.of(p, ADMMSettings(3, 48, 6, **k)),
    "unfolded-oamp": lambda p, **k: UnfoldedOAMP.of(p, OAMPSettings(3, 48, 6, **k)),
}
networks = pytest.mark.parametrize("kind", MAKE)


@pytest.fixture(scope="module")
def drawn():
    """Channels to prepare with, and a few to estimate."""
    generator = torch.Generator().manual_seed(0)
    return CHANNELS.sample(400, generator), CHANNELS.held_out().sample(16, generator)


@pytest.fixture(scope="module")
def prepared(drawn):
    """Networks as they stand when training begins."""
    nets = {kind: make(CHANNELS) for kind, make in MAKE.items()}
    for net in nets.values():
        net.prepare(*drawn[0])
    return nets


@pytest.fixture(scope="module")
def shaken(drawn):
    """Networks whose weights have moved, all of them."""
    nets = {kind: make(CHANNELS) for kind, make in MAKE.items()}
    generator = torch.Generator().manual_seed(1)
    for net in nets.values():
        net.prepare(*drawn[0])
        for p in net.parameters():
            p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return nets


@pytest.mark.parametrize("kind", ["beam-mixer", "grid-cnn"])
def test_untrained_it_is_lmmse(kind, prepared, drawn):
    (x, _), (_, obs) = drawn
    antennas, _, entries = CHANNELS.layout.shape
    h = x.unflatten(1, (antennas, entries)).to(torch.complex128)
    h = h / h.abs().square().mean((1, 2), keepdim=True).sqrt()
    space = torch.einsum("bae,bce->ac", h, h.conj()) / (len(h) * entries)
    grid = torch.einsum("bae,baf->ef", h, h.conj()) / (len(h) * antennas)
    filtered = Wiener.of(CHANNELS, ChannelCovariance(space, grid))(obs).x
    # single precision: antennas · pilots products, each rounded, of which the errors add at worst
    assert (prepared[kind](obs).x - filtered).abs().max() < 1e-7 * obs.y.shape[1] * filtered.abs().max()


@pytest.mark.parametrize("kind", ["unfolded-admm", "unfolded-oamp"])
def test_untrained_it_is_the_classical_algorithm(kind, drawn):
    _, (_, obs) = drawn
    net = MAKE[kind](CHANNELS, known_power=True)
    net.prepare(*drawn[0])
    s = ff.iterate(net.within.algorithm, net.within.layers)(ff.Observation(obs.y, net.A, obs.noise_var)).x
    B, D = (torch.complex(*part).mT for part in (net.B, net.D))
    expected = (B @ s.unflatten(1, (B.shape[1], D.shape[1])) @ D.mT).flatten(1)
    # single precision, the sums of one product over all coefficients taken in another order
    torch.testing.assert_close(net(obs).x, expected, rtol=0, atol=1e-7 * s.shape[1] * expected.abs().max().item())


@pytest.mark.parametrize("kind", ["unfolded-admm", "unfolded-oamp"])
def test_the_dictionary_says_what_channels_are_made_of(kind, prepared, drawn):
    (x, _), _ = drawn
    net = prepared[kind]
    B, D = (torch.complex(*part).mT for part in (net.B, net.D))
    levels = torch.ones(B.shape[1] * D.shape[1])
    if kind == "unfolded-oamp":
        levels = net.within.algorithm.prior.factors
    power = (levels.reshape(B.shape[1], -1) * B.abs().square().sum(0)[:, None] * D.abs().square().sum(0)).sum()
    # modes left out carry some of the power, and the mean square of a mode at the pilots is not that elsewhere
    assert abs(power.item() / x.shape[1] - 1) < 0.05


@pytest.mark.parametrize("kind", ["unfolded-admm", "unfolded-oamp"])
def test_the_operator_follows_its_dictionary(kind, drawn):
    def told(net):
        B, D = (torch.complex(*part).mT for part in (net.B, net.D))
        return torch.kron(B.contiguous(), D[net.pick].contiguous())

    _, (_, obs) = drawn
    net, other = (MAKE[kind](CHANNELS) for _ in range(2))
    net(obs)
    white = net.A.matrix()
    net.prepare(*drawn[0])
    assert not torch.equal(net.A.matrix(), white)
    torch.testing.assert_close(net.A.matrix(), told(net), rtol=1e-5, atol=1e-7)  # products of single precision
    other(obs)
    other.load_state_dict(net.state_dict())
    twin = copy.deepcopy(net)
    with torch.no_grad():
        twin.D *= 2
        for changed in (other, twin):
            before = changed.within.fingerprint
            torch.testing.assert_close(changed.A.matrix(), told(changed), rtol=1e-5, atol=1e-7)
            assert changed.within.fingerprint == before  # to read the operator changes nothing
            assert changed.bind() is changed.A
            assert changed.within.fingerprint == changed.A.fingerprint()
        assert torch.equal(other(obs).x, net(obs).x)
    torch.testing.assert_close(net.A.matrix(), told(net), rtol=1e-5, atol=1e-7)  # what a copy does stays there


@networks
def test_a_scale_and_a_phase_of_the_channel_pass_through(kind, shaken, drawn):
    _, (_, obs) = drawn
    factor = 1e-6 * torch.exp(torch.tensor(1.3j))
    with torch.no_grad():
        at, moved = shaken[kind](obs), shaken[kind](ff.Observation(factor * obs.y, obs.A, 1e-12 * obs.noise_var))
    # of single precision, through tens of products
    torch.testing.assert_close(moved.x / factor, at.x, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(moved.var / 1e-12, at.var, rtol=1e-3, atol=0)


@networks
def test_it_measures_an_unknown_noise_variance(kind, prepared, drawn):
    _, (x, obs) = drawn
    with torch.no_grad():
        told, untold = prepared[kind](obs), prepared[kind](ff.Observation(obs.y, obs.A))
    # LMMSE with a wrong variance v' loses at most (v'/v + v/v')/2 - 1 of its error: a quarter for a factor of two
    assert ff.units.nmse_db(untold.x, x) < ff.units.nmse_db(told.x, x) + 1


@networks
def test_silence_and_noise_give_finite_estimates_and_gradients(kind, shaken, drawn):
    _, (x, obs) = drawn
    for level in (0, 1e-30, 1):  # powers of the second are below the smallest number
        for noise_var in (None, obs.noise_var, 0 * obs.noise_var):
            net, at = shaken[kind], ff.Observation(level * obs.y, obs.A, noise_var)
            net.zero_grad()
            estimate = net(at)
            assert torch.isfinite(torch.view_as_real(estimate.x)).all()
            assert torch.isfinite(estimate.var).all()
            assert (estimate.var >= 0).all()
            net.losses(at, level * x).mean().backward()
            assert all(torch.isfinite(p.grad).all() for p in net.parameters() if p.grad is not None)


@networks
def test_gradients_reach_every_weight(kind, shaken, drawn):
    _, (x, obs) = drawn
    net = shaken[kind]
    net.zero_grad()
    net.losses(obs, x).mean().backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


@networks
def test_the_error_variance_does_not_move_the_estimate(kind, shaken, drawn):
    _, (_, obs) = drawn
    net = shaken[kind]
    net.zero_grad()
    net(obs).var.sum().backward()
    heads = {"hidden.weight", "hidden.bias", "spread.weight", "spread.bias"}
    moved = {name for name, p in net.named_parameters() if p.grad is not None and (p.grad != 0).any()}
    assert moved == heads


@networks
def test_no_error_variance_is_far_above_the_power_of_the_channel(kind, shaken, drawn):
    _, (_, obs) = drawn
    loud = obs.y.clone()
    loud[:, ::7] *= 1e4  # as no channel is
    with torch.no_grad():
        var = shaken[kind](ff.Observation(loud, obs.A, obs.noise_var)).var
    # at unit power, which is measured at the pilots
    assert (var.amax(1) <= 2.01 * loud.abs().square().mean(1)).all()


@networks
def test_training_lowers_the_error(kind):
    problem = CHANNELS.shifted(snr_db=10)
    net = MAKE[kind](problem)
    scores = []
    ff.fit(
        net,
        problem,
        steps=240,
        batch=32,
        lr=8e-3,
        validate_every=240,
        validation_samples=100,
        on_event=lambda e: scores.append(e.nmse_db) if isinstance(e, Validated) else None,
    )
    assert scores[-1] < scores[0] - 0.1


@networks
def test_slots_of_many_symbols_and_arrays_of_one_axis(kind):
    problem = ff.problems.OFDMChannel("jakes:array=4,subcarriers=12,symbols=4", pilots="comb-2@0,3", snr_db=(10, 20))
    net = MAKE[kind](problem)
    generator = torch.Generator().manual_seed(0)
    net.prepare(*problem.sample(400, generator))
    x, obs = problem.sample(50, generator)
    with torch.no_grad():
        estimate = net(obs)
    assert estimate.x.shape == estimate.var.shape == x.shape
    assert ff.units.nmse_db(estimate.x, x) < -6  # pilots are at 10 dB or better: LMMSE does not leave twice their noise


@networks
def test_pilots_of_another_grid_are_refused(kind, prepared):
    _, obs = CHANNELS.shifted(pilots="comb-2").sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="6 pilots"):
        prepared[kind](obs)
