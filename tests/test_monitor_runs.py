"""A monitor is kept, in a file or a run, and belongs to one estimator; `fanfold apply` says p-values."""

import json

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.guard.monitoring import keep_monitor, kept_monitor
from fanfold.runs.directory import Run

PROBLEM = ff.problems.CompressedSensing(n=40, m=20)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def trained(run_dir, problem=PROBLEM, seed=0):
    net = ff.unfold(ff.algorithms.ISTA(0.05), problem, 3, {"step": "tied"})
    return ff.fit(net, problem, steps=2, batch=8, validation_samples=50, run_dir=run_dir, seed=seed)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    trained(folder)
    return folder


@pytest.fixture
def run(run_dir):
    for file in run_dir.glob("monitor*"):
        file.unlink()
    return Run.open(run_dir)


@pytest.fixture(scope="module")
def guard(run_dir):
    return ff.guard.monitor(ff.load(run_dir), PROBLEM, alarm=0.05, draws=700)


def test_a_monitor_that_was_kept_says_the_same(run, guard, tmp_path):
    obs = PROBLEM.sample(30, generator(1))[1]
    keep_monitor(run, guard)
    kept = kept_monitor(run, run.estimator())
    assert kept is not None
    assert torch.equal(kept.p_values(obs), guard.p_values(obs))
    assert (kept.names, kept.alarm, kept.promise) == (guard.names, guard.alarm, guard.promise)
    ff.guard.save_monitor(guard, tmp_path / "usual.safetensors")
    loaded = ff.guard.load_monitor(tmp_path / "usual.safetensors", run.estimator())
    assert torch.equal(loaded.p_values(obs), guard.p_values(obs))


def test_a_monitor_of_another_estimator_operator_or_run_is_refused(run, guard, tmp_path):
    file = tmp_path / "usual.safetensors"
    ff.guard.save_monitor(guard, file)
    with pytest.raises(ValueError, match="for another estimator"):
        ff.guard.load_monitor(file, ff.unfold(ff.algorithms.ISTA(0.5), PROBLEM, 3, {"step": "tied"}))
    other = PROBLEM.shifted(seed=1)
    with pytest.raises(ValueError, match="for the operator with hash"):
        ff.guard.load_monitor(file, ff.unfold(ff.algorithms.ISTA(0.05), other, 3, {"step": "tied"}))
    with pytest.raises(ValueError, match="pass A"):
        ff.guard.load_monitor(file, ff.iterate(ff.algorithms.ISTA(0.05), 3))
    trained(tmp_path / "again", other)
    second = Run.open(tmp_path / "again")
    path = keep_monitor(run, guard)
    (second.path / path.name).write_bytes(path.read_bytes())
    assert kept_monitor(second, second.estimator()) is None  # it is about other weights
    assert kept_monitor(run, run.estimator(), strength=0.5) is None


@pytest.mark.parametrize("damage", ["cut", "link", "missing"])
def test_a_damaged_file_says_so(damage, run, guard, tmp_path):
    path = keep_monitor(run, guard)
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    else:
        with pytest.raises(ValueError, match="is not there"):
            ff.guard.load_monitor(tmp_path / "none.safetensors", run.estimator())
        return
    with pytest.raises(ValueError, match="remove it, and it is calibrated anew"):
        kept_monitor(run, run.estimator())


def test_a_monitor_of_a_run_whose_estimator_says_other_things_is_refused(run, guard):
    """The weights are those of the run, and what is made of them is not."""
    keep_monitor(run, guard)
    net = run.estimator()
    net.strength = 0.3
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.5)
    with pytest.raises(ValueError, match=r"another estimator.*remove it"):
        kept_monitor(run, net)


def apply(run, y, folder, capsys, *flags):
    np.save(folder / "y.npy", y)
    args = ["apply", str(run.path), str(folder / "y.npy"), "--out", str(folder / "x.npy"), "--json", "--overwrite"]
    code = cli.run([*args, *flags])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else captured.err


def test_apply_writes_p_values_and_warns_when_too_many_are_small(run, tmp_path, capsys):
    y = PROBLEM.sample(40, generator(4))[1].y.numpy()
    code, said = apply(run, y, tmp_path, capsys)
    usual = np.load(tmp_path / "x_p_value.npy")
    assert code == 0
    assert usual.shape == (40,)
    assert said["remarks"] == []
    assert (run.path / "monitor.safetensors").exists()
    y[30:] *= 4
    _, said = apply(run, y, tmp_path, capsys)
    again = np.load(tmp_path / "x_p_value.npy")
    assert np.allclose(again[:30], usual[:30], atol=3 / 1500)  # the monitor is taken from the run
    assert (again[30:] < 0.05).mean() >= 0.8
    assert any("are unlike the 1499 draws of calibration" in sentence for sentence in said["remarks"])


def test_apply_without_alarms_writes_no_p_values_and_a_table_has_a_column(run, tmp_path, capsys):
    y = PROBLEM.sample(5, generator(4))[1].y.numpy()
    code, said = apply(run, y, tmp_path, capsys, "--alarm", "0")
    assert code == 0
    assert not (tmp_path / "x_p_value.npy").exists()
    assert len(said["files"]) == 1
    assert cli.run(["apply", str(run.path), str(tmp_path / "y.npy"), "--out", str(tmp_path / "x.csv")]) == 0
    assert len((tmp_path / "x_p_value.csv").read_text().splitlines()) == 5
    code, said = apply(run, y, tmp_path, capsys, "--alarm", "2")
    assert code == 2
    assert "alarm is 2" in said


def test_apply_to_a_simulator_s_run_says_what_is_outside_it(tmp_path, capsys):
    """Draws that the run keeps calibrate at the rate that they can bear."""
    x = torch.rand(2500, 2, generator=generator(1)) + 0.5
    y = x @ torch.ones(2, 6) + torch.linspace(0, 1, 6) * x[:, :1] + 0.05 * torch.randn(2500, 6, generator=generator(2))
    pairs = tmp_path / "pairs.npz"
    np.savez(pairs, x=x.numpy(), y=y.numpy())
    flags = ["--steps", "20", "--batch", "32", "--validation-samples", "50", "--run-dir", str(tmp_path / "run")]
    assert cli.run(["train", "pairs", "neural", "--path", str(pairs), "--members", "2", "--width", "8", *flags]) == 0
    capsys.readouterr()
    run = Run.open(tmp_path / "run")
    measured = y[:20].numpy().copy()
    measured[10:, 3] += 1.0
    code, said = apply(run, measured, tmp_path, capsys)
    assert code == 0
    p = np.load(tmp_path / "x_p_value.npy")
    assert (p[10:] < 0.05).all()
    assert (p[:10] > 0.05).mean() >= 0.7
    assert any("draws of calibration" in sentence for sentence in said["remarks"])
