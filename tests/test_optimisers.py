"""The optimiser of matrices: what a step is, what stays with Adam, what it gains, and that it resumes."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.estimators.posterior.emulator import Emulator
from fanfold.estimators.posterior.features import Features
from fanfold.experiments.simulators.benchmarks import BENCHMARKS
from fanfold.observation import Observation
from fanfold.problems import LinearGaussian
from fanfold.training.events import Validated
from fanfold.training.optimisers import ALIKE, MOMENTUM, RATE, Muon, orthogonal


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def turned(rows: int, columns: int, singular: torch.Tensor, seed: int):
    """A matrix of these singular values, with its singular vectors."""
    u = torch.linalg.qr(torch.randn(rows, len(singular), generator=rng(seed), dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(columns, len(singular), generator=rng(seed + 1), dtype=torch.float64)).Q
    return u * singular @ v.mT, u, v


@pytest.mark.parametrize(("rows", "columns"), [(9, 5), (5, 9), (5, 5)])
def test_singular_values_come_near_one_and_vectors_stay(rows, columns):
    matrix, u, v = turned(rows, columns, torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5], dtype=torch.float64), 0)
    inner = u.mT @ orthogonal(matrix) @ v
    assert (inner.diagonal() > 0.6).all()
    assert (inner.diagonal() < 1.3).all()
    assert torch.allclose(inner, torch.diag(inner.diagonal()), atol=1e-12)
    assert torch.allclose(orthogonal(1e-3 * matrix), orthogonal(matrix))  # of any scale


def test_a_phase_of_a_complex_matrix_stays():
    matrix = torch.randn(6, 4, generator=rng(0), dtype=torch.complex128)
    assert torch.allclose(orthogonal(1j * matrix), 1j * orthogonal(matrix))
    assert ((torch.linalg.svdvals(orthogonal(matrix)) - 1).abs() < 0.5).all()


def test_each_matrix_of_a_stack_is_one_by_itself():
    stack = torch.randn(3, 6, 4, generator=rng(0))
    stack[1] = 0
    said = orthogonal(stack)
    assert torch.equal(said[1], torch.zeros(6, 4))
    for one, alone in zip(said, stack, strict=True):
        assert torch.allclose(one, orthogonal(alone), atol=1e-6)


def test_a_step_is_the_orthogonal_factor_of_the_momentum():
    p = torch.nn.Parameter(torch.randn(2, 6, 4, generator=rng(0)))
    optimiser = Muon([{"params": [p], "lr": 0.01, "matrices": True, "weight_decay": 0.5}])
    expected, momentum = p.detach().clone(), torch.zeros(2, 6, 4)
    for step in range(3):
        p.grad = torch.randn(2, 6, 4, generator=rng(1 + step))
        optimiser.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * p.grad
        ahead = orthogonal(MOMENTUM * momentum + (1 - MOMENTUM) * p.grad)
        expected = (1 - RATE * 0.01 * 0.5) * expected - RATE * 0.01 * ALIKE * math.sqrt(6) * ahead
    assert torch.allclose(p, expected, atol=1e-5)


def test_what_is_no_matrix_moves_as_with_adam():
    """Biases, single rows, and groups that offer no matrices, bit for bit."""
    sizes = [(5, 1, 4), (5, 4, 1), (7,), (5, 4, 3)]
    mine, adams = ([torch.nn.Parameter(torch.randn(size, generator=rng(0))) for size in sizes] for _ in range(2))
    muon = Muon([{"params": mine[:3], "lr": 0.1, "matrices": True}, {"params": mine[3:], "lr": 0.2}], weight_decay=0.3)
    adam = torch.optim.AdamW([{"params": adams[:3], "lr": 0.1}, {"params": adams[3:], "lr": 0.2}], weight_decay=0.3)
    for step in range(3):
        for a, b in zip(mine, adams, strict=True):
            a.grad = torch.randn(a.shape, generator=rng(step))
            b.grad = a.grad.clone()
        muon.step()
        adam.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, adams, strict=True))


def test_an_emulator_of_equations_is_learned_in_fewer_steps_than_by_adam():
    """Likelihood of log populations of predators and prey that it has not seen, in nats an observation."""
    x, obs = BENCHMARKS["predator and prey"].sample(2500, rng(0))
    u, z = (log - log.mean(0) for log in (x.log(), obs.y.log()))
    z = z / z.std(0)
    held = {}
    for name in ("adam", "muon"):
        emulator = Emulator(Features(Observation(z), "vector"), d=4, members=1, seed=0)
        emulator.prepare(u, z)
        groups = [emulator.parameter_group(4e-3)]
        optimiser = Muon(groups) if name == "muon" else torch.optim.AdamW(groups, weight_decay=0.0)
        full = [group["lr"] for group in optimiser.param_groups]
        for step in range(200):
            rows = torch.randint(2000, (128,), generator=rng(step))
            for group, rate in zip(optimiser.param_groups, full, strict=True):
                group["lr"] = rate * (1 - step / 200)
            optimiser.zero_grad()
            emulator.training_losses(u[rows], z[rows]).mean().backward()
            torch.nn.utils.clip_grad_norm_(emulator.parameters(), 10.0)
            optimiser.step()
        with torch.no_grad():
            held[name] = emulator.losses(u[2000:], z[2000:]).mean().item()
    assert held["muon"] < held["adam"] - 0.5


SHORT = {"steps": 12, "batch": 16, "validate_every": 4, "simulations": 120, "threads": 1}


def test_a_cut_training_goes_on_to_the_same_numbers(tmp_path):
    problem = LinearGaussian()
    _, obs = problem.sample(20, rng(0))
    whole = ff.fit(ff.neural(problem, width=8), problem, run_dir=tmp_path / "whole", optimiser="muon", **SHORT)

    class Cut(Exception):  # noqa: N818
        pass

    def cut(event):
        if isinstance(event, Validated) and event.step == 8:
            raise Cut

    net = ff.neural(problem, width=8)
    with pytest.raises(Cut):
        ff.fit(net, problem, run_dir=tmp_path / "cut", optimiser="muon", on_event=cut, **SHORT)
    again = ff.resume(tmp_path / "cut")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), whole.parameters(), strict=True))
    assert torch.equal(again(obs).x, whole(obs).x)
    other = ff.fit(ff.neural(problem, width=8), problem, optimiser="adam", **SHORT)
    assert not torch.equal(other(obs).x, whole(obs).x)


def test_an_estimator_without_matrices_refuses_it():
    problem = ff.problems.CompressedSensing(n=8, m=6)
    net = ff.unfold(ff.algorithms.ISTA(), problem, layers=2, learn={"step": "per-layer"})
    with pytest.raises(ValueError, match="offers none; take optimiser='adam'"):
        ff.fit(net, problem, steps=2, batch=4, validation_samples=10, optimiser="muon")
