"""A layer of a trained run is scaled: what overflows for that is a row which its release certificate fails on."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.deploy.integer import UnprovedError, drafted
from fanfold.deploy.release import ReleaseCertificate, certify_release, verify_bundle
from fanfold.deploy.release import bundle as layout
from fanfold.runs.directory import Run
from fanfold.runs.weights import read_tensors, write_tensors

PROFILE = """
samples = 100
targets = []
[life_cycle]
functionality = "sparse recovery"
model_id = "sparse-1"
[domain]
snr_db = [20, 40]
[limits]
nmse_db = 0
[integers]
loss_db = 0.5
"""
W = "network.deviations.W"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run that was trained on in whole numbers, which fixes the scales of all values."""
    path = tmp_path_factory.mktemp("runs") / "run"
    few = ["--steps", "20", "--batch", "16", "--threads", "1"]
    learn = ["--layers", "2", "--learn", "W=per-layer", "threshold=per-layer"]
    assert cli.run(["train", "compressed-sensing", "--n", "20", "--m", "12", "lista-cp", *learn, *few,
                    "--run-dir", str(path)]) == 0  # fmt: skip
    (path.parent / "profile.toml").write_text(PROFILE)
    assert cli.run(["quantise", str(path), "--widths", "w8a12", *few]) == 0
    return path.with_name("run-w8a12")


def scaled(run: Path, path: Path, factor: float) -> Path:
    """A copy of a run whose last layer has its matrix times a factor."""
    shutil.copytree(run, path)
    file = path / "weights.safetensors"
    tensors, facts = read_tensors(file, "")
    matrix = last_matrix(run)
    tensors[W][-1] += (factor - 1) * matrix
    write_tensors(file, tensors, facts)
    torch.testing.assert_close(last_matrix(path), factor * matrix)
    return path


def last_matrix(run: Path) -> torch.Tensor:
    whole, A = ff.load(run), Run(run).outline().A
    return whole.network.thetas(ff.Observation(A.matrix()[:, 0], A))[-1].W.detach()


def certificate_of(run: Path, folder: Path) -> ReleaseCertificate:
    profile = folder.with_suffix(".toml")
    profile.write_text(PROFILE)
    return certify_release(Run(run), profile, folder).certificate


def test_the_run_itself_passes(run, tmp_path):
    certificate = certificate_of(run, tmp_path / "one")
    assert certificate.passed
    assert sum(result.what.startswith("range of") for result in certificate.results) > 5


def test_an_overflow_is_a_row_that_fails_and_names_its_accumulator(run, tmp_path, capsys):
    large = scaled(run, tmp_path / "large", 2.0**40)
    with pytest.raises(UnprovedError) as overflow:
        drafted(ff.load(large))
    assert overflow.value.bound > overflow.value.limit == 2**47 - 1
    words = ["certify", str(large), "--profile", str(run.parent / "profile.toml"), "--out", str(tmp_path / "one")]
    assert cli.run(words) == 1
    assert f"range of {overflow.value.operation}" in capsys.readouterr().out
    certificate = ReleaseCertificate.from_dict(json.loads((tmp_path / "one" / layout.CERTIFICATE).read_text()))
    failed = [result for result in certificate.results if result.passed is False]
    assert [result.what for result in failed[:2]] == ["NMSE"] * 2  # they are measured all the same
    overflowing, *losses = failed[2:]
    assert overflowing.what == f"range of {overflow.value.operation}"
    assert (overflowing.value, overflowing.limit) == (overflow.value.bound, overflow.value.limit)
    assert str(overflow.value) in overflowing.note
    assert [(loss.what, loss.value, loss.cell["snr_db"]) for loss in losses] == [
        ("loss by quantisation", None, 20), ("loss by quantisation", None, 40),
    ]  # fmt: skip
    assert overflow.value.operation in losses[0].note
    assert not (tmp_path / "one" / layout.INTEGER).exists()
    assert not verify_bundle(tmp_path / "one").passed
    assert cli.run(["export", str(large), "--to", "c", "--out", str(tmp_path / "c")]) == 2
    assert str(overflow.value) in " ".join(capsys.readouterr().err.split())


def test_sums_that_still_fit_are_no_overflow_and_fail_by_their_error(run, tmp_path):
    certificate = certificate_of(scaled(run, tmp_path / "larger", 256.0), tmp_path / "one")
    assert {result.what for result in certificate.results if result.passed is False} == {"NMSE"}
    assert all(result.passed for result in certificate.results if result.what.startswith("range of"))
    assert (tmp_path / "one" / layout.INTEGER).is_dir()
