"""Measurements unlike the training are said at `apply`; those of the training problem are not."""

import json

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.guard import TrainingGuard, UsualRange
from fanfold.observation import Observation
from fanfold.runs.directory import Run
from fanfold.runs.usual import NORM, RESIDUAL, usual_of

BOX = ff.problems.Box(low=(0.2, -1.0), high=(2.0, 1.0))
SIMULATOR = ff.problems.BatchSimulator(
    BOX, lambda x, generator: x @ torch.ones(2, 5) + 0.1 * torch.randn(len(x), 5, generator=generator)
)
SPARSE = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)
IMAGES = ff.problems.RFImaging("gaussian", (6, 6), (6, 6))
CHANNELS = ff.problems.OFDMChannel("rayleigh:array=4,subcarriers=12", snr_db=10.0)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def linear(problem):
    net = ff.neural(problem, width=8)
    net.prepare(*problem.sample(500, generator()))
    return net


def unfolded(problem):
    return ff.unfold(ff.algorithms.OAMP(), problem, 4, {"damping": "tied"})


CASES = {
    "simulator": (SIMULATOR, linear),
    "tone": (ff.problems.Tone(n=8), linear),
    "sparse": (SPARSE, unfolded),
    "varied": (ff.problems.Varied(SPARSE, {"snr_db": (0.0, 40.0)}), unfolded),
    "scene": (IMAGES, unfolded),
    "channels": (CHANNELS, linear),
}


@pytest.mark.parametrize("name", CASES)
def test_draws_of_the_training_problem_pass_and_what_is_grossly_unlike_does_not(name):
    """500 draws make the ranges, 1000 others are held against them: not one remark."""
    problem, make = CASES[name]
    net = make(problem)
    guard = UsualRange(net, json.loads(json.dumps(usual_of(net, problem.sample(500, generator(1))[1]))))
    obs = problem.sample(1000, generator(2))[1]
    assert guard.remarks(obs, net(obs)) == []
    y = obs.y.clone()
    y[[3, 7]] *= 1e5
    other = Observation(y, obs.A, obs.noise_var)
    (first, *_) = guard.remarks(other, net(other))
    assert "2 of 1000 samples (first at 3, 7) are unlike the training: the norm of y is" in first


def test_what_is_much_too_small_is_told_where_the_norm_hardly_varies():
    net = linear(CHANNELS)
    guard = UsualRange(net, usual_of(net, CHANNELS.sample(500, generator(1))[1]))
    obs = CHANNELS.sample(5, generator(2))[1]
    small = Observation(0.01 * obs.y, obs.A, obs.noise_var)
    assert any("the norm of y" in remark for remark in guard.remarks(small, net(small)))


def test_measurements_that_the_estimate_does_not_explain_are_told_by_their_residual():
    net = ff.unfold(ff.algorithms.FISTA(0.01), SPARSE, 30, {"step": "tied"})
    guard = UsualRange(net, usual_of(net, SPARSE.sample(500, generator(1))[1]))
    _, obs = SPARSE.sample(50, generator(2))
    remarks = guard.remarks(obs, ff.Estimate(-net(obs).x))
    assert any("the residual ‖y - A x_hat‖ / ‖y‖ is" in remark for remark in remarks)


def test_a_parameter_far_from_its_range_is_told_by_its_place():
    """Twice the parameters: the norm may still be usual, the second entry is not."""
    net = linear(SIMULATOR)
    guard = UsualRange(net, usual_of(net, SIMULATOR.sample(500, generator(1))[1]))
    estimate = ff.Estimate(torch.tensor([[1.0, 0.5], [1.0, 2471.0]]))
    (remark,) = guard.remarks(SIMULATOR.sample(2, generator(2))[1], estimate)
    assert "1 of 2 samples (first at 1) are unlike the training: x_hat[1] is 2471, and was -1" in remark.replace(
        "-0.9", "-1"
    )


def test_a_network_that_knows_no_scale_is_not_held_to_one():
    net = ff.estimators.ofdm.MixerSettings(8, 6, 1, 6, 16, 16).build(ff.problems.OFDMChannel("umi", "comb-4"))
    assert net.scale_equivariant
    obs = ff.problems.OFDMChannel("umi", "comb-4").sample(20, generator())[1]
    assert NORM not in usual_of(net, obs)["quantiles"]
    assert set(usual_of(unfolded(SPARSE), SPARSE.sample(20, generator())[1])["quantiles"]) >= {NORM, RESIDUAL}


def test_one_sample_and_what_is_not_finite():
    net = unfolded(SPARSE)
    guard: TrainingGuard = UsualRange(net, usual_of(net, SPARSE.sample(200, generator(1))[1]))
    obs = SPARSE.sample(2, generator(2))[1]
    assert guard.remarks(obs[0:1], net(obs[0:1])) == []
    single = Observation(obs.y[0], SPARSE.A, obs.noise_var)
    assert guard.remarks(single, net(single)) == []
    broken = ff.Estimate(torch.full((1, 40), torch.nan))
    assert guard.remarks(obs[0:1], broken)


def test_apply_warns_with_the_count_and_the_first_places(tmp_path, capsys):
    run = tmp_path / "run"
    problem = ff.problems.CompressedSensing(n=40, m=20)
    net = ff.unfold(ff.algorithms.ISTA(0.05), problem, 3, {"step": "tied"})
    ff.fit(net, problem, steps=2, batch=8, validation_samples=300, run_dir=run)
    assert Run.open(run).kept("usual")["draws"] == 300
    y = problem.sample(30, generator(4))[1].y.numpy()
    results = {}
    for name, factor in (("usual", 1.0), ("far", 1e3)):
        y[20:29] *= factor
        np.save(tmp_path / f"{name}.npy", y)
        args = ["apply", str(run), str(tmp_path / f"{name}.npy"), "--out", str(tmp_path / f"{name}_x.npy"), "--json"]
        assert cli.run(args) == 0
        captured = capsys.readouterr()
        results[name] = json.loads(captured.out)["remarks"]
        assert captured.err.count("warning: ") == len(results[name])
    assert results["usual"] == []
    assert "9 of 30 samples (first at 20, 21, 22, 23, 24, ...) are unlike the training" in results["far"][0]
