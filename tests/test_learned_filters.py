"""Laws of learned filters: a Gaussian mixture that is unfolded and trained."""

import dataclasses

import pytest
import torch

import fanfold as ff
from fanfold.estimators.ofdm import FilterSettings, KroneckerGMM, LearnedFilters, Mixture
from fanfold.training.events import Validated

CHANNELS = ff.problems.OFDMChannel(pilots="comb-4", snr_db=(0, 20))
SMALL = FilterSettings(components=3, rounds=3, modes=6, stages=2, corrected=4, width=16)


@pytest.fixture(scope="module")
def mixture():
    return Mixture.of(CHANNELS, 3, 400, rounds=4, modes=6)


@pytest.fixture(scope="module")
def drawn():
    return CHANNELS.held_out().sample(16, torch.Generator().manual_seed(0))


def moved(net):
    """A network of which every weight has moved."""
    generator = torch.Generator().manual_seed(1)
    for p in net.parameters():
        p.data += 0.02 * torch.randn(p.shape, generator=generator)
    return net


@pytest.fixture
def shaken(mixture):
    return moved(LearnedFilters.of(CHANNELS, SMALL, mixture=mixture))


@pytest.mark.parametrize("known", [True, False])
def test_untrained_it_is_the_mixture_bit_for_bit(mixture, drawn, known):
    _, obs = drawn
    obs = obs if known else ff.Observation(obs.y, obs.A)
    net = LearnedFilters.of(CHANNELS, SMALL, mixture=mixture)
    assert torch.equal(net(obs).x, KroneckerGMM.of(CHANNELS, mixture)(obs).x)


def test_without_stages_it_is_the_mixture_too(mixture, drawn):
    _, obs = drawn
    net = LearnedFilters.of(CHANNELS, FilterSettings(stages=0), mixture=mixture)
    assert torch.equal(net(obs).x, KroneckerGMM.of(CHANNELS, mixture)(obs).x)


def test_it_starts_from_expectation_maximisation_of_the_draws_it_is_prepared_with(drawn):
    x, obs = CHANNELS.sample(200, torch.Generator().manual_seed(2))
    nets = [LearnedFilters.of(CHANNELS, dataclasses.replace(SMALL, network_seed=seed)) for seed in (0, 0, 1)]
    for net in nets:
        net.prepare(x, obs)
    first, again, other = (net(drawn[1]).x for net in nets)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert ff.units.nmse_db(first, drawn[0]) < -10


def test_a_scale_and_a_phase_of_the_channel_pass_through(shaken, drawn):
    _, obs = drawn
    factor = 1e-6 * torch.exp(torch.tensor(1.3j))
    for noise_var in (obs.noise_var, None):
        at = shaken(ff.Observation(obs.y, obs.A, noise_var))
        scaled = ff.Observation(factor * obs.y, obs.A, None if noise_var is None else 1e-12 * noise_var)
        after = shaken(scaled)
        # of single precision, through tens of products
        torch.testing.assert_close(after.x / factor, at.x, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(after.var / 1e-12, at.var, rtol=1e-3, atol=0)


def test_silence_and_noise_give_finite_estimates_and_gradients(shaken, drawn):
    x, obs = drawn
    for level in (0, 1e-30, 1):  # powers of the second are below the smallest number
        for noise_var in (None, obs.noise_var, 0 * obs.noise_var):
            at = ff.Observation(level * obs.y, obs.A, noise_var)
            shaken.zero_grad()
            estimate = shaken(at)
            assert torch.isfinite(torch.view_as_real(estimate.x)).all()
            assert torch.isfinite(estimate.var).all()
            assert (estimate.var >= 0).all()
            shaken.losses(at, level * x).mean().backward()
            assert all(torch.isfinite(p.grad).all() for p in shaken.parameters() if p.grad is not None)


def test_gradients_reach_every_weight(shaken, drawn):
    x, obs = drawn
    shaken.losses(obs, x).mean().backward()
    assert {name for name, p in shaken.named_parameters() if p.grad is None or not (p.grad != 0).any()} == set()


def test_the_error_variance_does_not_move_the_estimate(shaken, drawn):
    shaken(drawn[1]).var.sum().backward()
    reached = {
        name.split(".")[0] for name, p in shaken.named_parameters() if p.grad is not None and (p.grad != 0).any()
    }
    assert reached == {"hidden", "spread"}


def test_every_weight_learns_and_those_of_the_mixture_more_slowly(mixture):
    net = LearnedFilters.of(CHANNELS, SMALL, mixture=mixture)
    slow, fast = net.parameter_groups(1.0)[1], net.parameter_groups(1.0)[0]
    assert len(slow["params"]) + len(fast["params"]) == len([*net.parameters()])
    assert slow["lr"] < fast["lr"] == 1.0


def test_training_beats_the_mixture_and_its_variance_is_that_of_its_errors(mixture):
    problem = CHANNELS.shifted(snr_db=10)
    net, scores = LearnedFilters.of(CHANNELS, SMALL, mixture=mixture), []
    ff.fit(
        net,
        problem,
        steps=60,
        batch=32,
        lr=4e-3,
        validate_every=60,
        validation_samples=100,
        on_event=lambda e: scores.append(e.nmse_db) if isinstance(e, Validated) else None,
    )
    assert scores[-1] < scores[0] - 0.3
    x, obs = problem.sample(300, torch.Generator().manual_seed(3))
    with torch.no_grad():
        estimate = net(obs)
    assert estimate.var is not None
    each = ((estimate.x - x).abs().square() / estimate.var).mean(1)
    # five standard errors, and a tenth that a training of seconds may be off by
    assert (each.mean() - 1).abs() < 0.1 + 5 * each.std() / 300**0.5


def test_pilots_of_another_grid_are_refused(shaken):
    _, obs = CHANNELS.shifted(pilots="comb-2").sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="6 pilots"):
        shaken(obs)
