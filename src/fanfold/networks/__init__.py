"""Networks on pictures `(batch, channels, height, width)`: learned denoisers and an end-to-end U-Net."""

from fanfold.networks.context_cnn import ContextCNN
from fanfold.networks.residual_cnn import ResidualCNN
from fanfold.networks.unet import UNet

__all__ = ["ContextCNN", "ResidualCNN", "UNet"]
