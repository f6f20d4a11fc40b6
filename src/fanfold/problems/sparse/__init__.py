"""Sparse recovery and other linear measurements of one vector."""
