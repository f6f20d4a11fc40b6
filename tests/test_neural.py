"""End-to-end estimators: their start, what each loss makes of them, every kind of observation, and their training."""

import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.noise import circular
from fanfold.core.streams import Stream
from fanfold.estimators.posterior.features import ridge
from fanfold.observation import Observation
from fanfold.priors import Uniform
from fanfold.problems import Denoising, LinearGaussian, MixtureSignal, Modulation, Pairs
from fanfold.problems.base import Described
from fanfold.problems.draws import Pool, draw
from fanfold.runs import recipe
from fanfold.training.events import Finished, Validated
from runtime import check_near, in_runtime

UNTRAINED = {"steps": 1, "lr": 1e-30, "validation_samples": 500}  # prepared from data, and not moved


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Measured(Described):
    """A linear measurement of two numbers, as a vector, sequence, image or set, real or complex."""

    kind: str = "vector"
    dtype: str = "float32"
    known_noise: bool = False

    A = None

    def sample(self, n, generator):
        dtype = getattr(torch, self.dtype)
        x = circular((n, 2), generator, dtype)
        y = x.repeat(1, 32) + circular((n, 64), generator, dtype, 0.5)
        shape = {"vector": (64,), "sequence": (2, 32), "image": (1, 8, 8), "set": (32, 2)}[self.kind]
        noise = 0.5 * torch.ones(n, *[1] * len(shape), dtype=x.real.dtype) if self.known_noise else None
        return x, Observation(y.reshape(n, *shape), None, noise)


# The start


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
def test_zero_deviation_is_the_best_linear_estimator(dtype):
    problem = Measured(dtype=dtype)
    net = ff.fit(ff.neural(problem, width=8), problem, **UNTRAINED)
    x, obs = problem.sample(2000, rng(1))
    centred = obs.y - obs.y.mean(0)
    W = torch.linalg.lstsq(centred, x - x.mean(0)).solution  # of the test draws themselves: no linear map does better
    best = (centred @ W + x.mean(0) - x).abs().square().mean()
    estimate = net(obs)
    assert estimate.x.dtype == x.dtype
    own = (estimate.x - x).abs().square().mean()
    # fitted to 4000 other draws with 64 (complex: 128 real) features: 128 / 4000 worse, and 128 / 2000 the other way
    assert best <= own < 1.12 * best
    net.strength = 0.0
    assert torch.equal(net(obs).x, net.linear_part(obs).x)


@pytest.mark.parametrize("kind", ["sequence", "image"])
def test_every_kind_has_the_same_linear_part(kind):
    """Whatever the mean of each place: channels are standardised as a whole."""

    @dataclass(frozen=True)
    class Tilted(Measured):
        def sample(self, n, generator):
            x, obs = super().sample(n, generator)
            return x, Observation(obs.y + torch.linspace(0, 10, 64).reshape(obs.y.shape[1:]))

    nets = [ff.fit(ff.neural(p, width=8), p, **UNTRAINED) for p in (Tilted("vector"), Tilted(kind))]
    y = Tilted("vector").sample(50, rng(0))[1].y
    shaped = y.reshape(50, *Tilted(kind).sample(1, rng(0))[1].y.shape[1:])
    a, b = (net.linear_part(Observation(z)).x for net, z in zip(nets, (y, shaped)))
    # the same ridge in other units, its weight on a grid of half a decade
    assert torch.allclose(a, b, atol=0.02)


def test_measurements_in_another_precision_and_tiny_units_will_do():
    @dataclass(frozen=True)
    class Tiny(Measured):
        def sample(self, n, generator):
            x, obs = super().sample(n, generator)
            return x, Observation(1e-13 * obs.y)

    net, plain = (ff.fit(ff.neural(p, width=8), p, **UNTRAINED) for p in (Tiny(), Measured()))
    _, obs = Measured().sample(5, rng(0))
    assert torch.allclose(net(Observation(1e-13 * obs.y.double())).x, plain(obs).x, atol=1e-3)


def test_quantiles_without_a_median_have_their_middle_between():
    net = ff.neural(LinearGaussian(n=2, m=2), "pinball", levels=(0.05, 0.95))
    obs = Observation(torch.zeros(1, 2), None, torch.tensor(1.0))
    assert net(obs).x.abs().max() < 1e-6


def test_ridge_finds_the_weight_of_the_posterior_mean():
    problem = LinearGaussian(n=20, m=40, snr_db=-5)
    x, obs = problem.sample(60, rng(0))
    z, x = obs.y.double(), x.double()
    W, left_out = ridge(z - z.mean(0), x - x.mean(0))
    fresh, seen = problem.sample(5000, rng(1))
    error = (fresh.double() - seen.y.double() @ W.mT).square().mean()
    plain = torch.linalg.lstsq(z, x).solution
    assert error < 1.0  # better than the prior mean from 60 draws of 40 features,
    assert (fresh.double() - seen.y.double() @ plain).square().mean() > 1.2 * error  # where least squares overfits
    # the error of samples left out is that of fresh ones, to the spread of 60 x 20 squares
    assert left_out.square().mean().item() == pytest.approx(error.item(), rel=5 * math.sqrt(2 / 1200))


def test_left_out_errors_are_those_of_fits_to_all_others():
    g = rng(0)
    z, x = torch.randn(25, 40, generator=g, dtype=torch.float64), torch.randn(25, 1, generator=g, dtype=torch.float64)
    z, x = z - z.mean(0), x - x.mean(0)  # more features than draws: a fit to all of them has no error at all
    W, left_out = ridge(z, x)
    assert (x - z @ W.mT).square().mean() < left_out.square().mean()
    assert left_out.square().mean() > 0.8 * x.square().mean()  # nothing is to be learned


def test_a_parameter_that_never_changes_is_refused():
    @dataclass(frozen=True)
    class Constant(Measured):
        def sample(self, n, generator):
            x, obs = super().sample(n, generator)
            return torch.cat([x, torch.ones(n, 1)], -1), obs

    with pytest.raises(ValueError, match="parameter 2 has the same value in all"):
        ff.fit(ff.neural(Constant()), Constant(), **UNTRAINED)


# What it learns


def excess(net, problem, draws: int = 20_000) -> float:
    _, obs = draw(problem, draws, 0, Stream.TESTING, 0)
    exact = problem.posterior(obs)
    with torch.no_grad():
        found = net(obs).x
    return ((found - exact.x).square().sum(-1).mean() / exact.var.sum(-1).mean()).item()


@pytest.fixture(scope="module")
def trained():
    """A heteroscedastic pair of networks on a uniform parameter in noise."""
    problem = Denoising(Uniform())
    return problem, ff.fit(ff.neural(problem, "gaussian", members=2), problem, steps=400, threads=1)


def test_squared_error_gives_the_posterior_mean():
    problem = MixtureSignal()
    net = ff.neural(problem, width=64)
    ff.fit(net, problem, steps=500, threads=1)
    assert excess(net, problem) < 0.03 < 0.1 < excess(net.linear_part, problem)


def test_gaussian_likelihood_gives_mean_and_variance(trained):
    problem, net = trained
    x, obs = draw(problem, 20_000, 0, Stream.TESTING, 0)
    exact = problem.posterior(obs)
    with torch.no_grad():
        found = net(obs)
    assert excess(net, problem) < 0.02
    # posteriors near the ends of the interval are narrower: the network says so
    assert torch.corrcoef(torch.stack([found.var.flatten(), exact.var.flatten()]))[0, 1] > 0.95
    score = ((found.x - x).square() / found.var).mean().item()
    assert score == pytest.approx(1, abs=0.1)


def test_absolute_error_gives_the_median_and_pinball_the_quantiles():
    @dataclass(frozen=True)
    class Skewed(Described):  # x | y is y plus an exponential variable: median and quantiles are known
        A = None

        def sample(self, n, generator):
            y = torch.randn(n, 1, generator=generator)
            return y - torch.log(1 - torch.rand(n, 1, generator=generator)), Observation(y)

    problem = Skewed()
    _, obs = problem.sample(500, rng(1))
    median = ff.fit(ff.neural(problem, "absolute"), problem, steps=300, threads=1)
    quantiles = ff.fit(ff.neural(problem, "pinball", levels=(0.1, 0.5, 0.9)), problem, steps=300, threads=1)
    with torch.no_grad():
        middle = (median(obs).x - obs.y).mean().item()
        found = (quantiles.quantiles(obs) - obs.y.unsqueeze(-2)).mean(0).flatten()
    # quantiles of 150 000 draws of an exponential variable err by less than .01; training adds more
    assert middle == pytest.approx(math.log(2), abs=0.05)
    expected = torch.tensor([-math.log(0.9), math.log(2), -math.log(0.1)])
    assert torch.allclose(found, expected, atol=0.1)
    with pytest.raises(ValueError, match="loss='pinball'"):
        median.quantiles(obs)


def test_cross_entropy_gives_the_class_posterior():
    problem = Modulation(symbols=4, classes=("bpsk", "qpsk"))
    net = ff.fit(ff.neural(problem, "cross-entropy"), problem, steps=200, batch=256, threads=1)
    x, obs = draw(problem, 20_000, 0, Stream.TESTING, 0)
    with torch.no_grad():
        p = net(obs).x
    exact = problem.posterior(obs).x
    losses = [-(q * x).sum(-1).log().mean().item() for q in (p, exact)]
    assert torch.allclose(p.sum(-1), torch.ones(len(p)))
    assert losses[0] < 1.05 * losses[1] < 0.9 * math.log(2)


def test_a_loss_of_the_users_own():
    problem = LinearGaussian(n=2, m=2)
    huber = lambda x_hat, x: torch.nn.functional.huber_loss(x_hat, x, reduction="none").sum(-1)  # noqa: E731
    net = ff.neural(problem, huber)
    seen: list = []
    ff.fit(net, problem, steps=20, batch=64, threads=1, on_event=seen.append)
    assert isinstance(seen[-1], Finished)
    assert seen[-1].loss is not None
    assert net.settings.loss is huber
    with pytest.raises(ValueError, match="cannot name a lambda"):
        recipe.describe_network(net)


# Every kind of observation


@pytest.mark.parametrize("known_noise", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("kind", ["vector", "sequence", "image", "set"])
def test_every_kind_of_observation_learns(kind, dtype, known_noise):
    problem = Measured(kind, dtype, known_noise)
    net = ff.neural(problem, "gaussian", width=16)
    ff.fit(net, problem, steps=60, batch=128, validation_samples=500, threads=1)
    x, obs = problem.sample(400, rng(3))
    with torch.no_grad():
        estimate = net(obs)
        single = net(obs[:1]) if known_noise else net(Observation(obs.y[0]))
    assert estimate.x.shape == x.shape
    assert estimate.x.dtype == x.dtype
    assert estimate.var.dtype == x.real.dtype
    assert single.x.shape == ((1, 2) if known_noise else (2,))
    # the sample mean of 32 looks has an error of .5 / 32 of the power 1; the prior mean has 1
    assert (estimate.x - x).abs().square().mean() < 0.25
    # matrix products of one row and of many round differently
    assert torch.allclose(single.x.flatten(), estimate.x[0], atol=1e-4)


def test_a_set_has_no_order():
    problem = Measured("set")
    net = ff.fit(ff.neural(problem, width=16), problem, steps=20, threads=1, validation_samples=500)
    _, obs = problem.sample(10, rng(0))
    turned = Observation(obs.y[:, torch.randperm(32, generator=rng(1))])
    with torch.no_grad():
        assert torch.allclose(net(obs).x, net(turned).x, atol=1e-5)  # sums round in another order


# Training


def test_a_budget_is_drawn_once_and_a_tenth_is_held_out():
    class Counting(LinearGaussian):
        drawn = 0

        def sample(self, n, generator):
            Counting.drawn += n
            return super().sample(n, generator)

    problem = Counting()
    ff.fit(ff.neural(problem), problem, steps=30, simulations=300, threads=1)
    assert Counting.drawn == 302  # two of them to see the shapes
    pool = Pool(problem, 100, 0)
    seen = torch.cat([pool.batch(30, step)[0] for step in range(3)])
    assert len(torch.unique(seen, dim=0)) == 90  # an epoch takes each once
    held_out = pool.part(held_out=True)[0]
    assert not (seen.unsqueeze(1) == held_out).all(-1).any()
    with pytest.raises(ValueError, match="at least 20"):
        Pool(problem, 10, 0)


def test_few_simulations_never_make_it_worse_than_it_was():
    problem = LinearGaussian()
    seen: list = []
    net = ff.fit(ff.neural(problem), problem, steps=200, simulations=200, threads=1, on_event=seen.append)
    validated = [e.loss for e in seen if isinstance(e, Validated)]
    assert seen[-1].loss <= min(validated)  # as each member keeps its best
    assert excess(net, problem) < 0.15


def test_stored_pairs_are_held_out_from_those_to_train_on(tmp_path):
    problem = LinearGaussian()
    x, obs = problem.sample(200, rng(0))
    np.savez(tmp_path / "pairs.npz", x=x.numpy(), y=obs.y.numpy())
    pairs = Pairs(str(tmp_path / "pairs.npz"))
    net = ff.neural(pairs, members=1)
    net.prepare(*Pool(pairs, 160, 0).part(held_out=False))  # four fifths of 200; the others are for tests
    W, scale = net.linear.W.clone(), net.scale.clone()
    ff.fit(net, pairs, steps=1, lr=1e-30, threads=1)
    assert torch.equal(net.linear.W, W)
    assert torch.equal(net.scale, scale)


def test_a_run_directory_keeps_it_whole_and_resumes_to_the_same_numbers(tmp_path):
    problem = MixtureSignal()
    settings = {"steps": 40, "batch": 64, "validate_every": 10, "validation_samples": 200, "threads": 1}
    whole = ff.fit(ff.neural(problem, "gaussian", members=2), problem, run_dir=tmp_path / "whole", **settings)
    _, obs = problem.sample(50, rng(0))
    assert torch.equal(ff.load(tmp_path / "whole")(obs).x, whole(obs).x)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(event):
        if isinstance(event, Validated) and event.step == 20:
            raise Stop

    with pytest.raises(Stop):
        ff.fit(ff.neural(problem, "gaussian", members=2), problem, run_dir=tmp_path / "cut", on_event=stop, **settings)
    assert torch.equal(ff.resume(tmp_path / "cut")(obs).x, whole(obs).x)


def test_the_command_line_trains_evaluates_applies_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = ["--steps", "30", "--validation-samples", "200", "--run-dir", "run"]
    assert cli.run(["train", "linear-gaussian", "neural", "--loss", "gaussian", *quick]) == 0
    assert cli.run(["evaluate", "run", "--samples", "200", "--json"]) == 0
    out = capsys.readouterr().out
    rows = {row["estimator"]: row for row in json.loads(out[out.index("{") :])["rows"]}
    assert set(rows) == {"network", "best linear estimator", "exact posterior"}
    assert rows["network"]["limit_db"] is not None
    np.save("y.npy", np.zeros((3, 10)))
    assert cli.run(["apply", "run", "y.npy", "--coverage", "0.9", "--joint"]) == 0
    assert np.load("x_hat.npy").shape == np.load("x_hat_var.npy").shape == (3, 10)
    wide = np.load("x_hat_high.npy") - np.load("x_hat_low.npy")
    assert cli.run(["apply", "run", "y.npy", "--coverage", "0.9", "--overwrite"]) == 0
    assert (np.load("x_hat_high.npy") - np.load("x_hat_low.npy") < wide).all()
    assert cli.run(["report", "run", "--samples", "200"]) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("<section>") == 10  # what was run, each unknown, and four on the posterior
    assert "Squared errors on draws left out" in page  # what training came to
    assert cli.run(["runs", "."]) == 0
    assert "neural" in capsys.readouterr().out
    assert cli.run(["train", "linear-gaussian", "neural", "--config", "run/config.toml", "--run-dir", "again"]) == 0


def test_it_exports_to_onnx(tmp_path, trained):
    problem, net = trained
    _, obs = problem.sample(50, rng(5))
    said = in_runtime(ff.deploy.to_onnx(net, obs, tmp_path / "net.onnx"), obs)
    with torch.no_grad():
        estimate = net(obs)
    assert set(said) == {"x_hat", "var"}  # of the loss "gaussian"
    check_near(said["x_hat"], estimate.x)
    check_near(said["var"], estimate.var)


# Errors


@pytest.mark.parametrize(
    ("loss", "settings", "message"),
    [
        ("squared", {}, "loss is 'squared'; take squared-error"),
        ("cross-entropy", {}, "one-hot x"),
        ("pinball", {"levels": (0.5, 1.5)}, "between 0 and 1"),
        ("squared-error", {"members": 0}, "members is 0"),
    ],
)
def test_what_cannot_be_learned_is_refused(loss, settings, message):
    with pytest.raises(ValueError, match=message):
        ff.neural(LinearGaussian(), loss, **settings)


def test_another_shape_is_refused():
    net = ff.neural(LinearGaussian(m=10))
    with pytest.raises(ValueError, match=r"this estimator takes \(\.\.\., 10\)"):
        net(Observation(torch.zeros(3, 12), None, torch.tensor(1.0)))
    with pytest.raises(ValueError, match="with a noise_var"):
        net(Observation(torch.zeros(3, 10)))
