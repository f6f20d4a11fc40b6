"""The page on releases: its commands run, one after the other, and the receiver in C says what the network says."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.settings import kinds_of
from fanfold.deploy.release import bundle as layout
from fanfold.deploy.release import read_profile
from fanfold.deploy.release.profile import SECTIONS
from fanfold.evaluation import peers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/release.md").read_text()
pytestmark = pytest.mark.filterwarnings("ignore")  # torch's, on tracing


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def lines_of(language: str) -> list[str]:
    return "".join(blocks_of(language)).splitlines()


def test_the_commands_of_the_page_run(tmp_path, monkeypatch, capfd):
    """Those that measure are shortened; the training is whole, as the profile's limits are of it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(peers, "find_spec", lambda name: None)  # without peers of other libraries, which take a minute
    few = {"train": "--threads 1", "quantise": "--threads 1", "evaluate": "--samples 20", "time": "--calls 20"}
    lines = [shlex.split(line)[1:] for line in lines_of("sh")]
    whole = ["train", "quantise", "export"]  # of the section on whole numbers
    assert [verb for verb, *_ in lines] == ["train", "evaluate", "export", "time", "certify", "verify", *whole]
    for verb, *words in lines:
        assert cli.run([verb, *words, *few.get(verb, "").split()]) == 0

    measure, verify = blocks_of("python")
    names: dict[str, Any] = {}
    exec(measure, names)
    obs = names["obs"]
    for line in lines_of("bash"):
        assert subprocess.run(line, shell=True, check=False).returncode == 0
    x_hat = np.fromfile("x_hat.f32", "<f4").reshape(5, 40)
    with torch.no_grad():
        wanted = ff.load("runs/receiver")(obs).x.numpy()
        assert torch.equal(ff.load("releases/1/run")(obs).x, torch.from_numpy(wanted))
    assert abs(x_hat - wanted).max() <= 1e3 * np.finfo(np.float32).eps * abs(wanted).max()
    assert "5 samples" in capfd.readouterr().err

    (tmp_path / "y.f32").write_bytes((tmp_path / "y.f32").read_bytes()[:-4])
    assert subprocess.run("./receive < y.f32", shell=True, capture_output=True, check=False).returncode == 2

    for name in ("onnx", "c"):  # what replays them was shown to run by the command
        shutil.rmtree(tmp_path / "releases/1" / name)
    ff.deploy.release.bundle.write_manifest(tmp_path / "releases/1")
    exec(verify, {})
    assert capfd.readouterr().out.endswith("verified\n")
    assert json.loads((tmp_path / "releases/1" / layout.CERTIFICATE).read_text())["passed"] is True


def test_the_page_lists_every_setting_of_a_profile():
    profile = read_profile(ROOT / "examples/receiver/profile.toml")
    assert len(list(profile.cells())) == 4
    settings = {*kinds_of(type(profile))}.union(*(kinds_of(kind) for kind in SECTIONS.values()))
    backend = {"backend", "quantile", "calls", "rounds", "draws", "life_cycle"}  # said in words, or by their section
    assert [name for name in settings - backend if f"`{name}`" not in PAGE and f"[{name}]" not in PAGE] == []


def test_the_receiver_fits_a_page_and_the_strictest_compiler(tmp_path):
    source = ROOT / "examples/receiver/main.c"
    assert len(source.read_text().splitlines()) <= 60
    header = "#define ESTIMATOR_Y_SIZE 2\n#define ESTIMATOR_X_HAT_SIZE 3\n"
    header += "typedef struct { float f[1]; } estimator_workspace;\n"
    header += "void estimator_run(const float *y, float *x_hat, estimator_workspace *work);\n"
    (tmp_path / "estimator.h").write_text(header)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Wconversion", "-Wpedantic", "-Werror", "-fsyntax-only"]
    for compiler in filter(shutil.which, ("gcc", "clang")):
        done = subprocess.run([compiler, *strict, f"-I{tmp_path}", source], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
