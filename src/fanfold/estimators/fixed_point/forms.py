"""What an estimator computes in whole numbers: its form, written once in operations that torch and programs read."""

import math
from collections.abc import Mapping
from functools import singledispatch
from typing import Any, Literal, NamedTuple, Protocol

from torch import Tensor, nn

from fanfold.estimators.fixed_point.shaped import ShapedArithmetic
from fanfold.estimators.fixed_point.values import Scaled
from fanfold.observation import Estimator, Observation


class FormPort(NamedTuple):
    """What goes in or comes out of a form.

    Example:
        >>> from fanfold.estimators.fixed_point.forms import FormPort
        >>> FormPort("y", (250,)).size
        250
    """

    name: str
    shape: tuple[int, ...]  # complex numbers are pairs on a last axis of 2
    layout: Literal["real", "iq"] = "real"
    unit: str = "1"

    @property
    def size(self) -> int:
        """How many whole numbers it has."""
        return math.prod(self.shape)


class IntegerForm(Protocol):
    """The layers of one network, in whole numbers."""

    @property
    def constants(self) -> Mapping[str, Tensor]:
        """What is computed of the operator in floating point, and kept, so that it is the same bits everywhere."""
        ...

    @property
    def inputs(self) -> tuple[FormPort, ...]:
        """What goes in: `y`, and `noise_var` where the network takes it."""
        ...

    @property
    def outputs(self) -> tuple[FormPort, ...]:
        """What comes out: `x_hat`, and `var` where the network knows it."""
        ...

    @property
    def for_one_noise_var(self) -> bool:
        """Whether it is made for one noise variance, that of the observations on which its scales are chosen."""
        ...

    def numbers(self, obs: Observation) -> Mapping[str, Tensor]:
        """The numbers of each port that goes in, `(..., *shape)`, complex where it holds pairs.

        Raises:
            ValueError: If the observation does not fit the network.
        """
        ...

    def written(self, arithmetic: ShapedArithmetic[Any]) -> Mapping[str, Scaled[Any]]:
        """The layers, with the weights that the network has now, in these operations: the value of each output."""
        ...


@singledispatch
def integer_form(network: nn.Module) -> IntegerForm:
    """The form of a network in whole numbers; a kind of network is registered beside its form.

    Raises:
        ValueError: If it has none; the error names what has.
    """
    raise ValueError(
        f"{type(network).__name__} has no integer form yet; {', '.join(sorted(FORMS))} have. Leave out quantise, or "
        "take one of these."
    )


@singledispatch
def as_network(estimator: Estimator, problem: Any) -> nn.Module | None:
    """An estimator as a network for a problem, which forms are of; None where it is none.

    A classical one that can be had as a network which learns nothing is registered beside its form.
    """
    return estimator if isinstance(estimator, nn.Module) else None


FORMS: set[str] = set()  # what has a form, for whoever asks for another
