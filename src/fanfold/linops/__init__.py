"""Linear operators: `A @ x`, `A.H @ y`, `svd`, `norm`, `gram_diagonal`, for batches, real and complex."""

from fanfold.linops.base import SVD, Compose, Dense, LinearOperator
from fanfold.linops.basis import DCT, Basis, Wavelet
from fanfold.linops.batched import Batched
from fanfold.linops.born import Born
from fanfold.linops.diagonal import Diagonal
from fanfold.linops.dot_product import dot_test
from fanfold.linops.foreign import Foreign
from fanfold.linops.functions import from_functions
from fanfold.linops.inverse import covariance_inverse
from fanfold.linops.kronecker import Kronecker
from fanfold.linops.mask import Mask
from fanfold.linops.rank import refuse_rank_deficient, refuse_unseen, refuse_zero
from fanfold.linops.seen import Seen
from fanfold.linops.sparse import Sparse, from_scipy
from fanfold.linops.spectrum import reciprocal
from fanfold.linops.steering import (
    coupling,
    field_of_view,
    ofdm_radar,
    partial_fourier,
    planar_array,
    steering,
    uniform_linear,
)

__all__ = [
    "DCT",
    "SVD",
    "Basis",
    "Batched",
    "Born",
    "Compose",
    "Dense",
    "Diagonal",
    "Foreign",
    "Kronecker",
    "LinearOperator",
    "Mask",
    "Seen",
    "Sparse",
    "Wavelet",
    "coupling",
    "covariance_inverse",
    "dot_test",
    "field_of_view",
    "from_functions",
    "from_scipy",
    "ofdm_radar",
    "partial_fourier",
    "planar_array",
    "reciprocal",
    "refuse_rank_deficient",
    "refuse_unseen",
    "refuse_zero",
    "steering",
    "uniform_linear",
]


def __dir__() -> list[str]:
    return __all__
