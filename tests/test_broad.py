"""Several conditions: draws of each by its importance, and a loss that is the mean over them."""

import pytest
import torch

import fanfold as ff
from fanfold.core.machine import World
from fanfold.core.units import nmse_db, power
from fanfold.experiments.guard import broad_training
from fanfold.training.objective import LossTerms, Objective

SENSING = ff.problems.CompressedSensing(n=30, m=20, snr_db=20.0)
TABLE = {"snr_db": (5.0, 20.0, 35.0), "gain": (1.0, 1.0, 4.0)}
BROAD = ff.problems.Broad(SENSING, TABLE, importance=(1.0, 2.0, 1.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def untrained():
    return ff.unfold(ff.algorithms.ISTA(0.05), SENSING, 3, {"step": "per-layer", "threshold": "per-layer"})


@pytest.mark.parametrize("n", [1, 2, 7, 100, 1000])
def test_each_condition_has_its_share_of_every_call(n):
    """To half a draw at each end of its share."""
    counts = BROAD.condition_of(n).bincount(minlength=3)
    assert counts.sum() == n
    assert ((counts - n * BROAD.weights).abs() <= 1).all()
    assert torch.equal(BROAD.condition_of(n), BROAD.condition_of(n))


def test_conditions_are_mixed_over_a_call():
    """A fifth of a thousand draws has its shares to four deviations of a draw without replacement."""
    first = BROAD.condition_of(1000)[:200].bincount(minlength=3) / 200
    assert ((first - BROAD.weights).abs() < 4 * (BROAD.weights * (1 - BROAD.weights) / 200).sqrt()).all()


def test_a_draw_has_the_law_of_its_condition():
    x, obs = BROAD.sample(8000, generator())
    for k, numbers in enumerate(zip(*TABLE.values())):
        rows = BROAD.condition_of(8000) == k
        snr_db, gain = numbers
        noise_var = SENSING.shifted(snr_db=snr_db).noise_var
        assert (obs.noise_var[rows] == torch.tensor(noise_var)).all()
        spread = 4 * (3 / SENSING.sparsity / (30 * int(rows.sum()))) ** 0.5  # kurtosis 3 / p of an entry
        assert power(x[rows]).mean().item() == pytest.approx(gain**2 * SENSING.sparsity, rel=spread)
        noise = obs.y[rows] - SENSING.A @ x[rows]
        assert power(noise).mean().item() == pytest.approx(noise_var, rel=4 * (2 / noise.numel()) ** 0.5)
        only = BROAD.condition(k)
        assert only.count == 1
        spread = 4 * (3 / SENSING.sparsity / (30 * 500)) ** 0.5
        alone = power(only.sample(500, generator(1))[0]).mean().item()
        assert alone == pytest.approx(gain**2 * SENSING.sparsity, rel=spread)


def test_the_loss_is_the_mean_over_conditions_by_their_importance():
    net, (x, obs) = untrained(), BROAD.sample(64, generator(2))
    objective = Objective(net, ff.Training(nmse_over="condition"), World(), BROAD)
    loss = objective.loss(LossTerms(net)(obs, 3), x)
    numbers, x_hat = BROAD.condition_of(64), net(obs).x
    each = [nmse_db(x_hat[numbers == k], x[numbers == k]) for k in range(3)]
    assert 10 * loss.item() == pytest.approx((each[0] + 2 * each[1] + each[2]) / 4, abs=1e-4)
    assert objective.held_out(obs, x, 3)[0] == pytest.approx(10 * loss.item(), abs=1e-4)


def test_training_over_conditions_serves_those_of_little_error_too():
    """Over the batch the loudest condition alone decides; over conditions the quiet ones gain."""
    net = {
        over: ff.fit(untrained(), BROAD, steps=60, batch=60, lr=1e-2, nmse_over=over, seed=1, threads=1)
        for over in ("batch", "condition")
    }
    x, obs = BROAD.condition(1).sample(2000, generator(3))
    with torch.no_grad():
        errors = {over: nmse_db(one(obs).x, x) for over, one in net.items()}
    assert errors["condition"] < errors["batch"] - 0.3


def test_a_training_over_conditions_is_kept_and_goes_on(tmp_path):
    how = {"batch": 16, "nmse_over": "condition", "validate_every": 2, "validation_samples": 20, "threads": 1}
    net = ff.fit(untrained(), BROAD, steps=4, run_dir=tmp_path / "run", **how)
    again = ff.load(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters()))
    from fanfold.runs.directory import Run

    assert Run.open(tmp_path / "run").problem() == BROAD


def test_what_conditions_share_is_shifted():
    denser = BROAD.shifted(sparsity=0.3)
    assert (denser.problem.sparsity, denser.conditions) == (0.3, BROAD.conditions)
    assert BROAD.shifted(conditions={"snr_db": (3.0,)}, importance=()).count == 1


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: ff.problems.Broad(SENSING, {}), "no fields"),
        (lambda: ff.problems.Broad(SENSING, {"snr_db": (1.0, 2.0), "gain": (1.0,)}), "2 of snr_db, 1 of gain"),
        (lambda: ff.problems.Broad(SENSING, {"snr_db": (1.0,)}, (1.0, 2.0)), "importance"),
        (lambda: ff.problems.Broad(SENSING, {"gain": (-1.0,)}), "gain is"),
        (lambda: ff.problems.Broad(SENSING, {"m": (10.0,)}), "changes the operator A"),
        (lambda: ff.problems.Broad(SENSING, {"snr": (10.0,)}), "has no 'snr'"),
        (lambda: BROAD.shifted(snr_db=10.0), "each condition has its own snr_db"),
        (lambda: ff.fit(untrained(), SENSING, steps=1, nmse_over="condition"), "problem of several conditions"),
        (lambda: ff.fit(untrained(), BROAD, steps=1, nmse_over="condition", simulations=40), "fresh draws"),
    ],
)
def test_what_is_no_table_of_conditions_is_refused(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_the_study_counts_its_worst_condition():
    assert "own prior 0.40 dB" in broad_training.about({"own prior": 0.4})
    assert len({len(values) for values in broad_training.CONDITIONS.values()}) == 1
