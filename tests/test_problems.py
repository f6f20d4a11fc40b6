"""Problems draw what they say: powers, spectra, splits and pictures; and they refuse what cannot be one."""

import math
import os

import numpy as np
import pytest
import pywt.data
import torch
from PIL import Image

from fanfold.core.units import db, power
from fanfold.linops import DCT, Dense, Wavelet
from fanfold.problems import CompressedSensing, Pairs, Photographs, Problem
from fanfold.problems.sparse.photographs import load_picture

DTYPES = ("float32", "float64", "complex64", "complex128")
ENSEMBLES = ("iid", "unit-columns", "row-orthogonal", "conditioned")
EPS = torch.finfo(torch.float64).eps

each_dtype = pytest.mark.parametrize("dtype", DTYPES)
each_ensemble = pytest.mark.parametrize("ensemble", ENSEMBLES)


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Compressed sensing


@each_dtype
@each_ensemble
def test_empirical_snr_is_the_one_asked_for(ensemble, dtype):
    draws = 1000
    p = CompressedSensing(n=60, m=30, sparsity=0.2, snr_db=13, ensemble=ensemble, dtype=dtype)
    x, obs = p.sample(draws, rng(1))
    clean = p.A @ x
    signal, noise = power(clean).sum().double() / draws, power(obs.y - clean).sum().double() / draws
    assert obs.noise_var.item() == pytest.approx(p.noise_var)
    # |x|⁴ of an entry is 3p if real and 2p if complex; Var ‖Ax‖² = Σ G_ii² (E|x|⁴ - (k + 1) p²) + k p² ‖G‖_F²
    k = 1 if p.A.dtype.is_complex else 2
    G = p.A.matrix().mH @ p.A.matrix()
    var = power(G.diagonal()).sum() * (k + 1) * (0.2 - 0.04) + k * 0.04 * power(G).sum()
    spread_signal = (var / draws).sqrt().item() / signal.item()
    spread_noise = (k / (draws * p.m)) ** 0.5
    # 5 standard errors of a ratio; 10 / ln 10 dB for each unit of relative error
    assert abs(db(signal / noise).item() - 13) < 5 * 10 / math.log(10) * math.hypot(spread_signal, spread_noise)


@each_dtype
def test_columns_are_of_unit_norm(dtype):
    columns = CompressedSensing(n=60, m=30, dtype=dtype).A.gram_diagonal()
    assert (columns - 1).abs().max() < 60 * torch.finfo(columns.dtype).eps  # a sum of 30 rounded squares


@each_ensemble
def test_columns_are_of_unit_norm_on_average(ensemble):
    p = CompressedSensing(n=60, m=30, ensemble=ensemble, dtype="float64")
    # exactly, but for iid entries of variance 1 / m: a mean of n m squares, each with deviation sqrt(2)
    slack = 5 * (2 / (60 * 30)) ** 0.5 if ensemble == "iid" else 100 * EPS
    assert abs(p.A.gram_diagonal().mean().item() - 1) < slack


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_rows_are_orthogonal(dtype):
    M = CompressedSensing(n=60, m=30, ensemble="row-orthogonal", dtype=dtype).A.matrix()
    assert torch.allclose(M @ M.mH, 2 * torch.eye(30, dtype=M.dtype), rtol=0, atol=10 * 90 * EPS)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
@pytest.mark.parametrize("condition_number", [1.0, 7.0, 1000.0])
def test_condition_number_is_exact_and_the_spectrum_geometric(condition_number, dtype):
    p = CompressedSensing(n=60, m=30, ensemble="conditioned", condition_number=condition_number, dtype=dtype)
    s = torch.linalg.svdvals(p.A.matrix())
    # singular values come with an absolute error of (m + n) eps of the largest
    assert (s[0] / s[-1]).item() == pytest.approx(condition_number, rel=10 * 90 * EPS * condition_number)
    ratios = s[:-1] / s[1:]
    assert (ratios / condition_number ** (1 / 29) - 1).abs().max() < 10 * 90 * EPS * condition_number


def test_iid_entries_have_variance_one_over_m():
    for dtype in ("float64", "complex128"):
        M = CompressedSensing(n=200, m=100, ensemble="iid", dtype=dtype).A.matrix()
        assert abs(100 * power(M).mean() - 1) < 5 * (2 / M.numel()) ** 0.5  # |entry|² deviates by at most sqrt(2)
        assert M.mean().abs() < 5 * (1 / 100 / M.numel()) ** 0.5


@each_ensemble
def test_operator_is_one_object_under_all_conditions(ensemble):
    p = CompressedSensing(n=40, m=20, ensemble=ensemble)
    assert p.shifted(snr_db=10.0).A is p.A
    assert p.shifted(sparsity=0.3).A is p.A
    assert CompressedSensing(n=40, m=20, ensemble=ensemble).A is p.A
    assert p.sample(2, rng(0))[1].A is p.A
    assert p.held_out().A is p.A


def test_condition_number_matters_to_its_ensemble_only():
    p = CompressedSensing(n=40, m=20)
    assert p.shifted(condition_number=3.0).A is p.A
    conditioned = p.shifted(ensemble="conditioned")
    assert conditioned.shifted(condition_number=3.0).A.fingerprint() != conditioned.A.fingerprint()


@each_dtype
@each_ensemble
def test_operator_is_told_by_its_seed(ensemble, dtype):
    from fanfold.problems.sparse.compressed_sensing import draw_operator

    p = CompressedSensing(n=40, m=20, ensemble=ensemble, dtype=dtype)
    before = p.A.fingerprint()
    draw_operator.cache_clear()  # drawn anew, not remembered
    again = CompressedSensing(n=40, m=20, ensemble=ensemble, dtype=dtype).A
    assert again is not p.__class__(n=40, m=20, ensemble=ensemble, dtype=dtype, seed=1).A
    assert again.fingerprint() == before
    assert p.shifted(seed=1).A.fingerprint() != before


@each_ensemble
@pytest.mark.parametrize(("coarse", "fine"), [("float32", "float64"), ("complex64", "complex128")])
def test_every_precision_has_the_same_operator(ensemble, coarse, fine):
    p = CompressedSensing(n=40, m=20, ensemble=ensemble, dtype=fine)
    rounded = p.A.matrix().to(getattr(torch, coarse))
    assert torch.equal(p.shifted(dtype=coarse).A.matrix(), rounded)


def test_signals_are_as_sparse_as_they_say():
    p = CompressedSensing(n=100, m=50, sparsity=0.2)
    x, _ = p.sample(500, rng(2))
    active = (x != 0).double().mean().item()
    assert abs(active - 0.2) < 5 * (0.2 * 0.8 / x.numel()) ** 0.5
    assert p.prior.power == pytest.approx(0.2)


def test_infinite_snr_is_no_noise():
    p = CompressedSensing(n=40, m=20, snr_db=math.inf)
    x, obs = p.sample(4, rng(0))
    assert p.noise_var == 0
    assert torch.equal(obs.y, p.A @ x)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"n": 20, "m": 40}, r"m is 40 and n is 20; .*0 < m <= n\. Transposed\?"),
        ({"m": 0}, "m is 0 and n is 500"),
        ({"sparsity": 0.0}, "sparsity is 0.0; .*between 0 and 1"),
        ({"sparsity": 1.0}, "sparsity is 1.0; .*between 0 and 1"),
        ({"condition_number": 0.5}, "condition_number is 0.5; it is at least 1"),
    ],
)
def test_what_is_no_compressed_sensing_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CompressedSensing(**fields)


def test_shifting_to_an_impossible_problem_is_refused():
    with pytest.raises(ValueError, match="m is 250 and n is 100"):
        CompressedSensing().shifted(n=100)


# Pairs


def arrays(samples: int = 50, dtype: str = "float64") -> dict[str, np.ndarray]:
    """Signals whose first entry counts them, measured without noise."""
    generator = np.random.default_rng(0)
    x, A = generator.standard_normal((samples, 6)), generator.standard_normal((4, 6))
    if dtype.startswith("complex"):
        x, A = x + 1j * generator.standard_normal(x.shape), A + 1j * generator.standard_normal(A.shape)
    x[:, 0] = np.arange(samples)
    return {"x": x.astype(dtype), "y": (x @ A.T).astype(dtype), "A": A.astype(dtype)}


def stored(tmp_path, name: str = "pairs.npz", **contents: np.ndarray) -> str:
    np.savez(tmp_path / name, **contents)
    return str(tmp_path / name)


def counts(problem: Pairs, draws: int = 1000) -> set[int]:
    x, _ = problem.sample(draws, rng(0))
    return set(x[:, 0].real.int().tolist())


@each_dtype
def test_pairs_stay_pairs(tmp_path, dtype):
    contents = arrays(dtype=dtype)
    problem = Pairs(stored(tmp_path, **contents, noise_var=np.float64(0.1)))
    x, obs = problem.sample(30, rng(1))
    row = x[:, 0].real.int().numpy()
    assert x.dtype == obs.y.dtype == getattr(torch, dtype)
    assert np.array_equal(x.numpy(), contents["x"][row])
    assert np.array_equal(obs.y.numpy(), contents["y"][row])
    assert problem.A.fingerprint() == Dense(torch.as_tensor(contents["A"])).fingerprint()
    assert problem.A is obs.A
    assert obs.noise_var.item() == pytest.approx(0.1)
    assert problem.noise_var.item() == 0.1
    assert isinstance(problem, Problem)


def test_operator_and_variance_need_not_be_stored(tmp_path):
    contents = arrays()
    del contents["A"]
    problem = Pairs(stored(tmp_path, **contents))
    assert problem.A is None
    assert problem.noise_var is None
    assert problem.sample(3, rng(0))[1].A is None


@pytest.mark.parametrize("share", [0.2, 0.5, 0.001, 0.9])
def test_training_and_testing_share_no_pair_and_leave_none_out(tmp_path, share):
    problem = Pairs(stored(tmp_path, **arrays()), held_out_share=share)
    train, test = counts(problem), counts(problem.held_out())
    # of at most 50 pairs, 1000 draws miss a given one with probability exp(-20)
    assert train | test == set(range(50))
    assert train & test == set()
    assert len(test) == max(1, round(share * 50))
    assert min(test) > max(train)
    assert problem.held_out().part == "test"
    assert counts(problem.held_out().held_out()) == test


def test_a_file_that_changes_is_read_again(tmp_path):
    contents = arrays()
    path = stored(tmp_path, **contents)
    problem = Pairs(path)
    before, _ = problem.sample(3, rng(0))
    stored(tmp_path, **{**contents, "x": 2 * contents["x"]})
    os.utime(path, ns=(1, 1))  # however coarse the clock of the file system is
    after, _ = problem.sample(3, rng(0))
    assert torch.equal(after, 2 * before)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no file .*none\.npz; pass an \.npz or \.csv file with arrays"):
        Pairs(str(tmp_path / "none.npz"))


@pytest.mark.parametrize("missing", [["x"], ["y"], ["x", "y"], ["x", "y", "A"]])
def test_missing_arrays_are_refused_by_name(tmp_path, missing):
    contents = {name: array for name, array in arrays().items() if name not in missing}
    there = ", ".join(contents) or "none"
    wanted = " or ".join(name for name in missing if name != "A")
    with pytest.raises(ValueError, match=f"has no array {wanted}; it has {there}"):
        Pairs(stored(tmp_path, **contents))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.ones((49, 4))}, r"x is \(50, 6\) and y is \(49, 4\); pass \(samples, n\) and \(samples, m\)"),
        ({"x": np.ones(50)}, r"x is \(50,\) and y is \(50, 4\)"),
        ({"x": np.ones((50, 2, 3))}, r"x is \(50, 2, 3\)"),
        ({"y": np.ones((50, 4), np.float32)}, r"x is torch.float64 and y is torch.float32; store both"),
        ({"A": np.ones((6, 4))}, r"A maps 4 -> 6 but x has 6 entries; store A of shape \(m, n\)\. Transposed\?"),
        ({"A": np.ones((5, 6))}, r"A maps 6 -> 5 but y has 4 entries"),
        ({"A": np.ones((4, 6), np.float32)}, "y is torch.float64 but A is torch.float32"),
        ({"A": np.full((4, 6), np.nan)}, r"is not finite: .*\(0, 0\)"),
        ({"noise_var": np.float64(-1)}, "noise_var is -1"),
        ({"noise_var": np.ones(4)}, "noise_var has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        Pairs(stored(tmp_path, **{**arrays(), **change}))


@pytest.mark.parametrize("name", ["x", "y"])
def test_entries_that_are_not_finite_are_refused_with_their_index(tmp_path, name):
    contents = arrays()
    contents[name][7, 2] = np.nan
    with pytest.raises(ValueError, match=rf"{name} is not finite: nan at index \(7, 2\)"):
        Pairs(stored(tmp_path, **contents))


def test_pickled_objects_are_refused(tmp_path):
    contents = {**arrays(), "x": np.array([{"run": "me"}] * 50, dtype=object)}
    with pytest.raises(ValueError, match=r"cannot be read as \.npz .*Python objects"):
        Pairs(stored(tmp_path, **contents))


def test_arrays_of_text_are_refused(tmp_path):
    text = np.array([["a"]] * 50)
    with pytest.raises(ValueError, match="no numbers"):
        Pairs(stored(tmp_path, x=text, y=text))


def test_integers_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"int64"):
        Pairs(stored(tmp_path, x=np.ones((50, 6), np.int64), y=np.ones((50, 4), np.int64)))


def damaged(path) -> None:
    contents = bytearray(path.read_bytes())
    contents[200] ^= 0xFF
    path.write_bytes(contents)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"x,y\n1,2\n"),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
        damaged,
    ],
    ids=["empty", "text", "cut short", "damaged"],
)
def test_a_broken_file_is_refused(tmp_path, spoil):
    path = stored(tmp_path, **arrays())
    spoil(tmp_path / "pairs.npz")
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        Pairs(path)


def test_a_file_of_one_array_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.ones((50, 6)))
    with pytest.raises(ValueError, match=r"is no \.npz or \.csv file"):
        Pairs(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("samples", [0, 1])
def test_too_few_pairs_are_refused(tmp_path, samples):
    with pytest.raises(ValueError, match=r"too few|nothing to estimate from"):
        Pairs(stored(tmp_path, **arrays(samples)))


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_held_out_share_is_a_share(tmp_path, share):
    with pytest.raises(ValueError, match=r"held_out_share is .*between 0 and 1"):
        Pairs(stored(tmp_path, **arrays()), held_out_share=share)


# Photographs


def png(tmp_path, pixels: np.ndarray, name: str = "picture.png") -> str:
    Image.fromarray(pixels).save(tmp_path / name)
    return str(tmp_path / name)


def noise_picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize("basis", ["dct", "haar", "db4", "sym4"])
@pytest.mark.parametrize("name", ["camera", "ascent", "aero"])
def test_blocks_and_assemble_are_inverse(name, basis):
    problem = Photographs(pictures=(name,), block=16, basis=basis)
    picture = load_picture(name)
    x = problem.blocks(picture)
    assert x.shape == (picture.numel() // 256, 256)
    back = problem.assemble(x, *picture.shape)
    # two orthonormal transforms of 2 x 16 terms each
    torch.testing.assert_close(back, picture, rtol=0, atol=100 * torch.finfo(torch.float32).eps)
    # orthonormal: errors of coefficients are errors of pixels
    assert power(x).sum().item() == pytest.approx(power(picture).sum().item(), rel=1e-5)


def test_a_picture_is_cut_to_whole_blocks(tmp_path):
    problem = Photographs(pictures=(png(tmp_path, noise_picture(37, 21)),), block=8)
    picture = load_picture(problem.pictures[0])
    x = problem.blocks(picture)
    assert x.shape == (4 * 2, 64)
    torch.testing.assert_close(problem.assemble(x, 37, 21), picture[:32, :16], rtol=0, atol=1e-5)
    # row by row: the second block is the one on the right of the first
    torch.testing.assert_close(DCT((8, 8)).H @ x[1], picture[:8, 8:16].flatten(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("basis", ["dct", "haar", "db4", "sym4"])
def test_measurements_are_of_the_signal_and_the_noise_has_its_variance(basis):
    draws = 2000
    problem = Photographs(pictures=("camera",), block=8, noise_std=0.05, basis=basis)
    x, obs = problem.sample(draws, rng(1))
    assert x.shape == (draws, 64)
    assert obs.y.shape == (draws, problem.A.m) == (draws, 16)
    w = (obs.y - problem.A @ x).double()
    assert obs.noise_var.item() == pytest.approx(0.05**2)
    # 5 standard errors of a mean of N squares, each with deviation sqrt(2); rounding of y is 1e-6 of that
    assert abs(power(w).mean().item() / 0.05**2 - 1) < 5 * (2 / w.numel()) ** 0.5
    assert abs(w.mean().item()) < 5 * 0.05 / w.numel() ** 0.5


def test_noiseless_measurements_are_exact():
    problem = Photographs(block=8, noise_std=0.0)
    x, obs = problem.sample(4, rng(1))
    assert obs.noise_var.item() == 0
    assert torch.equal(obs.y, problem.A @ x)


def test_the_sensing_matrix_is_gaussian_and_the_same_in_every_basis():
    """`A = Φ Ψᴴ`, so `A Ψ` is Φ, whose entries have variance 1 / m."""
    sensing = [
        (Photographs(block=16).A @ DCT((16, 16))).matrix(),
        *((Photographs(block=16, basis=name).A @ Wavelet((16, 16), name)).matrix() for name in ("haar", "db4", "sym4")),
    ]
    for other in sensing[1:]:  # two orthonormal transforms of 2 x 16 terms
        torch.testing.assert_close(other, sensing[0], rtol=0, atol=100 * torch.finfo(torch.float32).eps)
    m = 64
    assert sensing[0].shape == (m, 256)
    assert abs(m * power(sensing[0]).mean() - 1) < 5 * (2 / sensing[0].numel()) ** 0.5


def test_operator_is_one_object_for_all_pictures_and_noises():
    problem = Photographs(block=8)
    assert problem.shifted(pictures=("aero",), noise_std=0.1).A is problem.A
    assert problem.shifted(seed=1).A.fingerprint() != problem.A.fingerprint()
    assert problem.shifted(ratio=0.5).A.m == 32


def test_blocks_are_windows_of_the_picture(tmp_path):
    pixels = noise_picture(12, 10)
    problem = Photographs(pictures=(png(tmp_path, pixels),), block=8)
    x, _ = problem.sample(300, rng(3))
    drawn = (DCT((8, 8)).H @ x * 255).round().int().reshape(-1, 8, 8)
    windows = torch.as_tensor(pixels.astype(np.int32)).unfold(0, 8, 1).unfold(1, 8, 1).reshape(-1, 8, 8)
    where = (drawn[:, None] == windows).flatten(2).all(-1)
    assert (where.sum(1) == 1).all()
    assert where.any(0).all()  # 15 places, 300 draws: one is missed with probability 15 exp(-20)


def test_every_picture_is_drawn(tmp_path):
    dark, bright = np.full((8, 8), 10, np.uint8), np.full((8, 8), 200, np.uint8)
    problem = Photographs(pictures=(png(tmp_path, dark, "dark.png"), png(tmp_path, bright, "bright.png")), block=8)
    x, _ = problem.sample(1000, rng(3))
    means = (x[:, 0] / 8 * 255).round().int()  # the first coefficient of a constant block is 8 times its grey
    assert set(means.tolist()) == {10, 200}
    assert abs((means == 10).double().mean().item() - 0.5) < 5 * 0.5 / 1000**0.5


@pytest.mark.parametrize("basis", ["dct", "haar"])
def test_flips_keep_the_energy_of_every_block(basis):
    """The same places are drawn; mirroring and turning moves pixels about."""
    still = Photographs(block=8, basis=basis)
    x, _ = still.sample(200, rng(4))
    turned, _ = still.shifted(flips=True).sample(200, rng(4))
    assert not torch.equal(turned, x)
    # sums of 64 squares, in another order
    torch.testing.assert_close(
        power(turned).sum(-1), power(x).sum(-1), rtol=64 * torch.finfo(torch.float32).eps, atol=0
    )
    torch.testing.assert_close(turned[:, 0], x[:, 0], rtol=0, atol=1e-5)  # the mean: up to 8, in float32


def test_flips_change_signs_of_cosines_or_transpose_them():
    still = Photographs(block=8)
    x, _ = still.sample(200, rng(4))
    turned, _ = still.shifted(flips=True).sample(200, rng(4))
    plain, moved = x.abs().reshape(-1, 8, 8), turned.abs().reshape(-1, 8, 8)
    as_it_was = (moved - plain).abs().amax((1, 2)) < 1e-5  # coefficients are up to 8, in float32
    transposed = (moved - plain.mT).abs().amax((1, 2)) < 1e-5
    assert (as_it_was | transposed).all()
    assert as_it_was.any()
    assert transposed.any()


@pytest.mark.parametrize(("flips", "ways"), [(True, 8), (False, 1)])
def test_flips_come_in_all_eight_ways(tmp_path, flips, ways):
    problem = Photographs(pictures=(png(tmp_path, noise_picture(8, 8)),), block=8, flips=flips)
    x, _ = problem.sample(300, rng(5))
    pixels = (DCT((8, 8)).H @ x * 255).round().int()
    assert len(pixels.unique(dim=0)) == ways  # 300 draws miss one of eight with probability 8 (7/8)^300


@pytest.mark.parametrize("name", ["camera", "ascent", "aero"])
def test_shipped_pictures_are_pywavelets(name):
    expected = getattr(pywt.data, name)() / 255
    assert load_picture(name).dtype == torch.float32
    np.testing.assert_allclose(load_picture(name).numpy(), expected, rtol=1e-6)
    assert load_picture(name).max() <= 1


def test_the_users_own_picture_is_read_as_it_is(tmp_path):
    pixels = noise_picture(20, 30)
    picture = load_picture(png(tmp_path, pixels))
    assert picture.shape == (20, 30)
    np.testing.assert_allclose(picture.numpy(), pixels / 255, rtol=1e-6)
    problem = Photographs(pictures=(str(tmp_path / "picture.png"), "camera"), block=8)
    x, obs = problem.sample(10, rng(0))
    assert x.shape == (10, 64)
    assert torch.isfinite(obs.y).all()


def test_a_colour_picture_is_read_in_grey(tmp_path):
    grey = noise_picture(20, 30)
    picture = load_picture(png(tmp_path, np.stack([grey] * 3, -1)))
    assert np.allclose(picture.numpy(), grey / 255, rtol=0, atol=1 / 255)  # luma weights may round by one grey


def test_a_picture_of_sixteen_bits_keeps_its_greys(tmp_path):
    pixels = (np.linspace(0, 65535, 400).reshape(20, 20)).astype(np.uint16)
    picture = load_picture(png(tmp_path, pixels))
    assert np.allclose(picture.numpy(), pixels / 65535, rtol=0, atol=1 / 255)  # to one of 256 greys


def test_an_unknown_picture_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="there is no picture 'lena'; take one of aero, ascent, camera or the path"):
        Photographs(pictures=("lena",))


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(ValueError, match=r"notes\.png cannot be read as a picture"):
        Photographs(pictures=(str(tmp_path / "notes.png"),))


def test_an_image_cut_short_is_refused(tmp_path):
    path = png(tmp_path, noise_picture(64, 64))
    contents = (tmp_path / "picture.png").read_bytes()
    (tmp_path / "picture.png").write_bytes(contents[: len(contents) // 2])
    with pytest.raises(ValueError, match="cannot be read as a picture"):
        Photographs(pictures=(path,))


def test_a_picture_smaller_than_a_block_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is 20x12 pixels: smaller than a block of 16"):
        Photographs(pictures=(png(tmp_path, noise_picture(20, 12)),), block=16)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pictures": ()}, "no pictures; name some of aero, ascent, camera"),
        ({"ratio": 0.0}, r"ratio is 0.0; .*\(0, 1\]"),
        ({"ratio": 1.5}, r"ratio is 1.5; .*\(0, 1\]"),
        ({"noise_std": -0.1}, "noise_std is -0.1; .*not negative"),
    ],
)
def test_what_is_no_imaging_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Photographs(**fields)
