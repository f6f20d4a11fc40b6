"""From an estimator to what runs elsewhere: its export, and what one call of it costs."""

from fanfold.deploy.cost import Latency, call_costs, latency_us, multiply_accumulates, stored_numbers
from fanfold.deploy.export import FromMeasurements, FromPairs, to_onnx
from fanfold.deploy.memory import PeakMemory

__all__ = [
    "FromMeasurements",
    "FromPairs",
    "Latency",
    "PeakMemory",
    "call_costs",
    "latency_us",
    "multiply_accumulates",
    "stored_numbers",
    "to_onnx",
]


def __dir__() -> list[str]:
    return __all__
