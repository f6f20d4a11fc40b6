"""Output channels y ~ p(y | z) of generalised linear models, z = A x: sampled, scored, integrated.

Complex signals go through one-bit, quantised and logistic channels axis by axis. A new channel is a file here and a
row in the registry.
"""

from fanfold.channels.base import Channel
from fanfold.channels.gaussian_noise import GaussianNoise
from fanfold.channels.logistic import Logistic
from fanfold.channels.one_bit import OneBit
from fanfold.channels.poisson import Poisson
from fanfold.channels.quantised import Quantised

REGISTRY: dict[str, type[Channel]] = {
    "gaussian-noise": GaussianNoise,
    "logistic": Logistic,
    "one-bit": OneBit,
    "poisson": Poisson,
    "quantised": Quantised,
}

__all__ = ["REGISTRY", "Channel", "GaussianNoise", "Logistic", "OneBit", "Poisson", "Quantised"]
