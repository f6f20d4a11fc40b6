"""Priors x ~ p with independent entries, and what they say of x after r = x + noise of variance v.

Every prior serves real and complex signals, but for the uniform, which is real: the dtype of the argument decides.
Complex priors are circular and variances are `E|x|²`. By Tweedie's formula the posterior mean is `r + v ∇ log p(r)`,
which the tests use. A new one is a file here and a row in the REGISTRY.
"""

from fanfold.priors.base import Prior
from fanfold.priors.bernoulli_gaussian import BernoulliGaussian
from fanfold.priors.constellation import Constellation
from fanfold.priors.gaussian import Gaussian
from fanfold.priors.gaussian_field import GaussianField
from fanfold.priors.gaussian_mixture import GaussianMixture
from fanfold.priors.laplace import Laplace
from fanfold.priors.support_chain import SupportChain
from fanfold.priors.uniform import Uniform

REGISTRY: dict[str, type[Prior]] = {
    "bernoulli-gaussian": BernoulliGaussian,
    "constellation": Constellation,
    "gaussian": Gaussian,
    "gaussian-mixture": GaussianMixture,
    "laplace": Laplace,
    "uniform": Uniform,
}

__all__ = [
    "REGISTRY",
    "BernoulliGaussian",
    "Constellation",
    "Gaussian",
    "GaussianField",
    "GaussianMixture",
    "Laplace",
    "Prior",
    "SupportChain",
    "Uniform",
]


def __dir__() -> list[str]:
    return __all__
