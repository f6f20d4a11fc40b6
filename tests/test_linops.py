"""Every operator, in every dtype, through every law of linear operators; then what each is said to be."""

import numpy as np
import pylops
import pytest
import pywt
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from fanfold.adapters import from_deepinv, from_pylops
from fanfold.core.units import power
from fanfold.linops import (
    DCT,
    Compose,
    Dense,
    Diagonal,
    Kronecker,
    LinearOperator,
    Mask,
    Wavelet,
    covariance_inverse,
    dot_test,
)
from foreign_rows import FOREIGN

DTYPES = (torch.float32, torch.float64, torch.complex64, torch.complex128)


def randn(*shape: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class BlurThenEveryOtherColumn:
    """Stands in for deepinv's physics interface, `A` and `A_adjoint` on images `(batch, channels, height, width)`."""

    def __init__(self, tap: complex):
        self.tap = tap

    def A(self, image):
        return (image + self.tap * image.roll(1, -1))[..., ::2]

    def A_adjoint(self, measured):
        image = measured.new_zeros((*measured.shape[:-1], 2 * measured.shape[-1]))
        image[..., ::2] = measured
        return (
            image + complex(self.tap).conjugate() * image.roll(-1, -1)
            if measured.is_complex()
            else (image + self.tap * image.roll(-1, -1))
        )


def dense(dtype):
    return Dense(randn(5, 8, dtype=dtype))


def tall(dtype):
    return Dense(randn(9, 4, dtype=dtype))


def diagonal(dtype):
    d = randn(6, dtype=dtype)
    d[2] = 0  # singular, which its decomposition must survive
    return Diagonal(d)


def mask(dtype):
    return Mask(torch.tensor([6, 0, 3]), 7, dtype)


def deepinv_like(dtype):
    return from_deepinv(BlurThenEveryOtherColumn(0.5 + 0.25j if dtype.is_complex else 0.5), (2, 3, 4), dtype)


def kronecker(dtype, *shapes):
    return Kronecker(*(randn(*shape, dtype=dtype, seed=i) for i, shape in enumerate(shapes)))


def pylops_matrix(dtype):
    return from_pylops(pylops.MatrixMult(randn(5, 8, dtype=dtype).numpy(), dtype=str(dtype).removeprefix("torch.")))


def pylops_derivative(dtype):
    return from_pylops(pylops.FirstDerivative(9, dtype=str(dtype).removeprefix("torch.")))


OPERATORS = {
    "dense": dense,
    "tall": tall,
    "diagonal": diagonal,
    "mask": mask,
    "compose": lambda dtype: mask(dtype) @ Diagonal(randn(7, dtype=dtype)),
    "sensing of a basis": lambda dtype: Dense(randn(5, 8, dtype=dtype)) @ DCT((8,), dtype).H,
    "dct": lambda dtype: DCT((9,), dtype),
    "dct of pictures": lambda dtype: DCT((4, 3), dtype),
    "haar": lambda dtype: Wavelet((8,), "haar", dtype=dtype),
    "haar of pictures": lambda dtype: Wavelet((4, 8), "haar", dtype=dtype),
    "db4": lambda dtype: Wavelet((16,), "db4", dtype=dtype),
    "db4 of pictures": lambda dtype: Wavelet((8, 8), "db4", 2, dtype),
    "adjoint": lambda dtype: dense(dtype).H,
    "adjoint of a mask": lambda dtype: mask(dtype).H,
    "kronecker": lambda dtype: kronecker(dtype, (3, 4), (2, 3)),
    "kronecker of three, tall and wide": lambda dtype: kronecker(dtype, (3, 2), (2, 3), (4, 2)),
    "kronecker of one": lambda dtype: kronecker(dtype, (3, 5)),
    "pylops matrix": pylops_matrix,
    "pylops derivative": pylops_derivative,
    "deepinv": deepinv_like,
    **FOREIGN,
}
BASES = ("dct", "dct of pictures", "haar", "haar of pictures", "db4", "db4 of pictures")

each_operator = pytest.mark.parametrize("name", OPERATORS)
each_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def rounding(A: LinearOperator) -> float:
    """Of a product with A, relative to the norms of its factors: eps for each term of a sum, ten times over."""
    return 10 * torch.finfo(A.dtype).eps * (A.m + A.n)


@each_dtype
@each_operator
def test_adjoint(name, dtype):
    A = OPERATORS[name](dtype)
    assert dot_test(A) <= 8 * torch.finfo(dtype).eps * (A.m + A.n) ** 0.5
    assert dot_test(A.H) <= 8 * torch.finfo(dtype).eps * (A.m + A.n) ** 0.5


@each_dtype
@each_operator
def test_applying_is_multiplying_by_the_matrix(name, dtype):
    """In any batch, both ways, and the same for every sample alone."""
    A = OPERATORS[name](dtype)
    x, y = randn(2, 3, A.n, dtype=dtype), randn(2, 3, A.m, dtype=dtype, seed=1)
    M = A.matrix()
    assert M.shape == A.shape == (A.m, A.n)
    assert (A @ x).dtype == (A.H @ y).dtype == M.dtype == A.dtype == dtype
    atol = rounding(A) * A.norm() * max(x.norm().item(), y.norm().item())
    torch.testing.assert_close(A @ x, torch.einsum("mn,abn->abm", M, x), rtol=0, atol=atol)
    torch.testing.assert_close(A.H @ y, torch.einsum("mn,abm->abn", M.conj(), y), rtol=0, atol=atol)
    torch.testing.assert_close(A @ x[1, 2], (A @ x)[1, 2], rtol=0, atol=atol)
    torch.testing.assert_close(A.H @ y.conj(), torch.einsum("mn,abm->abn", M, y).conj(), rtol=0, atol=atol)


@each_dtype
@each_operator
def test_adjoint_of_the_adjoint_is_the_operator_itself(name, dtype):
    A = OPERATORS[name](dtype)
    assert A.H.H is A
    assert A.H is A.H
    assert A.H.shape == (A.n, A.m)
    assert torch.equal(A.H.matrix(), A.matrix().mH)


@each_dtype
@each_operator
def test_svd_rebuilds_the_operator(name, dtype):
    A = OPERATORS[name](dtype)
    for operator in (A, A.H):
        U, s, V = operator.svd()
        k = len(s)  # less than this only where factors of a product are tall and wide
        assert k == min(operator.shape) or name == "kronecker of three, tall and wide"
        assert U.shape == (operator.m, k)
        assert V.shape == (operator.n, k)
        assert s.dtype == dtype.to_real()
        assert (s >= 0).all()
        assert (s.diff() <= 0).all() or name.startswith("kronecker")  # whose order is that of the factors
        eye = torch.eye(k, dtype=dtype)
        for basis in (U, V):
            torch.testing.assert_close(basis.H @ basis.matrix().mT, eye, rtol=0, atol=rounding(A))
        rebuilt = (U.matrix() * s) @ V.matrix().mH
        torch.testing.assert_close(rebuilt, operator.matrix(), rtol=0, atol=rounding(A) * A.norm())


@each_dtype
@each_operator
def test_norm_is_the_largest_singular_value(name, dtype):
    A = OPERATORS[name](dtype)
    largest = np.linalg.norm(A.matrix().to(torch.complex128).resolve_conj().numpy(), 2)
    assert A.norm() == pytest.approx(largest, rel=rounding(A))
    assert A.H.norm() == pytest.approx(largest, rel=rounding(A))
    assert A.svd().s.max().item() == pytest.approx(largest, rel=rounding(A))


@each_dtype
@each_operator
def test_covariances_through_the_operator_are_those_through_its_matrix(name, dtype):
    """`A diag(w) Aᴴ` and the diagonal of `Aᴴ P A`, for a batch of weights and of Hermitian P."""
    A = OPERATORS[name](dtype)
    weights = randn(2, A.n, dtype=dtype.to_real()).abs()
    P = randn(2, A.m, A.m, dtype=dtype)
    P = P + P.mH
    M = A.matrix()
    atol = rounding(A) * A.norm() ** 2 * max(weights.max().item(), P.norm().item())
    torch.testing.assert_close(A.weighted_gram(weights), (M * weights[:, None]) @ M.mH, rtol=0, atol=atol)
    diagonal = A.quadratic_diagonal(P)
    assert diagonal.dtype == dtype.to_real()
    torch.testing.assert_close(diagonal, (M.mH @ P @ M).diagonal(dim1=-2, dim2=-1).real, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
def test_inverse_of_a_covariance_and_its_derivative(dtype):
    root = randn(3, 5, 5, dtype=dtype)
    S = (root @ root.mH + torch.eye(5, dtype=dtype)).requires_grad_()
    torch.testing.assert_close(covariance_inverse(S) @ S, torch.eye(5, dtype=dtype).expand(3, 5, 5))
    assert torch.autograd.gradcheck(lambda a: covariance_inverse((a + a.mH) / 2), S)


def test_what_is_no_covariance_has_no_inverse():
    """The others of its batch keep theirs."""
    found = covariance_inverse(torch.stack([torch.eye(3), -torch.eye(3)]))
    assert torch.equal(found[0], torch.eye(3))
    assert found[1].isnan().all()


@each_dtype
@each_operator
def test_gram_diagonal_is_the_diagonal_of_the_gram_matrix(name, dtype):
    A = OPERATORS[name](dtype)
    for operator in (A, A.H):
        gram = operator.matrix().mH @ operator.matrix()
        diagonal = operator.gram_diagonal()
        assert diagonal.dtype == dtype.to_real()
        torch.testing.assert_close(diagonal, gram.diagonal().real, rtol=0, atol=rounding(A) * A.norm() ** 2)


@each_dtype
@each_operator
def test_gradient_of_the_energy_is_the_adjoint_of_the_output(name, dtype):
    """`∇ |A x|² = 2 Aᴴ A x`, in torch's convention `∂/∂Re + i ∂/∂Im`."""
    A = OPERATORS[name](dtype)
    x = randn(3, A.n, dtype=dtype).requires_grad_()
    power(A @ x).sum().backward()
    expected = 2 * (A.H @ (A @ x.detach()))
    atol = rounding(A) * A.norm() ** 2 * x.detach().norm().item()
    assert torch.allclose(x.grad, expected, rtol=0, atol=atol)
    y = randn(3, A.m, dtype=dtype).requires_grad_()
    power(A.H @ y).sum().backward()
    assert torch.allclose(
        y.grad, 2 * (A @ (A.H @ y.detach())), rtol=0, atol=rounding(A) * A.norm() ** 2 * y.detach().norm().item()
    )


@each_dtype
@each_operator
def test_fingerprint_is_that_of_the_content(name, dtype):
    A, again = OPERATORS[name](dtype), OPERATORS[name](dtype)
    assert A is not again
    assert A.fingerprint() == again.fingerprint()
    assert A.fingerprint() != A.H.fingerprint()
    others = [OPERATORS[name](other).fingerprint() for other in DTYPES if other != dtype]
    assert len({A.fingerprint(), *others}) == len(DTYPES)


@each_dtype
def test_fingerprint_changes_with_the_content(dtype):
    matrix = randn(5, 8, dtype=dtype)
    touched = matrix.clone()
    touched[3, 2] *= 1 + 4 * torch.finfo(dtype).eps
    different = [
        Dense(matrix),
        Dense(touched),
        Dense(matrix[:4]),
        Dense(matrix.reshape(8, 5)),
        Dense(matrix).H,
        Dense(matrix.mH.contiguous()),
        Diagonal(matrix[0]),
        Diagonal(matrix[1]),
        Mask(torch.tensor([0, 1]), 8, dtype),
        Mask(torch.tensor([1, 0]), 8, dtype),
        Mask(torch.tensor([0, 1]), 9, dtype),
        DCT((8,), dtype),
        DCT((4, 2), dtype),
        DCT((2, 4), dtype),
        Wavelet((8,), "haar", dtype=dtype),
        Wavelet((8,), "haar", 1, dtype),
        Wavelet((8,), "db4", dtype=dtype),
        Dense(matrix) @ DCT((8,), dtype),
        Dense(matrix) @ DCT((8,), dtype).H,
    ]
    assert len({A.fingerprint() for A in different}) == len(different)


@each_dtype
def test_fingerprint_does_not_depend_on_the_layout_in_memory(dtype):
    matrix = randn(5, 8, dtype=dtype)
    assert Dense(matrix).fingerprint() == Dense(matrix.mT.contiguous().mT).fingerprint()
    assert Dense(matrix).fingerprint() == Dense(matrix.conj().resolve_conj().conj()).fingerprint()
    index = torch.tensor([2, 0])
    assert Mask(index, 4, dtype).fingerprint() == Mask(index.int(), 4, dtype).fingerprint()


@each_dtype
@each_operator
def test_conversion_keeps_the_operator_to_rounding(name, dtype):
    A = OPERATORS[name](dtype)
    assert A.to().fingerprint() == A.to(dtype=dtype).fingerprint() == A.fingerprint()
    for other in DTYPES:
        if other.is_complex != dtype.is_complex:
            continue
        B = A.to(dtype=other)
        assert B.dtype == other
        assert (B @ randn(2, A.n, dtype=other)).dtype == other
        coarser = max(torch.finfo(dtype).eps, torch.finfo(other).eps)
        gap = B.matrix().to(torch.complex128) - A.matrix().to(torch.complex128)
        # a matrix is rounded once; cosines and filters are rounded, then multiplied
        assert gap.abs().max() <= 10 * coarser * (A.m + A.n) * A.norm()


@each_dtype
@pytest.mark.parametrize("name", BASES)
def test_basis_is_orthonormal(name, dtype):
    B = OPERATORS[name](dtype)
    eye = torch.eye(B.n, dtype=dtype)
    assert torch.allclose((B.H @ B).matrix(), eye, rtol=0, atol=rounding(B))
    assert torch.allclose((B @ B.H).matrix(), eye, rtol=0, atol=rounding(B))


@each_dtype
@pytest.mark.parametrize("extent", [(1,), (7,), (16,), (5, 8), (1, 6)])
def test_dct_is_scipys(extent, dtype):
    B = DCT(extent, dtype)
    x = randn(3, B.n, dtype=dtype)
    axes = tuple(range(1, 1 + len(extent)))
    expected = scipy.fft.dctn(x.reshape(3, *extent).numpy(), axes=axes, norm="ortho").reshape(3, -1)
    assert np.allclose((B @ x).numpy(), expected, rtol=0, atol=rounding(B) * x.abs().max().item())


@each_dtype
@pytest.mark.parametrize("name", ["haar", "db4", "sym5"])
def test_one_wavelet_level_is_pywavelets_periodic_one(name, dtype):
    B = Wavelet((8, 12), name, 1, dtype)
    x = randn(8, 12, dtype=dtype)
    averages, (down, across, both) = pywt.dwt2(x.numpy(), name, mode="periodization")
    coefficients = (B @ x.flatten()).reshape(8, 12).numpy()
    atol = rounding(B) * x.abs().max().item()
    assert np.allclose(coefficients[:4, :6], averages, rtol=0, atol=atol)
    assert np.allclose(coefficients[4:, :6], down, rtol=0, atol=atol)
    assert np.allclose(coefficients[:4, 6:], across, rtol=0, atol=atol)
    assert np.allclose(coefficients[4:, 6:], both, rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["haar", "db4"])
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_coarsest_averages_come_first(name, levels):
    picture, line = randn(16, 8, dtype=torch.float64), randn(16, dtype=torch.float64)
    averages, trend = picture.numpy(), line.numpy()
    for _ in range(levels):
        averages = pywt.dwt2(averages, name, mode="periodization")[0]
        trend = pywt.dwt(trend, name, mode="periodization")[0]
    B = Wavelet((16, 8), name, levels, torch.float64)
    corner = (B @ picture.flatten()).reshape(16, 8)[: 16 >> levels, : 8 >> levels]
    assert np.allclose(corner.numpy(), averages, rtol=0, atol=rounding(B) * averages.max())
    first = (Wavelet((16,), name, levels, torch.float64) @ line)[: 16 >> levels]
    assert np.allclose(first.numpy(), trend, rtol=0, atol=rounding(B) * 16)


def test_wavelet_splits_as_often_as_it_can():
    assert Wavelet((16, 24), "haar").levels == 3
    assert Wavelet((64,), "haar").levels == 6


@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**31))
def test_mask_picks_and_its_adjoint_puts_back(n, m, seed):
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:m]
    A = Mask(order, n, torch.float64)
    x = torch.arange(1.0, n + 1, dtype=torch.float64)
    assert (A @ x).tolist() == (order + 1.0).tolist()
    back = A.H @ (A @ x)
    assert back[order].tolist() == x[order].tolist()
    assert back.count_nonzero() == len(order)


def test_what_derives_from_an_operator_is_computed_once():
    A = dense(torch.float64)
    assert A.svd() is A.svd()
    assert A.matrix() is A.matrix()
    runs = []
    assert [A.once("key", lambda: runs.append(1) or len(runs)) for _ in range(3)] == [1, 1, 1]


class Wrong(Dense):
    """A matrix whose adjoint is not its adjoint."""

    def __init__(self, matrix, scale: complex = 1.0, *, conjugate: bool = True):
        super().__init__(matrix)
        self._scale, self._conjugate = scale, conjugate

    def _adjoint(self, y):
        return self._scale * torch.matmul(y, self._A.conj() if self._conjugate else self._A)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_dot_test_refuses_a_transpose_for_an_adjoint(dtype):
    matrix = randn(5, 8, dtype=dtype)
    assert dot_test(Wrong(matrix)) < 1e-5
    with pytest.raises(ValueError, match=r"not the adjoint.*conjugation"):
        dot_test(Wrong(matrix, conjugate=False))


@each_dtype
@pytest.mark.parametrize("scale", [1.001, -1.0, float("nan")])
def test_dot_test_refuses_a_scaled_adjoint(dtype, scale):
    with pytest.raises(ValueError, match="not the adjoint"):
        dot_test(Wrong(randn(5, 8, dtype=dtype), scale))


def test_dot_test_allows_what_it_is_told_to():
    A = Wrong(randn(5, 8, dtype=torch.float64), 1.001)
    assert 0 < dot_test(A, torch.Generator().manual_seed(3), tolerance=1e-2) < 1e-3


@each_operator
def test_wrong_shape_is_refused_with_the_fix(name):
    A = OPERATORS[name](torch.float32)
    with pytest.raises(ValueError, match=rf"A maps {A.n} -> {A.m} but the signal has 99 .*\(\.\.\., {A.n}\)\.$"):
        A @ torch.zeros(2, 99)
    if A.m != A.n:
        with pytest.raises(ValueError, match=r"Transposed\?$"):
            A @ torch.zeros(2, A.m)
        with pytest.raises(ValueError, match=r"Transposed\?$"):
            A.H @ torch.zeros(2, A.n)


@pytest.mark.parametrize("index", [[0, 4], [-1, 2], []])
def test_mask_refuses_positions_out_of_range(index):
    with pytest.raises(ValueError, match="between 0 and 3"):
        Mask(torch.tensor(index, dtype=torch.int64), 4)


def test_mask_refuses_repeated_positions():
    with pytest.raises(ValueError, match="repeated"):
        Mask(torch.tensor([1, 3, 1]), 4)


@each_dtype
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_dense_refuses_what_is_not_finite_and_says_where(dtype, bad):
    matrix = torch.ones(3, 4, dtype=dtype)
    matrix[1, 2] = bad
    with pytest.raises(ValueError, match=r"not finite.*\(1, 2\)"):
        Dense(matrix)


def test_dense_refuses_an_empty_matrix():
    with pytest.raises(ValueError, match=r"\(m, n\), not \(0, 4\)"):
        Dense(torch.zeros(0, 4))


@each_dtype
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_diagonal_refuses_what_is_not_finite_and_says_where(dtype, bad):
    d = torch.ones(5, dtype=dtype)
    d[3] = bad
    with pytest.raises(ValueError, match=r"not finite.*\b3\b"):
        Diagonal(d)


def test_diagonal_refuses_an_empty_vector():
    with pytest.raises(ValueError, match=r"\(n,\), not \(0,\)"):
        Diagonal(torch.zeros(0))


def test_compose_refuses_shapes_that_do_not_meet():
    with pytest.raises(ValueError, match="5 entries come out and 8 are expected"):
        Compose(dense(torch.float32), dense(torch.float32))


def test_compose_refuses_two_precisions():
    with pytest.raises(ValueError, match=r"one dtype.*\.to\(\)"):
        dense(torch.float32) @ DCT((8,), torch.float64)


@pytest.mark.parametrize("name", ["bior2.2", "morl", "no such wavelet"])
def test_wavelet_refuses_what_is_not_orthogonal(name):
    with pytest.raises(ValueError, match=r"no orthogonal wavelet; take haar"):
        Wavelet((8,), name)


@pytest.mark.parametrize(("extent", "levels"), [((12,), 3), ((8, 6), 2), ((7,), None), ((8,), 0)])
def test_wavelet_refuses_an_extent_that_does_not_halve(extent, levels):
    with pytest.raises(ValueError, match=r"can be halved . times"):
        Wavelet(extent, "haar", levels)


@pytest.mark.parametrize("extent", [(), (2, 3, 4), (0,)])
def test_basis_refuses_other_than_one_or_two_axes(extent):
    with pytest.raises(ValueError, match=r"\(length,\) or \(height, width\)"):
        DCT(extent)


@each_dtype
def test_kronecker_is_the_matrix_of_that_name(dtype):
    A = kronecker(dtype, (3, 2), (2, 3), (4, 2))
    expected = torch.kron(torch.kron(A.factors[0], A.factors[1]), A.factors[2])
    torch.testing.assert_close(A.matrix(), expected, rtol=0, atol=rounding(A))


def test_kronecker_passes_gradients_to_its_factors():
    factors = [
        randn(3, 4, dtype=torch.complex128).requires_grad_(),
        randn(2, 3, dtype=torch.complex128).requires_grad_(),
    ]
    x = randn(5, 12, dtype=torch.complex128)
    assert torch.autograd.gradcheck(lambda *f: Kronecker(*f) @ x, factors)
    assert torch.autograd.gradcheck(lambda *f: Kronecker(*f).H @ x[:, :6], factors)


@pytest.mark.parametrize(
    ("factors", "said"),
    [
        ((), "at least one"),
        ((torch.ones(2, 2), torch.ones(2)), "factor 2 has shape"),
        ((torch.ones(2, 2), torch.ones(2, 2, dtype=torch.float64)), "factor 2 is torch.float64"),
        ((torch.tensor([[1.0, float("nan")]]),), "not finite"),
    ],
)
def test_kronecker_refuses_what_is_no_product(factors, said):
    with pytest.raises(ValueError, match=said):
        Kronecker(*factors)
