"""Sweeps: what the table holds; that no estimator passes a limit is in test_peers.py."""

import json

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.core.table import Table
from fanfold.evaluation.evaluate import errors_db, named_estimators
from fanfold.evaluation.peers import lam_grid, tuned

CONDITIONS = {"snr_db": [20.0, 30.0], "sparsity": [0.05, 0.1]}


def problem(**changes):
    return ff.problems.CompressedSensing(n=120, m=60, snr_db=30, **changes)


@pytest.fixture(scope="module")
def table() -> Table:
    estimators = {"FISTA": ff.iterate(ff.algorithms.FISTA(), 5), "LMMSE": ff.LMMSE.of(problem())}
    return ff.evaluate(estimators, problem(), samples=100, **CONDITIONS)


def test_one_row_an_estimator_condition_and_layer(table):
    assert len(table) == 4 * (5 + 1)
    assert [r["layer"] for r in table.where(estimator="FISTA", snr_db=20.0, sparsity=0.05)] == [1, 2, 3, 4, 5]
    assert [r["layer"] for r in table.where(estimator="LMMSE", snr_db=20.0, sparsity=0.05)] == [None]
    assert len(table.last_layers()) == 4 * 2


def test_a_table_goes_to_csv_json_and_pandas_unchanged(table, tmp_path):
    frame = table.dataframe()
    assert list(frame.columns) == table.columns
    assert json.loads(table.to_json(tmp_path / "t.json")) == table.rows
    lines = table.to_csv(tmp_path / "t.csv").splitlines()
    assert len(lines) == len(table) + 1
    assert (tmp_path / "t.csv").read_text().splitlines() == lines
    assert str(table).count("\n") == len(table)


def test_infinite_numbers_become_null_in_json():
    assert json.loads(Table([{"nmse_db": float("-inf")}]).to_json()) == [{"nmse_db": None}]


def test_nmse_is_a_ratio_of_sums_and_its_interval_covers():
    """400 repetitions of 200 draws: the 95 % interval covers the truth in 95 ± 4 standard errors (1.1 %)."""
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(400):
        x = torch.randn(200, 20, generator=generator)
        row = errors_db(x + 0.1 * torch.randn(200, 20, generator=generator), x)
        covered += row["low_db"] <= -20.0 <= row["high_db"]
    assert abs(covered / 400 - 0.95) < 4 * 0.011


def test_median_ignores_signals_without_a_non_zero():
    x = torch.zeros(3, 4)
    x[1:] = 1.0
    assert errors_db(0.9 * x, x)["median_db"] == pytest.approx(-20.0, abs=1e-4)


def test_the_same_draws_serve_every_estimator():
    twice = ff.evaluate([ff.iterate(ff.algorithms.AMP(), 3)] * 2, problem(), samples=50)
    first, second = (twice.where(estimator=name) for name in ("Iterated AMP", "Iterated AMP 2"))
    assert [r["nmse_db"] for r in first] == [r["nmse_db"] for r in second]


def test_limits_are_none_where_they_are_not_known(tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 8))
    np.savez(tmp_path / "pairs.npz", x=x, y=2 * x)
    pairs = ff.problems.Pairs(str(tmp_path / "pairs.npz"))
    (row,) = ff.evaluate({"half": lambda obs: ff.Estimate(obs.y / 2)}, pairs, samples=20)
    assert (row["limit_db"], row["oracle_db"], row["layer"]) == (None, None, None)
    assert row["nmse_db"] == -np.inf


def test_unknown_conditions_are_refused():
    with pytest.raises(ValueError, match="has no 'snr'"):
        ff.evaluate([ff.iterate(ff.algorithms.AMP(), 3)], problem(), snr=[20])


def test_one_sample_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        ff.evaluate([ff.iterate(ff.algorithms.AMP(), 3)], problem(), samples=1)


def test_estimators_are_named_after_their_algorithm():
    net = ff.unfold(ff.algorithms.ISTA(), problem(), 2)
    assert list(named_estimators([net, ff.iterate(ff.algorithms.ISTA(), 2)])) == ["Unfolded ISTA", "Iterated ISTA"]


def test_tuning_finds_the_best_of_its_grid():
    on = problem()
    grid = lam_grid(on)
    best = tuned(ff.algorithms.FISTA, grid, on, 20)
    rows = ff.evaluate({str(lam): ff.iterate(ff.algorithms.FISTA(lam), 20) for lam in grid}, on, layers=False)
    winner = min(rows, key=lambda r: r["nmse_db"])
    chosen = next(r for r in rows if r["estimator"] == str(best.lam))
    assert chosen["low_db"] <= winner["high_db"]
