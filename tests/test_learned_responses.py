"""Responses of elements learned inside an estimator: nothing at the start, the true array at the end."""

import pytest
import torch

from fanfold.algorithms import OAMP
from fanfold.core.units import nmse_db, power
from fanfold.estimators import LearnedResponses
from fanfold.linops import Kronecker
from fanfold.observation import Observation
from fanfold.priors import BernoulliGaussian
from fanfold.problems import RFImaging
from fanfold.problems.draws import draw
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import unfold

PRIOR = BernoulliGaussian(0.1)
SMALL = {"scene": (10, 8), "elements": (9, 7), "phase_deg": 10.0, "gain_db": 1.0}


def network(on: RFImaging, layers: int = 6) -> LearnedResponses:
    net = unfold(OAMP(PRIOR, noise="estimated"), on, layers, {"noise_scale": "per-layer"})
    return LearnedResponses(net, on.elements)


def found(net: LearnedResponses, on: RFImaging) -> Kronecker:
    assert isinstance(on.A, Kronecker)
    return net.operator(on.A)


def off(A, true) -> float:
    return ((A.matrix() - true.matrix()).norm() / true.matrix().norm()).item()


def test_untrained_it_is_the_estimator_within():
    on = RFImaging("gaussian", **SMALL)
    _, obs = draw(on, 5, 0, 0, 0)
    net = network(on)
    assert torch.equal(net(obs).x, net.within(obs).x)
    assert torch.equal(found(net, on).matrix(), on.A.matrix())


def test_told_the_responses_it_sees_what_the_nominal_array_would_have_seen():
    """In double precision, without noise: to 1e-10, ten thousand times the rounding of a product of two axes."""
    on = RFImaging("gaussian", **SMALL, dtype="complex128")
    x, _ = draw(on, 5, 0, 0, 0)
    net = network(on).double()
    for deviation, true, nominal in zip(net.deviations, on.true_A.parts(), on.A.parts(), strict=True):
        response = (true / nominal)[:, 0]
        deviation.data = torch.stack([response.abs().log(), response.angle()])
    seen = []
    net.within.forward = lambda obs: seen.append(obs.y)  # type: ignore[method-assign]
    net(Observation(on.true_A @ x, on.A, torch.tensor(on.noise_var, dtype=torch.float64)))
    torch.testing.assert_close(seen[0], on.A @ x, rtol=0, atol=1e-10 * power(on.A @ x).max().sqrt().item())
    assert off(found(net, on), on.true_A) < 1e-10


def test_training_moves_the_responses_to_the_true_array_and_pays():
    """The gradient says where the responses are: most of their error goes, more than half."""
    on = RFImaging("gaussian", **SMALL)
    net = network(on)
    x, obs = draw(on, 200, 0, 2, 0)
    with torch.no_grad():
        before = nmse_db(net(obs).x, x)
    fit(net, on, steps=150, batch=32, lr=0.03, validation_samples=100, seed=0)
    with torch.no_grad():
        after = nmse_db(net(obs).x, x)
    assert off(found(net, on), on.true_A) < 0.5 * off(on.A, on.true_A)
    assert after < before - 6


def test_a_common_factor_moves_between_axes_unseen():
    on = RFImaging("gaussian", **SMALL, dtype="complex128")
    _, obs = draw(on, 3, 0, 0, 0)
    net = network(on).double()
    with torch.no_grad():
        one = net(obs).x
        net.deviations[0].data += 0.3
        net.deviations[1].data -= 0.3
        torch.testing.assert_close(net(obs).x, one)


def test_measurements_of_another_array_are_refused():
    on = RFImaging("gaussian", **SMALL)
    _, obs = draw(on, 3, 0, 0, 0)
    with pytest.raises(ValueError, match="complex measurements of 63 elements"):
        network(on)(Observation.unchecked(obs.y[:, :-1], on.A, obs.noise_var))
    with pytest.raises(ValueError, match="complex measurements"):
        network(on)(Observation.unchecked(obs.y.real, on.A, obs.noise_var))
    with pytest.raises(ValueError, match="at least one"):
        LearnedResponses(network(on).within, (9, 0))
