"""Checkpointing: the same numbers in the memory of a few layers."""

from pathlib import Path

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import FREE, REGISTRY
from fanfold.deploy.memory import PeakMemory
from fanfold.runs.directory import Run
from fanfold.runs.keep import load
from fanfold.training.events import Stepped, Validated
from fanfold.training.fit import fit_events
from fanfold.training.settings import Training
from laws import DTYPES, observed

SHORT = {"steps": 20, "batch": 16, "validate_every": 5, "validation_samples": 50, "threads": 1, "lr": 4e-3}


def pair(algorithm, obs, layers: int, *, moved: bool = True):
    """The same network, plain and checkpointed, away from the algorithm."""
    learn = dict.fromkeys(algorithm.nominals, "per-layer")
    nets = [ff.unfold(algorithm, obs, layers, learn, checkpoint=checkpoint) for checkpoint in (False, True)]
    if moved:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for d, same in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
                d += 0.02 * torch.randn(d.shape, generator=generator, dtype=d.dtype)
                same.copy_(d)
    return nets


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", REGISTRY)
def test_checkpointing_changes_no_bit(name, dtype):
    """Of the estimates of the layers that a loss sums over, and of the gradients: the same operations, taken again."""
    x, obs = observed(dtype)
    seen = []
    for net in pair(REGISTRY[name](), obs, 13):  # two whole stretches of four, and some
        estimates = [e.x for e in net.trajectory(obs, latest=6)]
        sum((x_hat - x).abs().square().sum() for x_hat in estimates).backward()
        seen.append([*estimates, *(d.grad for d in net.parameters() if d.grad is not None)])
    plain, checkpointed = seen
    assert len(plain) == len(checkpointed) > 6
    assert all(torch.equal(a, b) for a, b in zip(plain, checkpointed))


@pytest.mark.parametrize("layers", [1, 2, 3, 7, 8, 9, 28])
def test_every_depth_and_cut_is_whole(layers):
    _, obs = observed("float64")
    plain, checkpointed = pair(ff.algorithms.FISTA(), obs, layers)
    for depth in {None, 1, layers // 2 or 1}:
        for latest in (None, 1, 2):
            a, b = (net.trajectory(obs, depth, latest) for net in (plain, checkpointed))
            assert len(a) == len(b)
            assert all(torch.equal(one.x, other.x) for one, other in zip(a, b))
            assert b[-1].x.requires_grad


def training_peak(net, problem, samples: int = 64, latest: int = 2) -> int:
    """Most bytes alive while a loss over the last layers is differentiated."""
    x, obs = problem.sample(samples, torch.Generator().manual_seed(1))
    net(obs)  # what derives from the operator is there before
    with PeakMemory() as memory:
        sum((e.x - x).abs().square().sum() for e in net.trajectory(obs, latest=latest)).backward()
    return memory.peak


LONG = ("ep", "gamp", "lvamp", "oamp", "oamp-net2", "tista", "hyperlista")  # the loop is the same for all


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LONG)) for n in REGISTRY])
def test_200_layers_train_in_the_memory_of_15(name):
    problem, algorithm = ff.problems.CompressedSensing(n=100, m=50, snr_db=30), REGISTRY[name]()
    theta = algorithm.nominals
    learn = {k: "per-layer" for k in theta if theta[k].domain is not FREE}  # matrices are memory of their own
    plain, deep = ff.unfold(algorithm, problem, 15, learn), ff.unfold(algorithm, problem, 200, learn, checkpoint=True)
    assert training_peak(deep, problem) <= training_peak(plain, problem)


def test_peak_memory_counts_what_lives_at_once():
    x = torch.ones(1000)
    with PeakMemory() as memory:
        for _ in range(10):
            x = (x + 1).reshape(10, 100) * 2  # three live: the old x, the sum, the product
            x = x.reshape(1000)
        assert memory.now == 4000
    assert memory.peak == 3 * 4000


def test_200_checkpointed_layers_learn():
    problem = ff.problems.CompressedSensing(n=40, m=20, snr_db=30)
    net = ff.unfold(
        ff.algorithms.ISTA(), problem, 200, {"threshold": "per-layer", "step": "per-layer"}, checkpoint=True
    )
    seen = []
    ff.fit(net, problem, on_event=seen.append, **SHORT)
    validated = [e.nmse_db for e in seen if isinstance(e, Validated)]
    assert validated[-1] < validated[0] - 1  # held-out draws, the same ones each time


def test_a_checkpointed_run_resumes_bit_for_bit_and_its_weights_fit_a_plain_network(tmp_path: Path):
    problem, learn = ff.problems.CompressedSensing(n=40, m=20, snr_db=30), {"threshold": "per-layer"}

    def network(*, checkpoint: bool):
        return ff.unfold(ff.algorithms.ISTA(), problem, 9, learn, checkpoint=checkpoint)

    whole = ff.fit(network(checkpoint=True), problem, run_dir=tmp_path / "whole", **SHORT)
    events = fit_events(network(checkpoint=True), problem, Training(**SHORT), tmp_path / "cut")
    for event in events:
        if isinstance(event, Stepped) and event.step == 13:
            break
    events.close()
    resumed = ff.resume(tmp_path / "cut")
    assert resumed.checkpoint
    assert load(tmp_path / "whole").checkpoint
    plain = ff.fit(network(checkpoint=False), problem, run_dir=tmp_path / "plain", **SHORT)
    assert not Run.open(tmp_path / "plain").config["network"]["checkpoint"]
    for net in (resumed, plain):
        assert torch.equal(net.deviations["threshold"], whole.deviations["threshold"])
    plain.load_state_dict(whole.state_dict())
