"""Networks that are gradients of potentials: taken where the posterior mean is one, and what that is worth."""

import pytest
import torch
from torch import Tensor

import fanfold as ff
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.pairing import paired
from fanfold.estimators.posterior.squared_error import SquaredErrorNetworks
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.networks import StackedMLP, StackedPotentials
from runtime import check_near, in_runtime


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(name: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    x, obs = BENCHMARKS[name].sample(n, rng(seed))
    features = Features(obs, "vector", adaptive=True)
    features.prepare(obs)
    z = features(obs)
    return z[:, : z.shape[1] // 2], x


def test_the_chain_rule_is_that_of_autograd():
    stack = StackedPotentials(3, 4, width=8, depth=3).double()
    with torch.no_grad():
        for p in stack.parameters():
            p.normal_(generator=rng(1))
    z = torch.randn(3, 5, 4, generator=rng(2), dtype=torch.float64, requires_grad=True)
    inner = z
    for layer in stack.layers:
        inner = torch.nn.functional.silu(layer(inner))
    (expected,) = torch.autograd.grad((stack.slope * inner).sum(), z)
    assert torch.allclose(stack(z), expected, rtol=1e-12, atol=1e-12)


def test_a_canonical_model_is_paired_and_others_are_not():
    assert paired(*drawn("Bernoulli GLM", 3001, 1)).holds
    for name in ("linear Gaussian", "epidemic"):  # nothing but a straight line; not linear in y
        assert not paired(*drawn(name, 3001, 1)).holds, name
    assert not paired(*drawn("Bernoulli GLM", 500, 1)).holds  # too few draws to tell


def test_the_pairing_of_a_canonical_model_is_the_identity():
    """`Vᵀ z` is paired with the parameters themselves, by whatever linear map it and they are seen."""
    x, obs = BENCHMARKS["Bernoulli GLM"].sample(5000, rng(3))
    mixed, turned = torch.randn(10, 10, generator=rng(4)), torch.randn(10, 10, generator=rng(5))
    C = paired(obs.y @ mixed, x @ turned).C  # s = y, so that xᵀ s = (turnedᵀ x)ᵀ C' y'
    back = mixed.double() @ C @ turned.double().mT
    C = back / back.diagonal().mean()
    spread = obs.y.double().std(0)  # entries are told as well as what they weigh by
    assert ((C - torch.eye(10)) * spread[:, None] / spread).norm() < 0.3 * 10**0.5
    linear = torch.linalg.lstsq(obs.y.double() - obs.y.double().mean(0), x.double() - x.double().mean(0)).solution
    assert (linear / linear.diagonal().mean() - torch.eye(10)).norm() > 0.4 * 10**0.5  # what it is not


def test_draws_that_never_change_are_no_error():
    x = torch.randn(3000, 2, generator=rng(0))
    assert not paired(torch.zeros(3000, 3), x).holds
    assert not paired(torch.cat([x, x], 1), x).holds  # nothing is left to explain


@pytest.fixture(scope="module")
def trained():
    problem = BENCHMARKS["Bernoulli GLM"]
    settings = ff.estimators.NeuralSettings(folds=2, width=32, depth=2)
    events = []
    net = ff.fit(settings.build(problem), problem, steps=150, simulations=3500, threads=1, on_event=events.append)
    return problem, net, events[-1].verdict


def test_gradients_are_worth_draws_and_need_no_pupils(trained):
    problem, net, verdict = trained
    assert net.networks.of_gradients
    assert "gradients" in verdict
    assert "taught by an emulator" not in verdict
    free = ff.estimators.NeuralSettings(folds=2, width=32, depth=2, gradients=False, students=0).build(problem)
    ff.fit(free, problem, steps=150, simulations=3500, threads=1)
    x, obs = problem.sample(20_000, rng(9))
    unit = x.var(0)
    risks = [((each(obs).x - x).square().mean(0) / unit).mean() for each in (net, free)]
    assert risks[0] < 0.99 * risks[1]  # of which some nine tenths are the Bayes risk


def test_it_is_kept_and_exported_as_it_is(trained, tmp_path):
    problem, net, _ = trained
    _, obs = problem.sample(20, rng(1))
    again = net.settings.build(problem)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(obs).x, net(obs).x)
    said = in_runtime(ff.deploy.to_onnx(net, obs, tmp_path / "net.onnx"), obs)
    check_near(said["x_hat"], net(obs).x.detach())


def test_members_are_taken_over_one_by_one():
    def made(seed: int) -> SquaredErrorNetworks:
        net = SquaredErrorNetworks(3, 2, StackedMLP(3, 3, 4, width=8, depth=1), width=8, seed=seed)
        with torch.no_grad():
            for p in net.parameters():
                p.normal_(generator=rng(seed))
            for buffer in (net.C, net.back):
                buffer.copy_(torch.eye(*buffer.shape))
            net.holds.fill_(True)
        return net

    first, second, z = made(0), made(1), torch.randn(5, 3, generator=rng(2))
    before = first(z)
    with torch.no_grad():
        first.take(first.state_dict(), second.state_dict(), torch.tensor([False, True, False]))
    assert torch.equal(first(z)[1], second(z)[1])
    assert torch.equal(first(z)[::2], before[::2])
