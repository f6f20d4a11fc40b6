"""Algorithms as networks: unfolding, fixed points, and runs beside what theory says of them."""
