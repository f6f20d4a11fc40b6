"""The model of y given x that teaches networks: its law, its draws, what never reaches whom, and kinds of no share."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.estimators.posterior.emulator import MOST_FEATURES, PAIRS, Emulator
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.network_kinds import CLIMBED, GAUSSIAN, SQUARED, TAUGHT
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.networks import StackedFourier
from fanfold.observation import Observation
from fanfold.problems import LinearGaussian, MixtureSignal
from machines import need
from runtime import check_near, in_runtime

FEW_STEPS = {"steps": 40, "batch": 32, "validate_every": 10, "simulations": 200, "threads": 1}


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear_pairs(count: int):
    """Parameters, and features of a known Gaussian law: `z = A x + L⁻ᵀ e`."""
    A = torch.tensor([[1.0, 0.5], [0.0, 1.0], [1.0, -1.0]])
    L = torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.5, 0.0], [-0.5, 0.3, 3.0]])
    x = torch.randn(count, 2, generator=rng(0))
    white = torch.randn(count, 3, generator=rng(1))
    return x, x @ A.mT + white @ torch.linalg.inv(L), A, L @ L.mT


def test_an_emulator_learns_the_likelihood_and_draws_from_it():
    x, z, A, precision = linear_pairs(4000)
    features = Features(Observation(z), "vector")
    emulator = Emulator(features, d=2, members=2, seed=0)
    emulator.prepare(x, z)
    optimiser = torch.optim.Adam(emulator.parameters(), 5e-3)
    for step in range(300):
        rows = torch.randint(len(x), (256,), generator=rng(step))
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / 300)
        optimiser.zero_grad()
        emulator.training_losses(x[rows], z[rows]).mean().backward()
        optimiser.step()
    with torch.no_grad():
        entropy = 1.5 - 0.5 * torch.logdet(precision)  # of z given x, but for the constant that losses leave out
        assert emulator.losses(x, z).mean().item() == pytest.approx(entropy.item(), abs=0.05)
        torch.manual_seed(5)
        near, drawn = emulator.draws(x, 2)
    assert drawn.shape == (2, 2 * PAIRS, 4000, 3)
    said = drawn[:, :PAIRS] + drawn[:, PAIRS:]  # what is not noise, twice
    assert torch.allclose(said, said[:, :1].expand_as(said), atol=1e-4)
    assert not torch.allclose(drawn[:, 0], drawn[:, 1], atol=0.1)
    error = (drawn - near @ A.mT).flatten(0, 2)
    assert torch.allclose(torch.cov(error.mT), torch.linalg.inv(precision), atol=0.1 * error.var(0).max().item())
    # moved by a Gaussian and shrunk: another x, of the same law
    assert not torch.equal(near, x)
    assert torch.allclose(near.mean(0), x.mean(0), atol=0.05)
    assert torch.allclose(torch.cov(near.mT), torch.cov(x.mT), atol=0.06)


def test_draws_stay_within_reach_of_what_was_seen():
    x, z, _, _ = linear_pairs(500)
    emulator = Emulator(Features(Observation(z), "vector"), d=2, members=1, seed=0)
    emulator.prepare(x, z)
    with torch.no_grad():
        for p in emulator.parameters():
            p.normal_(generator=rng(2)).mul_(3)
    _, drawn = emulator.draws(x, 1)
    width = z.amax(0) - z.amin(0)
    assert drawn.isfinite().all()
    assert (drawn >= z.amin(0) - 0.11 * width).all()
    assert (drawn <= z.amax(0) + 0.11 * width).all()
    assert emulator.losses(x, z).isfinite().all()


def test_the_second_half_of_features_follows_from_the_first():
    g = rng(0)
    plain, decades = torch.randn(4000, 1, generator=g), (4 * torch.randn(4000, 1, generator=g)).exp()
    counts = torch.poisson((2 * torch.randn(4000, 1, generator=g)).exp(), generator=g)
    obs = Observation(torch.cat([plain, decades, counts], 1))
    features = Features(obs, "vector", adaptive=True)
    features.prepare(obs)
    assert features.logged.tolist() == [False, True, True]
    z = features(obs)
    assert torch.allclose(features.completed(z[:, :3]), z, rtol=1e-3, atol=1e-3)


def test_a_taught_network_never_meets_what_it_is_judged_by():
    """Neither itself nor through its emulator: a batch of its own fold alone moves neither."""
    problem = MixtureSignal()
    net = ff.neural(problem, width=8)
    net.follow(1000)
    x, obs = problem.sample(400, rng(0))
    net.prepare(x, obs)
    fold = net._leaves_out(x, obs)[:5].int().argmax(0)
    mine = fold == 1
    net.losses(obs[mine], x[mine]).sum().backward()
    taught = net.networks.each[TAUGHT]
    for p in [*taught.parameters(), *net.emulator.parameters()]:
        assert p.grad is None or p.grad[1].abs().max() == 0
    moved = [p.grad[[0, 2]].abs().max() for p in net.emulator.parameters() if p.grad is not None]
    assert max(moved) > 0


def test_kinds_of_no_share_are_not_computed_and_not_exported(tmp_path):
    problem = MixtureSignal()
    net = ff.fit(ff.neural(problem, width=8), problem, **FEW_STEPS)
    _, obs = problem.sample(20, rng(1))
    sizes = {}
    for keep in (SQUARED, TAUGHT):
        shares = net.weighing.shares.zero_()
        shares[:, net.sources.index(keep)] = 1.0
        net.speaker.zero_()[list(net.networks.counts).index(TAUGHT)] = 1.0
        before = net(obs)
        assert set(net.asked) == {keep, TAUGHT}
        sizes[keep] = ff.deploy.to_onnx(net, obs, tmp_path / "net.onnx").stat().st_size
        with torch.no_grad():
            for p in net.networks.each[GAUSSIAN].parameters():
                p.fill_(math.nan)
        assert torch.equal(net(obs).x, before.x)
        assert torch.equal(net(obs).var, before.var)
    weights = net.networks.costs()
    assert sizes[SQUARED] - sizes[TAUGHT] > 4 * weights[SQUARED]  # bytes


def test_only_what_earns_its_cost_is_kept():
    """Of kinds that say the same the cheapest is kept, and one that is better is."""
    problem = MixtureSignal()
    net = ff.estimators.NeuralSettings(width=8, folds=5, students=1, family=False).build(problem)
    g = rng(0)
    truth = torch.randn(3000, net.d, generator=g).double()

    def said(error):
        return truth + error * torch.randn(truth.shape, generator=g).double()

    one = said(0.3)
    costs = net.networks.costs()
    assert costs[TAUGHT] < costs[GAUSSIAN]
    variances = torch.full((4, *truth.shape), 0.09)
    net._weigh(torch.stack([said(1.0), said(1.0), one, one, one, one]), truth, variances, truth.var(0))
    assert net._asked() == (TAUGHT,)
    apart = [said(error) for error in (1.0, 1.0, 0.3, 0.1, 0.6, 0.6)]
    net._weigh(torch.stack(apart), truth, variances, truth.var(0))
    assert GAUSSIAN in net._asked()


def test_no_emulator_of_what_is_no_short_vector():
    wide = LinearGaussian(n=2, m=MOST_FEATURES + 1)
    net = ff.neural(wide)
    net.follow(1000)
    assert net.emulator is None
    with pytest.raises(ValueError, match="no emulator of y can teach 2 networks"):
        ff.estimators.NeuralSettings(students=2).build(wide)
    with pytest.raises(ValueError, match="no emulator"):
        ff.estimators.NeuralSettings("gaussian", students=2).build(LinearGaussian())
    with pytest.raises(ValueError, match="6 students of 5 folds"):
        ff.estimators.NeuralSettings(students=6, folds=5).build(LinearGaussian())


def test_an_emulator_wins_where_y_is_simple_and_x_is_not():
    """Several modes from 300 draws: y given x is Gaussian, and x given y is not."""
    problem = BENCHMARKS["several modes"]
    net = ff.fit(ff.neural(problem, width=48), problem, simulations=300, steps=300, threads=1)
    _, obs = problem.sample(100, rng(7))
    exact = problem.posterior(obs)
    spread = problem.sample(5000, rng(8))[0].double().var(0)
    risk = (exact.var / spread).sum(-1).mean()

    def excess(x):
        return (((x.double() - exact.x).square() / spread).sum(-1).mean() / risk).item()

    with torch.no_grad():
        base = net._base(net.features(obs))
        means, _ = net.networks.moments(net._raw(obs, net.features(obs), base, net.networks.counts), base)
        of = dict(zip(net.networks.counts, map(excess, means)))
        assert of[TAUGHT] < 0.85 * min(of[SQUARED], of[GAUSSIAN])
        assert excess(net(obs).x) < 0.95 * min(of[SQUARED], of[GAUSSIAN])


def linear_emulator(members: int):
    """An emulator of `linear_pairs` as it would be after endless training: of a linear mean every network is one."""
    x, z, A, precision = linear_pairs(4000)
    emulator = Emulator(Features(Observation(z), "vector"), d=2, members=members, seed=0).double()
    emulator.prepare(x, z.double())
    emulator.means = LinearMean(A.double(), emulator.centre, emulator.root.square().sum(1).sqrt(), members)
    with torch.no_grad():
        L = torch.linalg.cholesky(precision.double())
        L = L.tril(-1) + L.diagonal().log().diag()
        emulator.noise.copy_(L[emulator.rows, emulator.columns].expand_as(emulator.noise))
    return emulator, x.double(), z.double(), A.double(), precision.double()


class LinearMean(torch.nn.Module):
    def __init__(self, A, centre, scale, members):
        super().__init__()
        self.A, self.centre, self.scale, self.members = A, centre, scale, members

    def forward(self, a):
        return ((self.centre + self.scale * a) @ self.A.mT).expand(self.members, *a.shape[-2:-1], len(self.A))

    def linearised(self, a):
        slopes = (self.A * self.scale).mT
        return (self.centre + self.scale * a) @ self.A.mT, slopes.expand(*a.shape, len(self.A))


def test_of_a_linear_law_steps_end_at_the_posterior():
    """Of a Gaussian prior and Gaussian noise, whose posterior has a closed form, from anywhere near it."""
    emulator, x, z, A, precision = linear_emulator(2)
    prior = torch.linalg.inv(torch.cov(x.mT))
    covariance = torch.linalg.inv(A.mT @ precision @ A + prior)
    mean = (z @ precision @ A + emulator.centre @ prior) @ covariance
    start = mean + 0.25 * emulator.root.square().sum(1).sqrt() * torch.randn(2, *mean.shape, generator=rng(4)).sign()
    said, var = emulator.climbed(z, start)
    assert torch.allclose(said, mean.expand_as(said), atol=1e-5)
    assert torch.allclose(var, covariance.diagonal().expand_as(var), rtol=1e-5)


def test_no_step_ends_where_the_features_are_less_likely():
    _, x, z, _, _ = linear_emulator(1)
    torch.manual_seed(1)
    wild = Emulator(Features(Observation(z), "vector"), d=2, members=1, seed=3).double()
    wild.prepare(x, z)
    with torch.no_grad():
        for p in wild.parameters():
            p.normal_(generator=rng(2)).mul_(0.7)
    start = x.unsqueeze(0)
    said, var = wild.climbed(z, start)
    assert said.isfinite().all()
    assert (var > 0).all()

    def misfit(u):
        a = wild._scaled(u)
        L = wild._triangle(wild.noise) @ wild._triangle(wild.noises(wild._scaled(start)))
        left = ((z - wild.means(a)).clamp(-1e9, 1e9).unsqueeze(-2) @ L).squeeze(-2)
        return left.square().sum(-1) + ((a @ wild.precision) * a).sum(-1)

    assert (misfit(said) <= misfit(start) * (1 + 1e-9)).all()
    assert (said != start).any()
    assert ((said - start) / wild.root.square().sum(1).sqrt()).abs().max() <= 0.6 + 1e-9  # two steps


def test_slopes_are_those_of_the_network():
    network = StackedFourier(members=2, inputs=3, outputs=4, width=8, depth=2, waves=5).double()
    with torch.no_grad():
        network.last.weight.normal_(generator=rng(0))
    z = torch.randn(2, 6, 3, generator=rng(1), dtype=torch.float64)
    value, slopes = network.linearised(z)
    assert torch.allclose(value, network(z))
    for member in range(2):
        for row in range(6):
            exact = torch.func.jacfwd(lambda one, m=member: network(one.expand(2, 1, 3))[m, 0])(z[member, row])
            assert torch.allclose(slopes[member, row], exact.mT)


def test_steps_on_an_emulator_leave_with_the_estimator(tmp_path):
    """Where they have a share they are exported, and say what torch says."""
    problem = BENCHMARKS["several modes"]
    net = ff.fit(ff.neural(problem, width=8), problem, **FEW_STEPS)
    _, obs = problem.sample(20, rng(1))
    net.weighing.shares.zero_()[:, net.sources.index(CLIMBED)] = 1.0
    net.speaker.zero_()[list(net.networks.counts).index(CLIMBED)] = 1.0
    said = in_runtime(ff.deploy.to_onnx(net, obs, tmp_path / "net.onnx"), obs)
    check_near(said["x_hat"], net(obs).x.detach())
    check_near(said["var"], net(obs).var.detach())
    need("gcc")
    in_c = ff.deploy.compiled(net, obs, flags=("-O1",))(obs)
    check_near(in_c.x, net(obs).x.detach())
    check_near(in_c.var, net(obs).var.detach())
