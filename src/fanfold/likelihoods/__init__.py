"""Likelihoods y ~ p(y | z) of generalised linear models, z = A x: sampled, scored, integrated.

Complex signals go through one-bit, quantised and logistic likelihoods axis by axis. A new likelihood is a file here
and a row in the REGISTRY.
"""

from fanfold.likelihoods.base import Likelihood
from fanfold.likelihoods.gaussian_noise import GaussianNoise
from fanfold.likelihoods.logistic import Logistic
from fanfold.likelihoods.one_bit import OneBit
from fanfold.likelihoods.poisson import Poisson
from fanfold.likelihoods.quantised import Quantised

REGISTRY: dict[str, type[Likelihood]] = {
    "gaussian-noise": GaussianNoise,
    "logistic": Logistic,
    "one-bit": OneBit,
    "poisson": Poisson,
    "quantised": Quantised,
}

__all__ = ["REGISTRY", "GaussianNoise", "Likelihood", "Logistic", "OneBit", "Poisson", "Quantised"]


def __dir__() -> list[str]:
    return __all__
