"""EP with maps of its prior: untrained it is EP, its posterior is that of the maps, and training pays."""

import copy

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import EP
from fanfold.estimators import HybridEP
from fanfold.estimators.imaging.lessons import noisy, surprise
from fanfold.priors import BernoulliGaussian, Gaussian
from fanfold.priors.gaussian_field import GaussianField
from fanfold.problems import CompressedSensing, RFImaging
from fanfold.problems.draws import draw
from fanfold.training.events import Stepped


def imaging(**changes) -> RFImaging:
    return RFImaging(**{"scene": (12, 12), "elements": (9, 9), "targets": "extended", "sensing": "gaussian"} | changes)


def hybrid(on, layers: int = 4, **settings) -> HybridEP:
    return HybridEP.of(on, EP(BernoulliGaussian(0.3, 0.1), damping=1.0), layers, width=6, reach=1, **settings)


def moved(net: HybridEP, by: float = 0.1) -> HybridEP:
    """With weights as if trained."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in net.denoiser.parameters():
            p += by * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


def draws(on, n: int = 6):
    return on.sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("sensing", ["gaussian", "steering"])
def test_untrained_and_at_strength_zero_it_is_ep_bit_for_bit(dtype, sensing):
    on = imaging(dtype=dtype, sensing=sensing)
    _, obs = draws(on)
    classical = ff.iterate(EP(BernoulliGaussian(0.3, 0.1), damping=1.0), 4)(obs)
    net = hybrid(on)
    assert torch.equal(net(obs).x, classical.x)
    assert torch.equal(net(obs).var, classical.var)
    trained = moved(net)(obs).x
    net.strength = 0.0
    assert torch.equal(net(obs).x, classical.x)
    assert not torch.equal(trained, classical.x)


def test_untrained_it_is_ep_on_real_signals():
    on = CompressedSensing(n=64, m=40)
    _, obs = draws(on)
    classical = ff.iterate(EP(BernoulliGaussian(0.3, 0.1), damping=1.0), 4)(obs)
    assert torch.equal(hybrid(on, scene=(8, 8))(obs).x, classical.x)


def test_the_estimate_is_the_posterior_mean_of_the_maps_beside_the_cavities():
    on = imaging(dtype="complex128")
    _, obs = draws(on)
    net = moved(hybrid(on))
    estimates = [e.x for e in net.trajectory(obs)]
    r, v = net.cavities(obs)
    assert r.shape == v.shape == (4, 6, 144)
    for layer, wanted in enumerate(estimates):
        maps = net.voxel_settings(r[layer], v[layer])
        x, _ = net.prior.posterior(r[layer], v[layer], ff.algorithms.base.Theta(**maps))
        torch.testing.assert_close(x, wanted, rtol=1e-5, atol=1e-7)  # the CNN and settings are in single precision


def test_a_copy_is_a_network_of_its_own():
    on = imaging()
    _, obs = draws(on)
    net = moved(hybrid(on))
    twin, before = copy.deepcopy(net), net(obs).x
    moved(twin)
    assert torch.equal(net(obs).x, before)
    assert not torch.equal(twin(obs).x, before)


def test_maps_turn_with_the_phase_of_the_scene():
    """Up to single precision in the CNN."""
    on = imaging(dtype="complex128")
    _, obs = draws(on)
    net, turn = moved(hybrid(on)), torch.exp(torch.tensor(1j, dtype=torch.complex128))
    turned = net(ff.Observation(turn * obs.y, obs.A, obs.noise_var)).x
    torch.testing.assert_close(turned, turn * net(obs).x, rtol=1e-3, atol=1e-4)


def test_gradients_reach_the_maps():
    on = imaging()
    x, obs = draws(on)
    net = moved(hybrid(on, 2))
    (net(obs).x - x).abs().square().mean().backward()
    for p in net.denoiser.parameters():
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        assert p.grad.abs().max() > 0


def test_training_on_the_maps_alone_lowers_the_error():
    on = imaging()
    x, obs = on.sample(100, torch.Generator().manual_seed(5))
    level = x.abs().square().mean().item()
    net = HybridEP.of(on, EP(BernoulliGaussian(0.3, level / 0.3), damping=1.0), 6, width=12, reach=2)
    before = ff.units.nmse_db(net(obs).x, x)
    ff.fit(net, on, steps=240, threads=1)
    assert ff.units.nmse_db(net(obs).x, x) < before - 1  # 100 scenes leave some tenths


COURSE = {"steps": 24, "validate_every": 4, "validation_samples": 4, "threads": 1}


def taught(net: HybridEP, on, steps: int) -> HybridEP:
    """The lessons in a plain loop: one Adam through three terms, in each of which its rate falls along a line."""
    lessons = net.lessons(lambda count, index: draw(on, count, 0, 0, index), steps, 16, 0)
    optimiser = torch.optim.Adam(net.denoiser.parameters())
    for number, (first, last, factor) in enumerate(lessons.terms):
        lessons.begin(number)
        for step in range(first, last):
            optimiser.param_groups[0]["lr"] = 3e-3 * (factor * (1.05 - (step - first) / (last - first)))
            optimiser.zero_grad()
            lessons.loss(step).backward()
            optimiser.step()
    return net


def same(one: HybridEP, other: HybridEP) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_fit_teaches_the_lessons_to_the_same_bits_as_a_plain_loop():
    on = imaging()
    fitted, plain = ff.fit(hybrid(on), on, **COURSE), taught(hybrid(on), on, 24)
    assert same(fitted, plain)
    assert not same(fitted, hybrid(on))


@pytest.mark.parametrize("at", [5, 8, 14, 16, 23])  # within terms and at their ends
def test_a_course_that_stops_goes_on_to_the_same_bits(tmp_path, at):
    class Stop(Exception):  # noqa: N818
        pass

    def stop(event):
        if isinstance(event, Stepped) and event.step == at:
            raise Stop

    on = imaging()
    whole = ff.fit(hybrid(on), on, **COURSE)
    with pytest.raises(Stop):
        ff.fit(hybrid(on), on, run_dir=tmp_path / "run", on_event=stop, **COURSE)
    assert same(ff.resume(tmp_path / "run"), whole)
    assert same(ff.load(tmp_path / "run"), whole)


def test_lessons_from_pairs_that_were_drawn_once():
    on = imaging()
    net = ff.fit(hybrid(on), on, simulations=40, **COURSE)
    assert not same(net, hybrid(on))


def test_who_knows_no_lessons_is_told_so():
    on = imaging()
    with pytest.raises(ValueError, match=r"schedule='lessons' needs `lessons`; Unfolded has none"):
        ff.fit(ff.unfold(EP(), on, 2, {"damping": "tied"}), on, schedule="lessons")
    other = HybridEP.of(on, EP(Gaussian()), 2, width=4)
    assert other.training_defaults == {}
    with pytest.raises(ValueError, match="BernoulliGaussian prior"):
        ff.fit(other, on, schedule="lessons")


def test_surprise_is_least_at_the_settings_that_drew_the_scene():
    """Its mean is minus the likelihood: each setting moved by a third, over 4e5 voxels, is told apart."""
    x = BernoulliGaussian(0.2, 0.5).sample((400, 1000), torch.Generator().manual_seed(0), torch.complex128)

    def at(p, var):
        return surprise(x, torch.full(x.shape, p), torch.full(x.shape, var)).item()

    assert at(0.2, 0.5) < min(at(0.15, 0.5), at(0.27, 0.5), at(0.2, 0.37), at(0.2, 0.67))


def test_noise_for_the_first_lessons_has_the_variance_that_it_says():
    """Mean of |noise|²/v over 2e5 complex entries: within 5 standard errors 1/sqrt(2e5) of one."""
    x = torch.zeros(200, 1000, dtype=torch.complex128)
    r, v = noisy(x, 0.1, torch.Generator().manual_seed(0))
    assert (r.abs().square() / v).mean().item() == pytest.approx(1, abs=5 / 2e5**0.5)
    assert v.min() < 1e-5 < 1e-2 < v.max()


def test_posterior_of_a_field_is_the_wiener_filter():
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(12, 12, dtype=torch.float64, generator=generator)
    mean, covariance = torch.randn(12, dtype=torch.float64, generator=generator), root @ root.mT
    r = torch.randn(5, 12, dtype=torch.float64, generator=generator)
    gain = covariance @ torch.linalg.inv(covariance + 0.3 * torch.eye(12, dtype=torch.float64))
    x, var = GaussianField(mean, covariance).posterior(r, torch.full((5, 1), 0.3, dtype=torch.float64))
    torch.testing.assert_close(x, mean + (r - mean) @ gain.mT, rtol=1e-9, atol=1e-9)  # condition about 1e3
    torch.testing.assert_close(var, (0.3 * gain).diagonal().expand(5, 12), rtol=1e-9, atol=1e-9)


def test_draws_of_a_field_have_its_covariance():
    """Each entry of the sample covariance of N = 20000 draws within 5 of its standard errors, below 2 max / sqrt(N)."""
    root = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    field = GaussianField(torch.ones(4, dtype=torch.float64), root @ root.mT)
    x = field.sample((20_000, 4), torch.Generator().manual_seed(2), torch.float64) - 1
    assert ((x.mT @ x) / len(x) - root @ root.mT).abs().max() < 10 * (root @ root.mT).max() / len(x) ** 0.5


def test_misuse_is_refused():
    on = imaging()
    with pytest.raises(ValueError, match="144 unknowns"):
        HybridEP.of(on, EP(BernoulliGaussian()), 2, scene=(12, 11))
    with pytest.raises(ValueError, match="Constellation has none that may be learned"):
        HybridEP.of(on, EP(), 2)
    with pytest.raises(ValueError, match="does not say how its unknowns make a scene"):
        HybridEP.of(CompressedSensing(n=64, m=40))
    with pytest.raises(ValueError, match=r"pass \(n, n\) and \(n,\)"):
        GaussianField(torch.zeros(3), torch.eye(4))
