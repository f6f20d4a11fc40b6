"""The comparison table: what its cells are made of, and that its words are judged by the numbers beside them."""

import dataclasses
import json
import math
import re

import pytest
import torch
from torch import nn

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.core.streams import Stream
from fanfold.core.units import nmse_db
from fanfold.estimators.ofdm import KroneckerGMM, Wiener
from fanfold.experiments import EXPERIMENTS, Study
from fanfold.experiments.comparison.comparison_table import goals, pairs_ratio
from fanfold.experiments.comparison.scorecards import Drift, Learned, Scorecard, call, drifted, enough, learned
from fanfold.experiments.comparison.supply import (
    GUESS,
    Size,
    Supply,
    covariance_of,
    prior_of_signals,
    trained,
)
from fanfold.experiments.comparison.table_cells import comparison, curve_rows, shift_rows, word_rows
from fanfold.experiments.comparison.words import CRITERIA
from fanfold.experiments.comparison.worlds import FAMILIES, MIXED, Arena, Contender, mixture_of_places
from fanfold.problems.draws import draw
from fanfold.report.learned import learned_ratios

SPARSE = ff.problems.CompressedSensing(n=40, m=20, snr_db=20.0)


def silent(title):
    return lambda event: None


def card(family, world="sparse recovery", **changes):
    """A scorecard with plain numbers."""
    drifts = [Drift("gain, x3", 1.0, 9.0), Drift("dead sensors, 1 of 20", -1.0, 3.0)]
    card = Scorecard(
        world,
        Contender(family, f"the {family} one", "one pass", lambda supply: lambda obs: ff.Estimate(obs.y)),
        "FISTA",
        "state evolution",
        {0: -10.0, 100: -19.5, None: -20.0},
        -21.0,
        -15.0,
        drifts,
        1e6,
        100.0,
        "c",
        Learned(10, 5, 1.5),
        0.9,
        0.9,
        0.1,
        1.0,
    )
    return dataclasses.replace(card, **changes)


def holds(title, family, **changes):
    """Whether the text's word holds where a family's card is changed."""
    world = {f: card(f, **(changes if f == family else {})) for f in FAMILIES}
    (criterion,) = (c for c in CRITERIA if c.title == title)
    return criterion.findings(world)[family].holds


# What is learned of so many pairs


def test_a_smaller_supply_is_a_part_of_a_larger_one():
    small, large = (Supply(SPARSE, count, seed=3).pairs() for count in (5, 50))
    assert torch.equal(small[0], large[0][:5])
    assert torch.equal(small[1].y, large[1].y[:5])
    assert not torch.equal(small[0], Supply(SPARSE, 5, seed=4).pairs()[0])


def test_nothing_is_trained_of_no_pairs_and_pairs_train():
    def network():
        return ff.unfold(ff.algorithms.ISTA(), SPARSE, 4, {"threshold": "per-layer"})

    options = {"steps": 30, "lr": 1e-2}
    untouched = trained(network(), Supply(SPARSE, 0, 0), "ISTA", silent, options)
    assert all(not deviation.any() for deviation in untouched.deviations.values())
    moved = trained(network(), Supply(SPARSE, 100, 0), "ISTA", silent, options)
    x, obs = draw(SPARSE.held_out(), 500, 0, Stream.TESTING, 0)
    assert nmse_db(moved(obs).x, x) < nmse_db(untouched(obs).x, x) - 0.1


def test_a_prior_is_counted_and_guessed_without_signals():
    assert prior_of_signals(Supply(SPARSE, 0, 0)) is GUESS
    prior = prior_of_signals(Supply(SPARSE, 1000, 0))  # 40 000 entries: 0.1 ± 0.0015, of power 1 ± 0.02
    assert prior.p == pytest.approx(SPARSE.sparsity, abs=0.006)
    assert prior.var == pytest.approx(SPARSE.prior.var, rel=0.1)


def test_the_limit_of_channels_is_below_lmmse_and_says_the_error_that_it_makes():
    on = ff.problems.OFDMChannel(MIXED, "comb-4", snr_db=10.0)
    x, obs = draw(on.held_out(), 200, 0, Stream.TESTING, 0)
    exact = KroneckerGMM.of(on, mixture_of_places(), known_power=True)(obs)
    lmmse = Wiener.of(on, covariance_of(Supply(on, 500, 0).signals(), 32))(obs)
    assert nmse_db(exact.x, x) < nmse_db(lmmse.x, x) - 1.5
    ratio, spread = ff.guard.normalised_square(exact, x)
    assert ratio == pytest.approx(1, abs=4 * spread)


def test_a_covariance_of_channels_has_a_mean_diagonal_of_one():
    h = ff.propagation.source_of("kronecker:array=2x4,subcarriers=6,space=0.5,frequency=0.9")
    x = h.draw(4000, torch.Generator().manual_seed(0)).flatten(1)
    covariance = covariance_of(x, 8)
    assert covariance.grid.diagonal().real.mean() == pytest.approx(1)
    assert covariance.grid[0, 1].real == pytest.approx(0.9, abs=0.03)  # of 32 000 rows


# What is measured


def test_enough_pairs_are_those_from_which_on_all_are_enough():
    assert enough({0: -19.2, 10: -18.0, 100: -19.5, None: -20.0}) == 100
    assert enough({0: -19.2, 10: -19.1, None: -20.0}) == 0
    assert enough({0: -1.0, 10: -2.0, None: -20.0}) is None
    assert enough({0: math.inf, 10: -20.0, None: -20.0}) == 10


def test_ratios_of_learned_numbers_are_one_before_training_and_those_of_the_deviations_after():
    net = ff.unfold(ff.algorithms.OAMP(GUESS), SPARSE, 3, {"p": "per-layer", "damping": "per-layer"})
    assert all(torch.equal(ratio, torch.ones(3, 1)) for ratio in learned_ratios(net).values())
    with torch.no_grad():
        net.deviations["p"][1] = math.log(2.0)  # p of the unit domain: p ** exp(d)
    ratio = learned_ratios(net)["p"]
    assert ratio[1].item() == pytest.approx(GUESS.p**2 / GUESS.p)
    said = learned(net, Contender("unfolding", "", "", lambda supply: net))
    assert (said.numbers, said.named, said.moved) == (6, 6, 1.0)  # the median of six, five of which stand still


def test_numbers_of_a_plain_network_have_no_name():
    said = learned(nn.Linear(3, 2), Contender("end-to-end", "", "", lambda supply: nn.Linear(3, 2)))
    assert (said.numbers, said.named, said.share, said.moved) == (8, 0, 0.0, None)


def test_drift_of_the_baseline_itself_is_no_risk():
    fista = ff.iterate(ff.algorithms.FISTA(lam=0.05), 30)
    world = Arena("sparse recovery", "", SPARSE, "FISTA", fista, "none", lambda x, obs: 0.0, (), "sparse-limit")
    drifts = drifted(fista, world, dataclasses.replace(Size.quick(), shifts=8), 0)
    assert len(drifts) == -(-len(ff.guard.shifts(SPARSE)) // 8)
    assert [drift.risk for drift in drifts] == [1.0] * len(drifts)
    assert max(drift.lost_db for drift in drifts) > 1  # and yet it errs more under them


def test_a_call_is_timed_where_it_runs():
    obs = draw(SPARSE, 2, 0, Stream.TESTING, 0)[1]
    products, microseconds, backend = call(ff.iterate(ff.algorithms.ISTA(), 10), obs, 5, ["eager"])
    assert products == 10 * 2 * SPARSE.n * SPARSE.m
    assert (microseconds > 0, backend) == (True, "eager")


# What is said of it


def test_words_hold_by_their_numbers():
    fails = {
        ("Data requirement", "model-based"): {"curve": {0: -10.0, None: -20.0}},
        ("Data requirement", "end-to-end"): {"curve": {0: -20.0, None: -20.0}},
        ("Data requirement", "unfolding"): {"curve": {0: -20.0, None: -20.0}},
        ("Inference cost", "model-based"): {"products": 1e5},
        ("Inference cost", "end-to-end"): {"products": 1e7},
        ("Inference cost", "unfolding"): {"products": 1e7},
        ("Robust to model drift", "model-based"): {"drifts": [Drift("gain, x3", 1.0, 1.0)]},
        ("Robust to model drift", "end-to-end"): {"drifts": [Drift("gain, x3", -1.0, 1.0)]},
        ("Robust to model drift", "unfolding"): {"drifts": [Drift("gain, x3", 9.0, 1.0)]},
        ("Interpretability", "model-based"): {"learned": Learned(10, 5, None)},
        ("Interpretability", "end-to-end"): {"learned": Learned(10, 5, None)},
        ("Interpretability", "unfolding"): {"learned": Learned(10, 10, 1.2)},
        ("Uncertainty quantification", "model-based"): {"said": 0.99},
        ("Uncertainty quantification", "end-to-end"): {"said": 0.91},
        ("Uncertainty quantification", "unfolding"): {"said": None},
        ("Performance ceiling", "model-based"): {"limit_db": -18.0},
        ("Performance ceiling", "end-to-end"): {"curve": {0: -10.0, 100: -20.0, None: -20.0}},
        ("Performance ceiling", "unfolding"): {"curve": {0: -10.0, None: -11.0}},
    }
    keeps = {
        ("Data requirement", "model-based"): {"curve": {0: -19.5, None: -20.0}},
        ("Data requirement", "end-to-end"): {"curve": {0: -1.0, 100: -2.0, None: -20.0}},
        ("Data requirement", "unfolding"): {"curve": {0: -1.0, 10: -20.0, None: -20.0}},
        ("Inference cost", "model-based"): {"products": 1e7},
        ("Inference cost", "end-to-end"): {"products": 1e5},
        ("Inference cost", "unfolding"): {"products": 1e5},
        ("Robust to model drift", "model-based"): {"drifts": [Drift("gain, x3", 1.0, 30.0)]},
        ("Robust to model drift", "end-to-end"): {"drifts": [Drift("gain, x3", 4.0, 1.0)]},
        ("Robust to model drift", "unfolding"): {"drifts": [Drift("gain, x3", -9.0, 1.0)]},
        ("Interpretability", "model-based"): {"learned": Learned(10, 10, None)},
        ("Interpretability", "end-to-end"): {"learned": Learned(10, 0, None)},
        ("Interpretability", "unfolding"): {"learned": Learned(10, 5, 1.2)},
        ("Uncertainty quantification", "model-based"): {"said": 0.92},
        ("Uncertainty quantification", "end-to-end"): {"said": None},
        ("Uncertainty quantification", "unfolding"): {"said": 0.88},
        ("Performance ceiling", "model-based"): {"limit_db": -20.1},
        ("Performance ceiling", "end-to-end"): {"curve": {0: -10.0, 100: -12.0, None: -20.0}},
        ("Performance ceiling", "unfolding"): {"curve": {0: -10.0, None: -20.5}},
    }
    assert set(fails) == set(keeps) == {(c.title, family) for c in CRITERIA for family in c.words}
    assert [key for key, changes in fails.items() if holds(*key, **changes)] == []
    assert [key for key, changes in keeps.items() if not holds(*key, **changes)] == []


def test_every_cell_leads_to_its_record_and_says_in_words_whether_the_word_holds():
    cards = {world: {f: card(f, world) for f in FAMILIES} for world in ("sparse recovery", "RF imaging")}
    page = comparison(cards)
    links = re.findall(r'href="([^"]+)"', page)
    assert len(links) == len(CRITERIA) * 2 * 3
    assert set(links) == {c.place for of_world in cards.values() for c in of_world.values()}
    assert page.count("<strong>holds") + page.count("<strong>does not hold") == len(links)
    assert page.count('scope="row"') == len(CRITERIA) * 2
    rows = word_rows(cards)
    assert len(rows) == 18
    assert {row["the text's word"] for row in rows} >= {"Large labeled dataset", "Medium", "Bounded by CRLB"}


def test_records_and_rows_hold_what_the_cells_say():
    of_world = {f: card(f) for f in FAMILIES}
    record = of_world["unfolding"].record(seed=7)
    assert record["nmse_db by pairs"] == {"0": -10.0, "100": -19.5, "fresh": -20.0}
    assert record["command"].endswith("--seed 7")
    assert [row["shift"] for row in shift_rows(of_world)] == ["gain, x3", "dead sensors, 1 of 20"]
    assert curve_rows(of_world)[-1]["unfolding"] == -21.0
    assert of_world["unfolding"].worst.shift == "gain, x3"
    assert of_world["unfolding"].mean_risk_db == pytest.approx(0.0)


def test_goals_are_missed_where_the_unfolded_network_falls_behind():
    good = {
        "model-based": {},
        "end-to-end": {"curve": {0: 0.0, 100: -1.0, None: -3.0}, "drifts": [Drift("gain, x3", 20.0, 1.0)]},
        "unfolding": {"curve": {0: -20.0, 100: -20.0, None: -20.8}},
    }

    def missed(**changes):
        cards = {f: card(f, **(good[f] | (changes if f == "unfolding" else {}))) for f in FAMILIES}
        return [goal.what for goal in goals({"sparse recovery": cards}, quick=False) if not goal.passed]

    assert missed(drifts=[Drift("gain, x3", 0.0, 1.0)]) == [
        "sparse recovery: the unfolding one against the end-to-end one"
    ]
    good["unfolding"]["curve"] = {0: -28.0, 100: -28.2, None: -28.5}  # beyond the limit, which no goal forbids
    assert missed() == []
    assert len(missed(conformal=0.87)) == 1
    assert len(missed(drifts=[Drift("gain, x3", 20.0, 1.0)])) == 1
    assert len(missed(curve={0: -1.0, 100: -2.0, None: -10.0})) == 4


def test_pairs_that_were_too_few_count_as_the_most_that_were_tried():
    never = card("end-to-end", curve={0: 0.0, 100: -1.0, None: -20.0})
    assert pairs_ratio(card("unfolding", curve={0: -1.0, 10: -19.5, None: -20.0}), never) == 0.1
    assert pairs_ratio(never, never) == math.inf


def test_records_are_kept_beside_the_page(tmp_path, monkeypatch, capsys):
    def study(**options):
        return Study(
            "comparison-table", "", "", 0.0, [], records={"runs/a.json": {"seed": options["seed"], "x": math.inf}}
        )

    monkeypatch.setitem(EXPERIMENTS, "comparison-table", study)
    assert cli.run(["reproduce", "comparison-table", "--seed", "5", "--out-dir", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "runs/a.json").read_text()) == {"seed": 5, "x": None}
