"""A network that locates: untrained it is the periodogram's top, trained it gains, and its mixture is a density."""

import pytest
import torch

import fanfold as ff
from fanfold.estimators import Locator, MaximumLikelihood
from fanfold.networks import SpectrumCNN
from fanfold.observation import Observation
from fanfold.problems import DirectionOfArrival, TimeDelay, Tone


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def roughed(net: Locator, seed: int = 0) -> Locator:
    """With weights that are not those of the start."""
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn(p.shape, generator=rng(seed))
    return net


def test_the_last_convolution_starts_at_zero():
    z = torch.randn(2, 5, 30, generator=rng(0))
    assert torch.equal(SpectrumCNN(5, 3)(z), torch.zeros(2, 3, 30))
    with pytest.raises(ValueError, match="odd"):
        SpectrumCNN(5, 3, size=4)


def test_zero_strength_is_the_untrained_network():
    problem = Tone(snr_db=(-10.0, 30.0))
    _, obs = problem.sample(50, rng(1))
    trained = roughed(Locator.of(problem))
    assert not torch.equal(trained(obs).x, Locator.of(problem)(obs).x)
    trained.strength = 0.0
    assert torch.equal(trained(obs).x, Locator.of(problem)(obs).x)
    assert torch.equal(trained(obs).var, Locator.of(problem)(obs).var)


@pytest.mark.parametrize("problem", [Tone(snr_db=15.0), TimeDelay(snr_db=15.0), TimeDelay(snr_db=15.0, gain="phase")])
def test_untrained_it_finds_the_top_of_the_periodogram_and_how_sharp_it_is(problem):
    _, obs = problem.sample(300, rng(2))
    net, best = Locator.of(problem), MaximumLikelihood.of(problem)(obs)
    with torch.no_grad():
        estimate = net(obs)
    away = ((estimate.x - best.x).square() / best.var).mean()
    # a parabola through log powers a quarter of a resolution apart misses the top of the tone's kernel by up to 0.004
    # of their distance, by its next term: 0.07 deviations at 15 dB
    assert away < 0.1**2
    assert abs((estimate.var / best.var).log().mean().item()) < 0.15  # curvature by differences, four times finer


def test_the_mixture_is_a_density_with_the_moments_that_are_said():
    problem = Tone(n=9, snr_db=3.0)
    _, obs = problem.sample(3, rng(3))
    net = roughed(Locator.of(problem))
    x = torch.linspace(-6, 6, 60_001)
    unit = net.spacing[len(net.spacing) // 2]
    for i in range(3):
        one = Observation(obs.y[i], None, obs.noise_var)
        with torch.no_grad():
            p = torch.exp(-net.losses(one, x[:, None]).double()) / unit
            estimate = net(one)
        mass = torch.trapezoid(p, x.double())
        mean = torch.trapezoid(p * x, x.double())
        var = torch.trapezoid(p * (x - mean).square(), x.double())
        # single precision of sums of 40 parts
        assert mass.item() == pytest.approx(1.0, abs=1e-4)
        assert estimate.x.item() == pytest.approx(mean.item(), abs=1e-4)
        assert estimate.var.item() == pytest.approx(var.item(), rel=1e-3)


def test_without_a_noise_variance_the_scale_of_y_does_not_matter():
    problem = Tone(snr_db=(-5.0, 20.0), show_noise=False)
    _, obs = problem.sample(50, rng(4))
    net = roughed(Locator.of(problem))
    with torch.no_grad():
        plain = net(obs)
        for scale in (1e-6, 1e4):
            scaled = net(Observation(obs.y * scale))
            assert torch.allclose(scaled.x, plain.x, rtol=1e-3, atol=1e-4)  # logits of tens in single precision


def test_pulses_of_known_sign_are_not_taken_for_their_opposite():
    problem = TimeDelay(snr_db=20.0)
    x, obs = problem.sample(100, rng(5))
    blind = Locator(Locator.of(problem).templates, Locator.of(problem).values, positive=False)
    turned = Observation(-obs.y, None, obs.noise_var)
    with torch.no_grad():
        assert (blind(turned).x - x).abs().max() < 0.2  # of samples: ten deviations
        assert (Locator.of(problem)(turned).x - x).abs().median() > 1.0


def test_snapshots_are_taken_together():
    problem = DirectionOfArrival(sensors=8, snapshots=5, snr_db=5.0)
    _, obs = problem.sample(200, rng(6))
    values = torch.linspace(-problem.limit - 0.3, problem.limit + 0.3, 40)
    net = Locator(problem.steering(values[:, None])[..., 0], values, snapshots=5)
    best = MaximumLikelihood.of(problem)(obs)
    with torch.no_grad():
        away = ((net(obs).x - best.x).square() / best.var).median()
    assert away < 0.2**2


def test_a_short_training_gains_where_peaks_are_confused():
    problem = Tone(n=10, snr_db=(-6.0, 10.0), density="raised-cosine")
    settings = {"steps": 100, "batch": 64, "validate_every": 50, "validation_samples": 500, "threads": 1}
    net = ff.fit(Locator.of(problem), problem, **settings)
    x, obs = problem.shifted(snr_db=-2.0).sample(2000, rng(7))
    with torch.no_grad():
        gain = (Locator.of(problem)(obs).x - x).square() - (net(obs).x - x).square()
    assert gain.mean() > 4 * gain.std() / 2000**0.5


def test_axes_and_precision_are_kept():
    problem = Tone(snr_db=(0.0, 20.0))
    _, obs = problem.sample(6, rng(8))
    net = roughed(Locator.of(problem))
    with torch.no_grad():
        plain = net(obs)
        shaped = net(Observation(obs.y.reshape(2, 3, -1), None, obs.noise_var.reshape(2, 3, 1)))
        wide = net(Observation(obs.y.to(torch.complex128), None, obs.noise_var.double()))
        alone = net(Observation(obs.y[2], None, obs.noise_var[2]))
    assert shaped.x.shape == (2, 3, 1)
    # sums of single precision in another order
    assert torch.allclose(shaped.x.reshape(6, 1), plain.x, rtol=1e-4, atol=1e-5)
    assert torch.allclose(alone.x, plain.x[2], rtol=1e-4, atol=1e-5)
    assert wide.x.dtype == wide.var.dtype == torch.float64
    assert torch.allclose(wide.x.float(), plain.x)


@pytest.mark.parametrize("noise_var", [0.0, 1e-8, 1.0, 1e6, None])
@pytest.mark.parametrize("scale", [0.0, 1e-12, 1.0, 1e6])
def test_estimates_and_gradients_are_finite(noise_var, scale):
    problem = Tone()
    x, obs = problem.sample(4, rng(9))
    net = roughed(Locator.of(problem))
    seen = Observation(obs.y * scale, None, None if noise_var is None else torch.tensor(noise_var))
    estimate = net(seen)
    assert torch.isfinite(estimate.x).all()
    assert (estimate.var > 0).all()
    net.losses(seen, x).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())


def test_what_does_not_fit_is_refused():
    net = Locator.of(Tone())
    with pytest.raises(ValueError, match=r"complex \(..., 25\)"):
        net(Observation(torch.zeros(2, 24, dtype=torch.complex64)))
    with pytest.raises(ValueError, match="complex"):
        net(Observation(torch.zeros(2, 25)))
    values = torch.linspace(0, 1, 5)
    with pytest.raises(ValueError, match="rise"):
        Locator(torch.ones(5, 3), values.flip(0))
    with pytest.raises(ValueError, match=r"pass \(K, m\) and \(K,\)"):
        Locator(torch.ones(4, 3), values)
    before = torch.get_rng_state()
    Locator(torch.ones(5, 3), values)
    assert torch.equal(torch.get_rng_state(), before)
