"""Names, units and limits of unknowns: read with pairs, kept in runs, and held to by estimates and intervals."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.cli.apply import apply_to_file
from fanfold.core.csv_files import read_csv, write_csv
from fanfold.core.table import Table
from fanfold.evaluation.by_unknown import errors_by_unknown, remarks_on_unknowns
from fanfold.evaluation.few import remarks_on_few, share_of_few
from fanfold.guard import Conformal
from fanfold.problems.protocols import limits_of, unknowns_of
from fanfold.runs.directory import Run

RNG = np.random.default_rng(0)
COUNT = 120
X = np.stack([RNG.uniform(80, 120, COUNT), 10 ** RNG.uniform(-4, -1, COUNT), RNG.random(COUNT)], 1)
Y = np.concatenate([X[:, :1] / 50 + X[:, 2:], np.log(X[:, 1:2]), X], 1) + 0.5 * RNG.standard_normal((COUNT, 5))
SAID = {"names": ["carrier", "decay", "duty"], "units": ["Hz", "s", ""]}
LIMITS = {"low": [-np.inf, 0.0, 0.0], "high": [np.inf, np.inf, 1.0]}
WRONG = {
    "too few names": ({"names": ["a", "b"]}, "names has 2 entries and x has 3 unknowns; pass one for each"),
    "one text": ({"names": "abc"}, "names is 'abc'; pass a list of 3 texts"),
    "a number": ({"names": ["a", "b", "7"]}, "names has '7'; give each unknown a name that is no number"),
    "twice": ({"names": ["a", "b", "a"]}, "names has 'a' 2 times"),
    "no text": ({"names": ["a", "b", 3]}, "names has 3; pass printable text"),
    "two lines": ({"names": ["a", "b", "c\nd"]}, "pass printable text"),
    "units alone": ({"units": ["s", "s", "s"]}, "there are units and no names"),
    "too many units": ({"names": ["a", "b", "c"], "units": ["s"] * 4}, "units has 4 entries"),
    "too few limits": ({"low": [0.0, 0.0]}, r"low has shape \(2,\) and x has 3 unknowns"),
    "nan": ({"high": [np.nan, 1e3, 1e3]}, "high is nan at index 0"),
    "swapped": ({"low": [0.0, 0, 1], "high": [1e3, 1, 0]}, r"low\[2\] is 1 and high\[2\] 0"),
    "words": ({"low": ["a", "b", "c"]}, "low has an entry that is no number; pass 3, infinite for no limit"),
    "complex": ({"low": np.zeros(3) + 1j}, "low is torch.complex128; pass real numbers"),
    "beyond": ({"high": [100.0, 1, 1]}, r"x is 1\d\d\.?\d* at index \(\d+, 0\) and its limits are -inf and 100"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_refused(name):
    said, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence):
        ff.problems.Pairs(x=X, y=Y, **said)


def test_complex_unknowns_have_no_limits_and_a_file_keeps_its_own(tmp_path):
    with pytest.raises(ValueError, match="low and high are of real unknowns"):
        ff.problems.Pairs(x=X + 1j, y=Y, low=[0.0] * 3)
    np.savez(tmp_path / "pairs.npz", x=X, y=Y)
    with pytest.raises(ValueError, match="names and limits of a file stand in it"):
        ff.problems.Pairs(str(tmp_path / "pairs.npz"), **SAID)
    np.savez(tmp_path / "pairs.npz", x=X, y=Y, names=[1, 2, 3])
    with pytest.raises(ValueError, match="store names as a list of texts"):
        ff.problems.Pairs(str(tmp_path / "pairs.npz"))


def written(folder, kind: str) -> str:
    """The pairs in a file or a folder of this kind, with names and units and, where it has room for them, limits."""
    titles = ["carrier [Hz]", "decay [s]", "duty"]
    if kind == "npz":
        np.savez(folder / "pairs.npz", x=X, y=Y, **SAID, **LIMITS)
        return str(folder / "pairs.npz")
    if kind == "csv":
        head = ",".join(f"x {title}" for title in titles) + "," + ",".join(f"y{i}" for i in range(5))
        np.savetxt(folder / "pairs.csv", np.concatenate([X, Y], 1), delimiter=",", header=head, comments="")
        return str(folder / "pairs.csv")
    np.savetxt(folder / "x.csv", X, delimiter=",", header=",".join(titles), comments="")
    np.savetxt(folder / "y.csv", Y, delimiter=",")
    for end, values in LIMITS.items():
        np.savetxt(folder / f"{end}.csv", [values], delimiter=",")
    return str(folder)


@pytest.mark.parametrize("kind", ["npz", "csv", "folder"])
def test_they_are_read_with_the_pairs(kind, tmp_path):
    said = unknowns_of(ff.problems.Pairs(written(tmp_path, kind)))
    assert said.titles == ("carrier [Hz]", "decay [s]", "duty")
    assert said.units == ("Hz", "s", "")
    wanted = () if kind == "csv" else ((-np.inf, np.inf), (0.0, np.inf), (0.0, 1.0))
    assert said.limits == wanted


COLUMNS = {
    "x1 x2": (),
    "x_0 x_1": (),
    "x[0] x[1]": (),
    "x x.1": (),
    "x x": (),
    "x_i x_q": ("x_i", "x_q"),  # i is a number
    "x_re x_im": ("re", "im"),
    "x_rate[1/s] x_h[0]": ("rate [1/s]", "h[0]"),
}


@pytest.mark.parametrize("columns", COLUMNS)
def test_columns_that_are_counted_name_nothing(columns, tmp_path):
    head = ",".join([*columns.split(), "y1", "y2"])
    np.savetxt(tmp_path / "pairs.csv", np.eye(4), delimiter=",", header=head, comments="")
    pairs = ff.problems.Pairs(str(tmp_path / "pairs.csv"))
    assert unknowns_of(pairs).titles == COLUMNS[columns]
    assert pairs.every()[0].shape == (3, 2)


def test_names_with_delimiters_are_read_again(tmp_path):
    names = ("delay; s", "a,b", 'so "called"')
    with (tmp_path / "x.csv").open("wb") as file:
        write_csv(file, np.eye(3), names)
    assert read_csv(tmp_path / "x.csv").names == names
    assert np.array_equal(read_csv(tmp_path / "x.csv").values, np.eye(3))


def test_a_value_on_its_limit_lies_within_in_any_precision():
    for dtype in (np.float32, np.float64):
        x, y = np.full((10, 1), 0.3, dtype), np.ones((10, 2), dtype)
        for ends in ({"low": [0.3]}, {"high": [0.3]}, {"low": np.array([0.3])}, {"high": np.array([0.3])}):
            ((low, high),) = unknowns_of(ff.problems.Pairs(x=x, y=y, **ends)).limits
            assert 0.3 in (low, high)


def test_plain_pairs_say_nothing_and_are_what_they_were():
    plain, named = ff.problems.Pairs(x=X, y=Y), ff.problems.Pairs(x=X, y=Y, **SAID)
    assert unknowns_of(plain) == ((), (), ())
    assert limits_of(plain, torch.from_numpy(X)) == ((-np.inf, np.inf),) * 3
    assert plain.fingerprint == named.fingerprint != ff.problems.Pairs(x=X, y=Y, **LIMITS).fingerprint


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("named")
    problem = ff.problems.Pairs(written(folder, "npz"))
    net = ff.neural(problem, width=8)
    ff.fit(net, problem, steps=12, batch=32, validate_every=6, run_dir=folder / "run")
    np.save(folder / "y.npy", 3 * Y)  # far from the training, where a linear part leaves any limit
    return Run.open(folder / "run")


def test_neither_estimates_nor_intervals_of_a_run_leave_the_limits(run):
    folder = run.path.parent
    files = apply_to_file(run, folder / "y.npy", folder / "x.csv", coverage=0.9, alarm=0)
    low, high = (torch.tensor(LIMITS[end], dtype=torch.float64) for end in ("low", "high"))
    for what in ("x", "x_low", "x_high"):
        values = files[folder / f"{what}.csv"]
        assert ((values >= low) & (values <= high)).all()
        assert values.dtype == torch.float64
    free = files[folder / "x_high.csv"][:, 0] - files[folder / "x_low.csv"][:, 0]
    assert (free > 0).all()
    assert read_csv(folder / "x.csv").names == ("carrier [Hz]", "decay [s]", "duty")
    assert read_csv(folder / "x_var.csv").names == ("carrier [Hz^2]", "decay [s^2]", "duty")
    assert np.array_equal(read_csv(folder / "x.csv").values, files[folder / "x.csv"].numpy())


def test_a_run_knows_them_without_its_data(run):
    (run.path.parent / "pairs.npz").rename(run.path.parent / "gone.npz")
    try:
        for kept in (run.outline(), run.draws()):
            assert unknowns_of(kept).titles == ("carrier [Hz]", "decay [s]", "duty")
            assert unknowns_of(kept).limits[2] == (0.0, 1.0)
    finally:
        (run.path.parent / "gone.npz").rename(run.path.parent / "pairs.npz")


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_intervals_of_a_run_leave_with_it_and_stay_within_the_limits(run, monkeypatch):
    """In double precision, as its pairs are; C has single."""
    monkeypatch.chdir(run.path.parent)
    assert cli.run(["export", str(run.path), "--to", "c", "--coverage", "0.8", "--out", "c"]) == 0
    header = Path("c/estimator.h").read_text()
    assert "out low: 3" in header
    build = ["cc", "-O1", "-DESTIMATOR_SELF_TEST", "c/estimator.c", "-o", "check", "-lm"]
    assert subprocess.run(build, check=False).returncode == 0
    assert subprocess.run(["./check"], check=False).returncode == 0  # the golden vectors
    net, (x, obs) = run.estimator(), run.draws().held_out().every()
    intervals = Conformal.from_dict(net, run.kept("intervals-each-0.8"))
    wild = ff.Observation(3 * obs.y)  # where the limits cut
    said, wanted = ff.deploy.WithIntervals(intervals), intervals(wild)
    low, high = said.ends(said(wild))
    assert torch.allclose(low, wanted.low, rtol=1e-9, atol=1e-12)
    assert torch.allclose(high, wanted.high, rtol=1e-9, atol=1e-12)
    assert (low[:, 1] == 0).any()
    with pytest.raises(ValueError, match="have no program"):
        ff.deploy.WithIntervals(ff.guard.conformal(net, (x, obs), 0.5, "energy"))
    with pytest.raises(ValueError, match="remembers its calls, says no intervals"):
        ff.deploy.WithIntervals(replace(intervals, estimator=Recalling()))


class Recalling(torch.nn.Module):
    """What a call says depends on those before."""

    remembered: dict = {}
    chance = step = torch.nn.Module.forward


# Errors


def test_each_unknown_has_its_error_in_its_unit():
    problem = ff.problems.Pairs(x=X, y=Y, **SAID)
    mean, half = torch.from_numpy(X).mean(0), torch.tensor([4.0, 0.0, 0.5], dtype=torch.float64)
    x_test, _ = problem.held_out().every()

    def constant(obs):
        return ff.Estimate(mean.expand(len(obs.y), -1))

    def shifted(obs):
        return ff.Estimate(mean + half.expand(len(obs.y), -1))

    rows = errors_by_unknown({"mean": constant, "shifted": shifted}, problem).rows
    assert [(row["unknown"], row["unit"], row["estimator"]) for row in rows[:3]] == [
        ("carrier", "Hz", "mean"),
        ("carrier", "Hz", "shifted"),
        ("decay", "s", "mean"),
    ]
    for place, row in enumerate(rows[::2]):
        error = x_test[:, place] - mean[place]
        assert row["rms_error"] == pytest.approx(error.square().mean().sqrt().item())
        assert row["median_error"] == pytest.approx(error.abs().median().item())
        share = (error.square().mean() / x_test[:, place].var()).item()
        assert row["error_db"] == pytest.approx(10 * np.log10(share), abs=1e-6)
    assert rows[3]["rms_error"] == rows[2]["rms_error"]
    (sentence,) = remarks_on_unknowns(Table(rows))
    assert re.search(r"carrier \(\d+ %\), decay \(\d+ %\), duty", sentence)
    assert remarks_on_unknowns(Table([row | {"error_db": -2.5} for row in rows])) == []
    assert rows[5]["rms_error"] > rows[4]["rms_error"]


def test_an_error_in_a_tiny_unit_is_no_zero():
    """In single precision its square is none."""
    x = 1e-25 * torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    x, y = x - x.mean(0), np.ones((60, 3), np.float32)
    problem = ff.problems.Pairs(x=x.numpy(), y=y)
    table = errors_by_unknown({"zero": lambda obs: ff.Estimate(torch.zeros(len(obs.y), 2))}, problem)
    # of 12 samples: their mean is within three of its standard deviations of zero
    assert all(10 * np.log10(11 / 12) - 1e-6 < row["error_db"] < 10 * np.log10(11 / 12 + 9 / 12) for row in table)
    wrong = errors_by_unknown({"nan": lambda obs: ff.Estimate(torch.full((len(obs.y), 2), torch.nan))}, problem)
    assert remarks_on_unknowns(wrong)


def test_entries_of_a_signal_have_none():
    problem = ff.problems.CompressedSensing(n=12, m=8)
    assert not errors_by_unknown({"ista": ff.iterate(ff.algorithms.ISTA(), 2)}, problem, samples=10).rows
    assert not errors_by_unknown({"none": lambda obs: None}, ff.problems.Modulation(), samples=10).rows


def test_few_samples_that_decide_are_said_with_the_median():
    assert share_of_few(torch.ones(1000)) == pytest.approx(0.01)
    assert share_of_few(torch.zeros(20)) == 0
    assert share_of_few(torch.tensor([1.0, torch.inf])) == 1
    assert share_of_few(torch.tensor([1e-300] * 30 + [1e-298], dtype=torch.float64)) == pytest.approx(100 / 130)
    x = np.ones((500, 3))
    problem = ff.problems.Pairs(x=x, y=x)

    def rare(obs):
        wild = torch.ones(len(obs.y), 3, dtype=torch.float64)
        wild[:1] = 30.0
        return ff.Estimate(wild + 0.1)

    def usual(obs):
        return ff.Estimate(obs.y + 0.1)

    table = ff.evaluate({"rare": rare, "usual": usual}, problem)
    (sentence,) = remarks_on_few(table)
    assert "squared error of rare (100 %;" in sentence
    assert "median -20.0 dB" in sentence
    assert "the worst 1 % have more" in sentence
    assert "usual (" not in sentence
    assert remarks_on_few(table.where(estimator="usual")) == []


# Own matrices, in their own unit and with their own noise


def test_noise_of_each_sample_comes_from_a_file_and_a_prior_of_another_unit_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    A = rng.standard_normal((12, 16))
    x = 1e-5 * rng.standard_normal((80, 16)) * (rng.random((80, 16)) < 0.2)
    noise_var = 10.0 ** rng.uniform(-14, -11, (80, 1))
    y = x @ A.T + noise_var**0.5 * rng.standard_normal((80, 12))
    np.savez("pairs.npz", x=x, y=y, A=A, noise_var=noise_var)
    np.save("y.npy", y)
    np.savetxt("noise.csv", noise_var)
    words = ["train", "pairs", "oamp", "--path", "pairs.npz", "--layers", "2", "--steps", "1", "--run-dir", "run"]
    assert cli.run([*words, "--prior.var", "1e-10"]) == 0
    assert "begin from a variance" not in capsys.readouterr().err
    assert cli.run([*words[:-1], "other", "--prior.var", "1"]) == 0
    assert "in these pairs it is" in capsys.readouterr().err
    known = ["apply", "run", "y.npy", "--alarm", "0", "--coverage", "0.5"]
    assert cli.run([*known, "--noise-var", "noise.csv"]) == 0
    net = ff.load("run")
    obs = ff.Observation(torch.from_numpy(y), net.operator, torch.from_numpy(noise_var))
    assert np.array_equal(np.load("x_hat.npy"), net(obs).x.detach().numpy())
    assert cli.run([*known, "--out", "unknown.npy"]) == 0
    assert not np.array_equal(np.load("unknown.npy"), np.load("x_hat.npy"))
    # intervals are calibrated with the noise known, or unknown, as it is of the measurements
    blind = ff.guard.conformal(net, draws_without_noise(Run.open("run")), 0.5)(ff.Observation(obs.y, obs.A))
    assert np.allclose(np.load("unknown_low.npy"), blind.low.numpy(), rtol=1e-9)
    np.save("single.npy", y[0])
    np.save("its.npy", noise_var[0])
    assert cli.run(["apply", "run", "single.npy", "--alarm", "0", "--out", "one.npy", "--noise-var", "its.npy"]) == 0
    alone = net(ff.Observation(obs.y[0], net.operator, obs.noise_var[0])).x
    assert np.array_equal(np.load("one.npy"), alone.detach().numpy())
    np.save("few.npy", noise_var[:3])
    assert cli.run([*known, "--overwrite", "--noise-var", "few.npy"]) == 2
    assert "(3, 1) noise variances and there are 80 samples" in capsys.readouterr().err


def draws_without_noise(run: Run) -> tuple[torch.Tensor, ff.Observation]:
    x, obs = run.draws().held_out().every()
    return x, ff.Observation(obs.y, obs.A)


def test_a_run_is_judged_on_pairs_that_nothing_saw(run, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    np.savez("fresh.npz", x=X[:50], y=Y[:50])
    path = str(run.path)
    assert cli.run(["evaluate", path, "--data", "fresh.npz", "--coverage", "0.8", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {row["samples"] for row in said["rows"]} == {50}
    held = [row["held"] for row in said["unknowns"] if row["estimator"] == "network"]
    assert [row["unknown"] for row in said["unknowns"][::2]] == ["carrier", "decay", "duty"]
    assert said["coverage"] == pytest.approx(sum(held) / 3)
    assert any("Intervals of 80 % hold" in remark for remark in said["remarks"])
    assert cli.run(["evaluate", path, "--json"]) == 0
    assert "the 24 pairs that were kept aside: training saw none of them" in capsys.readouterr().out
    for said in ({"names": ["duty", "decay", "carrier"]}, SAID | {"units": ["kHz", "s", ""]}):
        np.savez("other.npz", x=X[:50], y=Y[:50], **said)
        assert cli.run(["evaluate", path, "--data", "other.npz"]) == 2
        assert "the run estimates carrier [Hz], decay [s], duty; store" in capsys.readouterr().err
    np.savez("fresh.npz", x=X[:50, :2], y=Y[:50])
    for words, sentence in (
        (["--data", "fresh.npz"], "pass pairs of this problem"),
        (["--data", "fresh.npz", "--shifts"], "leave out --data"),
        (["--coverage", "0.8"], "add --data FILE"),
    ):
        assert cli.run(["evaluate", path, *words]) == 2
        assert sentence in capsys.readouterr().err
