"""A user's own measures in the table of an evaluation: values, intervals that cover, errors that name the metric."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import fanfold as ff
from fanfold.core.table import Table
from fanfold.evaluation.metrics import mean_with_interval, values_of
from fanfold.evaluation.scores import gaussian_crps, mean_normalised_square

SYSTEM = ff.problems.MIMODetection(users=3, antennas=4, snr_db=8.0)
DETECTOR = {"LMMSE": ff.estimators.UnbiasedLMMSE()}


def symbols(estimate, x):
    """Whether each symbol is wrong: QPSK is told by two signs."""
    return (estimate.x.real.sign() != x.real.sign()) | (estimate.x.imag.sign() != x.imag.sign())


def bits(estimate, x):
    parts = (torch.view_as_real(t).sign() for t in (estimate.x, x))
    return torch.ne(*parts).double().mean((-2, -1))


def rows(**metrics):
    return ff.evaluate(DETECTOR, SYSTEM, samples=300, metrics=metrics)


def test_error_rates_of_symbols_and_bits_are_columns_with_intervals():
    (row,) = rows(ser=symbols, ber=bits)
    x, obs = SYSTEM.sample(20_000, torch.Generator().manual_seed(7))
    estimate = DETECTOR["LMMSE"](obs)
    for name, metric in (("ser", symbols), ("ber", bits)):
        truth = metric(estimate, x).double().mean().item()
        assert row[f"{name}_low"] < row[name] < row[f"{name}_high"]
        assert row[f"{name}_low"] < truth < row[f"{name}_high"]
    assert row["ber"] < row["ser"]


def test_every_form_of_an_answer_is_taken_and_they_agree():
    values = {
        "each": bits,
        "array": lambda estimate, x: bits(estimate, x).numpy(),
        "number": lambda estimate, x: bits(estimate, x).mean().item(),
        "scalar": lambda estimate, x: bits(estimate, x).mean(),
        "pair": lambda e, x: (bits(e, x).mean().item(), bits(e, x).std().item() / len(x) ** 0.5),
        "crps": lambda e, x: gaussian_crps(ff.Estimate(e.x.real, e.var / 2), x.real),
        "squares": mean_normalised_square,
    }
    (row,) = rows(**values)
    for name in ("array", "number", "scalar", "pair"):
        assert row[name] == pytest.approx(row["each"])
        for end in ("low", "high"):  # leaving groups out estimates the same error, to 1 / sqrt(2 * 19) of it
            assert abs(row[f"{name}_{end}"] - row[f"each_{end}"]) < 0.5 * (row["each_high"] - row["each"])
    assert row["squares"] == pytest.approx(1, abs=0.2)


def test_an_interval_of_counts_is_clopper_and_pearsons_and_never_a_point():
    for wrong in (0, 1, 7, 50):
        values = torch.zeros(50, dtype=torch.float64)
        values[:wrong] = 1
        exact = binomtest(wrong, 50).proportion_ci(0.95, "exact")
        assert mean_with_interval(values) == pytest.approx((wrong / 50, exact.low, exact.high))


def test_intervals_cover_the_mean():
    """400 repetitions: 95 % up to four standard errors of 1.1 %."""
    generator, covered = torch.Generator().manual_seed(0), 0
    for _ in range(400):
        _, low, high = mean_with_interval(torch.randn(100, generator=generator, dtype=torch.float64).exp())
        covered += low < np.exp(0.5) < high
    assert covered / 400 > 0.95 - 0.03 - 4 * 0.011  # the mean of 100 log-normal draws is still skew


def test_metrics_stand_in_every_row_and_in_files(tmp_path):
    problem = ff.problems.CompressedSensing(n=20, m=10)
    methods = {"ISTA": ff.iterate(ff.algorithms.ISTA(0.05), 3), "LMMSE": ff.LMMSE.of(problem)}
    worst = {"worst": lambda estimate, x: (estimate.x - x).abs().amax(-1)}
    table = ff.evaluate(methods, problem, samples=50, snr_db=[10.0, 30.0], metrics=worst)
    assert len(table) == 2 * (3 + 1)
    assert len(table.last_layers()) == 2 * 2
    assert all(row["worst_low"] < row["worst"] < row["worst_high"] for row in table)
    assert json.loads(table.to_json(tmp_path / "t.json"))[0]["worst"] == pytest.approx(table.rows[0]["worst"])
    assert "worst,worst_low,worst_high" in table.to_csv(tmp_path / "t.csv")


def test_measured_columns_of_classes_are_no_conditions():
    table = Table([{"estimator": "net", "layer": k, "nmse_db": -1.0 * k, "log_loss": 0.1 * k} for k in (1, 2)])
    assert [row["layer"] for row in table.last_layers()] == [2]


@pytest.mark.parametrize(
    ("metric", "sentence"),
    [
        (lambda x_hat, x: x_hat.sign(), "'ser' failed on LMMSE: AttributeError.* It is called with an Estimate"),
        (lambda estimate: 0.0, "'ser' failed on LMMSE: TypeError"),
        (lambda estimate, x: torch.zeros(7), r"'ser' gave \(7,\) for 300 samples"),
        (lambda estimate, x: torch.zeros(0), r"'ser' gave \(0,\) for 300 samples"),
        (lambda estimate, x: "much", "'ser' gave str for 300 samples"),
        (lambda estimate, x: None, "'ser' gave NoneType for 300 samples"),
        (lambda estimate, x: estimate.x, r"'ser' gave \(300, 3\) for 300 samples; return a real value"),
        ("ser", "the metric 'ser' is a str; pass a function"),
    ],
)
def test_what_is_no_metric_is_refused_by_name(metric, sentence):
    with pytest.raises(ValueError, match=sentence):
        rows(ser=metric)


def test_a_column_keeps_its_meaning():
    for name in ("nmse_db", "samples", "snr_db", "estimator"):
        with pytest.raises(ValueError, match=f"would take the column '{name}'"):
            ff.evaluate(DETECTOR, SYSTEM, metrics={name: bits}, snr_db=[8.0])
    with pytest.raises(ValueError, match="pass functions by name"):
        ff.evaluate(DETECTOR, SYSTEM, metrics=[bits])
    with pytest.raises(ValueError, match="would take the column 'ser_low'"):
        rows(ser=bits, ser_low=bits)


def test_nan_of_one_method_stays_in_its_row():
    estimate = ff.Estimate(torch.ones(4, 2))
    row = values_of({"gap": lambda e, x: torch.full((4,), torch.nan)}, estimate, torch.ones(4, 2), "net")
    assert np.isnan(row["gap"])
    assert json.loads(Table([row]).to_json()) == [{"gap": None, "gap_low": None, "gap_high": None}]


# Pairs of mixed SNR


def mixed(**given) -> ff.problems.Pairs:
    """Pairs of 5, 15 and 25 dB in turn."""
    problem = ff.problems.CompressedSensing(n=30, m=15, sparsity=0.5, dtype="float64")
    generator = torch.Generator().manual_seed(0)
    x, _ = problem.sample(900, generator)
    clean = problem.A @ x
    var = clean.square().mean(-1, keepdim=True) / 10 ** (torch.tensor([5.0, 15.0, 25.0]).repeat(300)[:, None] / 10)
    y = clean + var.sqrt() * torch.randn(clean.shape, generator=generator, dtype=clean.dtype)
    known = {"A": problem.A, "noise_var": var}
    return ff.problems.Pairs(x=x, y=y, held_out_share=0.5, **{name: known[name] for name in given if given[name]})


PAIRS = mixed(A=True, noise_var=True)
AMP = {"AMP": ff.iterate(ff.algorithms.AMP(), 10)}


def test_pairs_of_mixed_snr_are_sorted_by_what_was_measured():
    table = ff.evaluate(AMP, PAIRS, samples=450, layers=False, snr_db=[5.0, 15.0, 25.0])
    assert [row["snr_db"] for row in table] == [5.0, 15.0, 25.0]
    assert [row["samples"] for row in table] == [150, 150, 150]
    assert [row["measured_snr_db"] for row in table] == pytest.approx([5.0, 15.0, 25.0])
    errors = [row["nmse_db"] for row in table]
    assert errors[0] > errors[1] > errors[2]
    everything = ff.evaluate(AMP, PAIRS, samples=450, layers=False).rows[0]["nmse_db"]
    assert errors[0] > everything > errors[2]


@pytest.mark.filterwarnings("ignore:450 pairs have measured SNRs")  # a few far outside
@pytest.mark.parametrize("known", [{"A": True}, {"noise_var": True}], ids=["A", "noise"])
def test_the_snr_is_read_off_what_is_known(known):
    """Of 15 entries the power of the noise is known to 10 log10(1 ± sqrt(2 / 15)), 1.6 dB: most stay in their group."""
    half = {"half": lambda obs: ff.Estimate(torch.zeros(*obs.y.shape[:-1], 30, dtype=obs.y.dtype))}
    table = ff.evaluate(half, mixed(**known), samples=450, snr_db=[5.0, 15.0, 25.0])
    assert all(abs(row["samples"] - 150) < 40 for row in table)
    assert [row["measured_snr_db"] for row in table] == pytest.approx([5.0, 15.0, 25.0], abs=2.0)


def test_pairs_that_do_not_tell_their_snr_say_so():
    with pytest.raises(ValueError, match="do not tell their SNR; store one of them, or leave snr_db out"):
        ff.evaluate(AMP, mixed(), samples=450, snr_db=[5.0])


def test_an_empty_group_is_left_out_and_said():
    with pytest.warns(UserWarning, match=r"from 5.0 to 25.0 dB: fewer than two are nearest to 60 dB, left out"):
        table = ff.evaluate(AMP, PAIRS, samples=450, layers=False, snr_db=[5.0, 15.0, 60.0])
    assert [row["snr_db"] for row in table] == [5.0, 15.0]


def test_pairs_far_from_what_is_asked_for_are_left_out_and_counted():
    with pytest.warns(UserWarning, match=r"300 of them are more than 5 dB outside those that are asked for, left out"):
        (row,) = ff.evaluate(AMP, PAIRS, samples=450, layers=False, snr_db=[14.0])
    assert (row["samples"], row["measured_snr_db"]) == (150, pytest.approx(15.0))
    with pytest.raises(ValueError, match=r"from 5\.0 to 25.0 dB: no two of them are within 5 dB of one that is asked"):
        ff.evaluate(AMP, PAIRS, samples=450, snr_db=[40.0])
