"""Adaptive ALISTA in whole numbers: its matrix, its thresholds and its shrinkage are those of the algorithm."""

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.core.units import nmse_db, power, rms
from fanfold.deploy.integer import drafted
from fanfold.estimators import quantised
from fanfold.estimators.fixed_point import Calibrating, FakeQuantised, FirmStep, FirmSteps, integer_form
from fanfold.estimators.fixed_point.firm_steps import ROW_DB
from fanfold.shrinkage import firm

# so sparse that all samples converge: elsewhere those few that do not decide the NMSE, and roundings which they are
PROBLEM = ff.problems.CompressedSensing(n=120, m=80, sparsity=0.05, snr_db=40.0)
LEARN = dict.fromkeys(("step", "alpha", "concavity", "ridge"), "per-layer")


def network(layers: int = 8, **settings: float) -> ff.unfolding.Unfolded:
    """With layers that differ a little."""
    net = ff.unfold(ff.algorithms.ALISTAAT(**settings), PROBLEM, layers, LEARN)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.05 * torch.randn(p.shape, generator=generator_of(3))
    return net


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def form(net) -> FirmSteps:
    form = integer_form(net)
    assert isinstance(form, FirmSteps)
    return form


@pytest.fixture(scope="module")
def layers(net, form) -> list[FirmStep]:
    return form.layers(net.thetas(PROBLEM.sample(1, generator_of(0))[1]))


def test_a_layer_is_that_of_the_algorithm(net, layers):
    """From x = 0, in floating point: the same numbers to rounding."""
    _, obs = PROBLEM.sample(20, generator_of(1))
    first, y = layers[0], obs.y
    r = first.step * (y @ first.W.float().mT)
    wanted = net.trajectory(obs)[0].x
    torch.testing.assert_close(firm(r, first.alpha * rms(y), first.concavity), wanted, rtol=0, atol=1e-5)


def test_gains_are_of_firm_shrinkage_and_one_from_there_on(layers):
    u = torch.linspace(-4, 4, 1601, dtype=torch.float64)
    for layer in layers:
        gain, c = layer.gain(u), layer.concavity.double()
        torch.testing.assert_close(gain * u, firm(u, 1.0, c), rtol=1e-12, atol=1e-12)
        assert (gain[u.abs() <= 1] == 0).all()
        assert (gain[u.abs() * c >= 1] == 1).all()
        assert 2**layer.reach >= 1 / c.item()


def test_gains_of_hard_thresholds_jump():
    hard = FirmStep(torch.ones(2, 1), torch.tensor(2.0), torch.tensor(4.0))
    assert hard.gain(torch.tensor([0.49, 0.51, 1.9])).tolist() == [0, 1, 1]


@pytest.mark.parametrize("widths", ["w8a8", "w16a16"])
def test_thresholds_follow_the_residual_of_each_sample(form, layers, widths):
    """Over 25 dB of norms: a row is a quarter of a decibel wide, and the inverse of the largest has four digits."""
    size = 10 ** torch.linspace(0, -1.25, 40, dtype=torch.float64)[:, None]
    noise = torch.randn(40, PROBLEM.m, generator=generator_of(4), dtype=torch.float64) * size
    for layer in layers[:3]:
        for step in (None, torch.tensor(1.7)):
            reader = Calibrating({"y": noise}, widths)
            of = layer._replace(step=step)
            v = reader.with_room(form.driving(reader, of, reader.entered("y")), 1)
            inverse = form.inverse_threshold(reader, of, v, 11 if widths == "w8a8" else 24).value
            with torch.no_grad():
                before = step if step is not None and widths == "w8a8" else 1.0
                wanted = before / (layer.alpha * rms(v.value))
            off = (inverse / wanted - 1).abs()
            assert off.max() < 10 ** (ROW_DB / 40) - 1 + (1 / 28 if widths == "w8a8" else 1e-3)


@pytest.mark.parametrize(("widths", "limit"), [("w8a8", 0.3), ("w8a12", 0.1), ("w16a16", 0.02)])
def test_it_loses_little_by_calibration_alone(net, widths, limit):
    x, obs = PROBLEM.sample(1000, generator_of(2))
    whole = quantised(net, widths, PROBLEM.sample(200, generator_of(1))[1])
    with torch.no_grad():
        floating = nmse_db(net(obs).x, x)
        assert floating < -40
        assert nmse_db(whole(obs).x, x) < floating + limit


@pytest.mark.parametrize("widths", ["w8a12", "w16a16"])
def test_samples_that_converge_late_do_so_in_whole_numbers_too(widths):
    """Four times as many unknowns are not zero as in those on which scales are chosen."""
    net = network(16)
    x, obs = PROBLEM.shifted(sparsity=0.2).sample(1500, generator_of(5))
    whole = quantised(net, widths, PROBLEM.sample(200, generator_of(1))[1])
    with torch.no_grad():
        path = net.trajectory(obs)
        said = [path[9].x, path[-1].x, whole(obs).x]
    midway, last, integer = (10 * torch.log10(power(x_hat - x).sum(1) / power(x).sum(1)) for x_hat in said)
    late = (midway > -15) & (last < -36)
    assert late.sum() > 5
    assert (integer - last)[late].max() < 6


@pytest.mark.parametrize("fit", [True, False])  # products of bytes, and of whole numbers in floating point
def test_with_bytes_single_precision_carries_every_sum(net, fit):
    """Whatever scales the layers have; so OpenVINO, which has no other on processors, gives the bits."""
    program = drafted(quantised(net, "w8a8", PROBLEM.sample(200, generator_of(1))[1], pairs_fit=fit))
    assert {row.carrier for row in program.proof.rows} == {"float32"}


def test_one_ridge_for_all_layers_is_one_matrix():
    net = ff.unfold(ff.algorithms.ALISTAAT(), PROBLEM, 3, {"alpha": "per-layer"})
    form = integer_form(net)
    assert isinstance(form, FirmSteps)
    first, *others = form.layers(net.thetas(PROBLEM.sample(1, generator_of(0))[1]))
    assert all(layer.W is first.W for layer in others)
    assert first.step is None


def test_a_residual_of_nothing_is_estimated_as_nothing(net):
    whole = quantised(net, "w8a8", PROBLEM.sample(200, generator_of(1))[1])
    assert not whole(ff.Observation(torch.zeros(2, PROBLEM.m), PROBLEM.A)).x.any()


@pytest.mark.parametrize("name", ["alpha", "concavity"])
def test_vectors_are_refused_by_name(name):
    net = ff.unfold(ff.algorithms.ALISTAAT(), PROBLEM, 2, {name: "per-layer vector"})
    with pytest.raises(ValueError, match=f"learns {name} as a vector.*learn a scalar"):
        integer_form(net)


def test_a_step_for_each_unknown_is_taken_after_the_product():
    net = ff.unfold(ff.algorithms.ALISTAAT(), PROBLEM, 3, {"step": "per-layer vector"})
    _, obs = PROBLEM.sample(200, generator_of(1))
    whole = quantised(net, "w16a16", obs)
    with torch.no_grad():
        said, wanted = whole(obs).x, net(obs).x
    assert nmse_db(said, wanted) < -40  # thresholds are off by up to 1.4 %
    reader = FakeQuantised({"y": obs.y.double()}, "w16a16", whole.fractions.tolist())
    assert np.isfinite(whole.written(reader)["x_hat"].value.detach().numpy()).all()
