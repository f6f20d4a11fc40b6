"""MoDL. Aggarwal, Mani & Jacob (2019), eqs. 9-10: z = x + CNN(x), x ← (AᴴA + λI)⁻¹ (Aᴴy + λz)."""

from collections.abc import Callable

import torch
from torch import nn

from fanfold.core.units import rms
from fanfold.estimators.imaging.back_projection_unet import as_picture, as_signal
from fanfold.networks import ResidualCNN
from fanfold.observation import Estimate, Observation


class MoDL(nn.Module):
    """A CNN and a return to the measurements by turns, all with the same weights.

    The inverse is exact, by the singular values: for a Kronecker product it costs two products with small matrices.

    Args:
        scene: `(height, width)`; the unknowns are its voxels in row-major order.
        image: The estimator that gives the first image.
        lam: λ at the start, in units of the noise variance over `E|x|²`; each layer learns a factor on it.
        layers: How many.
        **shape: `width`, `depth` and `seed` of the `ResidualCNN`.
    """

    def __init__(
        self,
        scene: tuple[int, ...],
        image: Callable[[Observation], Estimate],
        lam: float = 30.0,
        layers: int = 5,
        **shape: int,
    ):
        super().__init__()
        self.scene, self.image, self.lam, self.layers = tuple(scene), image, lam, layers
        self.cnn = ResidualCNN(2, 2, **shape)
        self.scales = nn.Parameter(torch.zeros(layers))

    def forward(self, obs: Observation) -> Estimate:
        """The estimate, `(..., n)`; complex or real as the measurements.

        Raises:
            ValueError: If the operator or the noise variance is unknown.
        """
        if obs.A is None or obs.noise_var is None:
            raise ValueError("MoDL needs the operator A and noise_var; pass both in the Observation.")
        U, d, V = obs.A.svd()
        y, x = U.H @ obs.y, self.image(obs).x
        for scale in self.scales:
            size = rms(x)
            z = x + size * as_signal(self.cnn(as_picture(x / size, self.scene)), x)
            lam = self.lam * scale.exp() * obs.noise_var / size**2
            x = z + V @ (d / (d**2 + lam) * (y - d * (V.H @ z)))
        return Estimate(x)
