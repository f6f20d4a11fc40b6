"""Pages of runs say what was run and learned, in true sentences, beside peers that can be told apart."""

import json
import re

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.table import Table
from fanfold.evaluation.peers import peers_of
from fanfold.report.learned import learned_sections
from fanfold.report.page import Section, filled, write_page
from fanfold.report.plots import Series, line_figure
from fanfold.report.run_facts import draws_in_words, in_words
from fanfold.report.run_page import write_run_page
from fanfold.runs.directory import Run

PROBLEM = ff.problems.CompressedSensing(n=40, m=20)
NETWORK = ff.unfold(ff.algorithms.ISTA(), PROBLEM, 2, {"step": "tied"})
SCENES = ff.problems.RFImaging("gaussian", (4, 4), (3, 3))
SMALL = {"steps": 4, "batch": 8, "validate_every": 2, "validation_samples": 20}


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("runs") / "scenes"
    net = ff.unfold(ff.algorithms.OAMP(), SCENES, 3, {"damping": "per-layer", "noise_var": "tied"})
    ff.fit(net, SCENES, **SMALL, lr=0.1, run_dir=path)
    return write_run_page(Run.open(path), path / "report.html", 50).read_text()


def tables(page: str) -> list[list[dict]]:
    return [json.loads(data) for data in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page)]


def test_a_page_says_what_was_run(page):
    facts = {row[""]: row["is"] for row in tables(page)[0]}
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["begun"])
    assert facts["command"] == "from Python"
    assert facts["problem"].startswith("rf-imaging: ")
    assert facts["data"] == "drawn afresh; 16 unknowns, 9 measurements"
    assert "layers 3" in facts["network"]
    assert "steps 4" in facts["training"]
    assert facts["parameters"] == "4"


def test_a_page_shows_what_was_learned_and_a_validation_curve(page):
    assert "What was learned" in page
    assert "held out" in page
    (rows,) = (t for t in tables(page) if "quantity" in t[0])
    assert [(row["quantity"], row["layer"]) for row in rows] == [
        ("damping", "1"), ("damping", "2"), ("damping", "3"), ("noise_scale", "all")
    ]  # fmt: skip


def test_verdicts_stand_in_the_column_of_verdicts_alone(page, tmp_path):
    assert "FAIL" not in page
    (steps,) = (t for t in tables(page) if "gradient_norm" in t[0])
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert {*steps[0]} == {"step", "loss", "gradient_norm", "lr"}
    rows = Table([{"goal": "error", "pass": False, "judged": True}])
    write_page(tmp_path / "page.html", "goals", "", [Section("goals", table=rows)], {})
    text = (tmp_path / "page.html").read_text()
    assert ">FAIL<" in text
    assert ">yes<" in text


def test_a_scene_is_shown_in_pictures(page):
    assert page.count("data:image/png;base64,") >= 5
    assert ">truth</b>" in page
    assert ">error of unfolded</b>" in page
    assert "Error maps are magnitudes of the errors" in page


def test_a_page_explains_its_units_its_layers_and_its_certificate(page):
    assert "−20 dB a hundredth" in page
    assert "Do not stop at an earlier layer" in page
    assert "State evolution says what" in page
    assert "claimed by the network" in page


def test_a_page_waits_for_no_peer_that_compiles_itself():
    """An evaluation has it; see `test_strong_peers_come_near_the_limit_and_the_lasso_does_not`."""
    names = set(peers_of(NETWORK, PROBLEM, at_once=True))
    assert {"unfolded", "FISTA, best λ", "LMMSE"} <= names
    assert not any(name.startswith("MCP") for name in names)


def test_no_column_of_a_page_is_empty(page):
    for rows in tables(page):
        for name in rows[0]:
            assert any(row[name] is not None for row in rows), name
    assert filled(Table([{"a": 1, "b": None}, {"a": None, "b": None}])).columns == ["a"]


def test_values_that_were_learned_are_those_of_the_network():
    net = ff.unfold(ff.algorithms.ISTA(0.05), PROBLEM, 2, {"step": "per-layer", "threshold": "per-layer vector"})
    assert learned_sections(ff.iterate(ff.algorithms.ISTA(), 3)) == []
    with torch.no_grad():
        net.deviations["step"][1] = np.log(2.0)
        net.deviations["threshold"][0, 5] = np.log(3.0)
    (section,) = learned_sections(net)
    rows = {(row["quantity"], row["layer"]): row for row in section.details}
    assert not section.table  # all of it is in the chart
    assert rows["step", "2"]["mean"] == pytest.approx(2 * rows["step", "1"]["mean"])
    assert rows["step", "1"]["mean"] == pytest.approx(rows["step", "1"]["algorithm"])
    assert rows["threshold", "1"]["largest"] == pytest.approx(3 * rows["threshold", "1"]["least"])
    net.strength = 0.0
    (section,) = learned_sections(net)
    assert [row["mean"] for row in section.details] == pytest.approx([row["algorithm"] for row in section.details])


def test_learned_numbers_that_are_charted_are_folded_and_one_for_all_layers_stands_open():
    net = ff.unfold(ff.algorithms.ISTA(0.05), PROBLEM, 3, {"step": "tied", "threshold": "per-layer"})
    (section,) = learned_sections(net)
    assert [row["quantity"] for row in section.table] == ["step"]
    assert [row["quantity"] for row in section.details] == ["step"] + ["threshold"] * 3
    (section,) = learned_sections(ff.unfold(ff.algorithms.ISTA(0.05), PROBLEM, 3, {"step": "tied"}))
    assert (len(section.table), len(section.details), list(section.figures)) == (1, 0, [])


@pytest.mark.parametrize(
    ("figures", "rows", "folded"), [(["<svg/>"], 21, True), (["<svg/>"], 20, False), ([], 21, False)]
)
def test_a_long_table_under_a_figure_is_folded(tmp_path, figures, rows, folded):
    table = Table([{"row": i} for i in range(rows)])
    page = write_page(tmp_path / "page.html", "A page", "So.", [Section("Rows", "", figures, table)], {}).read_text()
    assert page.count("<td>") == rows
    assert (f"<details><summary>The {rows} rows</summary>" in page) == folded


def test_places_within_a_decade_are_named_themselves():
    def names(*places: float) -> list[str]:
        figure = line_figure([Series("a", places, [1.0] * len(places))], "pilots", "NMSE in dB", log_x=True)
        return [label.get_text() for label in figure.axes[0].get_xticklabels()]

    assert names(4, 6, 12) == ["4", "6", "12"]
    assert names(100) == ["100"]
    assert "100" not in names(1, 100)  # it has powers of ten


def test_sentences_about_draws_are_true(tmp_path):
    x = np.random.default_rng(0).standard_normal((80, 4, 2)) @ np.array([1, 1j])
    pairs = ff.problems.Pairs(x=x, y=2 * x, A=2 * np.eye(4, dtype=complex), noise_var=0.01)
    assert draws_in_words(pairs, 16) == "16 stored pairs that are kept for tests."
    assert draws_in_words(PROBLEM, 16) == "16 fresh draws of the training problem."
    net = ff.unfold(ff.algorithms.ISTA(), pairs, 2, {"step": "tied"})
    ff.fit(net, pairs, **SMALL, run_dir=tmp_path / "run")
    run = Run.open(tmp_path / "run", problem=pairs)
    page = write_run_page(run, tmp_path / "report.html", 1000).read_text()
    assert "16 stored pairs that are kept for tests." in page
    assert "1000" not in re.sub(r"<script.*?</script>|<svg.*?</svg>|<style>.*?</style>", "", page, flags=re.DOTALL)


def test_settings_in_words():
    words = in_words({"name": "ista", "lam": 0.05, "learn": {"step": "tied"}, "sizes": [1, 2]})
    assert words == "ista: lam 0.05, learn (step tied), sizes 1 2"
    assert in_words({"given": "Mine"}) == "Mine"


def test_peers_can_be_told_apart_without_colour():
    series = [Series(f"peer {k}", range(1, 9), [-k] * 8) for k in range(12)]
    series += [Series(name, range(1, 9), [-20] * 8, "limit") for name in ("Bayes limit", "oracle")]
    lines = line_figure(series, "layers", "dB").axes[0].get_lines()
    looks = {(line.get_linestyle(), line.get_marker(), str(line._dash_pattern)) for line in lines}
    assert len(looks) == len(series)
    assert len({line.get_color() for line in lines[:7]}) == 7


def test_small_numbers_are_not_rounded_to_nothing_nor_large_ones_written_out(tmp_path):
    table = Table([{"a": 1.5e-5, "b": 0.0, "c": 12.345, "d": 1.271e12}])
    page = write_page(tmp_path / "p.html", "t", "v", [Section("s", table=table)], {})
    for text in ("<td>1.5e-05</td>", "<td>0.00</td>", "<td>12.35</td>", "<td>1.27e+12</td>"):
        assert text in page.read_text()


def test_a_network_without_layers_on_a_linear_problem_stands_beside_the_classical_methods():
    peers = peers_of(ff.estimators.MoDLSettings(layers=1, width=4, depth=2).build(SCENES), SCENES)
    assert {"network", "FISTA, best λ", "AMP, best α", "OAMP, true prior", "LMMSE"} <= set(peers)
    seen = ff.problems.LinearGaussian(n=2, m=3, show_operator=True)
    assert set(peers_of(ff.neural(seen), seen)) >= {"network", "exact posterior"}
    assert "FISTA, best λ" not in peers_of(ff.neural(ff.problems.Tone()), ff.problems.Tone())
