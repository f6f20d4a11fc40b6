"""The classical peers are as strong as they are known to be: a network that beats weak ones has shown nothing."""

import pytest
import torch

import fanfold as ff
from fanfold.core.units import nmse_db, power
from fanfold.estimators.sparse import MCP, OMP, DebiasedLasso, Lasso
from fanfold.evaluation.peers import classical_peers, library_peers
from fanfold.linops import Dense
from fanfold.observation import Estimator, Observation
from laws import observed

ON = ff.problems.CompressedSensing(n=200, m=100, sparsity=0.05, snr_db=40)


def test_lasso_of_the_library_is_the_fixed_point_of_ista():
    _, obs = observed("float64")
    x = ff.iterate(ff.algorithms.ISTA(0.1), 20_000)(obs).x
    torch.testing.assert_close(Lasso(0.1)(obs).x, x, rtol=0, atol=1e-2 * x.abs().max().item())  # it stops at 1e-4


def test_pursuit_stops_when_the_residual_is_noise():
    _, obs = ON.sample(40, torch.Generator().manual_seed(0))
    residual = obs.y - obs.A @ OMP()(obs).x
    assert (residual.square().sum(-1) <= 1.001 * ON.m * ON.noise_var).all()
    none = ff.Observation(torch.zeros(1, ON.m), obs.A, obs.noise_var)
    assert (OMP()(none).x == 0).all()


def test_least_squares_on_the_support_leaves_no_correlation_there():
    _, obs = ON.sample(10, torch.Generator().manual_seed(0))
    lasso, refit = Lasso(0.05)(obs).x, DebiasedLasso(0.05)(obs).x
    slope = obs.A.H @ (obs.y - obs.A @ refit)
    assert ((lasso != 0) == (refit != 0)).all()
    assert slope[refit != 0].abs().max() < 1e-4
    assert slope[lasso != 0].abs().max() < 0.05 * 1e-2  # where the lasso leaves its weight


@pytest.fixture(scope="module")
def peers() -> dict[str, Estimator]:
    """MCP compiles itself for many seconds in every process."""
    return classical_peers(ON, 16)


def test_strong_peers_come_near_the_limit_and_the_lasso_does_not(peers):
    """Known gaps to the oracle at n = 500: 0.4 to 2.1 dB for the strong, 8.7 dB for the lasso; a coarse grid adds."""
    table = ff.evaluate(peers, ON, samples=60, layers=False)
    gap = {row["estimator"]: row["nmse_db"] - row["oracle_db"] for row in table}
    for strong in ("OAMP, true prior", "MCP, best λ", "OMP, residual stop", "Lasso, debiased, best λ"):
        assert -0.5 < gap[strong] < 3, (strong, gap)
    assert gap["Lasso, best λ"] > 4


def test_mse_never_beats_the_bayes_bound(peers):
    """Even the best classical runs at their own depth stay above the limit, up to three standard errors."""
    for row in ff.evaluate(peers, ON, samples=300, layers=False, snr_db=[20.0, 40.0]):
        assert row["high_db"] > row["limit_db"]
        assert row["nmse_db"] > row["oracle_db"]


def test_slow_peers_get_fewer_draws_and_the_table_says_so():
    table = ff.evaluate({"MCP": MCP(0.05), "OAMP": ff.iterate(ff.algorithms.OAMP(), 4)}, ON, samples=250, layers=False)
    assert {row["estimator"]: row["samples"] for row in table} == {"MCP": 200, "OAMP": 250}


def test_complex_signals_have_no_library_peers():
    assert library_peers(ON.shifted(dtype="complex64")) == {}
    _, obs = observed("complex64")
    with pytest.raises(ValueError, match="real"):
        Lasso()(obs)


def test_pursuit_of_complex_signals():
    """Exact without noise where the support is small; with noise it stops at the noise; rank-deficient A ends it."""
    on = ff.problems.CompressedSensing(n=60, m=40, sparsity=0.05, snr_db=40, dtype="complex128", seed=0)
    x, obs = on.sample(20, torch.Generator().manual_seed(0))
    quiet = Observation(obs.A @ x, obs.A, torch.zeros(()))
    assert nmse_db(OMP()(quiet).x, x) < -200
    residual = power(obs.y - obs.A @ OMP()(obs).x).sum(-1)
    assert (residual <= 40 * obs.noise_var).all()
    twins = Dense(torch.ones(3, 4, dtype=torch.complex128))
    found = OMP()(Observation(torch.tensor([[1.0, 2.0, 3.0 + 1j]], dtype=torch.complex128), twins, torch.zeros(())))
    torch.testing.assert_close(found.x.sum(-1), torch.tensor([2 + 1j / 3], dtype=torch.complex128))


def test_pursuit_of_complex_signals_is_that_of_real_ones_on_real_data():
    on = ff.problems.CompressedSensing(n=60, m=40, sparsity=0.1, snr_db=30, dtype="float64", seed=0)
    _, obs = on.sample(20, torch.Generator().manual_seed(0))
    turned = Observation(obs.y.to(torch.complex128), obs.A.to(dtype=torch.complex128), obs.noise_var)
    torch.testing.assert_close(OMP()(turned).x.real, OMP()(obs).x)
