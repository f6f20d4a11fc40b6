"""Calls of an estimator in each backend, for the first sample of an example."""

import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fanfold.deploy.export import write_onnx
from fanfold.deploy.integer import CompiledProgram, IntegerProgram, in_single_precision, program_to_onnx
from fanfold.deploy.lowering import Lowered, lowered
from fanfold.observation import Estimator, Observation

NEEDS: dict[str, tuple[str, ...]] = {  # packages of each backend
    "eager": (),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "c": (),
    "openvino": ("openvino", "onnx", "onnxscript"),
}


def missing(backend: str) -> list[str]:
    """The packages that a backend needs and that are not installed."""
    return [name for name in NEEDS[backend] if find_spec(name) is None]


def _eager(estimator: Estimator, example: Observation) -> Callable[[], object]:
    one = example[:1]
    return lambda: estimator(one)


def _session(path: Path, *, reuse: bool = True) -> Any:
    """An ONNX file in ONNX Runtime, on one thread of the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.enable_mem_reuse = reuse
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _onnx(estimator: Estimator, example: Observation) -> Callable[[], object]:
    low = lowered(estimator, example)
    with tempfile.TemporaryDirectory() as folder:
        session = _session(write_onnx(low, Path(folder) / "estimator.onnx"))
    inputs = _arguments(low, example)
    return lambda: session.run(None, inputs)


def _openvino(estimator: Estimator, example: Observation) -> Callable[[], object]:
    low = lowered(estimator, example)
    with tempfile.TemporaryDirectory() as folder:
        request = _request(write_onnx(low, Path(folder) / "estimator.onnx"))
    inputs = _arguments(low, example)
    return lambda: request.infer(inputs, share_inputs=True)


def _request(path: Path) -> Any:
    """An ONNX file in OpenVINO, on one thread and in single precision."""
    import openvino  # pyrefly: ignore

    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()


def _arguments(low: Lowered, example: Observation) -> dict[str, np.ndarray]:
    """The inputs of the first sample, by name."""
    return {port.name: t.numpy() for port, t in zip(low.inputs, low.arguments(example[:1]), strict=True)}


RUNNERS: dict[str, Callable[[Estimator, Observation], Callable[[], object]]] = {
    "eager": _eager,
    "onnx": _onnx,
    "openvino": _openvino,
}


def _integer_c(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
    return CompiledProgram(program).prepared(inputs)


def _integer_onnx(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
    with tempfile.TemporaryDirectory() as folder:
        # each value has memory of its own: some 5 % faster for hundreds of small ones
        session = _session(program_to_onnx(program, Path(folder) / "estimator.onnx"), reuse=False)
    binding = session.io_binding()  # buffers that stay, as the C has them
    for name, values in inputs.items():
        binding.bind_cpu_input(name, values)
    for port in program.outputs:
        binding.bind_output(port.name)
    return lambda: session.run_with_iobinding(binding)


def _integer_openvino(program: IntegerProgram, inputs: Mapping[str, np.ndarray]) -> Callable[[], object]:
    with tempfile.TemporaryDirectory() as folder:  # it has no double precision
        request = _request(program_to_onnx(in_single_precision(program), Path(folder) / "estimator.onnx"))
    return lambda: request.infer(inputs, share_inputs=True)


INTEGER_RUNNERS: dict[str, Callable[[IntegerProgram, Mapping[str, np.ndarray]], Callable[[], object]]] = {
    "c": _integer_c,
    "onnx": _integer_onnx,
    "openvino": _integer_openvino,
}
