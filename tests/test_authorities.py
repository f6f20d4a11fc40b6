"""Programs that others wrote say the same: OpenVINO, a second compiler of ONNX, and ONNX Runtime, optimised and not.

Each is skipped where it is not installed; `pip install 'fanfold[authorities]'` installs them.
"""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import fanfold as ff
from fanfold.core.streams import generator_of
from fanfold.deploy import time_backends
from fanfold.deploy.export import write_onnx
from fanfold.deploy.integer import (
    Draft,
    IntegerProgram,
    in_single_precision,
    play,
    program_to_onnx,
    to_integers,
)
from fanfold.deploy.lowering import lowered
from fanfold.estimators import quantised
from integer_programs import all_shown, random_inputs
from machines import need
from runtime import check_near

pytestmark = pytest.mark.filterwarnings("ignore")  # of packages that others wrote
PROBLEM = ff.problems.CompressedSensing(n=60, m=30, snr_db=30.0)
LEARN = {
    "lista-cp": (ff.algorithms.LISTACP(0.3), {"W": "per-layer", "threshold": "per-layer vector"}),
    "alista": (ff.algorithms.ALISTA(), {"step": "per-layer", "threshold": "per-layer"}),
    "alista-at": (ff.algorithms.ALISTAAT(), {"alpha": "per-layer", "ridge": "per-layer"}),
}
PROGRAMS = [("lista-cp", True), ("lista-cp", False), ("alista", True), ("alista", False), ("alista-at", True)]
IN_SOURCE = ["--large-weight-threshold", "0", "--large-temp-threshold", "0"]  # arrays in the source, no malloc


def network(name: str) -> ff.unfolding.Unfolded:
    """A network with layers that differ, as if it had learned."""
    algorithm, learn = LEARN[name]
    net = ff.unfold(algorithm, PROBLEM, 3, learn)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.01 * torch.randn(p.shape, generator=generator_of(3))
    return net


@pytest.fixture(scope="module", params=PROGRAMS, ids=str)
def program(request) -> IntegerProgram:
    """With products of bytes, and with products in floating point."""
    name, fit = request.param
    return to_integers(network(name), PROBLEM.sample(200, generator_of(1))[1], "w8a8", pairs_fit=fit)


def inputs_of(program: IntegerProgram, count: int) -> np.ndarray:
    """Measurements as they come, and the ends of their type."""
    y = program.inputs[0].integers(PROBLEM.sample(count, generator_of(2))[1].y.double().numpy())
    return np.concatenate([y, random_inputs(program, 40, 0)["y"]])


@pytest.mark.parametrize("level", ["ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"])
def test_onnx_runtime_gives_the_bits_however_it_optimises(program, tmp_path, level):
    y, options = inputs_of(program, 200), onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    path = program_to_onnx(program, tmp_path / "p.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    assert np.array_equal(session.run(None, {"y": y})[0], play(program, {"y": y})["x_hat"])


def in_openvino(path: Path, **inputs: np.ndarray) -> np.ndarray:
    """The first output of a file in OpenVINO, on one thread, in single precision."""
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    return openvino.Core().compile_model(str(path), "CPU", settings)(inputs)[0]


def test_openvino_gives_the_bits(program, tmp_path):
    y = inputs_of(program, 200)
    said = in_openvino(program_to_onnx(program, tmp_path / "p.onnx"), y=y)
    assert np.array_equal(said, play(program, {"y": y})["x_hat"])


@pytest.mark.parametrize("row", ["v", "y"])  # one for all entries, and one for each
def test_the_row_of_a_bank_that_a_value_picks_is_the_same_in_openvino(row, tmp_path):
    draft, rng = Draft("p"), np.random.default_rng(1)
    y, v = draft.input("y", (6,), "int8"), draft.input("v", (1,), "int8")
    picked = draft.bank(y, {"v": v, "y": y}[row], np.array([-50, 0, 40]), -128, rng.integers(-100, 100, (4, 256)))
    draft.output(draft.add(picked, v, name="x_hat"), (6,))
    program = draft.finish()
    inputs = random_inputs(program, 40, 0)
    said = in_openvino(program_to_onnx(program, tmp_path / "p.onnx"), **inputs)
    assert np.array_equal(said, play(program, inputs)["x_hat"])


def test_a_program_of_all_operations_has_its_bits_in_openvino_where_no_number_needs_double_precision(tmp_path):
    openvino = pytest.importorskip("openvino")
    program = all_shown()
    assert any(row.carrier == "float64" for row in program.proof.rows)
    path = program_to_onnx(in_single_precision(program), tmp_path / "p.onnx")
    inputs = random_inputs(program, 60, 0)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    said = openvino.Core().compile_model(str(path), "CPU", settings)(inputs)
    for place, (name, wanted) in enumerate(play(program, inputs).items()):
        assert np.array_equal(said[place], wanted), name


@pytest.mark.parametrize("name", ["lista-cp", "alista"])
def test_openvino_says_what_torch_says(name, tmp_path):
    net, (_, obs) = network(name), PROBLEM.sample(20, generator_of(2))
    with torch.no_grad():
        low, wanted = lowered(net, obs), net(obs).x
    inputs = {port.name: value.numpy() for port, value in zip(low.inputs, low.arguments(obs), strict=True)}
    check_near(torch.from_numpy(in_openvino(write_onnx(low, tmp_path / "net.onnx"), **inputs)), wanted)


def test_openvino_is_timed():
    pytest.importorskip("openvino")
    _, obs = PROBLEM.sample(3, generator_of(0))
    for net in (network("lista-cp"), quantised(network("lista-cp"), "w8a12", obs)):
        (row,) = time_backends(net, obs, ["openvino"], calls=20)
        assert row.timing is not None, row.note
        assert row.timing.calls == 20


def in_second_compiler(path: Path, y: np.ndarray, size: int) -> np.ndarray:
    """What the C of another compiler of ONNX gives for each sample, `(batch, size)` in int16."""
    compiler = pytest.importorskip("emx_onnx_cgen.cli", reason="needs emx-onnx-cgen")
    need("gcc")
    source, library = path.with_name("other.c"), path.with_name("o.so")
    options = [*IN_SOURCE, "--model-name", "other", "--input-dim", "batch=1"]
    assert compiler.main(["compile", *options, str(path), str(source)]) == 0
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1", "-shared", "-fPIC"]
    command = ["gcc", *flags, str(source), "-o", str(library), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    function, said = ctypes.CDLL(str(library))["other"], np.zeros((len(y), size), np.int16)
    for one, result in zip(y, said, strict=True):
        function(ctypes.c_void_p(one.ctypes.data), ctypes.c_void_p(result.ctypes.data))
    return said


def test_a_second_compiler_of_onnx_gives_the_bits(program, tmp_path):
    y = inputs_of(program, 100)
    said = in_second_compiler(program_to_onnx(program, tmp_path / "p.onnx"), y, PROBLEM.n)
    assert np.array_equal(said, play(program, {"y": y})["x_hat"])
