"""Networks without a task: on vectors, sequences, pictures and sets, and the layers that they are made of."""

from fanfold.networks.context_cnn import ContextCNN
from fanfold.networks.deep_set import DeepSet
from fanfold.networks.fourier import StackedFourier
from fanfold.networks.members import Members, SideBySide, StackedMLP
from fanfold.networks.pooled_cnn import PooledCNN
from fanfold.networks.residual_cnn import ResidualCNN
from fanfold.networks.residual_mlp import ResidualMLP
from fanfold.networks.spectrum import SpectrumCNN
from fanfold.networks.unet import UNet

__all__ = [
    "ContextCNN",
    "DeepSet",
    "Members",
    "PooledCNN",
    "ResidualCNN",
    "ResidualMLP",
    "SideBySide",
    "SpectrumCNN",
    "StackedFourier",
    "StackedMLP",
    "UNet",
]


def __dir__() -> list[str]:
    return __all__
