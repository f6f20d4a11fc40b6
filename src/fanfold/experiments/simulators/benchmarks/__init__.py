"""Problems for estimators learned end to end, unlike each other, whose posterior means and variances are known.

BENCHMARKS holds them by name. Each draws like any problem of the package and knows its posterior in double precision.
"""

from fanfold.experiments.simulators.benchmarks.base import Benchmark
from fanfold.experiments.simulators.benchmarks.bernoulli_glm import BernoulliGLM
from fanfold.experiments.simulators.benchmarks.epidemic import Epidemic
from fanfold.experiments.simulators.benchmarks.predator_prey import PredatorPrey
from fanfold.experiments.simulators.benchmarks.several_modes import SeveralModes
from fanfold.problems import LinearGaussian, MixtureSignal

BENCHMARKS: dict[str, Benchmark] = {
    "linear Gaussian": LinearGaussian(),
    "Gaussian mixture": MixtureSignal(),
    "Bernoulli GLM": BernoulliGLM(),
    "several modes": SeveralModes(),
    "epidemic": Epidemic(),
    "predator and prey": PredatorPrey(),
}

__all__ = ["BENCHMARKS", "Benchmark", "BernoulliGLM", "Epidemic", "PredatorPrey", "SeveralModes"]
