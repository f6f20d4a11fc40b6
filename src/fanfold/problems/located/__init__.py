"""Sources at unknown places: tones, delays, directions."""
