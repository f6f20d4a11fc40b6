"""Channel estimators for OFDM: classical, mixtures and learned ones. A new one is a file here and a row below."""

from fanfold.estimators.ofdm.beam_wiener import BeamWiener
from fanfold.estimators.ofdm.noise_variance import NoiseVariance

__all__ = ["BeamWiener", "NoiseVariance"]
