"""The integer program of what a trace calls in whole numbers."""

from dataclasses import replace
from typing import Protocol, runtime_checkable

from fanfold.core.abilities import ability, require
from fanfold.deploy.integer.drafting import drafted
from fanfold.deploy.integer.program import IntegerProgram
from fanfold.estimators.base import InWholeNumbers
from fanfold.estimators.fixed_point.operation import called_network

NAME = "whole"  # with a number, of each program within a file


@runtime_checkable
class Programmed(Protocol):
    """An estimator that runs an integer program.

    Attributes:
        program: The program.
    """

    program: IntegerProgram


def program_called(key: str, number: int) -> IntegerProgram:
    """The program of a network in whole numbers, or the one that an estimator runs, by its key in the trace.

    Raises:
        ValueError: If it is gone, or its scales are not chosen yet.
    """
    called, name = called_network(key), f"{NAME}{number}"
    if (network := ability(called, InWholeNumbers)) is not None:
        return drafted(network, name)
    return replace(require(called, Programmed, "a program that calls it").program, name=name)
