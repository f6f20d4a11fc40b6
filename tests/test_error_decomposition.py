"""Mean squared error is bias² and variance; who is below the Cramér-Rao bound is biased, and is told so."""

import pytest
import torch

from fanfold.bounds import error_decomposition, van_trees
from fanfold.core.noise import circular
from fanfold.observation import Estimate, Observation
from fanfold.problems import DirectionOfArrival, LinearGaussian, Tone

PROBLEM = LinearGaussian(n=2, m=3, snr_db=0)
AT = torch.tensor([[0.0, 1.0], [0.5, 2.0]])


def least_squares(obs: Observation) -> Estimate:
    return Estimate(torch.linalg.lstsq(PROBLEM.operator.matrix(), obs.y.mT).solution.mT)


def shrunk(obs: Observation) -> Estimate:
    return Estimate(0.5 * least_squares(obs).x)


def oracle(obs: Observation) -> Estimate:
    """Unbiased, and better informed than by y: no estimator."""
    x = AT[:1].expand(len(obs.y), -1)
    return Estimate(x + 0.1 * (least_squares(obs).x - x))


def covered(rows, column: str, expected: list[float]) -> bool:
    """Within two half-widths of a 95 % interval, 3.9 standard errors."""
    return all(abs(row[column] - value) <= 2 * row[f"{column} ±"] for row, value in zip(rows, expected, strict=True))


def test_bias_and_variance_of_a_shrunk_estimate_are_those_of_theory():
    result = error_decomposition(shrunk, PROBLEM, at=AT, repeats=4000)
    A = PROBLEM.operator.matrix().double()
    var = (0.25 * torch.linalg.inv(A.mT @ A)).diagonal().tolist()
    bias = (-0.5 * AT).flatten().tolist()
    rows = list(result.table)
    assert covered(rows, "bias", bias)
    assert covered(rows, "bias²", [b**2 for b in bias])
    assert covered(rows, "variance", 2 * var)
    assert covered(rows, "mse", [b**2 + v for b, v in zip(bias, 2 * var, strict=True)])
    # of unknown bias: means of squares differ by bias² / repeats from sums of the parts
    assert all(row["mse"] == pytest.approx(row["bias²"] + row["variance"], rel=1e-3) for row in rows)
    assert [row["crb"] for row in rows] == pytest.approx([4 * v for v in 2 * var], rel=1e-6)
    # (1 + b')² CRB + b² with b' = -1/2; the bias of 4000 draws errs by 0.8 % of the variance's root
    for row, v, b in zip(rows, 2 * var, bias, strict=True):
        assert row["biased_crb"] is None or row["biased_crb"] == pytest.approx(v + b**2, rel=0.15)


def test_who_is_below_the_cramer_rao_bound_is_told_why():
    result = error_decomposition(shrunk, PROBLEM, at=AT)
    assert "Below the CRB because it is biased" in result.verdict
    assert "the bound that holds for it" in result.verdict
    assert "No bias explains it" not in result.verdict
    assert result.verdict in str(result)


def test_unbiased_estimators_are_not_below_the_cramer_rao_bound():
    result = error_decomposition(least_squares, PROBLEM, at=AT)
    assert "Nowhere is the error below" in result.verdict
    assert all(row["biased_crb"] is None for row in result.table)


def test_an_estimator_that_knows_too_much_is_found_out():
    result = error_decomposition(oracle, PROBLEM, at=AT[:1])
    assert "No bias explains it" not in error_decomposition(PROBLEM.posterior, PROBLEM, at=AT[:1]).verdict

    def told(obs):  # follows the truth, from the noise that it should not know
        generator = torch.Generator().manual_seed(1)
        noise = circular((len(obs.y), 3), generator, torch.float64, PROBLEM.noise_var).to(obs.y.dtype)
        return least_squares(Observation(obs.y - 0.9 * noise))

    assert "No bias explains it" in error_decomposition(told, PROBLEM, at=AT[:1]).verdict
    assert "because it is biased" not in error_decomposition(told, PROBLEM, at=AT[:1]).verdict
    assert "because it is biased" in result.verdict  # that it answers the same everywhere is a bias


def test_over_the_prior_the_bayesian_bound_holds_for_biased_estimators():
    bound = van_trees(PROBLEM).mse
    best = error_decomposition(PROBLEM.posterior, PROBLEM, bayesian=bound, repeats=100)
    assert "which no estimator can be" not in best.verdict
    assert "Bayesian bound" in best.verdict
    assert (
        "which no estimator can be"
        in error_decomposition(PROBLEM.posterior, PROBLEM, bayesian=10 * bound, repeats=100).verdict
    )


@pytest.mark.parametrize(
    "problem", [DirectionOfArrival(sensors=5, snr_db=5), Tone(n=10, snr_db=15)], ids=["doa", "tone"]
)
def test_above_threshold_the_posterior_mean_is_near_the_bound_of_its_model(problem):
    result = error_decomposition(problem.posterior, problem, repeats=300)
    ratio = result.mse.item() / (sum(row["crb"] for row in result.table) / len(result.table))
    assert 0.8 < ratio < 1.3  # 3000 draws: 2.6 % a standard error; the bound holds at high SNR


def test_a_callable_that_measures_needs_points_and_has_no_cramer_rao_bound():
    def measure(x, generator):
        return Observation((x + torch.randn(x.shape, generator=generator).to(x)).clamp(-1, 1))

    result = error_decomposition(lambda obs: Estimate(obs.y), measure, at=torch.tensor([[0.0], [3.0]]))
    assert "No Cramér-Rao bound is known" in result.verdict
    assert list(result.table)[1]["bias"] == pytest.approx(-2, abs=0.1)  # clipped, and rarely below 1
    with pytest.raises(ValueError, match="pass at="):
        error_decomposition(lambda obs: Estimate(obs.y), measure)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match="at least 20"):
        error_decomposition(least_squares, PROBLEM, repeats=5)
    with pytest.raises(ValueError, match="averaged over the prior"):
        error_decomposition(least_squares, PROBLEM, at=AT, bayesian=1.0)
