"""From an estimator to what runs elsewhere."""

from fanfold.deploy.export import FromMeasurements, FromPairs, to_onnx

__all__ = ["FromMeasurements", "FromPairs", "to_onnx"]
