"""The published experiments in their small version reach their goals."""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fanfold.cli import main as cli
from fanfold.experiments import EXPERIMENTS
from fanfold.experiments.base import Goal
from fanfold.experiments.sparse import photographs, unfolding_figure

SHOWN_BY_DEMO = ("photographs", "unfolding-figure")


def reaches_its_goals(name: str, tmp_path: Path, capsys) -> None:
    """The small version of a study, from the shell."""
    capsys.readouterr()
    assert cli.run(["reproduce", name, "--quick", "--out-dir", str(tmp_path / name), "--json"]) == 0
    study = json.loads(capsys.readouterr().out)
    assert study["name"] == name
    assert all(row["pass"] for row in study["rows"])
    assert (tmp_path / name / "report.html").read_text().count("<section>") >= 2
    assert json.loads((tmp_path / name / "goals.json").read_text())["rows"] == study["rows"]


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in SHOWN_BY_DEMO])
def test_the_small_version_reaches_its_goals(name, tmp_path, capsys):
    reaches_its_goals(name, tmp_path, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_the_whole_version_reaches_its_goals(name, tmp_path):
    assert cli.run(["reproduce", name, "--out-dir", str(tmp_path / name)]) == 0


def once(measure: Callable) -> Callable:
    """The same function, which keeps what it gave, whoever watches."""
    kept, signature = {}, inspect.signature(measure)

    def given(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        key = tuple(value for name, value in bound.arguments.items() if name != "watch")
        if key not in kept:
            kept[key] = measure(*args, **kwargs)
        given.kept = len(kept)
        return kept[key]

    return given


def test_demo_and_the_studies_that_it_shows_reach_their_goals_and_its_page_asks_for_nothing(
    tmp_path, monkeypatch, capsys
):
    """The small versions of both studies measure what the demo does: it is trained once."""
    from test_cli import assert_asks_for_nothing

    for module, name in ((photographs, "recover"), (unfolding_figure, "measure")):
        monkeypatch.setattr(module, name, once(vars(module)[name]))
    for name in SHOWN_BY_DEMO:
        reaches_its_goals(name, tmp_path, capsys)
    assert cli.run(["demo", "--out-dir", str(tmp_path)]) == 0
    page = (tmp_path / "report.html").read_text()
    assert_asks_for_nothing(page)
    assert page.count("data:image/png;base64,") == 10  # the original, five crops and four error maps
    assert "Bayes limit" in page
    assert "do not trust" in page
    numbers = r'<script type="application/json" id="data-\d+">(.*?)</script>'  # the live figure has others
    data = [json.loads(d) for d in re.findall(numbers, page, re.DOTALL)]
    assert len(data) == 5
    assert len(data[0]) == 16
    assert photographs.recover.kept == unfolding_figure.measure.kept == 1


def test_a_goal_is_reached_or_not():
    assert Goal("a", "dB", "<=", -10, -10.0).passed
    assert not Goal("a", "dB", "<=", -10, -9.99).passed
    assert not Goal("a", "dB", ">=", 4, float("nan")).passed
    assert Goal("a", "dB", "=", -4.2, -4.6, tolerance=0.5).passed
    assert not Goal("a", "dB", "=", -4.2, -4.8, tolerance=0.5).passed
