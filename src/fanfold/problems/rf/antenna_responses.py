"""Measured antenna responses: a ring slot from 75 to 110 GHz, whose S-parameters scikit-rf ships. Extra `bench`."""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

DETUNING = 0.02  # standard deviation of an element's resonance, as a share of its frequency


def frequency_responses(count: int) -> Tensor:
    """`1 + Γ(f)` at frequencies spread evenly over the band, `(count,)`, of unit mean power.

    `1 + Γ` is the voltage at the antenna's port for a wave of one that arrives there: Pozar (2012), section 4.3.
    """
    return _unit(_at(torch.linspace(0.02, 0.98, count, dtype=torch.float64)))


def element_responses(generator: torch.Generator, count: int) -> Tensor:
    """`1 + Γ` in the middle of the band of antennas that are out of tune by 2 %, `(count,)`, of unit mean power."""
    band = 35 / 92.5  # the band's width, as a share of its middle
    return _unit(_at(0.5 + DETUNING / band * torch.randn(count, generator=generator, dtype=torch.float64)))


def _at(share: Tensor) -> Tensor:
    """Response at a share of the band, between measured frequencies by straight lines."""
    grid, measured = _measured()
    where = share.clamp(0, 1).numpy()
    return torch.from_numpy(np.interp(where, grid, measured.real) + 1j * np.interp(where, grid, measured.imag))


def _unit(response: Tensor) -> Tensor:
    return response / response.abs().square().mean().sqrt()


@lru_cache(maxsize=1)
def _measured() -> tuple[np.ndarray, np.ndarray]:
    try:
        from skrf.data import ring_slot_meas
    except ImportError as missing:
        raise ImportError("measured antenna responses come with scikit-rf: pip install 'fanfold[bench]'.") from missing
    network = ring_slot_meas
    grid = (network.f - network.f[0]) / (network.f[-1] - network.f[0])
    return grid, 1 + network.s[:, 0, 0]
