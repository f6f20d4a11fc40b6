"""From an estimator to what runs elsewhere: its export, and what a call costs. Programs of whole numbers: `integer`."""

from fanfold.deploy import integer as integer
from fanfold.deploy.codegen import CFiles, CompiledC, compile_shared, compiled, to_c, to_wasm
from fanfold.deploy.cost import Timing, call_costs, latency_us, multiply_accumulates, stored_numbers
from fanfold.deploy.export import FromMeasurements, to_onnx
from fanfold.deploy.latency import BackendLatency, slot_budget_us, time_backends
from fanfold.deploy.lowering import Lowered, LoweredStep, Port, lowered
from fanfold.deploy.memory import PeakMemory
from fanfold.deploy.release import certify_release, read_profile, verify_bundle
from fanfold.deploy.with_intervals import WithIntervals

__all__ = [
    "BackendLatency",
    "CFiles",
    "CompiledC",
    "FromMeasurements",
    "Lowered",
    "LoweredStep",
    "PeakMemory",
    "Port",
    "Timing",
    "WithIntervals",
    "call_costs",
    "certify_release",
    "compile_shared",
    "compiled",
    "latency_us",
    "lowered",
    "multiply_accumulates",
    "read_profile",
    "slot_budget_us",
    "stored_numbers",
    "time_backends",
    "to_c",
    "to_onnx",
    "to_wasm",
    "verify_bundle",
]


def __dir__() -> list[str]:
    return __all__
