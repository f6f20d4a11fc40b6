"""State evolution beside a run: quiet where its assumptions hold, and naming the one that is broken where not."""

import warnings

import pytest
import torch

import fanfold as ff
from fanfold.bounds.assumptions import marchenko_pastur_distance, not_haar
from fanfold.bounds.state_evolution import oamp_evolution, soft_risk, vamp
from fanfold.core.units import power
from fanfold.linops import Dense
from fanfold.shrinkage import soft

AMP, OAMP, BG = ff.algorithms.AMP, ff.algorithms.OAMP, ff.priors.BernoulliGaussian


def drawn(samples: int = 20, noise: float = 1.0, **changes):
    """Signals and what was observed, with a noise variance that is told wrong by a factor."""
    on = ff.problems.CompressedSensing(**{"snr_db": 30} | changes)
    x, obs = on.sample(samples, torch.Generator().manual_seed(0))
    return on, x, ff.Observation(obs.y, obs.A, obs.noise_var * noise)


def quiet(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ff.watch(*args, **kwargs)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("snr_db", [20, 40])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("ensemble", ["iid", "row-orthogonal", "conditioned"])
def test_oamp_keeps_to_state_evolution(ensemble, dtype, snr_db, known):
    on, x, obs = drawn(ensemble=ensemble, dtype=dtype, snr_db=snr_db)
    traced = quiet(OAMP(on.prior), obs, 16, x=x if known else None)
    assert not traced.broken
    assert len(traced.table) == 16
    assert torch.equal(traced.estimate.x, ff.iterate(OAMP(on.prior), 16)(obs).x)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("ensemble", ["iid", "unit-columns"])
def test_amp_keeps_to_state_evolution_on_iid_matrices(ensemble, dtype, told, known):
    on, x, obs = drawn(ensemble=ensemble, dtype=dtype)
    assert not quiet(AMP(), obs, 16, x=x if known else None, prior=on.prior if told else None).broken


@pytest.mark.parametrize("linear", ["matched-filter", "pseudo-inverse"])
def test_other_linear_steps_and_estimated_noise_have_their_evolution(linear):
    on, _, obs = drawn(ensemble="iid")
    assert not quiet(OAMP(on.prior, linear=linear), obs, 12).broken
    assert not quiet(OAMP(on.prior, noise="estimated"), ff.Observation(obs.y, obs.A), 12).broken


@pytest.mark.parametrize("samples", [1, 2, 200])
def test_any_number_of_samples_will_do(samples):
    on, _, obs = drawn(samples)
    assert not quiet(OAMP(on.prior), obs, 16).broken
    assert not quiet(AMP(), obs, 16, prior=on.prior).broken


KNOWN = pytest.mark.parametrize("known", [False, True])


@KNOWN
@pytest.mark.parametrize("told", [False, True])
def test_amp_on_a_conditioned_matrix_is_told_to_be_oamp(told, known):
    on, x, obs = drawn(ensemble="conditioned", condition_number=15.0)
    with pytest.warns(
        UserWarning, match=r"AMP and state evolution part .* A is not iid: condition number 15.0.*use OAMP"
    ):
        ff.watch(AMP(), obs, 16, x=x if known else None, prior=on.prior if told else None)


@KNOWN
@pytest.mark.parametrize("prior", [BG(0.3), BG(0.03), BG(0.3, 1 / 3)], ids=str)
def test_a_wrong_prior_is_named(prior, known):
    """Wrong in power, and wrong in nothing but its shape."""
    _, x, obs = drawn()
    with pytest.warns(UserWarning, match="Broken assumption: the prior"):
        ff.watch(OAMP(prior), obs, 16, x=x if known else None)


def test_a_wrong_prior_of_amp_is_named():
    _, _, obs = drawn()
    with pytest.warns(UserWarning, match="Broken assumption: the prior"):
        ff.watch(AMP(), obs, 16, prior=BG(0.3))


@KNOWN
@pytest.mark.parametrize("factor", [0.1, 10.0])
@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_a_wrong_noise_variance_is_named_and_found(dtype, factor, known):
    on, x, obs = drawn(noise=factor, dtype=dtype)
    with pytest.warns(UserWarning, match=f"the noise variance: told {on.noise_var * factor:.2g}, found"):
        broken = ff.watch(OAMP(on.prior), obs, 16, x=x if known else None).broken
    found = float(broken[0].split("found ")[1])
    assert found == pytest.approx(on.noise_var, rel=0.1)  # chi² with 5000 degrees leaves 2 %, the fit somewhat more


@KNOWN
def test_noise_that_is_told_too_strong_shows_in_amp(known):
    """Found, if x is not known, as the residual's 1.8e-3 less Stein's estimate: to 3 √(2 / 5000) of the former."""
    on, x, obs = drawn(noise=10.0)
    with pytest.warns(UserWarning, match="the noise variance: told 0.002, found 0.000"):
        broken = ff.watch(AMP(), obs, 16, x=x if known else None, prior=on.prior).broken
    assert float(broken[0].split("found ")[1]) == pytest.approx(on.noise_var, abs=1.1e-4)


@KNOWN
def test_oamp_on_a_kronecker_product_is_told_of_its_structure(known):
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(16, 24, generator=generator) / 4 for _ in range(2)]
    A = Dense(torch.kron(*factors))
    x = BG(0.1).sample((20, A.n), generator)
    obs = ff.Observation(A @ x + 0.01 * torch.randn(20, A.m, generator=generator), A, torch.tensor(1e-4))
    with pytest.warns(UserWarning, match="not rotationally invariant at this size, as a Kronecker product is not"):
        ff.watch(OAMP(BG(0.1)), obs, 16, x=x if known else None)


def test_a_mask_is_not_invariant_and_a_haar_matrix_is():
    eye = torch.eye(60)[:30]
    assert "far more than of others" in str(not_haar(Dense(eye)))
    for ensemble in ("iid", "unit-columns", "row-orthogonal", "conditioned"):
        for m, n in ((30, 500), (250, 500), (480, 500)):
            for dtype in ("float32", "complex64"):
                assert not_haar(ff.problems.CompressedSensing(n=n, m=m, ensemble=ensemble, dtype=dtype).A) is None


@pytest.mark.parametrize(("m", "n"), [(50, 100), (250, 500), (500, 250), (480, 500)])
def test_spectrum_of_an_iid_matrix_is_marchenko_and_pasturs(m, n):
    """Eigenvalues repel: k of them keep within log k / k of their places. Orthogonal rows are half a world away."""
    G = torch.randn(m, n, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    k = min(m, n)
    assert marchenko_pastur_distance(Dense(G)) < torch.log(torch.tensor(k)) / k
    assert marchenko_pastur_distance(Dense(torch.linalg.qr(G.mT if m < n else G).Q)) > 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("v", [1e-3, 0.1])
def test_risk_of_the_soft_threshold_is_that_of_draws(v, dtype):
    from fanfold.core.noise import circular

    generator, count = torch.Generator().manual_seed(0), 400_000
    x = BG(0.1).sample((count,), generator, dtype)
    t = 1.5 * v**0.5
    errors = power(soft(x + circular((count,), generator, dtype, v), torch.tensor(t, dtype=torch.float64)) - x)
    expected = soft_risk(BG(0.1), v, t, is_complex=dtype.is_complex)
    assert errors.mean().item() == pytest.approx(expected, abs=4 * errors.std().item() / count**0.5)


def test_evolution_with_lmmse_steps_is_vamps():
    s = ff.problems.CompressedSensing(ensemble="conditioned").A.svd().s
    ours, theirs = oamp_evolution(BG(0.1), s, 500, 1e-3, 12), vamp(BG(0.1), s, 500, 1e-3, 12)
    assert ours == pytest.approx(theirs, rel=1e-6)  # two forms of one formula, at the tolerance of its quadrature


def test_a_trace_reads_as_a_table_of_its_layers():
    on, x, obs = drawn()
    trace = ff.watch(OAMP(on.prior), obs, 5, x=x)
    assert "predicted_db" in str(trace)
    assert "true_db" in str(trace)
    assert len(str(trace).strip().splitlines()) == 1 + 5
    assert torch.equal(trace.estimate.x, ff.iterate(OAMP(on.prior), 5)(obs).x)


def test_what_has_no_evolution_is_refused():
    on, _, obs = drawn(1)
    with pytest.raises(ValueError, match="ISTA has no state evolution here; AMP and OAMP have"):
        ff.watch(ff.algorithms.ISTA(), obs, 3)
    with pytest.raises(ValueError, match="needs the noise variance"):
        ff.watch(AMP(), ff.Observation(obs.y, obs.A), 3)
    with pytest.raises(ValueError, match="pass prior"):
        ff.watch(OAMP(settings="estimated"), obs, 3)
    assert not quiet(OAMP(settings="estimated"), obs, 12, prior=on.prior).broken
