"""From an estimator to what runs elsewhere."""

from fanfold.deploy.export import FromMeasurements, to_onnx

__all__ = ["FromMeasurements", "to_onnx"]
