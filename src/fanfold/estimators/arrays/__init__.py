"""Estimators of directions and of an array's responses."""
