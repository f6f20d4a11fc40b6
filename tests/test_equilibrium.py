"""Fixed points as networks: the algorithm run to its end, gradients of an endless network, little memory."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import FREE, POSITIVE, REGISTRY, Algorithm, Nominal
from fanfold.deploy.memory import PeakMemory
from fanfold.observation import Estimate
from fanfold.runs.keep import load
from fanfold.training.events import Stepped
from fanfold.training.fit import fit_events
from fanfold.training.settings import Training
from fanfold.unfolding.adjoint import gmres
from laws import observed

SHORT = {"steps": 20, "batch": 16, "validate_every": 5, "validation_samples": 50, "threads": 1, "lr": 4e-3}
SETTLED = ("alista", "amp", "fista", "ista", "lamp", "lista", "lista-cp", "lvamp", "oamp", "tista")
TOLERANCE = 1e-11


def loss_gradients(net, x, obs) -> dict[str, torch.Tensor]:
    net.zero_grad()
    (net(obs).x - x).abs().square().sum().backward()
    return {k: torch.zeros_like(d) if d.grad is None else d.grad.clone() for k, d in net.deviations.items()}


def size(gradients) -> float:
    return sum(g.abs().square().sum().item() for g in gradients) ** 0.5


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("name", REGISTRY)
def test_gradients_are_those_of_a_network_without_end_or_it_says_why_not(name, dtype):
    """Where the algorithm settles on all three samples; EP, say, hangs on to entries whose update it refuses.

    With k iterations to a relative change of `tolerance`, the step contracts by `1 - ρ ≈ -ln(tolerance) / k`, and what
    is left of state and gradient is of the order `tolerance / (1 - ρ)²`, below `tolerance k²`.
    """
    x, obs = observed(dtype)
    algorithm = REGISTRY[name]()
    learn = dict.fromkeys(algorithm.nominals, "tied")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        net = ff.equilibrium(algorithm, obs, learn, tolerance=TOLERANCE, max_iterations=3000)
        implicit = loss_gradients(net, x, obs)
    if said:
        assert name not in SETTLED, said[0].message
        assert any(words in str(said[0].message) for words in ("has not reached a fixed point for", "are inexact"))
        return
    deep = loss_gradients(ff.unfold(algorithm, obs, 2 * net.iterations + 100, learn), x, obs)
    whole = size(deep.values())
    assert whole > 0
    assert size(implicit[k] - deep[k] for k in deep) <= TOLERANCE * net.iterations**2 * whole


def test_ista_has_the_gradient_of_300_layers():
    x, obs = observed("float64")
    learn = {"threshold": "tied vector"}
    net = ff.equilibrium(ff.algorithms.ISTA(0.3), obs, learn, tolerance=1e-12)
    implicit = loss_gradients(net, x, obs)["threshold"]
    deep = loss_gradients(ff.unfold(ff.algorithms.ISTA(0.3), obs, 300, learn), x, obs)["threshold"]
    assert net.iterations < 300
    assert (implicit - deep).norm() <= 1e-12 * 300**2 * deep.norm()


@pytest.mark.parametrize("name", SETTLED)
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_untrained_it_is_the_algorithm_run_until_nothing_changes(name, dtype):
    _, obs = observed(dtype)
    algorithm = REGISTRY[name]()
    net = ff.equilibrium(algorithm, obs, dict.fromkeys(algorithm.nominals, "tied"), tolerance=1e-3)
    with_gradient = net(obs).x
    assert torch.equal(with_gradient, ff.iterate(algorithm, net.iterations)(obs).x)
    with torch.no_grad():
        assert torch.equal(net(obs).x, with_gradient)
    later = ff.iterate(algorithm, 4 * net.iterations)(obs).x
    assert (later - with_gradient).norm() <= 1e-3 * net.iterations * later.norm()  # 1 / (1 - ρ) is below k


def test_samples_do_not_see_each_other():
    x, obs = observed("float64", samples=4)
    net = ff.equilibrium(ff.algorithms.AMP(), obs, {"alpha": "tied"}, tolerance=TOLERANCE)
    together = loss_gradients(net, x, obs)["alpha"]
    alone = sum(
        loss_gradients(net, x[i], ff.Observation(obs.y[i], obs.A, obs.noise_var))["alpha"] for i in range(len(x))
    )
    torch.testing.assert_close(together, alone, rtol=TOLERANCE * net.iterations**2, atol=0)


def test_a_momentum_that_grows_is_carried_and_not_differentiated():
    """FISTA ends where ISTA does, so gradients are ISTA's; its momentum has none."""
    x, obs = observed("float64")
    learn = {"threshold": "tied"}
    ista, fista = (
        ff.equilibrium(a, obs, learn, tolerance=TOLERANCE) for a in (ff.algorithms.ISTA(), ff.algorithms.FISTA())
    )
    slopes = [loss_gradients(net, x, obs)["threshold"] for net in (ista, fista)]
    torch.testing.assert_close(*slopes, rtol=TOLERANCE * ista.iterations**2, atol=0)


@pytest.mark.parametrize("name", ["ista", "fista", "oamp", "lista-cp"])
def test_memory_does_not_grow_with_the_iterations(name):
    """Two steps, and the directions of GMRES: at most 33 of what a step reads, its small matrices, a few rows."""
    problem = ff.problems.CompressedSensing(n=100, m=50, snr_db=30)
    x, obs = problem.sample(64, torch.Generator().manual_seed(1))
    algorithm = REGISTRY[name]()
    learn = {k: "tied" for k, q in algorithm.nominals.items() if q.domain is not FREE}

    def peak(gradient, tolerance: float) -> tuple[int, int]:
        net = ff.equilibrium(algorithm, obs[:64], learn, gradient=gradient, tolerance=tolerance)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # where rounding keeps a sample from the smaller tolerance
            net(obs)
            with PeakMemory() as memory:
                (net(obs).x - x).abs().square().sum().backward()
        return memory.peak, net.iterations

    (few, short), (same, long) = peak("jacobian-free", 1e-2), peak("jacobian-free", 1e-5)
    assert long > 2 * short
    assert same == few
    state = 64 * 200 * 4  # FISTA's, the largest: x and z
    assert peak("implicit", 1e-5)[0] <= 2 * few + 50 * state


def test_the_jacobian_free_gradient_descends():
    x, obs = observed("float64")
    exact, cheap = (
        loss_gradients(ff.equilibrium(ff.algorithms.ISTA(), obs, {"threshold": "tied"}, gradient=g), x, obs)[
            "threshold"
        ]
        for g in ("implicit", "jacobian-free")
    )
    assert (exact * cheap).sum() > 0
    assert not torch.allclose(exact, cheap)


class Place(NamedTuple):
    x: torch.Tensor


@dataclass(frozen=True)
class Linear(Algorithm):
    """A toy from outside the package: `x ← Aᴴy - factor x`, which turns round, grows or creeps."""

    factor: float

    nominals = {"gain": Nominal(lambda *_: 1.0, POSITIVE)}

    def start(self, obs):
        return Place(obs.y.new_zeros((*obs.y.shape[:-1], obs.A.n)))

    def step(self, s, obs, theta):
        return Place(theta.gain * (obs.A.H @ obs.y) - self.factor * s.x)

    def read(self, s):
        return Estimate(s.x)


@pytest.mark.parametrize(
    ("factor", "most", "reason"),
    [
        (1.0, 300, "3 of 3 samples: it goes round"),
        (1.05, 300, "it diverges, in steps that have grown"),
        (2.0, 3000, "it diverges, to numbers that are not finite"),
        (-0.99, 300, "it converges slowly"),
    ],
)
def test_it_says_why_there_is_no_fixed_point(factor, most, reason):
    _, obs = observed("float64")
    with pytest.warns(UserWarning, match=reason):
        ff.equilibrium(Linear(factor), obs, {"gain": "tied"}, max_iterations=most)(obs)


def test_it_says_how_many_iterations_a_slow_one_needs():
    """Changes of 0.99^k come below 1e-4 of the whole, `1 / 0.01`, at k = ln(1e-4 · 100) / ln(0.99) = 458."""
    _, obs = observed("float64")
    net = ff.equilibrium(Linear(-0.99), obs, {"gain": "tied"}, max_iterations=300)
    with pytest.warns(UserWarning, match="raise max_iterations to about") as said:
        net(obs)
    needed = int(str(said[0].message).split("about ")[1].split(".")[0])
    assert needed == pytest.approx(458, rel=0.1)
    enough = ff.equilibrium(Linear(-0.99), obs, {"gain": "tied"}, max_iterations=2 * needed)
    enough(obs)
    assert enough.iterations == pytest.approx(needed, rel=0.1)


def test_a_sample_without_a_fixed_point_leaves_the_gradients_of_the_others_alone():
    x, obs = observed("float64")
    wild = ff.Observation(obs.y * torch.tensor([[1.0], [1.0], [1e60]], dtype=obs.y.dtype), obs.A, obs.noise_var)
    net = ff.equilibrium(Squaring(), obs, {"gain": "tied vector"}, max_iterations=200)
    expected = loss_gradients(net, x[:2], obs[:2])["gain"]
    with pytest.warns(UserWarning, match="1 of 3 samples: it diverges"):
        estimates = net(wild).x
    net.zero_grad()
    (estimates - x)[:2].square().sum().backward()
    torch.testing.assert_close(net.deviations["gain"].grad, expected)


class Squaring(Linear):
    """`x ← Aᴴy / 10 + x² / 10`: settles from small data, and runs away from large data."""

    def __init__(self):
        super().__init__(0.1)

    def step(self, s, obs, theta):
        return Place(theta.gain * (obs.A.H @ obs.y) * self.factor + s.x.square() * self.factor)


@pytest.mark.parametrize(
    ("algorithm", "learn"),
    [(ff.algorithms.ISTA(0.3), {"threshold": "tied vector"}), (ff.algorithms.FISTA(), {"threshold": "tied"})],
    ids=str,
)
def test_it_learns_to_beat_the_algorithm_run_to_its_end(algorithm, learn):
    problem = ff.problems.CompressedSensing(n=60, m=30, snr_db=30)
    net = ff.fit(ff.equilibrium(algorithm, problem, learn), problem, **SHORT | {"steps": 40, "lr": 6e-3})
    x, obs = problem.sample(300, torch.Generator().manual_seed(9))
    classical = ff.units.nmse_db(ff.iterate(algorithm, 2000)(obs).x, x)
    assert ff.units.nmse_db(net(obs).x, x) < classical - 1


def test_a_run_resumes_bit_for_bit_and_loads(tmp_path: Path):
    problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=30)

    def network():
        return ff.equilibrium(ff.algorithms.ISTA(0.3), problem, {"threshold": "tied"}, max_iterations=3000)

    whole = ff.fit(network(), problem, run_dir=tmp_path / "whole", **SHORT)
    events = fit_events(network(), problem, Training(**SHORT), tmp_path / "cut")
    for event in events:
        if isinstance(event, Stepped) and event.step == 13:
            break
    events.close()
    resumed, loaded = ff.resume(tmp_path / "cut"), load(tmp_path / "whole")
    _, obs = problem.sample(5, torch.Generator().manual_seed(0))
    for net in (resumed, loaded):
        assert torch.equal(net.deviations["threshold"], whole.deviations["threshold"])
        assert torch.equal(net(obs).x, whole(obs).x)
        assert (net.tolerance, net.max_iterations, net.gradient) == (1e-4, 3000, "implicit")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learn": {"threshold": "per-layer"}}, "say 'tied'"),
        ({"learn": {"treshold": "tied"}}, "Did you mean 'threshold'"),
        ({"tolerance": 0.0}, "tolerance is 0.0"),
        ({"max_iterations": 1}, "max_iterations 1"),
        ({"gradient": "none"}, "gradient is 'none'"),
    ],
)
def test_what_is_no_equilibrium_is_refused(settings, message):
    _, obs = observed("float64")
    with pytest.raises(ValueError, match=message):
        ff.equilibrium(ff.algorithms.ISTA(), obs, **settings)


@pytest.mark.parametrize("window", [4, 32])
def test_gmres_solves_every_row(window):
    generator = torch.Generator().manual_seed(0)
    M = torch.eye(20, dtype=torch.float64) + 0.15 * torch.randn(5, 20, 20, generator=generator, dtype=torch.float64)
    b = torch.randn(5, 20, generator=generator, dtype=torch.float64)
    b[3] = 0
    u, left = gmres(lambda p: (M @ p[..., None])[..., 0], b, 1e-10, 400, window)
    assert left <= 1e-10
    assert (torch.linalg.vector_norm((M @ u[..., None])[..., 0] - b, dim=-1) <= 1.1e-10 * b.norm(dim=-1)).all()


def test_gmres_says_what_is_left():
    u, left = gmres(lambda p: p.roll(1, -1), torch.eye(8, dtype=torch.float64)[:1], 1e-6, 5)
    assert left == pytest.approx(1.0)  # a shift: nothing is gained before the eighth direction
    assert u.norm() < 1e-6
