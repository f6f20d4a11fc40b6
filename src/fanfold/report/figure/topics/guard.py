"""A stream of measurements whose world changes: a network, its baseline, and the guard that goes over between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fanfold.algorithms import FISTA, ISTA
from fanfold.deploy.codegen import CFiles, to_c
from fanfold.deploy.lowering import LoweredStep, lowered
from fanfold.guard.fallback import Guarded, guarded
from fanfold.observation import Estimate, Estimator, Observation
from fanfold.problems import CompressedSensing
from fanfold.report.figure.topics.controls import per_cent, slider
from fanfold.training.fit import fit
from fanfold.unfolding.unfold import iterate, unfold

PROBLEM = CompressedSensing(n=60, m=45, sparsity=0.1, snr_db=10)
LAYERS = 8
CALLS, BEGINS, ENDS = 300, 80, 200  # of a stream, and of its shift
GAINS = (0.5, 0.7, 0.85, 1, 1.25, 1.5, 2, 3)
NOISES = (1, 2, 5, 10, 30, 100)  # times what is told
WRONGS = (0, 0.02, 0.05, 0.1, 0.2, 0.4)  # of A
DENSE = (0.05, 0.1, 0.2, 0.35, 0.5)


def untrained() -> nn.Module:
    """The network before its training."""
    return unfold(ISTA(lam=0.05), PROBLEM, LAYERS, {"step": "per-layer", "threshold": "per-layer"})


def train() -> dict[str, Tensor]:
    """What the network learned."""
    return dict(fit(untrained(), PROBLEM, steps=400, batch=64, lr=1e-2, seed=0, threads=1).state_dict())


def paths(weights: Mapping[str, Tensor]) -> tuple[nn.Module, Estimator, Guarded]:
    """The network, its baseline, and the guard of both."""
    net, safe = untrained(), iterate(FISTA(lam=0.2), LAYERS)
    net.load_state_dict(dict(weights))
    net.requires_grad_(False)
    return net, safe, guarded(net, safe, PROBLEM)


def example() -> Observation:
    """Three measurements, each with its noise variance."""
    obs = PROBLEM.sample(3, torch.Generator().manual_seed(0))[1]
    return Observation(obs.y, obs.A, torch.full((3, 1), PROBLEM.noise_var))


def c_of(weights: Mapping[str, Tensor], folder: Path) -> list[CFiles]:
    """The C of every program."""
    net, safe, guard = paths(weights)
    A, x = PROBLEM.A, PROBLEM.sample(3, torch.Generator().manual_seed(0))[0]
    return [
        to_c(lambda obs: Estimate(A @ obs.y), Observation(x), folder, name="measured"),
        to_c(net, example(), folder, name="network"),
        to_c(safe, example(), folder, name="baseline"),
        to_c(guard, example(), folder, name="guarded"),
    ]


def arrays(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the guard remembers before its first call."""
    low = lowered(paths(weights)[2], example())
    assert isinstance(low, LoweredStep)
    return {name: value.float() for name, value in low.start.items()}


def facts(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Words, sliders and curves."""
    return {
        "title": "A guard at work: network, baseline, and the way between them",
        "lead": "A stream of 300 measurements, in which the world changes at call 80 and comes back at call 200. The "
        "guard is told neither. It weighs a trained network and a baseline by losses at the measurements alone. "
        "Every number is computed in this page, by the C that fanfold exports.",
        "note": "60 unknowns, one in ten not zero, from 45 measurements at 10 dB. The network is ISTA unfolded into "
        "8 layers and trained there; the baseline 8 iterations of FISTA. The guard is one program of one call: what "
        "it remembers goes in and comes out. Errors are over the last 20 calls; the list has those of the calls "
        "in the changed world.",
        "controls": [
            slider("gain", "Gain of the receiver", GAINS, 1, lambda v: f"{v:g} ×"),
            slider("noise", "Noise power", NOISES, 1, lambda v: f"{v:g} × what is told"),
            slider("wrong", "Error of A", WRONGS, 0, per_cent),
            slider("sparsity", "Entries not zero", DENSE, 0.1, per_cent),
        ],
        "titles": ["Error over the last 20 calls", "Whom the guard trusts"],
        "listed": "Error in the changed world",
        "below": "1 is the network alone, 0 the baseline alone; dashed lines are where the world changes and comes "
        "back.",
        "calls": CALLS, "begins": BEGINS, "ends": ENDS,
        "sparsity": PROBLEM.sparsity,
        "noise_var": PROBLEM.noise_var,
        "series": {"baseline": "FISTA", "network": "unfolded ISTA", "guarded": "unfolded OAMP"},
    }  # fmt: skip
