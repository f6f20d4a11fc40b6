"""A learned denoiser inside OAMP: untrained it is OAMP, its divergence is right, and it learns."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import OAMP
from fanfold.estimators import BackProjectionUNet, HybridOAMP, MoDL, OnePhase
from fanfold.estimators.imaging.one_phase import stacked
from fanfold.estimators.linear.image import white_lmmse
from fanfold.linops import Dense
from fanfold.networks import ContextCNN, ResidualCNN, UNet
from fanfold.priors import BernoulliGaussian
from fanfold.problems import CompressedSensing, RFImaging

SMALL = {"scene": (12, 12), "elements": (10, 10), "targets": "extended"}
KINDS = ("prior", "mean")


def imaging(**changes) -> RFImaging:
    return RFImaging(**SMALL | {"sensing": "gaussian"} | changes)


def hybrid(on: RFImaging, correct: str = "prior", **settings) -> HybridOAMP:
    oamp = settings.pop("oamp", OAMP(BernoulliGaussian(0.3, 0.1)))
    return HybridOAMP.of(on, oamp, 4, {"damping": "per-layer"}, correct=correct, width=6, **settings)


def moved(net: HybridOAMP, by: float = 0.1) -> HybridOAMP:
    """With weights as if trained."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in net.denoisers.parameters():
            p += by * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


def draws(on, n: int = 8):
    return on.sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("correct", KINDS)
@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("settings", ["given", "estimated"])
def test_untrained_it_is_the_algorithm_bit_for_bit(correct, dtype, settings):
    on = imaging(dtype=dtype)
    _, obs = draws(on)
    oamp = OAMP(BernoulliGaussian(0.3, 0.1), settings=settings)
    ours, classical = hybrid(on, correct, oamp=oamp)(obs), ff.iterate(oamp, 4)(obs)
    assert torch.equal(ours.x, classical.x)
    assert torch.equal(ours.var, classical.var)


@pytest.mark.parametrize("correct", KINDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_untrained_it_is_the_algorithm_on_real_signals(correct, dtype):
    on = CompressedSensing(n=64, m=40, dtype=dtype)
    _, obs = draws(on)
    net = HybridOAMP.of(on, OAMP(), 4, scene=(8, 8), correct=correct)
    assert torch.equal(net(obs).x, ff.iterate(OAMP(), 4)(obs).x)


@pytest.mark.parametrize("correct", KINDS)
def test_zero_strength_is_the_algorithm_whatever_was_learned(correct):
    on = imaging()
    _, obs = draws(on)
    net = moved(hybrid(on, correct))
    trained = net(obs).x
    net.strength = 0.0
    classical = ff.iterate(OAMP(BernoulliGaussian(0.3, 0.1)), 4)(obs).x
    assert torch.equal(net(obs).x, classical)
    assert not torch.equal(trained, classical)


def exact_divergence(denoise, r: torch.Tensor) -> torch.Tensor:
    """`Re tr(df/dr) / n` of a complex map, the by automatic differentiation."""
    n = r.shape[-1]

    def pairs(z):
        f = denoise(torch.view_as_complex(z.reshape(n, 2))[None])[0]
        return torch.view_as_real(f).flatten()

    return torch.autograd.functional.jacobian(pairs, torch.view_as_real(r[0]).flatten()).trace().item() / (2 * n)


def noisy(scene: tuple[int, int]) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(1, scene[0] * scene[1], dtype=torch.complex128, generator=generator) * 0.3


def test_divergence_of_prior_maps_is_exact():
    """A voxel's own value does not enter its prior: equal to the Jacobian's trace up to rounding."""
    on, prior = imaging(dtype="complex128"), BernoulliGaussian(0.3, 0.1)
    denoiser, v = moved(hybrid(on), 0.3).denoisers[0], torch.tensor([[0.05]], dtype=torch.float64)
    r = noisy(on.scene)
    *_, beta = denoiser(prior, r, v, prior, 1.0)
    assert not torch.allclose(beta, prior.posterior_var(r, v).mean() / v, rtol=1e-3)  # it learned something
    assert beta.item() == pytest.approx(exact_divergence(lambda z: denoiser(prior, z, v, prior, 1.0)[0], r), rel=1e-9)


def test_monte_carlo_divergence_is_the_exact_one_on_average():
    """Over 200 probes: within 4 standard errors of the trace, and 2 % of it for the finite step."""
    on, prior = imaging(dtype="complex128"), BernoulliGaussian(0.3, 0.1)
    denoiser, v = moved(hybrid(on, "mean")).denoisers[0], torch.tensor([[0.05]], dtype=torch.float64)
    with torch.no_grad():  # a correction that follows the voxel's own value, so that its divergence is far from zero
        for layer in denoiser.cnn.layers[::2]:
            layer.weight[:, :, 1, 1] += 0.3
    r = noisy(on.scene)
    exact = exact_divergence(lambda z: denoiser(prior, z, v, prior, 1.0)[0], r)
    generator, betas = torch.Generator().manual_seed(3), []
    for _ in range(200):
        turns = torch.randint(4, denoiser.probe.shape, generator=generator)
        denoiser.probe = torch.exp(0.5j * torch.pi * turns.to(torch.complex128))
        betas.append(denoiser(prior, r, v, prior, 1.0)[2].item())
    found = torch.tensor(betas)
    analytic = (prior.posterior_var(r, v).mean() / v).item()
    assert abs(exact - analytic) > 10 * found.std().item() / 200**0.5  # the correction's part can be told from zero
    assert abs(found.mean().item() - exact) < 4 * found.std().item() / 200**0.5 + 0.02 * abs(exact)


@pytest.mark.parametrize("correct", KINDS)
@pytest.mark.parametrize("share", ["tied", "per-layer"])
def test_gradients_are_finite_and_reach_whole_curve(correct, share):
    on = imaging()
    x, obs = draws(on)
    net = moved(hybrid(on, correct, share=share))
    (net(obs).x - x).abs().square().mean().backward()
    for p in net.parameters():
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        assert p.grad.abs().max() > 0


@pytest.mark.parametrize("correct", KINDS)
def test_training_lowers_the_error(correct):
    on = imaging()
    x, obs = on.sample(200, torch.Generator().manual_seed(5))
    net = hybrid(on, correct)
    before = ff.units.nmse_db(net(obs).x, x)
    ff.fit(net, on, steps=30, batch=16, lr=6e-3, validation_samples=50, threads=1)
    assert ff.units.nmse_db(net(obs).x, x) < before - 1  # 200 scenes leave some tenths


def test_prior_maps_turn_with_the_phase_of_the_scene():
    """Equal up to rounding, which four layers with the condition of the operator raise a hundredfold."""
    on = imaging(dtype="complex128")
    _, obs = draws(on)
    net, turn = moved(hybrid(on)), torch.exp(torch.tensor(1j, dtype=torch.complex128))
    turned = net(ff.Observation(turn * obs.y, obs.A, obs.noise_var)).x
    torch.testing.assert_close(turned, turn * net(obs).x, rtol=1e-8, atol=1e-8)


def test_samples_do_not_see_each_other():
    on = imaging(dtype="complex128")
    _, obs = draws(on)
    for correct in KINDS:
        net = moved(hybrid(on, correct))
        torch.testing.assert_close(net(obs[:3]).x, net(obs).x[:3], rtol=1e-9, atol=1e-9)


def test_same_seed_same_network_and_no_global_random_state():
    state = torch.get_rng_state()
    first, second = hybrid(imaging(), seed=3), hybrid(imaging(), seed=3)
    UNet(seed=1)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "net", [ResidualCNN(3, 2), ContextCNN(3, 2), UNet(3, 2, width=8)], ids=lambda n: type(n).__name__
)
def test_networks_start_at_no_correction_and_keep_the_size(net):
    picture = torch.randn(2, 3, 12, 8, generator=torch.Generator().manual_seed(0))
    wanted = picture[:, :2] if isinstance(net, UNet) else torch.zeros(2, 2, 12, 8)
    assert torch.equal(net(picture), wanted)


@pytest.mark.parametrize("image", ["lmmse", "back-projection"])
def test_unet_learns_from_a_linear_image_and_keeps_its_scale(image):
    on = imaging(targets="photographs", speckle=False)
    x, obs = draws(on, 100)
    net = BackProjectionUNet.of(on, image, signal_var=0.1, width=8)
    before = ff.units.nmse_db(net(obs).x, x)
    ff.fit(net, on, steps=50, batch=16, lr=1e-2, validation_samples=50, threads=1)
    assert ff.units.nmse_db(net(obs).x, x) < before - 1  # 100 scenes leave some tenths
    if image == "back-projection":
        scaled = net(ff.Observation(1e-6 * obs.y, obs.A)).x
        torch.testing.assert_close(1e6 * scaled, net(obs).x, rtol=1e-3, atol=1e-4)  # single precision


def test_modl_before_training_only_returns_to_the_measurements():
    """No CNN yet: the layers are `x + (AᴴA + λI)⁻¹ Aᴴ(y - Ax)`, here from the dense matrix, with λ in units of x."""
    on = imaging(dtype="complex128")
    _, obs = draws(on)
    net = MoDL.of(on, signal_var=0.02, layers=2)
    x, A = white_lmmse(obs, 0.02).x, on.A.matrix()
    eye = torch.eye(on.A.m, dtype=A.dtype)
    for _ in range(2):
        lam = 30 * obs.noise_var / x.abs().square().mean(-1, keepdim=True)
        steps = torch.linalg.solve(A @ A.mH + lam[..., None] * eye, (obs.y - x @ A.mT)[..., None])[..., 0]
        x = x + steps @ A.conj()
    torch.testing.assert_close(net(obs).x, x, rtol=1e-9, atol=1e-9)


def test_modl_learns():
    on = imaging(targets="photographs", speckle=False)
    x, obs = on.sample(200, torch.Generator().manual_seed(5))
    net = MoDL.of(on, signal_var=0.1, width=12, depth=3, layers=3)
    before = ff.units.nmse_db(net(obs).x, x)
    ff.fit(net, on, steps=60, batch=16, lr=6e-3, validation_samples=50, threads=1)
    assert ff.units.nmse_db(net(obs).x, x) < before - 1  # 200 scenes leave some tenths


def test_one_phase_hands_on_a_real_problem_and_turns_the_answer_back():
    """Told the true phase, what arrives within is `[Re; Im]` of the measurements of a real scene, up to rounding."""
    on = imaging(targets="photographs", speckle=False, dtype="complex128")
    x, obs = draws(on)
    seen = []

    def within(real):
        seen.append(real)
        return ff.Estimate(x.abs())

    found = OnePhase(lambda o: ff.Estimate(x), within)(obs)
    torch.testing.assert_close(found.x, x)  # a real picture times its phase
    noise = seen[0].y - seen[0].A @ x.abs()
    assert seen[0].A is stacked(on.A)
    # mean |noise|² of 8 x 200 reals: within 5 standard errors sqrt(2 / 1600) of its variance
    assert noise.square().mean() / seen[0].noise_var == pytest.approx(1.0, abs=5 * (2 / noise.numel()) ** 0.5)


def test_misuse_is_refused():
    on = imaging()
    with pytest.raises(ValueError, match="144 unknowns"):
        HybridOAMP.of(on, OAMP(), 2, scene=(12, 11))
    with pytest.raises(ValueError, match="prior or mean"):
        HybridOAMP.of(on, OAMP(), 2, correct="posterior")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth"):
        ResidualCNN(2, 2, depth=1)
    with pytest.raises(ValueError, match="groups"):
        UNet(width=10)
    with pytest.raises(ValueError, match="at least 1"):
        ContextCNN(2, 2, reach=0)
    with pytest.raises(ValueError, match="another operator"):
        hybrid(on)(ff.Observation(draws(on)[1].y, Dense(torch.eye(100, 144, dtype=torch.complex64))))
