"""Proximal algorithms end where calculus says, whatever the penalty, and are each other's where the papers say so."""

import numpy as np
import onnxruntime
import pytest
import torch

from fanfold import iterate, unfold
from fanfold.algorithms import ADMM, ISTA, DouglasRachford, PrimalDual, ProximalGradient
from fanfold.core.units import power
from fanfold.deploy import to_onnx
from fanfold.observation import Observation
from fanfold.penalties import L1, MCP, REGISTRY, SCAD, GroupL1, Ridge
from fanfold.runs import recipe
from laws import DTYPES, LAWS, assert_close, observed

# all are within 1e-8 after 6000 and 1200 already
ITERATIONS = {ProximalGradient: 10_000, ADMM: 2000, DouglasRachford: 2000, PrimalDual: 10_000}
PENALTIES = (L1(0.1), MCP(0.1), SCAD(0.1), GroupL1(0.1, 3), Ridge(0.1))
each_kind = pytest.mark.parametrize("kind", ITERATIONS, ids=lambda kind: kind.__name__)
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: type(p).__name__)
precise = pytest.mark.parametrize("dtype", ["float64", "complex128"])


def settled(kind, penalty, obs: Observation) -> tuple[torch.Tensor, torch.Tensor]:
    """What it ends at, and the descent direction of the misfit there, `Aᴴ(y - A x)`."""
    x = iterate(kind(penalty), ITERATIONS[kind])(obs).x
    return x, obs.A.H @ (obs.y - obs.A @ x)


@precise
@each_kind
def test_fixed_point_with_l1_is_the_lasso(kind, dtype):
    x, slope = settled(kind, L1(0.1), observed(dtype)[1])
    active = x != 0
    assert active.any()
    assert (slope - 0.1 * torch.sgn(x))[active].abs().max() < 1e-8
    assert slope[~active].abs().max() <= 0.1 + 1e-8


@precise
@each_kind
def test_fixed_point_with_groups_is_the_group_lasso(kind, dtype):
    x, slope = (a.unflatten(-1, (-1, 3)) for a in settled(kind, GroupL1(0.1, 3), observed(dtype)[1]))
    norm = power(x).sum(-1, keepdim=True).sqrt()
    active = norm[..., 0] > 0
    assert active.any()
    assert not active.all()
    assert (slope - 0.1 * x / norm)[active].abs().max() < 1e-8
    assert power(slope).sum(-1).sqrt()[~active].max() <= 0.1 + 1e-8


@precise
@each_kind
def test_fixed_point_with_ridge_is_its_closed_form(kind, dtype):
    _, obs = observed(dtype)
    x, _ = settled(kind, Ridge(0.1), obs)
    A = obs.A.matrix()
    gram = A.mH @ A + 0.1 * torch.eye(obs.A.n, dtype=A.dtype)
    torch.testing.assert_close(x, torch.linalg.solve(gram, (obs.A.H @ obs.y).mT).mT, rtol=0, atol=1e-8)


@precise
@pytest.mark.parametrize("kind", [ProximalGradient, ADMM, DouglasRachford])
def test_fixed_point_with_mcp_is_stationary(kind, dtype):
    """Its slope is `lam - |x| / gamma` up to `gamma lam` and 0 beyond."""
    x, slope = settled(kind, MCP(0.1, 3.0), observed(dtype)[1])
    active = x != 0
    assert (x.abs() > 0.3).any()  # some are not shrunk at all
    expected = torch.sgn(x) * torch.relu(0.1 - x.abs() / 3)
    assert (slope - expected)[active].abs().max() < 1e-8
    assert slope[~active].abs().max() <= 0.1 + 1e-8


@precise
@pytest.mark.parametrize("kind", [ProximalGradient, ADMM, DouglasRachford])
def test_fixed_point_with_scad_is_stationary(kind, dtype):
    x, slope = settled(kind, SCAD(0.1, 3.7), observed(dtype)[1])
    active = x != 0
    assert (x.abs() > 0.37).any()
    expected = torch.sgn(x) * torch.minimum(torch.relu(0.37 - x.abs()) / 2.7, torch.full_like(x.real, 0.1))
    assert (slope - expected)[active].abs().max() < 1e-8
    assert slope[~active].abs().max() <= 0.1 + 1e-8


@each_penalty
def test_proximal_gradient_never_raises_the_objective(penalty):
    _, obs = observed("float64")
    objective = [
        power(obs.y - obs.A @ e.x).sum(-1) / 2 + penalty.value(e.x)
        for e in iterate(ProximalGradient(penalty), 200).trajectory(obs)
    ]
    for before, after in zip(objective, objective[1:]):  # noqa: RUF007
        assert (after <= before * (1 + 1e-12)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_proximal_gradient_with_l1_is_ista_to_rounding(dtype):
    _, obs = observed(dtype)
    assert_close(iterate(ProximalGradient(L1(0.1)), 12)(obs).x, iterate(ISTA(0.1), 12)(obs).x)


@precise
def test_admm_and_douglas_rachford_are_one_sequence(dtype):
    """With `x = z + u` and `rho = 1 / step`, Eckstein & Bertsekas (1992): from zero on the estimates are the same."""
    _, obs = observed(dtype)
    admm, splitting = ADMM(L1(0.1), rho=0.5), DouglasRachford(L1(0.1), gamma=2.0)
    for iterations in (1, 2, 10):
        assert_close(iterate(splitting, iterations)(obs).x, iterate(admm, iterations)(obs).x)


def test_admm_is_quicker_than_proximal_gradient():
    _, obs = observed("float64")
    limit, _ = settled(ADMM, L1(0.1), obs)
    admm, gradient = (iterate(kind(L1(0.1)), 50)(obs).x for kind in (ADMM, ProximalGradient))
    assert (admm - limit).norm() < (gradient - limit).norm() / 3


@pytest.mark.parametrize("dtype", ["float32", "complex128"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("penalty", PENALTIES[1:], ids=lambda p: type(p).__name__)
def test_every_law_with_every_penalty(penalty, law, dtype):
    """The registry's laws see l1, which is the default."""
    LAWS[law](ProximalGradient(penalty), dtype)


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@each_penalty
def test_every_penalty_exports(penalty, tmp_path):
    _, obs = observed("float64")
    estimator = iterate(ProximalGradient(penalty), 6)
    path = to_onnx(estimator, obs, tmp_path / "network.onnx")
    (x_hat,) = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(
        ["x_hat"], {"y": obs.y.numpy()}
    )
    expected = estimator(obs).x.numpy()
    # sums of n products in another order, a few layers deep
    assert np.abs(x_hat - expected).max() <= 1e3 * np.finfo(expected.dtype).eps * np.abs(expected).max()
    silent = Observation(torch.zeros_like(obs.y), obs.A)  # nothing to divide by
    (nothing,) = onnxruntime.InferenceSession(path).run(["x_hat"], {"y": silent.y.numpy()})
    assert not nothing.any()
    assert not estimator(silent).x.any()


@each_kind
@pytest.mark.parametrize("name", REGISTRY)
def test_networks_are_written_down_with_their_penalty(kind, name):
    _, obs = observed("float32")
    net = unfold(kind(REGISTRY[name]()), obs, 2, {"lam": "per-layer"})
    assert recipe.build_settings(recipe.describe_network(net)) == net.settings
