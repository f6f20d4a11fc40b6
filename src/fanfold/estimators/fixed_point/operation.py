"""A network in whole numbers as one operation of a trace: what exports writes its program once, and calls it there.

The operation takes the numbers of the network's ports and gives those of its outputs, `(batch, size)` each, in double
precision, which holds them all.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

KEYS = itertools.count()
CALLED: WeakValueDictionary[str, "WholeNumbered"] = WeakValueDictionary()  # networks that were called, by their keys


class Ported(Protocol):
    """What says the ports of whole numbers: the form of a network, or an integer program."""

    @property
    def inputs(self) -> Sequence[Any]:
        """The ports that go in, each with its name and its size."""
        ...

    @property
    def outputs(self) -> Sequence[Any]:
        """The ports that come out."""
        ...


class WholeNumbered(Protocol):
    """What computes in whole numbers, as a trace sees it: a network, or an integer program as an estimator.

    Attributes:
        key: What it is called in a trace; copies, of which a trace makes one too, have it until they are called.
    """

    key: str

    @property
    def form(self) -> Ported:
        """What says its ports."""
        ...

    def said(self, ports: Mapping[str, Tensor]) -> list[Tensor]:
        """The numbers of its outputs, `(batch, size)` each in double precision, for those of its ports."""
        ...


def enter(network: WholeNumbered) -> None:
    """Give a network a key of its own, by which a trace finds it, where it has none."""
    if CALLED.get(network.key) is not network:
        network.key = str(next(KEYS))
        CALLED[network.key] = network


def called_network(key: str) -> WholeNumbered:
    """The network with a key.

    Raises:
        ValueError: If it is gone.
    """
    if key not in CALLED:
        raise ValueError("the network in whole numbers that this program was traced with is gone: trace it anew.")
    return CALLED[key]


def whole_in_trace(network: WholeNumbered, ports: Mapping[str, Tensor]) -> list[Tensor]:
    """What a network says, `(batch, size)` each output, as one operation.

    Args:
        network: The network, or a copy of one that has been called.
        ports: The numbers of its ports, `(batch, size)` each in double precision, by name.

    Example:
        >>> import fanfold as ff, torch
        >>> from fanfold.estimators.fixed_point.operation import whole_in_trace
        >>> problem = ff.problems.CompressedSensing(n=40, m=20)
        >>> net = ff.unfold(ff.algorithms.LISTACP(), problem, 3, {"threshold": "per-layer"})
        >>> x, obs = problem.sample(200, torch.Generator().manual_seed(0))
        >>> whole = ff.estimators.quantised(net, "w8a8", obs)
        >>> said = whole(obs).x
        >>> torch.equal(whole_in_trace(whole, {"y": obs.y.double()})[0].float(), said)
        True
    """
    return whole_numbers(network.key, [ports[port.name] for port in network.form.inputs])


@torch.library.custom_op("fanfold::whole_numbers", mutates_args=())
def whole_numbers(key: str, numbers: Sequence[Tensor]) -> list[Tensor]:
    """The numbers of the outputs of the network with this key, for those of its ports."""
    network = called_network(key)
    return network.said({port.name: values for port, values in zip(network.form.inputs, numbers, strict=True)})


@whole_numbers.register_fake
def _(key: str, numbers: Sequence[Tensor]) -> list[Tensor]:
    return [numbers[0].new_empty(numbers[0].shape[0], port.size) for port in called_network(key).form.outputs]
