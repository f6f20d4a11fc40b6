"""The command line: verbs, exit codes, suggestions, and what they print for people and for programs."""

import functools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.estimators import Neural
from fanfold.runs.directory import Run
from fanfold.runs.keep import load
from fanfold.training.settings import Training

SMALL = ["--n", "40", "--m", "20", "--snr-db", "30", "--layers", "4"]
SHORT = ["--steps", "20", "--batch", "16", "--validate-every", "10", "--validation-samples", "50", "--threads", "1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    args = ["train", "compressed-sensing", "ista", *SMALL, *SHORT, "--lr", "4e-3", "--run-dir", str(path)]
    assert cli.run(args) == 0
    return path


def printed(capsys, args: list[str]) -> dict:
    """The object that a command prints with --json, alone on stdout."""
    capsys.readouterr()
    assert cli.run([*args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def fanfold(*args: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "fanfold", *args], cwd=cwd, capture_output=True, text=True)


def test_help_needs_no_torch(tmp_path):
    lines = (
        "import sys",
        "from fanfold.cli import main",
        "main.run(['--help'])",
        "print(*{'torch', 'numpy'} & {*sys.modules}, '.')",
    )
    body = "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "."
    assert all(verb in done.stdout for verb in cli.VERBS)


def test_version(capsys):
    assert cli.run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == ff.__version__


def test_unknown_verbs_get_a_suggestion(capsys):
    assert cli.run(["trian"]) == 2
    assert "Did you mean 'train'?" in capsys.readouterr().err


def test_unknown_flags_get_a_suggestion(capsys):
    assert cli.run(["train", "compressed-sensing", "ista", "--layer", "4"]) == 2
    assert "--layers" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["compressed-sensing", "istaa"], ["compresed-sensing", "ista"]])
def test_unknown_problems_and_algorithms_get_a_suggestion(capsys, words):
    assert cli.run(["train", *words]) == 2
    assert f"Did you mean '{'ista' if 'istaa' in words else 'compressed-sensing'}'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["train", "compressed-sensing", "ista", "--learn", "stepp=tied"], "Did you mean 'step'?"),
        (["train", "compressed-sensing", "ista", "--learn", "step"], "QUANTITY=SHARING"),
        (["train", "compressed-sensing", "ista", "--m", "600"], "Transposed?"),
        (["train", "pairs", "ista", "--path", "none.npz"], "there is no file"),
        (["evaluate", "nowhere"], "no run directory"),
        (["resume", "nowhere"], "no run directory"),
        (["reproduce", "unfolding-figur"], "Did you mean 'unfolding-figure'?"),
        (["train", "--config", "none.toml"], "there is no config"),
    ],
)
def test_wrong_input_is_said_in_one_line_with_exit_code_2(capsys, tmp_path, monkeypatch, args, message):
    monkeypatch.chdir(tmp_path)
    assert cli.run(args) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_train_writes_a_run_that_loads(trained):
    assert isinstance(load(trained), ff.unfold(ff.algorithms.ISTA(), Run.open(trained).problem(), 4).__class__)
    assert Run.open(trained).config["network"]["learn"] == {"step": "per-layer", "threshold": "per-layer"}


def test_a_config_gives_defaults_and_flags_win(trained, tmp_path):
    args = ["train", "--config", str(trained / "config.toml"), "--steps", "10", "--run-dir", str(tmp_path / "second")]
    assert cli.run(args) == 0
    first, second = Run.open(trained).config, Run.open(tmp_path / "second").config
    assert (first["problem"], first["network"]) == (second["problem"], second["network"])
    assert second["training"] == first["training"] | {"steps": 10}


def test_flags_equal_to_a_default_count_as_given(tmp_path):
    """64 and 1e-3 are defaults of `Training`, not of this network, whose own must not take their place."""
    given = {"steps": 3, "batch": Training.batch, "lr": Training.lr}
    assert all(Neural.training_defaults[name] != value for name, value in given.items())
    flags = [word for name, value in given.items() for word in (f"--{name}", str(value))]
    small = ["--width", "8", "--validation-samples", "50", "--threads", "1", "--run-dir", str(tmp_path / "run")]
    assert cli.run(["train", "linear-gaussian", "neural", *flags, *small]) == 0
    written = Run.open(tmp_path / "run").config["training"]
    assert {name: written[name] for name in given} == given == {"steps": 3, "batch": 64, "lr": 1e-3}


def test_a_config_with_an_unknown_setting_is_refused(trained, tmp_path, capsys):
    text = (trained / "config.toml").read_text().replace("batch =", "bach =")
    (tmp_path / "config.toml").write_text(text)
    assert cli.run(["train", "--config", str(tmp_path / "config.toml")]) == 2
    assert "Did you mean 'batch'?" in capsys.readouterr().err


def test_evaluate_shows_peers_and_limits(trained, capsys, tmp_path):
    result = printed(
        capsys, ["evaluate", str(trained), "--snr-db", "20", "30", "--samples", "100", "--out", str(tmp_path / "t.csv")]
    )
    names = {row["estimator"] for row in result["rows"]}
    ours = {"unfolded", "untrained ISTA", "FISTA, best λ", "AMP, best α", "OAMP, true prior", "LMMSE"}
    assert names == ours | {"Lasso, best λ", "Lasso, debiased, best λ", "MCP, best λ", "OMP, residual stop"}
    assert {row["snr_db"] for row in result["rows"]} == {20.0, 30.0}
    assert all(row["limit_db"] < row["nmse_db"] for row in result["rows"])
    assert (tmp_path / "t.csv").read_text().startswith("estimator,snr_db")


def test_apply_estimates_from_a_file(trained, tmp_path, capsys):
    x, obs = Run.open(trained).problem().sample(3, torch.Generator().manual_seed(0))
    np.save(tmp_path / "y.npy", obs.y.numpy())
    out = tmp_path / "x_hat.npy"
    result = printed(capsys, ["apply", str(trained), str(tmp_path / "y.npy"), "--out", str(out)])
    assert result["shape"] == [3, 40]
    with torch.no_grad():
        assert torch.equal(torch.from_numpy(np.load(out)), load(trained)(obs).x)
    assert (
        cli.run(["apply", str(trained), str(tmp_path / "y.npy"), "--out", str(out), "--strength", "0", "--overwrite"])
        == 0
    )
    assert torch.equal(torch.from_numpy(np.load(out)), ff.iterate(ff.algorithms.ISTA(), 4)(obs).x)
    assert x.shape == (3, 40)


def save_object(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda p: np.save(p, np.zeros((2, 40), np.float32)), "Transposed?"),
        (lambda p: np.save(p, np.full((2, 20), np.nan, np.float32)), "not finite"),
        (lambda p: np.save(p, np.zeros((2, 20), np.complex64)), "complex64"),
        (lambda p: np.save(p, np.zeros((0, 20), np.float32)), "nothing to estimate"),
        (lambda p: p.write_text("1, 2"), "cannot be read as .npy"),
        (save_object, "cannot be read as .npy"),
    ],
)
def test_apply_refuses_what_does_not_fit_and_writes_nothing(trained, tmp_path, capsys, write, message):
    write(tmp_path / "y.npy")
    assert cli.run(["apply", str(trained), str(tmp_path / "y.npy"), "--out", str(tmp_path / "x_hat.npy")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x_hat.npy").exists()


def test_report_is_one_file_that_asks_for_nothing(trained, tmp_path):
    out = tmp_path / "report.html"
    assert cli.run(["report", str(trained), "--out", str(out), "--samples", "100"]) == 0
    page = out.read_text()
    assert "<svg" in page
    assert "Bayes limit" in page
    assert_asks_for_nothing(page)


def assert_asks_for_nothing(page: str) -> None:
    """No address that a browser would fetch: only data URIs, fragments, and the names of XML vocabularies."""
    import re

    for attribute, target in re.findall(r'\b(src|href|xlink:href|action|data)="([^"]*)"', page):
        assert target.startswith(("data:image/", "#")), (attribute, target)
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_runs_lists_what_is_there(trained, capsys):
    (row,) = printed(capsys, ["runs", str(trained.parent)])["runs"]
    assert (row["run"], row["network"], row["step"], row["done"]) == (str(trained), "ista", 20, True)


def test_resume_finishes_a_run_that_was_cut(trained, tmp_path, capsys):
    settings = Run.open(trained).config["training"]
    from fanfold.training.events import Validated
    from fanfold.training.fit import fit_events
    from fanfold.training.settings import Training

    problem = Run.open(trained).problem()
    events = fit_events(Run.open(trained).network(), problem, Training(**settings), tmp_path / "cut")
    for event in events:
        if isinstance(event, Validated) and event.step == 20:
            break
    events.close()  # after the checkpoint of step 10
    assert cli.run(["resume", str(tmp_path / "cut")]) == 0
    assert (tmp_path / "cut/weights.safetensors").read_bytes() == (trained / "weights.safetensors").read_bytes()


def test_doctor_is_content(capsys):
    facts = printed(capsys, ["doctor"])["facts"]
    assert facts["zero deviation is the algorithm"] == "bit for bit"


def test_progress_is_lines_off_a_terminal(tmp_path, monkeypatch, capsys):
    done = fanfold("train", "compressed-sensing", "amp", *SMALL, *SHORT, "--run-dir", "r", cwd=tmp_path)
    assert done.returncode == 0
    assert "step 10," in done.stderr
    assert "\x1b" not in done.stderr
    monkeypatch.chdir(tmp_path)
    assert cli.run(["train", "compressed-sensing", "amp", *SMALL, *SHORT, "--run-dir", "r"]) == 2
    assert "fanfold resume r" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(tmp_path):
    import signal

    words = ["train", "compressed-sensing", "amp", *SMALL, "--run-dir", "[r] 1", "--steps", "100000"]
    args = [sys.executable, "-m", "fanfold", *words]
    heard = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # the tests themselves may be deaf to it
    process = subprocess.Popen(args, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ, preexec_fn=heard)
    while not (tmp_path / "[r] 1/checkpoint.safetensors").is_file():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "fanfold: interrupted; go on with: fanfold resume '[r] 1'"
    assert "Traceback" not in err


def test_import_adds_no_heavy_work(tmp_path):
    """`import fanfold` imports nothing outside the standard library: what it adds to `import torch` is its own file."""
    body = "import sys; before = set(sys.modules); import fanfold; print(*set(sys.modules).difference(before))"
    done = subprocess.run([sys.executable, "-c", body], cwd=tmp_path, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()} - set(sys.stdlib_module_names)
    assert loaded == {"fanfold"}


def test_every_registered_problem_and_algorithm_is_a_subcommand(capsys):
    from fanfold import algorithms, estimators, problems

    assert cli.run(["train", "--help"]) == 0
    shown = capsys.readouterr().out
    of_others = {"unfolded", "equilibrium", "whole-numbers", "recalibrated"}
    for name in {*problems.REGISTRY, *algorithms.REGISTRY, *estimators.REGISTRY} - of_others:
        assert f"• {name}" in shown


def test_work_is_done_on_threads_that_the_machine_can_bear(monkeypatch):
    """Not only training: every verb, as two threads on a busy core wait for each other."""
    from fanfold.cli import trained
    from fanfold.core import machine

    seen = []
    monkeypatch.setattr(machine, "sensible_threads", lambda: 2)
    monkeypatch.setattr(trained, "runs", lambda: seen.append(torch.get_num_threads()) or {})
    assert cli.run(["runs"]) == 0
    assert seen == [2]
    assert torch.get_num_threads() == 1
