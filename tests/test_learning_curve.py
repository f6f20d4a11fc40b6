"""Learning curves say what more simulations gain, about as it is, or that they cannot tell."""

import json

import pytest
import torch

import fanfold as ff
from fanfold.cli import main as cli
from fanfold.problems import LinearGaussian, Pairs
from fanfold.problems.draws import draw
from fanfold.training.risk_curve import LearningCurve, curve_of

COUNTS = (500, 1000, 2000, 4000)
SHORT = {"steps": 60, "batch": 64, "lr": 2e-3, "validate_every": 20, "threads": 1}
BOUNDED = ["--steps", "8", "--batch", "16", "--validate-every", "4", "--threads", "1"]


def narrow(problem):
    return ff.neural(problem, width=16)


def noisy(floor, excess, rate, error, seed):
    """Risks of a curve whose excess at the last budget is known, and their errors."""
    noise = error * torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return [floor * (1 + excess * (COUNTS[-1] / n) ** rate) + e for n, e in zip(COUNTS, noise.tolist())]


@pytest.mark.parametrize(("excess", "rate"), [(0.1, 1.0), (0.03, 0.6), (0.5, 0.5)])
def test_a_known_curve_is_within_its_interval(excess, rate):
    held, near = 0, 0
    for seed in range(20):
        curve = curve_of(COUNTS, noisy(0.3, excess, rate, 5e-4, seed), errors=[5e-4] * 4)
        held += curve.low <= excess <= curve.high
        near += excess / 2 < curve.excess < excess * 2
    assert held >= 16  # of intervals that hold 19 of 20, 16 do so but once in three hundred times
    assert near >= 18


def test_exact_risks_give_the_number_of_further_simulations():
    curve = curve_of(COUNTS, noisy(0.3, 0.04, 1.0, 0.0, 0), errors=[1e-4] * 4)
    assert curve.excess == pytest.approx(0.04, rel=0.1)
    assert curve.more == pytest.approx(3 * 4000, rel=0.2)  # a quarter of the excess at four times as many
    assert "more simulations for an excess of 1 %" in curve.sentence
    assert [row["simulations"] for row in curve.table] == [*COUNTS]
    assert LearningCurve.from_dict(json.loads(json.dumps(curve.as_dict()))) == curve


def test_flat_and_noisy_curves_say_so():
    flat = curve_of(COUNTS, [0.3] * 4, errors=[1e-5] * 4)
    assert flat.high < 0.01
    assert "more of them gain less than 1 %" in flat.sentence
    vague = curve_of(COUNTS, noisy(0.3, 0.2, 0.5, 0.02, 1), errors=[0.02] * 4)
    assert "does not tell" in vague.sentence
    with pytest.raises(ValueError, match="no learning curve"):
        LearningCurve.from_dict({"counts": [1, 2]})


def test_the_excess_of_a_trained_network_is_about_what_the_exact_posterior_says():
    problem, trained, learned = LinearGaussian(n=4, m=4, snr_db=5.0), [], []

    def kept(on):
        learned.append(narrow(on))
        return learned[-1]

    curve = ff.learning_curve(kept, problem, simulations=800, repeats=2, on_event=trained.append, **SHORT)
    assert [event.count for event in trained] == [100, 100, 200, 200, 400, 400, 800]
    assert trained[-1].total == 7
    x, obs = draw(problem, 4000, 0, 2, 1)
    exact = problem.posterior(obs)
    with torch.no_grad():
        away = ((learned[-1](obs).x - exact.x).square() / x.var(0)).mean()
    excess = (away / (exact.var / x.var(0)).mean()).item()
    assert curve.low <= excess <= curve.high
    assert curve.risks[-1] < curve.risks[0] + 2 * curve.errors[0]


def test_stored_pairs_are_split_and_judged_by_their_test_part():
    problem = LinearGaussian(n=2, m=3)
    x, obs = draw(problem, 500, 0, 2, 0)
    stored = Pairs(x=x, y=obs.y, noise_var=problem.noise_var)
    seen = []
    curve = ff.learning_curve(narrow, stored, [50, 100, 400], repeats=1, on_event=seen.append, **SHORT | {"steps": 4})
    assert curve.counts == (50, 100, 400)
    assert [event.done for event in seen] == [1, 2, 3]
    again = ff.learning_curve(narrow, stored, [50, 100, 400], repeats=1, **SHORT | {"steps": 4})
    assert again == curve


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="pass simulations="):
        ff.learning_curve(narrow, LinearGaussian())
    with pytest.raises(ValueError, match="at least three"):
        ff.learning_curve(narrow, LinearGaussian(), [50, 100])
    with pytest.raises(ValueError, match="from 20"):
        ff.learning_curve(narrow, LinearGaussian(), simulations=100)


def test_the_shell_makes_a_curve_and_the_page_shows_it(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["linear-gaussian", "--n", "2", "--m", "3", "neural", "--width", "8"]
    assert cli.run(["train", *words, *BOUNDED, "--simulations", "200", "--run-dir", "few"]) == 0
    assert cli.run(["train", *words, *BOUNDED, "--run-dir", "fresh"]) == 0
    capsys.readouterr()
    assert cli.run(["evaluate", "few", "--learning-curve", "--samples", "50", "--json"]) == 0
    said = capsys.readouterr()
    data = json.loads(said.out)
    assert data["learning_curve"]["counts"] == [25, 50, 100, 200]
    assert len(data["rows"]) >= 2
    assert "11 of 11 trainings, 200 simulations" in said.err
    assert data["learning_curve"]["sentence"] in said.err.replace("\n", " ")
    assert cli.run(["report", "few", "--samples", "50"]) == 0
    assert "What more simulations would gain" in (tmp_path / "few/report.html").read_text()
    assert cli.run(["evaluate", "fresh", "--learning-curve"]) == 2
    assert "was trained on fresh draws" in capsys.readouterr().err
