"""The networks that times and bits are measured on: 500 unknowns, a Kronecker product, channels of 64 antennas.

Weights are drawn, learned in closed form, or moved a little, as what is measured does not hang on their values.
"""

from collections.abc import Callable
from typing import Any

import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.estimators.ofdm import KroneckerGMM
from fanfold.observation import Observation

SCALARS = ("noise_scale", "v_linear", "v_denoised", "p", "var")
Made = Callable[[], tuple[Any, Observation]]  # a network, and observations of it


@torch.no_grad()
def shaken(net: torch.nn.Module) -> torch.nn.Module:
    """A network whose layers differ a little, as trained ones do: no two of them share their weights."""
    generator = torch.Generator().manual_seed(0)
    for p in net.parameters():
        p += 1e-3 * torch.randn(p.shape, generator=generator)
    return net


def sparse(
    algorithm: Any, layers: int, learn: tuple[str, ...], samples: int = 100, seed: int = 0, **settings: Any
) -> Made:
    """An unfolded algorithm at 250×500, of a problem with further settings."""

    def make() -> tuple[Any, Observation]:
        problem = ff.problems.CompressedSensing(n=500, m=250, **settings)
        net = shaken(ff.unfold(algorithm, problem, layers, dict.fromkeys(learn, "per-layer")))
        return net, problem.sample(samples, generator_of(seed))[1]

    return make


def imaging(samples: int = 100) -> Made:
    """Unfolded OAMP over 32×32 pixels from 24×24 elements, a Kronecker product of complex factors."""

    def make() -> tuple[Any, Observation]:
        problem = ff.problems.RFImaging("gaussian", (32, 32), (24, 24), snr_db=30.0)
        net = shaken(ff.unfold(ff.algorithms.OAMP(problem.prior), problem, 8, dict.fromkeys(SCALARS, "per-layer")))
        return net, problem.sample(samples, generator_of(0))[1]

    return make


def channel(build: Callable[[Any], Any], pilots: str, *, moved: bool = False) -> Made:
    """A channel network for 64 antennas and 48 subcarriers, with pilots such as comb-2, on every second one."""

    def make() -> tuple[Any, Observation]:
        problem = ff.problems.OFDMChannel("kronecker:array=8x8,subcarriers=48", pilots, snr_db=(0.0, 20.0))
        net = build(problem)
        if not isinstance(net, KroneckerGMM):
            net.prepare(*problem.sample(300, generator_of(1)))
            net = shaken(net) if moved else net
        return net, problem.sample(100, generator_of(0))[1]

    return make
