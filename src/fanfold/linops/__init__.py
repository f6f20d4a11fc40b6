"""Linear operators: `A @ x`, `A.H @ y`, `svd`, `norm`, `gram_diagonal`, for batches, real and complex."""

from fanfold.linops.adapters import from_deepinv, from_pylops
from fanfold.linops.base import SVD, LinearOperator, dot_test
from fanfold.linops.basis import DCT, Wavelet
from fanfold.linops.batched import Batched
from fanfold.linops.compose import Compose
from fanfold.linops.dense import Dense
from fanfold.linops.diagonal import Diagonal
from fanfold.linops.kronecker import Kronecker
from fanfold.linops.mask import Mask

__all__ = [
    "DCT",
    "SVD",
    "Batched",
    "Compose",
    "Dense",
    "Diagonal",
    "Kronecker",
    "LinearOperator",
    "Mask",
    "Wavelet",
    "dot_test",
    "from_deepinv",
    "from_pylops",
]
