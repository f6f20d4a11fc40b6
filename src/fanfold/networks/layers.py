"""Layers whose weights come from a generator: no network touches the global random state."""

import math

import torch
from torch import Tensor, nn


def started(layer: nn.Module, inputs: int, generator: torch.Generator | None) -> nn.Module:
    """A layer whose weights are drawn as in He, Zhang, Ren & Sun (2015), eq. 10.

    Args:
        layer: A layer with a `weight` and a `bias`, which becomes zero.
        inputs: The number of inputs that go into one output.
        generator: The source of the weights; they are zero if None.
    """
    parameters = dict(layer.named_parameters())
    with torch.no_grad():
        if generator is None:
            parameters["weight"].zero_()
        else:
            parameters["weight"].normal_(0, math.sqrt(2 / inputs), generator=generator)
        parameters["bias"].zero_()
    return layer


def silu_with_slope(z: Tensor) -> tuple[Tensor, Tensor]:
    """`z σ(z)` of a tensor of any shape, and the slope of that."""
    on = torch.sigmoid(z)
    value = z * on
    return value, on * (1 + z - value)


def linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A layer of a matrix and a bias, at zero if there is no generator."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    assert isinstance(layer, nn.Linear)
    started(layer, inputs, generator)
    return layer


def conv1(inputs: int, outputs: int, size: int, generator: torch.Generator, stride: int = 1) -> nn.Conv1d:
    """A convolution along a sequence, which keeps the length, over its stride."""
    layer = nn.utils.skip_init(nn.Conv1d, inputs, outputs, size, padding=size // 2, stride=stride)
    assert isinstance(layer, nn.Conv1d)
    started(layer, inputs * size, generator)
    return layer


def conv(inputs: int, outputs: int, size: int, generator: torch.Generator, stride: int = 1) -> nn.Conv2d:
    """A convolution of pictures, which keeps their size, over its stride."""
    layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, padding=size // 2, stride=stride)
    assert isinstance(layer, nn.Conv2d)
    started(layer, inputs * size * size, generator)
    return layer


def zero_conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that starts at zero: what it corrects is left as it is, bit for bit."""
    layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, padding=size // 2)
    assert isinstance(layer, nn.Conv2d)
    started(layer, inputs * size * size, None)
    return layer
