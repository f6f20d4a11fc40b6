"""Measuring estimators: sweeps over conditions, their classical peers, scores of intervals, coded links."""
