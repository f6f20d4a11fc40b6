"""From any estimator to a traced program of real tensors: one pass for all, complex numbers becoming pairs."""

from fanfold.deploy.lowering.ports import Port
from fanfold.deploy.lowering.programs import Lowered
from fanfold.deploy.lowering.remembered import LoweredStep
from fanfold.deploy.lowering.traced import lowered

__all__ = ["Lowered", "LoweredStep", "Port", "lowered"]
