"""Bad input to RF imaging: every refusal names what was wrong, what arrived and the way out."""

import math

import pytest
import torch

import fanfold as ff
from fanfold.algorithms import EP, OAMP, TISTA
from fanfold.deploy.memory import PeakMemory
from fanfold.estimators import ZeroForcing
from fanfold.linops import Batched, Born, Dense, Kronecker, dot_test, field_of_view, steering, uniform_linear
from fanfold.unfolding.unfold import iterate


def randn(*shape: int, dtype: torch.dtype = torch.complex64, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def repeated(m: int, n: int) -> torch.Tensor:
    """A factor whose last row is its first: rank min(m, n) - 1 where m <= n."""
    factor = randn(m, n)
    factor[-1] = factor[0]
    return factor


def deficient() -> Kronecker:
    return Kronecker(randn(4, 6), repeated(3, 5))


def observed(A, batch: int = 2) -> ff.Observation:
    return ff.Observation(randn(batch, A.m), A, torch.tensor(0.01))


def test_factors_that_do_not_fit_the_data_are_named_with_the_data():
    A = Kronecker(randn(4, 6), randn(3, 5))
    with pytest.raises(ValueError, match=r"y has shape \(2, 11\).*\(4x6\) x \(3x5\)"):
        ff.Observation(randn(2, 11), A)
    with pytest.raises(ValueError, match=r"A maps 30 -> 12 .*Transposed\?"):
        ff.Observation(randn(2, 30), A)


@pytest.mark.parametrize("make", [lambda: OAMP(linear="pseudo-inverse"), TISTA])
def test_what_divides_by_singular_values_names_the_factor_without_full_rank(make):
    with pytest.raises(ValueError, match=r"factor 2 \(3x5\) of Kronecker.* has rank 2, not 3.*'lmmse'"):
        iterate(make(), 2)(observed(deficient()))


def test_zero_forcing_names_the_factor_without_full_rank():
    A = Kronecker(randn(6, 4), repeated(5, 3).mT.contiguous().mT[:, [0, 1, 0]].contiguous())
    with pytest.raises(ValueError, match=r"factor 2 \(5x3\) of Kronecker.* has rank 2, not 3"):
        ZeroForcing()(observed(A))


@pytest.mark.parametrize(
    "A",
    [Dense(repeated(4, 6)), Batched(torch.stack([randn(4, 6), repeated(4, 6)]))],
    ids=["matrix", "one matrix a sample"],
)
def test_matrices_without_full_rank_are_refused_too(A):
    with pytest.raises(ValueError, match="has rank 3, not 4"):
        iterate(OAMP(linear="pseudo-inverse"), 2)(observed(A))


@pytest.mark.parametrize("algorithm", [OAMP(), OAMP(linear="matched-filter"), EP()], ids=["lmmse", "matched", "EP"])
def test_what_does_not_invert_works_without_full_rank(algorithm):
    x = iterate(algorithm, 3)(observed(deficient())).x
    assert torch.isfinite(x.abs()).all()
    assert x.abs().max() > 0


def test_ill_conditioned_factors_have_full_rank():
    """Arrays at 0.8 of their field of view: condition 2000 a factor, 4e6 together, above 1 / (m eps) of single."""
    factor = steering(uniform_linear(24), field_of_view(32, 0.8))
    x = iterate(OAMP(linear="pseudo-inverse"), 1)(observed(Kronecker(factor, factor))).x
    assert torch.isfinite(x.abs()).all()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Kronecker(torch.eye(2), torch.tensor([[1.0, math.nan]])), r"factor 2 is not finite.*\(0, 1\)"),
        (lambda: Born(*(torch.full((1, 3), math.inf),) * 2, torch.ones(1), torch.ones(2, 3)), "transmitters is not"),
        (lambda: Born(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([math.nan]), torch.ones(2, 3)), "wavenumbers"),
        (lambda: steering(torch.tensor([0.0, math.inf]), field_of_view(4)), r"positions is not finite.*\(1,\)"),
    ],
)
def test_geometry_that_is_not_finite_is_named(make, said):
    with pytest.raises(ValueError, match=said):
        make()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_products_with_and_without_gradients_to_the_factors_agree(dtype):
    """The adjoint is the gradient, whichever way it is found; both round as sums of at most 6 and 5 terms do."""
    factors = [randn(4, 6, dtype=dtype), randn(3, 5, dtype=dtype, seed=1)]
    x, weights = randn(2, 30, dtype=dtype).requires_grad_(), randn(2, 12, dtype=dtype, seed=2)
    gradients = []
    for free in (False, True):
        A = Kronecker(*(f.clone().requires_grad_(free) for f in factors))
        y = A @ x
        gradients.append(torch.autograd.grad(y, x, weights)[0])
        with torch.no_grad():
            assert torch.equal(y, A @ x)
    atol = 100 * torch.finfo(dtype).eps * gradients[0].abs().max().item()
    torch.testing.assert_close(gradients[0], gradients[1], rtol=0, atol=atol)


@pytest.mark.parametrize("kept", [0, 2**22])
def test_near_field_gradients_are_right_to_second_order(kept, monkeypatch):
    monkeypatch.setattr("fanfold.linops.born.MAX_KEPT_ENTRIES", kept)
    g = torch.Generator().manual_seed(0)
    antennas, voxels = torch.rand(2, 3, generator=g).double(), torch.rand(5, 3, generator=g).double() + 1
    A = Born(antennas, antennas, torch.tensor([6.0, 7.0]).double(), voxels, torch.complex128)
    dot_test(A)
    x = randn(2, 5, dtype=torch.complex128).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: A @ x, x)
    assert torch.autograd.gradcheck(lambda y: A.H @ y, (A @ x).detach().requires_grad_())
    assert torch.autograd.gradgradcheck(lambda x: (A @ x).abs().square(), x)


def test_near_field_backward_pass_holds_no_matrix(monkeypatch):
    """A has 8 MiB, a block 128 KiB: an eighth of A leaves room for the seven tensors that a block is made of."""
    monkeypatch.setattr("fanfold.linops.born.MAX_KEPT_ENTRIES", 0)
    monkeypatch.setattr("fanfold.linops.born.BLOCK_ENTRIES", 2**14)
    g = torch.Generator().manual_seed(0)
    antennas, voxels = torch.rand(8, 3, generator=g).double(), torch.rand(1024, 3, generator=g).double() + 1
    A = Born(antennas, antennas, torch.linspace(60, 70, 16).double(), voxels)
    x = randn(2, A.n).requires_grad_()
    with PeakMemory() as memory:
        (A @ x).abs().square().sum().backward()
    assert A.m * A.n == 2**20
    assert memory.peak < 2**20
