"""The published experiments in their small version reach their goals."""

import html
import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fanfold.cli import main as cli
from fanfold.cli import studies
from fanfold.experiments import EXPERIMENTS
from fanfold.experiments.base import Goal
from fanfold.experiments.pages import background, write_index
from fanfold.experiments.sparse import photographs, unfolding_figure

SHOWN_BY_DEMO = ("photographs", "unfolding-figure")
IN_THE_INDEX = ("mbdl-lista", "single-tone")  # two small ones


def reaches_its_goals(name: str, tmp_path: Path, capsys) -> None:
    """The small version of a study, from the shell."""
    capsys.readouterr()
    assert cli.run(["reproduce", name, "--quick", "--out-dir", str(tmp_path / name), "--json"]) == 0
    has_reached_its_goals(name, json.loads(capsys.readouterr().out), tmp_path)


def has_reached_its_goals(name: str, study: dict, tmp_path: Path) -> None:
    assert study["name"] == name
    assert all(row["pass"] for row in study["rows"])
    page = html.unescape((tmp_path / name / "report.html").read_text())
    said = background(EXPERIMENTS[name])
    assert page.count("<section>") >= 4
    assert said.claim in page
    assert f"Source: {said.source}" in page
    assert f"fanfold reproduce {name} --quick" in page
    assert json.loads((tmp_path / name / "goals.json").read_text())["rows"] == study["rows"]


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in SHOWN_BY_DEMO + IN_THE_INDEX])
def test_the_small_version_reaches_its_goals(name, tmp_path, capsys):
    reaches_its_goals(name, tmp_path, capsys)


def broken(**settings):
    """An experiment that needs what is not there."""
    raise ImportError("this study needs a package that is not there")


def test_all_studies_run_into_one_index_and_one_that_breaks_keeps_none_away(tmp_path, monkeypatch, capsys):
    others = {"broken": broken} | {name: EXPERIMENTS[name] for name in IN_THE_INDEX}
    monkeypatch.setattr(studies, "EXPERIMENTS", others)
    assert cli.run(["reproduce", "--all", "--quick", "--out-dir", str(tmp_path), "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["failures"] == {"broken": "this study needs a package that is not there"}
    for name, study in zip(IN_THE_INDEX, result["studies"], strict=True):
        has_reached_its_goals(name, study, tmp_path)
    page = html.unescape(Path(result["index"]).read_text())
    assert Path(result["index"]) == tmp_path / "index.html"
    assert "2 of 2 studies that were run reach all of their goals; 1 of 3 were not run" in page
    assert "could not be run: this study needs a package that is not there" in page
    for study in result["studies"]:
        name = study["name"]
        said = background(EXPERIMENTS[name])
        kept = json.loads((tmp_path / name / "goals.json").read_text())
        wanted = (said.title, said.claim, said.source, kept["verdict"], f"fanfold reproduce {name} --quick")
        assert [text for text in wanted if text not in page] == []
        assert f"{len(study['rows'])} of {len(study['rows'])}" in page
    for target in re.findall(r'(?:src|href)="([^"#]+)"', page):
        assert (tmp_path / target).is_file()
    for anchor in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{anchor}"' in page


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_study_states_its_claim_and_source(name):
    said = background(EXPERIMENTS[name])
    assert all(said)
    assert "Source" not in said.claim


def test_an_index_lists_what_was_not_run_and_takes_no_broken_file(tmp_path):
    two = {name: EXPERIMENTS[name] for name in IN_THE_INDEX}
    (tmp_path / "mbdl-lista").mkdir()
    (tmp_path / "mbdl-lista/goals.json").write_text('["of another kind"]')
    page = write_index(tmp_path, two).read_text()
    assert "0 of 0 studies" in page
    assert page.count("not run</td>") == 2
    assert "href" not in page


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
