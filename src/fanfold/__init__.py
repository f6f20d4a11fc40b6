"""fanfold: learned estimators from measurement models. A network is an algorithm plus deviations.

Names are imported when they are first used, so that `import fanfold` is quick and the command line's help needs no
torch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fanfold import (
        algorithms,
        bounds,
        channels,
        deploy,
        estimators,
        guard,
        linops,
        noise,
        penalties,
        priors,
        problems,
        propagation,
        shrinkage,
        units,
    )
    from fanfold.certificate import certify
    from fanfold.equilibrium import equilibrium
    from fanfold.estimators import LMMSE, neural
    from fanfold.evaluate import evaluate
    from fanfold.fit import Training, fit, fit_events, resume
    from fanfold.linops import dot_test
    from fanfold.observation import Estimate, Observation
    from fanfold.runs import load
    from fanfold.simulating import simulate
    from fanfold.trace import run, watch
    from fanfold.unfold import iterate, unfold

__version__ = "0.1.0"

_HOME = {
    "LMMSE": "fanfold.estimators",
    "Estimate": "fanfold.observation",
    "Observation": "fanfold.observation",
    "Training": "fanfold.fit",
    "certify": "fanfold.certificate",
    "dot_test": "fanfold.linops",
    "equilibrium": "fanfold.equilibrium",
    "evaluate": "fanfold.evaluate",
    "fit": "fanfold.fit",
    "fit_events": "fanfold.fit",
    "iterate": "fanfold.unfold",
    "load": "fanfold.runs",
    "neural": "fanfold.estimators",
    "resume": "fanfold.fit",
    "run": "fanfold.trace",
    "simulate": "fanfold.simulating",
    "unfold": "fanfold.unfold",
    "watch": "fanfold.trace",
}
_MODULES = (
    "algorithms",
    "bounds",
    "channels",
    "deploy",
    "estimators",
    "guard",
    "linops",
    "noise",
    "penalties",
    "priors",
    "problems",
    "propagation",
    "shrinkage",
    "units",
)

__all__ = [
    "LMMSE", "Estimate", "Observation", "Training", "algorithms", "bounds", "certify", "channels", "deploy",
    "dot_test", "equilibrium", "estimators", "evaluate", "fit", "fit_events", "guard", "iterate", "linops", "load",
    "neural", "noise", "penalties", "priors", "problems", "propagation", "resume", "run", "shrinkage", "simulate",
    "unfold", "units", "watch",
]  # fmt: skip


class _Package(ModuleType):
    """Where a module and its main function share a name (`fit`, `unfold`), `fanfold.fit` is the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str):
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _MODULES:
        return import_module(f"fanfold.{name}")
    raise AttributeError(f"module 'fanfold' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
