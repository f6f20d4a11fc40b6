"""Convolutions whose weights come from a generator: no network touches the global random state."""

import math

import torch
from torch import nn


def conv(inputs: int, outputs: int, size: int, generator: torch.Generator) -> nn.Conv2d:
    """A convolution that keeps the picture's size, started as in He, Zhang, Ren & Sun (2015), eq. 10."""
    layer = zero_conv(inputs, outputs, size)
    with torch.no_grad():
        layer.weight.normal_(0, math.sqrt(2 / (inputs * size * size)), generator=generator)
    return layer


def zero_conv(inputs: int, outputs: int, size: int) -> nn.Conv2d:
    """A convolution that starts at zero: what it corrects is left as it is, bit for bit."""
    layer = nn.utils.skip_init(nn.Conv2d, inputs, outputs, size, padding=size // 2)
    assert isinstance(layer, nn.Conv2d)
    assert layer.bias is not None
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    return layer
