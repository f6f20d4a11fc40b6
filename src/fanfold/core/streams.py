"""Numbered streams of random draws: what is drawn for one purpose never meets what is drawn for another."""

from collections.abc import Generator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch


class Stream(IntEnum):
    """What draws are for; the number is part of their seed, so that a row is added and never changed.

    Example:
        >>> from fanfold.core.streams import Stream, generator_of
        >>> generator_of(0, Stream.TRAINING).initial_seed() == generator_of(0, Stream.TESTING).initial_seed()
        False
    """

    TRAINING = 0
    VALIDATION = 1
    TESTING = 2
    TUNING = 3  # the settings of classical peers
    PREPARATION = 4  # what an estimator learns in closed form
    CALIBRATION = 5  # of intervals and variances
    PROBES = 6  # directions along which a divergence is measured
    SIMULATION = 7  # kept in stores
    POSTERIOR = 8  # samples of a learned posterior
    DROPOUT = 9  # what a step of a training leaves out of a network
    ROUNDS = 10  # of simulations near one observation, those after the first
    SPLIT = 11  # noise that parts an observation in two
    SHIFTED = 12  # what has changed in the world, once for all draws


def generator_of(*numbers: int) -> torch.Generator:
    """A generator whose seed is made of several numbers.

    Raises:
        ValueError: If one is negative.
    """
    if min(numbers) < 0:
        raise ValueError(f"a seed of draws is {min(numbers)}; pass one from 0 on.")
    state = np.random.SeedSequence([int(number) for number in numbers]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@contextmanager
def chance_of(*numbers: int) -> Generator[None]:
    """A block in which torch's global generators, which dropout draws from, have a seed made of several numbers."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(generator_of(*numbers).initial_seed())
        yield
