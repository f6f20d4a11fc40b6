"""fanfold: learned estimators from measurement models. A network is an algorithm plus deviations.

    algorithms    iterative estimators, one paper a file
    adapters      operators of PyLops and deepinv, channels of Sionna
    bounds        limits: Cramér–Rao, Van Trees, Ziv–Zakai, state evolution, the exact MMSE
    deploy        export, cost, memory
    estimators    everything that maps an observation to an estimate
    guard         intervals with a promised coverage, calibrated variances, checks
    likelihoods   p(y | z): Gaussian, one-bit, quantised, Poisson, logistic
    linops        linear operators: A @ x, A.H @ y
    noise         circular Gaussian noise
    penalties     what proximal algorithms minimise beside the misfit
    priors        what signals are like: posterior mean and variance
    problems      draws of signals and their observations
    propagation   radio channels: models, stored draws, pilots
    shrinkage     thresholds and their derivatives
    unfolding     algorithms as networks, fixed points, and runs beside what theory says of them
    units         decibels and powers

Names are imported when they are first used, so that `import fanfold` is quick and the command line's help needs no
torch.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from fanfold import (
        adapters,
        algorithms,
        bounds,
        deploy,
        estimators,
        guard,
        likelihoods,
        linops,
        penalties,
        priors,
        problems,
        propagation,
        shrinkage,
        unfolding,
    )
    from fanfold.bounds.convergence import certify
    from fanfold.core import noise, units
    from fanfold.estimators import LMMSE, neural
    from fanfold.evaluation.evaluate import evaluate
    from fanfold.linops import dot_test
    from fanfold.observation import Estimate, Observation
    from fanfold.report.diagram import diagram
    from fanfold.runs.keep import load, save
    from fanfold.training.fit import fit, fit_events, resume
    from fanfold.training.learning_curve import learning_curve
    from fanfold.training.settings import Training
    from fanfold.training.simulate import simulate
    from fanfold.unfolding.equilibrium import equilibrium
    from fanfold.unfolding.unfold import iterate, unfold
    from fanfold.unfolding.watch import watch

__version__ = "0.1.0"

_HOME = {
    "LMMSE": "estimators",
    "Estimate": "observation",
    "Observation": "observation",
    "Training": "training.settings",
    "certify": "bounds.convergence",
    "diagram": "report.diagram",
    "dot_test": "linops",
    "equilibrium": "unfolding.equilibrium",
    "evaluate": "evaluation.evaluate",
    "figure": "report.figure",
    "fit": "training.fit",
    "fit_events": "training.fit",
    "iterate": "unfolding.unfold",
    "learning_curve": "training.learning_curve",
    "load": "runs.keep",
    "neural": "estimators",
    "resume": "training.fit",
    "save": "runs.keep",
    "simulate": "training.simulate",
    "unfold": "unfolding.unfold",
    "watch": "unfolding.watch",
}

__all__ = [
    "LMMSE", "Estimate", "Observation", "Training", "adapters", "algorithms", "bounds", "certify", "deploy", "diagram",
    "dot_test", "equilibrium", "estimators", "evaluate", "figure", "fit", "fit_events", "guard", "iterate",
    "learning_curve", "likelihoods", "linops", "load", "neural", "noise", "penalties", "priors", "problems",
    "propagation", "resume", "save", "shrinkage", "simulate", "unfold", "unfolding", "units", "watch",
]  # fmt: skip


def __getattr__(name: str):
    if name not in __all__:
        raise AttributeError(f"module 'fanfold' has no attribute {name!r}")
    if name in ("noise", "units"):
        return _import_module(f"fanfold.core.{name}")
    if name in _HOME:
        return vars(_import_module(f"fanfold.{_HOME[name]}"))[name]
    return _import_module(f"fanfold.{name}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
