"""Problems for estimators learned end to end, unlike each other, whose posterior means and variances are known.

BENCHMARKS holds them by name. Each draws like any problem of the package and knows its posterior in double precision.
"""

from fanfold.experiments.simulators.benchmarks.autoregression import Autoregression
from fanfold.experiments.simulators.benchmarks.base import Benchmark
from fanfold.experiments.simulators.benchmarks.bernoulli_glm import BernoulliGLM
from fanfold.experiments.simulators.benchmarks.blob_picture import BlobPicture
from fanfold.experiments.simulators.benchmarks.epidemic import Epidemic
from fanfold.experiments.simulators.benchmarks.heavy_tails import HeavyTails
from fanfold.experiments.simulators.benchmarks.mixture_set import MixtureSet
from fanfold.experiments.simulators.benchmarks.periodic_phase import PeriodicPhase
from fanfold.experiments.simulators.benchmarks.poisson_regression import PoissonRegression
from fanfold.experiments.simulators.benchmarks.predator_prey import PredatorPrey
from fanfold.experiments.simulators.benchmarks.several_modes import SeveralModes
from fanfold.experiments.simulators.benchmarks.source_localisation import SourceLocalisation
from fanfold.problems import LinearGaussian, MixtureSignal

BENCHMARKS: dict[str, Benchmark] = {
    "linear Gaussian": LinearGaussian(),
    "Gaussian mixture": MixtureSignal(),
    "Bernoulli GLM": BernoulliGLM(),
    "several modes": SeveralModes(),
    "epidemic": Epidemic(),
    "predator and prey": PredatorPrey(),
    "Poisson regression": PoissonRegression(),
    "source localisation": SourceLocalisation(),
    "heavy tails": HeavyTails(),
    "periodic phase": PeriodicPhase(),
    "mixture set": MixtureSet(),
    "autoregression": Autoregression(),
    "blob picture": BlobPicture(),
}

__all__ = [
    "BENCHMARKS",
    "Autoregression",
    "Benchmark",
    "BernoulliGLM",
    "BlobPicture",
    "Epidemic",
    "HeavyTails",
    "MixtureSet",
    "PeriodicPhase",
    "PoissonRegression",
    "PredatorPrey",
    "SeveralModes",
    "SourceLocalisation",
]
