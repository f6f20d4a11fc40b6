"""Operators of other libraries: maps that are linear over the reals alone, and adjoints that are none."""

import numpy as np
import pylops
import pytest
import torch

import fanfold as ff
from fanfold.adapters import from_deepinv, from_pylops

pytestmark = pytest.mark.filterwarnings("ignore:numpy backend always returns complex128")
REAL_LINEAR = {
    "fft": lambda dtype: pylops.signalprocessing.FFT(8, real=True, dtype=dtype),
    "fft of an odd length": lambda dtype: pylops.signalprocessing.FFT(9, real=True, dtype=dtype),
    "fft in two dimensions": lambda dtype: pylops.signalprocessing.FFT2D((4, 6), real=True, dtype=dtype),
    "masked fft": lambda dtype: (
        pylops.Restriction(5, [0, 2, 3], dtype=dtype.replace("float32", "complex64").replace("float64", "complex128"))
        * pylops.signalprocessing.FFT(8, real=True, dtype=dtype)
    ),
    "shift": lambda dtype: pylops.signalprocessing.Shift((8,), 1.5, real=True, dtype=dtype),
    "conjugate": lambda dtype: pylops.basicoperators.Conj(6, dtype=dtype),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REAL_LINEAR)
def test_maps_that_are_linear_over_the_reals_are_real_operators(name, dtype):
    theirs = REAL_LINEAR[name](dtype)
    A = from_pylops(theirs)
    assert not A.dtype.is_complex
    x = torch.randn(3, A.n, dtype=A.dtype, generator=torch.Generator().manual_seed(0))
    wanted = np.stack([theirs.matvec(row) for row in x.numpy()])
    if np.iscomplexobj(wanted):
        wanted = np.concatenate([wanted.real, wanted.imag], -1)
    eps = torch.finfo(A.dtype).eps
    assert A.shape == (wanted.shape[-1], x.shape[-1])
    assert np.abs((A @ x).numpy() - wanted).max() < 100 * eps * np.abs(wanted).max()
    assert ff.dot_test(A) < 8 * eps * sum(A.shape) ** 0.5
    assert (A.H.matrix() - A.matrix().mT).abs().max() < 100 * eps


def test_a_signal_comes_back_through_a_real_fft():
    A = from_pylops(pylops.signalprocessing.FFT(16, real=True))
    x = torch.zeros(16, dtype=torch.float64)
    x[3] = 1.0
    found = ff.iterate(ff.algorithms.ISTA(1e-4), 200)(ff.Observation(A @ x, A)).x
    assert (found - x).abs().max() < 1e-3


class Scaled(pylops.LinearOperator):
    """An operator whose adjoint is twice what it is."""

    def __init__(self):
        super().__init__(dtype=np.dtype("float64"), shape=(4, 4))

    def _matvec(self, x):
        return x

    def _rmatvec(self, y):
        return 2 * y


class Physics:
    """A physics whose adjoint is another's."""

    def A(self, x):
        return x.flip(-1) * torch.arange(1.0, 5.0)

    def A_adjoint(self, y):
        return y * torch.arange(1.0, 5.0)


def test_what_is_no_adjoint_is_refused_when_it_is_adopted():
    with pytest.raises(ValueError, match="Scaled cannot be taken over: what it calls its adjoint is none"):
        from_pylops(Scaled())
    with pytest.raises(ValueError, match="Physics cannot be taken over"):
        from_deepinv(Physics(), (1, 2, 4))
