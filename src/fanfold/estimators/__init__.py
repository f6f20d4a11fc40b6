"""Estimators: everything that maps an observation to an estimate."""

from fanfold.estimators.lmmse import LMMSE

__all__ = ["LMMSE"]
