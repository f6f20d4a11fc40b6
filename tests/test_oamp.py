"""OAMP follows state evolution to the Bayes limit, and finds the noise variance and the prior by itself."""

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import OAMP
from fanfold.algorithms.residual import variances
from fanfold.bounds.state_evolution import vamp
from fanfold.core.units import db, nmse_db, power
from fanfold.priors import BernoulliGaussian, Gaussian
from fanfold.problems.draws import draw
from laws import LAWS

VARIANTS = {
    "matched filter": OAMP(linear="matched-filter"),
    "pseudo-inverse": OAMP(linear="pseudo-inverse"),
    "all estimated": OAMP(noise="estimated", settings="estimated"),
    "damped": OAMP(damping=0.7),
    "Gaussian prior, estimated": OAMP(Gaussian(), settings="estimated"),
}


@pytest.mark.parametrize("dtype", ["float64", "complex64"])
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_law_for_variants(variant, law, dtype):
    check = LAWS[law]
    check(VARIANTS[variant], dtype)


ENSEMBLES = [
    {"ensemble": "iid"},
    {"ensemble": "row-orthogonal"},
    {"ensemble": "conditioned", "condition_number": 15.0, "n": 1000, "m": 500},  # 0.5 dB short at 500 and 20 dB
    {"ensemble": "iid", "dtype": "complex64"},
    {"ensemble": "row-orthogonal", "dtype": "complex64"},
]


@pytest.mark.parametrize("changes", ENSEMBLES, ids=str)
@pytest.mark.parametrize("snr_db", [20, 40])
def test_error_settles_where_state_evolution_says(changes, snr_db):
    """Within 0.5 dB from n = 500, where 200 draws leave 0.1 dB and the size of the matrix the rest."""
    on = ff.problems.CompressedSensing(snr_db=snr_db, **changes)
    x, obs = on.sample(200, torch.Generator().manual_seed(3))
    errors = vamp(on.prior, on.A.svd().s, on.n, on.noise_var, 24, is_complex=x.is_complex())
    assert nmse_db(ff.iterate(OAMP(on.prior), 24)(obs).x, x) == pytest.approx(db(errors[-1] / on.prior.power), abs=0.5)


def test_variance_that_it_carries_is_its_error():
    on = ff.problems.CompressedSensing(snr_db=30)
    x, obs = on.sample(200, torch.Generator().manual_seed(3))
    estimate = ff.iterate(OAMP(on.prior), 24)(obs)
    assert estimate.var is not None
    assert estimate.var.mean() == pytest.approx((estimate.x - x).square().mean().item(), rel=0.15)


def test_estimated_noise_costs_little_and_holds_when_the_noise_grows():
    on = ff.problems.CompressedSensing(snr_db=40)
    for shifted in (on, on.shifted(snr_db=30.0)):
        x, obs = shifted.sample(200, torch.Generator().manual_seed(3))
        blind = ff.Observation(obs.y, obs.A)  # nobody says how strong the noise is
        given, estimated = (nmse_db(ff.iterate(OAMP(on.prior), 24)(o).x, x) for o in (obs, blind))
        assert estimated <= given + 0.2


@pytest.mark.parametrize("scale", [1.0, 1e-6])
@pytest.mark.parametrize("wrong", [0.1, 10.0])
def test_estimated_prior_costs_little_at_any_scale(wrong, scale):
    """Told p = 0.3 and a variance that is wrong by ten, it finds both in each sample, within 0.3 dB of being told."""
    on = ff.problems.CompressedSensing(snr_db=30)
    x, obs = on.sample(200, torch.Generator().manual_seed(3))
    guess = BernoulliGaussian(0.3, wrong * scale**2)
    scaled = ff.Observation(scale * obs.y, obs.A)
    lost = OAMP(guess, noise="estimated", settings="estimated", trust=1e-3)
    told = nmse_db(ff.iterate(OAMP(on.prior), 24)(obs).x, x)
    assert nmse_db(ff.iterate(lost, 24)(scaled).x / scale, x) == pytest.approx(told, abs=0.3)


@pytest.mark.parametrize(("dtype", "most_db"), [("float32", -100), ("float64", -105)])
@pytest.mark.parametrize("noise", ["given", "estimated"])
def test_without_noise_it_goes_down_to_rounding_and_stays_there(dtype, most_db, noise):
    on = ff.problems.CompressedSensing(snr_db=float("inf"), dtype=dtype)
    x, obs = on.sample(100, torch.Generator().manual_seed(3))
    for iterations in (16, 60):
        x_hat = ff.iterate(OAMP(on.prior, noise=noise), iterations)(obs).x
        ratios = power(x_hat - x).sum(-1) / power(x).sum(-1)
        assert db(ratios.median().item()) <= most_db


@pytest.mark.parametrize("linear", ["lmmse", "pseudo-inverse", "matched-filter"])
def test_singular_operators_without_noise_stay_finite(linear):
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(20, 40, generator=generator, dtype=torch.float64)
    if linear != "pseudo-inverse":  # which has no meaning where a row says nothing
        A[7] = A[3]
    x = BernoulliGaussian(0.1).sample((5, 40), generator, torch.float64)
    obs = ff.Observation(x @ A.T, ff.linops.Dense(A), torch.tensor(0.0))
    assert torch.isfinite(ff.iterate(OAMP(linear=linear), 40)(obs).x).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_variances_are_read_off_a_residual(dtype):
    """Over 4000 entries both come within five standard deviations, by the information that the residual holds."""
    generator, d = torch.Generator().manual_seed(1), torch.linspace(0.2, 2, 4000, dtype=torch.float64)
    truth_v, truth_noise = 0.3, 0.05
    e = torch.randn(2, 4000, generator=generator, dtype=dtype) * (d**2 * truth_v + truth_noise).sqrt()
    v, noise_var = (torch.full((2, 1), guess, dtype=torch.float64) for guess in (1.0, 1.0))
    for _ in range(8):
        v, noise_var = variances(e, d, v, noise_var, torch.tensor(1e6), noise_known=False)
    weights = (1 if dtype.is_complex else 0.5) / (d**2 * truth_v + truth_noise) ** 2
    information = torch.stack(
        [
            torch.stack([weights.sum(), (weights * d**2).sum()]),
            torch.stack([(weights * d**2).sum(), (weights * d**4).sum()]),
        ]
    )
    noise_sd, v_sd = torch.linalg.inv(information).diagonal().sqrt()
    assert ((v - truth_v).abs() < 5 * v_sd).all()
    assert ((noise_var - truth_noise).abs() < 5 * noise_sd).all()


def test_a_wrong_prior_is_unlearned():
    """Trained from p = 0.3 and an unknown noise variance, ten layers come within 0.2 dB of the Bayes limit."""
    on = ff.problems.CompressedSensing(snr_db=40)
    oamp = OAMP(BernoulliGaussian(0.3), noise="estimated")
    net = ff.unfold(oamp, on, 10, dict.fromkeys(("p", "var", "noise_scale", "v_linear", "v_denoised"), "per-layer"))
    ff.fit(net, on, steps=60, lr=6e-3, loss_layers=2, threads=1)
    (row,) = ff.evaluate({"unfolded": net}, on, layers=False)
    assert row["limit_db"] < row["nmse_db"] < row["limit_db"] + 0.2


def test_priors_that_cannot_be_estimated_say_so():
    on = ff.problems.CompressedSensing(n=40, m=20)
    _, obs = on.sample(2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="Laplace cannot be estimated"):
        ff.iterate(OAMP(ff.priors.Laplace(), settings="estimated"), 2)(obs)


@pytest.mark.parametrize("sensing", ["gaussian", "steering", "fourier"])
def test_damping_that_adapts_beats_every_fixed_one_on_kronecker_products(sensing):
    """Samples differ in the damping that they need; 60 scenes, prior and noise known."""
    shapes = ((16, 16, 16), (12, 12, 12)) if sensing == "fourier" else ((32, 32), (24, 24))
    on = ff.problems.RFImaging(sensing, *shapes)
    x, obs = draw(on, 60, 0, 2, 0)
    fixed = [nmse_db(ff.iterate(OAMP(on.prior, damping=d), 30)(obs).x, x) for d in (1.0, 0.7, 0.5, 0.3)]
    assert nmse_db(ff.iterate(OAMP(on.prior, adapt=True), 30)(obs).x, x) < min(fixed) - 1
