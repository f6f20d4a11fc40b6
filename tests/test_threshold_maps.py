"""Thresholds that a CNN predicts: untrained it is FISTA, other units change nothing, and training pays."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import FISTA
from fanfold.estimators import ThresholdMapFISTA
from fanfold.problems import CompressedSensing, RFImaging

LEARNED = {"step": "per-layer", "threshold": "per-layer"}


def imaging(**changes) -> RFImaging:
    small = {"scene": (12, 12), "elements": (10, 10), "targets": "extended", "sensing": "gaussian"}
    return RFImaging(**small | changes)


def moved(net: ThresholdMapFISTA) -> ThresholdMapFISTA:
    """With weights as if trained."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for p in net.maps.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator, dtype=p.dtype)
    return net


def draws(on, n: int = 8):
    return on.sample(n, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "float32", "float64"])
def test_untrained_and_at_strength_zero_it_is_fista_bit_for_bit(dtype):
    real = dtype.startswith("float")
    on = CompressedSensing(n=144, m=100, dtype=dtype) if real else imaging(dtype=dtype)
    _, obs = draws(on)
    net, classical = (
        ThresholdMapFISTA.of(on, FISTA(0.02), 5, LEARNED, scene=(12, 12), width=6),
        ff.iterate(FISTA(0.02), 5)(obs).x,
    )
    assert torch.equal(net(obs).x, classical)
    trained = moved(net)(obs).x
    assert not torch.equal(trained, classical)
    net.strength = 0.0
    assert torch.equal(net(obs).x, classical)


def test_the_maps_do_not_ask_for_units_or_phase():
    """A scene ten times as strong, turned, at ten times the threshold: the same factors up to rounding."""
    on = imaging(dtype="complex128")
    net = moved(ThresholdMapFISTA.of(on, FISTA(0.02), 2, width=6))
    x, _ = draws(on)
    turn = 10 * torch.exp(torch.tensor(1j, dtype=torch.complex128))
    one = net.maps(x, torch.tensor(0.1, dtype=torch.float64), 1.0)
    other = net.maps(turn * x, torch.tensor(1.0, dtype=torch.float64), 1.0)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert one.std() > 0.01


def test_maps_win_over_one_threshold_a_layer():
    on = imaging()
    x, obs = on.sample(200, torch.Generator().manual_seed(5))
    plain = ff.unfold(FISTA(0.02), on, 8, LEARNED)
    mapped = ThresholdMapFISTA.of(on, FISTA(0.02), 8, LEARNED, width=8)
    for net in (plain, mapped):
        ff.fit(net, on, steps=80, batch=16, lr=2e-2, validation_samples=50, threads=1)
    assert ff.units.nmse_db(mapped(obs).x, x) < ff.units.nmse_db(plain(obs).x, x) - 0.5  # 200 scenes leave some tenths


def test_gradients_reach_the_maps():
    on = imaging()
    x, obs = draws(on)
    net = moved(ThresholdMapFISTA.of(on, FISTA(0.02), 3, LEARNED, width=6))
    (net(obs).x - x).abs().square().mean().backward()
    for p in net.parameters():
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        assert p.grad.abs().max() > 0


def test_a_scene_of_another_size_is_refused():
    on = imaging()
    with pytest.raises(ValueError, match="144 unknowns"):
        ThresholdMapFISTA.of(on, FISTA(), 2, scene=(12, 11))
