"""Every network that trains goes through every verb of the shell: train, killed, resume, evaluate, apply, report."""

import os
import re
import signal
import tomllib
import traceback
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

import fanfold as ff
from fanfold import estimators
from fanfold.cli import apply
from fanfold.cli import main as cli
from fanfold.deploy import cost
from fanfold.runs import draws
from fanfold.runs.directory import Run
from fanfold.training import trainer
from fanfold.training.trainer import Trainer

SPARSE = ["compressed-sensing", "--n", "20", "--m", "12"]
IMAGING = ["rf-imaging", "--scene", "6", "6", "--elements", "5", "5"]
CHANNELS = ["ofdm-channel", "--pilots", "comb-4"]
WORDS = {  # row: problem and network as the shell takes them
    "unfolded": [*SPARSE, "ista", "--layers", "2", "--learn", "step=per-layer"],
    "equilibrium": [
        *SPARSE,
        "--dtype",
        "complex64",
        "ista",
        "--lam",
        "1.0",
        "--equilibrium",
        "--learn",
        "threshold=tied",
    ],
    "hybrid-oamp": [*IMAGING, "hybrid-oamp", "--layers", "2", "--width", "4"],
    "hybrid-ep": [*IMAGING, "hybrid-ep", "--layers", "2", "--width", "4"],
    "threshold-map-fista": [*IMAGING, "threshold-map-fista", "--layers", "2", "--width", "4"],
    "modl": [*IMAGING, "modl", "--layers", "2", "--width", "4"],
    "back-projection-unet": [*IMAGING, "back-projection-unet", "--width", "8", "--levels", "1"],
    "one-phase": [
        "rf-imaging",
        "--scene",
        "8",
        "8",
        "--elements",
        "6",
        "7",
        "--targets",
        "photographs",
        "--no-speckle",
        "one-phase",
    ],
    "learned-responses": [*IMAGING, "learned-responses"],
    "locator": ["tone", "--n", "9", "locator", "--width", "4"],
    "neural": ["linear-gaussian", "neural", "--width", "8", "--loss", "gaussian"],
    "flow-posterior": [
        "linear-gaussian",
        "--n",
        "2",
        "--m",
        "3",
        "flow-posterior",
        "--transforms",
        "2",
        "--draws",
        "8",
        "--width",
        "8",
    ],
    "beam-mixer": [*CHANNELS, "beam-mixer", "--stages", "1", "--width", "8"],
    "learned-filters": [*CHANNELS, "learned-filters", "--components", "2", "--rounds", "2", "--width", "8"],
    "grid-cnn": [*CHANNELS, "grid-cnn", "--width", "8", "--depth", "2"],
    "beam-delay-admm": [*CHANNELS, "beam-delay-admm", "--iterations", "2", "--beams", "32", "--modes", "4"],
    "beam-delay-oamp": [*CHANNELS, "beam-delay-oamp", "--iterations", "2", "--beams", "32", "--modes", "4"],
    "adapted": ["few-channels", "--count", "20", "adapted"],
}
TIMED = ("beam-mixer", "learned-filters", "grid-cnn", "beam-delay-admm", "beam-delay-oamp")  # reports that say times
FEWER = (  # draws, as no number is judged but for its being the same again
    (apply, "CALIBRATION_DRAWS", 500),
    (trainer, "PREPARATION_DRAWS", 500),
    (draws, "MOST_DRAWS", 100),
)
HOW = ["--steps", "6", "--batch", "4", "--validate-every", "2", "--validation-samples", "4", "--threads", "1"]


def run(*words: str) -> None:
    assert cli.run([*words]) == 0


def killed_while_training(words: list[str], path: Path) -> None:
    """Train in a process of its own that is killed as soon as its second checkpoint is written."""
    child = os.fork()
    if child == 0:  # whatever happens, the child must not return into the tests
        save = Trainer._save_checkpoint

        def save_and_die(trainer: Trainer) -> None:
            save(trainer)
            if trainer.step:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            Trainer._save_checkpoint = save_and_die
            os.dup2(os.open(path.with_suffix(".log"), os.O_WRONLY | os.O_CREAT), 2)
            os._exit(cli.run(["train", *words, *HOW, "--run-dir", str(path)]))
        except BaseException:
            traceback.print_exc()
            os._exit(9)
    _, status = os.waitpid(child, 0)
    said = path.with_suffix(".log").read_text()
    assert os.WIFSIGNALED(status), said
    assert os.WTERMSIG(status) == signal.SIGKILL, said


def test_every_row_is_walked():
    of_others = {"whole-numbers", "recalibrated"}  # made of other rows' runs: in test_quantised.py and test_adapt.py
    assert set(WORDS) == set(estimators.REGISTRY) - of_others


@pytest.mark.parametrize("row", WORDS)
def test_a_row_trains_is_killed_resumes_and_serves_every_verb(row, tmp_path, monkeypatch, capsys):
    if row == "flow-posterior":
        pytest.importorskip("zuko")
    monkeypatch.chdir(tmp_path)
    for module, name, count in FEWER:
        monkeypatch.setattr(module, name, count)
    if row in TIMED[1:]:  # one page exports what it times, which takes seconds each; the others are without a runtime
        monkeypatch.setattr(cost, "runtime_installed", lambda: False)
    path = tmp_path / "run"
    killed_while_training(WORDS[row], path)
    assert not (path / "weights.safetensors").exists()
    run("resume", str(path))
    run("train", *WORDS[row], *HOW, "--run-dir", "unbroken")
    assert Run.open(path).weights_hash() == Run.open("unbroken").weights_hash()
    assert Run.open(path).config["network"]["name"] == row
    run("evaluate", str(path), "--samples", "20")
    problem = Run.open(path).problem()
    _, obs = problem.held_out().sample(3, torch.Generator().manual_seed(0))
    np.save("y.npy", obs.y.resolve_conj().numpy())
    noise = ["--noise-var", "0.1"] if obs.noise_var is not None and obs.noise_var.ndim else []
    run("apply", str(path), "y.npy", "--coverage", "0.9", *noise)
    x_hat = torch.from_numpy(np.load("x_hat.npy"))
    assert torch.isfinite(torch.view_as_real(x_hat) if x_hat.is_complex() else x_hat).all()
    assert list(path.glob("intervals-each-0.9.json"))
    if row not in TIMED:  # whose pages are no two alike: theirs is written where the run travels to
        run("report", str(path), "--samples", "20")
    net = ff.load(path)
    ff.save(net, "saved", problem)
    assert torch.equal(ff.load("saved")(obs).x, net(obs).x)
    travels(path, tmp_path, row, noise, monkeypatch, lambda: net(obs).x, lambda moved: ff.load(moved)(obs).x)


def travels(path, tmp_path, row, noise, monkeypatch, here, there) -> None:
    """A run in another folder, with no other to go back to, gives the same bits; even if its problem cannot be had."""
    before = {file.name: file.read_bytes() for file in Path().glob("x_hat*.npy")}
    page = None if row in TIMED else numbers_of(path / "report.html")
    moved = tmp_path / "elsewhere" / path.name
    moved.parent.mkdir()
    path.rename(moved)
    kept = {file.name: file.read_bytes() for file in moved.glob("intervals-*.json")}
    for name in kept:
        (moved / name).unlink()
    monkeypatch.chdir(moved.parent)
    assert torch.equal(there(moved), here())
    run("apply", str(moved), str(tmp_path / "y.npy"), "--coverage", "0.9", *noise)
    assert {name: Path(name).read_bytes() for name in before} == before
    assert {file.name: file.read_bytes() for file in moved.glob("intervals-*.json")} == kept
    run("report", str(moved), "--samples", "20")
    again = numbers_of(moved / "report.html")
    if page is not None:
        assert again == page
    without_problem(moved / "config.toml")
    assert torch.equal(there(moved), here())
    for file in Path().glob("x_hat*.npy"):
        file.unlink()
    run("apply", str(moved), str(tmp_path / "y.npy"), "--coverage", "0.9", *noise)
    assert {name: Path(name).read_bytes() for name in before} == before


def numbers_of(page: Path) -> list[str]:
    """The data behind the figures and tables of a page."""
    numbers = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text())
    assert numbers
    return numbers


def without_problem(config: Path) -> None:
    """Let a config name a problem that is on no machine."""
    described = tomllib.loads(config.read_text())
    described["problem"] = {"name": "pairs", "path": "/nowhere/pairs.npz"}
    config.write_text(tomli_w.dumps(described))
