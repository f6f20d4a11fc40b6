"""Calls of an estimator in each backend, for the first sample of an example."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fanfold.deploy.export import to_onnx
from fanfold.deploy.lowering import Lowered, lowered
from fanfold.observation import Estimator, Observation

NEEDS = {
    "eager": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "c": (),
    "openvino": ("openvino", "onnx", "onnxscript"),
}


def _eager(estimator: Estimator, example: Observation) -> Callable[[], object]:
    one = example[:1]
    return lambda: estimator(one)


def _arguments(low: Lowered, example: Observation) -> dict[str, np.ndarray]:
    return {port.name: t.numpy() for port, t in zip(low.inputs, low.arguments(example[:1]))}


def _onnx(estimator: Estimator, example: Observation) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    with tempfile.TemporaryDirectory() as folder:
        path = to_onnx(estimator, example, Path(folder) / "estimator.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = _arguments(lowered(estimator, example, batch=1), example)
    inputs = {node.name: given[node.name] for node in session.get_inputs()}
    return lambda: session.run(None, inputs)


def _openvino(estimator: Estimator, example: Observation) -> Callable[[], object]:
    import openvino  # pyrefly: ignore

    with tempfile.TemporaryDirectory() as folder:
        path = to_onnx(estimator, example, Path(folder) / "estimator.onnx")
        core = openvino.Core()
        model = core.compile_model(
            str(path),
            "CPU",
            {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"},
        )
    given = _arguments(lowered(estimator, example, batch=1), example)
    request = model.create_infer_request()
    inputs = {port.any_name: given[port.any_name] for port in model.inputs}
    return lambda: request.infer(inputs, share_inputs=True)


RUNNERS: dict[str, Callable[[Estimator, Observation], Callable[[], object]]] = {
    "eager": _eager,
    "onnx": _onnx,
    "openvino": _openvino,
}
