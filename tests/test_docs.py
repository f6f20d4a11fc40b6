"""The README fits a page and its commands run; what the documents link to, name and import is there."""

import json
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.settings import Checked
from fanfold.estimators.base import Kept, Settings
from fanfold.experiments import EXPERIMENTS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("docs/**/*.md"))]
every_page = pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)


def commands(page: str, language: str) -> list[str]:
    """Lines of the shell, with what goes on after a backslash, but for those that install."""
    lines = "".join(blocks(page, language)).replace("\\\n", " ").splitlines()
    return [line for line in lines if not line.startswith("pip ")]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder with the examples, where `fanfold` and `python` are those of the tests."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


# The README


def test_the_readme_fits_a_page_and_installs_with_two_commands():
    lines = README.splitlines()
    assert len(lines) <= 110
    demo, tests = (line for line in lines if line.startswith("pip install "))
    assert demo.endswith(" && fanfold demo")
    assert tests.endswith(" && pytest -n 2")  # .ci/run looks for this line
    assert README.count("\n**… ") == 5


def test_readme_python_runs_and_learning_pays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(blocks(README, "python"))
    names: dict = {}
    exec(code, names)
    rows = {(r["estimator"], r["snr_db"]): r["nmse_db"] for r in names["table"]}
    assert rows["unfolded", 20] < -16 < -5 < rows["untrained", 20], rows


def test_readme_commands_run(folder):
    """Shortened; that learning pays is shown above."""
    lines = commands(README, "sh")
    assert len(lines) == 5
    few = {"train": "--steps 100", "evaluate": "--samples 50", "report": "--samples 50"}
    np.save(folder / "y.npy", np.random.default_rng(0).normal(size=(5, 100)))
    for line in lines[:-1]:
        program, verb, *words = shlex.split(line)
        assert program == "fanfold"
        assert cli.run([verb, *words, *few.get(verb, "").split()]) == 0
    done = subprocess.run(shlex.split(lines[-1]), capture_output=True, text=True)  # the program itself, once
    assert done.returncode == 0, done.stderr
    assert np.load(folder / "x_hat.npy").shape == (5, 200)
    assert (folder / "runs/first/report.html").is_file()
    low, x_hat, high = (np.load(folder / f"x_90{part}.npy") for part in ("_low", "", "_high"))
    assert (low < x_hat).all()
    assert (x_hat < high).all()


def test_readme_pairs_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = re.findall(r"`(fanfold train pairs .*?)`", README)
    generator = np.random.default_rng(0)
    A, x = generator.normal(size=(8, 16)) / 8**0.5, generator.normal(size=(200, 16))
    np.savez(tmp_path / "pairs.npz", x=x, y=x @ A.T, A=A)
    assert cli.run([*shlex.split(line)[1:], "--steps", "20"]) == 0
    assert (tmp_path / "runs/pairs-oamp-1/weights.safetensors").is_file()
    (name,) = re.findall(r"`ff\.problems\.Pairs\(\"(.*?)\"\)`", README)
    assert ff.problems.Pairs(str(tmp_path / name)).sample(3, torch.Generator())[0].shape == (3, 16)


def test_readme_simulator_and_channel_commands_run(folder):
    """Shortened; the commands of the array run whole in `test_rf_cli`."""
    short = "--steps 2 --batch 4 --validate-every 2 --validation-samples 4 --threads 1"
    lines = [line for line in commands(README, "bash") if line.startswith("fanfold") and "runs/rf" not in line]
    assert [line.split()[1] for line in lines] == ["simulate", "train", "report", "train", "apply"]
    pilots = ff.problems.OFDMChannel(pilots="comb-4").sample(3, torch.Generator().manual_seed(0))[1].y
    np.save(folder / "pilots.npy", pilots.numpy())
    for line in lines:
        few = short if line.startswith("fanfold train") else ""
        assert cli.run(shlex.split(f"{line} {few}".replace("--count 200", "--count 40"))[1:]) == 0
    assert (folder / "runs/beam/report.html").is_file()
    assert np.load(folder / "channels.npy").shape[0] == 3


def test_what_the_headline_says_stands_in_the_results():
    """Numbers of the README's table are numbers of the tables that it is drawn from."""
    results = (ROOT / "docs/results.md").read_text().replace("*", "")
    (rows,) = re.findall(r"^\| what is estimated.*\n\|[-|]+\n((?:\|.*\n)+)", README, re.MULTILINE)
    for row in rows.splitlines():
        for cell in row.replace("*", "").split("|")[2:5]:
            for number in re.findall(r"−?\d+\.\d+", cell):
                assert re.search(rf"(?<![\d−.]){re.escape(number)}(?![\d.]*\d)", results), (number, row)


# All pages


@every_page
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        file, _, anchor = target.partition("#")
        if file.startswith("http"):
            continue
        goal = (page.parent / file).resolve() if file else page
        assert goal.exists(), f"{page.name} links to {target}"
        headings = re.findall(r"^#+ (.*)$", goal.read_text(), re.MULTILINE) if anchor else []
        slugs = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
        assert not anchor or anchor in slugs


@every_page
def test_every_name_of_the_package_exists(page):
    text = page.read_text()
    for name in set(re.findall(r"\bff\.([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)", text)):
        thing = ff
        for part in name.split("."):
            assert hasattr(thing, part), f"{page.name} names ff.{name}"
            thing = getattr(thing, part)
    for module, names in re.findall(r"^from (fanfold[\w.]*) import (.*)$", text, re.MULTILINE):
        for name in names.split(", "):
            assert hasattr(import_module(module), name), f"{page.name} imports {name} from {module}"
    for module in re.findall(r"pydoc (fanfold[\w.]+)", text):
        assert find_spec(module), f"{page.name} names {module}"


@every_page
def test_every_file_that_is_named_exists(page):
    named = re.findall(r"\b((?:src|tests|benchmarks|examples|docs)/[\w/.-]+\.(?:py|toml|svg|md))\b", page.read_text())
    assert [file for file in named if not (ROOT / file).is_file()] == []


@every_page
def test_every_study_and_verb_that_is_named_exists(page):
    text = re.sub(r"\s+", " ", page.read_text())
    assert set(re.findall(r"fanfold reproduce ([a-z][a-z-]*)", text)) <= set(EXPERIMENTS)
    assert set(re.findall(r"`fanfold ([a-z]+)", text)) <= set(cli.VERBS)


def test_the_page_of_the_command_line_has_every_verb():
    text = (ROOT / "docs/command-line.md").read_text()
    rows = "".join(line for line in text.splitlines() if line.startswith("|"))
    assert set(re.findall(r"`([a-z]+)[ `]", rows)) == set(cli.VERBS)


# The example of CONTRIBUTING.md


def test_the_estimator_of_contributing_trains():
    (code,) = (block for block in blocks((ROOT / "CONTRIBUTING.md").read_text(), "python") if "nn.Module" in block)
    names: dict = {"nn": nn, "torch": torch, "Problem": ff.problems.Problem, "Checked": Checked}
    names |= {"Observation": ff.Observation, "Estimate": ff.Estimate}
    exec("from dataclasses import dataclass\n" + code, names)
    problem = ff.problems.CompressedSensing(n=20, m=10, seed=0)
    settings = names["ShrinkageSettings"](start=3.0)
    net = settings.build(problem)
    assert isinstance(settings, Settings)
    assert isinstance(net, Kept)
    untrained = ff.evaluate({"x": net}, problem, samples=200).rows[0]["nmse_db"]
    ff.fit(net, problem, steps=60, lr=0.1, validate_every=30, validation_samples=100)
    assert ff.evaluate({"x": net}, problem, samples=200).rows[0]["nmse_db"] < untrained - 3
    json.dumps(vars(settings))  # plain fields
