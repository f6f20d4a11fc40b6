"""Scenes as pictures: their height and width, and the way to channels of a CNN and back."""

from typing import TypeVar

import torch
from torch import Tensor, nn

from fanfold.core.abilities import ability
from fanfold.linops import LinearOperator
from fanfold.problems.protocols import WithScene
from fanfold.unfolding.unfold import HasOperator

Net = TypeVar("Net", bound=nn.Module)


def scene_of(carrier: HasOperator, given: tuple[int, ...] | None) -> tuple[int, int]:
    """The height and width of a scene: as given, else as the problem says, without axes of one voxel.

    Raises:
        ValueError: If nobody says, or the scene is not made of the operator's unknowns.
    """
    scene = given
    if scene is None:
        problem = ability(carrier, WithScene)
        scene = None if problem is None else problem.scene
        if scene is None:
            raise ValueError(
                f"{type(carrier).__name__} does not say how its unknowns make a scene; pass scene=(height, width), "
                "which settings call voxels and the command line --voxels HEIGHT WIDTH."
            )
        if len(scene) > 2:
            scene = tuple(count for count in scene if count > 1)
    n = None if carrier.A is None else carrier.A.n
    if len(scene) != 2 or n is None or scene[0] * scene[1] != n:
        raise ValueError(f"the scene is {tuple(scene)} but A has {n} unknowns; pass (height, width).")
    height, width = scene
    return height, width


def check_scene(x: Tensor, scene: tuple[int, ...]) -> None:
    """Refuse an image that is not of the scene.

    Raises:
        ValueError: If it has another number of voxels.
    """
    if x.shape[-1] != torch.Size(scene).numel():
        raise ValueError(
            f"A has {x.shape[-1]} unknowns and this network was made for scenes of {scene[0]} x {scene[1]} voxels; use "
            "that A, or build and train for this one."
        )


def like_operator(net: Net, A: LinearOperator) -> Net:
    """The network with its weights in the precision of an operator, and on its device; changed in place."""
    net.to(A.device)
    for parameter in net.parameters():
        parameter.data = parameter.data.to(A.dtype.to_real())
    return net


def as_picture(x: Tensor, scene: tuple[int, ...]) -> Tensor:
    """Complex or real `(..., n)` -> real `(batch, 2, height, width)`; the second channel is zero where x is real."""
    pair = torch.stack([x.real, x.imag if x.is_complex() else torch.zeros_like(x)], -2)
    return pair.reshape(-1, 2, *scene)


def as_signal(picture: Tensor, like: Tensor) -> Tensor:
    """Back from `(batch, 2, height, width)` to the shape and kind of the signal it was made of."""
    real, imag = (part.reshape(like.shape) for part in picture.flatten(2).unbind(1))
    return torch.complex(real, imag) if like.is_complex() else real


def through(net: nn.Module, x: Tensor, scene: tuple[int, ...]) -> Tensor:
    """What a network of pictures makes of a signal `(..., n)`, in the signal's precision, whatever the network's."""
    weights = next(net.parameters())
    return as_signal(net(as_picture(x, scene).to(weights.dtype)).to(x.real.dtype), x)
