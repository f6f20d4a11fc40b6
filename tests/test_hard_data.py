"""Every algorithm on data that are degenerate, huge, tiny or coarse: finite and right, or refused by a sentence.

Right is what the same algorithm says in double precision of the problem without its zeros or its scale, what a formula
in numpy says, or the posterior itself.
"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import fanfold as ff
from fanfold.algorithms import REGISTRY, Algorithm
from fanfold.core.precision import double
from fanfold.core.units import nmse_db, power
from fanfold.linops import Batched, Dense, Diagonal, Kronecker, Mask
from fanfold.observation import Estimate, Observation
from fanfold.penalties import L1
from fanfold.priors import BernoulliGaussian, Constellation, Gaussian, GaussianMixture
from laws import estimate_or_refusal

PRIOR = BernoulliGaussian(0.2)
WITH_PRIOR = ("ep", "gamp", "lvamp", "oamp", "oamp-net2", "tista")
WITH_LAM = ("fista", "ista", "lista", "lista-cp", "lista-cpss")
SPLITTING = ("admm", "douglas-rachford", "primal-dual", "proximal-gradient")
every = pytest.mark.parametrize("name", REGISTRY)
REAL, COMPLEX = torch.float64, torch.complex128
each_field = pytest.mark.parametrize("dtype", [REAL, COMPLEX], ids=["real", "complex"])


def make(name: str, size: float = 1.0, units: float = 1.0) -> Algorithm:
    """The algorithm with its settings in the units of an A of that size and an x of those units."""
    kind, lam = REGISTRY[name], 0.05 * size**2 * units
    if name in WITH_PRIOR:
        return kind(replace(PRIOR, var=units**2), **({"damping": 0.7} if name == "ep" else {}))
    if name in WITH_LAM:
        return kind(lam)
    more = {
        "admm": {"rho": size**2},
        "douglas-rachford": {"gamma": size**-2},
        "primal-dual": {"ratio": 1 / size},
        "alista": {"lam": 0.05 * units},
        "alista-at": {"ridge": size**2},
    }
    return kind(*([L1(lam)] if name in SPLITTING else []), **more.get(name, {}))


def drawn(m: int, n: int, dtype: torch.dtype, noise_var: float = 1e-3, samples: int = 3, seed: int = 0):
    """A matrix with entries of variance `1 / m`, signals, and a function that measures them through any matrix."""
    generator = torch.Generator().manual_seed(seed)
    A = torch.randn(m, n, generator=generator, dtype=dtype) / m**0.5
    x = PRIOR.sample((samples, n), generator, dtype)
    w = noise_var**0.5 * torch.randn(samples, m, generator=generator, dtype=dtype)
    return A, x, w


def is_finite(estimate: Estimate) -> bool:
    x = torch.view_as_real(estimate.x) if estimate.x.is_complex() else estimate.x
    return bool(torch.isfinite(x).all()) and (
        estimate.var is None or bool((torch.isfinite(estimate.var) & (estimate.var >= 0)).all())
    )


# Unknowns that nothing sees


STRUCTURES = ("dense", "tall", "kronecker", "one-a-sample", "diagonal", "mask", "product")
DEAD = [(kind, REAL) for kind in STRUCTURES] + [(kind, COMPLEX) for kind in ("dense", "kronecker", "one-a-sample")]


def dead(kind: str, dtype: torch.dtype) -> ff.linops.LinearOperator:
    """An operator of 20 unknowns, or 25, of which some leave no trace."""
    A = drawn(12, 20, dtype)[0]
    A[:, [3, 11]] = 0
    tall = drawn(24, 20, dtype)[0]
    tall[:, 7] = 0
    first, second = drawn(4, 5, dtype)[0], drawn(3, 5, dtype, seed=1)[0]
    first[:, 2] = 0
    each = torch.stack([A, drawn(12, 20, dtype, seed=2)[0], A.roll(5, -1)])
    d = torch.linspace(0.5, 1.5, 20, dtype=torch.float64).to(dtype)
    d[4] = 0
    return {
        "dense": lambda: Dense(A),
        "tall": lambda: Dense(tall),
        "kronecker": lambda: Kronecker(first, second),
        "one-a-sample": lambda: Batched(each),
        "diagonal": lambda: Diagonal(d),
        "mask": lambda: Mask(torch.arange(0, 20, 2), 20, dtype),
        "product": lambda: Dense(drawn(12, 12, dtype, seed=3)[0]) @ Dense(A),
    }[kind]()


@pytest.mark.parametrize(("kind", "dtype"), DEAD, ids=str)
@every
def test_an_unknown_that_nothing_sees_keeps_its_prior_and_leaves_the_others_alone(name, kind, dtype):
    algorithm, A = make(name), dead(kind, dtype)
    if A.varies and algorithm.one_matrix:
        return
    _, x, w = drawn(A.m, A.n, dtype)
    obs = Observation(A @ x + w, A, 1e-3)
    estimate = ff.iterate(algorithm, 6)(obs)
    assert is_finite(estimate)
    matrices = A.matrix().expand(3, A.m, A.n)
    for i, matrix in enumerate(matrices):
        seen = power(matrix).sum(0) > 0
        alone = ff.iterate(algorithm, 6)(Observation(obs.y[i], Dense(matrix[:, seen]), 1e-3))
        # six steps in double precision, of which GAMP's diverge where A is a mask or a product
        torch.testing.assert_close(estimate.x[i, seen], alone.x, rtol=1e-6, atol=1e-7 * alone.x.abs().max().item())
        assert (estimate.x[i, ~seen].abs() < 1e-12).all()  # rounding of singular vectors
        if estimate.var is not None:
            torch.testing.assert_close(estimate.var[i, seen], alone.var, rtol=1e-5, atol=1e-9)
            assert estimate.var[i, ~seen].tolist() == pytest.approx([PRIOR.power] * int((~seen).sum()), rel=1e-5)


@each_field
@pytest.mark.parametrize("varies", [False, True], ids=["one", "one-a-sample"])
@pytest.mark.parametrize("kind", ["bernoulli-gaussian", "gaussian", "mixture"])
def test_settings_are_estimated_from_the_unknowns_that_are_seen(kind, varies, dtype):
    prior = {
        "bernoulli-gaussian": BernoulliGaussian(0.1),
        "gaussian": Gaussian(0.3),
        "mixture": GaussianMixture((0.9, 0.1), (0.0, 0.0), (0.01, 1.0)),
    }[kind]
    algorithm = ff.algorithms.OAMP(prior, settings="estimated")
    A, _, w = drawn(24, 40, dtype)
    x = 2 * prior.sample((3, 40), torch.Generator().manual_seed(0), dtype)
    unseen = torch.arange(40) % 2 == 1
    A[:, unseen] = 0
    y = x @ A.mT + w
    estimate = ff.iterate(algorithm, 6)(Observation(y, Batched(A.expand(3, 24, 40)) if varies else Dense(A), 1e-3))
    alone = ff.iterate(algorithm, 6)(Observation(y, Dense(A[:, ~unseen]), 1e-3))
    torch.testing.assert_close(estimate.x[:, ~unseen], alone.x, rtol=1e-6, atol=1e-7)
    assert (estimate.x[:, unseen].abs() < 1e-12).all()


@each_field
def test_a_field_tells_of_unknowns_that_nothing_sees_by_their_neighbours(dtype):
    """Every other entry is seen by itself: linear regression on those, by numpy."""
    root, w = drawn(8, 8, dtype)[0], drawn(4, 8, dtype)[2]
    field = ff.priors.GaussianField(torch.zeros(8, dtype=dtype), root @ root.mH)
    A, C = Mask(torch.tensor([0, 2, 4, 6]), 8, dtype), (root @ root.mH).numpy()
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(5), dtype=dtype) @ root.mT
    y = A @ x + 10 * w
    estimate = ff.iterate(ff.algorithms.OAMP(field), 20)(Observation(y, A, 0.1))
    G = C[:, ::2] @ np.linalg.inv(C[::2, ::2] + 0.1 * np.eye(4))
    torch.testing.assert_close(estimate.x, torch.from_numpy(y.numpy() @ G.T), rtol=1e-5, atol=1e-6)
    var = torch.from_numpy((C - G @ C[::2]).diagonal().real.copy()).expand(3, 8)
    torch.testing.assert_close(estimate.var, var, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", WITH_PRIOR)
def test_the_mean_of_the_prior_need_not_be_zero(name):
    prior = GaussianMixture((0.5, 0.5), (0.0, 2.0), (0.1, 0.1))
    A, x, w = drawn(12, 8, REAL)
    A[:, 5] = 0
    estimate = ff.iterate(REGISTRY[name](prior), 30)(Observation((x + 1) @ A.mT + w, Dense(A), 1e-3))
    assert is_finite(estimate)
    assert estimate.x[:, 5].tolist() == pytest.approx([1.0] * 3, rel=1e-3)
    assert estimate.var is not None
    assert estimate.var[:, 5].tolist() == pytest.approx([1.1] * 3, rel=1e-3)


@each_field
@every
def test_an_operator_of_zeros_is_refused(name, dtype):
    algorithm = make(name)
    y = torch.ones(3, 4, dtype=dtype)
    with pytest.raises(ValueError, match="is zero: it measures nothing"):
        ff.iterate(algorithm, 2)(Observation(y, Dense(torch.zeros(4, 6, dtype=dtype)), 0.1))
    with pytest.raises(ValueError, match="is zero: it measures nothing"):
        ff.unfold(algorithm, Observation(y, Dense(torch.zeros(4, 6, dtype=dtype)), 0.1), 2)
    if not algorithm.one_matrix:
        matrices = torch.ones(3, 4, 6, dtype=dtype)
        matrices[1] = 0
        with pytest.raises(ValueError, match=r"the matrix of sample 1 of Batched.* is zero"):
            ff.iterate(algorithm, 2)(Observation(y, Batched(matrices), 0.1))


@each_field
@every
def test_a_sensor_that_is_dead_leaves_finite_numbers(name, dtype):
    for m, n in ((12, 20), (24, 20)):
        A, x, w = drawn(m, n, dtype)
        A[2] = 0
        for noise_var in (1e-3, 0.0):
            assert is_finite(
                ff.iterate(make(name), 30)(Observation(x @ A.mT + w * (noise_var > 0), Dense(A), noise_var))
            )


# More measurements than unknowns, as many, and a single unknown


def posterior_of_least_squares(A: torch.Tensor, y: torch.Tensor, noise_var: float) -> torch.Tensor:
    """The posterior mean beside least squares, all of whose errors are taken to be alike."""
    M = A.numpy()
    r, v = y.numpy() @ np.linalg.pinv(M).T, noise_var * (np.linalg.svd(M, compute_uv=False) ** -2.0).mean()
    return PRIOR.posterior_mean(torch.from_numpy(r), torch.tensor(v))


@each_field
@pytest.mark.parametrize("shape", [(40, 30), (60, 30), (30, 30), (5, 1), (1, 1)], ids=str)
def test_tista_with_as_many_measurements_as_unknowns_is_least_squares_and_the_posterior(shape, dtype):
    A, x, w = drawn(*shape, dtype, samples=50)
    y = x @ A.mT + w
    x_hat = ff.iterate(make("tista"), 10)(Observation(y, Dense(A), 1e-3)).x
    torch.testing.assert_close(x_hat, posterior_of_least_squares(A, y, 1e-3), rtol=1e-6, atol=1e-9)


def test_tista_reaches_what_its_paper_says_for_tall_matrices():
    """Within 1 dB: the matrix and 2000 draws of 30 unknowns differ from those of the numbers."""
    for m, expected_db in ((40, -20.7), (60, -25.7)):
        A, x, w = drawn(m, 30, REAL, samples=2000)
        estimate = ff.iterate(ff.algorithms.TISTA(BernoulliGaussian(0.1)), 20)(
            Observation((x * (power(x) > 0)) @ A.mT + w, Dense(A), 1e-3)
        )
        assert nmse_db(estimate.x, x) < expected_db + 1


@each_field
@pytest.mark.parametrize("shape", [(40, 30), (30, 30)], ids=str)
@pytest.mark.parametrize("name", WITH_PRIOR)
def test_with_a_prior_no_shape_is_worse_than_lmmse(name, shape, dtype):
    """But for TISTA, which inverts A, and is held to its formula above."""
    A, x, w = drawn(*shape, dtype, samples=300)
    y, M = x @ A.mT + w, A.numpy()
    G = PRIOR.power * M.conj().T @ np.linalg.inv(PRIOR.power * M @ M.conj().T + 1e-3 * np.eye(len(M)))
    estimate = ff.iterate(make(name), 30)(Observation(y, Dense(A), 1e-3))
    assert is_finite(estimate)
    if name != "tista":
        assert nmse_db(estimate.x, x) < nmse_db(torch.from_numpy(y.numpy() @ G.T), x) - 1


@each_field
@pytest.mark.parametrize("m", [1, 5])
@every
def test_a_single_unknown_is_estimated_as_its_formula_says(name, m, dtype):
    A, _, w = drawn(m, 1, dtype)
    A = A / A.norm()
    x = torch.tensor([[1.3], [0.0], [-0.4]], dtype=dtype)
    y = x @ A.mT + w
    if name == "gamp" and m == 1:
        with pytest.raises(ValueError, match="counts on many measurements and there is one"):
            ff.iterate(make(name), 1)(Observation(y, Dense(A), 1e-3))
        return
    estimate = ff.iterate(make(name), 300)(Observation(y, Dense(A), 1e-3))
    r = y @ A.conj()
    if name == "gamp":  # which counts on many
        assert (estimate.x - r).abs().max() < 0.1
    elif name in WITH_PRIOR:
        mean, var = PRIOR.posterior(r, 1e-3)
        torch.testing.assert_close(estimate.x, mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(estimate.var, var, rtol=1e-2, atol=1e-8)
    elif name in ("amp", "lamp", "alista-at", "hyperlista"):  # thresholds follow what is left of y, at most its rms
        assert is_finite(estimate)
        assert ((estimate.x - r).abs() <= 2.5 * power(y).mean(-1, keepdim=True).sqrt()).all()
    else:
        expected = r * torch.relu(1 - 0.05 / r.abs())
        torch.testing.assert_close(estimate.x, expected, rtol=1e-6, atol=1e-8)


# Without noise


@each_field
@every
def test_without_noise_numbers_stay_finite_for_every_shape(name, dtype):
    for m, n in ((12, 20), (20, 20), (24, 20), (3, 1), (1, 1))[: 4 if name == "gamp" else 5]:
        A, x, _ = drawn(m, n, dtype)
        assert is_finite(ff.iterate(make(name), 60)(Observation(x @ A.mT, Dense(A), 0.0)))
        A = A[torch.arange(m) // 2 * 2]  # measurements that repeat
        refused = estimate_or_refusal(make(name), Observation(x @ A.mT, Dense(A), torch.tensor(0.0)), 60)
        if isinstance(refused, str):
            assert "rank" in refused
            assert name == "tista"


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex64", "complex128"])
@pytest.mark.parametrize("noise_var", [1e-8, 0.0])
@pytest.mark.parametrize("name", WITH_PRIOR)
def test_with_a_prior_next_to_no_noise_leaves_next_to_no_error(name, noise_var, dtype):
    """The median sample: some have too many unknowns that are not zero for any of these."""
    on = ff.problems.CompressedSensing(n=100, m=60, sparsity=0.1, snr_db=math.inf, dtype=dtype)
    x, obs = on.sample(15, torch.Generator().manual_seed(0))
    w = torch.randn(obs.y.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    algorithm = REGISTRY[name](on.prior, **({"damping": 0.9} if name == "ep" else {}))
    estimate = ff.iterate(algorithm, 40)(Observation(obs.y + noise_var**0.5 * w, on.A, noise_var))
    assert is_finite(estimate)
    ratios = power(estimate.x - x).sum(-1) / power(x).sum(-1)
    assert 10 * math.log10(ratios.median().item()) < (-50 if name == "ep" else -70)  # EP's variances have a floor


@pytest.mark.parametrize("name", ["gamp", "oamp", "oamp-net2"])
def test_symbols_that_are_certain_do_not_end_in_nan(name):
    """16 users and 64 antennas: no error at 15 dB; at 5 dB nine in ten thousand, of 12 800 symbols 12 ± 4 x 3.4."""
    for kind, snr_db, least, most in (("qpsk", 15.0, 0, 0), ("16-qam", 15.0, 0, 0), ("qpsk", 5.0, 1, 24)):
        p = ff.problems.MIMODetection(16, 64, kind, snr_db)
        x, obs = p.sample(800, torch.Generator().manual_seed(0))
        estimate = ff.iterate(REGISTRY[name](p.prior), 20)(obs)
        assert is_finite(estimate)
        assert least <= int((p.prior.nearest(estimate.x) != x).sum()) <= most


# Scale


SINGLE = {REAL: torch.float32, COMPLEX: torch.complex64}


@each_field
@pytest.mark.parametrize("single", [True, False], ids=["single", "double"])
@every
def test_scale_changes_nothing_or_is_refused(name, single, dtype):
    """Of A by `size`, of x by `units`; settings with a dimension go along."""
    A, x, w = drawn(12, 20, dtype)
    A = A / power(A).sum(0).sqrt()
    y = x @ A.mT + w
    at = SINGLE[dtype] if single else dtype
    expected = ff.iterate(make(name), 6)(Observation(y, Dense(A), 1e-3)).x
    for exponent in (15, -15, 30, -30):
        for size, units in ((10.0**exponent, 1.0), (1.0, 10.0**exponent)):
            noise_var = 1e-3 * (size * units) ** 2
            scaled = (y * (size * units)).to(at), Dense((A * size).to(at))
            if single and abs(exponent) == 30:  # whose squares single precision does not hold
                with pytest.raises(ValueError, match=r"noise_var .* cannot hold; pass y and A in double"):
                    Observation(*scaled, noise_var)
                continue
            algorithm, obs = make(name, size, units), Observation(*scaled, noise_var)
            if name in ("alista-at", "amp", "lamp") and size != 1:
                with pytest.raises(ValueError, match="columns of unit norm"):
                    ff.iterate(algorithm, 6)(obs)
                continue
            estimate = ff.iterate(algorithm, 6)(obs)
            assert estimate.x.dtype == at
            assert is_finite(estimate)
            # rounding of y and A, and six steps; the units are divided out in double precision
            error = (estimate.x.to(dtype) / units - expected).abs().max() / expected.abs().max()
            assert error < (3e-5 if single else 1e-9)


@each_field
@every
def test_a_scale_that_single_precision_cannot_hold_is_said_or_computed(name, dtype):
    A, x, _ = drawn(12, 20, dtype)
    A, at = A / power(A).sum(0).sqrt(), SINGLE[dtype]
    for exponent in (30, -30):
        size = 10.0**exponent
        expected = ff.iterate(make(name), 6)(Observation(x @ A.mT, Dense(A), 0.0)).x
        for a, units in ((size, 1.0), (1.0, size)):
            obs = Observation((x @ A.mT * size).to(at), Dense((A * a).to(at)), 0.0)
            try:
                estimate = ff.iterate(make(name, a, units), 6)(obs)
            except ValueError as refusal:
                assert "cannot hold" in str(refusal) or "unit norm" in str(refusal)  # noqa: PT017
                continue
            assert is_finite(estimate)
            error = (estimate.x.to(dtype) / units - expected).abs().max() / expected.abs().max()
            assert error < 1e-3


@each_field
@every
def test_a_scale_that_no_precision_holds_is_refused(name, dtype):
    A, x, _ = drawn(12, 20, dtype)
    y = x @ A.mT
    for beyond, matrix in ((y * 1e100, A), (y * 1e100, A * 1e100), (y * 1e-100, A * 1e-100)):
        with pytest.raises(ValueError, match=r"cannot hold; pass y and A in other units"):
            ff.iterate(make(name), 2)(Observation(beyond, Dense(matrix), 0.0))
    y[1] *= 1e-100
    assert is_finite(ff.iterate(make(name), 6)(Observation(y, Dense(A / power(A).sum(0).sqrt()), 0.0)))


def test_a_noise_variance_keeps_its_digits():
    obs = Observation(torch.ones(2, 3, dtype=torch.float64), None, 1e-3)
    assert obs.noise_var is not None
    assert obs.noise_var.item() == 1e-3


# Half precision


coarse_complex = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


@coarse_complex
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex32], ids=str)
@every
def test_half_precision_is_computed_in_single_and_comes_back(name, dtype):
    wide = torch.promote_types(dtype, torch.float32)
    A, x, w = drawn(12, 20, double(wide))
    obs = Observation((x @ A.mT + w).to(dtype), Dense(A.to(dtype)), 1e-3)
    assert obs.A is not None
    in_single = Observation(obs.y.to(wide), Dense(obs.A.matrix().to(wide)), 1e-3)
    expected = ff.iterate(make(name), 6)(in_single)
    estimate = ff.iterate(make(name), 6)(obs)
    assert estimate.x.dtype == dtype
    assert torch.equal(estimate.x.to(wide), expected.x.to(dtype).to(wide))
    assert len(ff.iterate(make(name), 3).trajectory(obs)) == 3
    net = ff.unfold(make(name), obs, 6, dict.fromkeys(make(name).nominals, "per-layer"))
    x_hat = net(obs).x
    assert torch.equal(x_hat.detach().to(wide), estimate.x.to(wide))
    x_hat.to(wide).abs().square().sum().backward()
    assert torch.equal(ff.unfold(make(name), in_single, 6)(obs).x.to(wide), estimate.x.to(wide))  # the same operator
    for d in net.deviations.values():
        assert d.dtype in (torch.float32, torch.complex64)
        assert d.grad is not None
        assert torch.isfinite(d.grad.abs()).all()


@coarse_complex
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.complex32], ids=str)
def test_operators_in_half_precision_are_those_in_single(dtype):
    wide = torch.promote_types(dtype, torch.float32)
    first, second = (drawn(4, 5, double(wide), seed=seed)[0].to(dtype) for seed in (0, 1))
    operators = [
        Dense(first), Kronecker(first, second), Diagonal(first[0]), Mask(torch.tensor([3, 1]), 5, dtype),
        Batched(torch.stack([first, first])), ff.linops.DCT((8,), dtype), ff.linops.Wavelet((8,), "haar", dtype=dtype),
        Dense(first) @ Diagonal(second[0]),
    ]  # fmt: skip
    for A in operators:
        B = A.to(dtype=wide)
        x = drawn(3, A.n, double(wide))[0][: 2 if A.varies else 3].to(dtype)
        torch.testing.assert_close(A @ x, (B @ x.to(wide)).to(dtype))
        torch.testing.assert_close(A.H @ (A @ x), (B.H @ (A @ x).to(wide)).to(dtype))
        assert A.svd().s.dtype == A.gram_diagonal().dtype == dtype.to_real()
        U, s, V = A.svd()
        assert (U @ (s * (V.H @ x))).dtype == dtype
        assert A.norm() == pytest.approx(B.norm(), rel=0.02)
        assert len(A.fingerprint()) == 64
    with pytest.raises(ValueError, match="functions of rows in"):
        ff.linops.Foreign(lambda x: x, lambda y: y, (4, 4), dtype)


@coarse_complex
@pytest.mark.parametrize("dtype", [torch.float16, torch.complex32], ids=str)
def test_watch_and_equilibrium_take_half_precision(dtype):
    on = ff.problems.CompressedSensing(n=200, m=100, dtype="complex64" if dtype.is_complex else "float32")
    _, obs = on.sample(20, torch.Generator().manual_seed(0))
    half = Observation(obs.y.to(dtype), on.A.to(dtype=dtype), on.noise_var)
    assert ff.watch(ff.algorithms.OAMP(on.prior), half, 5).estimate.x.dtype == dtype
    net = ff.equilibrium(ff.algorithms.ISTA(0.1), half, {"threshold": "tied"}, tolerance=1e-3)
    assert net(half).x.dtype == dtype


# Gradients where singular values repeat


def fourier(m: int, n: int) -> torch.Tensor:
    k = torch.arange(n, dtype=torch.float64)
    return torch.polar(torch.full((n, n), n**-0.5, dtype=torch.float64), -2 * math.pi * k[:, None] * k / n)[:m]


LEARNED = {
    "fourier-factors": lambda turn: Kronecker(fourier(4, 6) * turn[:4, None], fourier(4, 5)),
    "fourier": lambda turn: Dense(fourier(6, 8) * turn[:6, None]),
    "identity": lambda turn: Dense(torch.eye(8, dtype=COMPLEX) * turn[:, None]),
    "scene": lambda turn: Dense(fourier(6, 8) * turn),
    "tall": lambda turn: Dense(fourier(8, 8)[:, :5] * turn[:, None]),
    "one-a-sample": lambda turn: Batched((torch.eye(8, dtype=COMPLEX) * turn[:, None]).expand(3, 8, 8)),
}


@pytest.mark.parametrize("single", [False, True], ids=["double", "single"])
@pytest.mark.parametrize("kind", LEARNED)
@every
def test_phases_of_an_operator_with_repeated_singular_values_learn(name, kind, single):
    """Against central differences, whose steps of 1e-5 leave 1e-9; singular values that are told apart leave 1e-6."""
    generator, phases = torch.Generator().manual_seed(1), torch.zeros(8, dtype=torch.float64)
    at = SINGLE[COMPLEX] if single else COMPLEX
    true = LEARNED[kind](torch.polar(torch.ones(8, dtype=torch.float64), torch.linspace(-0.2, 0.3, 8).double()))
    x = BernoulliGaussian(0.3).sample((3, true.n), generator, COMPLEX)
    y, algorithm = true @ x, make(name)
    if true.varies and algorithm.one_matrix:
        return

    def loss(phases: torch.Tensor, at: torch.dtype) -> torch.Tensor:
        A = LEARNED[kind](torch.polar(torch.ones_like(phases), phases)).to(dtype=at)
        return power(ff.iterate(algorithm, 3)(Observation(y.to(at), A, 1e-2)).x - x).sum()

    learned = phases.clone().requires_grad_()
    loss(learned, at).backward()
    direction = torch.randn(8, generator=generator, dtype=torch.float64)
    assert learned.grad is not None
    slope, step = (learned.grad @ direction).item(), 1e-5
    numeric = ((loss(step * direction, COMPLEX) - loss(-step * direction, COMPLEX)) / (2 * step)).item()
    assert slope == pytest.approx(numeric, rel=1e-3 if single else 1e-5, abs=1e-4 if single else 1e-6)


# Classical estimators


CLASSICAL = {
    "lmmse": lambda n, dtype, size, units: ff.LMMSE(None, 0.2 * units**2 * torch.eye(n, dtype=double(dtype))),
    "unbiased-lmmse": lambda n, dtype, size, units: ff.estimators.UnbiasedLMMSE(0.2 * units**2),
    "zero-forcing": lambda n, dtype, size, units: ff.estimators.ZeroForcing(),
    "white-lmmse": lambda n, dtype, size, units: ff.estimators.WhiteLMMSE(0.2 * units**2),
    "back-projection": lambda n, dtype, size, units: ff.estimators.linear.image.back_projection,
    "omp": lambda n, dtype, size, units: ff.estimators.OMP(),
    "lasso": lambda n, dtype, size, units: ff.estimators.Lasso(0.05 * size**2 * units),
    "debiased-lasso": lambda n, dtype, size, units: ff.estimators.DebiasedLasso(0.05 * size**2 * units),
    "mcp": lambda n, dtype, size, units: ff.estimators.MCP(0.05 * size**2 * units, gamma=3 / size**2),
    "sphere": lambda n, dtype, size, units: ff.estimators.SphereDecoder(Constellation("qpsk")),
}
REAL_ALONE = ("lasso", "debiased-lasso", "mcp")


def classical(name: str, A: torch.Tensor, y: torch.Tensor, noise_var: float, size=1.0, units=1.0) -> Estimate | str:
    """The estimate, or the sentence that refuses."""
    try:
        return CLASSICAL[name](A.shape[1], A.dtype, size, units)(Observation(y, Dense(A), noise_var))
    except ValueError as refusal:
        return str(refusal)


@each_field
@pytest.mark.parametrize("name", [name for name in CLASSICAL if name != "mcp"])  # which takes seconds without noise
def test_classical_estimators_on_hard_data(name, dtype):
    if dtype is COMPLEX and name in REAL_ALONE:
        return
    for m, n in ((12, 20), (24, 20), (20, 20), (5, 1), (1, 1)):
        A, x, w = drawn(m, n, dtype, samples=4)
        x = Constellation("qpsk").sample((4, n), torch.Generator().manual_seed(0), dtype) if name == "sphere" else x
        for noise_var in (1e-3, 0.0):
            y = x @ A.mT + w * (noise_var > 0)
            whole = classical(name, A, y, noise_var)
            if isinstance(whole, str):
                assert m < n
                assert "as many measurements as unknowns" in whole
                continue
            assert is_finite(whole)
            if n == 1:
                continue
            less = A.clone()
            less[:, 3] = 0
            seen = torch.arange(n) != 3
            one = classical(name, less, y, noise_var)
            if name in ("zero-forcing", "sphere"):
                assert isinstance(one, str)
                assert "cannot tell unknown 3" in one
                continue
            alone = classical(name, A[:, seen], y, noise_var)
            assert not isinstance(one, str)
            assert not isinstance(alone, str)
            assert is_finite(one)
            assert (one.x[:, 3].abs() < 1e-9).all()
            assert nmse_db(one.x[:, seen], alone.x) < -60
            if one.var is not None:
                assert one.var[:, 3].tolist() == pytest.approx([0.2] * 4)
                # rounding where nothing is left
                torch.testing.assert_close(one.var[:, seen], alone.var, rtol=1e-5, atol=1e-9)
    refused = classical(name, torch.zeros(4, 3, dtype=dtype), torch.ones(2, 4, dtype=dtype), 0.1)
    assert isinstance(refused, str)
    assert "is zero: it measures nothing" in refused


@coarse_complex
@each_field
@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_estimators_at_any_scale_and_in_half_precision(name, dtype):
    if dtype is COMPLEX and name in REAL_ALONE:
        return
    A, x, w = drawn(24, 12, dtype, samples=4)
    x = Constellation("qpsk").sample((4, 12), torch.Generator().manual_seed(0), dtype) if name == "sphere" else x
    y = x @ A.mT + w
    expected = classical(name, A, y, 1e-3)
    assert not isinstance(expected, str)
    for exponent in (15, -15):
        for size, units in ((10.0**exponent, 1.0), (1.0, 10.0**exponent)):
            if name == "sphere" and units != 1:
                continue  # symbols have a scale
            scaled = (A * size).to(SINGLE[dtype]), (y * (size * units)).to(SINGLE[dtype])
            estimate = classical(name, *scaled, 1e-3 * (size * units) ** 2, size, units)
            assert not isinstance(estimate, str)
            assert is_finite(estimate)
            assert nmse_db(estimate.x.to(dtype) / units, expected.x) < -70
    half = torch.complex32 if dtype is COMPLEX else torch.float16
    coarse = classical(name, A.to(half), y.to(half), 1e-3)
    assert not isinstance(coarse, str)
    assert coarse.x.dtype == half
    fine = classical(name, A.to(half).to(dtype), y.to(half).to(dtype), 1e-3)
    assert not isinstance(fine, str)
    assert nmse_db(coarse.x.to(dtype), fine.x) < -40


def test_a_variance_of_lmmse_does_not_fall_below_zero():
    """All is measured without noise, through matrices whose rounding leaves -1e-16."""
    for seed in range(20):
        A, x, _ = drawn(20, 20, REAL, seed=seed)
        for prior in (Gaussian(1.0), PRIOR):
            var = ff.LMMSE(None, prior.power * torch.eye(20, dtype=REAL))(Observation(x @ A.mT, Dense(A), 0.0)).var
            assert var is not None
            assert (var >= 0).all()
