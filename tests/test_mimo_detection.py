"""MIMO detection: channels as they are said to be, operators that vary, and detectors against what is known of them."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

import fanfold as ff
from fanfold.algorithms import EP, FISTA, ISTA, LISTA, OAMP, OAMPNet2
from fanfold.cli import trained
from fanfold.core.units import from_db, power
from fanfold.estimators import LMMSE, SphereDecoder, UnbiasedLMMSE, ZeroForcing, matched_filter_bound
from fanfold.experiments.sparse.mimo_detection import error_rate, snr_at
from fanfold.linops import Batched, Dense
from fanfold.observation import Observation
from fanfold.priors import Constellation
from fanfold.problems import MIMODetection
from fanfold.runs.directory import Run

DETECTORS = (OAMP, OAMPNet2, EP)
DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)

each_detector = pytest.mark.parametrize("kind", DETECTORS, ids=lambda kind: kind.__name__)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(samples: int = 5, seed: int = 0, **fields) -> tuple[MIMODetection, torch.Tensor, Observation]:
    problem = MIMODetection(**({"users": 4, "antennas": 4, "dtype": "complex128"} | fields))
    return problem, *problem.sample(samples, rng(seed))


def alone(obs: Observation, b: int) -> Observation:
    """Sample b with its matrix as an ordinary operator."""
    return Observation(obs.y[b : b + 1], Dense(obs.A.matrix()[b]), obs.noise_var)


# Channels


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_empirical_snr_is_the_one_asked_for(rho):
    draws = 4000
    p, x, obs = drawn(draws, users=6, antennas=8, correlation=rho, snr_db=7.0, constellation="16-qam")
    clean = obs.A @ x
    signal, noise = power(clean).mean(-1), power(obs.y - clean).mean(-1)
    assert abs(signal.mean() - 6 / 8) < 5 * signal.std() / draws**0.5
    assert abs(noise.mean() - obs.noise_var) < 5 * noise.std() / draws**0.5
    assert obs.noise_var.item() == pytest.approx(6 / 8 / from_db(7.0)) == pytest.approx(p.noise_var)


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_channels_have_the_covariance_of_the_kronecker_model(rho):
    """`E H_ij H_kl* = rho^|i-k| rho^|j-l| / m`; a product of Gaussians has a variance of 1 / m² at most."""
    draws, m, n = 20_000, 4, 3
    H = MIMODetection(n, m, correlation=rho, dtype="complex128").channels(draws, rng())
    R = [rho ** (torch.arange(k)[:, None] - torch.arange(k)).abs().double() for k in (m, n)]
    measured = torch.einsum("bij,bkl->ijkl", H, H.conj()) / draws
    expected = torch.einsum("ik,jl->ijkl", *R) / m
    assert (measured - expected).abs().max() < 6 / m / draws**0.5  # 144 entries


def test_every_use_has_a_channel_of_its_own_and_the_draw_repeats():
    _, x, obs = drawn(seed=3)
    _, again, same = drawn(seed=3)
    assert torch.equal(x, again)
    assert torch.equal(obs.A.matrix(), same.A.matrix())
    gaps = (obs.A.matrix()[:, None] - obs.A.matrix()).abs().amax((-1, -2))
    assert (gaps + torch.eye(5) > 0.1).all()


@pytest.mark.parametrize("wrong", [{"users": 0}, {"correlation": 1.0}, {"constellation": "8-psk"}])
def test_what_cannot_be_a_system_is_refused(wrong):
    with pytest.raises(ValueError, match=r"pass|take"):
        MIMODetection(**wrong)


# An operator for each sample


@each_dtype
def test_a_batched_operator_is_a_loop_over_its_matrices(dtype):
    M = torch.randn(5, 4, 3, generator=rng(), dtype=dtype)
    x, y = torch.randn(5, 3, generator=rng(1), dtype=dtype), torch.randn(5, 4, generator=rng(2), dtype=dtype)
    A, each = Batched(M), [Dense(m) for m in M]
    U, s, V = A.svd()
    pairs = [
        (A @ x, [a @ v for a, v in zip(each, x)]),
        (A.H @ y, [a.H @ v for a, v in zip(each, y)]),
        (A @ x[0], [a @ x[0] for a in each]),
        (A.H.matrix(), [a.H.matrix() for a in each]),
        (A.gram_diagonal(), [a.gram_diagonal() for a in each]),
        (A.norm()[:, 0], [torch.tensor(a.norm(), dtype=s.dtype) for a in each]),
        (s, [a.svd().s for a in each]),
        (U @ (s * (V.H @ x)), [a @ v for a, v in zip(each, x)]),
        (A[1:3] @ x[1:3], [a @ v for a, v in zip(each[1:3], x[1:3])]),
    ]
    for whole, parts in pairs:
        # sums of at most 4 products, and the error of a decomposition, m + n roundings of the norm
        torch.testing.assert_close(whole, torch.stack(parts), rtol=0, atol=50 * torch.finfo(dtype).eps * 5)


@pytest.mark.parametrize("shape", [(4, 3), (0, 4, 3), (2, 4, 0)])
def test_matrices_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"\(batch, m, n\)"):
        Batched(torch.ones(shape))


def test_another_number_of_samples_and_matrices_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="a matrix for each of 2 samples but the batch has 3"):
        Batched(torch.ones(2, 4, 3)) @ torch.ones(3, 3)
    with pytest.raises(ValueError, match=r"first bad entry is at \(1, 0, 2\)"):
        Batched(
            torch.ones(2, 4, 3).index_put((torch.tensor(1), torch.tensor(0), torch.tensor(2)), torch.tensor(math.nan))
        )


def test_rows_of_an_observation_keep_their_matrices():
    _, _, obs = drawn()
    assert torch.equal(obs[1:3].A.matrix(), obs.A.matrix()[1:3])


@pytest.mark.parametrize("kind", [*DETECTORS, ISTA, FISTA], ids=lambda kind: kind.__name__)
def test_an_algorithm_on_a_batch_of_channels_is_a_loop_over_them(kind):
    p, _, obs = drawn()
    algorithm = kind() if kind in (ISTA, FISTA) else kind(p.prior)
    whole = ff.iterate(algorithm, 6)(obs).x
    for b in range(len(obs.y)):
        # rounding of a few layers of products with matrices of condition number 100
        torch.testing.assert_close(whole[b : b + 1], ff.iterate(algorithm, 6)(alone(obs, b)).x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@each_detector
def test_tied_is_classical_for_every_channel(kind, dtype):
    """A network unfolded for the ensemble is the algorithm, bit for bit, on channels that it has not seen."""
    p, _, obs = drawn(dtype=dtype, constellation="16-qam")
    algorithm = kind(p.prior)
    net = ff.unfold(algorithm, p, 6, dict.fromkeys(algorithm.nominals, "tied"))
    assert torch.equal(net(obs).x, ff.iterate(algorithm, 6)(obs).x)
    assert torch.equal(net(obs[:2]).x, ff.iterate(algorithm, 6)(obs[:2]).x)


@pytest.mark.parametrize("words", ["tied scalar", "per-layer vector", "per-layer"])
def test_numbers_that_follow_each_matrix_deviate_alike(words):
    p, _, obs = drawn()
    net = ff.unfold(ISTA(), p, 4, {"step": words})
    shapes = {"tied scalar": (1, 1, 1), "per-layer vector": (4, 1, 4), "per-layer": (4, 1, 1)}
    assert net.deviations["step"].shape == shapes[words]
    assert torch.equal(net(obs).x, ff.iterate(ISTA(), 4)(obs).x)
    with torch.no_grad():
        net.deviations["step"] += 0.1
    moved = net(obs).x
    assert not torch.equal(moved, ff.iterate(ISTA(), 4)(obs).x)
    for b in range(len(obs.y)):
        one = ff.unfold(ISTA(), alone(obs, b), 4, {"step": "tied"})
        with torch.no_grad():
            one.deviations["step"] += 0.1
        torch.testing.assert_close(moved[b : b + 1], one(alone(obs, b)).x)


def test_matrices_made_of_one_channel_are_not_learned_for_all():
    p, _, _ = drawn()
    with pytest.raises(
        ValueError, match="LISTA designs or learns matrices for one A, and here each sample has its own"
    ):
        ff.unfold(LISTA(), p, 4, {"W1": "tied"})

    class Mine(LISTA):  # that does not say so of itself
        one_matrix = False

    with pytest.raises(ValueError, match="W1 of Mine is made of A, which differs from sample to sample"):
        ff.unfold(Mine(), p, 4, {"W1": "tied"})


def test_training_on_channels_pays_on_others_and_is_kept(tmp_path):
    p, x, obs = drawn(500, users=8, antennas=8, snr_db=14.0, dtype="complex64")
    untrained = OAMPNet2(p.prior)
    net = ff.unfold(untrained, p, 5, {"gamma": "per-layer", "theta": "per-layer"})
    ff.fit(net, p, steps=40, lr=1e-2, seed=1, threads=1, run_dir=tmp_path / "run")
    assert power(net(obs).x - x).sum() < 0.9 * power(ff.iterate(untrained, 5)(obs).x - x).sum()
    again = Run.open(tmp_path / "run").estimator()
    assert torch.equal(again(obs).x, net(obs).x)


def test_a_file_of_measurements_without_its_channels_is_not_detected(tmp_path):
    p, _, obs = drawn(dtype="complex64")
    net = ff.unfold(OAMPNet2(p.prior), p, 2, {"gamma": "per-layer"})
    ff.fit(net, p, steps=1, threads=1, run_dir=tmp_path / "run")
    np.save(tmp_path / "y.npy", obs.y.numpy())
    with pytest.raises(ValueError, match="has an operator of its own"):
        trained.apply(tmp_path / "run", tmp_path / "y.npy", tmp_path / "x_hat.npy")


def test_a_network_for_channels_of_another_shape_is_refused():
    p, _, _ = drawn()
    net = ff.unfold(OAMP(p.prior), p, 3, {"v_linear": "per-layer"})
    _, _, other = drawn(antennas=5)
    with pytest.raises(ValueError, match="belongs to another operator"):
        net(other)


# Detectors


@pytest.mark.parametrize("name", ["qpsk", "16-qam"])
@pytest.mark.parametrize("snr_db", [0.0, 8.0])
def test_sphere_decoder_is_brute_force(name, snr_db):
    users = 4 if name == "qpsk" else 2
    p, _, obs = drawn(40, users=users, antennas=users + 1, constellation=name, snr_db=snr_db)
    a = p.prior.levels(obs.y)
    points = torch.complex(*torch.meshgrid(a, a, indexing="ij")).flatten().tolist()
    every = torch.tensor(list(itertools.product(points, repeat=users)), dtype=torch.complex128)
    distance = power(obs.y[:, None] - torch.einsum("bmn,kn->bkm", obs.A.matrix(), every)).sum(-1)
    most_likely = every[distance.argmin(-1)]
    decoder = SphereDecoder(p.prior)
    assert torch.equal(decoder(obs).x, most_likely)
    found = decoder.search(obs, guess=most_likely)  # to be found again, in spite of rounding, and no later
    assert torch.equal(found.x, most_likely)
    assert found.finished.all()
    assert found.nodes.sum() <= decoder.search(obs).nodes.sum() < 0.5 * len(every) * len(obs.y)


def test_real_sphere_decoder_is_brute_force():
    prior, H = Constellation("16-qam"), torch.randn(3, 3, generator=rng(), dtype=torch.float64)
    x = prior.sample((20, 3), rng(1), torch.float64)
    obs = Observation(x @ H.T + 0.7 * torch.randn(20, 3, generator=rng(2), dtype=torch.float64), Dense(H), 0.49)
    every = torch.cartesian_prod(*[prior.levels(x)] * 3)
    most_likely = every[power(obs.y[:, None] - every @ H.T).sum(-1).argmin(-1)]
    assert torch.equal(SphereDecoder(prior)(obs).x, most_likely)


def test_sphere_decoder_says_when_it_gives_up():
    p, _, obs = drawn(20, users=8, antennas=8, snr_db=0.0)
    decoder = SphereDecoder(p.prior, node_limit=10)
    found = decoder.search(obs)
    assert not found.finished.any()
    assert (found.nodes == 10).all()
    with pytest.raises(ValueError, match="gave up 20 of 20 searches after 10 nodes each: raise node_limit"):
        decoder(obs)


@pytest.mark.parametrize("estimator", [SphereDecoder(Constellation()), ZeroForcing()], ids=["sphere", "zf"])
def test_fewer_antennas_than_users_are_refused(estimator):
    _, _, obs = drawn(antennas=3)
    with pytest.raises(ValueError, match="at least as many measurements as unknowns"):
        estimator(obs)


@pytest.mark.parametrize("detector", [ZeroForcing(), UnbiasedLMMSE()], ids=["zf", "lmmse"])
def test_one_user_in_rayleigh_fading_errs_as_the_closed_form_says(detector):
    """QPSK over one Rayleigh channel: `1 - (1 - P)²` averaged; bits err with `(1 - mu) / 2`, `mu² = g / (1 + g)`,
    where `g = snr / 2` is the mean SNR of a bit (Proakis & Salehi, eq. 13.3-7)."""
    draws, snr_db = 60_000, 10.0
    p, x, obs = drawn(draws, users=1, antennas=1, snr_db=snr_db)
    bits = p.prior.bits(detector(obs).x) != p.prior.bits(x)
    g = from_db(snr_db) / 2
    expected = (1 - math.sqrt(g / (1 + g))) / 2
    rate = bits.double().mean().item()
    assert abs(rate - expected) < 5 * (expected / draws) ** 0.5  # the two bits of a symbol fade together


def test_matched_filter_bound_is_zero_forcing_of_a_single_user_and_below_it_for_more():
    _, _, single = drawn(users=1, antennas=3)
    torch.testing.assert_close(matched_filter_bound(single), ZeroForcing()(single).var)
    _, _, many = drawn(users=4, antennas=5)
    assert (matched_filter_bound(many) < ZeroForcing()(many).var).all()


@pytest.mark.parametrize("detector", [ZeroForcing(), UnbiasedLMMSE()], ids=["zf", "lmmse"])
def test_linear_detectors_have_gain_one_and_the_variance_that_they_say(detector):
    draws = 20_000
    H = torch.randn(1, 5, 4, generator=rng(), dtype=torch.complex128)
    prior = Constellation("16-qam")
    x = prior.sample((draws, 4), rng(1), torch.complex128)
    A = Dense(H[0])
    y = A @ x + torch.randn(draws, 5, generator=rng(2), dtype=torch.complex128) * 0.5**0.5
    estimate = detector(Observation(y, A, 0.5))
    gain, error = estimate.x * x.conj(), power(estimate.x - x)
    assert ((gain.mean(0) - 1).abs() < 5 * power(gain - 1).mean(0).sqrt() / draws**0.5).all()
    assert ((error.mean(0) - estimate.var[0]).abs() < 5 * error.std(0) / draws**0.5).all()


def test_lmmse_on_a_batch_of_channels_is_a_loop_over_them():
    _, _, obs = drawn()
    lmmse = LMMSE(None, torch.eye(4, dtype=torch.complex128))
    whole = lmmse(obs)
    for b in range(len(obs.y)):
        one = lmmse(alone(obs, b))
        torch.testing.assert_close(whole.x[b : b + 1], one.x)
        torch.testing.assert_close(whole.var[b : b + 1], one.var)


@pytest.mark.parametrize("name", ["qpsk", "16-qam", "64-qam"])
@each_detector
def test_almost_no_noise_is_detected_without_error(kind, name):
    """Twice as many antennas as users and 80 dB: interference is gone with the first linear step."""
    p, x, obs = drawn(50, users=4, antennas=8, constellation=name, snr_db=80.0)
    assert torch.equal(p.prior.nearest(ff.iterate(kind(p.prior), 10)(obs).x), x)


def test_expectation_propagation_needs_no_noise_to_recover():
    p, x, obs = drawn(50, users=4, antennas=4, constellation="16-qam", snr_db=math.inf)
    assert obs.noise_var == 0
    assert torch.equal(p.prior.nearest(ff.iterate(EP(p.prior), 10)(obs).x), x)


def test_an_unknown_noise_variance_is_refused():
    _, _, obs = drawn()
    with pytest.raises(ValueError, match="needs noise_var"):
        ff.iterate(OAMPNet2(), 3)(Observation(obs.y, obs.A))


def test_expectation_propagation_on_a_gaussian_prior_is_lmmse():
    """Where every factor is Gaussian from the start its moments are exact at the fixed point."""
    _, _, obs = drawn(users=4, antennas=5)
    exact = LMMSE(None, torch.eye(4, dtype=torch.complex128))(obs)
    found = ff.iterate(EP(ff.priors.Gaussian(1.0)), 3)(obs)
    torch.testing.assert_close(found.x, exact.x)
    torch.testing.assert_close(found.var, exact.var)


def test_detectors_stand_in_the_order_that_theory_gives():
    """ML below message passing below LMMSE below ZF, and none below the matched-filter bound; 8x8 QPSK at 12 dB."""
    p, x, obs = drawn(2000, users=8, antennas=8, snr_db=12.0, dtype="complex64")
    ep = ff.iterate(EP(p.prior), 10)
    detectors = {
        "zf": ZeroForcing(), "lmmse": UnbiasedLMMSE(), "oamp": ff.iterate(OAMP(p.prior), 10), "ep": ep,
        "ml": SphereDecoder(p.prior),
    }  # fmt: skip
    rate = {name: error_rate(p.prior.nearest(d(obs).x) != x) for name, d in detectors.items()}
    assert rate["ml"]["high"] < rate["oamp"]["low"] < rate["oamp"]["high"] < rate["lmmse"]["low"]
    assert rate["lmmse"]["high"] < rate["zf"]["low"]
    assert rate["ml"]["ser"] <= rate["ep"]["ser"] < rate["oamp"]["low"]
    v = matched_filter_bound(obs).double()
    single = 1 - (1 - torch.as_tensor(norm.sf((1 / v.sqrt()).numpy()))) ** 2
    assert single.mean() < rate["ml"]["low"]


# Rates


def test_interval_covers_the_truth_as_often_as_it_says_also_when_errors_come_together():
    """Half of 400 intervals from uses that are good or bad as a whole; 95 % ± 5 standard errors of that share."""
    generator, covered, trials = rng(), 0, 400
    for _ in range(trials):
        bad = torch.rand(400, 1, generator=generator) < 0.2
        wrong = torch.rand(400, 16, generator=generator) < torch.where(bad, 0.5, 0.01)
        rate = error_rate(wrong)
        covered += rate["low"] <= 0.2 * 0.5 + 0.8 * 0.01 <= rate["high"]
    assert abs(covered / trials - 0.95) < 5 * (0.95 * 0.05 / trials) ** 0.5


def test_no_error_at_all_still_has_an_upper_end():
    rate = error_rate(torch.zeros(100, 10, dtype=torch.bool))
    assert rate["ser"] == rate["low"] == 0
    assert rate["high"] == pytest.approx(1.96**2 / (1000 + 1.96**2))


def test_snr_at_a_rate_is_interpolated_in_the_logarithm():
    assert snr_at({10.0: 1e-2, 14.0: 1e-4}, 1e-3) == pytest.approx(12.0)
    assert snr_at({10.0: 1e-2, 14.0: 2e-3}, 1e-3) is None
    assert snr_at({10.0: 1e-4, 14.0: 1e-5}, 1e-3) is None
