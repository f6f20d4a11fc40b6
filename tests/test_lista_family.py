"""The LISTA family: what its papers promise of each, and failures that are known from elsewhere."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import (
    ALISTA,
    ALISTAAT,
    AMP,
    ISTA,
    LAMP,
    LISTA,
    LISTACP,
    LISTACPSS,
    LVAMP,
    OAMP,
    TISTA,
    Algorithm,
    HyperLISTA,
    hyperlista,
)
from fanfold.algorithms.alista import analytic_matrix
from fanfold.algorithms.lista_cpss import select, selected
from fanfold.core.units import nmse_db
from fanfold.problems import CompressedSensing, ExactlySparse
from fanfold.problems.draws import draw
from fanfold.shrinkage import soft
from fanfold.training.events import Finished, Stepped
from fanfold.training.fit import fit_events
from fanfold.training.settings import Training
from fanfold.unfolding.unfold import Unfolded, iterate
from laws import DTYPES, LAWS, LAWS_IN_DTYPES, assert_close, observed

OTHER_SETTINGS = [ALISTA(p=0.02), ALISTAAT(ridge=0.0), HyperLISTA(c1=1.0, c3=0.05)]


@pytest.mark.parametrize(("law", "dtype"), LAWS_IN_DTYPES)
@pytest.mark.parametrize("algorithm", OTHER_SETTINGS, ids=str)
def test_law_with_other_settings(algorithm, law, dtype):
    LAWS[law](algorithm, dtype)


# Known failures


def trained(algorithm: Algorithm, on, layers: int, learn, **settings) -> tuple[Unfolded, list[Stepped]]:
    """The network as its last step left it, and its steps."""
    net = ff.unfold(algorithm, on, layers, dict.fromkeys(learn, "per-layer"))
    events = list(fit_events(net, on, Training(threads=1, validate_every=1000, validation_samples=20, **settings)))
    assert isinstance(events[-1], Finished)
    return net, [event for event in events if isinstance(event, Stepped)]


def test_lista_leaves_its_plateau():
    """On 250 x 500 few draws leave it at -3 dB: a row of its matrices has 750 entries, and is seen one time in ten."""
    on = CompressedSensing(snr_db=40)
    x, obs = draw(on, 200, 0, 2, 0)
    net, _ = trained(LISTA(), on, 4, LISTA.nominals, steps=60, lr=4e-3, batch=512)
    assert nmse_db(iterate(LISTA(), 4)(obs).x, x) > -3
    with torch.no_grad():
        assert nmse_db(net(obs).x, x) < -4.4


@pytest.mark.parametrize("snr_db", [20.0, math.inf])
@pytest.mark.parametrize("seed", range(3))
def test_lamp_stays_finite_on_a_small_dense_problem(seed, snr_db):
    """30 x 50 with p = 0.25 is beyond what AMP recovers: it may not improve, but it must not end in NaN."""
    on = CompressedSensing(n=50, m=30, sparsity=0.25, snr_db=snr_db, seed=seed)
    _, obs = draw(on, 200, seed, 2, 0)
    assert all(torch.isfinite(e.x).all() for e in ff.iterate(LAMP(), 16).trajectory(obs))
    net, steps = trained(LAMP(), on, 8, LAMP.nominals, steps=30, lr=1e-3)
    assert not any(step.skipped for step in steps)
    assert all(torch.isfinite(e.x).all() for e in net.trajectory(obs))


@pytest.mark.parametrize("kind", [LAMP, ALISTAAT, HyperLISTA])
def test_a_measurement_of_nothing_gives_nothing_and_a_finite_gradient(kind):
    """Thresholds that follow the residual divide by it, or take its root; a signal without a non-zero has none."""
    A = CompressedSensing(n=48, m=26).A
    net = ff.unfold(kind(), ff.Observation(torch.zeros(2, A.m), A), 4, dict.fromkeys(kind.nominals, "per-layer"))
    x = net(ff.Observation(torch.stack([torch.zeros(A.m), torch.ones(A.m)]), A)).x
    x.square().sum().backward()
    assert (x[0] == 0).all()
    assert all(torch.isfinite(d.grad).all() for d in net.deviations.values())


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_learned_vamp_works_at_every_depth(layers):
    on = CompressedSensing(n=100, m=60, snr_db=30)
    x, obs = draw(on, 100, 0, 2, 0)
    before = nmse_db(iterate(LVAMP(), layers)(obs).x, x)
    net, steps = trained(LVAMP(), on, layers, LVAMP().nominals, steps=20, lr=1e-4)
    assert not any(step.skipped for step in steps)
    with torch.no_grad():
        assert nmse_db(net(obs).x, x) < before + 0.2 < -2 * layers


# What each paper promises


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_matrix_of_alista_is_the_constrained_minimiser(dtype):
    """`(W A)_ii = 1`, and ‖W A‖_F is stationary under it: the rows of `W A Aᴴ` are multiples of those of `Aᴴ`."""
    _, obs = observed(dtype)
    A, W = obs.A.matrix(), analytic_matrix(obs.A)
    torch.testing.assert_close((W @ A).diagonal(), torch.ones(A.shape[1], dtype=A.dtype))
    gradient, normal = W @ A @ A.mH, A.mH
    multiple = (gradient * normal.conj()).sum(-1, keepdim=True) / normal.abs().square().sum(-1, keepdim=True)
    torch.testing.assert_close(gradient, multiple * normal)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("ridge", [0.0, 0.3, 20.0])
def test_matrix_of_adaptive_alista_is_the_constrained_minimiser_with_its_ridge(ridge, dtype):
    """One step with hardly a threshold is W y, with `W (A Aᴴ + ridge)` a multiple of `Aᴴ` row by row."""
    _, obs = observed(dtype)
    A = obs.A.matrix()
    W = torch.linalg.solve(A @ A.mH + ridge * torch.eye(len(A), dtype=A.dtype), A).mH
    W = W / (W @ A).diagonal()[:, None]
    if ridge == 0:
        torch.testing.assert_close(W, analytic_matrix(obs.A))
    torch.testing.assert_close(iterate(ALISTAAT(alpha=1e-12, ridge=ridge), 1)(obs).x, obs.y @ W.mT)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_fixed_point_of_alista_balances_its_matrix_and_its_threshold(dtype):
    """Where it rests, `W (y - A x)` is `lam x / |x|` where x is not zero, and within lam elsewhere."""
    _, obs = observed(dtype)
    x = iterate(ALISTA(lam=0.1), 20_000)(obs).x
    pull = (obs.y - obs.A @ x) @ analytic_matrix(obs.A).mT
    active = x != 0
    assert active.any()
    assert (pull - 0.1 * torch.sgn(x))[active].abs().max() < 1e-8
    assert pull[~active].abs().max() <= 0.1 + 1e-8


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("algorithm", [ALISTAAT(), HyperLISTA(c1=3.0), LVAMP(), TISTA()], ids=str)
def test_a_sparse_signal_is_recovered_without_noise(algorithm, dtype):
    """Linear convergence to the signal itself: nothing biases these as a fixed threshold does the Lasso."""
    on = CompressedSensing(n=200, m=120, sparsity=0.04, snr_db=math.inf, dtype=dtype)
    x, obs = draw(on, 20, 0, 2, 0)
    assert nmse_db(iterate(algorithm, 200)(obs).x, x) < -120


@pytest.mark.parametrize("algorithm", [ALISTAAT(), HyperLISTA(), LAMP()], ids=str)
def test_scale_equivariance(algorithm):
    """Scaled by a power of two, so that rounding is the same and no entry crosses a threshold."""
    _, obs = observed("float64")
    tiny = ff.Observation(obs.y * 2.0**-20, obs.A, obs.noise_var)
    torch.testing.assert_close(
        iterate(algorithm, 8)(tiny).x * 2.0**20, iterate(algorithm, 8)(obs).x, rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_untrained_lamp_is_amp_and_learned_vamp_is_oamp(dtype):
    _, obs = observed(dtype)
    assert_close(iterate(LAMP(), 6)(obs).x, iterate(AMP(), 6)(obs).x)
    assert_close(
        iterate(LVAMP(), 6)(obs).x, iterate(OAMP(spread=1e-30), 6)(obs).x
    )  # trusts the variance that it predicts


def test_learned_vamp_finds_its_way_without_the_noise_variance():
    on = CompressedSensing(snr_db=30)
    x, obs = draw(on, 100, 0, 2, 0)
    blind = ff.Observation(obs.y, obs.A)
    assert nmse_db(iterate(LVAMP(), 24)(blind).x, x) < nmse_db(iterate(LVAMP(), 24)(obs).x, x) + 1


def test_tista_reads_its_error_off_the_residual():
    """After one step, where r is x plus noise of the variance it computes; 100 000 entries leave some per cent."""
    on = CompressedSensing(snr_db=30)
    x, obs = draw(on, 200, 0, 2, 0)
    first = iterate(TISTA(), 1)(obs)
    assert first.var is not None
    assert first.var.mean() == pytest.approx((first.x - x).square().mean().item(), rel=0.1)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_support_selection_lies_between_soft_and_hard(dtype):
    r = torch.randn(5, 30, dtype=getattr(torch, dtype), generator=torch.Generator().manual_seed(0))
    t = torch.tensor(0.5, dtype=torch.float64)
    hard = torch.where(r.abs() > t, r, torch.zeros_like(r))
    torch.testing.assert_close(select(r, t, 0), soft(r, t))
    torch.testing.assert_close(select(r, t, 30), hard)
    for count in range(1, 30):
        x = select(r, t, count)
        assert ((x == hard) | (x - soft(r, t)).abs().lt(1e-12)).all()
        assert ((x == hard) & (hard != 0)).sum(-1).le(count).all()
        whole = hyperlista.select(r, t, torch.full((5, 1), float(count), dtype=torch.float64))
        torch.testing.assert_close(whole, x)
    part = hyperlista.select(r, t, torch.full((5, 1), 4.25, dtype=torch.float64))
    torch.testing.assert_close(part, 0.75 * select(r, t, 4) + 0.25 * select(r, t, 5))


def test_support_grows_with_the_layers_up_to_its_limit():
    assert [selected(0.01, 0.03, k, 500) for k in range(1, 6)] == [5, 10, 15, 15, 15]
    assert selected(0.0, 0.1, 16, 500) == 0


def test_support_selection_removes_the_bias_of_the_threshold():
    on = CompressedSensing(snr_db=40)
    x, obs = draw(on, 100, 0, 2, 0)
    plain, selecting = (nmse_db(iterate(a, 200)(obs).x, x) for a in (LISTACP(0.3), LISTACPSS(0.3)))
    assert selecting < plain - 3
    assert nmse_db(iterate(ALISTA(0.1, p=0.01), 100)(obs).x, x) < nmse_db(iterate(ALISTA(0.1), 100)(obs).x, x) - 3


def test_untrained_adaptive_alista_passes_ista_by_far():
    on = CompressedSensing(snr_db=40)
    x, obs = draw(on, 100, 0, 2, 0)
    assert nmse_db(iterate(ALISTAAT(), 16)(obs).x, x) < -40 < -10 < nmse_db(iterate(ISTA(), 16)(obs).x, x)


# The problem of the textbook's example


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_signal_has_exactly_so_many_non_zeros(dtype):
    on = ExactlySparse(nonzeros=4, snr_db=20, dtype=dtype)
    x, obs = on.sample(4000, torch.Generator().manual_seed(1))
    assert ((x != 0).sum(-1) == 4).all()
    assert x.dtype == obs.y.dtype == getattr(torch, dtype)
    noise = (obs.y - on.A @ x).abs().square().mean().item()
    # a mean of N squared Gaussians has a relative deviation of sqrt(2 / N); four of them
    assert noise == pytest.approx(on.noise_var, rel=4 * (2 / obs.y.numel()) ** 0.5)
    assert (on.A @ x).abs().square().mean().item() / on.noise_var == pytest.approx(100, rel=4 * (2 / 16_000) ** 0.5)
    often = (x != 0).double().mean(0)  # a share of 4000 draws deviates by sqrt(p / 4000); five of them over 200 places
    assert (often - 0.02).abs().max() < 5 * (0.02 / 4000) ** 0.5
    again, _ = on.sample(4000, torch.Generator().manual_seed(1))
    assert torch.equal(again, x)


@pytest.mark.parametrize("changes", [{"m": 201}, {"m": 0}, {"nonzeros": 0}, {"nonzeros": 200}])
def test_impossible_sizes_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        ExactlySparse(**changes)
