"""Channel networks in run directories and on the command line."""

import json
import os
import subprocess
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.deploy import to_onnx
from fanfold.estimators import ofdm
from fanfold.problems import CompressedSensing, OFDMChannel
from fanfold.runs.directory import Run
from fanfold.training.events import Validated

PLACE = "kronecker:array=2x2x2,subcarriers=12,delay_spread_ns=300"
CHANNELS = OFDMChannel(PLACE, "comb-2", snr_db=(0.0, 20.0))
SMALL = {
    "beam-mixer": ofdm.MixerSettings(6, 6, 1, 6, 8, 12, network_seed=3),
    "learned-filters": ofdm.FilterSettings(2, 2, modes=4, stages=1, corrected=3, width=8, depth=2),
    "grid-cnn": ofdm.CNNSettings(width=8, depth=2, known_power=True),
    "beam-delay-admm": ofdm.ADMMSettings(2, 16, 4),
    "beam-delay-oamp": ofdm.OAMPSettings(2, 16, 4),
    "adapted": ofdm.AdaptedSettings(
        ofdm.FilterSettings(2, 2, modes=4, stages=1, corrected=3, width=8, depth=2), probe_seed=3
    ),
}
QUICK = {"steps": 8, "batch": 8, "validate_every": 4, "validation_samples": 20, "threads": 1}
every_network = pytest.mark.parametrize("name", ofdm.REGISTRY)


@every_network
def test_a_run_directory_keeps_a_network_and_resumes_to_the_same_numbers(name, tmp_path):
    make = SMALL[name].build
    whole = ff.fit(make(CHANNELS), CHANNELS, run_dir=tmp_path / "whole", **QUICK)
    _, obs = CHANNELS.held_out().sample(5, torch.Generator().manual_seed(0))
    kept = ff.load(tmp_path / "whole")
    assert kept.settings == SMALL[name]
    assert torch.equal(kept(obs).x, whole(obs).x)
    assert torch.equal(kept(obs).var, whole(obs).var)

    class Stop(Exception):  # noqa: N818
        pass

    def stop(event):
        if isinstance(event, Validated) and event.step == 4:
            raise Stop

    with pytest.raises(Stop):
        ff.fit(make(CHANNELS), CHANNELS, run_dir=tmp_path / "cut", on_event=stop, **QUICK)
    resumed = ff.resume(tmp_path / "cut")
    weights = resumed.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in whole.state_dict().items())
    assert torch.equal(resumed(obs).x, whole(obs).x)


@every_network
def test_a_network_of_channels_estimates_nothing_else(name):
    with pytest.raises(ValueError, match="train it on ofdm-channel"):
        SMALL[name].build(CompressedSensing(n=8, m=4))


@pytest.mark.parametrize("name", ["beam-delay-admm", "beam-delay-oamp"])
def test_the_dictionary_is_kept_with_the_weights(name, tmp_path):
    net = ff.fit(SMALL[name].build(CHANNELS), CHANNELS, run_dir=tmp_path / "run", **QUICK)
    _, obs = CHANNELS.sample(3, torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(2)  # products of other threads round otherwise
    try:
        loaded = ff.load(tmp_path / "run")
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(loaded.B, net.B)
    assert not torch.equal(loaded.B, SMALL[name].build(CHANNELS).B)  # that of channels of which nothing is known
    with torch.no_grad():
        assert torch.equal(loaded(obs).x, net(obs).x)


def test_channels_that_were_drawn_anew_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    H = torch.randn(80, 8, 12, 2, generator=torch.Generator().manual_seed(0)).numpy()
    np.savez("mine.npz", H=H[..., 0] + 1j * H[..., 1])
    problem = OFDMChannel("mine.npz:array=2x2x2", "comb-2")
    ff.fit(SMALL["beam-mixer"].build(problem), problem, run_dir="run", **QUICK)
    assert Run.open("run").problem() == problem
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(ValueError, match=f"mine.npz.*The run was made in {tmp_path}"):
        Run.open(".").problem()
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", H=H[:40, ..., 0] + 1j * H[:40, ..., 1])
    with pytest.raises(ValueError, match="trained on stored channels"):
        Run.open("run").problem()


def test_exporting_leaves_a_network_in_training(tmp_path):
    pytest.importorskip("onnxruntime")
    net = SMALL["grid-cnn"].build(CHANNELS).train()
    net.trunk.eval()
    to_onnx(net, CHANNELS.sample(2, torch.Generator().manual_seed(0))[1], tmp_path / "net.onnx")
    assert net.training
    assert not net.trunk.training


def test_the_command_line_trains_evaluates_applies_and_reports(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--width", "16", "--modes", "6", "--beams", "8"]
    quick = [*sizes, "--steps", "20", "--batch", "16", "--validation-samples", "50", "--run-dir", "run"]
    where = ["--source", PLACE, "--pilots", "comb-2", "--snr-db", "0", "20"]
    assert cli.run(["train", "ofdm-channel", "beam-mixer", *where, *quick]) == 0
    capsys.readouterr()
    assert cli.run(["evaluate", "run", "--samples", "400", "--snr-db", "10", "--json"]) == 0
    rows = {row["estimator"]: row["nmse_db"] for row in json.loads(capsys.readouterr().out)["rows"]}
    assert set(rows) == {"network", "least squares, linear", "LMMSE, grid", "LMMSE, space ⊗ grid"}
    assert rows["network"] < rows["least squares, linear"] - 1
    assert cli.run(["report", "run", "--samples", "100"]) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert page.count("<section>") == 6  # one more says what was run
    assert "Error against SNR" in page
    assert "fanfold train ofdm-channel beam-mixer" in page  # what was run
    assert cli.run(["runs", "."]) == 0
    assert "beam-mixer" in capsys.readouterr().out
    assert cli.run(["train", "ofdm-channel", "beam-mixer", "--config", "run/config.toml", "--run-dir", "again"]) == 0
    assert cli.run(["train", "compressed-sensing", "beam-mixer"]) == 2
    assert "train it on ofdm-channel" in capsys.readouterr().err


def test_a_file_of_pilots_is_estimated_with_a_noise_variance_or_without(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = ff.fit(SMALL["beam-mixer"].build(CHANNELS), CHANNELS, run_dir="run", **QUICK)
    _, obs = CHANNELS.held_out().sample(4, torch.Generator().manual_seed(0))
    np.save("y.npy", obs.y.numpy())
    for told, flags in ((None, []), (torch.full((4, 1), 0.1), ["--noise-var", "0.1"])):
        assert cli.run(["apply", "run", "y.npy", "--overwrite", *flags]) == 0
        estimate = net(replace(obs, noise_var=told))
        assert np.array_equal(np.load("x_hat.npy"), estimate.x.detach().numpy())
        assert np.array_equal(np.load("x_hat_var.npy"), estimate.var.detach().numpy())
    assert cli.run(["apply", "run", "y.npy", "--noise-var", "-1"]) == 2


def test_processes_that_prepare_to_other_bits_train_the_first_one_s_network(tmp_path):
    """As where eigenvectors of another machine have other signs."""
    body = """
        import os
        import torch
        import fanfold as ff
        from fanfold.estimators.ofdm import ADMMSettings, UnfoldedADMM
        from fanfold.problems import OFDMChannel

        rank = int(os.environ["RANK"])

        class Turned(UnfoldedADMM):
            def adopt(self, space, grid):
                super().adopt(space, grid)
                if rank:
                    self.D.neg_()

        problem = OFDMChannel("kronecker:array=2x2,subcarriers=12", "comb-2", (0.0, 20.0))
        net = ff.fit(Turned.of(problem, ADMMSettings(2, 8, 3)), problem, steps=2, batch=8, validate_every=2,
                     validation_samples=10)
        B, D = (torch.complex(*part).mT.contiguous() for part in (net.B, net.D))
        apart = (net.A.matrix() - torch.kron(B, D[net.pick].contiguous())).abs().max().item()
        torch.save({"D": net.D, "apart": apart, "weights": [p.detach() for p in net.parameters()]}, f"{rank}.pt")
    """
    (tmp_path / "script.py").write_text(textwrap.dedent(body))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--master-addr=127.0.0.1",
                f"--master-port={31500 + os.getpid() % 2000}"]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*torchrun, "script.py"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(first["D"], second["D"])
    assert max(first["apart"], second["apart"]) < 1e-5  # single precision
    assert all(torch.equal(a, b) for a, b in zip(first["weights"], second["weights"], strict=True))
