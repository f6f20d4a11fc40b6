"""From any estimator to a traced program of real tensors: one pass for all, complex numbers becoming pairs."""

from fanfold.deploy.lowering.ports import Port
from fanfold.deploy.lowering.traced import Lowered, lowered

__all__ = ["Lowered", "Port", "lowered"]
