"""The published experiments in their small version reach their goals."""

import json
import re

import pytest

from fanfold.cli import main as cli
from fanfold.experiments import EXPERIMENTS
from fanfold.experiments.base import Goal


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
