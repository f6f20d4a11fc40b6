"""Problems that break an assumption draw what they say: a wrong operator, supports in clusters; and their oracle."""

import itertools
import math

import pytest
import torch

from fanfold.algorithms import OAMP
from fanfold.core.units import power
from fanfold.priors import BernoulliGaussian
from fanfold.priors.support_chain import SupportChain
from fanfold.problems import Clustered, CompressedSensing, Mismatched

DTYPES = ("float32", "float64", "complex64", "complex128")
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(error: float = 0.1, **fields) -> Mismatched:
    return Mismatched(CompressedSensing(n=40, m=20, **fields), error)


# A wrong operator


@each_dtype
@pytest.mark.parametrize("error", [0.01, 0.1])
def test_the_error_of_the_operator_has_the_size_asked_for(error, dtype):
    p = small(error, dtype=dtype)
    E = p.true_A.matrix() - p.A.matrix()
    # rounding of A + E to its precision moves entries of size 1 by eps
    assert (torch.linalg.matrix_norm(E) / torch.linalg.matrix_norm(p.A.matrix())).item() == pytest.approx(
        error, abs=4 * torch.finfo(E.dtype).eps
    )


def test_the_error_has_nothing_to_do_with_the_operator_of_the_same_seed():
    for seed in range(3):
        p = Mismatched(CompressedSensing(n=40, m=20, ensemble="iid", seed=seed), 0.1, seed)
        A, E = p.A.matrix(), p.true_A.matrix() - p.A.matrix()
        # the cosine of two independent Gaussian matrices has deviation 1 / sqrt(m n)
        assert abs((A * E).sum() / (A.norm() * E.norm())) < 5 / 800**0.5


@each_dtype
def test_the_true_operator_measures_and_the_believed_one_is_carried(dtype):
    p = small(dtype=dtype, snr_db=math.inf)
    x, obs = p.sample(5, rng(0))
    assert obs.A is p.A is p.problem.A
    assert p.with_true_operator(obs).A is p.true_A is p.shifted().true_A
    clean = p.true_A @ x
    # two products with A cancel: a few roundings of sums of 40
    assert (obs.y - clean).abs().max() < 100 * torch.finfo(obs.y.dtype).eps * clean.abs().max()
    assert (obs.y - p.A @ x).abs().max() > 0.01 * clean.abs().max()


def test_no_error_is_the_problem_itself_bit_for_bit():
    p = small(error=0.0)
    (x, obs), (same_x, same) = p.sample(5, rng(3)), p.problem.sample(5, rng(3))
    assert torch.equal(x, same_x)
    assert torch.equal(obs.y, same.y)
    assert p.true_A is p.A


def test_the_error_is_told_by_its_seed_and_the_noise_by_the_problem():
    p = small()
    assert p.shifted(error_seed=1).true_A.fingerprint() != p.true_A.fingerprint() == small().true_A.fingerprint()
    assert p.shifted(error_seed=1).A is p.A
    assert p.sample(2, rng(0))[1].noise_var.item() == pytest.approx(p.problem.noise_var)


def test_an_impossible_error_is_refused():
    with pytest.raises(ValueError, match=r"error is -0\.1; .*not negative"):
        small(-0.1)


# Supports in clusters


def clustered(**fields) -> Clustered:
    return Clustered(**{"n": 50, "m": 20} | fields)


@each_dtype
def test_unknowns_are_as_probable_and_as_strong_as_their_place_says(dtype):
    p, draws = clustered(dtype=dtype), 20_000
    x, _ = p.sample(draws, rng(0))
    active = (x != 0).double().mean(0)
    spread = (p.chain.p * (1 - p.chain.p) / draws).sqrt()
    assert ((active - p.chain.p).abs() < 5 * spread).all()
    # E|x|⁴ of an entry is 3 p var² if real and 2 p var² if complex
    strength = p.chain.p * p.chain.var
    spread = ((2 if x.is_complex() else 3) * p.chain.p * p.chain.var**2 / draws).sqrt()
    assert ((power(x).double().mean(0) - strength).abs() < 5 * spread).all()
    assert p.chain.p.mean().item() == pytest.approx(p.sparsity)
    assert strength.mean().item() == pytest.approx(p.sparsity)
    assert (p.chain.p[0] / p.chain.p[-1]).item() == pytest.approx(10)


def test_neighbours_are_correlated_as_a_chain_says():
    p, draws = clustered(fall_db=0.0), 20_000
    support = (p.sample(draws, rng(1))[0] != 0).double()
    centred = support - p.sparsity
    for lag in (1, 2, 5):
        correlation = (centred[:, lag:] * centred[:, :-lag]).mean() / (p.sparsity * (1 - p.sparsity))
        # pairs of one signal depend on each other over a cluster or two: count signals, not pairs
        assert abs(correlation.item() - 0.8**lag) < 5 * 3 / draws**0.5


def test_values_of_neighbours_are_not_correlated():
    x, _ = clustered().sample(20_000, rng(1))
    products = x[:, 1:] * x[:, :-1]
    assert (products.mean(0).abs() < 5 * products.std(0) / 20_000**0.5).all()


def test_snr_is_the_one_asked_for():
    p, draws = clustered(snr_db=13), 5000
    x, obs = p.sample(draws, rng(2))
    clean = p.A @ x
    energies, noise = power(clean).sum(-1).double(), power(obs.y - clean).sum(-1).double()
    spread = math.hypot(energies.std() / energies.mean(), noise.std() / noise.mean()) / draws**0.5
    assert abs(10 * math.log10(energies.mean() / noise.mean()) - 13) < 5 * 10 / math.log(10) * spread


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"m": 60}, "m is 60 and n is 50"),
        ({"persistence": 1.0}, "persistence is 1.0"),
        ({"fall_db": -1.0}, "fall_db is -1.0"),
        ({"sparsity": 0.5}, "gives the first unknown a probability of 1.2"),
        ({"sparsity": 0.0}, "positive sparsity"),
    ],
)
def test_what_is_no_clustered_problem_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        clustered(**fields)


# The prior of the whole signal


def by_enumeration(chain: SupportChain, r: torch.Tensor, v: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log density of r, posterior mean and variance, from every support there is."""
    n, parts = len(r), []
    for support in itertools.product((0, 1), repeat=n):
        log_p = 0.0
        for i, s in enumerate(support):
            p = chain.p[i].item()
            if i:
                follows = support[i - 1] * p / chain.p[i - 1].item()
                p = chain.persistence * follows + (1 - chain.persistence) * p
            log_p += math.log(p if s else 1 - p)
        active = torch.tensor(support, dtype=torch.float64)
        scale = active * chain.var + v
        log_r = (-(r**2) / (2 * scale) - 0.5 * torch.log(2 * math.pi * scale)).sum()
        parts.append((log_p + log_r, active * chain.var / scale * r, active * chain.var * v / scale))
    logs, means, variances = (torch.stack(list(a)) for a in zip(*parts))
    weights = torch.softmax(logs, 0)[:, None]
    mean = (weights * means).sum(0)
    return logs.logsumexp(0), mean, (weights * (variances + (means - mean) ** 2)).sum(0)


@pytest.mark.parametrize("persistence", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("v", [0.01, 0.5])
def test_posterior_and_evidence_are_those_over_all_supports(persistence, v):
    p = torch.tensor([0.4, 0.4, 0.3, 0.2, 0.2, 0.05], dtype=torch.float64)
    chain = SupportChain(p, torch.linspace(2, 0.5, 6, dtype=torch.float64), persistence)
    r = torch.randn(6, generator=rng(0), dtype=torch.float64)
    log_r, mean, var = by_enumeration(chain, r, v)
    got_mean, got_var = chain.posterior(r, v)
    for got, wanted in ((chain.log_evidence(r, v).sum(), log_r), (got_mean, mean), (got_var, var)):
        assert torch.allclose(got, wanted, rtol=1e-12, atol=1e-13)  # some hundred roundings of numbers up to 10


def test_divergence_of_the_posterior_mean_is_the_variance_over_the_noise():
    chain = Clustered(n=20, m=10, dtype="float64").chain
    r = torch.randn(20, generator=rng(0), dtype=torch.float64)
    slopes = torch.autograd.functional.jacobian(lambda r: chain.posterior(r, 0.3)[0], r).diagonal()
    assert torch.allclose(slopes, chain.posterior(r, 0.3)[1] / 0.3, rtol=1e-10, atol=1e-13)


def test_without_persistence_it_is_a_prior_of_independent_entries():
    chain, plain = SupportChain(torch.full((9,), 0.1), torch.full((9,), 2.0), 0.0), BernoulliGaussian(0.1, 2.0)
    x, r = plain.sample((4, 9), rng(0)), torch.randn(4, 9, generator=rng(1))
    assert torch.allclose(chain.log_prob(x), plain.log_prob(x), rtol=1e-5)
    assert torch.allclose(chain.log_evidence(r, 0.1), plain.log_evidence(r, 0.1), rtol=1e-5)
    for mine, theirs in zip(chain.posterior(r, 0.1), plain.posterior(r, 0.1)):
        assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_it_claims_the_error_that_it_makes(dtype):
    chain, v = clustered().chain, 0.1
    x = chain.sample((4000, 50), rng(0), dtype)
    r = x + (v**0.5) * torch.randn(x.shape, generator=rng(1), dtype=dtype)
    x_hat, var = chain.posterior(r, v)
    surplus = power(x_hat - x).mean(-1).double() - var.mean(-1).double()
    assert abs(surplus.mean()) < 5 * surplus.std() / 4000**0.5
    apart = BernoulliGaussian(0.1).posterior_mean(r, v)
    assert power(x_hat - x).mean() < 0.9 * power(apart - x).mean()  # or its structure were worth nothing


def test_a_draw_has_the_density_that_its_frequency_says():
    chain = SupportChain(torch.tensor([0.5, 0.4]), torch.ones(2), 0.6)
    x = chain.sample((20_000, 2), rng(0))
    zeros = (x == 0).all(-1).double().mean().item()
    wanted = chain.log_prob(torch.zeros(2)).sum().exp().item()
    assert abs(zeros - wanted) < 5 * (wanted * (1 - wanted) / 20_000) ** 0.5


def test_a_rising_chain_is_refused():
    with pytest.raises(ValueError, match="rises along the signal"):
        SupportChain(torch.tensor([0.1, 0.2]), torch.ones(2))


def test_oamp_that_is_told_the_chain_beats_oamp_that_is_told_the_share():
    from fanfold.core.units import nmse_db
    from fanfold.unfolding.unfold import iterate

    p = Clustered()
    x, obs = p.sample(300, rng(0))
    told, share = (nmse_db(iterate(OAMP(prior), 10)(obs).x, x) for prior in (p.chain, BernoulliGaussian(0.1)))
    assert told < share - 1


# Both


@each_dtype
def test_draws_have_the_precision_asked_for(dtype):
    for problem in (small(dtype=dtype), clustered(dtype=dtype)):
        x, obs = problem.sample(2, rng(0))
        assert x.dtype == obs.y.dtype == obs.A.dtype == getattr(torch, dtype)
        assert obs.noise_var.dtype == x.dtype.to_real()


# The study of dense weights


def contest(**fields):
    from fanfold.experiments.sparse.contest import Contest

    on = small()
    x, obs = on.sample(2, rng(0))
    return Contest(**{"case": "error of A", "at": 0.1, "on": on, "layers": 3, "x": x, "obs": obs} | fields)


def outcomes_with(dense_db: float):
    """Results of a contest with OAMP, untrained and told, at 20 and 40 dB, and a dense network wherever."""
    from fanfold.experiments.sparse.contest import CP, SCALARS, UNTRAINED, Result
    from fanfold.experiments.sparse.dense_weights import FITTED_A, TRUE_A

    kinds = {UNTRAINED: ("untrained", 20.0), TRUE_A: ("told", 40.0), FITTED_A: ("told", 39.9)}
    kinds |= {SCALARS: ("light", 20.5), CP: ("dense", dense_db)}
    return {name: Result(name, kind, gain) for name, (kind, gain) in kinds.items()}


@pytest.mark.parametrize(("dense_db", "word"), [(18.0, "loses by 2.00 dB"), (27.0, "wins by 7.00 dB")])
def test_a_network_that_loses_to_untrained_oamp_is_reported_as_losing(dense_db, word):
    from fanfold.experiments.sparse.contest import CP
    from fanfold.experiments.sparse.dense_weights import goals_of, outcome, section, verdict

    held, results = contest(), outcomes_with(dense_db)
    (row,) = (r for r in outcome(held, results) if r["method"] == CP)
    assert row["against untrained OAMP"] == word
    assert row["NMSE (dB)"] == -dense_db
    wins = dense_db > 20.5  # the best without matrices that learn
    assert ("beats" in section("error of A", [held], [results]).text) == wins
    assert ("Where they lose: none" in verdict([held], [results])) == wins
    layers = contest(case="layers", at=2, on=CompressedSensing())
    goals = goals_of([held, layers], [results, outcomes_with(15.0)], quick=False)
    assert [g.passed for g in goals] == [dense_db - 20.0 >= 6.0, True, True]


def test_the_operator_that_pairs_tell_is_the_true_one():
    from fanfold.experiments.sparse.dense_weights import PAIRS, fitted_operator

    p = small(snr_db=40.0)
    M = p.true_A.matrix()
    error = torch.linalg.matrix_norm(fitted_operator(p, 0).matrix() - M) / torch.linalg.matrix_norm(M)
    # least squares: variance noise_var / (PAIRS E|x|²) an entry, entries of A having 1 / m
    assert error.item() == pytest.approx((p.noise_var * p.A.m / (PAIRS * 0.1)) ** 0.5, rel=0.2)


def test_the_best_separable_prior_is_found():
    from fanfold.experiments.sparse.contest import best_oamp

    _, plain = best_oamp(CompressedSensing(n=100, m=50, sparsity=0.1), 8, 0)
    assert plain.prior.p in (0.05, 0.1, 0.15)
    assert plain.prior.power == pytest.approx(0.1, rel=5 * (3 / (0.1 * 20_000)) ** 0.5)  # E|x|⁴ = 3p
