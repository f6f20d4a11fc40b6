"""Operators from a user's own functions and from scipy: what is refused, what gradients reach, and use everywhere."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

import fanfold as ff
from fanfold.linops import Dense, dot_test, foreign, from_functions, from_scipy
from foreign_rows import FOREIGN, matrix, sparse

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)
M = matrix(torch.float64)
REFUSED = {
    "no adjoint": (lambda x: x @ M.T, lambda y: 2 * (y @ M), (5, 8), r"is not the adjoint of apply: .* differ by"),
    "not linear": (lambda x: x @ M.T + 1, lambda y: y @ M, (5, 8), "and that both are linear"),
    "another shape": (lambda x: x @ M.T, lambda y: y @ M, (4, 8), r"apply cannot .*to give 4.*gave shape \(5,\)"),
    "transposed": (lambda x: x @ M.T, lambda y: y @ M, (8, 5), "apply cannot be called with 5 entries"),
    "fails": (lambda x: x.no_such_thing, lambda y: y @ M, (5, 8), "no_such_thing"),
    "no number": (lambda x: "Ax", lambda y: y @ M, (5, 8), "what apply gives is a str"),
    "complex": (lambda x: torch.fft.fft(x), lambda y: y, (8, 8), "pass dtype=torch.complex128"),
    "empty": (lambda x: x, lambda y: y, (0, 8), "pass .m, n., measurements by unknowns, both at least 1"),
}


@pytest.mark.parametrize(("apply", "adjoint", "shape", "sentence"), REFUSED.values(), ids=REFUSED)
def test_functions_that_are_no_operator_are_refused(apply, adjoint, shape, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_functions(apply, adjoint, shape, torch.float64)


def test_a_real_linear_function_of_complex_numbers_is_refused():
    with pytest.raises(ValueError, match="is not the adjoint of apply"):
        from_functions(lambda x: x.real.to(x.dtype), lambda y: y.real.to(y.dtype), (8, 8), torch.complex128)


def test_a_loose_adjoint_passes_where_the_user_allows_it():
    loose = (lambda x: x @ M.T, lambda y: (1 + 1e-6) * (y @ M), (5, 8), torch.float64)
    assert from_functions(*loose, tolerance=1e-5).shape == (5, 8)
    with pytest.raises(ValueError, match="differ by"):
        from_functions(*loose)


def test_a_function_of_single_signals_is_not_taken_for_one_of_batches():
    """Three signals of three entries: `M @ X` has the right shape and is wrong."""
    S = torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 4.0], [0.0, 0.0, 1.0]])
    A = from_functions(lambda x: S @ x, lambda y: S.T @ y, (3, 3))
    x = torch.eye(3)[None].expand(2, 3, 3)
    assert torch.equal(A @ x, S.T.expand(2, 3, 3))
    running = from_functions(lambda x: x.cumsum(0), lambda y: y.flip(0).cumsum(0).flip(0), (4, 4))
    assert torch.equal(running @ torch.ones(2, 4), torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2))


def test_pictures_are_reshaped_by_the_functions():
    A = from_functions(
        lambda x: torch.fft.fft2(x.reshape(-1, 4, 4), norm="ortho").flatten(1)[:, ::2],
        lambda y: torch.fft.ifft2(torch.stack([y, torch.zeros_like(y)], -1).reshape(-1, 4, 4), norm="ortho").flatten(1),
        (8, 16),
        torch.complex64,
    )
    assert A.norm() == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", FOREIGN)
def test_the_matrix_is_the_users(name, dtype):
    expected = torch.from_numpy(sparse(dtype).toarray()) if "sparse" in name else matrix(dtype)
    torch.testing.assert_close(FOREIGN[name](dtype).matrix(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["tensors of a batch", "one array", "scipy operator", "sparse"])
def test_gradients_twice_over(name):
    A = FOREIGN[name](torch.complex128)
    x = torch.randn(2, 8, dtype=A.dtype, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: A.H @ (A @ x).abs().square().to(A.dtype), x)
    assert torch.autograd.gradgradcheck(lambda x: (A @ x).abs().square().sum(), x)


def test_gradients_reach_what_functions_of_tensors_hold():
    gain = torch.tensor(2.0, requires_grad=True)
    A = from_functions(lambda x: gain * x, lambda y: gain * y, (4, 4))
    (A @ torch.ones(3, 4)).sum().backward()
    assert gain.grad == 12
    assert A.norm() == pytest.approx(2)


def problem(A) -> ff.problems.Pairs:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, A.n, dtype=A.dtype, generator=generator) * (torch.rand(60, A.n, generator=generator) < 0.3)
    noise = 0.01 * torch.randn(60, A.m, dtype=A.dtype, generator=generator)
    return ff.problems.Pairs(x=x, y=A @ x + noise, A=A, noise_var=1e-4)


@pytest.mark.parametrize("name", ["tensors of a batch", "one array", "scipy operator", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_every_verb_takes_them_as_it_takes_the_matrix(name, dtype, tmp_path):
    A = FOREIGN[name](dtype)
    pairs, algorithm = problem(A), ff.algorithms.OAMP()
    _, obs = pairs.every()
    dense = ff.Observation(obs.y, Dense(A.matrix()), obs.noise_var)
    for method in (ff.algorithms.ISTA(0.01), algorithm):
        torch.testing.assert_close(ff.iterate(method, 5)(obs).x, ff.iterate(method, 5)(dense).x, rtol=0, atol=1e-4)
    net = ff.unfold(algorithm, pairs, 2, {"damping": "per-layer"})
    ff.fit(net, pairs, steps=2, batch=4, run_dir=tmp_path / "run")
    table = ff.evaluate({"network": net}, pairs, samples=12, layers=False)
    assert np.isfinite(table.rows[0]["nmse_db"])
    loaded = ff.load(tmp_path / "run")
    torch.testing.assert_close(loaded(obs.y.numpy()).x, net(obs.y).x, rtol=0, atol=1e-4)


def test_a_scipy_operator_without_an_adjoint_is_refused():
    operator = scipy.sparse.linalg.LinearOperator((5, 8), matvec=lambda x: M.numpy() @ x, dtype=float)
    with pytest.raises(ValueError, match="has no adjoint; give it one, rmatvec="):
        from_scipy(operator)


@pytest.mark.parametrize("operator", [M.numpy(), M, None, "A"], ids=lambda v: type(v).__name__)
def test_what_is_not_of_scipy_is_named(operator):
    with pytest.raises(ValueError, match=rf"the operator is a {type(operator).__name__}; pass a sparse matrix"):
        from_scipy(operator)


def test_sparse_matrices_of_integers_and_repeated_entries():
    counts = scipy.sparse.coo_array((np.array([1, 2, 4]), ([0, 0, 1], [1, 1, 2])), shape=(2, 3))
    A = from_scipy(counts)
    assert A.dtype is torch.float64
    assert (A @ torch.ones(3, dtype=A.dtype)).tolist() == [3, 4]
    assert from_scipy(counts, torch.float32).dtype is torch.float32
    assert A.gram_diagonal().tolist() == [0, 9, 16]
    with pytest.raises(ValueError, match="the operator is not finite"):
        from_scipy(scipy.sparse.coo_array(np.array([[np.nan, 1.0]])))


def test_a_large_operator_is_used_without_its_matrix(monkeypatch):
    """Norm, column powers and hash agree with those of the matrix where both are to be had; 4 GB are never formed."""
    for name in ("tensors of a batch", "sparse"):
        with_matrix = FOREIGN[name](torch.complex128)
        monkeypatch.setattr(foreign, "DENSE_ENTRIES", 1)
        monkeypatch.setattr("fanfold.linops.sparse.DENSE_ENTRIES", 1)
        without = FOREIGN[name](torch.complex128)
        assert without.norm() == pytest.approx(torch.linalg.matrix_norm(with_matrix.matrix(), 2).item(), rel=1e-10)
        torch.testing.assert_close(without.gram_diagonal(), with_matrix.matrix().abs().square().sum(0))
        assert without.fingerprint() == FOREIGN[name](torch.complex128).fingerprint()
        monkeypatch.undo()
    n = 32_768
    shift = from_functions(lambda x: x.roll(1, -1), lambda y: y.roll(-1, -1), (n, n))
    assert shift.norm() == pytest.approx(1, rel=1e-4)
    assert dot_test(shift) < 1e-5
    y = torch.ones(2, n)
    assert torch.isfinite(ff.iterate(ff.algorithms.FISTA(0.1), 3)(ff.Observation(y, shift)).x).all()
    diagonal = from_scipy(scipy.sparse.eye_array(n, dtype="float32"))
    assert torch.isfinite(ff.iterate(ff.algorithms.FISTA(0.1), 3)(ff.Observation(y, diagonal)).x).all()
