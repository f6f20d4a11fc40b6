"""The verb doctor: whether the installation and the machine are sound."""

import platform
from typing import Any

import torch

from fanfold.algorithms import FISTA
from fanfold.cli.console import show
from fanfold.cli.flags import Result
from fanfold.core.machine import sensible_threads
from fanfold.core.table import Table
from fanfold.linops import dot_test
from fanfold.problems import CompressedSensing
from fanfold.runs.environment import installed
from fanfold.unfolding.unfold import iterate, unfold


def doctor() -> Result:
    """Check the installation: versions, threads, extras, and two laws on this machine."""
    problem = CompressedSensing(n=64, m=32)
    _, obs = problem.sample(4, torch.Generator().manual_seed(0))
    gap = dot_test(problem.A)
    net = unfold(FISTA(), problem, 8, {"step": "per-layer"})
    same = torch.equal(net(obs).x, iterate(FISTA(), 8)(obs).x)
    packages = ("fanfold", "torch", "numpy", "scipy", "safetensors", "tyro", "rich", "PyWavelets", "pillow")
    extras = (
        "matplotlib",
        "pandas",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "pylops",
        "deepinv",
        "scikit-learn",
        "skglm",
        "starlette",
    )
    facts: dict[str, Any] = {name: installed(name) or "missing: install fanfold again" for name in packages}
    facts |= {name: installed(name) or "not installed (optional)" for name in extras}
    facts |= {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads idle now": sensible_threads(),
        "adjoint": f"relative gap {gap:.1e}",
        "zero deviation is the algorithm": "bit for bit" if same else "BROKEN",
    }
    show(Table([{"what": k, "value": str(v)} for k, v in facts.items()]))
    return {"facts": facts, "failed": not same or any("missing" in str(facts[name]) for name in packages)}
