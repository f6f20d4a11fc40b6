"""The default end-to-end estimator: folds, unbounded scales, weights that add to one, and what it never does."""

import itertools
import math
import pickle
from dataclasses import dataclass

import pytest
import torch

import fanfold as ff
from fanfold.estimators.posterior.closed_forms import PolynomialForm
from fanfold.estimators.posterior.features import Features
from fanfold.estimators.posterior.folds import fold_of
from fanfold.estimators.posterior.plan import FEW, FEWEST, Plan, plan_for
from fanfold.estimators.posterior.scales import ParameterScales
from fanfold.estimators.posterior.stacking import partition
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.networks import StackedMLP
from fanfold.observation import Observation
from fanfold.problems import LinearGaussian, MixtureSignal
from fanfold.problems.base import Described
from fanfold.training.events import Finished, Validated
from runtime import check_near, in_runtime

FEW_STEPS = {"steps": 40, "batch": 32, "validate_every": 10, "simulations": 200, "threads": 1}
BOX = ff.problems.BatchSimulator(
    ff.problems.Box((0.0, -1.0), (1.0, 3.0)), lambda x, g: x + 0.3 * torch.randn(x.shape, generator=g).double()
)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Folds


def test_folds_are_as_likely_and_told_from_the_numbers_alone():
    for x in (torch.randn(20_000, 2, generator=rng(0)), torch.randint(3, (20_000, 2), generator=rng(0)).float()):
        y = torch.randn(20_000, 4, generator=rng(1))
        fold = fold_of(x, y, 5)
        counts = torch.bincount(fold, minlength=5)
        assert ((counts - 4000).abs() < 5 * math.sqrt(20_000 * 0.2 * 0.8)).all()
        order = torch.randperm(20_000, generator=rng(2))
        assert torch.equal(fold_of(x[order], y[order], 5), fold[order])
        assert torch.equal(fold_of(x.double(), y.double(), 5), fold)
    assert len(fold_of(x, torch.complex(y, y), 10).unique()) == 10


def test_all_draws_train_and_each_is_left_out_once():
    net = ff.neural(LinearGaussian())
    net.follow(1000)
    x, obs = LinearGaussian().sample(500, rng(0))
    leaves = net._leaves_out(x, obs)
    assert leaves.shape == (10, 500)  # two kinds of networks
    assert (leaves.sum(0) == 2).all()


# Scales


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_scale_has_no_bounds_and_comes_back(dtype):
    limits = [(-math.inf, math.inf), (0.0, math.inf), (-2.0, 5.0)]
    scales = ParameterScales(limits).to(dtype)
    x = torch.tensor([[-3.0, 1e-4, -1.9], [0.0, 1.0, 0.0], [1e3, 1e4, 4.9]], dtype=dtype)
    assert torch.allclose(scales.back(scales.free(x)), x, rtol=1e-4)
    wild = torch.randn(1000, 3, generator=rng(0)).to(dtype) * 1e4
    back, inside = scales.back(wild), scales.within(wild)
    for each in (back, inside):
        assert torch.isfinite(each).all()
        assert (each[:, 1] >= 0).all()
        assert ((each[:, 2] >= -2) & (each[:, 2] <= 5)).all()


def test_moments_of_a_gaussian_on_a_scale_are_those_of_its_draws():
    scales = ParameterScales([(-math.inf, math.inf), (0.0, math.inf), (-2.0, 5.0)])
    mean, var = torch.tensor([[0.3, -1.0, 0.5]]), torch.tensor([[2.0, 0.3, 4.0]])
    draws = scales.back(mean + var.sqrt() * torch.randn(400_000, 3, generator=rng(0)))
    x, x_var = scales.moments(mean, var)
    assert ((x - draws.mean(0)).abs() < 5 * (draws.var(0) / 400_000).sqrt() + 1e-4).all()
    fourth = (draws - draws.mean(0)).pow(4).mean(0)
    assert ((x_var - draws.var(0)).abs() < 5 * (fourth / 400_000).sqrt() + 1e-4).all()


def test_moments_are_numbers_however_wild_the_gaussian():
    scales = ParameterScales([(-math.inf, math.inf), (0.0, math.inf), (-2.0, 5.0)])
    for mean, var in itertools.product((-1e4, 0.0, 1e4), (0.0, 1.0, 1e6)):
        for moment in scales.moments(torch.full((1, 3), mean), torch.full((1, 3), var)):
            assert torch.isfinite(moment).all()
            assert (0 * moment == 0).all()  # as members that are not asked have a share of zero


def test_a_skewed_positive_parameter_is_learned_by_its_logarithm():
    scales = ParameterScales([(-math.inf, math.inf)] * 3)
    z = torch.randn(1000, 1, generator=rng(0))
    scales.prepare(torch.cat([(2 * z).exp(), z, 5 + 0.1 * z], 1))
    assert scales.kind.tolist() == [1.0, 0.0, 0.0]


# Features


def laws(y: torch.Tensor) -> Features:
    features = Features(Observation(y[:2]), "vector", adaptive=True)
    features.prepare(Observation(y))
    return features


def test_features_of_many_decades_and_heavy_tails_are_spread_evenly():
    z = torch.randn(4000, 1, generator=rng(0))
    counts = torch.poisson((1.5 * z + 1).exp(), generator=rng(1))
    y = torch.cat([z, (3 * z).exp(), counts, z.pow(3), z.exp().floor() * 0 + 2.5], 1)
    features = laws(y)
    assert features.logged.tolist() == [False, True, True, False, False]
    assert features.bent.tolist()[3]
    seen = features(Observation(y))
    assert seen[:, :4].abs().max() < 6  # as a Gaussian's; unspread the second goes up to 60
    assert (seen[:, 4] == 0).all()
    order = y[:, 1].argsort()
    assert (seen[order, 1].diff() >= 0).all()  # no order is lost
    beyond = features(Observation(torch.tensor([[1e9, -5.0, -1.0, -1e9, 2.5]])))
    assert torch.isfinite(beyond).all()


def test_light_tails_are_left_as_they_are():
    y = torch.cat([torch.randn(4000, 3, generator=rng(0)), torch.rand(4000, 2, generator=rng(1))], 1)
    features = laws(y)
    assert not (features.logged | features.bent).any()
    for name in ("linear Gaussian", "Bernoulli GLM"):
        _, obs = BENCHMARKS[name].sample(2000, rng(0))
        features = Features(obs[:2], "vector", adaptive=True)
        features.prepare(obs)
        assert not (features.logged | features.bent).any()


# Closed forms and weights


def test_a_polynomial_is_all_monomials_and_stays_at_its_edge():
    z = torch.randn(2000, 2, generator=rng(0))
    x = (z[:, :1] ** 3 - 2 * z[:, :1] * z[:, 1:] + z[:, 1:] - 1).double()
    form = PolynomialForm(Features(Observation(z), "vector"), d=1).double()
    left_out = form.fit(z.double(), x)
    assert left_out.abs().max() < 1e-4  # of 20; the least ridge is 1e-12 of the largest eigenvalue
    assert torch.allclose(form(z.double()), x, atol=1e-4)
    far = form(torch.tensor([[1e6, 0.0], [z[:, 0].abs().max().item(), 0.0]], dtype=torch.float64))
    assert torch.equal(far[0], far[1])


def test_weights_add_to_one_and_no_others_do_better():
    g = rng(0)
    truth = torch.randn(400, 2, generator=g)
    each = torch.stack([truth + s * torch.randn(400, 2, generator=g) for s in (0.5, 0.7, 3.0)])
    each[2, :, 1] = truth[:, 1] + 0.01
    w = partition(each, truth, torch.ones(400, 2))
    assert torch.allclose(w.sum(0), torch.ones(2, dtype=w.dtype))
    assert (w >= 0).all()
    risk = ((w.unsqueeze(1) * each).sum(0) - truth).square().mean(0)
    steps = torch.linspace(0, 1, 41)
    for a, b in itertools.product(steps, steps):
        if a + b <= 1:
            other = a * each[0] + b * each[1] + (1 - a - b) * each[2]
            # an estimator more has to gain a ten-thousandth to be taken
            assert ((other - truth).square().mean(0) > risk * (1 - 2e-4)).all()
    assert w[2, 1] > 0.99


# The estimator


def test_sizes_and_training_follow_the_number_of_draws():
    few, some, many = (plan_for(count, "vector") for count in (FEWEST, FEW, FEW + 1))
    assert few[0].dropout > some[0].dropout == 0
    assert few[0].folds == some[0].folds == 5 > many[0].folds
    assert many == plan_for(0, "vector")
    assert [plan[1].get("optimiser") for plan in (few, some, many)] == ["muon", "muon", None]
    assert plan_for(FEW, "sequence")[1].get("optimiser") is None
    net = ff.neural(LinearGaussian(), width=16)
    net.follow(1000)
    assert net.plan == Plan(5, 16, 5, 0.2, 3, family=True, mirrored=True)  # what is said is kept
    assert net.settings.folds == 5


def test_no_estimate_and_no_draw_leaves_the_support():
    net = ff.fit(ff.neural(BOX, width=8), BOX, **FEW_STEPS)
    _, obs = BOX.sample(200, rng(1))
    far = Observation(torch.cat([obs.y, 100 * obs.y, -1e6 * obs.y.abs()]))
    draws = net.sample(far, 50, rng(2))
    for x in (net(far).x, draws):
        assert torch.isfinite(x).all()
        assert ((x[..., 0] >= 0) & (x[..., 0] <= 1)).all()
        assert ((x[..., 1] >= -1) & (x[..., 1] <= 3)).all()
    inside = net.sample(obs, 4000, rng(3))
    var = net(obs).var.mean(0)
    assert ((inside.var(0).mean(0) / var - 1).abs() < 0.1).all()


def test_what_is_no_better_than_linear_says_so():
    said = []
    problem = LinearGaussian(n=2, m=3)
    net = ff.fit(ff.neural(problem), problem, on_event=said.append, **FEW_STEPS)
    verdict = said[-1].verdict
    assert isinstance(said[-1], Finished)
    assert verdict.startswith("The estimate is no better than the best linear one")
    assert all(source in verdict for source in net.sources if source not in net.networks.silent)
    mixture, said = MixtureSignal(), []
    ff.fit(ff.neural(mixture), mixture, on_event=said.append, **FEW_STEPS | {"simulations": 1000, "steps": 200})
    assert said[-1].verdict.startswith("Squared errors on draws left out")


def test_each_member_keeps_its_best_weights():
    scores, events = [], []
    problem = MixtureSignal()
    net = ff.neural(problem, width=16)
    judge = net.left_out

    def watched(obs, x):
        scores.append(judge(obs, x).scores)
        return judge(obs, x)

    vars(net)["left_out"] = watched
    ff.fit(net, problem, on_event=events.append, **FEW_STEPS | {"lr": 0.05})
    best = torch.stack(scores).amin(0)
    assert len(torch.stack(scores).argmin(0).unique()) > 1  # members are best at different steps
    assert events[-1].loss == pytest.approx(best.mean().item())
    assert min(e.loss for e in events if isinstance(e, Validated)) >= events[-1].loss - 1e-6


@pytest.mark.parametrize("settings", [{}, {"loss": "gaussian"}], ids=["squared error", "gaussian"])
def test_a_cut_training_goes_on_to_the_same_numbers(tmp_path, settings):
    """With dropout, means of weights and best members; the run is loaded with the sizes that it took."""
    problem = MixtureSignal()
    whole = ff.fit(ff.neural(problem, width=16, **settings), problem, run_dir=tmp_path / "whole", **FEW_STEPS)
    _, obs = problem.sample(50, rng(0))
    assert torch.equal(ff.load(tmp_path / "whole")(obs).x, whole(obs).x)

    class Cut(Exception):  # noqa: N818
        pass

    def cut(event):
        if isinstance(event, Validated) and event.step == 20:
            raise Cut

    net = ff.neural(problem, width=16, **settings)
    with pytest.raises(Cut):
        ff.fit(net, problem, run_dir=tmp_path / "cut", on_event=cut, **FEW_STEPS)
    again = ff.resume(tmp_path / "cut")
    assert torch.equal(again(obs).x, whole(obs).x)
    assert torch.equal(again(obs).var, whole(obs).var)


def test_zero_strength_is_the_best_linear_estimator():
    problem = MixtureSignal()
    net = ff.fit(ff.neural(problem, width=16), problem, **FEW_STEPS)
    _, obs = problem.sample(50, rng(0))
    assert not torch.allclose(net(obs).x, net.linear_part(obs).x, atol=1e-3)
    net.strength = 0.0
    assert torch.equal(net(obs).x, net.linear_part(obs).x)


def test_stacked_networks_are_as_many_of_their_own():
    stack = StackedMLP(3, 4, 2, width=8, depth=2)
    with torch.no_grad():
        for p in stack.parameters():
            p.normal_(generator=rng(1))
    alone = StackedMLP(1, 4, 2, width=8, depth=2)
    z = torch.randn(5, 4, generator=rng(2))
    for i in range(3):
        with torch.no_grad():
            for p, q in zip(alone.parameters(), stack.parameters()):
                p.copy_(q[i : i + 1])
        assert torch.allclose(alone(z)[0], stack(z)[i], atol=1e-6)


def test_it_exports_as_it_is(tmp_path):
    net = ff.fit(ff.neural(BOX, width=8), BOX, **FEW_STEPS)
    _, obs = BOX.sample(20, rng(1))
    said = in_runtime(ff.deploy.to_onnx(net, obs, tmp_path / "net.onnx"), obs)
    with torch.no_grad():
        estimate = net(obs)
    check_near(said["x_hat"], estimate.x)
    check_near(said["var"], estimate.var)


def test_few_simulations_come_near_to_the_posterior_mean():
    """Excess over the Bayes risk from 500 draws of five powers of many decades; the linear estimator's is beyond 1."""
    problem = BENCHMARKS["source localisation"]
    net = ff.fit(ff.neural(problem), problem, simulations=500, steps=300, threads=1)
    _, obs = problem.sample(100, rng(7))
    exact = problem.posterior(obs)
    spread = problem.sample(5000, rng(8))[0].double().var(0)
    risk = (exact.var / spread).sum(-1).mean()

    def excess(x):
        return (((x.double() - exact.x).square() / spread).sum(-1).mean() / risk).item()

    with torch.no_grad():
        assert excess(net(obs).x) < 0.2
        assert excess(net.linear_part(obs).x) > 0.25


def test_a_setting_of_something_else_is_refused():
    sets = BENCHMARKS["mixture set"]
    with pytest.raises(ValueError, match="depth is 3, of networks of vectors, and y is of kind 'set'"):
        ff.estimators.NeuralSettings(depth=3).build(sets)
    with pytest.raises(ValueError, match=r"dropout is 0\.1"):
        ff.estimators.NeuralSettings(dropout=0.1).build(sets)
    with pytest.raises(ValueError, match="take loss='pinball'"):
        ff.neural(LinearGaussian(), levels=(0.1, 0.9))
    assert ff.neural(LinearGaussian(), "pinball", levels=(0.1, 0.9)) is not None


# Hard data


@dataclass(frozen=True)
class Drawn(Described):
    """x by its law, and y = x + noise."""

    law: str
    limits: tuple[tuple[float, float], ...] = ((-math.inf, math.inf),)
    A = None

    def sample(self, n, generator):
        z = torch.randn(n, 1, generator=generator)
        zero = torch.rand(n, 1, generator=generator) < 0.3
        x = {
            "counts": torch.poisson(2 * torch.ones(n, 1), generator=generator),
            "zero-inflated": torch.where(zero, 0.0, z.abs()),
            "negative": -z.exp(),
            "log-normal": 500 * z.exp(),
            "decades": (8 * torch.rand(n, 1, generator=generator)).exp(),
            "whole": torch.randint(5, (n, 1), generator=generator),
        }[self.law]
        y = x.log() if self.law == "decades" else x
        return x, Observation(y + 0.5 * torch.randn(n, 1, generator=generator))


@pytest.mark.parametrize("loss", ["squared-error", "gaussian"])
@pytest.mark.parametrize(
    ("law", "limits"),
    [
        ("counts", (0.0, math.inf)),
        ("zero-inflated", (0.0, math.inf)),
        ("negative", (-math.inf, 0.0)),
        ("log-normal", (0.0, 1e9)),
        ("decades", (-math.inf, math.inf)),
        ("whole", (-math.inf, math.inf)),
    ],
)
def test_hard_parameters_are_never_worse_than_their_mean(law, limits, loss):
    problem = Drawn(law, (limits,))
    net = ff.fit(ff.neural(problem, loss, width=8), problem, **FEW_STEPS)
    x, obs = problem.sample(2000, rng(1))
    x = x.float()
    estimate, draws = net(obs), net.sample(obs, 20, rng(2))
    assert (estimate.x - x).square().mean() < 0.9 * x.var()
    assert (estimate.var <= 5 * x.var()).all()  # and no infinity
    for each in (estimate.x, draws):
        assert ((each >= limits[0]) & (each <= limits[1])).all()


def test_what_is_concluded_leaves_what_networks_deviate_from():
    """Of fresh draws others conclude than those that the linear estimator was fitted to."""
    problem, seen = MixtureSignal(), []
    net = ff.neural(problem, width=8)

    def watch(event):
        if isinstance(event, Validated):
            seen.append({k: v.clone() for k, v in net.state_dict().items() if k.startswith(("linear", "free_linear"))})

    ff.fit(net, problem, steps=4, validate_every=2, validation_samples=100, threads=1, on_event=watch)
    now = net.state_dict()
    assert all(torch.equal(now[name], value) for name, value in seen[-1].items())


def test_the_same_script_resumes_and_a_second_training_goes_on(tmp_path):
    problem = MixtureSignal()
    net = ff.fit(ff.neural(problem, width=8), problem, run_dir=tmp_path / "run", **FEW_STEPS)
    again = ff.fit(ff.neural(problem, width=8), problem, run_dir=tmp_path / "run", resume=True, **FEW_STEPS)
    _, obs = problem.sample(50, rng(0))
    assert torch.equal(again(obs).x, net(obs).x)
    before = net(obs).x
    ff.fit(net, problem, **FEW_STEPS | {"steps": 1, "lr": 1e-12})
    assert torch.allclose(net(obs).x, before, atol=1e-4)
    assert torch.equal(pickle.loads(pickle.dumps(net))(obs).x, net(obs).x)


@pytest.mark.parametrize("kind", ["vector", "set"])
def test_a_fold_may_be_empty(kind):
    """Of 24 draws some fold of ten is empty for most seeds, and of five for a few."""
    shape = {"vector": (3,), "set": (4, 2)}[kind]
    for seed in range(12):
        x, noise = torch.randn(30, 1, generator=rng(seed)), torch.randn(30, *shape, generator=rng(100 + seed))
        pairs = ff.problems.Pairs(x=x, y=noise + x.reshape(-1, *[1] * len(shape)), kind=kind)
        net = ff.fit(ff.neural(pairs, width=4), pairs, steps=2, threads=1)
        assert torch.isfinite(net(Observation(noise)).x).all()


def test_gradients_with_respect_to_y_are_numbers_at_zero():
    net = ff.fit(ff.neural(BOX, width=8), BOX, **FEW_STEPS)
    y = torch.tensor([[0.0, -3.0]], dtype=BOX.sample(1, rng(0))[1].y.dtype, requires_grad=True)
    net(Observation.unchecked(y)).x.sum().backward()
    assert torch.isfinite(y.grad).all()
