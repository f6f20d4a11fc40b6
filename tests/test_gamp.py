"""GAMP follows its state evolution through every likelihood, is AMP through the linear one, and learns."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import GAMP
from fanfold.bounds import bayes_limit
from fanfold.bounds.gamp_evolution import gamp, output_precision
from fanfold.bounds.state_evolution import amp
from fanfold.core.units import db, nmse_db, power
from fanfold.deploy import to_onnx
from fanfold.likelihoods import GaussianNoise, Logistic, OneBit, Poisson, Quantised
from fanfold.priors import BernoulliGaussian, Gaussian, GaussianMixture
from fanfold.problems import GeneralizedLinear
from fanfold.runs import recipe
from laws import assert_close
from runtime import in_runtime
from strict import StrictPromotion

LIKELIHOODS = (GaussianNoise(), OneBit(), Quantised(3, 0.25), Logistic(), Poisson(100.0))


def problem(likelihood, **changes) -> GeneralizedLinear:
    """n = 1000 and iid A; more measurements than unknowns where one says little."""
    binary = isinstance(likelihood, OneBit | Logistic)
    settings = {"n": 1000, "m": 3000 if binary else 500, "snr_db": 10.0 if binary else 30.0, "ensemble": "iid"}
    return GeneralizedLinear(likelihood=likelihood, **settings | changes)


def drawn(on: GeneralizedLinear, samples: int = 30):
    return on.sample(samples, torch.Generator().manual_seed(3))


CASES = [
    *[(likelihood, {}) for likelihood in LIKELIHOODS],
    (GaussianNoise(), {"snr_db": 10.0}),
    (Quantised(2, 0.45), {"snr_db": 10.0, "m": 1000}),
    (GaussianNoise(), {"dtype": "complex64"}),
    (OneBit(), {"dtype": "complex64"}),
    (Quantised(3, 0.25), {"dtype": "complex64"}),
]


@pytest.mark.parametrize(("likelihood", "changes"), CASES, ids=str)
def test_error_settles_where_state_evolution_says(likelihood, changes):
    """Within 0.5 dB, where draws (errors of single ones spread by 1 dB) leave 0.1 to 0.2 dB and the size of A the rest.

    The error is that of the estimate as it stands: noise dithers the single bit and so tells the scale.
    """
    on = problem(likelihood, **changes)
    x, obs = drawn(on, 30 if isinstance(likelihood, Logistic) else 100)
    noise_var = on.noise_var if likelihood.uses_noise_var else 0.0
    errors = gamp(on.prior, likelihood, on.m / on.n, noise_var, 25, is_complex=x.is_complex())
    estimate = ff.iterate(GAMP(on.prior, likelihood), 25)(obs)
    assert nmse_db(estimate.x, x) == pytest.approx(db(errors[-1] / on.prior.power), abs=0.5)
    assert estimate.var is not None  # and it knows its error
    assert db(estimate.var.mean() / power(estimate.x - x).mean()).item() == pytest.approx(0, abs=0.5)


def test_every_iteration_is_where_state_evolution_says():
    on = problem(Quantised(3, 0.25))
    x, obs = drawn(on, 100)
    errors = [db(e / on.prior.power) for e in (on.prior.power, *gamp(on.prior, on.likelihood, 0.5, on.noise_var, 10))]
    estimates = ff.iterate(GAMP(on.prior, on.likelihood), 10).trajectory(obs)
    for estimate, before, error in zip(estimates, errors, errors[1:], strict=False):
        # on the way down a tenth of an iteration's gain besides: so much sooner or later is one sample than another
        assert nmse_db(estimate.x, x) == pytest.approx(error, abs=0.5 + 0.1 * (before - error))


def test_noiseless_bits_tell_everything_but_the_scale():
    """Signals with exactly the prior's power meet state evolution; others carry the error of their scale besides."""
    on = problem(OneBit(), snr_db=math.inf)
    generator = torch.Generator().manual_seed(3)
    x = on.prior.sample((40, on.n), generator)
    x = x * (on.n * on.prior.power / power(x).sum(-1, keepdim=True)).sqrt()
    obs = ff.Observation(on.likelihood.sample(on.A @ x, generator), on.A, torch.tensor(0.0))
    limit = gamp(on.prior, on.likelihood, 3.0, 0.0, 25)[-1] / on.prior.power
    x_hat = ff.iterate(GAMP(on.prior, on.likelihood), 25)(obs).x
    assert nmse_db(x_hat, x) == pytest.approx(db(limit), abs=0.5)
    scale = torch.linspace(0.8, 1.25, 40)[:, None]  # no bit changes
    # x_hat - a x is the error of x_hat and, nearly orthogonal to it, (a - 1) x
    expected = limit + (scale - 1).square().mean().item()
    wrong = power(x_hat - scale * x).sum() / power(x).sum()
    assert wrong.item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_with_gaussian_noise_it_is_amp_with_the_posterior_mean(dtype):
    """Donoho, Maleki & Montanari (2009), with a denoiser in place of the threshold."""
    on = problem(GaussianNoise(), n=200, m=100, ensemble="unit-columns", dtype=dtype)
    x, obs = drawn(on, 5)
    assert obs.A is not None
    A, y = obs.A, obs.y
    x_hat, v = torch.zeros_like(x), y
    tau = torch.full((5, 1), on.prior.power * 2 + on.noise_var, dtype=torch.float64)
    for iterations in range(1, 9):
        r = x_hat + A.H @ v
        x_hat, var = on.prior.posterior(r, tau)
        slope = var.mean(-1, keepdim=True) / tau
        v = y - A @ x_hat + v * slope * A.n / A.m  # Onsager
        tau = on.noise_var + var.mean(-1, keepdim=True) * A.n / A.m
        assert_close(ff.iterate(GAMP(on.prior), iterations)(obs).x, x_hat)


@pytest.mark.parametrize(
    "prior", [Gaussian(0.1), GaussianMixture((0.8, 0.2), (0, 0), (0.01, 0.5)), BernoulliGaussian(0.05, 2.0)], ids=str
)
def test_any_prior_meets_state_evolution(prior):
    on = problem(OneBit())
    generator = torch.Generator().manual_seed(3)
    x = prior.sample((40, on.n), generator)
    obs = ff.Observation(on.likelihood.sample(on.A @ x, generator, 0.03), on.A, torch.tensor(0.03))
    limit = gamp(prior, on.likelihood, 3.0, 0.03, 25)[-1] / prior.power
    assert nmse_db(ff.iterate(GAMP(prior, on.likelihood), 25)(obs).x, x) == pytest.approx(db(limit), abs=0.5)


# State evolution itself


@pytest.mark.parametrize("is_complex", [False, True])
def test_evolution_with_gaussian_noise_is_amps(is_complex):
    prior = BernoulliGaussian(0.1)
    ours = gamp(prior, GaussianNoise(), 0.5, 1e-3, 12, is_complex=is_complex)
    assert ours == pytest.approx(amp(prior, 0.5, 1e-3, 12, is_complex=is_complex), rel=1e-12)


@pytest.mark.parametrize("is_complex", [False, True])
def test_precision_of_the_output_is_that_of_draws(is_complex):
    draws, known, tau, noise_var = 50_000, 0.15, 0.05, 0.02
    dtype = torch.complex128 if is_complex else torch.float64
    for likelihood in (OneBit(), Quantised(2, 0.3), Logistic()):
        generator = torch.Generator().manual_seed(4)
        p, w = (torch.randn(draws, generator=generator, dtype=dtype) for _ in range(2))
        p = known**0.5 * p
        y = likelihood.sample(p + tau**0.5 * w, generator, noise_var)
        score = power(likelihood.score(y, p, tau, noise_var)[0])
        gap = output_precision(likelihood, known, tau, noise_var, is_complex=is_complex) - score.mean()
        assert abs(gap) < 5 * score.std() / draws**0.5


def test_more_bits_are_better_and_end_at_none():
    prior, noise_var = BernoulliGaussian(0.1), 2e-3
    errors = [
        gamp(prior, Quantised(b, s), 0.5, noise_var, 30)[-1] for b, s in ((1, 0.7), (2, 0.45), (3, 0.26), (6, 0.05))
    ]
    limit = amp(prior, 0.5, noise_var + 0.05**2 / 12, 30)[-1]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(
        limit, rel=0.02
    )  # a cell as wide as the noise: a tenth of it more, all but Gaussian


def test_limit_of_a_problem_is_where_its_evolution_settles():
    on = problem(OneBit())
    assert bayes_limit(on) == pytest.approx(gamp(on.prior, on.likelihood, 3.0, on.noise_var, 50)[-1] / 0.1)
    assert bayes_limit(problem(OneBit(), m=500, ensemble="row-orthogonal")) is None


# Safety


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
@pytest.mark.parametrize("snr_db", [-20.0, 60.0, 150.0, math.inf])
@pytest.mark.parametrize("likelihood", [*LIKELIHOODS, Quantised(8, 0.02), Poisson(1e6)], ids=str)
def test_estimates_are_sane_at_any_snr(likelihood, snr_db, dtype):
    if isinstance(likelihood, Poisson) and dtype == "complex64":
        pytest.skip("counts are real")
    on = GeneralizedLinear(n=100, m=80, likelihood=likelihood, snr_db=snr_db, dtype=dtype)
    x, obs = drawn(on, 20)
    estimate = ff.iterate(GAMP(on.prior, likelihood), 40)(obs)
    assert nmse_db(estimate.x, x) < 1  # NaN is not; and hardly worse than saying nothing
    assert estimate.var is not None
    assert torch.isfinite(estimate.var).all()


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_gradients_of_a_deep_network_are_finite(likelihood):
    on = GeneralizedLinear(n=60, m=50, likelihood=likelihood, snr_db=math.inf)
    x, obs = drawn(on, 10)
    algorithm = GAMP(on.prior, likelihood, damping=0.9)
    net = ff.unfold(algorithm, on, 30, dict.fromkeys(algorithm.nominals, "per-layer"))
    power(net(obs).x - x).sum().backward()
    for name, d in net.deviations.items():
        assert torch.isfinite(d.grad).all(), name


def test_damping_does_not_move_the_fixed_point_and_holds_where_gamp_diverges():
    on = problem(OneBit(), n=200, m=600, dtype="float64")
    _, obs = drawn(on, 10)
    free, damped = (ff.iterate(GAMP(on.prior, on.likelihood, damping=d), 200)(obs).x for d in (1.0, 0.6))
    assert nmse_db(damped, free) < -100
    on = problem(Quantised(3, 0.25), n=400, m=200, ensemble="conditioned", condition_number=8.0)
    x, obs = drawn(on, 10)
    free, damped = (nmse_db(ff.iterate(GAMP(on.prior, on.likelihood, damping=d), 100)(obs).x, x) for d in (1.0, 0.3))
    assert damped < -10
    assert not free <= 10  # it may be NaN


def test_what_gamp_cannot_do_is_said():
    on = problem(OneBit(), n=20, m=40)
    _, obs = drawn(on, 2)
    with pytest.raises(ValueError, match="noise variance"):
        ff.iterate(GAMP(on.prior, on.likelihood), 2)(ff.Observation(obs.y, obs.A))
    with pytest.raises(ValueError, match="damping"):
        GAMP(damping=1.5)


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_zero_deviation_is_gamp_through_every_likelihood(likelihood, dtype):
    """And in one precision throughout. The registry's laws see Gaussian noise, which is the default."""
    if isinstance(likelihood, Poisson) and dtype.startswith("complex"):
        pytest.skip("counts are real")
    on = GeneralizedLinear(n=48, m=40, likelihood=likelihood, dtype=dtype)
    x, obs = drawn(on, 3)
    algorithm = GAMP(on.prior, likelihood, damping=0.9)
    net = ff.unfold(algorithm, on, 6, dict.fromkeys(algorithm.nominals, "per-layer"))
    assert torch.equal(net(obs).x, ff.iterate(algorithm, 6)(obs).x)
    with StrictPromotion():
        x_hat = net(obs).x
        power(x_hat - x).sum().backward()
    assert x_hat.dtype == obs.y.dtype


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.parametrize("likelihood", LIKELIHOODS[1:], ids=str)
def test_every_likelihood_exports(likelihood, tmp_path):
    on = GeneralizedLinear(n=48, m=40, likelihood=likelihood)
    _, obs = drawn(on, 3)
    estimator = ff.iterate(GAMP(on.prior, likelihood), 2)  # the exporter takes seconds for each
    path = to_onnx(estimator, obs, tmp_path / "network.onnx")
    # sums of n products in another order, a few layers deep
    assert_close(in_runtime(path, obs)["x_hat"], estimator(obs).x)


# The problem


@pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=str)
def test_problems_and_networks_are_written_down_with_their_likelihood(likelihood):
    on = problem(likelihood, n=20, m=10)
    assert recipe.build_problem(recipe.describe_problem(on)) == on
    net = ff.unfold(GAMP(on.prior, likelihood), on, 2, {"tau_p_scale": "per-layer"})
    again = recipe.build_settings(recipe.describe_network(net)).build(on)
    assert again.algorithm == net.algorithm
    assert again.fingerprint == net.fingerprint


def test_shifted_problems_share_their_operator():
    on = problem(OneBit(), n=20, m=40)
    assert on.shifted(likelihood=Logistic()).A is on.A
    assert on.shifted(snr_db=20.0).noise_var == pytest.approx(on.noise_var / 10)
    first, second = (drawn(on, 3)[1].y for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "message"), [({"m": 30, "ensemble": "row-orthogonal"}, "m <= n"), ({"sparsity": 0.0}, "sparsity")]
)
def test_what_is_no_problem_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        GeneralizedLinear(n=20, **changes)


# Learning


def test_a_wrong_prior_is_unlearned_on_single_bits():
    """Trained from p = 0.4, six layers come within 0.4 dB of state evolution, of which the size of A takes 0.25 dB."""
    on = GeneralizedLinear(n=500, m=1500, snr_db=5.0, ensemble="iid")
    wrong = GAMP(BernoulliGaussian(0.4), OneBit())
    learned = ("p", "var", "noise_scale", "tau_p_scale", "tau_r_scale")
    net = ff.unfold(wrong, on, 6, dict.fromkeys(learned, "per-layer"))
    x, obs = drawn(on, 300)
    limit = bayes_limit(on)
    matched = nmse_db(ff.iterate(GAMP(on.prior, OneBit()), 6)(obs).x, x)
    assert nmse_db(net(obs).x.detach(), x) > db(limit) + 3
    ff.fit(net, on, steps=80, lr=1e-2, loss_layers=4, validation_samples=200, threads=1)
    trained = nmse_db(net(obs).x.detach(), x)
    assert trained < db(limit) + 0.4
    assert trained < matched + 0.1  # as good as GAMP that is told the prior
    (row,) = ff.evaluate({"unfolded": net}, on, layers=False, samples=300)
    assert row["limit_db"] == pytest.approx(db(limit))
    assert row["oracle_db"] is None  # that of linear measurements says nothing here
