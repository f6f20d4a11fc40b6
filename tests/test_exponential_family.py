"""Exponential families: the posterior that one gives, that one is taken where draws are of it, and what it is worth."""

import math

import pytest
import torch
from torch import Tensor

import fanfold as ff
from fanfold.estimators.posterior import exponential_family
from fanfold.estimators.posterior.cumulant import Cumulant
from fanfold.estimators.posterior.ensemble import Ensemble
from fanfold.estimators.posterior.exponential_family import ExponentialFamily
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.network_kinds import CLIMBED, FAMILY, TAUGHT
from fanfold.estimators.posterior.pairing import paired
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.problems.base import Described
from runtime import in_runtime

NOTHING = -60.0  # logarithm of the weight of a ridge function that is not there


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_derivatives_are_those_of_autograd():
    A = Cumulant(*(part.double() for part in Cumulant.started(members=2, d=3, waves=6, seed=0)))
    A = A._replace(c=torch.randn(2, 1, 3, generator=rng(1), dtype=torch.float64))
    u = 0.7 * torch.randn(2, 5, 3, generator=rng(2), dtype=torch.float64)

    def value(u: Tensor) -> Tensor:  # of the second member
        at = A.a[1] @ u + A.b[1, 0]
        waves = torch.cat([at[:3].exp(), torch.nn.functional.softplus(at[3:])])
        return (A.v[1, 0].exp() * waves).sum() + (A.Q[1] @ u).square().sum() / 2 + A.c[1, 0] @ u

    at = A.derivatives(u)
    covariance = torch.randn(2, 5, 3, 3, generator=rng(3), dtype=torch.float64)
    covariance = covariance @ covariance.mT
    for i, point in enumerate(u[1]):
        hessian = torch.func.hessian(value)
        third = torch.func.jacrev(hessian)(point)
        assert torch.allclose(A.slope(u, at, A.squares())[1, i], torch.func.grad(value)(point), atol=1e-12)
        assert torch.allclose(A.curvature(at, A.squares())[1, i], hessian(point), atol=1e-4)  # the load on its diagonal
        skewness = torch.einsum("ijk,jk->i", third, covariance[1, i])
        assert torch.allclose(A.skewness(at, covariance, A.squares())[1, i], skewness, atol=1e-10)


def test_of_gaussians_the_posterior_is_the_linear_one():
    """`y = B u + w` with white noise: `C = B`, and A is the square of `B u` over two."""
    B = torch.randn(4, 3, generator=rng(0), dtype=torch.float64)
    family = ExponentialFamily(4, 3, members=1, seed=0, dtype=torch.float64)
    family.v.fill_(NOTHING)
    family.a.zero_()
    family.C.copy_(B)
    family.Q.copy_(torch.linalg.cholesky(B.mT @ B).mT)
    family.low.fill_(-math.inf)
    family.high.fill_(math.inf)
    y = 3 * torch.randn(20, 4, generator=rng(1), dtype=torch.float64)
    mean, var = family(y)
    covariance = torch.linalg.inv(B.mT @ B + torch.eye(3, dtype=torch.float64))
    assert torch.allclose(mean[0], y @ B @ covariance, rtol=1e-4)
    assert torch.allclose(var[0], covariance.diagonal().expand(20, 3), rtol=1e-4)


def of_the_truth() -> tuple[ff.Observation, ExponentialFamily]:
    """Observations of the Poisson regression, and its family with the true numbers."""
    problem = BENCHMARKS["Poisson regression"]
    _, obs = problem.sample(60, rng(4))
    V = problem.spread * problem.design()
    family = ExponentialFamily(6, 6, members=2, seed=0, dtype=torch.float64)
    family.v.fill_(NOTHING)
    for part in (family.a, family.b, family.Q, family.c):
        part.zero_()
    family.a[:, : len(V)] = V
    family.v[..., : len(V)] = 0.0
    family.root.copy_(problem.spread * torch.eye(6))
    family.C.copy_(torch.eye(6) * problem.spread)
    family.low.fill_(-math.inf)
    family.high.fill_(math.inf)
    return obs, family


def test_with_the_true_family_the_posterior_mean_is_exact():
    """Laplace's method to third order leaves less than a thousandth of the Bayes risk, where the mode leaves half."""
    obs, family = of_the_truth()
    exact = BENCHMARKS["Poisson regression"].posterior(obs)
    known = exact.x.isfinite().all(1)
    assert known.sum() > 50
    mean, var = family(obs.y.double())
    assert torch.equal(mean[0], mean[1])
    risk = exact.var[known].mean()
    assert (mean[0] - exact.x)[known].square().mean() < 1e-3 * risk
    assert ((var[0] / exact.var)[known].sqrt() - 1).abs().median() < 0.05


def test_measurements_of_their_own_are_looked_at_by_each_member():
    obs, family = of_the_truth()
    family.C[1] *= 1.1
    y = obs.y.double()
    together, apart = family(y), family(torch.stack([y, y.flip(0)]))
    for whole, own in zip(together, apart):
        assert torch.allclose(whole[0], own[0], atol=1e-6)  # of the first steps that members share nothing is left
        assert torch.allclose(whole[1].flip(0), own[1], atol=1e-6)


def drawn(name: str, n: int, seed: int) -> tuple[Tensor, Tensor]:
    x, obs = BENCHMARKS[name].sample(n, rng(seed))
    features = Features(obs, "vector", adaptive=True)
    features.prepare(obs)
    z = features(obs)
    return z[:, : z.shape[1] // 2], x


def test_a_canonical_model_is_paired_and_others_are_not():
    assert paired(*drawn("Bernoulli GLM", 3001, 1)).holds
    for name, straight in (("linear Gaussian", True), ("epidemic", False)):  # a straight line; not linear in y
        pairing = paired(*drawn(name, 3001, 1))
        assert not pairing.holds, name
        assert pairing.straight == straight
    assert not paired(*drawn("Bernoulli GLM", 500, 1)).holds  # too few draws to tell


def test_draws_that_never_change_are_no_error():
    x = torch.randn(3000, 2, generator=rng(0))
    assert not paired(torch.zeros(3000, 3), x).holds
    assert not paired(torch.cat([x, x], 1), x).holds  # nothing is left to explain


def test_heavy_tails_and_what_tells_nothing_are_no_straight_line():
    """By mean squares a few draws of heavy tails decide alone, and of a frequency with unknown phase no fit tells."""
    x, w = (torch.randn(3000, 2, generator=rng(seed)) for seed in (0, 1))
    assert paired(x + 0.5 * w, x).straight
    scale = torch.randn(3000, 2, 3, generator=rng(2)).square().mean(-1).sqrt()
    assert not paired(x / scale + 0.5 * w, x / scale).straight  # Student's law of three degrees of freedom
    assert not paired(w, x).straight


def prepared(problem, draws: int) -> Ensemble:
    net = ff.neural(problem)
    net.follow(draws)
    x, obs = problem.sample(draws, rng(2))
    with torch.no_grad():
        net.prepare(x, obs)
    return net


class WildCounts(Described):
    """Counts at the exponentials of parameters with heavy tails: up to 22 000 of them."""

    A = None

    def sample(self, n, generator):
        scale = torch.randn(n, 12, 3, generator=generator).square().mean(2).sqrt()
        x = torch.randn(n, 12, generator=generator) / scale
        return x, ff.Observation(torch.poisson((3 * x).clamp(-20, 10).exp(), generator=generator))


def test_a_fit_that_fails_is_no_error(monkeypatch):
    """Curvatures of such counts have no Cholesky factor in single precision."""
    monkeypatch.setattr(exponential_family, "MEMBER_STEPS", 300)
    problem = WildCounts()
    net = prepared(problem, 1000)
    _, obs = problem.sample(100, rng(3))
    for part in (*net.family(net.features.plain(obs)), net(obs).x, net(obs).var):
        assert part.isfinite().all()


def test_a_family_is_taken_of_few_draws_too(monkeypatch):
    """Of fewer draws than tell whether the posterior mean is a gradient."""
    monkeypatch.setattr(exponential_family, "MEMBER_STEPS", 1500)
    problem = BENCHMARKS["Poisson regression"]
    assert not paired(*drawn("Poisson regression", 505, 2)).holds
    assert prepared(problem, 505).networks.takes_family


@pytest.mark.parametrize(("name", "emulated"), [("linear Gaussian", False), ("epidemic", True)])
def test_others_are_of_no_family_and_a_straight_line_needs_no_emulator(name, emulated):
    net = prepared(BENCHMARKS[name], 1000)
    assert not net.networks.takes_family
    assert net.networks.silent == ({FAMILY} if emulated else {FAMILY, TAUGHT, CLIMBED})


@pytest.fixture(scope="module")
def trained():
    problem = BENCHMARKS["Poisson regression"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exponential_family, "MEMBER_STEPS", 2000)
        settings = ff.estimators.NeuralSettings(folds=2, width=32, depth=2)
        events = []
        net = ff.fit(settings.build(problem), problem, steps=60, simulations=2000, threads=1, on_event=events.append)
    return problem, net, events[-1].verdict


def test_a_family_is_taken_and_worth_what_it_costs(trained):
    """On counts over many decades, of which a line learns little; by medians, as one may lie beyond all draws."""
    problem, net, verdict = trained
    assert net.networks.takes_family
    assert "exponential family" in verdict
    assert "emulator 0" not in verdict  # no risk of an emulator is told
    _, obs = problem.sample(60, rng(9))
    exact = problem.posterior(obs)
    known = exact.x.isfinite().all(1)
    risk = exact.var[known].mean()
    excess = [((each(obs).x - exact.x)[known].square().mean(1) / risk).median() for each in (net, net.linear_part)]
    assert excess[0] < 0.1
    assert excess[1] > 1.0
    assert FAMILY in net.asked
    claimed = ((net(obs).var / exact.var)[known]).sqrt().median()
    assert 0.8 < claimed < 1.5


def test_it_is_kept_and_exported_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(exponential_family, "WAVES", 16)
    monkeypatch.setattr(exponential_family, "MEMBER_STEPS", 100)
    problem = BENCHMARKS["Poisson regression"]
    settings = ff.estimators.NeuralSettings(folds=2, width=8, depth=1)
    net = settings.build(problem)
    x, obs = problem.sample(600, rng(3))
    with torch.no_grad():
        net.prepare(x, obs)
        net.networks.of_family.fill_(True)
        net.weighing.shares.zero_()[:, net.sources.index(FAMILY)] = 1.0
        net.speaker.copy_(torch.tensor([float(kind == FAMILY) for kind in net.networks.counts]))
    obs = obs[:20]
    said = net(obs)
    assert net.asked == (FAMILY,)
    again = settings.build(problem)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(obs).x, said.x)
    in_onnx = in_runtime(ff.deploy.to_onnx(net, obs, tmp_path / "net.onnx"), obs)
    in_c = ff.deploy.compiled(net, obs)(obs)
    for other in (torch.as_tensor(in_onnx["x_hat"]), in_c.x):
        assert torch.allclose(other, said.x, rtol=1e-3, atol=1e-3)  # of inverses in single precision


def test_a_family_that_cannot_be_is_refused():
    problem = BENCHMARKS["linear Gaussian"]
    with pytest.raises(ValueError, match="leave it out"):
        ff.estimators.NeuralSettings("gaussian", family=True).build(problem)
    with pytest.raises(ValueError, match="leave it out"):
        ff.estimators.NeuralSettings(family=True).build(BENCHMARKS["mixture set"])


def test_measurements_far_from_all_draws_give_numbers(trained):
    _, net, _ = trained
    for size in (1e6, 1e30):
        estimate = net(ff.Observation(torch.full((2, 6), size)))
        assert estimate.x.isfinite().all()
        assert estimate.var.isfinite().all()
