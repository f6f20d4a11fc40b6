"""The published experiments in their small version reach their goals, and the README says what runs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fanfold.cli import main as cli
from fanfold.experiments import EXPERIMENTS
from fanfold.experiments.base import Goal

README = (Path(__file__).parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_small_version_reaches_its_goals(name, tmp_path, capsys):
    assert cli.run(["reproduce", name, "--quick", "--out-dir", str(tmp_path / name), "--json"]) == 0
    study = json.loads(capsys.readouterr().out)
    assert study["name"] == name
    assert all(row["pass"] for row in study["rows"])
    assert (tmp_path / name / "report.html").read_text().count("<section>") >= 2
    assert json.loads((tmp_path / name / "goals.json").read_text())["rows"] == study["rows"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_whole_version_reaches_its_goals(name, tmp_path):
    assert cli.run(["reproduce", name, "--out-dir", str(tmp_path / name)]) == 0


def test_demo_reaches_its_goals_and_writes_one_page_that_asks_for_nothing(tmp_path):
    from test_cli import assert_asks_for_nothing

    assert cli.run(["demo", "--out-dir", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert_asks_for_nothing(page)
    assert page.count("data:image/png;base64,") == 5  # the original and four recoveries
    assert "Bayes limit" in page
    assert "do not trust" in page
    data = [json.loads(d) for d in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.DOTALL)]
    assert len(data) == 3
    assert len(data[0]) == 16


def test_a_goal_is_reached_or_not():
    assert Goal("a", "dB", "<=", -10, -10.0).passed
    assert not Goal("a", "dB", "<=", -10, -9.99).passed
    assert not Goal("a", "dB", ">=", 4, float("nan")).passed
    assert Goal("a", "dB", "=", -4.2, -4.6, tolerance=0.5).passed
    assert not Goal("a", "dB", "=", -4.2, -4.8, tolerance=0.5).passed


def test_readme_python_runs_and_learning_pays(tmp_path):
    (code,) = blocks("python")
    code += "\nrows = {(r['estimator'], r['snr_db']): r['nmse_db'] for r in table}\n"
    code += "assert rows['unfolded', 20] < -16 < -5 < rows['untrained', 20], rows\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_readme_commands_run(tmp_path):
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("fanfold ")]
    assert len(lines) == 4
    np.save(tmp_path / "y.npy", np.random.default_rng(0).normal(size=(5, 100)))
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for line in lines:
        done = subprocess.run(line.split(), cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "x_hat.npy").shape == (5, 200)
    assert (tmp_path / "runs/first/report.html").is_file()


def test_readme_pairs_command_runs(tmp_path):
    (line,) = re.findall(r"`(fanfold train pairs .*?)`", README)
    import shlex

    generator = np.random.default_rng(0)
    A, x = generator.normal(size=(8, 16)) / 8**0.5, generator.normal(size=(200, 16))
    np.savez(tmp_path / "pairs.npz", x=x, y=x @ A.T, A=A)
    args = [sys.executable, "-m", *shlex.split(line), "--steps", "20"]
    done = subprocess.run(args, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/pairs-listacp-1/weights.safetensors").is_file()
