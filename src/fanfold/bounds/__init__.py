"""Limits to hold an estimator against."""

from fanfold.bounds.oracle import support_oracle
from fanfold.bounds.state_evolution import bayes_limit, mmse

__all__ = ["bayes_limit", "mmse", "support_oracle"]
