"""A U-Net on a linear image. Jin, McCann, Froustey & Unser (2017), "FBPConvNet": x̂ = U-Net(image(y))."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from fanfold.core.units import rms
from fanfold.estimators.linear.image import white_lmmse
from fanfold.networks import UNet
from fanfold.observation import Estimate, Observation


class BackProjectionUNet(nn.Module):
    """What a network makes of a linear image of the scene, without another look at the measurements.

    Scale-equivariant with the back-projection; with the LMMSE image up to the ratio of signal and noise that it knows.

    Args:
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        signal_var: `E|x|²`, which the LMMSE image takes for that of every voxel.
        image: The stronger input is the LMMSE image; `Aᴴ y` has neither noise nor resolution put right. Or any other
            estimator.
        **shape: `width`, `levels`, `groups` and `seed` of the `UNet`.
    """

    def __init__(
        self,
        scene: tuple[int, ...],
        signal_var: float,
        image: Literal["lmmse", "back-projection"] | Callable[[Observation], Estimate] = "lmmse",
        **shape: int,
    ):
        super().__init__()
        self.scene, self.signal_var, self.image = tuple(scene), signal_var, image
        self.net = UNet(2, 2, **shape)

    def forward(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`; complex or real as the measurements."""
        assert obs.A is not None
        if callable(self.image):
            x = self.image(obs).x
        else:
            x = white_lmmse(obs, self.signal_var).x if self.image == "lmmse" else obs.A.H @ obs.y
        scale = rms(x)
        return Estimate(scale * as_signal(self.net(as_picture(x / scale, self.scene)), x))


def as_picture(x: Tensor, scene: tuple[int, ...]) -> Tensor:
    """Complex or real `(..., n)` -> real `(batch, 2, height, width)`; the second channel is zero where x is real."""
    pair = torch.stack([x.real, x.imag if x.is_complex() else torch.zeros_like(x)], -2)
    return pair.reshape(-1, 2, *scene)


def as_signal(picture: Tensor, like: Tensor) -> Tensor:
    """Back from `(batch, 2, height, width)` to the shape and kind of the signal it was made of."""
    real, imag = (part.reshape(like.shape) for part in picture.flatten(2).unbind(1))
    return torch.complex(real, imag) if like.is_complex() else real
