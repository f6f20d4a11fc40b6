"""Laws of Kronecker Gaussian mixtures for channels, held against channels drawn from mixtures."""

import itertools

import pytest
import torch

import fanfold as ff
from fanfold.core.noise import circular
from fanfold.core.streams import generator_of
from fanfold.estimators.ofdm import ChannelCovariance, FullGaussian, KroneckerGMM, Mixture, Wiener
from fanfold.estimators.ofdm.mixture import expectation_maximisation, expectation_maximisation_of

CHANNELS = ff.problems.OFDMChannel(source="rayleigh:array=2x2x2,subcarriers=12", pilots="comb-2")
ANTENNAS, ENTRIES = 8, 12
STUDY = ff.problems.OFDMChannel(pilots="comb-4")  # the shipped draw


def covariances(count, n, rank, generator):
    """Hermitian, of mean diagonal one, most of it in a few directions."""
    M = torch.randn(count, n, rank, generator=generator, dtype=torch.complex128)
    C = M @ M.mH + 0.02 * torch.eye(n)
    return C / C.diagonal(dim1=1, dim2=2).real.mean(-1)[:, None, None]


def mixture_of(components, seed=0):
    """All modes of the grid are kept."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.arange(1.0, components + 1, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(ENTRIES, ENTRIES, generator=generator, dtype=torch.complex128))[0]
    space = covariances(components, ANTENNAS, 2, generator)
    return Mixture(weights / weights.sum(), space, covariances(components, ENTRIES, 2, generator), basis)


def drawn(mixture, n, noise_var, seed=1):
    """Channels of the mixture, their components and their pilots."""
    generator = torch.Generator().manual_seed(seed)
    which = torch.multinomial(mixture.weights.float(), n, replacement=True, generator=generator)
    w = torch.randn(n, ANTENNAS, ENTRIES, generator=generator, dtype=torch.complex128)
    roots = [
        C @ (values.clamp_min(0).sqrt()[:, :, None] * C.mH) for values, C in map(torch.linalg.eigh, factors(mixture))
    ]
    x = (roots[0][which] @ w @ roots[1][which].mT).flatten(1).to(torch.complex64)
    y = CHANNELS.A @ x
    y = y + circular(tuple(y.shape), generator, y.dtype, noise_var)
    return x, which, ff.Observation(y, CHANNELS.A, torch.tensor(noise_var))


def factors(mixture):
    return mixture.space, mixture.grid


def test_one_component_is_lmmse_over_space_and_grid():
    mixture = mixture_of(1)
    _, _, obs = drawn(mixture, 50, 0.1)
    lmmse = Wiener.of(CHANNELS, ChannelCovariance(mixture.space[0], mixture.grid[0]))(obs)
    estimate = KroneckerGMM.of(CHANNELS, mixture)(obs)
    close = 1e-6 * obs.y.shape[1]  # of single precision, whose errors add over the pilots at worst
    torch.testing.assert_close(estimate.x, lmmse.x, rtol=close, atol=close)
    assert lmmse.var is not None
    torch.testing.assert_close(estimate.var, lmmse.var.expand(estimate.var.shape), rtol=close, atol=close)


def test_the_posterior_mean_is_that_of_a_mixture_without_factors():
    mixture = mixture_of(3)
    _, _, obs = drawn(mixture, 20, 0.05)
    pick = (CHANNELS.A @ torch.arange(ANTENNAS * ENTRIES).to(torch.complex64)).real.long()
    y = obs.y.to(torch.complex128)
    logs, means, covariances_left = [], [], []
    for weight, S, G in zip(mixture.weights, *factors(mixture), strict=True):
        C = torch.kron(S, G)
        of_y = C[pick][:, pick] + 0.05 * torch.eye(len(pick))
        gain = torch.linalg.solve(of_y, C[pick]).mH
        logs.append(weight.log() - (y.conj() * torch.linalg.solve(of_y, y.mT).mT).real.sum(1) - torch.logdet(of_y).real)
        means.append(y @ gain.mT)
        covariances_left.append((C - gain @ C[pick]).diagonal().real)
    share = torch.stack(logs, 1).softmax(1)[..., None]
    means, left = torch.stack(means, 1), torch.stack(covariances_left)
    x = (share * means).sum(1)
    var = (share * (left + (means - x[:, None]).abs().square())).sum(1)
    estimate = KroneckerGMM.of(CHANNELS, mixture, known_power=True)(obs)
    close = 1e-6 * obs.y.shape[1] / 0.05  # of single precision; powers count over the noise variance
    torch.testing.assert_close(estimate.x.to(x.dtype), x, rtol=close, atol=close)
    torch.testing.assert_close(estimate.var.double(), var, rtol=close, atol=close)


def test_draws_of_a_mixture_are_told_apart():
    mixture = mixture_of(3)
    _, which, obs = drawn(mixture, 2000, 0.01)
    estimator = KroneckerGMM.of(CHANNELS, mixture, known_power=True)
    bank, pilots = estimator.bank, estimator.front_end(torch.view_as_real(obs.y), torch.full((2000, 1), 0.01))
    share = bank(bank.modes_of(pilots.y), pilots.noise_var).shares
    # the mean share of the true component is the mean of Σ share² if shares are probabilities; 5 standard errors
    of_truth, expected = share.gather(1, which[:, None]).flatten(), share.square().sum(1)
    difference = of_truth - expected
    assert difference.mean().abs() < 5 * difference.std() / 2000**0.5 + 1e-6
    assert (share.argmax(1) == which).float().mean() > 0.99


@pytest.mark.parametrize("noise_var", [0.01, 0.1, 1.0])
def test_the_error_variance_is_that_of_draws_of_the_mixture(noise_var):
    mixture = mixture_of(3)
    x, _, obs = drawn(mixture, 4000, noise_var)
    estimate = KroneckerGMM.of(CHANNELS, mixture, known_power=True)(obs)
    assert estimate.var is not None
    ratio = ((estimate.x - x).abs().square() / estimate.var).mean(1)
    assert (ratio.mean() - 1).abs() < 5 * ratio.std() / 4000**0.5  # standard errors; draws are independent


def test_expectation_maximisation_finds_the_mixture_and_never_lowers_the_likelihood():
    mixture = mixture_of(2)
    x, which, _ = drawn(mixture, 3000, 0.1)
    h = x.unflatten(1, (ANTENNAS, ENTRIES))
    rounds = list(itertools.islice(expectation_maximisation(h, 2, ENTRIES), 8))
    likelihoods = [likelihood for _, likelihood in rounds]
    # the moments of a component are not the factors of greatest likelihood, but here they are as good
    assert all(b > a - 1e-3 * abs(a) for a, b in itertools.pairwise(likelihoods))
    found = rounds[-1][0]
    order = found.weights.argsort()
    share = torch.bincount(which) / len(which)
    torch.testing.assert_close(found.weights[order], share.double(), rtol=0, atol=0.01)
    # moments of n draws over d entries of the other axis err by about 1 / sqrt(n d / rank) of the diagonal
    assert (found.space[order] - mixture.space).abs().max() < 0.15
    assert (found.grid[order] - mixture.grid).abs().max() < 0.25


def test_learning_goes_on_from_what_was_saved_to_the_same_numbers(tmp_path):
    whole = [m for m, _ in itertools.islice(expectation_maximisation_of(STUDY, 3, 120, modes=6), 4)]
    whole[1].save(tmp_path / "mixture.safetensors")
    start = Mixture.load(tmp_path / "mixture.safetensors")
    resumed = [m for m, _ in itertools.islice(expectation_maximisation_of(STUDY, 3, 120, modes=6, start=start), 2)][-1]
    assert resumed.rounds == whole[-1].rounds == 4
    assert torch.equal(resumed.space, whole[-1].space)
    assert torch.equal(resumed.modes, whole[-1].modes)
    assert torch.equal(resumed.weights, whole[-1].weights)


def test_a_mixture_beats_one_component_and_tells_of_its_rounds():
    told = []
    learn = {"samples": 600, "rounds": 5}
    one = KroneckerGMM.of(STUDY, Mixture.of(STUDY, 1, **learn))
    tell = lambda mixture, likelihood: told.append((mixture.rounds, likelihood))  # noqa: E731
    several = KroneckerGMM.of(STUDY, Mixture.of(STUDY, 6, **learn, on_round=tell))
    assert [rounds for rounds, _ in told] == [1, 2, 3, 4, 5]
    assert told[-1][1] > told[0][1]
    x, obs = STUDY.held_out().sample(60, generator_of(3))
    assert ff.units.nmse_db(several(obs).x, x) < ff.units.nmse_db(one(obs).x, x) - 0.5


def test_a_scale_and_a_phase_of_the_channel_pass_through():
    mixture = mixture_of(3)
    _, _, obs = drawn(mixture, 20, 0.1)
    estimator, turn = KroneckerGMM.of(CHANNELS, mixture), torch.exp(torch.tensor(0.7j))
    for noise_var in (obs.noise_var, None):
        scaled = ff.Observation(1e-6 * turn * obs.y, obs.A, None if noise_var is None else 1e-12 * noise_var)
        at, moved = estimator(ff.Observation(obs.y, obs.A, noise_var)), estimator(scaled)
        # of single precision, through tens of products
        torch.testing.assert_close(moved.x / (1e-6 * turn), at.x, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(moved.var / 1e-12, at.var, rtol=1e-3, atol=1e-5)


def test_an_unknown_noise_variance_costs_little():
    mixture = mixture_of(3)
    x, _, obs = drawn(mixture, 500, 0.1)
    estimator = KroneckerGMM.of(CHANNELS, mixture)
    told, untold = estimator(obs), estimator(ff.Observation(obs.y, obs.A))
    # LMMSE with a wrong variance v' loses at most (v'/v + v/v')/2 - 1 of its error: a quarter for a factor of two
    assert ff.units.nmse_db(untold.x, x) < ff.units.nmse_db(told.x, x) + 1


def test_silence_gives_finite_estimates():
    estimator = KroneckerGMM.of(CHANNELS, mixture_of(3))
    y = torch.zeros(2, CHANNELS.A.m, dtype=torch.complex64)
    for noise_var in (None, torch.tensor(0.1), torch.tensor(0.0)):
        estimate = estimator(ff.Observation(y, CHANNELS.A, noise_var))
        assert (estimate.x == 0).all()
        assert torch.isfinite(estimate.var).all()


def test_precision_and_leading_shape_are_kept():
    mixture = mixture_of(2)
    _, _, obs = drawn(mixture, 6, 0.1)
    estimator = KroneckerGMM.of(CHANNELS, mixture)
    doubled = estimator(ff.Observation(obs.y.reshape(2, 3, -1).to(torch.complex128), None, obs.noise_var))
    assert doubled.x.dtype == torch.complex128
    assert doubled.x.shape == (2, 3, ANTENNAS * ENTRIES)
    # gemm of one observation and of several round differently
    torch.testing.assert_close(doubled.x.reshape(6, -1).to(torch.complex64), estimator(obs).x, rtol=1e-4, atol=1e-5)


def test_wrong_input_is_refused():
    estimator = KroneckerGMM.of(CHANNELS, mixture_of(2))
    _, obs = CHANNELS.shifted(pilots="comb-4").sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="6 pilots"):
        estimator(obs)
    with pytest.raises(ValueError, match="the mixture has 2 components, 8 antennas"):
        KroneckerGMM.of(STUDY, mixture_of(2))
    with pytest.raises(ValueError, match="10 draws for 2 components"):
        expectation_maximisation_of(STUDY, 2, 10)


def test_the_whole_covariance_is_lmmse_where_it_has_factors_and_better_where_not():
    one = mixture_of(1)
    x, _, obs = drawn(one, 50, 0.1)
    full = FullGaussian(ANTENNAS, CHANNELS.mask, one.basis, torch.kron(one.space[0], one.modes[0]))(obs)
    factored = KroneckerGMM.of(CHANNELS, one)(obs)
    close = 1e-6 * obs.y.shape[1]  # of single precision, whose errors add over the pilots at worst
    torch.testing.assert_close(full.x, factored.x, rtol=close, atol=close)
    torch.testing.assert_close(full.var, factored.var, rtol=close, atol=close)
    two = mixture_of(2)
    x, _, obs = drawn(two, 2000, 0.1)
    parts = [w * torch.kron(S, C) for w, S, C in zip(two.weights, two.space, two.modes, strict=True)]
    space, modes = two.mean()
    best = ff.units.nmse_db(FullGaussian(ANTENNAS, CHANNELS.mask, two.basis, parts[0] + parts[1])(obs).x, x)
    blind = Mixture(torch.ones(1, dtype=torch.float64), space[None], modes[None], two.basis)
    assert best < ff.units.nmse_db(KroneckerGMM.of(CHANNELS, blind)(obs).x, x)
    assert ff.units.nmse_db(KroneckerGMM.of(CHANNELS, two)(obs).x, x) < best
