"""Radio receivers: OFDM channels, detection, modulation, analogue impairments."""
