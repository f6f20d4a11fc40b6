"""Operators from a user's own functions and from scipy, in every way that these come: rows of the laws of operators."""

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch

from fanfold.linops import from_functions, from_scipy


def matrix(dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(5, 8, generator=torch.Generator().manual_seed(3), dtype=dtype)


def sparse(dtype: torch.dtype):
    M = matrix(dtype)
    return scipy.sparse.csr_array((M * (M.abs() > 0.8)).numpy())


def with_tensors_of_a_batch(dtype):
    M = matrix(dtype)
    return from_functions(lambda x: x @ M.mT, lambda y: y @ M.conj(), (5, 8), dtype)


def with_one_tensor(dtype):
    M = matrix(dtype)
    return from_functions(lambda x: M @ x, lambda y: M.mH @ y, (5, 8), dtype)


def with_arrays_of_a_batch(dtype):
    M = matrix(dtype).numpy()
    return from_functions(lambda x: x.astype(M.dtype) @ M.T, lambda y: y.astype(M.dtype) @ M.conj(), (5, 8), dtype)


def with_one_array(dtype):
    M = matrix(dtype).numpy()
    return from_functions(lambda x: np.matmul(M, x), lambda y: np.matmul(M.conj().T, y), (5, 8), dtype)


def scipy_operator(dtype):
    M = matrix(dtype).numpy()
    operator = scipy.sparse.linalg.LinearOperator(
        (5, 8), matvec=lambda x: M @ x, rmatvec=lambda y: M.conj().T @ y, dtype=M.dtype
    )
    return from_scipy(operator)


FOREIGN = {
    "tensors of a batch": with_tensors_of_a_batch,
    "one tensor": with_one_tensor,
    "arrays of a batch": with_arrays_of_a_batch,
    "one array": with_one_array,
    "scipy operator": scipy_operator,
    "sparse": lambda dtype: from_scipy(sparse(dtype)),
    "sparse, by coordinates": lambda dtype: from_scipy(sparse(dtype).tocoo()),
}
