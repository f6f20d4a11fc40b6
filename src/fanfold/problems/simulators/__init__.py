"""Simulators as problems: Python functions, programs, and what they have simulated so far."""

from fanfold.problems.simulators.base import Numbered
from fanfold.problems.simulators.parameters import Box, Independent, Parameters, Truncated
from fanfold.problems.simulators.program import Program
from fanfold.problems.simulators.python import BatchSimulator, Simulator
from fanfold.problems.simulators.stored import Simulations

__all__ = [
    "BatchSimulator",
    "Box",
    "Independent",
    "Numbered",
    "Parameters",
    "Program",
    "Simulations",
    "Simulator",
    "Truncated",
]
