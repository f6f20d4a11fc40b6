"""Networks that form images."""
