"""Limits to hold an estimator against."""

from fanfold.bounds.limit import bayes_limit
from fanfold.bounds.oracle import support_oracle
from fanfold.bounds.state_evolution import mmse

__all__ = ["bayes_limit", "mmse", "support_oracle"]
